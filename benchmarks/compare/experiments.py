"""The tables of the papers, as ``experiments.toml`` has them: systems, published figures, differences."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare.places import Place
from compare.systems import HERE, System, chosen, known_systems
from vemseg.errors import UsageError


@dataclass(frozen=True)
class Experiment:
    """A published table.

    Attributes
    ----------
    name, title, paper : str
    differs : sequence of str
        What is done otherwise than in the paper, or cannot be known from it.
    published : mapping
        The published Dice, by row and column.
    test : str
        The cell that is scored.
    learnt : sequence of str
        The cells that trainings learn from.
    k, seeds : sequence of int
        Numbers of classes, and seeds of the clustering.
    systems : sequence of System
    known : mapping of str to System
        All systems by name, those of this experiment alone included.
    """

    name: str
    title: str
    paper: str
    differs: Sequence[str]
    published: Mapping[str, Mapping[str, float]]
    test: str
    learnt: Sequence[str]
    k: Sequence[int]
    seeds: Sequence[int]
    systems: Sequence[System]
    known: Mapping[str, System]

    @classmethod
    def of(cls, name: str, table: Mapping[str, Any], shared: Mapping[str, Any]) -> Experiment:
        """Make an experiment of its table; ``shared`` fills in what it leaves out."""
        told = {**shared, **table, "differs": [*table["differs"], *shared["differs"]]}
        known = known_systems(told.get("define"))
        if unknown := told.keys() - {*cls.__dataclass_fields__, "define"}:
            raise UsageError(f"experiment {name}: unknown keys {', '.join(sorted(unknown))}")
        told = {key: value for key, value in told.items() if key != "define"}
        return cls(name=name, known=known, **(told | {"systems": chosen(told["systems"], [0], known)}))

    @property
    def heading(self) -> list[str]:
        """What stands above its tables, paragraph by paragraph."""
        differs = "\n".join(f"- {line}" for line in self.differs)
        columns = list(dict.fromkeys(key for row in self.published.values() for key in row))
        rows = [
            f"| {name} | {' | '.join(f'{row[c]:.3f}' if c in row else '' for c in columns)} |"
            for name, row in self.published.items()
        ]
        head = [f"| published | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
        return [
            f"**{self.title}** ({self.paper}).",
            f"What differs from the paper:\n\n{differs}",
            "\n".join(head + rows),
        ]

    def place(self, betaseg: Path, crop: str | None) -> Place:
        """Return the cell that is scored, and those to learn from, in the folder of BetaSeg."""
        return Place(_cell(betaseg, self.test), crop, tuple(_cell(betaseg, name) for name in self.learnt))


def _cell(betaseg: Path, name: str) -> str:
    stem = betaseg / name / name
    return f"{name}={stem}_source.tif,{stem}_labels4.tif,{stem}_cell.tif@16,16,16"


def names() -> list[str]:
    """Return the names of all experiments."""
    return [name for name in _tables() if name != "shared"]


def read(name: str) -> Experiment:
    """Return an experiment by name.

    Raises
    ------
    UsageError
        Where there is none of that name.
    """
    tables = _tables()
    if name not in names():
        raise UsageError(f"there is no experiment '{name}': there are {', '.join(names())}")
    return Experiment.of(name, tables[name], tables["shared"])


def _tables() -> dict[str, Any]:
    return tomllib.loads((HERE / "experiments.toml").read_text())
