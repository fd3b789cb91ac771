"""The table of HiS4MAE."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vemseg.recipe.base import Share
from vemseg.recipe.model.self_distilled import SelfDistilledTable


class His4maeTable(SelfDistilledTable):
    """HiS4MAE: a masked autoencoder with a codebook between teacher and student.

    Attributes
    ----------
    codes : int
        Number of vectors in the codebook.
    codebook, student : float
        Weights of the terms that draw the codes to the teacher's tokens (alpha) and the student's tokens to
        the codes (beta).
    pull : float
        How far an isolated code moves towards a code in use at the end of an epoch (gamma), 0 to 1.
    isolated : float
        A code is isolated if it is used at most this share of the mean; 0: if no token was nearest to it.
    teacher_sees : {"whole", "visible"}
        Whether the teacher sees the whole field of view or only the patches that the student sees.
    loss_on : {"masked", "all"}
        The patches whose pixels count in the reconstruction error.
    """

    kind: Literal["his4mae"] = "his4mae"
    codes: Annotated[int, Field(ge=2, le=65_536)] = 512
    codebook: Annotated[float, Field(ge=0)] = 1e-3
    student: Annotated[float, Field(ge=0)] = 2.5e-4
    pull: Annotated[float, Field(gt=0, lt=1)] = 0.8
    isolated: Share = 0.0
    teacher_sees: Literal["whole", "visible"] = "whole"
    loss_on: Literal["masked", "all"] = "masked"
