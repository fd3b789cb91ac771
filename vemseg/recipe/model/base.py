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
        The name of the kind in ``recipe.KINDS``.
    encoder_settings : tuple of str
        The settings that the weights of a trained encoder are bound to; the others are the objective's.
    """

    encoder_settings: ClassVar[tuple[str, ...]] = ()

    kind: str

    def check_placement(self, embed: EmbedTable) -> None:
        """Refuse a placement of fields of view that this model cannot follow; by default none is refused.

        Raises
        ------
        ValueError
            Naming the setting that has to change.
        """
