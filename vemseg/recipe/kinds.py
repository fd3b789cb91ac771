"""The kinds of model: for each its settings and the classes that are built from them.

A new kind needs a module under ``models``, a table under ``recipe/model``, a recipe, and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass

from vemseg.recipe.model.base import ModelTable
from vemseg.recipe.model.cihs import CihsTable
from vemseg.recipe.model.classical import ClassicalTable
from vemseg.recipe.model.han2022 import Han2022Table
from vemseg.recipe.model.his4mae import His4maeTable
from vemseg.recipe.model.sdae import SdaeTable
from vemseg.recipe.model.supervised import SegmenterTable, UNetSupervisedTable, VitSupervisedTable
from vemseg.recipe.model.unet import UNetTable
from vemseg.recipe.model.vit import MaesterTable


@dataclass(frozen=True)
class Kind:
    """The settings and classes of one kind of model.

    Classes are given as ``module:name`` and imported only when they are needed, so that reading a recipe does
    not load torch.

    Attributes
    ----------
    table : type of ModelTable
        Its settings.
    encoder : str
        The encoder, called with (table, spacing): spacing holds the edges of the working voxels in units of
        the shortest. Kinds with the same encoder can start from each other's weights.
    objective : str or None
        What training minimises, called with (table); None where there is nothing to train.
    student : str or None
        The objective with which another encoder teaches this one, called with (table, teacher, stride):
        stride is the number of pixels from one of the teacher's fields of view to the next. None where it
        cannot be taught.
    self_training : str or None
        The objective with which an encoder that knows classes learns those found in a volume, called with
        (table, start, found): start is the encoder to begin with, found the number of classes. None where it
        cannot.
    scale : str
        The value of ``cluster.scale`` where a recipe does not give one.
    """

    table: type[ModelTable]
    encoder: str
    objective: str | None = None
    student: str | None = None
    self_training: str | None = None
    scale: str = "none"


_VIT = "vemseg.models.vit:ViTEncoder"

KINDS: dict[str, Kind] = {
    "maester": Kind(MaesterTable, _VIT, "vemseg.models.mae:MaskedAutoencoder"),
    "his4mae": Kind(His4maeTable, _VIT, "vemseg.models.his4mae:His4mae"),
    "sdae": Kind(SdaeTable, _VIT, "vemseg.models.sdae:Sdae"),
    "unet": Kind(
        UNetTable,
        "vemseg.models.unet:UNetEncoder",
        "vemseg.models.recognition:teaching",
        student="vemseg.models.distilled:taught_by",
        self_training="vemseg.models.self_training:SelfTraining",
        scale="whiten",
    ),
    "unet_supervised": Kind(
        UNetSupervisedTable, "vemseg.models.unet:UNetEncoder", "vemseg.models.unet_supervised:LabelledUNet"
    ),
    "vit_supervised": Kind(
        VitSupervisedTable,
        "vemseg.models.vit_supervised:VitSupervisedEncoder",
        "vemseg.models.vit_supervised:supervision",
    ),
    "segmenter": Kind(
        SegmenterTable,
        "vemseg.models.segmenter:SegmenterEncoder",
        "vemseg.models.segmenter:supervision",
    ),
    "han2022": Kind(
        Han2022Table, "vemseg.models.han2022:Han2022Encoder", "vemseg.models.han2022:MetricAutoencoder"
    ),
    "cihs": Kind(CihsTable, "vemseg.models.cihs:CihsEncoder", "vemseg.models.cihs:HyperbolicAutoencoder"),
    "classical": Kind(ClassicalTable, "vemseg.models.classical:ClassicalEncoder", scale="standardise"),
}
"""Every kind of model, by its name in ``model.kind``."""
