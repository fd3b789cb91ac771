"""The objective of models that learn from labels: cross-entropy of the voxels whose class is known.

Voxels of unknown class (``UNKNOWN``) take no part: neither in the loss and its gradient, nor in any score.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vemseg.batch import UNKNOWN, Batch
from vemseg.models.objective import Objective
from vemseg.models.windowed import WindowedEncoder
from vemseg.ranks import divided


class Supervision(Objective):
    """Cross-entropy, averaged over the known voxels of a batch.

    Parameters
    ----------
    encoder : WindowedEncoder
        What is trained.
    """

    divides = True

    encoder: WindowedEncoder

    def __init__(self, encoder: WindowedEncoder) -> None:
        super().__init__()
        self.encoder, self.window = encoder, (1, encoder.edge, encoder.edge)
        self.charts = dice_charts(encoder.classes)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss`` and ``accuracy`` for labelled fields of view, (b, 1, 1, F, F)."""
        logits, labels = divided(self.encoder.logits, batch.images[:, :, 0]).float(), labels_of(batch)[:, 0]
        return {"loss": known_entropy(logits, labels), "accuracy": accuracy(logits.argmax(dim=1), labels)}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Return the counts of voxels that Dice is made of."""
        found = self.encoder.logits(batch.images[:, :, 0]).argmax(dim=1)
        return overlaps(found, labels_of(batch)[:, 0], self.encoder.classes)

    def scores(self, means: Mapping[str, float]) -> dict[str, float]:
        """Return Dice of each class, and its mean over the classes."""
        return dice(means, self.encoder.classes)


def labels_of(batch: Batch) -> Tensor:
    """Return the labels of a batch, uint8 (b, d, h, w).

    Raises
    ------
    ValueError
        Where it has none.
    """
    if batch.labels is None:
        raise ValueError("this objective learns from labels, and the batch has none")
    return batch.labels


def known_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over known pixels, 0 where there are none.

    Parameters
    ----------
    logits : Tensor float32 (b, classes, y, x)
    labels : Tensor (b, y, x)
        Numbers of classes, or ``UNKNOWN``.
    """
    total = cross_entropy(logits, labels.long(), ignore_index=UNKNOWN, reduction="sum")
    return total / (labels != UNKNOWN).sum().clamp_min(1)


def accuracy(found: Tensor, labels: Tensor) -> Tensor:
    """Return the share of the known voxels that get their own class, 0 where there are none."""
    known = labels != UNKNOWN
    return ((found == labels) & known).sum() / known.sum().clamp_min(1)


BOTH, SUM = "both", "sum"
"""Counts of a class: voxels that have it in both labellings, and in the one plus in the other."""


def overlaps(found: Tensor, labels: Tensor, classes: tuple[str, ...]) -> dict[str, float]:
    """Return for each class, by its number, the known voxels that have it in both, and in each, added."""
    known = labels != UNKNOWN
    counts: dict[str, float] = {}
    for k in range(len(classes)):
        mine, theirs = (found == k) & known, labels == k
        counts[f"{BOTH}_{k}"] = float((mine & theirs).sum())
        counts[f"{SUM}_{k}"] = float(mine.sum() + theirs.sum())
    return counts


def dice(counts: Mapping[str, float], classes: tuple[str, ...]) -> dict[str, float]:
    """Return Dice of each class, ``dice_<name>``, and the mean of those that occur, ``dice``.

    A class that occurs in neither labelling has no Dice: NaN.
    """
    each = {
        f"dice_{name}": 2 * counts[f"{BOTH}_{k}"] / total if (total := counts[f"{SUM}_{k}"]) else float("nan")
        for k, name in enumerate(classes)
    }
    occurring = [value for value in each.values() if value == value]
    return {"dice": sum(occurring) / len(occurring) if occurring else float("nan"), **each}


def dice_charts(classes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the chart of held-out Dice: of each class, and their mean."""
    return {"held_dice": ("held_dice", *(f"held_dice_{name}" for name in classes))}
