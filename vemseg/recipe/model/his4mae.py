"""The table of HiS4MAE."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vemseg.recipe.base import Share
from vemseg.recipe.model.self_distilled import SelfDistilledTable


class His4maeTable(SelfDistilledTable):
    """HiS4MAE: a codebook between teacher and student.

    Attributes
    ----------
    codes : int
        Vectors of the codebook.
    codebook, student : float
        Weights of what draws the codes to the teacher's tokens (alpha) and the student's to the codes (beta).
    pull : float
        Share of a code in use that an isolated one takes on at the end of an epoch (gamma).
    isolated : float
        Codes count as isolated up to this share of the mean usage; 0: those that no token was nearest to.
    teacher_sees : {"whole", "visible"}
        The whole field of view, or only what the student sees of it.
    loss_on : {"masked", "all"}
        Patches whose pixels count.
    """

    kind: Literal["his4mae"] = "his4mae"
    codes: Annotated[int, Field(ge=2, le=65_536)] = 512
    codebook: Annotated[float, Field(ge=0)] = 1e-3
    student: Annotated[float, Field(ge=0)] = 2.5e-4
    pull: Annotated[float, Field(gt=0, lt=1)] = 0.8
    isolated: Share = 0.0
    teacher_sees: Literal["whole", "visible"] = "whole"
    loss_on: Literal["masked", "all"] = "masked"
