"""The ``[model]`` tables, one for each kind of model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, Positive, Table, multiple, require


class MaesterTable(Table):
    """A masked autoencoder of small patches (MAESTER); widths, depths and sizes as in its Table 1.

    Attributes
    ----------
    fov, patch : int
        Edge lengths in pixels of the field of view and of a patch.
    dim, depth, heads : int
        Width, blocks and attention heads of the encoder.
    mlp_ratio : float
        Hidden width of the MLPs over the width of their block, in encoder and decoder.
    pos_weight : float
        Weight of the encoder's positional embedding.
    decoder_dim, decoder_depth, decoder_heads : int
        The same of the decoder.
    mask_ratio : float
        Share of the patches that is hidden in training.
    """

    trains: ClassVar[bool] = True
    standardise: ClassVar[bool] = False

    kind: Literal["maester"] = "maester"
    fov: Count = 80
    patch: Count = 5
    dim: Count = 192
    depth: Count = 14
    heads: Count = 1
    mlp_ratio: Positive = 2.0
    pos_weight: Annotated[float, Field(ge=0)] = 0.08
    decoder_dim: Count = 128
    decoder_depth: Count = 7
    decoder_heads: Count = 8
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @property
    def grid(self) -> int:
        """Patches along one side of the field of view."""
        return self.fov // self.patch

    @model_validator(mode="after")
    def _check(self) -> Self:
        multiple("model.fov", self.fov, "model.patch", self.patch)
        for side in ("", "decoder_"):
            dim, heads = getattr(self, f"{side}dim"), getattr(self, f"{side}heads")
            multiple(f"model.{side}dim", dim, f"model.{side}heads", heads)
            require(
                dim % 4 == 0,
                f"model.{side}dim must be a multiple of 4 (sine and cosine of two axes), not {dim}",
            )
        visible = int(self.grid**2 * (1 - self.mask_ratio))
        require(
            0 < visible < self.grid**2,
            f"model.mask_ratio {self.mask_ratio} leaves {visible} of {self.grid**2} patches visible",
        )
        return self


class ClassicalTable(Table):
    """Filters in scale space instead of a trained encoder.

    At every scale: Gaussian, gradient magnitude, Laplacian of Gaussian and local standard deviation, in 3-D.

    Attributes
    ----------
    sigmas : tuple of float
        Scales in working voxels (``volume.voxel_size``).
    truncate : float
        Where the filters end, in sigmas.
    """

    trains: ClassVar[bool] = False
    standardise: ClassVar[bool] = True

    kind: Literal["classical"] = "classical"
    sigmas: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 2.0, 4.0, 8.0)
    truncate: Positive = 3.0


ModelTable = MaesterTable | ClassicalTable

MODEL_KINDS: dict[str, type[ModelTable]] = {"maester": MaesterTable, "classical": ClassicalTable}
"""The table that belongs to each value of ``model.kind``."""
