"""How often each label meets each class of a reference, slice by slice."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vemseg import metrics
from vemseg.context import Context
from vemseg.errors import InputError
from vemseg.geometry import Box
from vemseg.volume import Volume

_log = logging.getLogger("vemseg")

SLAB_VOXELS = 2**24
"""Voxels that are counted at a time, at least one slice."""

MOST_COUNTS = 2**27
"""Most numbers in the contingency tables of all slices together: 1 GiB."""

MANY_CLASSES = 64
"""A reference with more ids than this holds instances rather than classes."""

UNLABELLED = (-1, 255, 65535, 2**32 - 1, 2**64 - 1)
"""Ids by which references mark voxels that nobody labelled."""


def count(volumes: Sequence[Volume], context: Context) -> tuple[NDArray[np.int64], list[int], list[int]]:
    """Return the contingency table of every slice, (Z, P, G), and the ids of its rows and columns.

    Parameters
    ----------
    volumes : sequence of Volume
        Labels, reference, and a mask if any, of one shape.
    context : Context

    Raises
    ------
    InputError
        Where there are too many labels for tables of them.
    """
    predicted, wanted, *masks = volumes
    rows = max(1, SLAB_VOXELS // (predicted.shape[1] * predicted.shape[2]))
    slabs = list(predicted.box.split((rows, *predicted.shape[1:])))
    clusters, classes = _ids(predicted, slabs), _ids(wanted, slabs)
    if predicted.shape[0] * len(clusters) * len(classes) > MOST_COUNTS:
        raise InputError(
            f"{len(clusters)} labels in the prediction and {len(classes)} in the reference are too many "
            f"for {predicted.shape[0]} slices: evaluate classes, not instances"
        )
    tables = np.zeros((predicted.shape[0], len(clusters), len(classes)), np.int64)
    for i, slab in enumerate(slabs):
        found = metrics.to_index(_ints(predicted, slab), clusters)
        truth = metrics.to_index(_ints(wanted, slab), classes)
        counted = next((np.greater(mask.read(slab), 0) for mask in masks), None)
        for z in range(slab.shape[0]):
            tables[slab.start[0] + z] = metrics.contingency(
                found[z],
                truth[z],
                None if counted is None else counted[z],
                n_pred=len(clusters),
                n_ref=len(classes),
            )
        context.report("counting", (i + 1) / len(slabs))
    return tables, clusters, classes


def merged_greedily(
    labels: Volume,
    reference: Volume,
    part: NDArray[np.generic],
) -> NDArray[np.int64]:
    """Give the labels of a slice the class that greedy merging over the whole volume finds for them.

    Parameters
    ----------
    labels, reference : Volume
        Of one shape.
    part : integer (h, w)
        A slice of the labels.
    """
    tables, clusters, classes = count([labels, reference], Context())
    greedy = metrics.merge_greedy(tables.sum(axis=0), nothing_of(clusters)).mapping
    table = {label: classes[c] for i, label in enumerate(clusters) if (c := greedy[i]) is not None}
    ids, inverse = np.unique(part, return_inverse=True)
    return np.array([table.get(int(label), 0) for label in ids])[inverse].reshape(part.shape)


def nothing_of(clusters: list[int]) -> int | None:
    """Return the row of label 0, which stands for no class; None where no voxel has it."""
    return clusters.index(0) if 0 in clusters else None


def warn_of_instances(classes: Sequence[int], ignored: Sequence[int]) -> None:
    """Warn where the ids of a reference look like instances, or one of them like "not labelled".

    Parameters
    ----------
    classes : sequence of int
        The ids that the reference holds.
    ignored : sequence of int
        Those that do not count.
    """
    if len(classes) > MANY_CLASSES:
        _log.warning(
            "the reference holds %d ids, like instances: each is scored as a class of its own; a reference "
            "of classes (such as mitochondrion = 1) makes scores that mean something",
            len(classes),
        )
    left = [c for c in classes if c in UNLABELLED and c not in ignored]
    if left and len(classes) <= MANY_CLASSES:
        _log.warning(
            "the reference holds the id %d, which often marks what nobody labelled: it counts as a class "
            "(--ignore=%d leaves it out)",
            left[0], left[0],
        )  # fmt: skip


def _ints(volume: Volume, box: Box) -> NDArray[np.integer]:
    values: NDArray[np.integer] = volume.read(box)  # type: ignore[assignment]
    return values


def _ids(volume: Volume, slabs: list[Box]) -> list[int]:
    ids: set[int] = set()
    for slab in slabs:
        ids.update(np.unique(_ints(volume, slab)).tolist())
    return sorted(ids)
