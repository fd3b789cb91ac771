"""Specks and holes, and what they become: decided on objects and their contacts, not on voxels.

A speck is an object of fewer voxels than wanted. It goes to the object beside it, of the class that it shares
the most faces with; objects that are specks themselves are no home until they have found one. A hole is a
connected part of label 0 that does not reach the border of the volume, and meets one class only: that class
fills it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import run
from vemseg.context import Context
from vemseg.geometry import Box
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
    one, other, faces : int64 (p,)
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    faces: NDArray[np.int64]

    @classmethod
    def total(cls, one: NDArray[np.int64], other: NDArray[np.int64], faces: NDArray[np.int64]) -> Pairs:
        """Return pairs with each of them once."""
        width = int(other.max(initial=0)) + 1
        pairs, owner = np.unique(one * width + other, return_inverse=True)
        summed = np.zeros(len(pairs), np.int64)
        np.add.at(summed, owner, faces)
        return cls(pairs // width, pairs % width, summed)


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
    found = [load_tensors(meeting.file(number))[0] for number in range(len(blocks.boxes))]
    return Pairs.total(
        *(np.concatenate([each[name] for each in found]) for name in ("one", "other", "faces"))
    )


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
    ones, others = [], []
    for step in FACES:
        for way in (1, -1):
            place = tuple(slice(1 + way * s, n - 1 + way * s) for s, n in zip(step, seen.shape, strict=True))
            other = seen[place]
            meets = mine & (other != own) & (other != OUTSIDE)
            ones.append(own[meets].astype(np.int64))
            others.append(other[meets].astype(np.int64))
    one, other = np.concatenate(ones), np.concatenate(others)
    return Pairs.total(one, other, np.ones(len(one), np.int64))


def homes(classes: NDArray[np.int64], loose: NDArray[np.bool_], pairs: Pairs) -> NDArray[np.int64]:
    """Return the object that each object goes to: itself, unless it is loose.

    Parameters
    ----------
    classes : int64 (n + 1,)
        By the number of the object; 0 for nothing.
    loose : bool (n + 1,)
    pairs : Pairs
        Of loose objects.

    Returns
    -------
    int64 (n + 1,)
        Never a loose object; 0 where a loose one meets nothing else, not even by way of others.
    """
    home = np.where(loose, 0, np.arange(len(classes)))
    homeless = loose.copy()
    while True:
        near = homeless[pairs.one] & ~homeless[pairs.other]
        if not near.any():
            return home
        one, there, faces = pairs.one[near], home[pairs.other[near]], pairs.faces[near]
        by_class = Pairs.total(one, classes[there], faces)
        share = np.lexsort((by_class.other, -by_class.faces, by_class.one))
        best = share[np.unique(by_class.one[share], return_index=True)[1]]
        taken = np.full(len(classes), -1, np.int64)
        taken[by_class.one[best]] = by_class.other[best]
        fit = taken[one] == classes[there]
        by_object = Pairs.total(one[fit], there[fit], faces[fit])
        order = np.lexsort((by_object.other, -by_object.faces, by_object.one))
        first = order[np.unique(by_object.one[order], return_index=True)[1]]
        home[by_object.one[first]] = by_object.other[first]
        homeless[by_object.one] = False


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
