"""What pydantic finds wrong with a recipe, in the words of the recipe's author."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from vemseg.recipe.choices import CHOICES
from vemseg.recipe.methods import METHODS
from vemseg.recipe.recipe import Recipe
from vemseg.recipe.spelling import nearest

Raw = dict[str, Any]

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


def explain(error: ErrorDetails, raw: Raw) -> str:
    """Say in one line what pydantic found wrong.

    Parameters
    ----------
    error : ErrorDetails
        The first error that pydantic names.
    raw : dict
        The recipe in which it was found, unchecked.
    """
    kind, names = error["type"], [str(part) for part in error["loc"]]
    if names and names[-1] in ("int", "float"):
        del names[-1]  # the branch of a union is no part of the key
    key, context = re.sub(r"\.(\d+)$", r"[\1]", ".".join(names)), error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        what = "table" if isinstance(error["input"], dict) else "key"
        return f"unknown {what} '{key}'{_nearest_key(names, raw)}"
    if kind == "missing":
        return f"{key} is missing"
    what = _MESSAGES[kind].format(**context) if kind in _MESSAGES else f"is wrong ({error['msg']})"
    return f"{key} {what}, not {_show(error['input'])}"


def _nearest_key(names: Sequence[str], raw: Raw) -> str:
    """Look for the nearest spelling of an unknown key in its own table, or the same key in a table."""
    *table, key = names
    if table == ["cluster"] and (owners := [m for m, of in METHODS.items() if key in of.table.model_fields]):
        return f" (a setting of cluster.method {' and '.join(owners)})"
    tables = {name: _keys(name, raw) for name in Recipe.model_fields}
    if table:
        return nearest(key, tables[table[0]], prefix=f"{table[0]}.")
    elsewhere = [f"{name}.{key}" for name, keys in tables.items() if key in keys]
    return nearest(key, [*tables, "extends"]) or nearest(key, elsewhere, cutoff=0.0)


def _keys(name: str, raw: Raw) -> Iterable[str]:
    """Return the keys that a table of a recipe has; a text has none."""
    if name in CHOICES:
        return CHOICES[name].keys(raw.get(name))
    keys: Iterable[str] = getattr(Recipe.model_fields[name].annotation, "model_fields", ())
    return keys


def _show(value: Any) -> str:
    """Return a value as it would stand in the file, cut to a line."""
    return textwrap.shorten(json.dumps(value, default=str, ensure_ascii=False), 60, placeholder=" ...")
