"""The centroids of k-means, and which of some centroids are nearest to a vector."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.labelling.base import Doubles, Single
from vemseg.labelling.columns import Columns
from vemseg.labelling.joining import square_distances
from vemseg.recipe import CentroidTable, MiniBatchTable

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

SEARCH = 50_000
"""Number of vectors on which the restarts of k-means compete; the best is refined on the whole sample."""

CHUNK = 2**13
"""Number of vectors that are compared with all centroids at a time."""


class TwoNearest(NamedTuple):
    """The two centroids that are nearest to each of n vectors.

    Attributes
    ----------
    first, second : int64 (n,)
    between : float64 (n,)
        How far a vector lies between the two: 1 on their border, 0 level with the nearest centroid or beyond.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    between: Doubles


def centroids(data: Single, k: int, table: CentroidTable, restarts: int) -> Single:
    """Find centroids (k, d) of shuffled vectors (n, d) by k-means.

    Restarts (k-means++, Lloyd) compete on the first ``SEARCH`` vectors; the best is refined by Lloyd's
    algorithm on all of them. A deliberate deviation from restarting on the whole sample, ten times cheaper.

    Raises
    ------
    InputError
        Where there are fewer than ``k`` distinct vectors.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    search = data[:SEARCH] if k <= SEARCH else data

    def lloyd(vectors: Single, init: str | Single, n_init: int) -> KMeans:
        made = KMeans(k, init=init, n_init=n_init, max_iter=table.max_iterations, random_state=table.seed)
        return made.fit(vectors)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # about empty classes, which are dealt with below
        found = lloyd(search, "k-means++", restarts)
        if len(search) < len(data):
            found = lloyd(data, found.cluster_centers_, 1)
    if len(np.unique(found.labels_)) < k:
        refuse_few(data, k, table)
    centres: Single = found.cluster_centers_.astype(np.float32)
    return centres


def refuse_few(data: Single, k: int, table: CentroidTable) -> None:
    """Raise InputError where there are fewer than ``k`` distinct vectors among ``data`` (n, d)."""
    distinct = len(np.unique(data, axis=0))
    if distinct < k:
        what, mend = (f"k = {k} classes", "-k") if k == table.k else (f"{k} parts", "their number")
        raise InputError(f"{what}, but the sample has only {distinct} distinct vectors: lower {mend}")


def mini_batch_centroids(data: Single, table: MiniBatchTable) -> Single:
    """Find centroids (k, d) of shuffled vectors (n, d) by k-means on mini-batches (Sculley, WWW 2010).

    It ends before ``max_iterations`` passes once ten mini-batches have brought nothing new.

    Raises
    ------
    InputError
        Where there are fewer than ``k`` distinct vectors.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    made = MiniBatchKMeans(
        table.k,
        max_iter=table.max_iterations,
        batch_size=table.batch,
        n_init=table.restarts,
        random_state=table.seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        centres: Single = made.fit(data).cluster_centers_.astype(np.float32)
    if len(np.unique(made.labels_)) < table.k:
        refuse_few(data, table.k, table)
    return centres


def nearness(centres: NDArray[np.floating]) -> Columns:
    """Return the columns 2 z.c - |c|^2 of a vector z, largest for the nearest of the centres c (k, d)."""
    exact = centres.astype(np.float64)
    return Columns(2 * exact.T, -np.square(exact).sum(axis=1))


def two_nearest(data: Single, centres: Single) -> TwoNearest:
    """Return the two centres (k, d) that are nearest to each vector (n, d)."""
    weight, bias = (part.astype(np.float32) for part in nearness(centres))
    apart = square_distances(centres.astype(np.float64))
    found = [
        _two_nearest(part @ weight + bias, apart) for part in np.array_split(data, max(1, len(data) // CHUNK))
    ]
    first, second, between = (np.concatenate(values) for values in zip(*found, strict=True))
    return TwoNearest(first, second, between)


def _two_nearest(scores: Single, apart: Doubles) -> TwoNearest:
    """Return the two nearest centres by the scores (n, k) of ``nearness``, which are overwritten."""
    row, first = np.arange(len(scores)), scores.argmax(axis=1)
    best = scores[row, first]
    scores[row, first] = -np.inf
    second = scores.argmax(axis=1)
    ahead = (best - scores[row, second]) / np.maximum(apart[first, second], np.finfo(np.float64).tiny)
    return TwoNearest(first, second, np.clip(1 - ahead, 0, 1))
