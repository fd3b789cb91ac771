"""Labels at a coarser level that fits into memory: one that is stored, or one made as it is read."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vemseg.geometry import ZYX, Box, enlarged
from vemseg.volume.base import Volume
from vemseg.volume.layout import Choice
from vemseg.volume.opening import open_volume
from vemseg.volume.pyramid import coarser_shape, downsample, level_factors, majority
from vemseg.volume.views import View

READ_VOXELS = 2**24
"""Voxels of the finer level that are read at a time, or a row of voxels of the coarser one."""


class Coarser(View):
    """Labels, of which the most frequent of every few voxels stands for all of them.

    Where no voxel size is known, neither is the place of its voxels in nm: it follows from ``factors`` alone.

    Parameters
    ----------
    volume : Volume
        Integers.
    factors : (int, int, int)
        How many voxels become one along z, y, x; the last ones of an axis may be fewer.
    """

    def __init__(self, volume: Volume, factors: ZYX) -> None:
        size = volume.voxel_size
        super().__init__(volume, coarser_shape(volume.shape, factors), volume.dtype, enlarged(size, factors))
        self.factors = factors
        if size is not None:
            z, y, x = (
                at + (f - 1) / 2 * edge for at, f, edge in zip(volume.corner, factors, size, strict=True)
            )
            self.origin = (z, y, x)

    def _read(self, box: Box) -> NDArray[np.generic]:
        out = np.empty(box.shape, self.dtype)
        row = math.prod(self.factors) * box.shape[2]
        rows = max(1, min(box.shape[1], READ_VOXELS // row))
        planes = max(1, READ_VOXELS // (row * rows))
        for part in box.split((planes, rows, box.shape[2])) if box.size else ():
            fine = self.source.read(part.scaled(self.factors).clip(self.source.box))
            out[part.relative_to(box).slices] = downsample(fine, self.factors, majority)
        return out


def shrunk(labels: Volume, most: int) -> Volume:
    """Return labels at the finest level that has no more than ``most`` voxels.

    A level that the file holds is taken. Where it holds none, or none that is small enough, voxels are put
    together as they are read, and the most frequent label stands for them.

    Parameters
    ----------
    labels : Volume
    most : int
        At least 1.
    """
    address = labels.address
    for name in labels.coarser:
        if math.prod(labels.shape) <= most:
            break
        labels = open_volume(address, choice=Choice(level=name)).stored()
    factors = next(
        (f for f in level_factors(labels.shape, labels.voxel_size)
         if math.prod(coarser_shape(labels.shape, f)) <= most),
        _coarsest(labels.shape, most),
    )  # fmt: skip
    return labels if factors == (1, 1, 1) else Coarser(labels, factors)


def _coarsest(shape: ZYX, most: int) -> ZYX:
    """Return the least equal factors that make a volume small enough."""
    factor = 1
    while math.prod(coarser_shape(shape, (factor,) * 3)) > max(most, 1):
        factor += 1
    return factor, factor, factor
