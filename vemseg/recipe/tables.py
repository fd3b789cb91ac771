"""The tables that every recipe has, whatever its model and its method of clustering."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, Natural, Positive, Seed, Share, Table, require


class VolumeTable(Table):
    """How voxels become the input of a model.

    Attributes
    ----------
    voxel_size : float or (float, float)
        Edge length in nm, in the sharp plane, of the voxels the model works on; or the smallest and largest
        of them, between which a volume is taken as it is.
    intensity : {"percentile", "range"}
        Which intensities become 0 and 1: two percentiles of the volume, or the two values of ``range``.
    percentiles : (float, float)
        Lower and upper percentile, 0 to 100.
    range : (float, float)
        Lower and upper intensity, in the units of the file.
    """

    voxel_size: Positive | tuple[Positive, Positive] = 16.0
    intensity: Literal["percentile", "range"] = "percentile"
    percentiles: tuple[float, float] = (0.5, 99.5)
    range: tuple[float, float] = (0.0, 255.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.percentiles
        require(0 <= low < high <= 100, f"volume.percentiles must rise within 0..100, not [{low}, {high}]")
        if isinstance(self.voxel_size, tuple):
            low, high = self.voxel_size
            require(low <= high, f"volume.voxel_size must rise, not [{low}, {high}]")
        low, high = self.range
        require(low < high, f"volume.range must rise, not [{low}, {high}]")
        return self


class FovTable(Table):
    """Where training takes its fields of view, and how it varies them.

    Attributes
    ----------
    axes : {"auto", "xyz", "xy"}
        The axes across which slices are taken. ``xyz``: all three; ``xy``: only the one across the sharp
        plane; ``auto``: all three if the volume is isotropic, otherwise as ``xy``.
    crop : {"isotropic", "monai12", "fixed", "off"}
        How much of the field of view is cut out and resized to its full size. ``isotropic``: a random share
        of both sides; ``monai12``: a random share of each side; ``fixed``: always ``crop_min``; ``off``: all.
    crop_min : float
        The smallest share of a side that is cut out, above 0 and up to 1.
    flips : {"independent", "joint", "off"}
        Whether rows and columns are mirrored each on its own or both at once, with probability 1/2.
    rotate90 : bool
        Whether to turn by a random multiple of 90 degrees.
    pool_bytes : int
        Bytes of memory for training data.
    """

    axes: Literal["auto", "xyz", "xy"] = "auto"
    crop: Literal["isotropic", "monai12", "fixed", "off"] = "isotropic"
    crop_min: Annotated[float, Field(gt=0, le=1)] = 0.5
    flips: Literal["independent", "joint", "off"] = "independent"
    rotate90: bool = True
    pool_bytes: Annotated[int, Field(ge=2**20)] = 2 * 2**30


class TrainTable(Table):
    """How a model is trained: AdamW over a number of steps.

    Attributes
    ----------
    steps, batch : int
        Optimiser steps, and fields of view in each.
    lr, min_lr : float
        Learning rate after the warm-up, and at the end of a cosine schedule.
    schedule : {"cosine", "constant"}
        How the learning rate goes on after the warm-up.
    warmup : float
        Share of the steps over which the rate rises linearly from 0.
    weight_decay, betas, eps : float, (float, float), float
        Settings of AdamW. Gradients much smaller than ``eps`` hardly move their parameters.
    decay_vectors : bool
        Whether weight decay also applies to parameters that are vectors: norms and biases.
    amsgrad : bool
        Whether the second moments never fall (AMSGrad; Reddi, Kale and Kumar, ICLR 2018).
    clip : float
        Largest norm of the gradient of all parameters together; longer ones are shortened. 0 for no limit.
    precision : {"auto", "bf16", "fp32"}
        Number format of the network; ``auto`` is bf16 where the device computes with it natively.
    seed : int
        Seed of everything random in training.
    log_every, picture_every : int
        Steps between two lines of metrics, and between two pictures.
    checkpoint_minutes : float
        Wall time between two checkpoints.
    snapshot_every : int
        Steps between two encoders that are kept as ``model-<step>.safetensors``; 0 keeps only the last.
    """

    steps: Count = 175_000
    batch: Count = 32
    lr: Positive = 1.5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Share = 0.05
    min_lr: Annotated[float, Field(ge=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Positive = 1e-8
    decay_vectors: bool = True
    amsgrad: bool = False
    clip: Annotated[float, Field(ge=0)] = 0.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    seed: Seed = 0
    log_every: Count = 50
    checkpoint_minutes: Positive = 10.0
    picture_every: Count = 1000
    snapshot_every: Natural = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        require(
            self.min_lr <= self.lr, f"train.min_lr must be at most train.lr ({self.lr}), not {self.min_lr}"
        )
        return self


class TissueTable(Table):
    """Synthetic tissue to learn from, beside volumes or instead of them (``vemseg.phantom.tissue``).

    Attributes
    ----------
    kinds : tuple of str
        Kinds of tissue, each as likely as the others; none where this is empty.
    ratios : tuple of float
        Thickness of sections in pixels, 1 for isotropic voxels. Each is a source of its own, drawn from as
        often as any volume.
    pixel : (float, float)
        Smallest and largest edge in nm of a pixel.
    section : (float, float)
        Smallest and largest thickness in nm of a section where ``ratios`` is not 1.
    held, pace : int
        Number of blocks that each source holds, and of steps after which the next of them is replaced.
    alike : bool
        Whether an encoder that is adapted to a volume sees tissue of its voxel size alone, not of all sizes.
    """

    kinds: tuple[str, ...] = ()
    ratios: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0, 1.0, 3.0, 7.0)
    pixel: tuple[Positive, Positive] = (6.5, 20.0)
    section: tuple[Positive, Positive] = (25.0, 65.0)
    held: Count = 24
    pace: Count = 6
    alike: bool = True

    def pixels(self, ratio: float) -> tuple[float, float]:
        """Return the smallest and largest edge in nm of the pixels of tissue whose sections have one ratio.

        They are those of ``pixel`` whose sections are as thick as ``section`` says, or the nearest of
        ``pixel`` where none of its sections is.
        """
        low, high = self.pixel
        if ratio == 1:
            return low, high
        thin, thick = (min(max(edge / ratio, low), high) for edge in self.section)
        return thin, thick

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("pixel", "section"):
            low, high = getattr(self, name)
            require(low <= high, f"tissue.{name} must rise, not [{low}, {high}]")
        require(
            min(self.ratios) >= 1, "tissue.ratios must be at least 1: sections are no thinner than pixels"
        )
        return self


class EmbedTable(Table):
    """How the vectors of a volume are computed.

    Attributes
    ----------
    placement : {"cover-and-stride", "expand-stride", "whole-slice"}
        One vector per voxel, one per patch from overlapping fields of view, or one pass over whole slices.
    kept : int
        Central tokens kept along a side (cover-and-stride).
    stride : int
        Central pixels kept along a side (expand-stride), a multiple of the patch.
    planes : {"auto", "one", "three"}
        The axes across which planes are encoded. ``one``: only the one across the sharp plane; ``three``: all
        three, whose vectors are averaged; ``auto``: all three if the volume is isotropic.
    every : int
        Where planes of all three axes are looked at by a dense encoder that encodes layers of patches one by
        one, it encodes one of every so many across each axis. What lies between is interpolated linearly.
    smooth : float
        Standard deviation, in working voxels, of the Gaussian that vectors are smoothed with; 0 for none.
    normalise : {"volume", "training"}
        Statistics that batch normalisation uses in dense encoders: those of a sample of the volume, so that
        another contrast or stain makes no difference, or those of the training data.
    filters : tuple of float
        Scales, in lattice points, of filters on the mean intensities of patches. Their responses are appended
        to the vectors of a dense encoder.
    batch : int
        Fields of view that are encoded at a time; 0 takes what suits the device.
    """

    placement: Literal["cover-and-stride", "expand-stride", "whole-slice"] = "expand-stride"
    kept: Count = 4
    stride: Count = 40
    planes: Literal["auto", "one", "three"] = "one"
    every: Count = 1
    smooth: Annotated[float, Field(ge=0)] = 0.0
    normalise: Literal["volume", "training"] = "volume"
    filters: tuple[Positive, ...] = ()
    batch: Natural = 0
