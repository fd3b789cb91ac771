"""Scores of a prediction under an assignment: per class, their means, and slice by slice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import UsageError
from vemseg.metrics.protocols import Assignment, merged
from vemseg.metrics.table import Table, ratio

MEASURES = ("dice", "iou", "sensitivity", "specificity", "precision", "accuracy")
"""The names of the measures that ``Scores`` holds for each class."""


@dataclass(frozen=True)
class Scores:
    """The result of ``score``; float arrays are (G,) in 0..1, NaN where a class is absent from both sides.

    Parameters
    ----------
    assignment : Assignment
        The protocol and its outcome.
    confusion : int64 array, (G + 1, G)
        Voxels by predicted class (rows) and reference class (columns); the last row is unassigned.
    dice, iou, sensitivity, specificity, precision, accuracy : float64 arrays, (G,)
        One class against the rest. Sensitivity is recall. A class that is in one side only has Dice 0.
    names : mapping of int to str
        Class id -> name.
    """

    assignment: Assignment
    confusion: Table
    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]
    precision: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    names: Mapping[int, str]

    @property
    def reference_voxels(self) -> NDArray[np.int64]:
        """Voxels of each class in the reference, (G,)."""
        return np.asarray(self.confusion.sum(0))

    @property
    def predicted_voxels(self) -> NDArray[np.int64]:
        """Voxels predicted as each class, (G,)."""
        return np.asarray(self.confusion[:-1].sum(1))

    @property
    def unassigned_voxels(self) -> int:
        """Voxels in clusters that stand for no class."""
        return int(self.confusion[-1].sum())

    @property
    def present(self) -> list[int]:
        """Ids of the classes that the reference holds: those that means run over."""
        return [int(g) for g in np.flatnonzero(self.reference_voxels)]

    @property
    def overall_accuracy(self) -> float:
        """Share of all voxels whose class is right; unassigned voxels are wrong."""
        return float(np.trace(self.confusion) / self.confusion.sum()) if self.present else math.nan

    def mean(self, measure: str = "dice") -> float:
        """Return the mean of a measure over present classes, each counting alike; NaN without any."""
        return self._mean(measure, np.ones(len(self.present)))

    def weighted_mean(self, measure: str = "dice") -> float:
        """Return the mean of a measure over present classes, weighted by their reference voxels."""
        return self._mean(measure, self.reference_voxels[self.present])

    def _mean(self, measure: str, weights: NDArray[np.number]) -> float:
        if measure not in MEASURES:
            raise UsageError(f"'{measure}' is not a measure; choose one of {', '.join(MEASURES)}")
        values = getattr(self, measure)[self.present]
        return float(np.average(values, weights=weights)) if len(values) else math.nan

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain numbers, strings, lists and dictionaries; NaN becomes None."""
        shown = np.flatnonzero(self.reference_voxels + self.predicted_voxels)
        return {
            "protocol": self.assignment.name,
            "uses_reference": self.assignment.uses_reference,
            "mapping": {str(p): g for p, g in self.assignment.mapping.items()},
            "classes": [self._class_dict(int(g)) for g in shown],
            "mean": {m: _plain(self.mean(m)) for m in MEASURES},
            "weighted_mean": {m: _plain(self.weighted_mean(m)) for m in MEASURES},
            "overall_accuracy": _plain(self.overall_accuracy),
            "unassigned_voxels": self.unassigned_voxels,
            "confusion": self.confusion.tolist(),
        }

    def _class_dict(self, g: int) -> dict[str, object]:
        measures = {m: _plain(float(getattr(self, m)[g])) for m in MEASURES}
        voxels = {
            "reference_voxels": int(self.reference_voxels[g]),
            "predicted_voxels": int(self.predicted_voxels[g]),
        }
        return {"id": g, "name": self.names[g], **measures, **voxels}


def score(table: Table, assignment: Assignment, names: Mapping[int, str] | None = None) -> Scores:
    """Score a prediction whose clusters stand for the classes of an assignment.

    Parameters
    ----------
    table : int64 array, (P, G)
    assignment : Assignment
    names : mapping of int to str, optional
        Class id -> name; a class without one is called ``class 3``.
    """
    confusion = merged(table, assignment)
    hit, predicted, actual = np.diagonal(confusion), confusion[:-1].sum(1), confusion.sum(0)
    voxels, seen = table.sum(), predicted + actual > 0
    clear = voxels - predicted - actual + hit
    parts = {
        "dice": (2 * hit, predicted + actual, 0.0),
        "iou": (hit, predicted + actual - hit, 0.0),
        "sensitivity": (hit, actual, 0.0),
        "specificity": (clear, voxels - actual, 1.0),
        "precision": (hit, predicted, 0.0),
        "accuracy": (hit + clear, np.full_like(hit, voxels), 0.0),
    }
    measures = {name: np.where(seen, ratio(*part), np.nan) for name, part in parts.items()}
    given = dict(names or {})
    named = {g: given.get(g, f"class {g}") for g in range(table.shape[1])}
    return Scores(assignment=assignment, confusion=confusion, names=named, **measures)


def slice_dice(tables: Table, assignment: Assignment) -> NDArray[np.float64]:
    """Return the Dice of each class in each slice under one assignment of the whole volume.

    Parameters
    ----------
    tables : int64 array, (Z, P, G)
        One contingency table per slice; their sum is that of the volume.
    assignment : Assignment

    Returns
    -------
    float64 array, (Z, G)
        NaN where a slice holds a class neither in the reference nor in the prediction.
    """
    confusion = merged(tables, assignment)
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    return ratio(2 * hit, confusion[..., :-1, :].sum(-1) + confusion.sum(-2), np.nan)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
