"""What is counted of each component in a block. All of it is whole numbers: sums over blocks are exact.

:class:`Bodies` says where the voxels of a component lie, :class:`Contacts` what it touches and by how many
pairs of neighbours. The measures of an object, its volume, axes and surfaces, follow from the two alone.

For :class:`Bodies`, a block is cut into runs: voxels of one component that follow each other along x. Sums
over a run have closed forms, and there are far fewer runs than voxels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from vemseg.geometry import ZYX, Box
from vemseg.objects.blockwise import OUTSIDE
from vemseg.objects.connecting import Ids
from vemseg.objects.crofton import STEPS
from vemseg.run.files import Tensors

Numbers = NDArray[np.int64]

PRODUCTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""The pairs of axes whose second moments are counted."""


SLAB = 2**20
"""Voxels that are counted at a time: what is computed of them stays in the caches of a processor."""


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
        """Return ``n`` components without a voxel: what a sum over parts begins with."""
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
        found, everyone = cls.empty(n), np.arange(n)
        planes = max(1, SLAB // (ids[:1].size or 1))
        for slab in box.split((planes, *ids.shape[1:])):
            found.add(cls._of_slab(ids[slab.relative_to(box).slices], n, slab, shape), everyone)
        return found

    @classmethod
    def _of_slab(cls, ids: Ids, n: int, box: Box, shape: ZYX) -> Bodies:
        """Count the components in a few planes. Where ``voxels`` is 0, the other values mean nothing."""
        start, length = _runs(ids)
        component = ids.reshape(-1)[start].astype(np.intp)
        z, y, x = np.unravel_index(start, ids.shape)
        voxels, sums, products = _moments(component, z, y, x, length, n)
        low, high = np.zeros((n + 1, 3), np.int64), np.zeros((n + 1, 3), np.int64)
        first = np.zeros(n + 1, np.int64)
        # Backwards: of several runs of a component, the first is written last, and stays.
        first[component[::-1]] = start[::-1]
        low[component[::-1], 0], high[component, 0] = z[::-1], z + 1
        low[:, 1:] = ids.shape[1:]
        for axis, begin, end in ((1, y, y), (2, x, x + length - 1)):
            np.minimum.at(low[:, axis], component, begin)
            np.maximum.at(high[:, axis], component, end + 1)
        place = np.array(np.unravel_index(first, ids.shape)) + np.array(box.start)[:, None]
        voxel = np.ravel_multi_index(tuple(place), shape, mode="clip")
        counted = cls(
            voxels, voxel, low + box.start, high + box.start, *_shifted(voxels, sums, products, box)
        )
        return counted.ordered(np.arange(1, n + 1))

    def add(self, part: Bodies, owner: NDArray[np.intp]) -> None:
        """Add the components of a part, each to the entry that ``owner`` names."""
        there = part.voxels > 0
        to = owner[there]
        for total, values, adding in (
            (self.voxels, part.voxels, np.add),
            (self.first, part.first, np.minimum),
            (self.low, part.low, np.minimum),
            (self.high, part.high, np.maximum),
            (self.sums, part.sums, np.add),
            (self.products, part.products, np.add),
        ):
            for column, more in zip(np.atleast_2d(total.T), np.atleast_2d(values[there].T), strict=True):
                adding.at(column, to, more)

    def touching(self, shape: ZYX) -> NDArray[np.bool_]:
        """Tell which components touch the border of a volume of that shape.

        Across an axis of one voxel everything would, so such an axis has no border: an image has four sides.
        """
        deep = np.array(shape) > 1
        touch: NDArray[np.bool_] = ((self.low == 0) | (self.high == shape))[:, deep].any(axis=1)
        return touch

    def ordered(self, order: NDArray[np.intp]) -> Bodies:
        """Return the entries in another order."""
        return Bodies(*(getattr(self, field.name)[order] for field in fields(self)))


def _runs(ids: Ids) -> tuple[Numbers, Numbers]:
    """Return the first voxel, in the flattened array (z, y, x), and the length of each run along x."""
    begins = np.ones(ids.shape, bool)
    np.not_equal(ids[..., 1:], ids[..., :-1], out=begins[..., 1:])
    start = np.flatnonzero(begins)
    return start, np.diff(start, append=ids.size)


def _moments(
    component: NDArray[np.intp], z: Numbers, y: Numbers, x: Numbers, length: Numbers, n: int
) -> tuple[Numbers, Numbers, Numbers]:
    """Return voxels (n + 1,), sums of coordinates (n + 1, 3) and of their products (n + 1, 6) by component.

    Coordinates count from the start of the block, so that float64, in which sums are fastest, is exact.
    """
    k, j, i, run = (values.astype(np.float64) for values in (z, y, x, length))
    tail = run * (run - 1) / 2
    level, row, along = run * k, run * j, run * i + tail
    squares = (run * i + 2 * tail) * i + tail * (2 * run - 1) / 3
    columns = run, level, row, along, level * k, row * j, squares, level * j, k * along, j * along
    summed = np.stack([np.bincount(component, column, n + 1) for column in columns], axis=1).astype(np.int64)
    return summed[:, 0], summed[:, 1:4], summed[:, 4:]


def _shifted(voxels: Numbers, sums: Numbers, products: Numbers, box: Box) -> tuple[Numbers, Numbers]:
    """Return sums of coordinates, and of their products, that count from the start of the volume."""
    start = box.start
    moved = [
        products[:, k] + start[i] * sums[:, j] + start[j] * sums[:, i] + start[i] * start[j] * voxels
        for k, (i, j) in enumerate(PRODUCTS)
    ]
    return sums + voxels[:, None] * np.array(start), np.stack(moved, axis=1)


@dataclass(frozen=True)
class Contacts:
    """How often the voxels of a component have a neighbour of another class; one entry for each pair.

    Attributes
    ----------
    component : int64 (p,)
    other : int64 (p,)
        The class of the neighbours; 0 is nothing, ``OUTSIDE`` what lies beyond the border of the volume.
    crossings : int64 (p, 13)
        How many pairs of neighbours lie along each direction of ``STEPS``, counted both ways.
    """

    component: NDArray[np.int64]
    other: NDArray[np.int64]
    crossings: NDArray[np.int64]

    @classmethod
    def of(
        cls, seen: NDArray[np.signedinteger], ids: Ids, apart: NDArray[np.integer] | None = None
    ) -> Contacts:
        """Count the contacts of the components of a block.

        Parameters
        ----------
        seen : signed integers (z + 2, y + 2, x + 2)
            Classes of the block and of the voxels around it.
        ids : uint32 (z, y, x)
            Components of the block.
        apart : integers (z + 2, y + 2, x + 2), optional
            Two neighbours are counted where this differs; by default it is ``seen``. Numbers of objects here
            count where two objects of one class touch, too.
        """
        classes = _values(seen)
        k = 1 << int(len(classes) - 1).bit_length()
        keys, axis, counts = [], [], []
        for step, key, count in _met(_codes(seen, classes, ids, k), seen if apart is None else apart, k):
            keys.append(key)
            axis.append(np.full(len(key), step))
            counts.append(count)
        pairs, owner = np.unique(np.concatenate(keys), return_inverse=True)
        crossings = np.zeros((len(pairs), len(STEPS)), np.int64)
        np.add.at(crossings, (owner, np.concatenate(axis)), np.concatenate(counts))
        return cls(pairs // k, classes[pairs % k], crossings)

    @classmethod
    def none(cls) -> Contacts:
        """Return no contacts."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, len(STEPS)), np.int64))

    def under(self, numbers: NDArray[np.integer]) -> Contacts:
        """Return the contacts with component ``i`` renumbered to ``numbers[i]``."""
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


def _values(seen: NDArray[np.signedinteger]) -> Numbers:
    """Return the classes that occur, in order. It counts plane by plane, since caches hold a plane."""
    counts = np.zeros(int(seen.max()) - OUTSIDE + 1, np.int64)
    for plane in seen:
        counts += np.bincount(plane.reshape(-1).astype(np.intp) - OUTSIDE, minlength=len(counts))
    found: Numbers = np.flatnonzero(counts) + OUTSIDE
    return found


def _codes(seen: NDArray[np.signedinteger], classes: Numbers, ids: Ids, k: int) -> NDArray[np.integer]:
    """Return ``component * k + index of the class in classes`` of each voxel, (z + 2, y + 2, x + 2)."""
    most = (int(ids.max(initial=0)) + 1) * k
    index = np.zeros(int(classes[-1]) - OUTSIDE + 1, np.uint32 if most < 2**32 else np.int64)
    index[classes] = np.arange(len(classes))  # what is outside, -1, lies at the end
    codes: NDArray[np.integer] = index[seen]
    codes[1:-1, 1:-1, 1:-1] += ids.astype(codes.dtype) * codes.dtype.type(k)
    return codes


def _met(
    codes: NDArray[np.integer], apart: NDArray[np.integer], k: int
) -> Iterator[tuple[int, NDArray[np.integer], NDArray[np.intp]]]:
    """Yield which component meets which class along each direction, both ways, and how often, part by part.

    In the flattened array, neighbours along a direction always lie equally far apart. This also pairs voxels
    across the end of a row, but these both lie in the rim of one voxel, where no component is.

    Parameters
    ----------
    codes : integers (z + 2, y + 2, x + 2)
        See ``_codes``.
    apart : integers (z + 2, y + 2, x + 2)
        Voxels meet where they differ in it.
    k : int
        A power of two, so that the bits below it are the class.

    Yields
    ------
    int, integers (m,), int64 (m,)
        The number of the direction; ``component * k + index of the class``, in order; how often it is found.
    """
    flat, apart, low = codes.reshape(-1), apart.reshape(-1), codes.dtype.type(k - 1)
    strides = np.array([codes.shape[1] * codes.shape[2], codes.shape[2], 1])
    for begin, (number, step) in itertools.product(range(0, flat.size, SLAB), enumerate(STEPS)):
        far, end = int(strides @ step), begin + SLAB
        at = np.flatnonzero(apart[begin : min(end, flat.size - far)] != apart[begin + far : end + far])
        here, there = flat[begin:].take(at), flat[begin + far :].take(at)
        swapped = (here ^ there) & low  # each of the two takes the class of the other
        keys, counts = _tally(np.concatenate([here ^ swapped, there ^ swapped]))
        some = keys >= k  # component 0 is none
        yield number, keys[some], counts[some]


def _tally(keys: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.intp]]:
    """Return the numbers that occur, in order, and how often; a table counts them unless too long."""
    if keys.max(initial=0) > max(SLAB, len(keys)):
        return np.unique(keys, return_counts=True)
    found = np.bincount(keys)
    there = np.flatnonzero(found)
    return there, found[there]


def packed(bodies: Bodies, contacts: Contacts) -> Tensors:
    """Return both as named arrays, as files keep them."""
    pairs = ("bodies", bodies), ("contacts", contacts)
    return {f"{name}.{f.name}": getattr(one, f.name) for name, one in pairs for f in fields(one)}


def unpacked(tensors: Tensors) -> tuple[Bodies, Contacts]:
    """Return what ``packed`` has put into named arrays."""
    bodies = Bodies(*(tensors[f"bodies.{f.name}"] for f in fields(Bodies)))
    return bodies, Contacts(*(tensors[f"contacts.{f.name}"] for f in fields(Contacts)))
