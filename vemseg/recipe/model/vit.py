"""The tables of vision transformers that learn from masked patches, and MAESTER's own."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, Positive, multiple, require
from vemseg.recipe.model.base import ModelTable
from vemseg.recipe.tables import EmbedTable

MOST_POSITIONS = 2**28
"""Most numbers in the table of positions: patches of a field of view times width."""

MOST_BLOCKS = 2**7
"""Most blocks of an encoder or a decoder."""

Depth = Annotated[int, Field(ge=1, le=MOST_BLOCKS)]


class TransformerTable(ModelTable):
    """A transformer of small patches and a decoder of its tokens; the sizes are those of MAESTER's Table 1.

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
        The same for the decoder.
    """

    encoder_settings: ClassVar[tuple[str, ...]] = (
        "fov",
        "patch",
        "dim",
        "depth",
        "heads",
        "mlp_ratio",
        "pos_weight",
    )

    fov: Count = 80
    patch: Count = 5
    dim: Count = 192
    depth: Depth = 14
    heads: Count = 1
    mlp_ratio: Positive = 2.0
    pos_weight: Annotated[float, Field(ge=0)] = 0.08
    decoder_dim: Count = 128
    decoder_depth: Depth = 7
    decoder_heads: Count = 8

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
            numbers = self.grid**2 * dim
            require(
                numbers <= MOST_POSITIONS,
                f"model.fov, model.patch and model.{side}dim ask for {numbers} numbers for positions: "
                f"at most {MOST_POSITIONS}",
            )
        return self


class ViTTable(TransformerTable):
    """A transformer that learns from masked patches.

    Attributes
    ----------
    mask_ratio : float
        Share of the patches that is hidden in training.
    """

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5

    def check_placement(self, embed: EmbedTable) -> None:
        """Refuse a number of central tokens, or a stride, that does not fit the field of view."""
        if embed.placement == "cover-and-stride":
            limit = f"embed.kept must be at most model.fov / model.patch ({self.grid}), not {embed.kept}"
            require(embed.kept <= self.grid, limit)
        if embed.placement == "expand-stride":
            multiple("embed.stride", embed.stride, "model.patch", self.patch)
            limit = f"embed.stride must be at most model.fov ({self.fov}), not {embed.stride}"
            require(embed.stride <= self.fov, limit)

    @model_validator(mode="after")
    def _check_mask(self) -> Self:
        visible = int(self.grid**2 * (1 - self.mask_ratio))
        require(
            0 < visible < self.grid**2,
            f"model.mask_ratio {self.mask_ratio} leaves {visible} of {self.grid**2} patches visible",
        )
        return self


class MaesterTable(ViTTable):
    """The masked autoencoder MAESTER, which adds no setting to those of :class:`ViTTable`."""

    kind: Literal["maester"] = "maester"
