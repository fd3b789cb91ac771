"""Joins small clusters into classes by hierarchical linkage.

A tree of some hundred parts is small. So the costs of joining are not updated by a formula: at every step the
cost of each possible join is computed anew from the groups, and the cheapest join is made.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from vemseg.labelling.base import Doubles


def join_by_distance(centres: Doubles, sizes: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Join clusters by Ward's criterion: how much the sum of squares within the groups grows.

    Parameters
    ----------
    centres : float64 (P, d)
    sizes : int64 (P,)
        Number of vectors in each cluster. An empty one costs nothing and is joined to the nearest first.
    k : int
        Number of groups wanted.

    Returns
    -------
    int64 (P,)
        Group of each cluster, 0..k-1.
    """

    def cost(member: Doubles) -> Doubles:
        size = member @ np.maximum(sizes, 1e-9)
        centre = member @ (centres * np.maximum(sizes, 1e-9)[:, None]) / size[:, None]
        joint = np.outer(size, size) / np.add.outer(size, size)
        return square_distances(centre) * joint

    return _join(len(sizes), k, cost)


def square_distances(points: Doubles) -> Doubles:
    """Return the squared distances between all pairs of points (n, d): (n, n), 0 on the diagonal."""
    centred = points - points.mean(axis=0)
    product: Doubles = centred @ centred.T
    square = product.diagonal()
    apart = np.maximum(np.add.outer(square, square) - 2 * product, 0.0)
    np.fill_diagonal(apart, 0.0)
    return apart


def join_by_overlap(overlap: Doubles, sizes: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Join clusters that have many vectors between them, by average linkage.

    Parameters
    ----------
    overlap : float64 (P, P)
        Number of vectors that lie between two clusters, symmetric.
    sizes : int64 (P,)
        Number of vectors in each cluster.
    k : int
        Number of groups wanted.

    Returns
    -------
    int64 (P,)
        Group of each cluster, 0..k-1.

    Notes
    -----
    The groups A and B with the largest overlap(A, B) / (|A| |B|) are joined first; this is the mean overlap
    of a vector of A with one of B. Where no two groups have vectors between them, the smallest are joined.
    """

    def cost(member: Doubles) -> Doubles:
        size = np.maximum(member @ sizes, 1)
        between = member @ overlap @ member.T
        found: Doubles = -(between + 1e-9) / np.outer(size, size)
        return found

    return _join(len(sizes), k, cost)


def join_by_entropy(posterior: Doubles, k: int) -> NDArray[np.int64]:
    """Join the components of a mixture that are hardest to tell apart (Baudry et al. 2010).

    Parameters
    ----------
    posterior : float64 (n, P)
        Probability of each component given each vector of a sample.
    k : int
        Number of groups wanted.

    Returns
    -------
    int64 (P,)
        Group of each component, 0..k-1.

    Notes
    -----
    The groups whose join lowers the entropy of the classification most are joined first. The density of the
    mixture stays as it was fitted; only what counts as one class changes.
    """

    def cost(member: Doubles) -> Doubles:
        own = posterior @ member.T
        doubt = -xlogy(own, own).sum(axis=0)
        together = np.stack(
            [-xlogy(both, both).sum(axis=0) for both in (own + one[:, None] for one in own.T)]
        )
        found: Doubles = together - np.add.outer(doubt, doubt)
        return found

    return _join(posterior.shape[1], k, cost)


def _join(n: int, k: int, cost_of: Callable[[Doubles], Doubles]) -> NDArray[np.int64]:
    """Join the two groups that it costs least to join, until ``n`` clusters are ``k`` groups.

    Parameters
    ----------
    cost_of : callable
        Returns the cost of joining two groups, float64 (groups, groups), from the membership of the clusters,
        float64 (groups, n), 1 where a cluster belongs to a group.
    """
    group = np.arange(n)
    while (groups := group.max() + 1) > k:
        cost = cost_of(np.equal.outer(np.arange(groups), group).astype(np.float64))
        np.fill_diagonal(cost, np.inf)
        low, high = sorted(np.unravel_index(cost.argmin(), cost.shape))
        joined = np.where(group == high, low, group)
        group = joined - (joined > high)  # without gaps
    return group
