"""Placements: where fields of view are read, which tokens are kept, and where these land.

Pure index arithmetic, one axis at a time. An encoder turns a field of view (FOV) of ``fov`` voxels into
``fov / patch`` tokens; token ``a`` stands for the voxel at the centre of its patch. A placement moves the FOV
along the axis by a *stride*, keeps the tokens whose centres lie in the middle ``stride`` voxels, and repeats
this at every *shift* within a patch:

    FOV 20, patch 5            . . | . . | . . | . . |          token centres
    stride 10, shift 5       [     |=====|=====|     ]          kept: the middle 10 voxels
                                   [     |=====|=====|     ]    next FOV, 10 further

- shift = patch: *expand-stride* (HiS4MAE, section 3): one token per patch, interpolated afterwards; with
  stride = FOV it is the *whole-slice* pass.
- shift = 1: *cover-and-stride* (MAESTER, section 3.3): every voxel is once the centre of a kept token.
- a dense encoder has FOV = patch + 2 halo and stride = shift = patch; its FOVs are read as one window.
- FOV = patch = shift: one vector for a whole window, every ``stride`` voxels (Han et al., section 3.1).

What comes out is a :class:`Lattice`: the sorted positions at which there are vectors, in voxels, not
necessarily evenly spaced, and the place of each kept token of each FOV among them. Scores are interpolated
between neighbouring positions, so one rule serves every placement. The lattice reaches from the first voxel
of the volume (or before) to the last (or beyond): nothing is extrapolated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import UsageError
from vemseg.geometry import is_anisotropic

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Placement:
    """How fields of view are laid along one axis.

    Parameters
    ----------
    fov, patch : int
        Voxels of a field of view and of a patch; ``fov`` is a multiple of ``patch``.
    stride : int
        Voxels from one FOV to the next, and width of the kept middle of a FOV. At least ``patch``, unless the
        FOV is a single patch: such a FOV has one token, and may move by any number of voxels up to ``fov``.
    shift : int
        Voxels between repetitions within a patch: a divisor of ``patch``. Below ``patch``, ``stride``
        must be a multiple of ``patch``.

    Raises
    ------
    UsageError
        Where these do not fit together.
    """

    fov: int
    patch: int
    stride: int
    shift: int

    def __post_init__(self) -> None:
        if self.fov % self.patch:
            raise UsageError(f"a field of view of {self.fov} is not a multiple of the patch, {self.patch}")
        least = 1 if self.fov == self.patch else self.patch
        if not least <= self.stride <= self.fov:
            what = f"the patch ({self.patch})" if least > 1 else "1"
            raise UsageError(
                f"stride {self.stride} must lie between {what} and the field of view ({self.fov})"
            )
        if self.patch % self.shift:
            raise UsageError(f"shift {self.shift} does not divide the patch, {self.patch}")
        if self.shift < self.patch and self.stride % self.patch:
            raise UsageError(
                f"stride {self.stride} must be a multiple of the patch, {self.patch}: else voxels are missed"
            )

    @property
    def kept(self) -> slice:
        """The tokens kept of each FOV, as an index into its tokens."""
        centres = np.arange(self.fov // self.patch) * self.patch + (self.patch - 1) / 2
        low = (self.fov - self.stride) // 2
        inside = np.flatnonzero((centres >= low) & (centres < low + self.stride))
        return slice(int(inside[0]), int(inside[-1]) + 1)

    def lattice(self, n: int) -> Lattice:
        """Lay the placement over an axis of ``n`` voxels."""
        kept = np.arange(self.kept.start, self.kept.stop)
        centres = kept * self.patch + (self.patch - 1) / 2
        first = -int(np.ceil(centres[0]))
        phases = np.arange(0, self.patch, self.shift)
        reach = centres[-1] + phases[-1] + first
        blocks = 1 + max(0, int(np.ceil((n - 1 - reach) / self.stride)))
        starts = (first + np.arange(blocks)[:, None] * self.stride + phases).ravel()
        positions = starts[:, None] + centres
        order = np.argsort(positions, axis=None)
        index = np.empty(positions.size, np.int64)
        index[order] = np.arange(positions.size)
        return Lattice(self, n, positions.ravel()[order], starts, index.reshape(positions.shape))


@dataclass(frozen=True)
class Lattice:
    """Where the vectors of one axis lie.

    Attributes
    ----------
    placement : Placement
        The rule behind it.
    n : int
        Voxels of the axis.
    positions : float64 (m,)
        Sorted positions of the vectors in voxels: 0 is the centre of the first voxel.
    starts : int64 (f,)
        First voxel of each field of view; may be negative.
    index : int64 (f, k)
        Place among ``positions`` of each kept token of each field of view.
    """

    placement: Placement
    n: int
    positions: Floats
    starts: Ints
    index: Ints

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def per_stride(self) -> int:
        """Lattice points per stride of the placement: those that one FOV gives at all its shifts."""
        return int(self.index.shape[1]) * (self.placement.patch // self.placement.shift)

    def reaching(self, start: int, stop: int) -> Ints:
        """Return which FOVs keep a token among lattice points ``start .. stop``."""
        return np.flatnonzero(((self.index >= start) & (self.index < stop)).any(axis=1))

    def inside(self) -> tuple[int, int]:
        """Return the range of lattice points that lie within the volume."""
        start, stop = np.searchsorted(self.positions, [0, self.n - 1 + 1e-9])
        return int(start), max(int(stop), int(start) + 1)


@dataclass(frozen=True)
class Interpolation:
    """Linear interpolation from lattice points to consecutive voxels of one axis.

    Attributes
    ----------
    start, stop : int
        The lattice points needed.
    left, right : int64 (n,)
        For each voxel its two neighbours, counted from ``start``.
    weight : float32 (n,)
        Weight of the right neighbour.
    """

    start: int
    stop: int
    left: Ints
    right: Ints
    weight: NDArray[np.float32]


def interpolation(positions: Floats, start: int, stop: int) -> Interpolation:
    """Interpolate at voxels ``start .. stop`` between sorted ``positions``; the end values are held.

    Parameters
    ----------
    positions : float64 (m,)
        Where the lattice points lie, in voxels.
    start, stop : int
        Half-open range of voxels.
    """
    voxels = np.arange(start, stop, dtype=np.float64)
    last = len(positions) - 1
    left = np.clip(np.searchsorted(positions, voxels, side="right") - 1, 0, last)
    right = np.minimum(left + 1, last)
    gap = np.where(right > left, positions[right] - positions[left], 1.0)
    weight = np.clip((voxels - positions[left]) / gap, 0.0, 1.0)
    weight[right == left] = 0.0
    right = np.where(weight > 0, right, left)
    low, high = int(left.min()), int(right.max()) + 1
    return Interpolation(low, high, left - low, right - low, weight.astype(np.float32))


def slice_offsets(slices: int, spacing: tuple[float, float, float]) -> list[int]:
    """Return which planes, relative to the first of a patch, make up a slab around it.

    The slices of a slab lie one short voxel edge apart. Where the axis across the planes is as short as any,
    an odd number of them has the plane in its middle, an even number the middle between the plane and the
    next. Otherwise each slice is the section that holds its place, so a section thicker than the slab is
    repeated.

    Parameters
    ----------
    slices : int
    spacing : (float, float, float)
        Voxel edges in units of the shortest, the axis across the planes first.
    """
    if spacing[0] == min(spacing) or not is_anisotropic(spacing):
        return list(range(-((slices - 1) // 2), slices // 2 + 1))
    return [round((i - (slices - 1) / 2) * min(spacing) / spacing[0]) for i in range(slices)]


def reflect(index: Ints, n: Ints | int) -> Ints:
    """Fold indices into 0 .. n - 1 by mirroring at both ends, without repeating the end.

    Parameters
    ----------
    index : int64 (...)
        Whole numbers, negative ones too.
    n : int, or int64 that broadcasts with ``index``
        Lengths, at least 1; an axis of one voxel repeats it.
    """
    period = np.maximum(2 * (n - 1), 1)
    folded = np.mod(index, period)
    return np.where(folded < n, folded, period - folded)


def rescaled(positions: Floats, factor: float) -> Floats:
    """Move positions from a grid whose voxels are ``factor`` source voxels long to the source grid."""
    return (positions + 0.5) * factor - 0.5
