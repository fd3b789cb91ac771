"""The kinds of model: one line for each, with its settings and the classes that are built from them.

A new kind is its module under ``models``, its table under ``recipe/model``, its recipe and its line here.
"""

from __future__ import annotations

from dataclasses import dataclass

from vemseg.recipe.model.base import ModelTable
from vemseg.recipe.model.classical import ClassicalTable
from vemseg.recipe.model.his4mae import His4maeTable
from vemseg.recipe.model.sdae import SdaeTable
from vemseg.recipe.model.unet import UNetTable
from vemseg.recipe.model.vit import MaesterTable


@dataclass(frozen=True)
class Kind:
    """What belongs to one value of ``model.kind``.

    Classes are named as ``module:name`` and imported where they are needed, so that recipes load no torch.

    Attributes
    ----------
    table : type of ModelTable
        The settings.
    encoder : str
        Called with (table, spacing), the latter the edges of the working voxels in units of the shortest.
        Kinds with the same encoder may take over each other's weights.
    objective : str or None
        What training minimises, called with (table); None where there is nothing to train.
    student : str or None
        The objective by which another encoder teaches this one, called with (table, teacher, stride), the
        latter the pixels between the teacher's fields of view; None where it cannot be taught.
    scale : str
        ``cluster.scale`` where a recipe does not give it.
    """

    table: type[ModelTable]
    encoder: str
    objective: str | None = None
    student: str | None = None
    scale: str = "none"


_VIT = "vemseg.models.vit:ViTEncoder"

KINDS: dict[str, Kind] = {
    "maester": Kind(MaesterTable, _VIT, "vemseg.models.mae:MaskedAutoencoder"),
    "his4mae": Kind(His4maeTable, _VIT, "vemseg.models.his4mae:His4mae"),
    "sdae": Kind(SdaeTable, _VIT, "vemseg.models.sdae:Sdae"),
    "unet": Kind(
        UNetTable,
        "vemseg.models.unet:UNetEncoder",
        "vemseg.models.invariance:Invariance",
        student="vemseg.models.distilled:taught_by",
        scale="whiten",
    ),
    "classical": Kind(ClassicalTable, "vemseg.models.classical:ClassicalEncoder", scale="standardise"),
}
"""The kinds of model by the name that ``model.kind`` gives them."""
