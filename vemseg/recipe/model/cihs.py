"""The table of the hyperbolic variational autoencoder of Hsu et al. (CIHS)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, require
from vemseg.recipe.model.cubes import CubeTable

SHRINKS = 8
"""By how many points along each axis the convolutions of CIHS shrink a cube."""


class CihsTable(CubeTable):
    """A variational autoencoder whose latent space is the Poincaré ball, with a triplet loss over cubes.

    The defaults are those of the reference code.

    Attributes
    ----------
    gyroplanes : int
        Number of hyperplanes of the ball from which the decoder measures the distance of a sample.
    parents, children : (int, int)
        Smallest and largest edge in voxels of the cubes that are reconstructed, and of those with which they
        are compared; a child is smaller than its parent.
    reach : int
        Largest distance in voxels, along each axis, from the border of a parent to the centre of a child that
        does not belong to it.
    kl : float
        Weight of the divergence of the latent distribution from the prior.
    triplet, margin : float
        Weight and margin of the triplet loss.
    """

    encoder_settings: ClassVar[tuple[str, ...]] = CubeTable.encoder_settings

    kind: Literal["cihs"] = "cihs"
    edge: Annotated[int, Field(ge=2)] = 11
    grid: Annotated[int, Field(gt=SHRINKS)] = 10
    widths: Annotated[tuple[Count, ...], Field(min_length=4, max_length=4)] = (16, 32, 64, 128)
    hidden: Count = 300
    latent: Count = 2
    gyroplanes: Count = 300
    parents: tuple[Count, Count] = (5, 34)
    children: tuple[Count, Count] = (3, 14)
    reach: Count = 32
    kl: Annotated[float, Field(ge=0)] = 1.0
    triplet: Annotated[float, Field(ge=0)] = 1000.0
    margin: Annotated[float, Field(ge=0)] = 0.2

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("parents", "children"):
            low, high = getattr(self, name)
            require(low <= high, f"model.{name} must rise, not [{low}, {high}]")
        require(
            self.children[0] < self.parents[0],
            f"model.children must begin below model.parents ({self.parents[0]}), not at {self.children[0]}",
        )
        return self
