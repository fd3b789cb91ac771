"""The ``[model]`` tables, one for each kind of model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, Natural, Positive, Share, Table, UpToOne, multiple, require


class ViTTable(Table):
    """A transformer of small patches that learns from masked ones; the sizes are those of MAESTER's Table 1.

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
    scale: ClassVar[str] = "none"

    kind: str
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


class MaesterTable(ViTTable):
    """A masked autoencoder (MAESTER): :class:`ViTTable` says it all."""

    kind: Literal["maester"] = "maester"


class SelfDistilledTable(ViTTable):
    """What masked autoencoders share whose encoder also learns from its own running mean, the teacher.

    Attributes
    ----------
    ema : {"step", "epoch"}
        When the mean is taken forward.
    momentum : (float, float)
        Weight of its past, at the start and at the end of the training; half a cosine leads from one to the
        other.
    epoch : int
        Samples of an epoch.
    """

    ema: Literal["step", "epoch"] = "step"
    momentum: tuple[UpToOne, UpToOne] = (0.996, 1.0)
    epoch: Count = 20_000


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


class SdaeTable(SelfDistilledTable):
    """SdAE, and SdAE-recon: a decoder predicts what the teacher makes of the masked patches.

    Attributes
    ----------
    folds : int
        Parts that the masked patches are divided into; the teacher sees one part at a time.
    pixels : float
        Weight of a second decoder's loss, that of the masked pixels; 0 leaves it out (plain SdAE).
    drop_path : float
        Share of the samples that skip the student's last block; it rises from 0 over the depth.
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
    scale: ClassVar[str] = "standardise"

    kind: Literal["classical"] = "classical"
    sigmas: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 2.0, 4.0, 8.0)
    truncate: Positive = 3.0


class UNetTable(Table):
    """A small convolutional network over slabs of planes, and the objective it learns by.

    Attributes
    ----------
    fov, view : int
        Edge in pixels of the regions that training looks at, and of the two views that are cut out of each.
    slices : int
        Planes of a slab, one short voxel edge apart; even.
    widths : tuple of int
        Channels of each level, fine to coarse.
    layers : int
        Convolutions of a level on the way down; one on the way up.
    dim : int
        Length of a vector.
    invariance, variance, covariance, reconstruction : float
        Weights of the terms of the objective.
    points : int
        Vectors per region that the first three are taken over.
    mask_ratio, mask_block : float, int
        Share of a region that is hidden in each view, and edge in pixels of the hidden squares.
    contrast, brightness, noise, blur : float
        How far views differ: largest relative change of contrast, change of grey, standard deviations of
        noise (in grey) and of a Gaussian blur (in pixels).
    drift : int
        Largest distance in slices between what two views show of the same place.
    """

    trains: ClassVar[bool] = True
    scale: ClassVar[str] = "whiten"

    kind: Literal["unet"] = "unet"
    fov: Count = 128
    view: Count = 96
    slices: Annotated[int, Field(ge=2, multiple_of=2)] = 6
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=5)] = (32, 64, 128)
    layers: Count = 2
    dim: Count = 24
    invariance: Annotated[float, Field(ge=0)] = 25.0
    variance: Annotated[float, Field(ge=0)] = 25.0
    covariance: Annotated[float, Field(ge=0)] = 1.0
    reconstruction: Annotated[float, Field(ge=0)] = 50.0
    points: Count = 256
    mask_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.3
    mask_block: Count = 8
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.3
    brightness: Annotated[float, Field(ge=0)] = 0.1
    noise: Annotated[float, Field(ge=0)] = 0.08
    blur: Annotated[float, Field(ge=0)] = 1.0
    drift: Natural = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        multiple("model.view", self.view, "the coarsest pixel", 2 ** len(self.widths))
        multiple("model.view", self.view, "model.mask_block", self.mask_block)
        require(
            self.view <= self.fov < 2 * self.view,
            f"model.view must be at most model.fov ({self.fov}) and more than half of it, not {self.view}",
        )
        return self


ModelTable = MaesterTable | His4maeTable | SdaeTable | UNetTable | ClassicalTable

MODEL_KINDS: dict[str, type[ModelTable]] = {
    "maester": MaesterTable,
    "his4mae": His4maeTable,
    "sdae": SdaeTable,
    "unet": UNetTable,
    "classical": ClassicalTable,
}
"""The table that belongs to each value of ``model.kind``."""
