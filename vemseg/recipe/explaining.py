"""Says what pydantic finds wrong with a recipe in words that the recipe's author understands."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence

from pydantic_core import ErrorDetails

from vemseg.foreign import MOST_QUOTED, quoted
from vemseg.recipe.base import Raw
from vemseg.recipe.choices import CHOICES
from vemseg.recipe.methods import METHODS
from vemseg.recipe.recipe import Recipe
from vemseg.recipe.spelling import nearest

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
"""The message for each of pydantic's error types; the offending value is added to it."""


_BRANCH = re.compile(r"int$|float$|constrained-|tuple\[")
"""Names of the branches of a union, which pydantic puts into the place of an error; they are no keys."""


def explain(error: ErrorDetails, raw: Raw) -> str:
    """Say in one line what pydantic found wrong with a recipe.

    Parameters
    ----------
    error : ErrorDetails
        The first error that pydantic names.
    raw : dict
        The unchecked recipe that holds the error.
    """
    kind, names = error["type"], [str(part) for part in error["loc"]]
    names = [name for name in names if not _BRANCH.match(name)]
    key, context = quoted(re.sub(r"\.(\d+)$", r"[\1]", ".".join(names))), error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])[: 2 * MOST_QUOTED]
    if kind == "extra_forbidden":
        what = "table" if isinstance(error["input"], dict) else "key"
        return f"unknown {what} '{key}'{_nearest_key(names, raw)}"
    if kind == "missing":
        return f"{key} is missing"
    what = _MESSAGES[kind].format(**context) if kind in _MESSAGES else f"is wrong ({error['msg']})"
    return f"{key} {what}, not {_show(error['input'])}"


def _nearest_key(names: Sequence[str], raw: Raw) -> str:
    """Suggest what an unknown key was meant to be: the nearest spelling, or the table that has the key."""
    *table, key = names
    if table == ["cluster"] and (owners := [m for m, of in METHODS.items() if key in of.table.model_fields]):
        return f" (a setting of cluster.method {' and '.join(owners)})"
    tables = {name: _keys(name, raw) for name in Recipe.model_fields}
    if table:
        return nearest(key, tables[table[0]], prefix=f"{table[0]}.")
    elsewhere = [f"{name}.{key}" for name, keys in tables.items() if key in keys]
    return nearest(key, [*tables, "extends"]) or nearest(key, elsewhere, cutoff=0.0)


def _keys(name: str, raw: Raw) -> Iterable[str]:
    """Return the keys that a table of a recipe may have; ``description`` and other texts have none."""
    if name in CHOICES:
        return CHOICES[name].keys(raw.get(name))
    keys: Iterable[str] = getattr(Recipe.model_fields[name].annotation, "model_fields", ())
    return keys


def _show(value: object) -> str:
    """Return a value as it would be written in the file, shortened to fit in a line."""
    return textwrap.shorten(json.dumps(value, default=str, ensure_ascii=False), 60, placeholder=" ...")
