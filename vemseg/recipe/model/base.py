"""What the ``[model]`` tables of all kinds share."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

from vemseg.recipe.base import Table, require
from vemseg.recipe.tables import EmbedTable

LARGEST = 2**16
"""Largest whole number in a table of a model: widths, edges and counts. A run from a stranger may ask for any
size, and nobody has the memory for a larger one."""


def check_names(classes: tuple[str, ...]) -> None:
    """Refuse names of classes that are empty or the same."""
    names = list(classes)
    named = all(name.strip() for name in names) and len(set(names)) == len(names)
    require(named, f"model.classes must be names that differ, none of them empty, not {names}")


class ModelTable(Table):
    """The settings of one kind of model.

    Attributes
    ----------
    kind : str
        Name of the kind in ``recipe.KINDS``.
    encoder_settings : tuple of str
        Names of the settings that the weights of a trained encoder depend on; the others belong to the
        objective.
    last_layer : tuple of str
        Those of ``encoder_settings`` in which a model to begin with may differ, because only the last layer
        depends on them and is learned anew.
    learns_labels : bool
        Whether training needs labels; ``classes`` are then those of the labels.
    """

    encoder_settings: ClassVar[tuple[str, ...]] = ()
    last_layer: ClassVar[tuple[str, ...]] = ()
    learns_labels: ClassVar[bool] = False

    kind: str

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for name in type(self).model_fields:
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                large = isinstance(number, int) and number > LARGEST
                require(not large, f"model.{name} must be at most {LARGEST}, not {number}")
        return self

    @property
    def known_classes(self) -> tuple[str, ...]:
        """Names of the classes that the encoder knows from tissue of any kind; empty if it knows none.

        By them it finds the scale of a volume whose voxel size is not known, and trains itself further.
        """
        return ()

    @property
    def label_classes(self) -> tuple[str, ...]:
        """Names of the classes that labels must hold in training; empty where the labels decide."""
        return ()

    def taught(self, classes: tuple[str, ...]) -> ModelTable:
        """Return the settings of the model that learns these classes from labels.

        Raises
        ------
        ValueError
            Where models of this kind do not learn from labels, or the names are not fit for classes.
        """
        raise ValueError(f"a '{self.kind}' does not learn from labels")

    def check_placement(self, embed: EmbedTable) -> None:
        """Refuse a placement of fields of view that does not suit the model; by default all are allowed.

        Raises
        ------
        ValueError
            Names the setting that has to change.
        """
