"""Protocols: which class each cluster stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import UsageError
from vemseg.metrics.table import Table, dice_matrix, ratio

ORACLE_LIMIT = 12
"""The largest number of clusters that ``merge_oracle`` accepts, since its work grows like 3^K."""

_NOISE = 1e-12  # a smaller rise of a sum of Dice values is rounding


@dataclass(frozen=True)
class Assignment:
    """The class that each cluster stands for.

    Parameters
    ----------
    name : str
        The protocol that made it.
    mapping : mapping of int to int or None
        Cluster id -> class id; None leaves the cluster unassigned.
    uses_reference : bool
        Whether the reference was looked at: on new data, expect lower scores.
    """

    name: str
    mapping: Mapping[int, int | None]
    uses_reference: bool = True

    def lookup(self, n_pred: int, unassigned: int) -> NDArray[np.int64]:
        """Return the class of each cluster id below ``n_pred``, (n_pred,), or ``unassigned``."""
        classes = (self.mapping.get(p) for p in range(n_pred))
        return np.array([unassigned if g is None else g for g in classes], dtype=np.int64)


def merged(table: Table, assignment: Assignment) -> Table:
    """Add up the rows of clusters of one class: (..., P, G) -> (..., G + 1, G), last row unassigned."""
    clusters, classes = table.shape[-2:]
    to = np.zeros((classes + 1, clusters), dtype=np.int64)
    to[assignment.lookup(clusters, unassigned=classes), np.arange(clusters)] = 1
    return np.asarray(to @ table)


def match_identity(table: Table) -> Assignment:
    """Take cluster ids for class ids: a supervised prediction. The only protocol blind to the reference."""
    clusters, classes = table.shape
    return Assignment("identity", {p: p if p < classes else None for p in range(clusters)}, False)


def match_hungarian(table: Table, nothing: int | None = None) -> Assignment:
    """Match clusters and classes one to one so that the sum of their Dice is largest; leave the rest.

    Parameters
    ----------
    table : int64 (P, G)
    nothing : int, optional
        The cluster of voxels without a label. It stands for no class, though its voxels count as missed.

    Notes
    -----
    Han et al. (CVPRW 2022), section 4.4. There a match always has ``min(P, G)`` pairs; here a pair without a
    common voxel is left out, which changes no Dice value.
    """
    from scipy.optimize import linear_sum_assignment

    dice = dice_matrix(table)
    if nothing is not None:
        dice[nothing] = 0.0
    pairs = zip(*linear_sum_assignment(-dice), strict=True)
    matched = {int(p): int(g) for p, g in pairs if dice[p, g] > 0}
    return Assignment("hungarian", {p: matched.get(p) for p in range(len(table))})


def merge_majority(table: Table, nothing: int | None = None) -> Assignment:
    """Give each cluster the class it overlaps most: the lowest of equals; empty clusters get none.

    For ``nothing`` see :func:`match_hungarian`.
    """
    best = np.where(table.any(1), table.argmax(1), -1)
    if nothing is not None:
        best[nothing] = -1
    return Assignment("majority", {p: g if g >= 0 else None for p, g in enumerate(best.tolist())})


def merge_greedy(table: Table, nothing: int | None = None) -> Assignment:
    """Start from the Hungarian match and keep adding the cluster that raises the mean Dice most.

    Stops where no remaining cluster helps; those stay unassigned. Serves any number of clusters, where
    ``merge_oracle`` cannot. For ``nothing`` see :func:`match_hungarian`.
    """
    start = match_hungarian(table, nothing)
    mapping, confusion = dict(start.mapping), merged(table, start)
    common, total = np.diagonal(confusion).copy(), confusion[:-1].sum(1) + confusion.sum(0)
    rows = table.sum(1)
    free = [p for p, g in mapping.items() if g is None and rows[p] > 0 and p != nothing]
    left = np.array(free, dtype=np.intp)
    while left.size:
        now = ratio(2 * common, total, 0.0)
        gain = ratio(2 * (common + table[left]), total + rows[left, None], 0.0) - now
        best, g = (int(i) for i in np.unravel_index(gain.argmax(), gain.shape))
        if gain[best, g] <= _NOISE:
            break
        p = int(left[best])
        mapping[p] = g
        common[g] += table[p, g]
        total[g] += rows[p]
        left = np.delete(left, best)
    return Assignment("greedy", mapping)


def merge_oracle(table: Table) -> Assignment:
    """Return the merge with the highest mean Dice of all, clusters left out included.

    Notes
    -----
    Sets of clusters are bit masks. Class after class, the best use of each set is its best split into one
    part for this class and a rest for the classes before: 3^K steps per class instead of trying all
    (G + 1)^K assignments.

    Raises
    ------
    UsageError
        Where more than ``ORACLE_LIMIT`` clusters hold voxels.
    """
    used = np.flatnonzero(table.any(1))
    if len(used) > ORACLE_LIMIT:
        raise UsageError(
            f"the oracle merge takes at most {ORACLE_LIMIT} clusters, not {len(used)}: use the greedy merge"
        )
    member = np.arange(2 ** len(used))[:, None] >> np.arange(len(used)) & 1
    inside = member @ table[used]
    dice = ratio(2 * inside, inside.sum(1, keepdims=True) + table.sum(0), 0.0)
    mapping: dict[int, int | None] = dict.fromkeys(range(len(table)))
    for g, part in enumerate(_best_split(dice)):
        mapping.update({int(p): g for p in used[member[part] == 1]})
    return Assignment("oracle", mapping)


def _best_split(value: NDArray[np.float64]) -> list[int]:
    """Return one set per column, all disjoint, with the largest sum of ``value[set, column]``, (2^K, G)."""
    sets = np.arange(len(value))
    best, parts = np.zeros(len(sets)), []
    for column in value.T:
        longer, part = best.copy(), np.zeros_like(sets)
        for s in sets[1:]:
            around = sets[sets & s == s]
            trial = best[around ^ s] + column[s]
            better = trial > longer[around] + _NOISE
            longer[around[better]], part[around[better]] = trial[better], s
        best = longer
        parts.append(part)
    rest, chosen = len(sets) - 1, []
    for part in reversed(parts):
        chosen.append(int(part[rest]))
        rest ^= chosen[-1]
    return chosen[::-1]


def merge_manual(table: Table, mapping: Mapping[int, int | None]) -> Assignment:
    """Merge by a given list; clusters that it does not name stay unassigned.

    Raises
    ------
    UsageError
        Where it names a cluster or class that the table has no room for.
    """
    clusters, classes = table.shape
    for p, g in mapping.items():
        if not 0 <= p < clusters or (g is not None and not 0 <= g < classes):
            raise UsageError(f"mapping {p} -> {g}: clusters are 0..{clusters - 1}, classes 0..{classes - 1}")
    return Assignment("manual", {p: mapping.get(p) for p in range(clusters)})


PROTOCOLS: Mapping[str, Callable[[Table], Assignment]] = {
    "identity": match_identity,
    "hungarian": match_hungarian,
    "majority": merge_majority,
    "greedy": merge_greedy,
    "oracle": merge_oracle,
}
"""The protocols that need the table alone, by name."""
