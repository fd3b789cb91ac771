"""Specks and holes, and what they become: decided on objects and their contacts, not on voxels.

A speck is an object of fewer voxels than wanted. It goes to the object beside it, of the class that it shares
the largest area with, in faces of voxels; where no voxel size is known, all faces are alike. Objects that are
specks themselves are no home until they have found one. A hole is a connected part of label 0 that does not
reach the border of the volume, and meets one class only: that class fills it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import run
from vemseg.context import Context
from vemseg.geometry import Box, VoxelSize
from vemseg.objects.blockwise import OUTSIDE, Blocks, Pass, passing, read_around
from vemseg.run import load_tensors, save_tensors
from vemseg.volume import LabelStore

FACES = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
"""The steps to the next voxels that share a face."""


@dataclass(frozen=True)
class Pairs:
    """Which objects meet which, and in how many faces; 0 is nothing.

    Attributes
    ----------
    one, other : int64 (p,)
    faces : int64 (p, 3)
        By the axis that they lie across, z y x.
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    faces: NDArray[np.int64]

    @classmethod
    def total(cls, one: NDArray[np.int64], other: NDArray[np.int64], faces: NDArray[np.int64]) -> Pairs:
        """Return pairs with each of them once; faces, (p,) or (p, 3), are added up."""
        width = int(other.max(initial=0)) + 1
        pairs, owner = np.unique(one * width + other, return_inverse=True)
        summed = np.zeros((len(pairs), *faces.shape[1:]), np.int64)
        np.add.at(summed, owner, faces)
        return cls(pairs // width, pairs % width, summed)

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """Return the pairs of all parts, each of them once."""
        columns = ([getattr(part, name) for part in parts] for name in ("one", "other", "faces"))
        return cls.total(*map(np.concatenate, columns))


def meetings(
    objects: LabelStore, loose: NDArray[np.bool_], folder: Path, blocks: Blocks, context: Context
) -> Pairs:
    """Return what loose objects meet, block by block.

    Parameters
    ----------
    objects : LabelStore
        The number of the object at every voxel.
    loose : bool (n + 1,)
        By the number of the object; 0 is nothing and never loose.
    folder : Path
        For what is found in each block.
    blocks : Blocks
    context : Context
    """
    folder.mkdir(exist_ok=True)
    meeting = _Meeting(
        *passing(blocks, folder / "done", "finding neighbours"), objects, loose, folder, blocks
    )
    run(meeting, context)
    files = map(meeting.file, range(len(blocks.boxes)))
    return Pairs.joined([Pairs(**load_tensors(file)[0]) for file in files])


@dataclass(frozen=True)
class _Meeting(Pass[NDArray[np.signedinteger], Pairs]):
    """Find what the loose objects of each block meet."""

    objects: LabelStore
    loose: NDArray[np.bool_]
    folder: Path
    blocks: Blocks

    def file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"

    def read(self, box: Box) -> NDArray[np.signedinteger]:
        return read_around(self.objects, box)

    def compute(self, box: Box, given: NDArray[np.signedinteger]) -> Pairs:
        return _met(given, self.loose)

    def write(self, box: Box, made: Pairs) -> None:
        save_tensors(self.file(self.blocks.number(box)), vars(made), {}, shared=True)


def _met(seen: NDArray[np.signedinteger], loose: NDArray[np.bool_]) -> Pairs:
    """Return what the loose objects of a block meet, from its objects and those around it."""
    own = seen[1:-1, 1:-1, 1:-1]
    mine = loose[own]
    parts = []
    for axis, step in enumerate(FACES):
        for way in (1, -1):
            place = tuple(slice(1 + way * s, n - 1 + way * s) for s, n in zip(step, seen.shape, strict=True))
            other = seen[place]
            meets = mine & (other != own) & (other != OUTSIDE)
            one, there = own[meets].astype(np.int64), other[meets].astype(np.int64)
            part = Pairs.total(one, there, np.ones(len(one), np.int64))
            across = np.eye(3, dtype=np.int64)[axis]
            parts.append(Pairs(part.one, part.other, part.faces[:, None] * across))
    return Pairs.joined(parts)


def homes(
    classes: NDArray[np.int64],
    loose: NDArray[np.bool_],
    pairs: Pairs,
    voxel_size: VoxelSize | None = None,
) -> NDArray[np.int64]:
    """Return the object that each object goes to: itself, unless it is loose.

    Parameters
    ----------
    classes : int64 (n + 1,)
        By the number of the object; 0 for nothing.
    loose : bool (n + 1,)
    pairs : Pairs
        Of loose objects.
    voxel_size : (float, float, float), optional
        nm, z y x; where it is not known, all faces are alike.

    Returns
    -------
    int64 (n + 1,)
        Never a loose object; 0 where a loose one meets nothing else, not even by way of others.
    """
    home = np.where(loose, 0, np.arange(len(classes)))
    homeless, area = loose.copy(), pairs.faces @ _areas(voxel_size)
    while True:
        near = homeless[pairs.one] & ~homeless[pairs.other]
        if not near.any():
            return home
        one, there, shared = pairs.one[near], home[pairs.other[near]], area[near]
        taken = np.full(len(classes), -1, np.int64)
        speck, best = _largest(one, classes[there], shared)
        taken[speck] = best
        fit = taken[one] == classes[there]
        speck, best = _largest(one[fit], there[fit], shared[fit])
        home[speck] = best
        homeless[speck] = False


def _areas(voxel_size: VoxelSize | None) -> NDArray[np.float64]:
    """Return the areas of the faces across z, y and x, (3,), of which the smallest counts 1.

    They are rounded to 24 binary digits, so that their sums are exact and equal areas are equal.
    """
    z, y, x = voxel_size or (1.0, 1.0, 1.0)
    faces = np.array([y * x, z * x, z * y])
    areas: NDArray[np.float64] = (faces / faces.min()).astype(np.float32).astype(np.float64)
    return areas


def _largest(
    one: NDArray[np.int64], other: NDArray[np.int64], area: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each ``one``, once, and the ``other`` that it shares most with, of equal ones the smallest.

    Parameters
    ----------
    one, other : int64 (p,)
        Pairs; several of the same two add up.
    area : float64 (p,)
    """
    width = int(other.max(initial=0)) + 1
    pairs, owner = np.unique(one * width + other, return_inverse=True)
    order = np.lexsort((pairs % width, -np.bincount(owner, area), pairs // width))
    found, first = np.unique(pairs[order] // width, return_index=True)
    return found, pairs[order][first] % width


def filled(
    classes: NDArray[np.int64], holes: NDArray[np.bool_], home: NDArray[np.int64], pairs: Pairs
) -> NDArray[np.int64]:
    """Return the class of each object, with holes that meet one class only as a part of it.

    Parameters
    ----------
    classes : int64 (n + 1,)
        By the number of the object.
    holes : bool (n + 1,)
        Connected parts of label 0 that do not reach the border of the volume.
    home : int64 (n + 1,)
        What each object goes to (see ``homes``).
    pairs : Pairs
        Of holes and of specks.
    """
    of = classes.copy()
    hole = home[pairs.one]
    beside = classes[home[pairs.other]]
    met = holes[hole] & (beside > 0)
    low, high = np.full(len(classes), np.iinfo(np.int64).max), np.zeros(len(classes), np.int64)
    np.minimum.at(low, hole[met], beside[met])
    np.maximum.at(high, hole[met], beside[met])
    closed = holes & (low == high)
    of[closed] = low[closed]
    return of[home]
