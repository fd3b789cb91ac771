"""One vector for each region of an over-segmentation, such as superpixels, which are labelled as a whole.

The vector of a region is the mean, over its voxels, of the vectors interpolated there. It is summed from the
lattice points directly: each counts as much as it weighs in the interpolation to the region's voxels. So no
vector per voxel is ever made, and the mean is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from vemseg.budget import Budget, Need
from vemseg.context import Context
from vemseg.dense.planning import WRITING, label_blocks
from vemseg.dense.scores import Interpolations
from vemseg.dense.sources import Given, LatticeVectors, VectorSource
from vemseg.errors import InputError, Interrupted
from vemseg.geometry import ZYX, Box
from vemseg.labelling import Graph, Labeller, Sample
from vemseg.tiling import Interpolation
from vemseg.volume import Volume

MOST_REGIONS = 2**24
"""Most regions of a volume, numbered from 0; their vectors must fit into memory."""

WEIGHING = 96.0
"""Bytes needed for each voxel of a block while its share in the vectors of regions is worked out."""


@dataclass(frozen=True)
class Regions:
    """What is known of the regions of a volume; arrays are in the order of their numbers.

    Attributes
    ----------
    volume : Volume of integers
        The number of each voxel's region.
    numbers : int64 (n,)
        The numbers that occur, ascending; they may have gaps.
    sizes : int64 (n,)
        Voxels of each region.
    edges : int64 (e, 2)
        Pairs of regions that touch face to face, as places in ``numbers``, each once, the lower first.
    """

    volume: Volume
    numbers: NDArray[np.int64]
    sizes: NDArray[np.int64]
    edges: NDArray[np.int64]


class RegionVectors(VectorSource):
    """The mean vectors of regions, and which of them touch.

    Parameters
    ----------
    source : LatticeVectors
        The source whose vectors are averaged.
    regions : Regions
    vectors : float16 (n, d)
        Mean vector of each region.
    intensities : float32 (n,)
        Mean intensity of each region, in [0, 1].
    """

    def __init__(
        self,
        source: LatticeVectors,
        regions: Regions,
        vectors: NDArray[np.float16],
        intensities: NDArray[np.float32],
    ) -> None:
        self.volume, self.machine = source.volume, source.machine
        self.maker = replace(source.maker, model=f"{source.maker.model} averaged over regions")
        self.regions, self.dim = regions, vectors.shape[1]
        self._graph = Graph(vectors, intensities, regions.edges)
        self._found: tuple[Labeller, NDArray[np.uint8], NDArray[np.uint8]] | None = None

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
        total, touching = np.zeros((0, source.dim + 2)), np.zeros((0, 2), np.int64)
        for i, box in enumerate(blocks):
            if context.stopped():
                raise Interrupted("stopped while regions were averaged: the same command starts again")
            total = _added(total, _sums(source, box, _numbers(regions, box)))
            pairs = _touching(_numbers(regions, _and_next(box, regions.box)))
            touching = np.unique(np.concatenate([touching, pairs]), axis=0)
            context.report("averaging", (i + 1) / len(blocks), f"{i + 1}/{len(blocks)} blocks")
        sizes = np.rint(total[:, -1]).astype(np.int64)
        numbers = np.flatnonzero(sizes)
        means = total[numbers, :-1] / sizes[numbers, None]
        found = Regions(regions, numbers, sizes[numbers], np.searchsorted(numbers, touching))
        return cls(source, found, means[:, :-1].astype(np.float16), means[:, -1].astype(np.float32))

    @property
    def count(self) -> int:
        """Number of regions."""
        return len(self.regions.numbers)

    def graph(self) -> Graph:
        """Return the vectors of all regions, and which of these touch."""
        return self._graph

    def sample(self, n: int, seed: int, context: Context, keep: Path | None = None) -> Sample:
        """Return the vectors of ``n`` random regions; of all regions where there are fewer."""
        chosen = np.arange(self.count)
        if n < self.count:
            chosen = np.sort(np.random.default_rng([seed, 0x5E6]).choice(self.count, n, replace=False))
        return Sample(
            self._graph.vectors[chosen], self._graph.intensities[chosen], self.maker.codes, self.classes
        )

    def read(self, box: Box) -> Given:
        """Read the numbers of the regions in a box."""
        return self.regions.volume.read(box)

    def labels(self, box: Box, given: Given, labeller: Labeller) -> NDArray[np.uint8]:
        """Paint each region of a box with its class; the classes of all are found together, once."""
        classes, _ = self._classes(labeller)
        painted: NDArray[np.uint8] = classes[np.searchsorted(self.regions.numbers, given)]
        return painted

    def rated(
        self, box: Box, given: Given, labeller: Labeller
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Paint each region of a box with its class, and with how certain that is."""
        place = np.searchsorted(self.regions.numbers, given)
        classes, certain = self._classes(labeller)
        return classes[place], certain[place]

    def _classes(self, labeller: Labeller) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the label of each region, and how certain it is (0 where the labeller cannot tell)."""
        if self._found is None or self._found[0] is not labeller:
            scores = labeller.graph_scores(self._graph)
            label = 1 + scores.argmax(dim=-1)
            certain = labeller.confidence(scores) if labeller.rates else torch.zeros(len(scores))
            self._found = labeller, _bytes(label), _bytes(certain.mul(255).round())
        return self._found[1:]

    def reach(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        """Return the voxels themselves: labels of regions need no context."""
        return stop - start, stop - start

    def budgets(self, k: int, written: float, limit: int) -> list[Budget]:
        """Return what painting takes: the numbers of the regions, and their order."""
        item = float(self.regions.volume.dtype.itemsize)
        return [Budget.of_process(limit, 0, (Need(window=2 * item + 16.0, voxel=WRITING + written),))]

    def work(self, box: Box) -> float:
        """Return the voxels of the box."""
        return float(box.size)


def _bytes(values: Tensor) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = values.to(torch.uint8).numpy()
    return found


def _and_next(box: Box, whole: Box) -> Box:
    """Return a box with one voxel more at the end of each axis, where there is one."""
    z, y, x = box.stop
    return Box(box.start, (z + 1, y + 1, x + 1)).clip(whole)


def _touching(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pairs of numbers that lie face to face, each once, the lower first: int64 (e, 2)."""
    pairs = []
    for axis in range(3):
        n = numbers.shape[axis]
        first, second = (numbers.take(range(a, b), axis).ravel() for a, b in ((0, n - 1), (1, n)))
        differ = first != second
        pairs.append(np.sort(np.stack([first[differ], second[differ]], axis=1), axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


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
