"""The tables that every recipe has, whatever its model and its method of clustering."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, Natural, Positive, Seed, Share, Table, require


class VolumeTable(Table):
    """How voxels become model input.

    Attributes
    ----------
    voxel_size : float
        Edge length in nm, in the sharp plane, of the voxels the model works on.
    intensity : {"percentile", "range"}
        What becomes 0 and 1: two percentiles of the volume, or the two values of ``range``.
    percentiles : (float, float)
        Lower and upper percentile, 0 to 100.
    range : (float, float)
        Lower and upper intensity, in the units of the file.
    """

    voxel_size: Positive = 16.0
    intensity: Literal["percentile", "range"] = "percentile"
    percentiles: tuple[float, float] = (0.5, 99.5)
    range: tuple[float, float] = (0.0, 255.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.percentiles
        require(0 <= low < high <= 100, f"volume.percentiles must rise within 0..100, not [{low}, {high}]")
        low, high = self.range
        require(low < high, f"volume.range must rise, not [{low}, {high}]")
        return self


class FovTable(Table):
    """Where training looks, and how what it sees is varied.

    Attributes
    ----------
    axes : {"auto", "xyz", "xy"}
        Across which axes slices are taken: all three, the sharp plane alone, or ``auto``: all three of an
        isotropic volume and the sharp plane of another.
    crop : {"isotropic", "monai12", "fixed", "off"}
        The part of the field of view that is resized to all of it: a random share, one for both axes or
        one for each; always ``crop_min``; or all of it.
    crop_min : float
        The smallest share of a side, above 0 and up to 1.
    flips : {"independent", "joint", "off"}
        Axes flipped each on its own, or all at once, with probability 1/2.
    rotate90 : bool
        Whether to turn by a random multiple of 90 degrees.
    pool_bytes : int
        Memory for resident training data.
    """

    axes: Literal["auto", "xyz", "xy"] = "auto"
    crop: Literal["isotropic", "monai12", "fixed", "off"] = "isotropic"
    crop_min: Annotated[float, Field(gt=0, le=1)] = 0.5
    flips: Literal["independent", "joint", "off"] = "independent"
    rotate90: bool = True
    pool_bytes: Annotated[int, Field(ge=2**20)] = 2 * 2**30


class TrainTable(Table):
    """The optimisation: AdamW over a number of steps.

    Attributes
    ----------
    steps, batch : int
        Optimiser steps, and fields of view in each.
    lr, min_lr : float
        Learning rate after the warm-up, and where a cosine schedule ends.
    schedule : {"cosine", "constant"}
        Course of the learning rate after the warm-up.
    warmup : float
        Share of the steps over which the rate rises linearly from 0.
    weight_decay, betas, eps : float, (float, float), float
        Of AdamW. Gradients much smaller than ``eps`` move their parameters little.
    decay_vectors : bool
        Whether vectors among the parameters (of norms, biases) are subject to the decay too.
    precision : {"auto", "bf16", "fp32"}
        Number format of the network; ``auto`` is bf16 where the device has it.
    seed : int
        Root of every random stream.
    log_every, picture_every : int
        Steps between two lines of metrics, and between two pictures.
    checkpoint_minutes : float
        Wall time between two checkpoints.
    snapshot_every : int
        Steps between two encoders that are kept as ``model-<step>.safetensors``; 0 keeps the last alone.
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


class EmbedTable(Table):
    """How a volume is covered with fields of view.

    Attributes
    ----------
    placement : {"cover-and-stride", "expand-stride", "whole-slice"}
        One vector per voxel, one per patch from overlapping fields of view, or one pass over whole slices.
    kept : int
        Central tokens kept along a side (cover-and-stride).
    stride : int
        Central pixels kept along a side (expand-stride), a multiple of the patch.
    planes : {"auto", "one", "three"}
        Across which axes a volume is looked at: its sharp plane's alone, or all three, whose vectors are
        averaged; ``auto``: all three of an isotropic volume.
    smooth : float
        Standard deviation, in working voxels, of the Gaussian that vectors are smoothed with; 0 for none.
    normalise : {"volume", "training"}
        Whose statistics batch normalisation takes (dense encoders): those of a sample of the volume, so that
        another contrast or stain shifts nothing, or those met in training.
    filters : tuple of float
        Scales, in lattice points, of filters on patch means, appended to the vectors of a dense encoder.
    batch : int
        Fields of view in one pass; 0 takes what suits the device.
    """

    placement: Literal["cover-and-stride", "expand-stride", "whole-slice"] = "expand-stride"
    kept: Count = 4
    stride: Count = 40
    planes: Literal["auto", "one", "three"] = "one"
    smooth: Annotated[float, Field(ge=0)] = 0.0
    normalise: Literal["volume", "training"] = "volume"
    filters: tuple[Positive, ...] = ()
    batch: Natural = 0
