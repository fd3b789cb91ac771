"""How many classes: chosen without labels, by how stable the classes are and by what they tell.

For each number of classes K, classes are fitted to several random halves of the sample, each with a seed of
its own, and all of them label the same vectors, which none was fitted to. The classes are stable if these
labels agree: structure comes again in another part of the sample and from another start, an arbitrary cut
does not (Ben-Hur, Elisseeff and Guyon 2002; Lange et al. 2004). All parts come from the same volume, so this
says nothing of other volumes.

Stability alone favours few classes: where two structures always fall into one class, that class is stable
(von Luxburg 2010). So the largest K is taken of those that are about as stable as the best. Where the encoder
knows classes of its own, numbers of classes that lose much of what it says of these are left out before.

References
----------
Ben-Hur, Elisseeff, Guyon: A stability based method for discovering structure in clustered data. Pacific
Symposium on Biocomputing, 2002.
Lange, Roth, Braun, Buhmann: Stability-based validation of clustering solutions. Neural Computation, 2004.
Hennig: Cluster-wise assessment of cluster stability. Computational Statistics & Data Analysis, 2007.
von Luxburg: Clustering stability: an overview. Foundations and Trends in Machine Learning, 2010.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vemseg.context import Context, silent
from vemseg.errors import Interrupted, UsageError
from vemseg.labelling.base import Doubles, Labeller, Sample, Single, Source
from vemseg.labelling.criteria import agreements, explained, kept_information, smallest
from vemseg.labelling.fitting import check, fit, labels_of, refuse_damaged
from vemseg.labelling.scaling import scaling
from vemseg.labelling.steadying import one_thread
from vemseg.recipe import ClusterTable

FITS = 6
"""Fits for each K; every two of them are compared."""

HALF = 20_000
"""Most vectors that classes are fitted to, at most half of those that are not held back."""

COMMON = 10_000
"""Most vectors that all fits label, at most a fifth of the sample."""

TOLERANCE = 0.05
"""How much less stable than the best a K may be, beyond the standard error of the difference. This errs on
the side of more classes, because classes that split a structure can be merged later, and a class that holds
two cannot be taken apart. Of ten well separated structures or more it may find one or two too many."""

ENOUGH = 0.95
"""A K tells enough if it keeps this share of the information that the best of the range keeps."""

STABLE = 0.6
"""Below this stability classes are called unstable, by the rule of thumb for clusters that come again in
other samples (Hennig 2007)."""


class Tried(NamedTuple):
    """What was found for one number of classes, each the mean over all fits.

    Attributes
    ----------
    k : int
    stability : float
        Mean adjusted Rand index of all pairs of fits.
    spread : float
        Its standard deviation over the pairs.
    explained : float
        Share of the variance of the scaled vectors that lies between the classes.
    smallest : float
        Share of the vectors in the smallest class.
    kept : float or None
        Share of the encoder's information on its own classes that is kept; None where it knows none.
    """

    k: int
    stability: float
    spread: float
    explained: float
    smallest: float
    kept: float | None

    @property
    def error(self) -> float:
        """The standard error of the stability; the pairs come from ``FITS`` independent fits."""
        return self.spread / math.sqrt(FITS)


@dataclass(frozen=True)
class Choice:
    """The number of classes that is suggested, why, and what it was chosen from.

    Attributes
    ----------
    k : int
    reason : str
        Why, to follow "took K = 7: ".
    stable : bool
        Whether its classes come again; if not, any other K is as good.
    curve : tuple of Tried
        One entry for each K of the range, in order.
    """

    k: int
    reason: str
    stable: bool
    curve: tuple[Tried, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """The choice as plain JSON, as it stands in the metadata of classes and labels."""
        return asdict(self) | {"curve": [one._asdict() for one in self.curve]}

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Choice:
        """Return the choice that ``facts`` describes."""
        return cls(**facts | {"curve": tuple(Tried(**one) for one in facts["curve"])})


@one_thread()
def find_classes(table: ClusterTable, sample: Sample, source: Source | None, context: Context) -> Labeller:
    """Fit classes as ``fit`` does; where the table gives a range of K, choose K first.

    The choice (``Choice.facts``) then stands in the metadata under "choice".

    Parameters
    ----------
    table, sample, source, context
        As for ``fit``.

    Raises
    ------
    UsageError, InputError, Interrupted
        As ``fit`` and ``choose``.
    """
    if not table.k_range:
        return fit(table, sample, source, context)
    check(table, sample.codes, sample.classes, sample.learned)
    choice = choose(table, sample, len(sample.classes), context)
    return fit(table.of(choice.k), sample, source, context).noting({"choice": choice.facts})


def choose(table: ClusterTable, sample: Sample, known: int, context: Context) -> Choice:
    """Choose a number of classes from the range of a table, without labels.

    Parameters
    ----------
    table : ClusterTable
        Its ``k_range`` is tried. The same seed gives the same choice.
    sample : Sample
        It is not changed.
    known : int
        Number of classes that the encoder itself knows: the first ``known`` numbers of each vector are their
        logits. 0 leaves this criterion out.
    context : Context
        Is told of progress in the stage "choosing".

    Raises
    ------
    UsageError
        Where the sample is too small for the largest K of the range.
    InputError
        As ``fit``.
    Interrupted
        Where the work was stopped.
    """
    refuse_damaged(sample)
    draws = _Draws.of(sample, table)
    quiet = replace(context, report=silent)
    first, last = table.k_range
    curve: list[Tried] = []
    total = (last + 1 - first) * FITS
    for k in range(first, last + 1):
        labels: list[NDArray[np.int64]] = []
        for half in draws.halves:
            done = len(curve) * FITS + len(labels)
            context.report("choosing", done / total, f"K = {k}")
            if context.stopped():
                raise Interrupted("stopped while the number of classes was chosen: the same command goes on")
            own = table.of(k).model_copy(update={"seed": (table.seed + len(labels)) % 2**32})
            vectors, grey = sample.vectors[half], sample.intensities[half]
            part = replace(sample, vectors=vectors, intensities=grey, graphs=())
            labels.append(labels_of(fit(own, part, None, quiet), draws.common))
        curve.append(_tried(k, labels, draws, known))
    context.report("choosing", 1.0, f"K = {last}")
    return suggested(curve)


class _Draws(NamedTuple):
    """The parts of a sample that a choice is made with.

    Attributes
    ----------
    halves : list of int64 arrays
        The numbers of the vectors that each fit sees.
    common : float16 (m, d)
        The vectors that all fits label.
    scaled : float32 (m, d)
        The same, scaled as the method scales them.
    """

    halves: list[NDArray[np.int64]]
    common: NDArray[np.float16]
    scaled: Single

    @classmethod
    def of(cls, sample: Sample, table: ClusterTable) -> _Draws:
        """Draw them."""
        n = len(sample.vectors)
        rng = np.random.default_rng([table.seed, 0xC0])
        held = rng.choice(n, min(COMMON, n // 5), replace=False)
        rest = np.setdiff1d(np.arange(n), held)
        halves = [rng.choice(rest, min(HALF, len(rest) // 2), replace=False) for _ in range(FITS)]
        least = min(map(len, [held, *halves]))
        if least < table.k:
            raise UsageError(
                f"{n} vectors are too few to choose from up to {table.k} classes: give -k, or a larger sample"
            )
        common = sample.vectors[held]
        data = common.astype(np.float32)
        if (scale := scaling(data, table)) is not None:
            scale.apply(data)
        return cls(halves, common, data)


def _tried(k: int, labels: Sequence[NDArray[np.int64]], draws: _Draws, known: int) -> Tried:
    """Return the measures of a number of classes, from the labels of all fits, rounded for the file."""
    pairs = agreements(labels)
    kept = [kept_information(label, draws.common[:, :known]) for label in labels] if known else []
    return Tried(
        k,
        stability=_mean(pairs),
        spread=round(float(pairs.std(ddof=1)), 4),
        explained=_mean([explained(draws.scaled, label) for label in labels]),
        smallest=_mean([smallest(label, k) for label in labels]),
        kept=_mean(kept) if known else None,
    )


def _mean(values: Sequence[float] | Doubles) -> float:
    return round(float(np.mean(values)), 4)


def suggested(curve: Sequence[Tried]) -> Choice:
    """Choose: among the K that tell enough, the largest that is about as stable as the most stable of them.

    "Enough" is a share of ``ENOUGH`` of the most information that any K of the range keeps; where the
    encoder knows no classes, every K tells enough. "About as stable" is less stable by at most ``TOLERANCE``,
    after one standard error of the difference was taken off it.
    """
    most = max(one.kept or 0.0 for one in curve)
    telling = [one for one in curve if one.kept is None or one.kept >= ENOUGH * most]
    best = max(telling, key=lambda one: one.stability)

    def behind(one: Tried) -> float:
        return best.stability - one.stability - math.hypot(best.error, one.error)

    taken = [one for one in telling if behind(one) <= TOLERANCE][-1]
    stable = taken.stability >= STABLE
    reason = f"the most classes that are still about as stable as the best ({taken.stability:.2f} of 1)"
    if not stable:
        reason += ", but no K gives stable classes: choose one yourself"
    if len(telling) < len(curve):
        lost = f"{1 - ENOUGH:.0%} of what the encoder tells apart"
        reason += f". Values of K that lose more than {lost} were left out"
    return Choice(taken.k, reason, stable, tuple(curve))
