"""The vectors at points that somebody clicked, interpolated from the lattice as scores are for labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vemseg.dense.scores import interpolated
from vemseg.dense.sources import LatticeVectors
from vemseg.geometry import Box
from vemseg.labelling import Examples
from vemseg.points import PointFile


def examples(source: LatticeVectors, file: PointFile) -> Examples:
    """Return the vectors at points, and their classes.

    Parameters
    ----------
    source : LatticeVectors
        The vectors of the volume that the points lie in.
    file : PointFile

    Raises
    ------
    InputError, UsageError
        As ``PointFile.read``.
    """
    points = file.read(source.volume)
    return Examples(vectors_at(source, points.voxels), points.classes, points.names)


def vectors_at(source: LatticeVectors, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the vectors of voxels, (n, 3) z y x, interpolated between lattice points: float32 (n, d)."""
    found = np.empty((len(voxels), source.dim), np.float32)
    for i in np.lexsort(voxels.T[::-1]):  # neighbours one after the other: they share what is read
        z, y, x = voxels[i].tolist()
        box = Box((z, y, x), (z + 1, y + 1, x + 1))
        values = source.values(source.points_of(box)).float()
        for _, _, strip in interpolated(values, source.interpolations(box)):
            found[i] = strip.reshape(-1).numpy()
    return found
