"""Classes of a mixture of normal distributions: the score is the logarithm of a weighted density.

Each component has d columns. For vectors of the component they are standard normal, so that its log density
is ``offset - |columns|^2 / 2``. The score of a class is the logarithm of the sum of its components' weighted
densities. Interpolated scores are the logarithm of a geometric mean of densities, not the scores of
interpolated vectors.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.context import Context
from vemseg.errors import UsageError
from vemseg.labelling.base import Doubles, Sample, Single, Source
from vemseg.labelling.centroids import centroids, two_nearest
from vemseg.labelling.columns import Columns, ColumnsLabeller, places, prepared
from vemseg.labelling.joining import join_by_entropy
from vemseg.recipe import MixtureTable

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

LEAST_VARIANCE = 1e-4
"""A share of the mean variance of a feature that is added to the variances of a mixture's components. It is
more than float16 rounds by and less than the variance of any structure."""

MOST_ITERATIONS = 100
"""Limit of the steps of expectation and maximisation, even if ``cluster.max_iterations`` is larger."""

ENTROPY_SAMPLE = 20_000
"""Number of vectors from which it is decided which components of a mixture are joined."""


@dataclass(frozen=True, eq=False)
class MixtureLabeller(ColumnsLabeller):
    """A labeller whose classes have the summed density of their components as score.

    Attributes
    ----------
    offset : float32 (P,)
        The logarithm of each component's weighted density at its mean.
    parts : int64 (K,), optional
        Number of components of each class, P in all; None where every class has one.
    """

    probabilistic: ClassVar[bool] = True

    offset: Single
    parts: NDArray[np.int64] | None = None

    @classmethod
    def fit(cls, table: MixtureTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Fit a mixture of normal distributions, each with a full covariance.

        The fit begins with k-means on the whole sample and goes on with the first ``mixture_sample`` vectors
        of the shuffled sample. If there are more ``components`` than classes, they are joined.
        """
        n, components = len(sample.vectors), table.components or table.k
        if components > n:
            raise UsageError(f"cluster.components = {components} cannot be fitted to a sample of {n} vectors")
        data, scaled = prepared(table, sample)
        part = data[: max(table.mixture_sample, components)]
        centres = centroids(data, components, table, table.restarts)
        model = _expected_and_maximised(part, centres, table)
        columns, offset = _log_densities(model)
        parts = None
        if components > table.k:
            posterior = model.predict_proba(part[:ENTROPY_SAMPLE].astype(np.float64))
            group = join_by_entropy(posterior, table.k)
            order, parts = np.argsort(group, kind="stable"), np.bincount(group)
            columns = columns.taken(places(np.full(components, data.shape[1]), order))
            offset = offset[order]
        if scaled is not None:
            offset = offset + np.linalg.slogdet(scaled.matrix)[1]
        return cls(*columns.after(scaled).rounded(), offset.astype(np.float32), parts)

    @property
    def k(self) -> int:
        """Number of classes."""
        return len(self.offset if self.parts is None else self.parts)

    def pooled(self, columns: Tensor) -> Tensor:
        """Return the logarithm of the density of each class."""
        squares = columns.square_().view(len(columns), len(self.offset), self.dim).sum(dim=-1)
        offset = torch.from_numpy(self.offset).to(columns)
        densities = torch.sub(offset, squares, alpha=0.5)
        if self.parts is None:
            return densities
        own = torch.split(densities, self.parts.tolist(), dim=-1)
        return torch.stack([one.logsumexp(dim=-1) for one in own], dim=-1)

    def reordered(self, order: NDArray[np.int64]) -> Self:
        """Return the same classes under other numbers."""
        parts = np.ones(self.k, np.int64) if self.parts is None else self.parts
        components = places(parts, order)
        taken = places(np.full(len(self.offset), self.dim), components)
        return type(self)(
            np.ascontiguousarray(self.weight[:, taken]),
            self.bias[taken],
            self.offset[components],
            None if self.parts is None else parts[order],
            metadata=self.metadata,
        )


def _log_densities(model: GaussianMixture) -> tuple[Columns, Doubles]:
    """Return d columns for each component, and the log of each component's weighted density at its mean."""
    factors, dim = model.precisions_cholesky_, model.means_.shape[1]
    bias = np.concatenate([-mean @ factor for mean, factor in zip(model.means_, factors, strict=True)])
    scale = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    offset = np.log(model.weights_) + scale - 0.5 * dim * np.log(2 * np.pi)
    return Columns(np.concatenate(list(factors), axis=1), bias), offset


def _expected_and_maximised(data: Single, centres: Single, table: MixtureTable) -> GaussianMixture:
    """Fit a mixture to vectors, starting from the clusters around centroids."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    exact = data.astype(np.float64)
    floor = LEAST_VARIANCE * exact.var(axis=0).mean() or LEAST_VARIANCE
    shares, covariances = _moments(exact, two_nearest(data, centres).first, centres, floor)
    model = GaussianMixture(
        len(centres),
        reg_covar=floor,
        max_iter=min(table.max_iterations, MOST_ITERATIONS),
        weights_init=shares,
        means_init=centres.astype(np.float64),
        precisions_init=np.linalg.inv(covariances),
        init_params="random_from_data",
        random_state=table.seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(exact)


def _moments(
    data: Doubles, label: NDArray[np.int64], centres: Single, floor: float
) -> tuple[Doubles, Doubles]:
    """Return shares (K,) and covariances (K, d, d) of labelled vectors; a small class gets a round one."""
    k, dim = centres.shape
    counts = np.bincount(label, minlength=k)
    covariances = np.empty((k, dim, dim))
    round_ = np.eye(dim) * (floor + data.var(axis=0).mean() / k)
    for i in range(k):
        own = data[label == i]
        covariances[i] = np.cov(own.T, bias=True) + floor * np.eye(dim) if len(own) > dim else round_
    shares = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    return shares, covariances
