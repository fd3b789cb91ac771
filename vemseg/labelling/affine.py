"""One column per class, and that is the score: the nearest centroid of k-means.

The nearest centroid c of a vector z is the largest of 2 z.c - |c|^2, whatever affine scaling z of the vector
comes before. Scores interpolated between lattice points are the scores of interpolated vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vemseg.context import Context
from vemseg.labelling.base import Metadata, Sample, Source
from vemseg.labelling.centroids import centroids, nearness
from vemseg.labelling.columns import ColumnsLabeller, prepared
from vemseg.recipe import KMeansTable


@dataclass(frozen=True, eq=False)
class AffineLabeller(ColumnsLabeller):
    """Classes whose scores are affine in the vector."""

    exact_under_interpolation: ClassVar[bool] = True

    @classmethod
    def fit(cls, table: KMeansTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Return the classes of k-means."""
        data, scaled = prepared(table, sample)
        return cls(*nearness(centroids(data, table.k, table, table.restarts)).after(scaled).rounded())

    @classmethod
    def of_centres(cls, centres: NDArray[np.floating], metadata: Metadata) -> Self:
        """Return the classes of the nearest of some centres (K, d), in their order."""
        return cls(*nearness(centres).rounded(), metadata={"method": "kmeans"} | metadata)

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
        return type(self)(weight, self.bias[order], metadata=self.metadata)
