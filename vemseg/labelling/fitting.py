"""Fits, checks and loads labellers of any method, and numbers their classes from dark to bright."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vemseg.context import Context
from vemseg.errors import InputError, MissingError, UsageError
from vemseg.foreign import quoted
from vemseg.labelling.base import FORMAT, KIND, Arrays, Demand, Labeller, Metadata, Sample, Single, Source
from vemseg.labelling.describing import described, scored, scored_alone
from vemseg.labelling.saved import check_saved
from vemseg.labelling.steadying import one_thread
from vemseg.recipe import METHODS, ClusterTable
from vemseg.run import load_tensors

NOWHERE = Context()
"""A context in which nobody is told of progress."""


@one_thread()
def fit(
    table: ClusterTable, sample: Sample, source: Source | None = None, context: Context = NOWHERE
) -> Labeller:
    """Fit classes to a sample of vectors by the method of a table, and number them from dark to bright.

    Classes that the model brings with it (``ClusterTable.finds``) keep their order.

    Parameters
    ----------
    table : ClusterTable
        The table of one of ``recipe.METHODS``.
    sample : Sample
    source : Source, optional
        The volume's vectors, for methods that look at more than a sample.
    context : Context
        Is told of progress in the stage "clustering".

    Raises
    ------
    UsageError
        Where the sample has fewer vectors than classes, or than parts to join; where the method needs a
        codebook and the model has none. Where the method works on regions and the sample holds none.
    InputError
        Where the sample has fewer than K distinct vectors, or holds NaN or infinity.
    """
    n = len(sample.vectors)
    facts: Metadata = table.model_dump(mode="json") | {"sample": n}
    if not table.finds:
        return _of(table.method).fit(table, sample, source, context).noting(facts)
    if table.k > n:
        raise UsageError(f"k = {table.k} classes cannot be fitted to a sample of {n} vectors: lower -k")
    if table.regions and not sample.graphs:
        raise UsageError(f"cluster.method {table.method} works on regions, and these vectors stand for none")
    refuse_damaged(sample)
    context.report("clustering", 0.0, f"{n} vectors into {table.k} classes")
    labeller = _of(table.method).fit(table, sample, source, context)
    order, counted = _dark_to_bright(_labels_in(labeller, sample), sample.intensities, labeller.k)
    labeller = labeller.reordered(order)
    context.report("clustering", 1.0, f"{n} vectors into {table.k} classes")
    return labeller.noting(facts | counted | described(labeller, sample))


def refuse_damaged(sample: Sample) -> None:
    """Refuse vectors that are no numbers.

    Raises
    ------
    InputError
        Where they hold NaN or infinity.
    """
    if not np.isfinite(sample.vectors).all():
        raise InputError("the sample's vectors hold NaN or infinity: the model's weights are damaged")


def count(table: ClusterTable, classes: tuple[str, ...]) -> int:
    """Return how many classes a fit gives, where the encoder itself tells ``classes`` apart.

    Where the number is to be chosen, it is the largest of the range.
    """
    return table.k or len(classes)


def check(
    table: ClusterTable,
    codes: Single | None,
    classes: tuple[str, ...] = (),
    learned: Arrays = MappingProxyType({}),
) -> None:
    """Refuse settings with which the method of a table cannot fit classes, before a sample is drawn.

    Parameters
    ----------
    table : ClusterTable
    codes : float32 (m, d) or None
        The model's codebook.
    classes : tuple of str
        The classes that the encoder itself tells apart.
    learned : mapping of str to array
        The labeller that was trained together with the model; empty where there is none.

    Raises
    ------
    UsageError
        Says what is missing.
    """
    if table.regions and table.k_range:
        raise UsageError(
            f"cluster.method {table.method} looks at whole graphs and cannot choose how many classes there "
            "are: leave out --k-range and -k auto"
        )
    _of(table.method).check(table, codes, classes, learned)


def demands(table: ClusterTable, n: int, dim: int, codes: Single | None) -> list[Demand]:
    """Return the memory that each step of fitting to ``n`` vectors of length ``dim`` takes."""
    return _of(table.method).demands(table, n, dim, codes)


def load(path: Path) -> Labeller:
    """Read a saved labeller.

    Raises
    ------
    MissingError, InputError
        Where there is no such file, or the file holds no labeller that this version can read.
    """
    if not path.is_file():
        raise MissingError(f"no clusters at {path}: 'cluster' or an earlier 'segment' makes them")
    arrays, metadata = load_tensors(path)
    if metadata.get("kind") != KIND:
        raise InputError(f"{path}: no clusters saved by vemseg")
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path}: clusters of format {quoted(metadata.get('format'))}; this version reads {FORMAT}"
        )
    method = metadata.get("method")
    if not isinstance(method, str) or method not in METHODS:
        raise InputError(f"{path}: clusters of method '{quoted(method)}', which this version does not have")
    kept = {key: value for key, value in metadata.items() if key not in ("kind", "format")}
    try:
        labeller = _of(method).restored(arrays, kept)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    check_saved(labeller, f"{path}: damaged clusters")
    return labeller


def _of(method: str) -> type[Labeller]:
    found: type[Labeller] = resolve_name(METHODS[method].labeller)
    return found


def _labels_in(labeller: Labeller, sample: Sample) -> NDArray[np.int64]:
    """Return the class of every vector of a sample; the nodes of a graph are scored together."""
    return np.concatenate([scores.argmax(dim=-1).numpy() for scores, _ in scored(labeller, sample)])


def labels_of(labeller: Labeller, vectors: NDArray[np.float16]) -> NDArray[np.int64]:
    """Return the class of each of n vectors, int64 (n,), 0..K-1; each is scored by itself."""
    return np.concatenate([scores.argmax(dim=-1).numpy() for scores, _ in scored_alone(labeller, vectors)])


def _dark_to_bright(
    label: NDArray[np.int64], intensities: Single, k: int
) -> tuple[NDArray[np.int64], Metadata]:
    """Return the order of the classes from dark to bright, and their sizes and mean intensities in it."""
    sizes = np.bincount(label, minlength=k)
    weighed = np.bincount(label, weights=intensities, minlength=k)
    grey = weighed / np.maximum(sizes, 1)
    order = np.lexsort((-sizes, np.where(sizes > 0, grey, np.inf)))
    return order, {
        "sizes": [int(sizes[i]) for i in order],
        "intensities": [round(float(grey[i]), 6) if sizes[i] else None for i in order],
    }
