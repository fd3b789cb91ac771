"""What the ``[model]`` tables of all kinds share."""

from __future__ import annotations

from typing import ClassVar

from vemseg.recipe.base import Table
from vemseg.recipe.tables import EmbedTable


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
