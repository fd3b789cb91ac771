"""The table of the method that takes the classes of the encoder."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vemseg.recipe.cluster.base import ClusterTable


class NamedTable(ClusterTable):
    """The classes that the encoder itself tells apart, under its own names and numbers.

    Nothing is looked for. So there is no ``k`` or ``k_range`` to set, and no sample is drawn.

    Attributes
    ----------
    caution : float
        A voxel gets another class than the encoder's first, such as cytosol, only where that is at least this
        many times as likely to the encoder as the first. What learned on synthetic tissue sees organelles
        where real tissue has none. 1 believes it as it is.
    """

    method: Literal["named"] = "named"
    k: ClassVar[int] = 0  # type: ignore[misc]  # not a setting of this method: refused as an unknown key
    k_range: ClassVar[tuple[int, ...]] = ()  # type: ignore[misc]
    finds: ClassVar[bool] = False
    caution: Annotated[float, Field(gt=0)] = 3.0
