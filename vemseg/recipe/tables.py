"""The tables of a recipe: every setting, its default, its range, and what must go together."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import Field, model_validator

from vemseg.recipe.base import Count, CountOrShare, Natural, Positive, Seed, Share, Table, multiple, require
from vemseg.recipe.models import MaesterTable, ModelTable, ViTTable


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


class ClusterTable(Table):
    """How vectors become classes.

    Attributes
    ----------
    method : {"kmeans", "gmm", "linkage", "codebook"}
        The nearest of K centroids; the likeliest of K normal distributions, each with its own covariance;
        many small clusters of k-means, joined into K classes; the codes of a model that learned some, joined.
    k : int
        Classes, 1 to 255.
    sample : int or float
        Vectors the clusterer is fitted on; below 1: as a share of the volume's voxels.
    restarts, max_iterations, seed : int
        Initialisations, iterations of each, and where they start.
    scale : {"none", "standardise", "whiten"}
        What is done to vectors first: nothing, each feature to variance 1, or all directions to variance 1.
        Where it is not given, it follows the kind of model.
    floor : float
        The least variance of a principal direction of standardised features, relative to the largest, that is
        brought to 1 when whitening; weaker directions hold noise and stay below.
    whitened : int
        Leading features that "whiten" whitens; the others are only brought to one deviation each. 0: all.
    others : float
        That deviation, which weighs them against the whitened ones, of deviation 1.
    parts : int
        Small clusters that "linkage" joins.
    linkage : {"ward", "overlap"}
        What "linkage" and "codebook" join first: what adds least to the variance within the classes, or
        those with the most vectors between them.
    components : int
        Normal distributions of "gmm"; where they are more than K, those that leave most doubt between them
        are joined into K classes. 0 takes K.
    mixture_sample : int
        Vectors of the sample that "gmm" is fitted on, after k-means on all of them.
    """

    method: Literal["kmeans", "gmm", "linkage", "codebook"] = "kmeans"
    k: Annotated[int, Field(ge=1, le=255)] = 6
    sample: CountOrShare = 500_000
    restarts: Count = 10
    max_iterations: Count = 300
    seed: Seed = 0
    scale: Literal["none", "standardise", "whiten"] = "none"
    floor: Share = 1e-3
    whitened: Natural = 0
    others: Positive = 1.0
    parts: Annotated[int, Field(ge=1, le=4096)] = 64
    linkage: Literal["ward", "overlap"] = "ward"
    components: Annotated[int, Field(ge=0, le=255)] = 0
    mixture_sample: Count = 100_000

    def sample_of(self, voxels: int) -> int:
        """Return how many vectors to fit on, of volumes of so many voxels."""
        return self.sample if isinstance(self.sample, int) else max(self.k, round(self.sample * voxels))

    @model_validator(mode="after")
    def _check(self) -> Self:
        sample: float = self.sample
        if not isinstance(sample, int):
            require(sample < 1, f"cluster.sample must be a whole number, or a share below 1, not {sample}")
            sample = math.inf
        require(self.k <= sample, f"cluster.sample must be at least cluster.k ({self.k}), not {sample}")
        if self.method == "linkage":
            least = f"cluster.parts must be at least cluster.k ({self.k}), not {self.parts}"
            require(self.k <= self.parts, least)
            most = f"cluster.parts must be at most cluster.sample ({sample}), not {self.parts}"
            require(self.parts <= sample, most)
        if self.method == "gmm" and self.components:
            least = f"cluster.components must be 0 or at least cluster.k ({self.k}), not {self.components}"
            require(self.k <= self.components, least)
            most = f"cluster.components must be at most cluster.sample ({sample}), not {self.components}"
            require(self.components <= sample, most)
        return self


class EvaluateTable(Table):
    """How labels are compared with a reference.

    Attributes
    ----------
    ignore : tuple of int
        Reference labels that do not count.
    """

    ignore: tuple[Natural, ...] = ()


class Recipe(Table):
    """The settings of one method.

    Attributes
    ----------
    description, reference : str
        What the recipe is for, and the paper it follows. They do not count as settings.
    """

    description: str = ""
    reference: str = ""
    volume: VolumeTable = VolumeTable()
    model: Annotated[ModelTable, Field(discriminator="kind")] = MaesterTable()
    fov: FovTable = FovTable()
    train: TrainTable = TrainTable()
    embed: EmbedTable = EmbedTable()
    cluster: ClusterTable = ClusterTable()
    evaluate: EvaluateTable = EvaluateTable()

    @model_validator(mode="after")
    def _check(self) -> Self:
        model, embed = self.model, self.embed
        if isinstance(model, ViTTable) and embed.placement == "cover-and-stride":
            limit = f"embed.kept must be at most model.fov / model.patch ({model.grid}), not {embed.kept}"
            require(embed.kept <= model.grid, limit)
        if isinstance(model, ViTTable) and embed.placement == "expand-stride":
            multiple("embed.stride", embed.stride, "model.patch", model.patch)
            limit = f"embed.stride must be at most model.fov ({model.fov}), not {embed.stride}"
            require(embed.stride <= model.fov, limit)
        return self

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Every setting as plain JSON types, table by table."""
        tables: dict[str, dict[str, Any]] = self.model_dump(mode="json", exclude={"description", "reference"})
        return tables

    @property
    def hash(self) -> str:
        """SHA-256 of the settings: equal for equal settings, whatever the file looked like."""
        text = json.dumps(self.settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_toml(self) -> str:
        """Return the complete recipe as TOML, every default written out."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def diff(a: Recipe, b: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two recipes differ, as ``{"table.key": (in a, in b)}``.

    A key that one of them does not have (another kind of model) is ``None`` there.
    """
    flat = [
        {f"{table}.{key}": value for table, keys in r.settings.items() for key, value in keys.items()}
        for r in (a, b)
    ]
    keys = dict.fromkeys([*flat[0], *flat[1]])
    return {key: (flat[0].get(key), flat[1].get(key)) for key in keys if flat[0].get(key) != flat[1].get(key)}
