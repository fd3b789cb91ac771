"""The tables of models that learn from labels: their classes are those of the labels."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from vemseg.recipe.base import Count, multiple, require
from vemseg.recipe.model.base import check_names
from vemseg.recipe.model.unet import UNetTable
from vemseg.recipe.model.vit import TransformerTable


class SupervisedViTTable(TransformerTable):
    """A transformer that gives the logits of classes for every pixel of a field of view.

    Attributes
    ----------
    classes : tuple of str
        Names of the classes; those of the labels where this is empty.
    kept : int
        Edge in pixels of the middle of a field of view whose logits count in inference; half of ``fov`` in
        MAESTER's supplement.
    stride : int
        Pixels from one field of view to the next in inference, a divisor of ``kept``. Where it is smaller,
        fields of view overlap, and a voxel gets the mean of the logits that cover it.
    """

    encoder_settings: ClassVar[tuple[str, ...]] = (
        *TransformerTable.encoder_settings,
        *("classes", "decoder_dim", "decoder_depth", "decoder_heads"),
    )
    learns_labels: ClassVar[bool] = True

    classes: tuple[str, ...] = ()
    kept: Count = 40
    stride: Count = 20

    @property
    def label_classes(self) -> tuple[str, ...]:
        """The classes that the recipe asks for."""
        return self.classes

    def taught(self, classes: tuple[str, ...]) -> Self:
        """Return the settings for the classes of labels."""
        return self.model_validate(self.model_dump() | {"classes": classes})

    @model_validator(mode="after")
    def _check_windows(self) -> Self:
        check_names(self.classes)
        multiple("model.kept", self.kept, "model.stride", self.stride)
        even = self.kept <= self.fov and (self.fov - self.kept) % 2 == 0
        require(
            even, f"model.kept must be model.fov ({self.fov}) less an even number of pixels, not {self.kept}"
        )
        return self


class VitSupervisedTable(SupervisedViTTable):
    """The "vanilla ViT" of MAESTER's supplement."""

    kind: Literal["vit_supervised"] = "vit_supervised"


class SegmenterTable(SupervisedViTTable):
    """Segmenter (Strudel et al., ICCV 2021), with the encoder of MAESTER."""

    kind: Literal["segmenter"] = "segmenter"


class UNetSupervisedTable(UNetTable):
    """The dense encoder that learns from labels; its vectors are the logits of the classes of the labels.

    It may begin with the weights of any dense encoder of the same widths: its last layer is learned anew
    where the other has other classes.
    """

    learns_labels: ClassVar[bool] = True
    last_layer: ClassVar[tuple[str, ...]] = ("dim", "classes")

    kind: Literal["unet_supervised"] = "unet_supervised"  # type: ignore[assignment]

    @property
    def known_classes(self) -> tuple[str, ...]:
        """None: what labels of one volume taught says nothing of the scale of another."""
        return ()

    @property
    def label_classes(self) -> tuple[str, ...]:
        """The classes that the recipe asks for."""
        return self.classes

    def taught(self, classes: tuple[str, ...]) -> Self:
        """Return the settings for the classes of labels, with a vector of just their logits."""
        return self.model_validate(self.model_dump() | {"classes": classes, "dim": len(classes)})
