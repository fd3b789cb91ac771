"""What the tables of self-distilled masked autoencoders share."""

from __future__ import annotations

from typing import Literal

from vemseg.recipe.base import Count, UpToOne
from vemseg.recipe.model.vit import ViTTable


class SelfDistilledTable(ViTTable):
    """What masked autoencoders share whose encoder also learns from a teacher, its own running mean.

    Attributes
    ----------
    ema : {"step", "epoch"}
        Whether the teacher follows the encoder after every step or after every epoch.
    momentum : (float, float)
        Weight of the teacher's past in the running mean, at the start and at the end of the training; half a
        cosine leads from one to the other.
    epoch : int
        Number of samples in an epoch.
    """

    ema: Literal["step", "epoch"] = "step"
    momentum: tuple[UpToOne, UpToOne] = (0.996, 1.0)
    epoch: Count = 20_000
