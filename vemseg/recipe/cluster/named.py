"""The table of the method that takes the classes of the encoder."""

from __future__ import annotations

from typing import ClassVar, Literal

from vemseg.recipe.cluster.base import ClusterTable


class NamedTable(ClusterTable):
    """The classes that the encoder itself tells apart, under its own names and numbers.

    Nothing is looked for. So there is no ``k`` or ``k_range`` to set, and no sample is drawn.
    """

    method: Literal["named"] = "named"
    k: ClassVar[int] = 0  # type: ignore[misc]  # not a setting of this method: refused as an unknown key
    k_range: ClassVar[tuple[int, ...]] = ()  # type: ignore[misc]
    finds: ClassVar[bool] = False
