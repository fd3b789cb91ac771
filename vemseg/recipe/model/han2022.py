"""The table of the variational autoencoder with metric learning of Han et al."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, Positive, multiple, require
from vemseg.recipe.model.cubes import CubeTable

Weight = Annotated[float, Field(ge=0)]


class Han2022Table(CubeTable):
    """A variational autoencoder of small cubes; part of its latent space is taught to ignore how a cube lies.

    The defaults are those of the reference code.

    Attributes
    ----------
    semantic : int
        Number of leading latent dimensions that metric learning looks at; these are the vectors.
    likelihood : {"gaussian", "mse"}
        What a reconstruction is judged by: the likelihood under a normal distribution whose mean and standard
        deviation the decoder gives for each voxel (reference code), or the squared error (paper, equation 1).
    kl : float
        Weight of the divergence of the latent distribution from the prior, summed over latent dimensions.
    similarity : float
        Weight of the multi-similarity loss (theta_MS).
    alpha, beta, margin : float
        Scales of that loss for cubes of the same place and of different ones, and the distance at which both
        weigh alike (lambda).
    positives : int
        Cubes that are drawn around each anchor.
    ball : float
        Largest distance in voxels of their centres from the anchor's.
    radii : (float, float)
        Smallest and largest distance in voxels from the centre of a cube to its sides, in training.
    elastic : float
        How much the points of a cube are moved, in quarters of their distance (standard deviation).
    contrast : float
        Largest change of the contrast of standardised cubes, as a power of 2.
    brightness, noise : float
        Largest shift of their grey values, and standard deviation of the noise.
    """

    encoder_settings: ClassVar[tuple[str, ...]] = (*CubeTable.encoder_settings, "semantic")

    kind: Literal["han2022"] = "han2022"
    semantic: Count = 8
    likelihood: Literal["gaussian", "mse"] = "gaussian"
    kl: Weight = 1e-3
    similarity: Weight = 1000.0
    alpha: Positive = 1.0
    beta: Positive = 1.0
    margin: Weight = 1.0
    positives: Count = 4
    ball: Weight = 2.0
    radii: tuple[Positive, Positive] = (2.0, 6.0)
    elastic: Weight = 0.25
    contrast: Weight = 1.0
    brightness: Weight = 0.25
    noise: Weight = 0.1

    @model_validator(mode="after")
    def _check(self) -> Self:
        multiple("model.grid", self.grid, "the coarsest cell", 2 ** len(self.widths))
        require(
            2 * self.semantic <= self.latent,
            f"model.semantic must be at most half of model.latent ({self.latent}), not {self.semantic}",
        )
        low, high = self.radii
        require(low <= high, f"model.radii must rise, not [{low}, {high}]")
        return self
