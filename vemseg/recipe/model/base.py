"""What the ``[model]`` tables of all kinds share."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

from vemseg.recipe.base import Table, require
from vemseg.recipe.tables import EmbedTable

LARGEST = 2**16
"""Largest whole number in a table of a model: widths, edges and counts. A run from a stranger may ask for any
size, and nobody has the memory for a larger one."""


class ModelTable(Table):
    """The settings of one kind of model.

    Attributes
    ----------
    kind : str
        Name of the kind in ``recipe.KINDS``.
    encoder_settings : tuple of str
        Names of the settings that the weights of a trained encoder depend on; the others belong to the
        objective.
    """

    encoder_settings: ClassVar[tuple[str, ...]] = ()

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
        """Names of the classes that the encoder itself tells apart; empty if it knows none."""
        return ()

    def check_placement(self, embed: EmbedTable) -> None:
        """Refuse a placement of fields of view that does not suit the model; by default all are allowed.

        Raises
        ------
        ValueError
            Names the setting that has to change.
        """
