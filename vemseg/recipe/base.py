"""What all tables of a recipe share: strictness, ranges of numbers, and how a check refuses a setting."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
CountOrShare = Annotated[int | float, Field(gt=0)]
UpToOne = Annotated[float, Field(ge=0, le=1)]

Raw = dict[str, object]
"""A recipe as TOML gives it: unchecked, defaults left out."""


def require(condition: bool, message: str) -> None:
    """Raise ValueError with a message unless a condition holds."""
    if not condition:
        raise ValueError(message)


def multiple(name: str, value: int, of: str, unit: int) -> None:
    """Raise ValueError unless a setting is a multiple of another one."""
    require(value % unit == 0, f"{name} must be a multiple of {of} ({unit}), not {value}")


class Table(BaseModel):
    """A table of a recipe: frozen, strict about types, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
