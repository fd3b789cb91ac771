"""Clusters against reference labels, for many numbers of classes and seeds; vectors are computed once."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pairs import Pair

from vemseg import metrics
from vemseg.context import Context
from vemseg.dense import (
    LatticeVectors,
    RegionVectors,
    VectorSource,
    argmax_interpolated,
    label_blocks,
    lay_over,
)
from vemseg.dense.regions import Divided
from vemseg.errors import InputError, UsageError
from vemseg.geometry import Box
from vemseg.labelling import Labeller, fit
from vemseg.models import Model

PROTOCOLS = {"hungarian": metrics.match_hungarian, "greedy": metrics.merge_greedy}
"""How clusters are given to classes; both look at the reference, so on new data expect less."""

Key = tuple[int, int]
"""Number of classes and seed of the clustering."""

Counts = dict[Key, NDArray[np.int64]]
"""Voxels of each cluster and class, slice by slice (z, P, G), for each labeller."""

Labels = NDArray[np.uint8]


class KeptRegions(RegionVectors):
    """Regions of which every part is divided once, for all samples and labellers."""

    def divided(self, number: int) -> Divided:
        """Return a part by its number."""
        if number not in self._kept:
            self._kept[number] = super().divided(number)
        return self._kept[number]

    @functools.cached_property
    def _kept(self) -> dict[int, Divided]:
        return {}


def lay(model: Model, pair: Pair, context: Context) -> tuple[LatticeVectors, RegionVectors | None]:
    """Lay a model over a volume; the second is its regions, where the recipe divides the volume into them.

    Vectors are held in memory where they take a small part of it.
    """
    source = lay_over(model, pair.wanted, context).held(context)
    table = model.recipe.regions
    return source, KeptRegions(source, table) if table.wanted else None


def fit_all(
    source: VectorSource, ks: Sequence[int], seeds: Sequence[int], context: Context
) -> tuple[dict[Key, Labeller], dict[Key, str]]:
    """Fit classes for each K and seed; a model that brings its classes gives one labeller.

    Parameters
    ----------
    source : VectorSource
    ks, seeds : sequence of int
        Numbers of classes, and seeds of the sample and of the clustering, as ``cluster.seed`` is of both.
    context : Context

    Returns
    -------
    labellers : dict
    refused : dict
        Why there are none for the others: so many classes cannot be told apart in the sample.

    Raises
    ------
    InputError
        Where there are none at all.
    """
    table = source.maker.recipe.cluster
    size = table.sample_of(source.volume.box.size)
    if not table.finds:
        labeller = fit(table, source.sample(size, table.seed, context), source, context)
        return {(labeller.k, 0): labeller}, {}
    found: dict[Key, Labeller] = {}
    refused: dict[Key, str] = {}
    for seed in seeds:
        sample = source.sample(size, seed, context)
        for k in ks:
            one = table.of(k).model_copy(update={"seed": seed})
            try:
                found[k, seed] = fit(one, sample, source, context)
            except (InputError, UsageError) as error:
                refused[k, seed] = str(error)
    if not found:
        raise InputError(next(iter(refused.values())))
    return found, refused


def labelled(
    source: LatticeVectors,
    regions: RegionVectors | None,
    labellers: Mapping[Key, Labeller],
    context: Context,
) -> Iterator[tuple[Box, Key, Labels]]:
    """Yield each box of the volume and its labels, 1..K (z, y, x), by each labeller in turn."""
    boxes = _painted(regions) if regions is not None else _interpolated(source, _boxes(source, context))
    for box, label in boxes:
        for key, labeller in labellers.items():
            yield box, key, np.ascontiguousarray(label(labeller).transpose(source.back))


def _boxes(source: LatticeVectors, context: Context) -> Iterable[Box]:
    # A block's vectors are kept for all labellers: as many numbers as scores of 2 * dim classes, at most.
    return source.volume.box.split(label_blocks(source, 2 * source.dim, context.limit).shape)


def _interpolated(source: LatticeVectors, boxes: Iterable[Box]) -> Iterator[tuple[Box, Any]]:
    """Yield boxes, and what labels each of them, its axes as the lattice has them."""
    for box in boxes:
        vectors, axes = source.values(source.points_of(box)).float(), source.interpolations(box)
        yield box, lambda one, v=vectors, a=axes: argmax_interpolated(one.scores(v), a)


def _painted(regions: RegionVectors) -> Iterator[tuple[Box, Any]]:
    """Yield the boxes of parts, and what paints their regions."""
    order = regions.source.back
    for number in range(len(regions.parts)):
        part = regions.divided(number)
        lying = part.box.clip(Box.whole(tuple(regions.volume.shape[axis] for axis in regions.source.order)))
        numbers = part.numbers[lying.relative_to(part.box).slices]
        start, stop = ([ends[axis] for axis in order] for ends in (lying.start, lying.stop))
        box = Box(tuple(start), tuple(stop))
        yield box, lambda one, g=part.graph, n=numbers: _classes(one, g)[n]


def _classes(labeller: Labeller, graph: Any) -> Labels:
    return (1 + labeller.graph_scores(graph).argmax(dim=-1)).numpy().astype(np.uint8)


def count(pair: Pair, boxes: Iterable[tuple[Box, Key, Labels]]) -> Counts:
    """Count the voxels of each cluster, 0..K-1, and class of the reference, in each slice.

    Parameters
    ----------
    pair : Pair
        Where it has a mask, only voxels count where the mask is above 0.
    boxes : iterable of (Box, (K, seed), labels)
        As :func:`labelled` yields them.
    """
    top, depth = max(pair.classes) + 1, pair.grey.shape[0]
    counts: Counts = {}
    seen, reference, inside = None, None, None
    for box, key, labels in boxes:
        if box != seen:
            seen, reference = box, pair.reference.read(box)
            inside = None if pair.mask is None else pair.mask.read(box) > 0
        table = counts.setdefault(key, np.zeros((depth, key[0], top), np.int64))
        for i, z in enumerate(range(box.start[0], box.stop[0])):
            mask = None if inside is None else inside[i]
            table[z] += metrics.contingency(labels[i] - 1, reference[i], mask, n_pred=key[0], n_ref=top)
    return counts


def scored(pair: Pair, table: NDArray[np.int64], protocol: str) -> dict[str, Any]:
    """Return the Dice of each class, and their mean, under a protocol; counts are (P, G)."""
    scores = metrics.score(table, PROTOCOLS[protocol](table))
    dice = {pair.classes[g]: round(float(scores.dice[g]), 4) for g in scores.present}
    return {"protocol": protocol, "dice": dice, "mean": round(scores.mean(), 4)}
