"""From TOML and ``table.key=value`` to a recipe, with errors that name the key and where it stands."""

from __future__ import annotations

import difflib
import json
import re
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vemseg.errors import UsageError
from vemseg.recipe.models import MODEL_KINDS, MaesterTable
from vemseg.recipe.tables import Recipe

DEFAULT_RECIPE = "vemseg"
"""The shipped recipe that is used where none is named."""

Raw = dict[str, Any]
"""A recipe as TOML gives it: unchecked, defaults left out."""

_MESSAGES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "tuple_type": "must be a list",
    "too_short": "must hold at least {min_length} values",
    "too_long": "must hold at most {max_length} values",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
}
"""What pydantic's error types mean to the author of a recipe; the offending value is added."""


def load_recipe(name_or_path: str | Path = DEFAULT_RECIPE, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe, checked.

    Parameters
    ----------
    name_or_path : str or Path
        The name of a shipped recipe, or the path of a TOML file.
    overrides : sequence of str
        ``table.key=value`` each, the value as in TOML; a bare word is a string.

    Raises
    ------
    UsageError
        For an unknown name, a file that cannot be read, TOML that is none, an unknown key (the message
        names the nearest spelling), a wrong type, a value out of range, or settings that do not go together.
    """
    path = _find(name_or_path)
    raw = _resolve(_read(path), path)
    recipe = _validate(raw, f"recipe {path}")
    return _override(raw, overrides) if overrides else recipe


def override(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with other values, given as for ``load_recipe``; the rest stays as it is.

    Raises
    ------
    UsageError
        As ``load_recipe``.
    """
    return _override(recipe.model_dump(mode="json"), overrides) if overrides else recipe


def parse_recipe(text: str, source: str) -> Recipe:
    """Return the recipe of a TOML text that extends none, such as the one ``Recipe.to_toml`` wrote.

    Parameters
    ----------
    text : str
        TOML.
    source : str
        Where the text stands, for messages.

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
        f"no recipe '{name_or_path}'{_nearest(name_or_path, known)}: "
        f"name one of {', '.join(known)}, or the path of a .toml file"
    )


def _read(path: Path) -> Raw:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no recipe file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read recipe {path}: {error}") from error
    return _parse(text, f"recipe {path}")


def _parse(text: str, source: str) -> Raw:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source} is no valid TOML: {error}") from error


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
    """Lay tables over tables, key by key; a model of another kind replaces the whole model."""
    merged = dict(base)
    for name, value in top.items():
        below = base.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            another_kind = name == "model" and value.get("kind", _kind(base)) != _kind(base)
            merged[name] = value if another_kind else below | value
        else:
            merged[name] = value
    return merged


def _override(raw: Raw, overrides: Sequence[str]) -> Recipe:
    return _validate(
        _merge(raw, _parse_overrides(overrides)), " ".join(f"--set {text}" for text in overrides)
    )


def _parse_overrides(overrides: Iterable[str]) -> Raw:
    """Read ``table.key=value`` strings as the recipe that holds these keys alone."""
    raw: Raw = {}
    for text in overrides:
        name, separator, value = (part.strip() for part in text.partition("="))
        *table, key = name.split(".")
        if not separator or not key or table == [""] or len(table) > 1:
            raise UsageError(f"--set {text}: write table.key=value, such as train.steps=200")
        keys = raw.setdefault(table[0], {}) if table else raw
        if isinstance(keys, dict):  # else the table itself was set to a value, which is refused later
            keys[key] = _parse_value(value)
    return raw


def _parse_value(text: str) -> Any:
    """Read a TOML value; what is none is a string."""
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


def _validate(raw: Raw, source: str) -> Recipe:
    try:
        return Recipe.model_validate(_freeze(_fill_by_kind(raw)))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{_explain(first, raw)} ({source})") from None


def _kind(raw: Mapping[str, Any]) -> Any:
    model = raw.get("model")
    return model.get("kind", "maester") if isinstance(model, dict) else "maester"


def _fill_by_kind(raw: Raw) -> Raw:
    """Write out the kind of model, and what depends on it, where they are not given."""
    kind = _kind(raw)
    model = MODEL_KINDS.get(str(kind), MaesterTable)  # a kind that is none is refused with the other settings
    by_kind = {"model": {"kind": kind}, "cluster": {"scale": model.scale}}
    return _merge(by_kind, _renamed(raw))


def _renamed(raw: Raw) -> Raw:
    """Write ``cluster.standardise``, as recipes before 0.2 have it, as ``cluster.scale``."""
    cluster = raw.get("cluster")
    if not isinstance(cluster, dict) or not isinstance(cluster.get("standardise"), bool):
        return raw
    rest = {key: value for key, value in cluster.items() if key != "standardise"}
    return raw | {"cluster": {"scale": "standardise" if cluster["standardise"] else "none"} | rest}


def _freeze(value: Any) -> Any:
    """Turn TOML's lists into the tuples of the tables."""
    if isinstance(value, dict):
        return {key: _freeze(item) for key, item in value.items()}
    return tuple(_freeze(item) for item in value) if isinstance(value, list) else value


def _explain(error: ErrorDetails, raw: Raw) -> str:
    """Say in one line what pydantic found wrong."""
    kind, names = error["type"], [str(part) for part in error["loc"]]
    if len(names) > 1 and names[0] == "model" and names[1] in MODEL_KINDS:
        del names[1]  # the tag of the union is no part of the key
    if names and names[-1] in ("int", "float"):
        del names[-1]  # nor is the branch of another one
    key, context = re.sub(r"\.(\d+)$", r"[\1]", ".".join(names)), error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        what = "table" if isinstance(error["input"], dict) else "key"
        return f"unknown {what} '{key}'{_nearest_key(names, raw)}"
    if kind == "union_tag_invalid":
        found = str(context["tag"])
        return (
            f"model.kind must be one of {', '.join(MODEL_KINDS)}, not '{found}'{_nearest(found, MODEL_KINDS)}"
        )
    if kind == "missing":
        return f"{key} is missing"
    what = _MESSAGES[kind].format(**context) if kind in _MESSAGES else f"is wrong ({error['msg']})"
    return f"{key} {what}, not {_show(error['input'])}"


def _nearest_key(names: Sequence[str], raw: Raw) -> str:
    """Look for the nearest spelling of an unknown key in its own table, or the same key in a table."""
    tables = {
        name: getattr(field.annotation, "model_fields", {}) for name, field in Recipe.model_fields.items()
    }
    tables["model"] = MODEL_KINDS.get(str(_kind(raw)), MaesterTable).model_fields
    *table, key = names
    if table:
        return _nearest(key, tables[table[0]], prefix=f"{table[0]}.")
    elsewhere = [f"{name}.{key}" for name, fields in tables.items() if key in fields]
    return _nearest(key, [*tables, "extends"]) or _nearest(key, elsewhere, cutoff=0.0)


def _show(value: Any) -> str:
    """Return a value as it would stand in the file, cut to a line."""
    return textwrap.shorten(json.dumps(value, default=str, ensure_ascii=False), 60, placeholder=" ...")


def _nearest(word: str, known: Iterable[str], cutoff: float = 0.6, prefix: str = "") -> str:
    """Return a question about the nearest spelling, or nothing."""
    found = difflib.get_close_matches(word, [other for other in known if other != word], n=1, cutoff=cutoff)
    return f" (did you mean '{prefix}{found[0]}'?)" if found else ""
