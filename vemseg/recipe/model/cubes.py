"""What the tables of encoders share that give one vector for a cube of voxels."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from vemseg.recipe.base import Count, require
from vemseg.recipe.model.base import ModelTable
from vemseg.recipe.tables import EmbedTable


class CubeTable(ModelTable):
    """An encoder that gives one vector for a cube of voxels around each place.

    Attributes
    ----------
    edge : int
        Voxels along an edge of the cubes that a volume is encoded in. Where voxels are longer along one axis,
        a cube has fewer of them there.
    grid : int
        Points along each axis to which a cube is resampled; the outermost lie on its outermost voxels.
    widths : tuple of int
        Channels of the convolutions of the encoder; the decoder has them in the opposite order.
    hidden : int
        Width of the fully connected layer between the convolutions and the latent distribution.
    latent : int
        Dimensions of the latent space.
    """

    encoder_settings: ClassVar[tuple[str, ...]] = ("edge", "grid", "widths", "hidden", "latent")

    edge: Annotated[int, Field(ge=2)] = 9
    grid: Annotated[int, Field(ge=2)] = 16
    widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (128, 256, 512)
    hidden: Count = 256
    latent: Count = 64

    def check_placement(self, embed: EmbedTable) -> None:
        """Refuse a distance of vectors at which voxels between two cubes would not be seen."""
        if embed.placement == "expand-stride":
            require(
                embed.stride <= self.edge,
                f"embed.stride must be at most model.edge ({self.edge}), not {embed.stride}",
            )
