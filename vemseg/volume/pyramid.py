"""Coarser levels of a volume: labels by majority, grey values by mean, block by block."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.volume.base import Volume
from vemseg.volume.stored import StoredArray, channels_of

SMALLEST_LEVEL = 64
"""The coarsest level of a pyramid has at most this many voxels along its longest axis."""

BLOCK_SHAPE: ZYX = (128, 128, 128)
"""The shape in which coarser levels are computed and sharded."""

LAYERS = 32
"""How many layers of a coarser level are computed at once; eight times as many voxels of the finer one are
in memory then."""

FEW = 64
"""Most labels that are compared in pairs to elect one of them; more are sorted, which is faster then."""

VOTERS = 2**16
"""Voxels whose labels are elected at a time: as many as the caches of a processor hold."""

Reduce = Callable[[list[NDArray[np.generic]]], NDArray[np.generic]]
"""Turns the voxels that become one, given as arrays of one shape, into that voxel."""


def majority(candidates: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Return the most frequent label; of equally frequent ones the largest, so that 0 gives way."""
    best = np.empty_like(candidates[0], order="C")
    rows = max(1, VOTERS // max(1, best[:1].size))
    for begin in range(0, len(best), rows):
        part = slice(begin, begin + rows)
        voters = [np.ascontiguousarray(candidate[part]) for candidate in candidates]
        best[part] = _elected(voters) if len(voters) <= FEW else _longest_run(np.sort(voters, axis=0))
    return best


def mean(candidates: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Return the mean, rounded where the voxels are integers."""
    dtype = candidates[0].dtype
    total = np.zeros(candidates[0].shape, np.float64)
    for candidate in candidates:
        total += candidate.astype(np.float64)
    total /= len(candidates)
    return (np.rint(total) if dtype.kind in "iu" else total).astype(dtype)


def downsample(array: NDArray[np.generic], factors: ZYX, reduce: Reduce) -> NDArray[np.generic]:
    """Reduce every ``factors`` voxels to one; an incomplete last one is filled by repeating the border.

    Parameters
    ----------
    array : array (z, y, x)
    factors : (int, int, int)

    Returns
    -------
    array of shape ``ceil(n / factor)`` along each axis and the same dtype.
    """
    short = [(0, -n % f) for n, f in zip(array.shape, factors, strict=True)]
    if any(after for _, after in short):
        array = np.pad(array, short, mode="edge")
    fz, fy, fx = factors
    return reduce([array[k::fz, j::fy, i::fx] for k in range(fz) for j in range(fy) for i in range(fx)])


def level_factors(shape: ZYX, voxel_size: VoxelSize | None) -> Iterator[ZYX]:
    """Yield the total downsampling factors of level 0, 1, 2 ... of a volume.

    An axis is halved together with the finest one unless its voxels are still twice as long, or it has one
    voxel.
    """
    factors: ZYX = (1, 1, 1)
    edges = voxel_size or (1.0, 1.0, 1.0)
    while True:
        yield factors
        level = coarser_shape(shape, factors)
        if max(level) <= SMALLEST_LEVEL:
            return
        grown = [edge * f for edge, f in zip(edges, factors, strict=True)]
        finest = min(edge for edge, n in zip(grown, level, strict=True) if n > 1)
        z, y, x = (
            f * (2 if n > 1 and edge < 2 * finest else 1)
            for f, n, edge in zip(factors, level, grown, strict=True)
        )
        factors = (z, y, x)


def coarser_shape(shape: ZYX, factors: ZYX) -> ZYX:
    """Return the shape after downsampling by ``factors``."""
    z, y, x = (-(-n // f) for n, f in zip(shape, factors, strict=True))
    return z, y, x


def steps(factors: Sequence[ZYX]) -> list[ZYX]:
    """Return how many voxels of each level become one of the next, by the factors of the levels."""
    pairs = itertools.pairwise(factors)
    return [(b[0] // a[0], b[1] // a[1], b[2] // a[2]) for a, b in pairs]


def reduced(source: Volume, box: Box, step: ZYX, reduce: Reduce) -> NDArray[np.generic]:
    """Return a box of the level above a volume; the volume is read some layers at a time."""
    out = np.empty(box.shape, source.dtype)
    for part in box.split((LAYERS, *box.shape[1:])):
        fine = source.read(part.scaled(step).clip(source.box))
        out[part.relative_to(box).slices] = downsample(fine, step, reduce)
    return out


@dataclass(frozen=True)
class Plan:
    """The levels that a volume is to have.

    Attributes
    ----------
    factors : tuple of (int, int, int)
        The downsampling factors of each level relative to level 0, that level included.
    reduce : callable
        How voxels become one: ``majority`` or ``mean``.
    """

    factors: tuple[ZYX, ...]
    reduce: Reduce

    def plain(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {"factors": [list(each) for each in self.factors], "reduce": self.reduce.__name__}

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Plan:
        """Return what ``plain`` was made of."""
        factors = ((int(z), int(y), int(x)) for z, y, x in plain["factors"])
        return cls(tuple(factors), {each.__name__: each for each in (majority, mean)}[plain["reduce"]])


class WritableArray(StoredArray, Protocol):
    """An array on disk, of z, y, x or of c, z, y, x, whose parts can be written too."""

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write a part of it."""


@dataclass(frozen=True)
class Level:
    """A level of a pyramid on disk: written box by box, and read again for the next level.

    Attributes
    ----------
    array : WritableArray
        z, y, x, or c, z, y, x where there are channels.
    block_shape : (int, int, int)
        Boxes of this shape, from (0, 0, 0) on, can be written one by one.
    """

    array: WritableArray
    block_shape: ZYX = field(default_factory=lambda: BLOCK_SHAPE)

    def write(self, box: Box, voxels: NDArray[np.generic], channel: int = 0) -> None:
        """Write a box of one channel."""
        self.array[box.slices if len(self.array.shape) == 3 else (channel, *box.slices)] = voxels

    @property
    def channels(self) -> tuple[Volume, ...]:
        """The volumes of its channels."""
        return channels_of(self.array, np.dtype(self.array.dtype), name="a level")

    def coarsen(self, box: Box, channels: Sequence[Volume], step: ZYX, reduce: Reduce) -> None:
        """Write a box, all channels, from those of the finer level."""
        for channel, source in enumerate(channels):
            self.write(box, reduced(source, box, step, reduce), channel)

    def written(self, box: Box) -> bool:
        """Tell whether a box lies there already, as it will be; where that cannot be told, it does not."""
        return False

    def cells(self, box: Box) -> Iterator[Box]:
        """Yield the boxes of ``block_shape`` that a box meets, as far as they lie in the level."""
        z, y, x = self.array.shape[-3:]
        whole = Box.whole((z, y, x))
        met = box.clip(whole).divided(self.block_shape).scaled(self.block_shape)
        return (cell.clip(whole) for cell in met.split(self.block_shape))

    def fill(self, channels: Sequence[Volume]) -> None:
        """Fill the whole array from volumes of its shape, one for each channel."""
        for box in channels[0].box.split(self.block_shape):
            for channel, source in enumerate(channels):
                self.write(box, source.read(box), channel)


def write_levels(
    channels: Sequence[Volume], factors: Sequence[ZYX], make: Callable[[int, ZYX], Level], reduce: Reduce
) -> None:
    """Write levels 1, 2 ... of a volume, each from the one before, as far as they are not there yet.

    Parameters
    ----------
    channels : sequence of Volume
        Level 0, one volume for each channel.
    factors : sequence of (int, int, int)
        The downsampling factors of each level relative to level 0, that level included.
    make : callable
        Begins the level of a number and a shape, or returns it where it was begun.
    reduce : callable
        How voxels become one.
    """
    whole = channels[0].shape
    for number, step in enumerate(steps(factors), start=1):
        shape = coarser_shape(whole, factors[number])
        level = make(number, shape)
        for box in Box.whole(shape).split(level.block_shape):
            if not level.written(box):
                level.coarsen(box, channels, step, reduce)
        channels = level.channels


def _elected(candidates: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Return the majority of at most 256 contiguous arrays: each votes for all that are equal to it."""
    votes = [np.zeros(candidates[0].shape, np.uint8) for _ in candidates]
    for (i, one), (j, other) in itertools.combinations(enumerate(candidates), 2):
        agree = (one == other).view(np.uint8)
        votes[i] += agree
        votes[j] += agree
    best, most = candidates[0], votes[0]
    for candidate, count in zip(candidates[1:], votes[1:], strict=True):
        better = (count > most) | ((count == most) & np.greater(candidate, best))
        best, most = np.where(better, candidate, best), np.maximum(count, most)
    return best


def _longest_run(ranked: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the majority of arrays (n, ...) that are sorted along their first axis."""
    best: NDArray[np.generic] = ranked[0]
    run = most = np.ones(best.shape, np.int64)
    for before, one in itertools.pairwise(ranked):
        run = np.where(one == before, run + 1, 1)
        best, most = np.where(run >= most, one, best), np.maximum(run, most)
    return best
