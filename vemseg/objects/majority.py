"""Smoother borders of classes: each voxel takes the class that most of its neighbours have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def smoothed(classes: NDArray[np.integer], rounds: int) -> NDArray[np.integer]:
    """Give each voxel the most frequent class of the 3 x 3 x 3 voxels around it, some rounds in a row.

    Where several classes are as frequent, a voxel keeps its own if that is one of them, and else takes the
    one with the smallest number. Voxels beyond the border of the array have no vote. Where the array is a
    part of a volume, the result is that of the volume from ``rounds`` voxels inside its border on.

    Parameters
    ----------
    classes : integers (z, y, x)
        0, nothing, counts as a class.
    rounds : int
    """
    for _ in range(rounds):
        classes = _once(classes)
    return classes


def _once(classes: NDArray[np.integer]) -> NDArray[np.integer]:
    best, most, own = classes, np.zeros(classes.shape, np.uint8), np.zeros(classes.shape, np.uint8)
    for k in np.flatnonzero(np.bincount(classes.reshape(-1))).tolist():
        here = classes == k
        votes = _summed(here.view(np.uint8))
        best = np.where(votes > most, classes.dtype.type(k), best)
        most = np.maximum(votes, most)
        own = np.where(here, votes, own)
    return np.where(own == most, classes, best)


def _summed(votes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the sums over 3 x 3 x 3 voxels; beyond the border there is nothing."""
    for axis in range(3):
        line = np.moveaxis(votes, axis, 0)
        total = line.copy()
        total[1:] += line[:-1]
        total[:-1] += line[1:]
        votes = np.moveaxis(total, 0, axis)
    return votes
