"""Smoother borders of classes: each voxel takes the class that most of its neighbours have.

In an anisotropic volume only the sharp plane has a vote. Most of the 3 x 3 x 3 voxels lie in the two
neighbouring sections, and where these are far away, whatever runs through them at a slant would be outvoted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vemseg.geometry import ZYX, VoxelSize, is_anisotropic, sharp_axis


def voters_of(voxel_size: VoxelSize | None) -> ZYX:
    """Return how far the voters of a voxel lie from it along z, y and x: 0 across a sharp plane, else 1.

    Parameters
    ----------
    voxel_size : (float, float, float) or None
        nm, z y x; where it is not known, voxels count as cubes.
    """
    across = sharp_axis(voxel_size) if is_anisotropic(voxel_size) else None
    z, y, x = (int(axis != across) for axis in range(3))
    return z, y, x


def smoothed(classes: NDArray[np.integer], rounds: int, voters: ZYX = (1, 1, 1)) -> NDArray[np.integer]:
    """Give each voxel the most frequent class of the voxels around it, some rounds in a row.

    Where several classes are as frequent, a voxel keeps its own if that is one of them, and else takes the
    one with the smallest number. Voxels beyond the border of the array have no vote. Where the array is a
    part of a volume, the result is that of the volume from ``rounds`` voxels inside its border on; along an
    axis without voters, from the border on.

    Parameters
    ----------
    classes : integers (z, y, x)
        0, nothing, counts as a class.
    rounds : int
    voters : (int, int, int)
        How far they lie along z, y and x, 0 or 1 (see ``voters_of``): (1, 1, 1) for 3 x 3 x 3 voxels.
    """
    for _ in range(rounds):
        classes = _once(classes, voters)
    return classes


def _once(classes: NDArray[np.integer], voters: ZYX) -> NDArray[np.integer]:
    best, most, own = classes, np.zeros(classes.shape, np.uint8), np.zeros(classes.shape, np.uint8)
    for k in np.flatnonzero(np.bincount(classes.reshape(-1))).tolist():
        here = classes == k
        votes = _summed(here.view(np.uint8), voters)
        best = np.where(votes > most, classes.dtype.type(k), best)
        most = np.maximum(votes, most)
        own = np.where(here, votes, own)
    return np.where(own == most, classes, best)


def _summed(votes: NDArray[np.uint8], voters: ZYX) -> NDArray[np.uint8]:
    """Return the sums over the voxels that have a vote; beyond the border there is nothing."""
    for axis in np.flatnonzero(voters).tolist():
        line = np.moveaxis(votes, axis, 0)
        total = line.copy()
        total[1:] += line[:-1]
        total[:-1] += line[1:]
        votes = np.moveaxis(total, 0, axis)
    return votes
