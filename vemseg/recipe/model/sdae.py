"""The table of SdAE and SdAE-recon."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, Share, UpToOne, require
from vemseg.recipe.model.self_distilled import SelfDistilledTable


class SdaeTable(SelfDistilledTable):
    """SdAE and SdAE-recon: a decoder predicts the teacher's tokens of the masked patches.

    Attributes
    ----------
    folds : int
        Number of parts that the masked patches are divided into; the teacher sees one part at a time.
    pixels : float
        Weight of the loss of a second decoder, for the masked pixels; 0 leaves this decoder out (plain SdAE).
    drop_path : float
        Share of the samples that skip the student's last block; it rises from 0 at the first block.
    """

    kind: Literal["sdae"] = "sdae"
    ema: Literal["step", "epoch"] = "epoch"
    momentum: tuple[UpToOne, UpToOne] = (0.96, 0.99)
    folds: Count = 3
    pixels: Annotated[float, Field(ge=0)] = 1.0
    drop_path: Share = 0.25

    @model_validator(mode="after")
    def _check_folds(self) -> Self:
        hidden = self.grid**2 - int(self.grid**2 * (1 - self.mask_ratio))
        most = f"model.folds must be at most the {hidden} masked patches, not {self.folds}"
        require(self.folds <= hidden, most)
        return self
