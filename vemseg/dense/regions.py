"""One vector for each region of an over-segmentation, such as superpixels, which are labelled as a whole.

The vector of a region is the mean, over its voxels, of the vectors interpolated there. It is summed from the
lattice points directly: each counts as much as it weighs in the interpolation to the region's voxels. So no
vector per voxel is ever made, and the mean is exact.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from vemseg.budget import Budget, Need
from vemseg.context import Context
from vemseg.dense.planning import WRITING, label_blocks
from vemseg.dense.scores import Interpolations
from vemseg.dense.sources import Given, LatticeVectors, VectorSource
from vemseg.errors import InputError, Interrupted
from vemseg.geometry import ZYX, Box
from vemseg.labelling import Labeller, Sample
from vemseg.tiling import Interpolation
from vemseg.volume import Volume

MOST_REGIONS = 2**24
"""Most regions of a volume, numbered from 0; their vectors must fit into memory."""

WEIGHING = 96.0
"""Bytes needed for each voxel of a block while its share in the vectors of regions is worked out."""


class RegionVectors(VectorSource):
    """The mean vectors of regions.

    Parameters
    ----------
    source : LatticeVectors
        The source whose vectors are averaged.
    regions : Volume of integers
        For each voxel of the source's volume, the number of its region.
    vectors : float32 (r, d)
        Mean vector of each region.
    intensities : float32 (r,)
        Mean intensity of each region, in [0, 1].
    sizes : int64 (r,)
        Number of voxels of each region; 0 for numbers that no region has.
    """

    def __init__(
        self,
        source: LatticeVectors,
        regions: Volume,
        vectors: NDArray[np.float32],
        intensities: NDArray[np.float32],
        sizes: NDArray[np.int64],
    ) -> None:
        self.volume, self.maker, self.machine = source.volume, source.maker, source.machine
        self.regions, self.vectors, self.intensities, self.sizes = regions, vectors, intensities, sizes
        self.dim = vectors.shape[1]

    @classmethod
    def of(cls, source: LatticeVectors, regions: Volume, context: Context) -> RegionVectors:
        """Average the vectors of a source over regions, block by block.

        Raises
        ------
        InputError
            Where the regions have another shape than the volume, or a number outside 0 .. MOST_REGIONS - 1.
        Interrupted
            Where the work was stopped.
        """
        if regions.shape != source.volume.shape:
            raise InputError(
                f"{regions.name}: regions of {regions.shape} voxels, but the volume has {source.volume.shape}"
            )
        shape = label_blocks(source, 2 * source.dim, context.limit, WEIGHING).shape
        blocks = list(Box.whole(regions.shape).split(shape))
        total = np.zeros((0, source.dim + 2))
        for i, box in enumerate(blocks):
            if context.stopped():
                raise Interrupted("stopped while regions were averaged: the same command starts again")
            total = _added(total, _sums(source, box, _numbers(regions, box)))
            context.report("averaging", (i + 1) / len(blocks), f"{i + 1}/{len(blocks)} blocks")
        sizes = np.rint(total[:, -1]).astype(np.int64)
        means = (total[:, :-1] / np.maximum(sizes, 1)[:, None]).astype(np.float32)
        return cls(source, regions, means[:, :-1], means[:, -1], sizes)

    @property
    def count(self) -> int:
        """Number of regions."""
        return int((self.sizes > 0).sum())

    def sample(self, n: int, seed: int, context: Context, keep: Path | None = None) -> Sample:
        """Return the vectors of ``n`` random regions; of all regions where there are fewer."""
        there = np.flatnonzero(self.sizes)
        if n < len(there):
            there = np.sort(np.random.default_rng([seed, 0x5E6]).choice(there, n, replace=False))
        return Sample(self.vectors[there].astype(np.float16), self.intensities[there], self.maker.codes)

    def read(self, box: Box) -> Given:
        """Read the numbers of the regions in a box."""
        return self.regions.read(box)

    def labels(self, box: Box, given: Given, labeller: Labeller) -> NDArray[np.uint8]:
        """Paint each region of a box with its class."""
        present, place = np.unique(given, return_inverse=True)
        scores = labeller.scores(torch.from_numpy(self.vectors[present].astype(np.float16)).float())
        classes = (1 + scores.argmax(dim=-1)).to(torch.uint8).numpy()
        painted: NDArray[np.uint8] = classes[place].reshape(box.shape)
        return painted

    def reach(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        """Return the voxels themselves: labels of regions need no context."""
        return stop - start, stop - start

    def budgets(self, k: int, written: float, limit: int) -> list[Budget]:
        """Return what painting takes: the numbers of the regions, and their order."""
        item = float(self.regions.dtype.itemsize)
        return [Budget.of_process(limit, 0, (Need(window=2 * item + 16.0, voxel=WRITING + written),))]

    def work(self, box: Box) -> float:
        """Return the voxels of the box."""
        return float(box.size)


def _numbers(regions: Volume, box: Box) -> NDArray[np.int64]:
    numbers = regions.read(box).astype(np.int64)
    if numbers.min() < 0 or numbers.max() >= MOST_REGIONS:
        raise InputError(f"{regions.name}: regions are numbered from 0 to {MOST_REGIONS - 1} at most")
    return numbers


def _sums(source: LatticeVectors, box: Box, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Interpolate vectors, intensities and ones to the voxels of a box, and sum by region: (r, d + 2)."""
    axes, points = source.interpolations(box), source.points_of(box)
    given = source.read_points(points)
    vectors = source.compute(points, given).numpy().reshape(-1, source.dim)
    grey = source.intensities(points, given).reshape(-1, 1)
    values = np.concatenate([vectors, grey, np.ones_like(grey)], axis=1).astype(np.float64)
    weights = _weights(axes, points.shape, numbers.transpose(source.order))
    summed: NDArray[np.float64] = weights @ values
    return summed


def _weights(axes: Interpolations, shape: ZYX, numbers: NDArray[np.int64]) -> sparse.csr_matrix:
    """Return how much each of ``shape`` lattice points weighs in each region: sparse (regions, points)."""
    matrix = sparse.csr_matrix((int(numbers.max()) + 1, math.prod(shape)))
    for corner in np.ndindex(2, 2, 2):
        (z, wz), (y, wy), (x, wx) = (_side(axis, right) for axis, right in zip(axes, corner, strict=True))
        weight = (wz[:, None, None] * wy[:, None] * wx).ravel()
        point = ((z[:, None, None] * shape[1] + y[:, None]) * shape[2] + x).ravel()
        counts = weight > 0
        entries = (weight[counts], (numbers.ravel()[counts], point[counts]))
        matrix += sparse.csr_matrix(entries, shape=matrix.shape)
    return matrix


def _side(axis: Interpolation, right: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the neighbour of each voxel on one side, and its weight."""
    weight = axis.weight.astype(np.float64)
    return (axis.right, weight) if right else (axis.left, 1 - weight)


def _added(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add two arrays of which one may have fewer rows."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    longer[: len(shorter)] += shorter
    return longer
