"""The voxels of each class, slice by slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.context import Context
from vemseg.errors import InputError, Interrupted
from vemseg.geometry import ZYX, Box
from vemseg.volume import Volume

READ: ZYX = (64, 512, 512)
"""The shape of the boxes that are counted at a time."""

MOST_CLASSES = 255
"""Most classes that a report shows: a byte for each voxel of a slice, and 0 for nothing."""

MOST_NUMBER = 65535
"""The largest number that a class may have; larger ones are taken for numbers of objects."""


@dataclass(frozen=True)
class Counts:
    """How many voxels each class has.

    Attributes
    ----------
    labels : tuple of K int
        The numbers of the classes, ascending, without 0.
    voxels : int64 (Z, K + 1)
        Voxels in each slice across z: of nothing (label 0), then of each class.
    """

    labels: tuple[int, ...]
    voxels: NDArray[np.int64]

    @property
    def totals(self) -> NDArray[np.int64]:
        """Voxels of nothing and of each class in the whole volume, int64 (K + 1,)."""
        totals: NDArray[np.int64] = self.voxels.sum(axis=0)
        return totals

    def places(self, labels: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Return which class each label is, counted from 1 in the order of ``labels``; 0 stays 0."""
        table = np.zeros(max(self.labels, default=0) + 1, np.uint8)
        table[list(self.labels)] = np.arange(1, len(self.labels) + 1)
        found: NDArray[np.uint8] = table[labels]
        return found


def count_classes(labels: Volume, known: tuple[int, ...], context: Context) -> Counts:
    """Count the voxels of each class.

    Parameters
    ----------
    labels : Volume
        0 is nothing.
    known : tuple of int
        Classes that are listed even where no voxel has them.
    context : Context

    Raises
    ------
    InputError
        Where there are more classes than a report shows, or labels below 0.
    Interrupted
        Where the work was stopped.
    """
    found = {label: np.zeros(labels.shape[0], np.int64) for label in (0, *known)}
    boxes = list(labels.box.split(READ))
    for i, box in enumerate(boxes):
        if context.stopped():
            raise Interrupted("stopped while voxels were counted: the same command starts again")
        _count(labels, box, found)
        context.report("counting", (i + 1) / len(boxes))
    if len(found) > MOST_CLASSES + 1:
        raise InputError(
            f"{labels.address} has {len(found) - 1} classes, and a report shows at most {MOST_CLASSES}: give "
            "labels of classes, not of objects"
        )
    order = sorted(found)
    return Counts(tuple(order[1:]), np.stack([found[label] for label in order], axis=1))


def _count(labels: Volume, box: Box, found: dict[int, NDArray[np.int64]]) -> None:
    """Add the voxels of a box to what was found."""
    for z, plane in enumerate(labels.read(box), start=box.start[0]):
        low, high = int(plane.min()), int(plane.max())
        if low < 0 or high > MOST_NUMBER:
            raise InputError(
                f"{labels.address} has the label {low if low < 0 else high}: classes have numbers from 0 to "
                f"{MOST_NUMBER}; give labels of classes, not of objects"
            )
        counts = np.bincount(plane.reshape(-1))
        for label in np.flatnonzero(counts).tolist():
            found.setdefault(label, np.zeros(labels.shape[0], np.int64))[z] += counts[label]
