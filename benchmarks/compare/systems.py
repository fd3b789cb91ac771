"""The systems: what each is, written in ``systems.toml`` or in an experiment."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vemseg.errors import UsageError
from vemseg.models import open_model
from vemseg.recipe import Recipe, load_recipe, override

HERE = Path(__file__).parent
ADAPTED = "vemseg"
"""The model that is adapted."""


@dataclass(frozen=True)
class System:
    """A way to get labels; ``systems.toml`` says what each key means.

    Attributes
    ----------
    name : str
    slices : int or None
        Number of labelled slices it learns from; None for all of them, and for what learns without labels.
    """

    name: str
    title: str = ""
    model: str | None = None
    train: str | None = None
    begin: str | None = None
    encoder: str | None = None
    of: str | None = None
    adapt: bool = False
    labels: bool = False
    set: Sequence[str] = ()
    score: Sequence[str] = ()
    slices: int | None = None
    others: Mapping[str, System] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, name: str, table: Mapping[str, Any]) -> System:
        """Make a system of its table.

        Raises
        ------
        UsageError
            Where a key is unknown, or it is not said what is used.
        """
        keys = {"begin" if key == "from" else key: value for key, value in table.items()}
        if unknown := keys.keys() - (cls.__dataclass_fields__.keys() - {"name", "slices", "others", "from"}):
            raise UsageError(f"system {name}: unknown keys {', '.join(sorted(unknown))}")
        found = cls(name, **keys)
        if sum(map(bool, (found.model, found.train, found.of, found.adapt))) != 1:
            raise UsageError(f"system {name}: give one of model, train, of and adapt")
        return found

    @property
    def key(self) -> str:
        """Its name in files: with the number of labelled slices."""
        return f"{self.name}-{self.slices}" if self.slices else self.name

    @property
    def shown(self) -> str:
        """Its name in tables."""
        title = self.title or self.name
        return title if not self.slices else f"{title}, {self.slices} slice{'s' * (self.slices > 1)}"

    @property
    def trained(self) -> bool:
        """Whether a training of its own belongs to it."""
        return bool(self.train or self.adapt)

    @property
    def teacher(self) -> System | None:
        """The system whose training has to be there first; None where there is none."""
        return self.others.get(self.of or self.encoder or "")

    @property
    def seeded(self) -> bool:
        """Whether it differs from one training seed to the next."""
        return self.trained or bool(self.teacher and self.teacher.seeded)

    @property
    def facts(self) -> dict[str, Any]:
        """Everything that its results depend on, as plain JSON types, but for what systems it builds on.

        Recipes and models stand there with their hashes, since their names stay the same when they change.
        """
        told = asdict(replace(self, others={})) | {"recipe": self.recipe().hash, "models": self._models}
        return {
            key: list(v) if isinstance(v, tuple) else v for key, v in told.items() if v and key != "others"
        }

    @property
    def _models(self) -> dict[str, str]:
        """The hashes of the models that it takes as they are."""
        encoder = None if self.teacher else self.encoder
        names = (self.model, self.begin, encoder, ADAPTED if self.adapt else None)
        return {name: open_model(name).hash for name in names if name}

    def recipe(self, more: Sequence[str] = ()) -> Recipe:
        """Return the recipe that it is scored with, before anything is trained.

        Raises
        ------
        UsageError
            Where a recipe, bundled weights or a setting does not exist.
        """
        return override(self._made(), [*self.score, *more])

    def _made(self) -> Recipe:
        if self.of:
            return self._other(self.of)._made()
        if self.adapt or self.model:
            return open_model(self.model or ADAPTED).recipe
        recipe = load_recipe(self.train or "", self.set)
        if self.encoder is None:
            return recipe
        base = self.teacher._made() if self.teacher else open_model(self.encoder).recipe
        return recipe.on_vectors_of(base)

    def _other(self, name: str) -> System:
        if name not in self.others:
            raise UsageError(f"system {self.name} builds on '{name}', which there is not")
        return self.others[name]


def known_systems(more: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, System]:
    """Return all systems by name: those of ``systems.toml``, and more where tables are given."""
    tables = tomllib.loads((HERE / "systems.toml").read_text()) | dict(more or {})
    found = {name: System.read(name, table) for name, table in tables.items()}
    linked: dict[str, System] = {}

    def link(name: str) -> System:
        if name not in linked:
            below = {n for n in (found[name].of, found[name].encoder) if n in found and n != name}
            linked[name] = replace(found[name], others={n: link(n) for n in below})
        return linked[name]

    return {name: link(name) for name in found}


def chosen(names: Sequence[str], slices: Sequence[int], known: Mapping[str, System]) -> list[System]:
    """Return systems by name; one that learns from labels becomes one for each number of slices.

    Raises
    ------
    UsageError
        Where there is no such system.
    """
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"there is no system '{unknown[0]}': there are {', '.join(sorted(known))}")
    found = []
    for name in dict.fromkeys(names):
        one = known[name]
        found += [replace(one, slices=n or None) for n in slices] if one.labels else [one]
    return found
