"""Scales vectors before they are compared: ``z = (vector - mean) @ matrix``.

    none         vectors stay as they are
    standardise  brings each feature to variance 1
    whiten       brings all directions to variance 1: divides the principal components of the standardised
                 features by their standard deviations. A floor keeps directions with hardly any variance,
                 which hold noise, small. Where only the leading features are whitened, each of the others is
                 brought to a given standard deviation

The map is folded into the scores, so it costs nothing when they are computed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vemseg.labelling.base import Doubles, Single
from vemseg.recipe import ClusterTable

CHUNK = 2**16
"""Number of vectors that are scaled or summed up at a time."""


class Scaling(NamedTuple):
    """An affine map of vectors.

    Attributes
    ----------
    mean : float64 (d,)
    matrix : float64 (d, d)
    """

    mean: Doubles
    matrix: Doubles

    def apply(self, data: Single) -> None:
        """Scale vectors, float32 (n, d), in place."""
        for start in range(0, len(data), CHUNK):
            part = data[start : start + CHUNK]
            part[:] = (part - self.mean) @ self.matrix


def scaling(data: Single, table: ClusterTable) -> Scaling | None:
    """Return the scaling that suits a sample, or None where vectors stay as they are.

    Parameters
    ----------
    data : float32 (n, d)
    table : ClusterTable
        Its ``scale``, ``floor``, ``whitened`` and ``others`` are used.
    """
    if table.scale == "none":
        return None
    mean = data.mean(axis=0, dtype=np.float64)
    deviation = data.std(axis=0, dtype=np.float64)
    inverse = 1 / np.where(deviation > 0, deviation, 1)
    if table.scale == "standardise":
        return Scaling(mean, np.diag(inverse))
    n = table.whitened or len(mean)
    covariance = _covariance(data[:, :n], mean[:n]) * np.outer(inverse[:n], inverse[:n])
    matrix = np.diag(inverse * table.others)
    matrix[:n, :n] = inverse[:n, None] * _whitening(covariance, table.floor)
    return Scaling(mean, matrix)


def _whitening(covariance: Doubles, floor: float) -> Doubles:
    """Return the principal axes (d, d) in columns, each divided by its standard deviation.

    Directions whose variance is less than ``floor`` times the largest one come out with a variance below 1.
    """
    variance, axes = np.linalg.eigh(covariance)
    least = max(floor, np.finfo(np.float64).eps * len(variance)) * variance[-1]
    return axes / np.sqrt(np.maximum(variance, least)) if least > 0 else axes


def _covariance(data: Single, mean: Doubles) -> Doubles:
    total = np.zeros((len(mean), len(mean)))
    for start in range(0, len(data), CHUNK):
        part = data[start : start + CHUNK] - mean
        total += part.T @ part
    return total / len(data)
