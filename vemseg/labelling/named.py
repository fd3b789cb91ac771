"""The classes that the encoder itself tells apart: their scores are the logits that a vector begins with.

The first class, which is what lies between organelles, is preferred to the others by the setting ``caution``.
Classes keep the encoder's names and numbers, so that a legend is the same for every volume. Nothing is
fitted. Scores interpolated between lattice points are the logits of interpolated vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from vemseg.context import Context
from vemseg.errors import InputError, UsageError
from vemseg.labelling.affine import AffineScores
from vemseg.labelling.base import OWN, Arrays, Sample, Single, Source
from vemseg.recipe import NamedTable


@dataclass(frozen=True, eq=False)
class NamedLabeller(AffineScores):
    """A labeller whose classes are the encoder's own."""

    probabilistic: ClassVar[bool] = True

    @classmethod
    def fit(cls, table: NamedTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Take the classes of the encoder, in its order; the sample may be empty."""
        names = _required(sample.classes)
        weight = np.eye(sample.vectors.shape[1], len(names), dtype=np.float32)
        bias = np.zeros(len(names), np.float32)
        bias[0] = np.log(table.caution)
        return cls(weight, bias, metadata={OWN: list(names)})

    @classmethod
    def check(
        cls, table: NamedTable, codes: Single | None, classes: tuple[str, ...], learned: Arrays
    ) -> None:
        """Refuse a model that knows no classes by name, or other than 2 to 255 of them."""
        _required(classes)

    def pooled(self, columns: Tensor) -> Tensor:
        """Return the columns, which are the scores.

        Raises
        ------
        InputError
            Where they are not finite. Other methods find that in their sample; here none is drawn.
        """
        if not torch.isfinite(columns).all():
            raise InputError("the vectors hold NaN or infinity: the model's weights are damaged")
        return columns


def _required(classes: tuple[str, ...]) -> tuple[str, ...]:
    if not classes:
        raise UsageError(
            "this model knows no classes by name: leave out --classes named (cluster.method named), or take "
            "another model with -m"
        )
    if not 2 <= len(classes) <= 255:
        raise UsageError(f"cluster.method named takes models of 2 to 255 classes, not of {len(classes)}")
    return classes
