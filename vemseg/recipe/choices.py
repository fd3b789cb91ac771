"""The two tables whose keys depend on a name in them: the kind of model and the method of clustering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vemseg.recipe.base import Table
from vemseg.recipe.kinds import KINDS, Kind
from vemseg.recipe.methods import METHODS, Method
from vemseg.recipe.spelling import nearest


class Choice(NamedTuple):
    """A table whose other keys depend on the name that one of them holds.

    Attributes
    ----------
    table, key : str
        Names of the table and of the key in it that decides.
    default : str
        The name that is taken where the key is not given.
    known : mapping of str to Kind or Method
        The names that may be chosen, looked up whenever a recipe is read.
    """

    table: str
    key: str
    default: str
    known: Mapping[str, Kind | Method]

    def name(self, table: object) -> str:
        """Return the name that a table chooses. It may be unknown; the table is as TOML has it."""
        return str(table.get(self.key, self.default)) if isinstance(table, dict) else self.default

    def keys(self, table: object) -> Iterable[str]:
        """Return the keys that the chosen table has; none where the name is unknown."""
        chosen = self.known.get(self.name(table))
        return [] if chosen is None else chosen.table.model_fields

    def checked(self, table: object) -> Table | object:
        """Return the settings of the chosen table; a value that is not a table is returned as it is.

        Raises
        ------
        ValueError
            Where the name is unknown, or a setting is wrong.
        """
        if not isinstance(table, dict):
            return table
        name = self.name(table)
        if name not in self.known:
            known = ", ".join(self.known)
            hint = nearest(name, self.known)
            raise ValueError(f"{self.table}.{self.key} must be one of {known}, not '{name}'{hint}")
        return self.known[name].table.model_validate(table)


MODEL = Choice("model", "kind", "maester", KINDS)
CLUSTER = Choice("cluster", "method", "kmeans", METHODS)
CHOICES = {choice.table: choice for choice in (MODEL, CLUSTER)}
