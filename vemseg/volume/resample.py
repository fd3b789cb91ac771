"""A volume seen on a coarser or finer grid, computed where it is read.

Both kinds of resampling are one thing: each output voxel is a weighted sum of a few neighbours along one axis
(its taps), one axis after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.geometry import ZYX, Box, enlarged
from vemseg.tiling import reflect
from vemseg.volume.base import Volume
from vemseg.volume.dtypes import grey_dtype
from vemseg.volume.views import Nearest, View

Factors = tuple[float, float, float]

SLAB = 2**19
"""Voxels, of the finer grid, that are computed at once where a box is read slab by slab, unless a plane has
more."""

NEARLY = 1e-6
"""A centre that lies on the border of two voxels, up to this part of a voxel, counts as in the latter."""


@dataclass(frozen=True)
class Taps:
    """Which source voxels along one axis make up each output voxel.

    Attributes
    ----------
    index : array (n_out, n_taps)
        Source voxels.
    weight : float64 array (n_out, n_taps)
        Sums to 1 over the taps.
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float64]

    @property
    def span(self) -> tuple[int, int]:
        """The first source voxel, and the one after the last."""
        return int(self.index.min()), int(self.index.max()) + 1

    def part(self, wanted: slice) -> Taps:
        """Return the taps of some of the output voxels."""
        return Taps(self.index[wanted], self.weight[wanted])


class Resampled(View):
    """A volume on a grid whose voxel edges are ``factors`` times as long.

    The grids start at the same edge: output voxel ``i`` covers ``[i * factor, (i + 1) * factor)`` of the
    source. Along axes that get coarser it is the mean over that interval, voxels counting by their overlap;
    along axes that get finer, the linear interpolation between voxel centres, constant beyond the first and
    last. The last voxel may reach beyond the source by up to half its length; only what lies inside counts.

    Parameters
    ----------
    volume : Volume
        Grey values. Labels must not be averaged. Its place is not kept: what is computed on the new voxels
        is handed out on those of the volume.
    factors : (float, float, float)
        z, y, x; above 1 coarser, below 1 finer, 1 leaves the axis alone.
    """

    def __init__(self, volume: Volume, factors: Factors) -> None:
        if not all(math.isfinite(f) and f > 0 for f in factors):
            raise ValueError(f"resampling factors must be positive: {factors}")
        z, y, x = (max(1, round(n / f)) for n, f in zip(volume.shape, factors, strict=True))
        super().__init__(volume, (z, y, x), grey_dtype(volume.dtype), enlarged(volume.voxel_size, factors))
        self.factors = factors
        shown = volume.specimen
        self.specimen = shown and shown.seen(lambda voxels: looked_up(voxels, self.shape, factors))

    def _read(self, box: Box) -> NDArray[np.generic]:
        found = np.zeros(box.shape, self.dtype)
        start = 0
        for slab in self.slabs(box):
            found[start : start + len(slab)] = slab
            start += len(slab)
        return found

    def slabs(self, box: Box) -> Iterator[NDArray[np.generic]]:
        """Yield a box a few planes at a time; what of the source it is computed from is read at once."""
        if not box.size:
            return
        places = [
            reflect(np.arange(start, stop), n)
            for start, stop, n in zip(box.start, box.stop, self.shape, strict=True)
        ]
        z, y, x = (taps_of(*along) for along in zip(places, self.factors, self.source.shape, strict=True))
        (z0, z1), (y0, y1), (x0, x1) = z.span, y.span, x.span
        given = self.source.read(Box((z0, y0, x0), (z1, y1, x1)))
        deep = max(1, int(SLAB / (box.shape[1] * box.shape[2] * max(1.0, math.prod(self.factors)))))
        for first in range(0, box.shape[0], deep):
            part = z.part(slice(first, first + deep))
            low, high = part.span
            slab = given[low - z0 : high - z0].astype(self.dtype, copy=False)
            taps = (part, low), (y, y0), (x, x0)
            for axis in sorted(range(3), key=self._when):
                slab = apply_taps(slab, taps[axis][0], axis, taps[axis][1])
            yield slab

    def _when(self, axis: int) -> tuple[float, int]:
        """Return what orders the axes: the most shrunk first, the most enlarged last.

        Among equal factors, x, the slowest, is shrunk last and enlarged first: there is then less to do.
        """
        factor = self.factors[axis]
        return -factor, axis if factor > 1 else -axis


def looked_up(labels: Volume, shape: ZYX, factors: Factors) -> Nearest:
    """Return labels, or a mask, on a resampled grid: those of the voxels that its centres lie in.

    Parameters
    ----------
    labels : Volume
        On the voxels of the source.
    shape : (int, int, int)
        Of the resampled volume.
    factors : (float, float, float)
        As in ``Resampled``.
    """
    index = [
        np.minimum(np.floor((np.arange(n) + 0.5) * factor + NEARLY).astype(np.intp), of - 1)
        for n, factor, of in zip(shape, factors, labels.shape, strict=True)
    ]
    return Nearest(labels, index, enlarged(labels.voxel_size, factors))


def taps_of(out: NDArray[np.intp], factor: float, n: int) -> Taps:
    """Return the taps of output voxels in an axis of ``n`` source voxels."""
    if factor == 1.0:
        return Taps(out[:, None], np.ones((out.size, 1)))
    if factor > 1.0:
        low, high = out * factor, np.minimum((out + 1) * factor, n)
        index = np.floor(low).astype(np.intp)[:, None] + np.arange(math.ceil(factor) + 1)
        overlap = np.minimum(index + 1, high[:, None]) - np.maximum(index, low[:, None])
        weight = np.clip(overlap, 0.0, None)
        weight /= weight.sum(axis=1, keepdims=True)
    else:
        centre = np.clip((out + 0.5) * factor - 0.5, 0, n - 1)
        first = np.floor(centre).astype(np.intp)
        index = first[:, None] + np.arange(2)
        fraction = centre - first
        weight = np.stack([1 - fraction, fraction], axis=1)
    kept = np.where(weight > 0, index, index[:, :1])
    return Taps(np.minimum(kept, n - 1), weight)


def apply_taps(array: NDArray[np.generic], taps: Taps, axis: int, first: int) -> NDArray[np.generic]:
    """Return the weighted sums along one axis of an array whose index 0 there is source voxel ``first``.

    The array is float32 or float64, and so are the weights in which it is summed.
    """
    if taps.weight.shape[1] == 1:
        index = taps.index[:, 0] - first
        return array if np.array_equal(index, np.arange(array.shape[axis])) else array.take(index, axis)
    shape: list[int] = [1, 1, 1]
    shape[axis] = -1
    total: NDArray[np.generic] | None = None
    for tap in range(taps.weight.shape[1]):
        weight = taps.weight[:, tap].astype(array.dtype).reshape(shape)
        part = np.take(array, taps.index[:, tap] - first, axis=axis)
        part *= weight
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total
