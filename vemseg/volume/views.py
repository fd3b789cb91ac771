"""Views of a volume that copy no voxels: a part of it, its axes in another order, its voxels looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.geometry import ZYX, Box, VoxelSize, add, moved
from vemseg.volume.base import Volume

T = TypeVar("T")


class View(Volume):
    """What another volume shows, seen differently: what is known of that one is known of this one.

    Where its voxels lie (``start``, ``origin``) is not taken over, because a view may have a grid of its own.

    Parameters
    ----------
    volume : Volume
    shape, dtype, voxel_size
        Of the view.

    Attributes
    ----------
    source : Volume
        The other volume.
    """

    def __init__(
        self, volume: Volume, shape: ZYX, dtype: np.dtype[np.generic], voxel_size: VoxelSize | None
    ) -> None:
        super().__init__(
            shape,
            dtype,
            voxel_size=voxel_size,
            voxel_size_from=volume.voxel_size_from,
            name=volume.name,
            path=volume.path,
            address=volume.address,
        )
        self.source = volume
        self.labelled, self.pictured = volume.labelled, volume.pictured
        self.hint, self.remarks = volume.hint, volume.remarks
        self.choice = dict(volume.choice)  # a proxy cannot be pickled


class Cropped(View):
    """The part of a volume inside a box; its own coordinates begin at the box's first voxel.

    Parameters
    ----------
    volume : Volume
    box : Box
        Inside ``volume``.
    """

    def __init__(self, volume: Volume, box: Box) -> None:
        if not volume.box.contains(box):
            raise ValueError(f"box {box} reaches outside {volume.name} of shape {volume.shape}")
        super().__init__(volume, box.shape, volume.dtype, volume.voxel_size)
        self.crop = box
        self.start = add(volume.start, box.start)
        self.origin = moved(volume.origin, box.start, volume.voxel_size)

    def stored(self) -> Volume:
        """Return the same part of the stored values."""
        source = self.source.stored()
        return self if source is self.source else Cropped(source, self.crop)

    def _read(self, box: Box) -> NDArray[np.generic]:
        return self.source.read(box.shift(self.crop.start))


class Permuted(View):
    """A volume with its axes in another order, as ``numpy.transpose``.

    Parameters
    ----------
    volume : Volume
    order : (int, int, int)
        Axis ``i`` of the view is axis ``order[i]`` of ``volume``.
    """

    def __init__(self, volume: Volume, order: ZYX) -> None:
        if sorted(order) != [0, 1, 2]:
            raise ValueError(f"{order} is not an order of three axes")
        size, at = volume.voxel_size, volume.origin
        super().__init__(volume, _permute(volume.shape, order), volume.dtype, size and _permute(size, order))
        self.order = order
        self.start = _permute(volume.start, order)
        self.origin = at and _permute(at, order)
        shown = volume.specimen
        self.specimen = shown and shown.permuted(lambda voxels: Permuted(voxels, order), order)

    def _read(self, box: Box) -> NDArray[np.generic]:
        back = (self.order.index(0), self.order.index(1), self.order.index(2))
        inner = self.source.read(Box(_permute(box.start, back), _permute(box.stop, back)))
        return np.ascontiguousarray(inner.transpose(self.order))


class Overlay(View):
    """Other values at the voxels of a volume; it lies where that one does.

    Parameters
    ----------
    volume : Volume
    dtype : numpy.dtype
        What ``read`` returns.
    """

    def __init__(self, volume: Volume, dtype: np.dtype[np.generic]) -> None:
        super().__init__(volume, volume.shape, dtype, volume.voxel_size)
        self.start, self.origin = volume.start, volume.origin


class Nearest(View):
    """A volume looked up at the voxels of another grid, without interpolation.

    Parameters
    ----------
    volume : Volume
    index : three intp arrays
        Which voxel of ``volume`` each voxel of the grid shows, along z, y, x; ascending.
    voxel_size : (float, float, float) or None
        Of the grid, in nm.
    """

    def __init__(
        self, volume: Volume, index: Sequence[NDArray[np.intp]], voxel_size: VoxelSize | None
    ) -> None:
        z, y, x = (len(along) for along in index)
        super().__init__(volume, (z, y, x), volume.dtype, voxel_size)
        self.index = tuple(index)

    def _read(self, box: Box) -> NDArray[np.generic]:
        if not box.size:
            return np.zeros(box.shape, self.dtype)
        picked = [along[part] for along, part in zip(self.index, box.slices, strict=True)]
        z, y, x = ((int(along[0]), int(along[-1]) + 1) for along in picked)
        found = self.source.read(Box((z[0], y[0], x[0]), (z[1], y[1], x[1])))
        return found[np.ix_(picked[0] - z[0], picked[1] - y[0], picked[2] - x[0])]


class AsIntegers(Overlay):
    """Labels that a program stored as floating-point numbers, as integers.

    Parameters
    ----------
    volume : Volume
        Reading it raises ``InputError`` where a number is not whole.
    """

    def __init__(self, volume: Volume) -> None:
        super().__init__(volume, np.dtype(np.int64))

    def _read(self, box: Box) -> NDArray[np.generic]:
        values = np.asarray(self.source.read(box), np.float64)
        whole = np.rint(values)
        odd = (whole != values) | ~(np.abs(values) < 2.0**53)
        if odd.any():
            raise InputError(f"{self.address} holds {values[odd][0]:g}: labels must be integers")
        return whole.astype(np.int64)


def _permute(values: tuple[T, T, T], order: ZYX) -> tuple[T, T, T]:
    return values[order[0]], values[order[1]], values[order[2]]
