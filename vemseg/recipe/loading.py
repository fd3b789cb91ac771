"""From TOML and ``table.key=value`` to a recipe, with errors that name the key and where it stands."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from vemseg.errors import UsageError
from vemseg.foreign import read_text, reading
from vemseg.recipe.base import Raw
from vemseg.recipe.choices import CHOICES, CLUSTER, MODEL
from vemseg.recipe.explaining import explain
from vemseg.recipe.kinds import KINDS
from vemseg.recipe.recipe import Recipe
from vemseg.recipe.spelling import nearest

DEFAULT_RECIPE = "vemseg"
"""The shipped recipe that is used where none is named."""

NUMBERS = {"k", "k_range"}
"""The settings of ``[cluster]`` that say how many classes there are; the one that is given later holds."""


def load_recipe(name_or_path: str | Path = DEFAULT_RECIPE, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Parameters
    ----------
    name_or_path : str or Path
        The name of a shipped recipe, or the path of a TOML file.
    overrides : sequence of str
        ``table.key=value`` each, the value as in TOML; a bare word is a string.

    Raises
    ------
    UsageError
        For an unknown name, a file that cannot be read or parsed, an unknown key (the message names the
        nearest spelling), a wrong type, a value out of range, or settings that do not go together.
    """
    path = _find(name_or_path)
    raw = _resolve(_read(path), path)
    recipe = _validate(raw, f"recipe {path}")
    return _override(raw, overrides) if overrides else recipe


def override(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with some values replaced, written as for ``load_recipe``; the rest stays as it is.

    Raises
    ------
    UsageError
        As ``load_recipe``.
    """
    return _override(recipe.model_dump(mode="json"), overrides) if overrides else recipe


def sets(overrides: Sequence[str], name: str) -> bool:
    """Tell whether one of these ``table.key=value`` texts sets the key ``name``, such as ``cluster.k``."""
    return any(text.partition("=")[0].strip() == name for text in overrides)


def parse_recipe(text: str, source: str) -> Recipe:
    """Read a recipe from a TOML text without ``extends``, such as ``Recipe.to_toml`` writes.

    Parameters
    ----------
    text : str
        TOML.
    source : str
        Where the text comes from, for messages.

    Raises
    ------
    UsageError
        As ``load_recipe``.
    """
    return _validate(_parse(text, source), source)


def shipped() -> dict[str, Path]:
    """Return the recipes that come with the package, by name."""
    package = Path(__file__).parents[1]
    installed = package / "recipes"  # so in a wheel; a source tree has the folder beside the package
    folder = installed if installed.is_dir() else package.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)}


def _find(name_or_path: str | Path, relative_to: Path | None = None) -> Path:
    """Return the file of a name or path; a path is relative to the working directory or the folder given."""
    known = shipped()
    if isinstance(name_or_path, str) and name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path).expanduser()
    if isinstance(name_or_path, Path) or path.suffix == ".toml" or len(path.parts) > 1:
        return relative_to / path if relative_to else path
    raise UsageError(
        f"no recipe '{name_or_path}'{nearest(name_or_path, known)}: "
        f"name one of {', '.join(known)}, or the path of a .toml file"
    )


def _read(path: Path) -> Raw:
    if not path.exists():
        raise UsageError(f"no recipe file {path}")
    return _parse(read_text(path, f"cannot read recipe {path}", UsageError), f"recipe {path}")


def _parse(text: str, source: str) -> Raw:
    with reading(f"{source} is not valid TOML", UsageError):
        return tomllib.loads(text)


def _resolve(raw: Raw, path: Path) -> Raw:
    """Lay a recipe over the one it extends."""
    if "extends" not in raw:
        return raw
    base_name = raw.pop("extends")
    if not isinstance(base_name, str):
        raise UsageError(f"extends must be the name or path of a recipe, not {base_name!r} (recipe {path})")
    base_path = _find(base_name, relative_to=path.parent)
    base = _read(base_path)
    if "extends" in base:
        raise UsageError(
            f"recipe {path} extends {base_path}, which itself extends another: extend one without a base"
        )
    _validate(base, f"recipe {base_path}")
    return _merge(base, raw)


def _merge(base: Raw, top: Raw) -> Raw:
    """Lay tables over tables, key by key."""
    merged = dict(base)
    for name, value in top.items():
        below = base.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[name] = _staying(name, below, value) | value
        else:
            merged[name] = value
    return merged


def _staying(name: str, below: Raw, above: Raw) -> Raw:
    """Return the settings of a table that are kept when another is laid over it.

    If the kind of model changes, none are kept; if the method of clustering changes, those are kept that the
    new method also has. A number of classes takes the place of a range of them, and the other way round.
    """
    choice = CHOICES.get(name)
    if choice is CLUSTER and NUMBERS & above.keys():
        below = {key: value for key, value in below.items() if key not in NUMBERS}
    if choice is None or choice.key not in above or choice.name(above) == choice.name(below):
        return below
    if choice is MODEL:
        return {}
    return {key: below[key] for key in choice.keys(above) if key in below}


def _override(raw: Raw, overrides: Sequence[str]) -> Recipe:
    return _validate(
        _merge(raw, _parse_overrides(overrides)), " ".join(f"--set {text}" for text in overrides)
    )


def _parse_overrides(overrides: Iterable[str]) -> Raw:
    """Turn ``table.key=value`` strings into a recipe that holds only these keys."""
    raw: Raw = {}
    for text in overrides:
        name, separator, value = (part.strip() for part in text.partition("="))
        *table, key = name.split(".")
        if not separator or not key or table == [""] or len(table) > 1:
            raise UsageError(f"--set {text}: write table.key=value, such as train.steps=200")
        keys = raw.setdefault(table[0], {}) if table else raw
        if isinstance(keys, dict):  # otherwise the table was set to a value, which is refused later
            keys[key] = _parse_value(value)
    return raw


def _parse_value(text: str) -> object:
    """Read a TOML value; a text that cannot be parsed as one is taken as a string."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return table["value"] if len(table) == 1 else text


def _validate(raw: Raw, source: str) -> Recipe:
    with reading(f"{source} is not a recipe", UsageError):
        filled = _fill(raw)
        try:
            return Recipe.model_validate(_freeze(filled))
        except ValidationError as error:
            raise UsageError(f"{explain(error.errors()[0], filled)} ({source})") from None


def _fill(raw: Raw) -> Raw:
    """Write out the kind of model, the method, and the scaling that suits the kind, where not given."""
    kind, method = MODEL.name(raw.get("model")), CLUSTER.name(raw.get("cluster"))
    known = KINDS.get(kind, KINDS[MODEL.default])  # an unknown kind is refused with the other settings
    defaults: Raw = {"model": {"kind": kind}, "cluster": {"method": method, "scale": known.scale}}
    return _merge(defaults, raw)


def _freeze(value: object) -> object:
    """Turn TOML's lists into the tuples of the tables."""
    if isinstance(value, dict):
        return {key: _freeze(item) for key, item in value.items()}
    return tuple(_freeze(item) for item in value) if isinstance(value, list) else value
