"""Scores that are affine in the vector, among them those of k-means, where the nearest centroid wins.

The centroid c that is nearest to a scaled vector z is the one with the largest 2 z.c - |c|^2. The scaling is
affine too, so this score is affine in the unscaled vector. Scores interpolated between lattice points are
therefore the scores of interpolated vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vemseg.context import Context
from vemseg.labelling.base import Metadata, Sample, Source
from vemseg.labelling.centroids import centroids, mini_batch_centroids, nearness
from vemseg.labelling.columns import ColumnsLabeller, prepared
from vemseg.recipe import KMeansTable, MiniBatchTable


@dataclass(frozen=True, eq=False)
class AffineScores(ColumnsLabeller):
    """Classes whose scores are affine in the vector: one column each."""

    exact_under_interpolation: ClassVar[bool] = True

    @property
    def k(self) -> int:
        """Number of classes."""
        return len(self.bias)

    def pooled(self, columns: Tensor) -> Tensor:
        """Return the columns, which are the scores."""
        return columns

    def reordered(self, order: NDArray[np.int64]) -> Self:
        """Return the same classes under other numbers."""
        weight = np.ascontiguousarray(self.weight[:, order])
        return replace(self, weight=weight, bias=self.bias[order])


@dataclass(frozen=True, eq=False)
class AffineLabeller(AffineScores):
    """The clusters of k-means."""

    @classmethod
    def fit(cls, table: KMeansTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Find classes by k-means."""
        data, scaled = prepared(table, sample)
        return cls(*nearness(centroids(data, table.k, table, table.restarts)).after(scaled).rounded())

    @classmethod
    def of_centres(cls, centres: NDArray[np.floating], metadata: Metadata) -> Self:
        """Return a labeller that gives each vector the nearest of centres (K, d), numbered in their order."""
        return cls(*nearness(centres).rounded(), metadata={"method": "kmeans"} | metadata)


@dataclass(frozen=True, eq=False)
class MiniBatchLabeller(AffineScores):
    """The clusters of k-means on mini-batches (Han et al., section 3.1)."""

    @classmethod
    def fit(cls, table: MiniBatchTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Find classes by k-means on mini-batches of the sample."""
        data, scaled = prepared(table, sample)
        return cls(*nearness(mini_batch_centroids(data, table)).after(scaled).rounded())
