"""Refine labels block by block: classes, smooth borders and a mask first, then holes and specks.

What needs whole objects (holes, specks) is decided on the table of objects and painted in a last pass. Memory
holds one block, with as many voxels around it as there are rounds of smoothing, and one row for each object.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import Stages
from vemseg.context import Context
from vemseg.errors import InputError
from vemseg.geometry import Box
from vemseg.objects.absorbing import filled, homes, meetings
from vemseg.objects.blockwise import Blocks, begin, block_shape, grown, markers_of, read_classes, walk
from vemseg.objects.components import Found, Wish, find_objects, paint
from vemseg.objects.majority import smoothed
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
    rounds = refinement.smooth

    def read(box: Box) -> Parts:
        wide = grown(box, rounds).clip(labels.volume.box)
        found = read_classes(labels.volume, wide)
        if (strange := np.flatnonzero(np.bincount(found.reshape(-1), minlength=length) * ~known)).size:
            raise InputError(
                f"{labels.volume.address} holds the label {strange[0]}, which its own list of classes lacks: "
                "the file was changed after it was written, so make it again"
            )
        return found, labels.inside(box)

    def compute(box: Box, parts: Parts) -> NDArray[np.integer]:
        found, inside = parts
        wide = grown(box, rounds).clip(labels.volume.box)
        turned = smoothed(new[found], rounds)[box.relative_to(wide).slices]
        return turned if inside is None else np.where(inside, turned, turned.dtype.type(0))

    stages = Stages(read, compute, _writer(store))
    blocks = Blocks(store.box, store.block_shape)
    counts = walk(blocks, stages, markers_of(store.directory), "refining", context)
    return _summed(counts)


def _final_classes(found: Found, least: int, folder: Path, context: Context) -> NDArray[np.int64]:
    """Give each object its number in a volume of its own; return the class that it gets, (n + 1,)."""
    objects = begin(folder / "objects", found.parts, "uint32", found.blocks.shape)
    paint(found, objects, context)
    classes = np.append(0, found.classes)
    specks = np.append(False, (found.classes > 0) & (found.bodies.voxels < least))
    holes = np.append(False, (found.classes == 0) & ~found.bodies.touching(objects.shape))
    pairs = meetings(objects, specks | holes, folder / "met", found.blocks, context)
    return filled(classes, holes, homes(classes, specks, pairs), pairs)


def _paint(
    labels: Labels, of: NDArray[np.integer], objects: Path, store: LabelStore, context: Context
) -> NDArray[np.int64]:
    """Write the class of the object at every voxel, again only inside the mask."""
    numbered = LabelStore.open(objects)

    def read(box: Box) -> Parts:
        return numbered.read(box), labels.inside(box)  # type: ignore[return-value]

    def compute(box: Box, parts: Parts) -> NDArray[np.integer]:
        numbers, inside = parts
        painted: NDArray[np.integer] = of[numbers]
        return painted if inside is None else np.where(inside, painted, painted.dtype.type(0))

    stages = Stages(read, compute, _writer(store))
    blocks = Blocks(store.box, store.block_shape)
    counts = walk(blocks, stages, markers_of(store.directory), "cleaning", context)
    return _summed(counts)


def _listed(labels: Sequence[int]) -> str:
    return " and ".join(map(str, labels))


def _summed(counts: Sequence[Sequence[int] | None]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = np.sum(np.array(counts, np.int64), axis=0)
    return total


def _writer(store: LabelStore) -> Callable[[Box, NDArray[np.integer]], list[int]]:
    """Return what writes a block of classes, and returns the voxels of each number that they may have."""
    size = 256**store.dtype.itemsize

    def write(box: Box, classes: NDArray[np.integer]) -> list[int]:
        store.write(box, classes)
        counted: list[int] = np.bincount(classes.reshape(-1), minlength=size).tolist()
        return counted

    return write
