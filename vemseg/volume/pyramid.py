"""Coarser levels of a volume: labels by majority, grey values by mean, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import zarr
from numpy.typing import NDArray

from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.volume.base import Volume
from vemseg.volume.store import create_array
from vemseg.volume.stored import StoredVolume

SMALLEST_LEVEL = 64
"""The coarsest level of a pyramid has at most this many voxels along its longest axis."""

BLOCK_SHAPE: ZYX = (128, 128, 128)
"""The shape in which coarser levels are computed and sharded; eight times as many voxels of the finer level
are in memory at once."""

Reduce = Callable[[list[NDArray[np.generic]]], NDArray[np.generic]]
"""Turns the voxels that become one, given as arrays of one shape, into that voxel."""


def majority(candidates: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Return the most frequent label; of equally frequent ones the largest, so that 0 gives way."""
    best, most = candidates[0], _votes(candidates, candidates[0])
    for candidate in candidates[1:]:
        votes = _votes(candidates, candidate)
        better = (votes > most) | ((votes == most) & np.greater(candidate, best))
        best, most = np.where(better, candidate, best), np.maximum(votes, most)
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


def write_levels(
    group: zarr.Group, volume: Volume, voxel_size: VoxelSize | None, reduce: Reduce
) -> list[ZYX]:
    """Write levels 1, 2 ... of a volume as arrays ``1``, ``2`` ... of a Zarr group, each from the one before.

    Returns
    -------
    list of (int, int, int)
        The downsampling factors of each level relative to ``volume``, level 0 included.
    """
    all_factors = list(level_factors(volume.shape, voxel_size))
    source = volume
    for level in range(1, len(all_factors)):
        before, after = all_factors[level - 1], all_factors[level]
        step: ZYX = (after[0] // before[0], after[1] // before[1], after[2] // before[2])
        shape = coarser_shape(source.shape, step)
        array = create_array(group, str(level), shape, BLOCK_SHAPE, volume.dtype)
        for box in Box.whole(shape).split(array.shards):
            array[box.slices] = downsample(source.read(_scaled(box, step).clip(source.box)), step, reduce)
        source = StoredVolume(array, volume.dtype, name=f"level {level}", path=volume.path)
    return all_factors


def _scaled(box: Box, factors: ZYX) -> Box:
    (a, b, c), (d, e, f) = box.start, box.stop
    z, y, x = factors
    return Box((a * z, b * y, c * x), (d * z, e * y, f * x))


def _votes(candidates: list[NDArray[np.generic]], label: NDArray[np.generic]) -> NDArray[np.uint8]:
    votes = np.zeros(label.shape, np.uint8)
    for other in candidates:
        votes += other == label
    return votes
