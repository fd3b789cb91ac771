"""The vectors at points that somebody clicked, with the classes of the points."""

from __future__ import annotations

from collections.abc import Sequence

from vemseg.dense.sources import VectorSource
from vemseg.errors import UsageError
from vemseg.labelling import Examples
from vemseg.points import PointFile


def examples(file: PointFile | None, sources: Sequence[VectorSource]) -> Examples | None:
    """Return the vectors at points, and their classes; None where no points are given.

    Parameters
    ----------
    file : PointFile or None
    sources : sequence of VectorSource
        The vectors of the volume that the points lie in.

    Raises
    ------
    InputError, UsageError
        As ``PointFile.read``; where there are several volumes.
    """
    if file is None:
        return None
    if len(sources) > 1:
        raise UsageError(f"{file.path} holds points of one volume: give the features of that one alone")
    points = file.read(sources[0].volume)
    return Examples(sources[0].at(points.voxels), points.classes, points.names)
