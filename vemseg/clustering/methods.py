"""From scaled vectors to classes: k-means, a Gaussian mixture, joined k-means."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from vemseg.clustering.joining import join_by_distance, join_by_entropy, join_by_overlap, square_distances
from vemseg.clustering.scaling import Scaling
from vemseg.errors import InputError
from vemseg.recipe import ClusterTable

Data = NDArray[np.float32]
Doubles = NDArray[np.float64]

SEARCH = 50_000
"""Vectors on which the restarts compete; the best is then refined on the whole sample."""

LEAST_VARIANCE = 1e-4
"""Added to the variances of a mixture's classes, relative to the mean variance of a feature: more than the
rounding of float16 makes, less than any structure."""

MIXTURE_ITERATIONS = 100

ENTROPY_SAMPLE = 20_000
"""Vectors by which the components of a mixture are joined."""

CHUNK = 2**13
"""Vectors that are compared with all centroids at a time."""


class Heads(NamedTuple):
    """Classes as scores of scaled vectors; see ``clusterer`` for what the parts mean.

    Attributes
    ----------
    weight : float64 (d, C)
    bias : float64 (C,)
    parts : int64 (K,)
    offset : float64 (P,) or None
    """

    weight: Doubles
    bias: Doubles
    parts: NDArray[np.int64]
    offset: Doubles | None = None

    def after(self, scaling: Scaling | None) -> Heads:
        """Return the same scores as a function of vectors before they are scaled."""
        if scaling is None:
            return self
        weight = scaling.matrix @ self.weight
        offset = None
        if self.offset is not None:
            offset = self.offset + np.linalg.slogdet(scaling.matrix)[1]
        return Heads(weight, self.bias - scaling.mean @ weight, self.parts, offset)

    def grouped(self, group: NDArray[np.int64]) -> Heads:
        """Return the same with its classes joined to groups 0..k-1, or, one in each, in another order."""
        part_group = np.repeat(group, self.parts)
        order = np.argsort(part_group, kind="stable")
        columns = np.arange(len(self.bias)).reshape(len(order), -1)[order].ravel()
        offset = None if self.offset is None else self.offset[order]
        return Heads(self.weight[:, columns], self.bias[columns], np.bincount(part_group), offset)


def kmeans(data: Data, settings: ClusterTable) -> Heads:
    """Return the classes of k-means."""
    return _nearest(centroids(data, settings.k, settings))


def linkage(data: Data, settings: ClusterTable) -> Heads:
    """Return classes that are joined from many small clusters of k-means."""
    return joined(data, centroids(data, settings.parts, settings, restarts=1), settings)


def joined(data: Data, centres: Data, settings: ClusterTable) -> Heads:
    """Return classes that are joined from the cells of centres (P, d): of clusters, or codes of a model.

    Codes that are nearest to no vector are left out first; the cells of the others are as they were.

    Raises
    ------
    InputError
        Where fewer than K are left.
    """
    first, second, between = _two_nearest(data, centres)
    used = np.unique(first)
    if len(used) < settings.k:
        raise InputError(f"k = {settings.k} classes, but vectors are near {len(used)} codes only: lower -k")
    if len(used) < len(centres):
        centres = centres[used]
        first, second, between = _two_nearest(data, centres)
    sizes = np.bincount(first, minlength=len(centres))
    if settings.linkage == "ward":
        group = join_by_distance(centres.astype(np.float64), sizes, settings.k)
    else:
        overlap = np.zeros((len(centres), len(centres)))
        np.add.at(overlap, (first, second), between)
        group = join_by_overlap(overlap + overlap.T, sizes, settings.k)
    return _nearest(centres).grouped(group)


def mixture(data: Data, settings: ClusterTable) -> Heads:
    """Return the classes of a mixture of normal distributions, one full covariance each.

    Started from k-means, fitted on the first ``mixture_sample`` vectors of the shuffled sample. Where there
    are more ``components`` than classes, they are joined.
    """
    k = settings.components or settings.k
    centres = centroids(data, k, settings)
    part = data[: max(settings.mixture_sample, k)]
    model = _expected_and_maximised(part, centres, settings)
    factors = model.precisions_cholesky_
    dim = data.shape[1]
    bias = np.concatenate([-mean @ factor for mean, factor in zip(model.means_, factors, strict=True)])
    scale = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    offset = np.log(model.weights_) + scale - 0.5 * dim * np.log(2 * np.pi)
    heads = Heads(np.concatenate(list(factors), axis=1), bias, np.ones(k, np.int64), offset)
    if k == settings.k:
        return heads
    posterior = model.predict_proba(part[:ENTROPY_SAMPLE].astype(np.float64))
    return heads.grouped(join_by_entropy(posterior, settings.k))


def _expected_and_maximised(data: Data, centres: Data, settings: ClusterTable) -> GaussianMixture:
    """Fit a mixture to vectors, starting from the cells of centroids."""
    exact = data.astype(np.float64)
    floor = LEAST_VARIANCE * exact.var(axis=0).mean() or LEAST_VARIANCE
    shares, covariances = _moments(exact, _two_nearest(data, centres)[0], centres, floor)
    model = GaussianMixture(
        len(centres),
        reg_covar=floor,
        max_iter=min(settings.max_iterations, MIXTURE_ITERATIONS),
        weights_init=shares,
        means_init=centres.astype(np.float64),
        precisions_init=np.linalg.inv(covariances),
        init_params="random_from_data",
        random_state=settings.seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(exact)


def centroids(data: Data, k: int, settings: ClusterTable, restarts: int | None = None) -> Data:
    """Return centroids (k, d): restarts on a part, refined on the whole.

    Restarts (k-means++, Lloyd) compete on the first ``SEARCH`` vectors of a shuffled sample; the best is
    refined by Lloyd's algorithm on all of it. A deliberate deviation from restarting on the whole sample,
    ten times cheaper.
    """
    search = data[:SEARCH] if k <= SEARCH else data
    common: dict[str, Any] = {
        "n_clusters": k,
        "max_iter": settings.max_iterations,
        "random_state": settings.seed,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # empty classes, which are looked into below
        found = KMeans(init="k-means++", n_init=restarts or settings.restarts, **common).fit(search)
        if len(search) < len(data):
            found = KMeans(init=found.cluster_centers_, n_init=1, **common).fit(data)
    if len(np.unique(found.labels_)) < k:
        distinct = len(np.unique(data, axis=0))
        if distinct < k:
            what, mend = (f"k = {k} classes", "-k") if k == settings.k else (f"{k} parts", "their number")
            raise InputError(f"{what}, but the sample has only {distinct} distinct vectors: lower {mend}")
    centres: Data = found.cluster_centers_.astype(np.float32)
    return centres


def _nearest(centres: Data) -> Heads:
    """Return the scores 2 z.c - |c|^2, one class per centroid."""
    exact = centres.astype(np.float64)
    return Heads(2 * exact.T, -np.square(exact).sum(axis=1), np.ones(len(exact), np.int64))


def _two_nearest(data: Data, centres: Data) -> tuple[NDArray[np.int64], NDArray[np.int64], Doubles]:
    """Return the nearest and second nearest centroid of each vector, and how far it lies between them.

    The last is 1 on the border of the two and 0 level with the nearest centroid or behind it.
    """
    heads = _nearest(centres)
    weight, bias = heads.weight.astype(np.float32), heads.bias.astype(np.float32)
    apart = square_distances(centres.astype(np.float64))
    found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for part in np.array_split(data, max(1, len(data) // CHUNK)):
        scores, row = part @ weight + bias, np.arange(len(part))
        first = scores.argmax(axis=1)
        best = scores[row, first]
        scores[row, first] = -np.inf
        second = scores.argmax(axis=1)
        ahead = (best - scores[row, second]) / np.maximum(apart[first, second], np.finfo(np.float64).tiny)
        for into, values in zip(found, (first, second, np.clip(1 - ahead, 0, 1)), strict=True):
            into.append(values)
    first, second, between = (np.concatenate(values) for values in found)
    return first, second, between


def _moments(data: Doubles, label: NDArray[np.int64], centres: Data, floor: float) -> tuple[Doubles, Doubles]:
    """Return shares (K,) and covariances (K, d, d) of labelled vectors, round where there are too few."""
    k, dim = centres.shape
    counts = np.bincount(label, minlength=k)
    covariances = np.empty((k, dim, dim))
    round_ = np.eye(dim) * (floor + data.var(axis=0).mean() / k)
    for i in range(k):
        own = data[label == i]
        covariances[i] = np.cov(own.T, bias=True) + floor * np.eye(dim) if len(own) > dim else round_
    shares = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    return shares, covariances


METHODS = {"kmeans": kmeans, "linkage": linkage, "gmm": mixture}
