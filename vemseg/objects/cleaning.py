"""Refine labels block by block: classes, smooth borders and a mask first, then holes and specks.

What needs whole objects (holes, specks) is decided on the table of objects and painted in a last pass. Memory
holds one block, with as many voxels around it as there are rounds of smoothing, and one row for each object.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import run
from vemseg.context import Context
from vemseg.errors import InputError
from vemseg.geometry import Box
from vemseg.objects.absorbing import filled, homes, meetings
from vemseg.objects.blockwise import (
    Blocks,
    Pass,
    begin,
    block_shape,
    grown,
    markers_of,
    passing,
    read_classes,
)
from vemseg.objects.components import Found, Wish, find_objects, paint
from vemseg.objects.majority import smoothed, voters_of
from vemseg.objects.refinement import Class, Refinement
from vemseg.volume import LabelStore, Volume

_log = logging.getLogger("vemseg")

Parts = tuple[NDArray[np.integer], NDArray[np.bool_] | None]
"""A block of labels, and where its mask is above 0 if there is one."""


@dataclass(frozen=True)
class Labels:
    """The labels that are refined.

    Attributes
    ----------
    volume : Volume
    mask : Volume or None
        Of the same shape; where it is not above 0, labels become 0.
    """

    volume: Volume
    mask: Volume | None

    def inside(self, box: Box) -> NDArray[np.bool_] | None:
        """Return where a box lies in the mask; None without a mask."""
        return None if self.mask is None else np.greater(self.mask.read(box), 0)


def clean(
    labels: Labels, refinement: Refinement, classes: Sequence[Class], target: Path, context: Context
) -> tuple[LabelStore, NDArray[np.int64]]:
    """Refine labels.

    Parameters
    ----------
    labels : Labels
    refinement : Refinement
    classes : sequence of Class
        What comes out (``Refinement.classes``).
    target : Path
        Where the store of the refined labels grows; what else helps to go on lies beside it.
    context : Context

    Returns
    -------
    LabelStore
        uint8, or uint16 where a class has a number above 255.
    int64 (largest number + 1,)
        The voxels of each number.

    Raises
    ------
    InputError
        Where a class has too large a number, or the mask another shape.
    ResourceError
        Where the memory is not enough for the smallest block.
    Interrupted
        Where the work was stopped.
    """
    shape = block_shape(context.limit)
    folder, cleans = target.parent, refinement.fill or refinement.least is not None
    most = max((one.label for one in classes), default=0)
    dtype = "uint8" if most <= np.iinfo(np.uint8).max else "uint16"
    turned = begin(folder / "turned" if cleans else target, labels.volume, dtype, shape)
    _log.info("%s", "; ".join(f"{one.label} {one.name}, from {_listed(one.made_of)}" for one in classes))
    counts = _turn(labels, refinement, classes, turned, context)
    if cleans:
        least = refinement.least and refinement.least.voxels(labels.volume.voxel_size)
        found = find_objects(turned, folder, Wish(holes=refinement.fill, contacts=False), context)
        of = _final_classes(found, least or 0, folder, context).astype(turned.dtype)
        store = begin(target, labels.volume, dtype, shape)
        return store, _paint(labels, of, folder / "objects", store, context)
    return turned, counts


def _turn(
    labels: Labels, refinement: Refinement, classes: Sequence[Class], store: LabelStore, context: Context
) -> NDArray[np.int64]:
    """Give each voxel its new class, smooth, and empty what lies outside the mask."""
    length = int(np.iinfo(np.uint16).max) + 1
    new = np.zeros(length, store.dtype)
    for one in classes:
        new[list(one.made_of)] = one.label
    known = np.isin(np.arange(length), [0, *refinement.numbers, *(k for one in classes for k in one.made_of)])
    first = passing(Blocks(store.box, store.block_shape), markers_of(store.directory), "refining")
    return _summed(run(_Turning(*first, labels, store, new, known, refinement.smooth), context))


def _final_classes(found: Found, least: int, folder: Path, context: Context) -> NDArray[np.int64]:
    """Give each object its number in a volume of its own; return the class that it gets, (n + 1,)."""
    objects = begin(folder / "objects", found.parts, "uint32", found.blocks.shape)
    paint(found, objects, context)
    classes = np.append(0, found.classes)
    specks = np.append(False, (found.classes > 0) & (found.bodies.voxels < least))
    holes = np.append(False, (found.classes == 0) & ~found.bodies.touching(objects.shape))
    pairs = meetings(objects, specks | holes, folder / "faces", found.blocks, context)
    return filled(classes, holes, homes(classes, specks, pairs, found.parts.voxel_size), pairs)


def _paint(
    labels: Labels, of: NDArray[np.integer], objects: Path, store: LabelStore, context: Context
) -> NDArray[np.int64]:
    """Write the class of the object at every voxel, again only inside the mask."""
    first = passing(Blocks(store.box, store.block_shape), markers_of(store.directory), "cleaning")
    return _summed(run(_Cleaning(*first, labels, store, LabelStore.open(objects), of), context))


def _listed(labels: Sequence[int]) -> str:
    return " and ".join(map(str, labels))


def _summed(counts: Sequence[Sequence[int] | None]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = np.sum(np.array(counts, np.int64), axis=0)
    return total


@dataclass(frozen=True)
class _Classing(Pass[Parts, NDArray[np.integer]]):
    """A pass that writes classes; its markers keep the voxels of each number that they may have."""

    labels: Labels
    store: LabelStore

    def compute(self, box: Box, given: Parts) -> NDArray[np.integer]:
        numbers, inside = given
        classes = self.classes(box, numbers)
        return classes if inside is None else np.where(inside, classes, classes.dtype.type(0))

    @abstractmethod
    def classes(self, box: Box, numbers: NDArray[np.integer]) -> NDArray[np.integer]:
        """Return the classes of a block from what was read for it."""

    def write(self, box: Box, made: NDArray[np.integer]) -> list[int]:
        self.store.write(box, made)
        counted: list[int] = np.bincount(made.reshape(-1), minlength=256**self.store.dtype.itemsize).tolist()
        return counted


@dataclass(frozen=True)
class _Turning(_Classing):
    """Give voxels their new classes (``new``, by the old ones), smooth; only ``known`` ones may occur."""

    new: NDArray[np.integer]
    known: NDArray[np.bool_]
    rounds: int

    def read(self, box: Box) -> Parts:
        volume = self.labels.volume
        found = read_classes(volume, self._wide(box))
        present = np.bincount(found.reshape(-1), minlength=len(self.known))
        if (strange := np.flatnonzero(present * ~self.known)).size:
            raise InputError(
                f"{volume.address} holds the label {strange[0]}, which its own list of classes lacks: "
                "the file was changed after it was written, so make it again"
            )
        return found, self.labels.inside(box)

    def classes(self, box: Box, numbers: NDArray[np.integer]) -> NDArray[np.integer]:
        wide = smoothed(self.new[numbers], self.rounds, voters_of(self.labels.volume.voxel_size))
        return wide[box.relative_to(self._wide(box)).slices]

    def _wide(self, box: Box) -> Box:
        volume = self.labels.volume
        return grown(box, self.rounds, voters_of(volume.voxel_size)).clip(volume.box)


@dataclass(frozen=True)
class _Cleaning(_Classing):
    """Give voxels the final class (``of``) of the object that they belong to."""

    objects: LabelStore
    of: NDArray[np.integer]

    def read(self, box: Box) -> Parts:
        return self.objects.read(box), self.labels.inside(box)  # type: ignore[return-value]

    def classes(self, box: Box, numbers: NDArray[np.integer]) -> NDArray[np.integer]:
        classes: NDArray[np.integer] = self.of[numbers]
        return classes
