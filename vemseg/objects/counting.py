"""What is counted of each component in a block. All of it is whole numbers: sums over blocks are exact.

A block is cut into runs: voxels of one component that follow each other along x. Sums over a run have closed
forms, and there are far fewer runs than voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.geometry import ZYX, Box
from vemseg.objects.blockwise import OUTSIDE
from vemseg.objects.crofton import STEPS

Ids = NDArray[np.int64]
"""Ids of components: 0 is none, and they count from 1."""

PRODUCTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""The pairs of axes whose second moments are counted."""


@dataclass(frozen=True)
class Bodies:
    """Where the voxels of components lie; entry ``i`` is component ``i + 1``.

    Attributes
    ----------
    voxels : int64 (n,)
    first : int64 (n,)
        The first voxel, as its index in the flattened volume.
    low, high : int64 (n, 3)
        The box around it, half-open, z y x.
    sums : int64 (n, 3)
        The sum of z, y and x.
    products : int64 (n, 6)
        The sums of their ``PRODUCTS``. They are exact as long as voxels times the squared edge of the volume
        stay below 9e18.
    """

    voxels: NDArray[np.int64]
    first: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    sums: NDArray[np.int64]
    products: NDArray[np.int64]

    @classmethod
    def empty(cls, n: int) -> Bodies:
        """Return the beginning of a sum over parts."""
        far = np.iinfo(np.int64).max
        return cls(
            np.zeros(n, np.int64),
            np.full(n, far),
            np.full((n, 3), far),
            np.full((n, 3), -far),
            np.zeros((n, 3), np.int64),
            np.zeros((n, 6), np.int64),
        )

    @classmethod
    def of(cls, ids: Ids, n: int, box: Box, shape: ZYX) -> Bodies:
        """Count the components 1..n of a block, (z, y, x), which lies at ``box`` of a volume of ``shape``."""
        found = cls.empty(n)
        runs, start, length = _runs(ids)
        at = np.array(np.unravel_index(start, ids.shape)).T + box.start
        voxel = np.ravel_multi_index(tuple(at.T), shape)
        end = at.copy()
        end[:, 2] += length - 1
        found._add(runs - 1, length, voxel, at, end + 1, *_moments(at, length))
        return found

    def add(self, part: Bodies, owner: NDArray[np.intp]) -> None:
        """Add the components of a part, each to the entry that ``owner`` names."""
        there = part.voxels > 0
        fields = part.voxels, part.first, part.low, part.high, part.sums, part.products
        self._add(owner[there], *(values[there] for values in fields))

    def touching(self, shape: ZYX) -> NDArray[np.bool_]:
        """Tell which components touch the border of a volume of that shape."""
        touch: NDArray[np.bool_] = (self.low == 0).any(axis=1) | (self.high == shape).any(axis=1)
        return touch

    def ordered(self, order: NDArray[np.intp]) -> Bodies:
        """Return the entries in another order."""
        fields = self.voxels, self.first, self.low, self.high, self.sums, self.products
        return Bodies(*(values[order] for values in fields))

    def _add(self, owner: NDArray[np.integer], *values: NDArray[np.int64]) -> None:
        voxels, first, low, high, sums, products = values
        np.add.at(self.voxels, owner, voxels)
        np.minimum.at(self.first, owner, first)
        for total, part, adding in (
            (self.low, low, np.minimum),
            (self.high, high, np.maximum),
            (self.sums, sums, np.add),
            (self.products, products, np.add),
        ):
            for axis in range(total.shape[1]):
                adding.at(total[:, axis], owner, part[:, axis])


def _runs(ids: Ids) -> tuple[Ids, NDArray[np.int64], NDArray[np.int64]]:
    """Return component, first voxel (in the flattened block) and length of each run along x."""
    begins = np.ones(ids.shape, bool)
    np.not_equal(ids[..., 1:], ids[..., :-1], out=begins[..., 1:])
    start = np.flatnonzero(begins)
    length = np.diff(start, append=ids.size)
    component = ids.reshape(-1)[start]
    some = component > 0
    return component[some], start[some], length[some]


def _moments(at: NDArray[np.int64], length: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sums over runs of the coordinates, (n, 3), and of their products, (n, 6)."""
    z, y, x = at.T
    ones, tail = length, length * (length - 1) // 2
    along = ones * x + tail
    squares = ones * x * x + 2 * x * tail + (length - 1) * length * (2 * length - 1) // 6
    sums = np.stack([ones * z, ones * y, along], axis=1)
    return sums, np.stack([ones * z * z, ones * y * y, squares, ones * z * y, z * along, y * along], axis=1)


@dataclass(frozen=True)
class Contacts:
    """How often components meet voxels of another class; one entry for each pair that meets.

    Attributes
    ----------
    component : int64 (p,)
    other : int64 (p,)
        The other class; 0 is nothing, ``OUTSIDE`` what lies beyond the border of the volume.
    crossings : int64 (p, 13)
        Pairs of neighbours along each direction of ``STEPS``, both ways.
    """

    component: NDArray[np.int64]
    other: NDArray[np.int64]
    crossings: NDArray[np.int64]

    @classmethod
    def of(cls, seen: NDArray[np.int64], ids: Ids, n: int) -> Contacts:
        """Count the contacts of the components 1..n of a block.

        Parameters
        ----------
        seen : int64 (z + 2, y + 2, x + 2)
            Classes of the block and of the voxels around it.
        ids : int64 (z, y, x)
            Components of the block.
        """
        classes = np.flatnonzero(np.bincount(seen.reshape(-1) - OUTSIDE)) + OUTSIDE
        index = np.zeros(int(classes[-1]) - OUTSIDE + 1, np.min_scalar_type(len(classes)))
        index[classes - OUTSIDE] = np.arange(len(classes))
        keys, axis, counts = [], [], []
        for step, key in _meetings(index[seen - OUTSIDE], ids, len(classes)):
            found = np.bincount(key, minlength=(n + 1) * len(classes))
            there = np.flatnonzero(found)
            keys.append(there)
            axis.append(np.full(len(there), step))
            counts.append(found[there])
        pairs, owner = np.unique(np.concatenate(keys), return_inverse=True)
        crossings = np.zeros((len(pairs), len(STEPS)), np.int64)
        np.add.at(crossings, (owner, np.concatenate(axis)), np.concatenate(counts))
        return cls(pairs // len(classes), classes[pairs % len(classes)], crossings)

    @classmethod
    def none(cls) -> Contacts:
        """Return no contacts."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, len(STEPS)), np.int64))

    def under(self, numbers: NDArray[np.uint32]) -> Contacts:
        """Return the contacts of components that have other numbers, which an array gives by the old ones."""
        return Contacts(numbers[self.component].astype(np.int64), self.other, self.crossings)

    @classmethod
    def total(cls, parts: list[Contacts]) -> Contacts:
        """Return the sum of parts whose components are numbered alike."""
        component = np.concatenate([part.component for part in parts])
        other = np.concatenate([part.other for part in parts])
        width = int(other.max(initial=0)) - OUTSIDE + 1
        pairs, owner = np.unique(component * width + other - OUTSIDE, return_inverse=True)
        crossings = np.zeros((len(pairs), len(STEPS)), np.int64)
        np.add.at(crossings, owner, np.concatenate([part.crossings for part in parts]))
        return cls(pairs // width, pairs % width + OUTSIDE, crossings)


def _meetings(seen: NDArray[np.unsignedinteger], ids: Ids, k: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield, for each direction and both ways, its number, and what meets there.

    Only voxels of components count, and only neighbours of another class: voxels with such a neighbour are
    found first, since there are far fewer of them.

    Parameters
    ----------
    seen : unsigned (z + 2, y + 2, x + 2)
        Classes, numbered 0..k - 1, of the block and of the voxels around it.
    ids : int64 (z, y, x)
    k : int

    Yields
    ------
    (int, int64 (m,))
        ``component * k + class`` of each meeting.
    """
    rim = np.zeros(seen.shape, bool)
    rim[1:-1, 1:-1, 1:-1] = (_around(seen, np.maximum) != _around(seen, np.minimum)) & (ids > 0)
    at, flat = np.flatnonzero(rim), seen.reshape(-1)
    own, base = flat[at], ids[rim[1:-1, 1:-1, 1:-1]] * k
    strides = np.array([seen.shape[1] * seen.shape[2], seen.shape[2], 1])
    for number, step in enumerate(STEPS):
        for way in (1, -1):
            other = flat[at + way * int(strides @ step)]
            differ = other != own
            yield number, base[differ] + other[differ]


def _around(
    seen: NDArray[np.unsignedinteger], best: Callable[..., NDArray[np.unsignedinteger]]
) -> NDArray[np.unsignedinteger]:
    """Return the greatest, or the least, of each 3 x 3 x 3 voxels."""
    for axis in range(3):
        ahead = np.moveaxis(seen, axis, 0)
        seen = np.moveaxis(best(best(ahead[:-2], ahead[1:-1]), ahead[2:]), 0, axis)
    return seen
