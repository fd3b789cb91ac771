"""Classes that consist of several small clusters, the parts: a class has the score of its nearest part.

There is one column per part, and the score of a class is the largest of its columns. Interpolated scores are
the scores of interpolated vectors only where the same part is the nearest at both ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.context import Context
from vemseg.errors import InputError, UsageError
from vemseg.labelling.base import Demand, Sample, Single, Source
from vemseg.labelling.centroids import centroids, nearness, two_nearest
from vemseg.labelling.columns import ColumnsLabeller, places, prepared
from vemseg.labelling.joining import join_by_distance, join_by_overlap
from vemseg.labelling.scaling import Scaling
from vemseg.recipe import LinkageTable

JOIN_BYTES = 64
"""Bytes for each pair of parts while parts are joined: eight matrices of float64."""


@dataclass(frozen=True, eq=False)
class JoinedLabeller(ColumnsLabeller):
    """A labeller whose classes have the score of their nearest part.

    Attributes
    ----------
    parts : int64 (K,)
        Number of parts of each class.
    """

    parts: NDArray[np.int64]

    @property
    def k(self) -> int:
        """Number of classes."""
        return len(self.parts)

    def pooled(self, columns: Tensor) -> Tensor:
        """Return the largest column of each class."""
        own = torch.split(columns, self.parts.tolist(), dim=-1)
        return torch.stack([one.amax(dim=-1) for one in own], dim=-1)

    def reordered(self, order: NDArray[np.int64]) -> Self:
        """Return the same classes under other numbers."""
        taken = places(self.parts, order)
        weight = np.ascontiguousarray(self.weight[:, taken])
        return type(self)(weight, self.bias[taken], self.parts[order], metadata=self.metadata)

    @classmethod
    def joined(
        cls,
        data: Single,
        centres: Single,
        k: int,
        linkage: Literal["ward", "overlap"],
        scaled: Scaling | None,
    ) -> Self:
        """Join parts, each given by its centre, into K classes.

        Centres that are nearest to no vector are left out first, which changes nothing for the other parts.

        Parameters
        ----------
        data : float32 (n, d)
            The vectors, scaled.
        centres : float32 (P, d)
            The centres of the parts, scaled in the same way.
        k, linkage : int, {"ward", "overlap"}
            As in the recipe.
        scaled : Scaling or None
            How vectors and centres were scaled.

        Raises
        ------
        InputError
            Where fewer than K centres are left.
        """
        near = two_nearest(data, centres)
        used = np.unique(near.first)
        if len(used) < k:
            near_to = f"vectors lie near {len(used)} of the model's {len(centres)} codes"
            raise InputError(f"k = {k} classes, but {near_to}: lower -k, or train the model longer")
        if len(used) < len(centres):
            centres = centres[used]
            near = two_nearest(data, centres)
        sizes = np.bincount(near.first, minlength=len(centres))
        if linkage == "ward":
            group = join_by_distance(centres.astype(np.float64), sizes, k)
        else:
            overlap = np.zeros((len(centres), len(centres)))
            np.add.at(overlap, (near.first, near.second), near.between)
            group = join_by_overlap(overlap + overlap.T, sizes, k)
        columns = nearness(centres).taken(np.argsort(group, kind="stable")).after(scaled)
        return cls(*columns.rounded(), np.bincount(group))

    @staticmethod
    def joining(parts: int) -> Demand:
        """Return the memory that joining this many parts takes."""
        return Demand(f"join classes from {parts} parts", JOIN_BYTES * parts**2, "another cluster.method")


@dataclass(frozen=True, eq=False)
class LinkageLabeller(JoinedLabeller):
    """A labeller whose classes are joined from many small clusters of k-means."""

    @classmethod
    def fit(cls, table: LinkageTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Find many small clusters by k-means and join them into classes."""
        n = len(sample.vectors)
        if table.parts > n:
            raise UsageError(f"cluster.parts = {table.parts} cannot be fitted to a sample of {n} vectors")
        data, scaled = prepared(table, sample)
        centres = centroids(data, table.parts, table, restarts=1)
        return cls.joined(data, centres, table.k, table.linkage, scaled)

    @classmethod
    def demands(cls, table: LinkageTable, n: int, dim: int, codes: Single | None) -> list[Demand]:
        """Return the memory that fitting takes: for the sample, and for joining the parts."""
        return [*super().demands(table, n, dim, codes), cls.joining(table.parts)]
