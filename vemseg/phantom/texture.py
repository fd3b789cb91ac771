"""Random fields that know no block: the value at a voxel depends on its coordinates and a seed alone.

Three kinds: ``white_noise`` hashes voxel indices (imaging noise), ``Texture`` interpolates such hashes on a
coarser lattice (grain), ``Waves`` sums plane waves (the shape of a cell, which is also asked at points).
Inside a block only IEEE basic operations and table look-ups are used, so that a voxel has the same bits
whatever the block around it.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from vemseg.geometry import Box, VoxelSize

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
C64 = NDArray[np.complex64]
Floats = NDArray[np.floating]
T = TypeVar("T", bound=np.generic)


def spread(z: NDArray[T], y: NDArray[T], x: NDArray[T]) -> tuple[NDArray[T], NDArray[T], NDArray[T]]:
    """Shape three 1-D arrays so that they broadcast to (z, y, x)."""
    return z[:, None, None], y[None, :, None], x[None, None, :]


@cache
def _normal_quantiles() -> F32:
    quantiles: F32 = ndtri((np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.float32)
    return quantiles


def _mix(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Scramble 32-bit integers in place (the finaliser of MurmurHash3)."""
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h


def white_noise(box: Box, seed: int) -> F32:
    """Return independent standard normal values, one per voxel of the box (which may lie anywhere)."""
    axes = []
    for axis, (a, b) in enumerate(zip(box.start, box.stop, strict=True)):
        index = np.arange(a, b, dtype=np.int64).astype(np.uint32)
        axes.append(_mix(index + np.uint32((seed * 3 + axis) * 0x9E3779B1 & 0xFFFFFFFF)))
    z, y, x = spread(*axes)
    h = _mix((z ^ y) ^ x)
    h >>= np.uint32(16)
    return _normal_quantiles().take(h)


class Texture:
    """Gaussian noise of zero mean and unit variance with grain of one size.

    Hashed values on a lattice, interpolated with cubic B-splines, which act as a Gaussian filter of 0.58
    times the spacing: no period, no visible axes.

    Parameters
    ----------
    seed : int
        Which texture.
    spacing : float or (float, float, float)
        Spacing of the lattice in nm; no finer than the voxels.
    voxel_size : (float, float, float)
        Voxel edges in nm, z y x.
    """

    def __init__(self, seed: int, spacing: float | VoxelSize, voxel_size: VoxelSize) -> None:
        wanted = spacing if isinstance(spacing, tuple) else (spacing,) * 3
        self._seed = seed
        self._steps = [min(1.0, v / s) for v, s in zip(voxel_size, wanted, strict=True)]

    def read(self, box: Box) -> F32:
        """Return the values in a box, which may lie anywhere."""
        taps = [_spline_taps(a, b, s) for a, b, s in zip(box.start, box.stop, self._steps, strict=True)]
        start, stop = zip(*((int(i[0]), int(i[-1]) + 4) for i, _ in taps), strict=True)
        field = white_noise(Box(start, stop), self._seed)
        for axis, (index, weights) in enumerate(taps):
            field = _interpolate(field, axis, index - index[0], weights)
        field *= np.float32(_SPLINE_GAIN)
        return field


_SPLINE_GAIN = (315 / 151) ** 1.5  # white noise loses 151/315 of its variance per axis


def _spline_taps(start: int, stop: int, step: float) -> tuple[NDArray[np.int64], F32]:
    """Return per voxel the first of four lattice points and, (4, n), their cubic B-spline weights."""
    place = (np.arange(start, stop) + 0.5) * step
    index = np.floor(place)
    t = place - index
    u = 1 - t
    weights = [u * u * u, 4 - 3 * t * t * (2 - t), 4 - 3 * u * u * (2 - u), t * t * t]
    return index.astype(np.int64) - 1, (np.array(weights) / 6).astype(np.float32)


def _interpolate(field: F32, axis: int, index: NDArray[np.int64], weights: F32) -> F32:
    """Return the weighted sum of four neighbours along one axis."""
    shape = [1, 1, 1]
    shape[axis] = -1
    total = field.take(index, axis)
    total *= weights[0].reshape(shape)
    for tap in range(1, 4):
        part = field.take(index + tap, axis)
        part *= weights[tap].reshape(shape)
        total += part
    return total


class Waves:
    """A smooth random field of zero mean: plane waves of random direction.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where directions and phases come from.
    lengths : (float, float)
        Shortest and longest wavelength in nm.
    amplitude : float
        Standard deviation of the field.
    count : int, optional
        Number of waves.
    """

    def __init__(
        self, rng: np.random.Generator, lengths: tuple[float, float], amplitude: float, count: int = 6
    ) -> None:
        direction = rng.standard_normal((count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        self._k = direction * (2 * np.pi / rng.uniform(*lengths, (count, 1)))
        self._phase = rng.uniform(0, 2 * np.pi, count)
        self._amplitude = amplitude * np.sqrt(2 / count)

    def at(self, points: F64) -> F64:
        """Return the field at points (n, 3) in nm, in z y x order."""
        field: F64 = self._amplitude * np.cos(points @ self._k.T + self._phase).sum(axis=-1)
        return field

    def on(self, axes: tuple[F64, F64, F64]) -> WaveGrid:
        """Return the field on a grid with these coordinates in nm along z, y and x."""
        z, y, x = (np.exp(1j * k[:, None] * axis) for k, axis in zip(self._k.T, axes, strict=True))
        z *= self._amplitude * np.exp(1j * self._phase)[:, None]
        return WaveGrid(z.astype(np.complex64), y.astype(np.complex64), x.astype(np.complex64))


class WaveGrid:
    """Plane waves on the grid of a volume: three short tables, multiplied where a box is read."""

    def __init__(self, z: C64, y: C64, x: C64) -> None:
        self._tables = z, y, x

    def read(self, box: Box) -> F32:
        """Return the field in a box inside the volume."""
        z, y, x = (table[:, s] for table, s in zip(self._tables, box.slices, strict=True))
        total = np.zeros(box.shape, np.float32)
        for wave in range(len(x)):
            real = np.multiply.outer(z[wave].real, y[wave].real) - np.multiply.outer(
                z[wave].imag, y[wave].imag
            )
            imag = np.multiply.outer(z[wave].real, y[wave].imag) + np.multiply.outer(
                z[wave].imag, y[wave].real
            )
            total += real[..., None] * np.ascontiguousarray(x[wave].real)
            total -= imag[..., None] * np.ascontiguousarray(x[wave].imag)
        return total
