"""What every table of a recipe shares: strictness, ranges, and how a check refuses."""

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


def require(condition: bool, message: str) -> None:
    """Refuse settings that do not go together."""
    if not condition:
        raise ValueError(message)


def multiple(name: str, value: int, of: str, unit: int) -> None:
    """Refuse a setting that is no multiple of another."""
    require(value % unit == 0, f"{name} must be a multiple of {of} ({unit}), not {value}")


class Table(BaseModel):
    """A table of a recipe: frozen, strict, every value finite and every key known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
