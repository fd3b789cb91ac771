"""The table of the dense convolutional encoder."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, Natural, Share, multiple, require
from vemseg.recipe.model.base import ModelTable, check_names


class UNetTable(ModelTable):
    """A small convolutional network over slabs of planes, and the objective it is trained with.

    Attributes
    ----------
    fov, view : int
        Edge in pixels of the regions that training draws, and of the two views that are cut out of each.
    slices : int
        Number of planes in a slab, one short voxel edge apart; even.
    widths : tuple of int
        Channels of each level, fine to coarse.
    layers : int
        Number of convolutions of each level on the way down; there is one on the way up.
    dim : int
        Length of a vector.
    classes : tuple of str
        Names of the classes that the encoder is taught to tell apart; a vector begins with their logits.
        Empty if it is taught none.
    full_resolution : bool
        Whether there is a vector for each voxel, instead of one for 2 x 2 x 2 of them.
    recognition : float
        Weight of the cross-entropy of classes.
    agreement : float
        Weight of the agreement of classes in volumes without labels, see :mod:`vemseg.models.recognition`.
    restain : float
        How much each class of synthetic tissue is made darker or brighter at random, in half of the windows:
        a standard deviation, in grey values.
    texture : float
        How much of the fine structure of volumes without labels is laid over half of the windows of synthetic
        tissue, at most: 1 for all of it.
    average : float
        The encoder that is kept is a running mean of the one that is trained: after each step, this share of
        the mean stays, at most. 0 keeps the trained encoder itself.
    balance : float
        How much more rare classes count in it: 0 for equal weights of voxels, 1 for equal weights of classes.
    invariance, variance, covariance, reconstruction : float
        Weights of the terms of the objective.
    points : int
        Number of vectors per region from which the first three terms are computed.
    mask_ratio, mask_block : float, int
        Share of each view that is hidden, and edge in pixels of the hidden squares.
    contrast, brightness, noise, blur : float
        How much views differ: the largest relative change of contrast, change of grey value, and standard
        deviations of the noise (in grey values) and of a Gaussian blur (in pixels).
    drift : int
        Largest distance in slices between two views of the same place.
    """

    encoder_settings: ClassVar[tuple[str, ...]] = (
        *("slices", "widths", "layers", "dim", "classes"),
        "full_resolution",
    )

    kind: Literal["unet"] = "unet"
    fov: Count = 128
    view: Count = 96
    slices: Annotated[int, Field(ge=2, multiple_of=2)] = 6
    widths: Annotated[tuple[Count, ...], Field(min_length=1, max_length=5)] = (32, 64, 128)
    layers: Count = 2
    dim: Count = 24
    classes: tuple[str, ...] = ()
    full_resolution: bool = False
    recognition: Annotated[float, Field(ge=0)] = 1.0
    agreement: Annotated[float, Field(ge=0)] = 0.0
    restain: Annotated[float, Field(ge=0)] = 0.0
    texture: Annotated[float, Field(ge=0)] = 0.0
    average: Share = 0.0
    balance: Annotated[float, Field(ge=0, le=1)] = 0.5
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

    @property
    def known_classes(self) -> tuple[str, ...]:
        """The classes that the encoder was taught."""
        return self.classes

    @model_validator(mode="after")
    def _check(self) -> Self:
        multiple("model.view", self.view, "the coarsest pixel", 2 ** len(self.widths))
        multiple("model.view", self.view, "model.mask_block", self.mask_block)
        require(
            self.view <= self.fov < 2 * self.view,
            f"model.view must be at most model.fov ({self.fov}) and more than half of it, not {self.view}",
        )
        require(
            not self.agreement or self.average > 0,
            "model.agreement needs the running mean of the weights: set model.average, such as 0.999, too",
        )
        n = len(self.classes)
        require(n <= self.dim, f"model.classes must be at most model.dim ({self.dim}) names, not {n}")
        check_names(self.classes)
        return self
