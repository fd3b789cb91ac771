"""What is to be done: the trainings and scorings of a comparison, and which needs which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from compare.places import PHANTOM, Place
from compare.systems import System
from vemseg.errors import InputError, OutputExistsError, UsageError
from vemseg.run import Run, read_json, write_json

SETTINGS = "settings.json"
FORMAT = 1
ENDLESS = 10_000_000
"""Steps of a training that ends with its time."""


@dataclass(frozen=True)
class Common:
    """What all cells of a comparison have in common; another value is another comparison.

    Attributes
    ----------
    minutes : float or None
        Of each training; None where ``samples`` says how long they are, or each recipe does.
    samples : int or None
        Samples that each training sees.
    k, seeds : sequence of int
        Numbers of classes, and seeds of the clustering.
    crop : str or None
        The part of each volume that is looked at.
    device : str
        Of trainings and encoders: cpu, cuda.
    set : sequence of str
        Settings that everything is scored with.
    """

    minutes: float | None
    samples: int | None
    k: Sequence[int]
    seeds: Sequence[int]
    crop: str | None
    device: str
    set: Sequence[str]

    @property
    def budget(self) -> str:
        """The length of trainings, in words."""
        if self.minutes is not None:
            return f"{self.minutes:g} minutes of training each"
        return f"{self.samples} samples each" if self.samples else "trainings as long as their recipes say"


@dataclass(frozen=True)
class Task:
    """One process: a training, or the scoring of a cell.

    Attributes
    ----------
    kind : str
        "train" or "score".
    system, place : System, Place
    seed : int
        Of the training.
    folder : Path
        Of the comparison.
    """

    kind: str
    system: System
    place: Place
    seed: int
    folder: Path

    @property
    def key(self) -> str:
        """Its name: unique, and fit to be the name of a file."""
        return f"{self.kind}.{self.place.name}.{self.system.key}.{self.seed}"

    @property
    def home(self) -> Path:
        """Where what is trained on this volume with this seed lies."""
        return self.folder / "runs" / self.place.name / f"seed-{self.seed}"

    def run_of(self, system: System) -> Path:
        """Return the run of a system that is trained on this volume with this seed."""
        return self.home / f"{system.key}{'.run' if system.adapt else ''}"

    @property
    def run(self) -> Path:
        """The run of a training."""
        return self.run_of(self.system)

    @property
    def cell(self) -> Path:
        """The file of a scored cell."""
        return self.folder / "cells" / self.place.name / f"{self.system.key}.{self.seed}.json"

    @property
    def picture(self) -> Path:
        """The labels of the slice that is drawn, as an array."""
        return self.cell.with_suffix(".npy")

    @property
    def log(self) -> Path:
        """What the process said."""
        return self.folder / "logs" / f"{self.key}.log"

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        if self.kind == "score":
            return self.cell.exists()
        return (self.run / "run.json").exists() and Run.open(self.run).finished


@dataclass(frozen=True)
class Plan:
    """A comparison: systems, volumes and seeds.

    Attributes
    ----------
    folder : Path
    common : Common
    systems : sequence of System
    places : sequence of Place
    seeds : sequence of int
        Of the trainings.
    """

    folder: Path
    common: Common
    systems: Sequence[System]
    places: Sequence[Place]
    seeds: Sequence[int]

    @cached_property
    def tasks(self) -> list[Task]:
        """All tasks in the order of their beginning: seed by seed, so that a stop leaves whole tables."""
        found: dict[str, Task] = {}
        for i, seed in enumerate(self.seeds):
            for place in self.places:
                for system in self.systems:
                    if i == 0 or system.seeded:
                        for task in self._tasks_of(system, place, seed):
                            found.setdefault(task.key, task)
        return list(found.values())

    def _tasks_of(self, system: System, place: Place, seed: int) -> list[Task]:
        trainings = [one for one in (system.teacher, system) if one is not None and one.trained]
        if system.teacher is not None and system.teacher.teacher is not None:
            trainings.insert(0, system.teacher.teacher)
        kinds = [("train", one) for one in trainings] + [("score", system)]
        return [Task(kind, one, place, seed, self.folder) for kind, one in kinds]

    def needs(self, task: Task) -> list[Task]:
        """Return the trainings that have to be there before a task can begin."""
        above = self._tasks_of(task.system, task.place, task.seed)
        return [one for one in above if one.kind == "train" and one.key != task.key]

    @property
    def cells(self) -> list[Task]:
        """The scorings."""
        return [task for task in self.tasks if task.kind == "score"]

    def check(self) -> None:
        """Refuse recipes, weights and settings that do not exist.

        Raises
        ------
        UsageError
            Names the first.
        """
        for system in self.systems:
            recipe = system.recipe(self.common.set)
            learns = recipe.model.learns_labels
            if system.train and learns != system.labels:
                raise UsageError(
                    f"system {system.name}: {system.train} {'needs' if learns else 'takes no'} labels"
                )

    def record(self) -> dict[str, Any]:
        """Return everything that results depend on, as plain JSON types."""
        below = [one.teacher for one in self.systems if one.teacher is not None]
        return {
            "format": FORMAT,
            "common": {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self.common).items()},
            "systems": {one.key: one.facts for one in [*below, *self.systems]},
            "volumes": {place.name: place.facts() for place in self.places},
        }

    def settle(self) -> None:
        """Write the settings down, or compare them with those that are there; there may be more by now.

        Raises
        ------
        OutputExistsError
            Where the folder holds a comparison with other settings.
        """
        now, path = self.record(), self.folder / SETTINGS
        if path.exists():
            there = read_json(path)
            if there.get("format") != FORMAT:
                raise InputError(f"{path}: no settings of a comparison that this version can read")
            for table in ("common", "systems", "volumes"):
                self._refuse_changed(table, there[table], now[table])
                now[table] = there[table] | now[table]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, now)

    def _refuse_changed(self, table: str, there: dict[str, Any], now: dict[str, Any]) -> None:
        for key in there.keys() & now.keys():
            if there[key] != now[key]:
                what = key if table == "common" else f"{table[:-1]} {key}"
                change = f"{there[key]} there, {now[key]} now" if table == "common" else "changed since"
                raise OutputExistsError(
                    f"{self.folder} was begun with other settings ({what}: {change}): take another folder"
                )


def has_phantom(places: Sequence[Place]) -> bool:
    """Tell whether the phantom is among the volumes."""
    return any(place.name == PHANTOM for place in places)
