"""A volume of which only every n-th voxel along each axis is looked at, so that pictures of it stay small."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vemseg.geometry import ZYX, Box, enlarged
from vemseg.volume.base import Volume
from vemseg.volume.views import View

SEEN_EDGE = 1536
"""Most voxels of an edge that a picture shows: more than it has dots, at 300 to the inch."""

READ_VOXELS = 2**22
"""Voxels that are read at a time, at least one row of each plane that is seen."""


class Thinned(View):
    """The voxels at multiples of ``steps`` along each axis; its voxel edges are that many times as long.

    No more than ``READ_VOXELS`` of the source are in memory at a time, or one row, beside what is returned.

    Parameters
    ----------
    volume : Volume
    most : int
        Most voxels of an edge.

    Attributes
    ----------
    steps : (int, int, int)
        Voxels of the source from one voxel to the next, z y x.
    """

    def __init__(self, volume: Volume, most: int = SEEN_EDGE) -> None:
        z, y, x = (-(-n // most) for n in volume.shape)
        self.steps: ZYX = (z, y, x)
        nz, ny, nx = (-(-n // step) for n, step in zip(volume.shape, self.steps, strict=True))
        super().__init__(volume, (nz, ny, nx), volume.dtype, enlarged(volume.voxel_size, self.steps))

    def at(self, position: ZYX) -> ZYX:
        """Return the voxel that stands for one of the source."""
        z, y, x = (place // step for place, step in zip(position, self.steps, strict=True))
        return z, y, x

    def _read(self, box: Box) -> NDArray[np.generic]:
        if self.steps == (1, 1, 1):
            return self.source.read(box)
        out = np.empty(box.shape, self.dtype)
        for part in box.split(self._readable(box.shape)) if box.size else ():
            first = [a * step for a, step in zip(part.start, self.steps, strict=True)]
            last = [(b - 1) * step + 1 for b, step in zip(part.stop, self.steps, strict=True)]
            read = self.source.read(Box((first[0], first[1], first[2]), (last[0], last[1], last[2])))
            z, y, x = self.steps
            out[part.relative_to(box).slices] = read[::z, ::y, ::x]
        return out

    def _readable(self, shape: ZYX) -> ZYX:
        """Return the part of a box that is read at once: several planes, or some rows of one."""
        row = self.steps[1] * self.steps[2] * shape[2]
        plane = self.steps[0] * row * shape[1]
        if plane <= READ_VOXELS:
            return max(1, READ_VOXELS // plane), shape[1], shape[2]
        return 1, max(1, READ_VOXELS // (self.steps[0] * row)), shape[2]


def planes(
    volume: Volume, position: ZYX
) -> tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]]:
    """Read the three orthogonal planes through a voxel: (y, x), (z, x), (z, y)."""
    found = []
    for axis in range(3):
        start, stop = [0, 0, 0], list(volume.shape)
        start[axis], stop[axis] = position[axis], position[axis] + 1
        box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        found.append(np.squeeze(volume.read(box), axis=axis))
    return found[0], found[1], found[2]


def sections(volume: Volume, at: list[int]) -> NDArray[np.generic]:
    """Read planes across z, in the order of their numbers: (n, y, x)."""
    _, height, width = volume.shape
    return np.concatenate([volume.read(Box((z, 0, 0), (z + 1, height, width))) for z in at])
