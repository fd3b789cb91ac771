"""The block that tissue is painted on: grey values, classes, cells, and how much room is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vemseg.geometry import ZYX, VoxelSize

F32 = NDArray[np.float32]
Bools = NDArray[np.bool_]
Part = tuple[slice, slice, slice]
Point = NDArray[np.float64]

TRIES = 24
"""Number of places that are tried before an organelle is left out."""


class Canvas:
    """A block of tissue while it is painted.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of random numbers.
    shape : (int, int, int)
        Voxels, z y x.
    voxel_size : (float, float, float)
        Voxel edges in nm; the two in the plane are equal.

    Attributes
    ----------
    image : float32 (z, y, x)
        Grey values, about 0 (stained) to 1 (resin).
    labels : uint8 (z, y, x)
        Classes, numbers of ``vemseg.phantom.tissue.CLASSES``.
    owner : int32 (z, y, x)
        Number of the cell that each voxel belongs to.
    room : float32 (z, y, x)
        Distance in nm to whatever was painted before: plasma membranes and organelles; negative inside.
    """

    def __init__(self, rng: np.random.Generator, shape: ZYX, voxel_size: VoxelSize) -> None:
        self.rng, self.shape = rng, shape
        self.voxel_size = np.array(voxel_size, np.float64)
        self.pixel = float(voxel_size[2])
        self.extent = self.voxel_size * shape
        self.axes = tuple(
            ((np.arange(n) + 0.5) * v).astype(np.float32) for n, v in zip(shape, voxel_size, strict=True)
        )
        self.image = np.zeros(shape, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        self.owner = np.zeros(shape, np.int32)
        self.room = np.full(shape, np.float32(1e6))

    def uniform(self, low: float, high: float) -> float:
        """Draw a number."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return bool(self.rng.random() < probability)

    def whole(self) -> Part:
        """Return the part that is everything."""
        return (slice(None), slice(None), slice(None))

    def around(self, low: Point, high: Point) -> Part | None:
        """Return the voxels between two corners in nm, or None where there are none."""
        start = np.maximum(np.floor(low / self.voxel_size), 0).astype(int)
        stop = np.minimum(np.ceil(high / self.voxel_size), self.shape).astype(int)
        if (stop <= start).any():
            return None
        z, y, x = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        return z, y, x

    def grid(self, part: Part) -> tuple[F32, F32, F32]:
        """Return z, y and x in nm of the voxels of a part, shaped to broadcast."""
        z, y, x = (axis[cut] for axis, cut in zip(self.axes, part, strict=True))
        return z[:, None, None], y[None, :, None], x[None, None, :]

    def square(self, place: Point, part: Part | None = None, stretch: Point | None = None) -> F32:
        """Return the squared distance in nm² of the voxels of a part from a place.

        Parameters
        ----------
        place : ndarray (3,)
            In nm.
        part : Part, optional
            By default everything.
        stretch : ndarray (3,), optional
            Distances along z, y and x are divided by these.
        """
        axes = self.grid(self.whole() if part is None else part)
        along = [axis - np.float32(c) for axis, c in zip(axes, place, strict=True)]
        if stretch is not None:
            along = [one / np.float32(s) for one, s in zip(along, stretch, strict=True)]
        z, y, x = (np.square(one) for one in along)
        found: F32 = z + y + x
        return found

    def noise(self, grain: float | Sequence[float], part: Part | None = None) -> F32:
        """Return smooth noise of zero mean and unit variance over a part.

        Parameters
        ----------
        grain : float or (float, float, float)
            Size of its grain in nm, the same in all directions or along z, y and x.
        part : Part, optional
            By default everything.
        """
        shape = self.shape if part is None else self.image[part].shape
        grains = (grain,) * 3 if isinstance(grain, int | float) else tuple(grain)
        weights = [
            _spline(n, max(1.0, g / v), self.rng.random())
            for n, g, v in zip(shape, grains, self.voxel_size, strict=True)
        ]
        field = self.rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
        field = np.tensordot(weights[0], field, (1, 0))
        field = np.matmul(weights[1], field)
        field = np.matmul(field, weights[2].T)
        return np.ascontiguousarray(field)

    def direction(self) -> Point:
        """Draw a direction."""
        vector = self.rng.standard_normal(3)
        found: Point = vector / (np.linalg.norm(vector) + 1e-9)
        return found

    def place(self, room: float) -> tuple[Point, ZYX] | None:
        """Find a place with so much room around it in nm; return it in nm and as a voxel."""
        for _ in range(TRIES):
            voxel = tuple(int(self.rng.integers(n)) for n in self.shape)
            if self.room[voxel] > room:
                return (np.array(voxel) + 0.5) * self.voxel_size, (voxel[0], voxel[1], voxel[2])
        return None

    def paint(self, part: Part, value: F32 | float, alpha: F32) -> None:
        """Lay a grey value over a part, as opaque as ``alpha`` says, 0 to 1."""
        image = self.image[part]
        image += alpha * (value - image)

    def fill(self, distance: F32) -> F32:
        """Return how much of each voxel lies inside a surface, given the distance to it (negative inside)."""
        covered: F32 = np.clip(np.float32(0.5) - distance / np.float32(self.pixel), 0, 1)
        return covered

    def sheet(self, distance: F32, half: float) -> F32:
        """Return how much of each voxel a sheet takes that is ``2 * half`` nm thick.

        Parameters
        ----------
        distance : float32
            Distance to the middle of the sheet in nm, of either sign.
        half : float
            Half its thickness in nm.
        """
        away = np.abs(distance)
        reach = np.float32(self.pixel / 2)
        covered = np.minimum(away + reach, np.float32(half)) - np.maximum(away - reach, np.float32(-half))
        return np.clip(covered / np.float32(self.pixel), 0, 1)

    def slopes(self, field: F32) -> F32:
        """Return the length of a field's gradient per nm."""
        total = np.zeros_like(field)
        for axis, edge in enumerate(self.voxel_size):
            if field.shape[axis] > 1:
                total += np.square(np.gradient(field, np.float32(edge), axis=axis))
        return np.sqrt(total)


def _spline(n: int, grain: float, phase: float) -> F32:
    """Return the weights (n, m) that interpolate m random numbers to n voxels, with unit variance."""
    return _spline_at(n, round(grain * 8) / 8, int(phase * 8))


@lru_cache(maxsize=4096)
def _spline_at(n: int, grain: float, phase: int) -> F32:
    if grain <= 1.0:
        return np.eye(n, dtype=np.float32)
    place = (np.arange(n) + phase / 8 * grain) / grain
    first = np.floor(place).astype(int)
    t = place - first
    u = 1 - t
    taps = np.stack([u**3, 4 - 3 * t * t * (2 - t), 4 - 3 * u * u * (2 - u), t**3]) / 6
    weights = np.zeros((n, int(first[-1]) + 4))
    for k in range(4):
        weights[np.arange(n), first + k] = taps[k]
    return (weights / math.sqrt(float((weights**2).sum(axis=1).mean()))).astype(np.float32)
