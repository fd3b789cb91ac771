"""Mean and standard deviation of vectors over regions, taken from the lattice directly.

Between lattice points vectors are interpolated, so the vector of a voxel is a weighted sum of those at the
corners of its cell. The sum of the vectors of a region is then a weighted sum of lattice points, and the sum
of their squares one of products of two corners of the same cell: a point with itself, or with one of its
neighbours. So both are sums over the lattice, which has a small part of the voxels, and no vector per voxel
is ever made.

Bringing each voxel to mean 0 and standard deviation 1 over its own channels keeps that exact. Its mean is
interpolated like the vector, and its variance is a weighted sum of the scalar products of the corners. So the
weights of a voxel only have to be divided by its standard deviation.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vemseg.dense.scores import Interpolations
from vemseg.geometry import ZYX
from vemseg.tiling import Floats, Interpolation, Ints

CHANNELS = 32
"""Channels that are summed at a time."""

Corner = tuple[int, int, int]
"""A corner of a cell of the lattice: 0 or 1 along z, y and x."""


def moments(
    values: NDArray[np.floating], axes: Interpolations, regions: Ints, standardise: bool
) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of interpolated vectors over each region.

    Parameters
    ----------
    values : float (gz, gy, gx, d)
        Vectors at the lattice points that ``axes`` need.
    axes : three Interpolation
        From lattice points to voxels, z y x.
    regions : int64 (z, y, x)
        The number of each voxel's region, 0 to n - 1, each number used.
    standardise : bool
        Whether each voxel is brought to mean 0 and standard deviation 1 over its channels first. A voxel
        whose channels are all alike becomes zeros.

    Returns
    -------
    mean, deviation : float64 (n, d)
    """
    lattice, axes = _without_single(values.astype(np.float64), axes)
    shape = _shape(lattice)
    points = lattice.reshape(-1, lattice.shape[-1])
    if standardise:
        points = points - points.mean(axis=1, keepdims=True)
    cells = _Cells.of(axes, shape)
    scale = _inverse_deviation(cells, points) if standardise else np.ones(regions.size)
    sizes = np.bincount(regions.ravel())[:, None]
    first, second = _weights(cells, regions.ravel(), scale, len(points))
    mean, square = (np.empty((len(sizes), points.shape[1])) for _ in range(2))
    for start in range(0, points.shape[1], CHANNELS):
        part = slice(start, start + CHANNELS)
        some = np.ascontiguousarray(points[:, part])
        mean[:, part] = first @ some / sizes
        total = sum(matrix @ (some[: len(some) - apart] * some[apart:]) for apart, matrix in second.items())
        square[:, part] = total / sizes
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _shape(lattice: Floats) -> ZYX:
    z, y, x = lattice.shape[:3]
    return z, y, x


def _without_single(values: Floats, axes: Interpolations) -> tuple[Floats, Interpolations]:
    """Interpolate along the axes of one voxel, as across the planes: that leaves fewer corners."""
    kept: list[Interpolation] = []
    for axis, rule in enumerate(axes):
        if len(rule.left) == 1:
            left, right = (values.take([int(place[0])], axis) for place in (rule.left, rule.right))
            values = left + float(rule.weight[0]) * (right - left)
            nothing = np.zeros(1, np.int64)
            rule = Interpolation(0, 1, nothing, nothing, np.zeros(1, np.float32))
        kept.append(rule)
    return values, (kept[0], kept[1], kept[2])


@dataclass(frozen=True)
class _Cells:
    """The cell of the lattice that each voxel lies in, and the weights of the corners of that cell.

    Attributes
    ----------
    first : int64 (v,)
        The number of the lattice point at the lowest corner.
    along : three pairs of float64 (n,)
        Weights of the lower and the higher side along z, y and x.
    corners : list of Corner
        The corners that weigh anything, in ascending order of their lattice points.
    strides : (int, int, int)
        How far apart neighbouring lattice points are in the numbering.
    """

    first: Ints
    along: tuple[tuple[Floats, Floats], ...]
    corners: list[Corner]
    strides: ZYX

    @classmethod
    def of(cls, axes: Interpolations, shape: ZYX) -> _Cells:
        """Return the cells of all voxels, z y x."""
        strides = (shape[1] * shape[2], shape[2], 1)
        z, y, x = (rule.left * stride for rule, stride in zip(axes, strides, strict=True))
        first = (z[:, None, None] + y[:, None] + x).ravel()
        right = [rule.weight.astype(np.float64) for rule in axes]
        sides = [(0, 1) if weight.any() else (0,) for weight in right]
        corners = [(a, b, c) for a, b, c in itertools.product(*sides)]
        return cls(first, tuple((1 - weight, weight) for weight in right), corners, strides)

    def weight(self, corner: Corner) -> Floats:
        """Return the weight of a corner in each voxel, (v,)."""
        z, y, x = (sides[side] for sides, side in zip(self.along, corner, strict=True))
        return (z[:, None, None] * y[:, None] * x).ravel()

    def offset(self, corner: Corner) -> int:
        """Return how much higher the number of a corner is than that of the lowest."""
        return sum(side * stride for side, stride in zip(corner, self.strides, strict=True))

    def pairs(self) -> Iterator[tuple[int, int, Floats]]:
        """Yield for each pair of corners the lower offset, their difference, and the weight of the product.

        A pair of different corners occurs twice in the square of a sum, so it counts twice.
        """
        for i, low in enumerate(self.corners):
            for high in self.corners[i:]:
                offset = self.offset(low)
                weight = self.weight(low) * self.weight(high) * (1.0 if low == high else 2.0)
                yield offset, self.offset(high) - offset, weight


def _inverse_deviation(cells: _Cells, points: Floats) -> Floats:
    """Return 1 / the standard deviation of each voxel's channels, 0 where that is 0; points are centred."""
    products: dict[int, Floats] = {}
    variance = np.zeros(len(cells.first))
    least = np.finfo(np.float64).eps * float(np.square(points).sum(axis=1).max(initial=0))
    for offset, apart, weight in cells.pairs():
        if apart not in products:
            product = np.einsum("nd,nd->n", points[: len(points) - apart], points[apart:])
            products[apart] = np.pad(product, (0, apart))
        place = np.minimum(cells.first + offset, len(points) - 1)  # beyond the border weights are 0
        variance += weight * products[apart][place]
    known = variance > least
    return np.where(known, math.sqrt(points.shape[1]) / np.sqrt(np.where(known, variance, 1)), 0)


def _weights(
    cells: _Cells, regions: Ints, scale: Floats, n: int
) -> tuple[sparse.csr_matrix, dict[int, sparse.csr_matrix]]:
    """Return how much lattice points, and products of two of them, weigh in the sums of regions.

    Parameters
    ----------
    cells : _Cells
    regions : int64 (v,)
    scale : float64 (v,)
        What the weights of each voxel are multiplied by.
    n : int
        Number of lattice points.

    Returns
    -------
    first : sparse (regions, n)
    second : dict of int to sparse (regions, n - apart)
        By how far apart the two points of a product are in the numbering.
    """
    groups, of = np.unique(regions * n + cells.first, return_inverse=True)
    region, cell = np.divmod(groups, n)
    rows = int(regions.max()) + 1

    def summed(weight: Floats, offset: int, columns: int) -> sparse.csr_matrix:
        total = np.bincount(of, weight, minlength=len(groups))
        counts = total > 0
        entries = (total[counts], (region[counts], cell[counts] + offset))
        return sparse.csr_matrix(entries, shape=(rows, columns))

    each = [summed(cells.weight(corner) * scale, cells.offset(corner), n) for corner in cells.corners]
    first = sum(each[1:], start=each[0])
    second: dict[int, list[sparse.csr_matrix]] = defaultdict(list)
    for offset, apart, weight in cells.pairs():
        second[apart].append(summed(weight * scale**2, offset, n - apart))
    return first, {apart: sum(part[1:], start=part[0]) for apart, part in second.items()}
