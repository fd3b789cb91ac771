"""What is told of classes: their table, their captions, and how their number was chosen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.drawing import number_curve, save
from vemseg.errors import InputError
from vemseg.files import write_table
from vemseg.foreign import Form, quoted
from vemseg.geometry import VoxelSize
from vemseg.labelling.base import Labeller
from vemseg.labelling.choosing import Choice
from vemseg.labelling.describing import suggestion_text
from vemseg.volume import about

_log = logging.getLogger("vemseg")

PLOT, TABLE = "_k.png", "_k.csv"
"""Endings of the files beside classes whose number was chosen; beside labels lies the plot alone."""

Row = dict[str, Any]
"""What the table of classes says of one class, by column."""


_COLUMNS: dict[str, Any] = {
    "label": int,
    "name": str,
    "voxels": int,
    "fraction": float,
    "volume_um3": float | None,
    "mean_intensity_in_sample": float | None,
    "suggestion": str | None,
    "suggestion_probability": float | None,
}
_ROW = Form(_COLUMNS)
"""What the table of classes says of one class."""

_TOLD = Form({"classes": list[dict[str, str | float | int | None]], "own_names?": dict[str, str]})
"""What a description of labels says of classes."""


def told_classes(description: Mapping[str, Any], complaint: str) -> tuple[list[Row], dict[int, str]]:
    """Return the table of classes that a description of labels holds, and the classes' own names.

    Parameters
    ----------
    description : mapping
        As it was read from a file.
    complaint : str
        What is wrong and where; the reason follows it.

    Raises
    ------
    InputError
        Where it holds something else.
    """
    _TOLD.check(description, complaint)
    rows: list[Row] = [{key: row.get(key) for key in _COLUMNS} for row in description["classes"]]
    for k, row in enumerate(rows, start=1):
        _ROW.check(row, f"{complaint}: class {k}")
        if (row.get("suggestion") is None) != (row.get("suggestion_probability") is None):
            raise InputError(f"{complaint}: class {k}: a suggestion has a name and a probability")
    if [row["label"] for row in rows] != list(range(1, len(rows) + 1)) or not 1 <= len(rows) <= 255:
        raise InputError(f"{complaint}: its classes are not numbered from 1 to at most 255")
    own = description.get("own_names") or {}
    if odd := [label for label in own if label not in map(str, range(1, len(rows) + 1))]:
        raise InputError(f"{complaint}: it names a class '{quoted(odd[0])}' that it has not")
    return rows, {int(label): name for label, name in own.items()}


def choice_of(labeller: Labeller) -> Choice | None:
    """Return how the number of classes was chosen; None where it was given."""
    facts = labeller.metadata.get("choice")
    return None if facts is None else Choice.of(facts)


def say_choice(labeller: Labeller) -> None:
    """Say which number of classes was chosen, and why; nothing where it was given."""
    if choice := choice_of(labeller):
        tell = _log.info if choice.stable else _log.warning
        tell("took K = %d: %s", choice.k, choice.reason)


def draw_choice(path: Path, choice: Choice) -> None:
    """Draw stability, explained variance and kept information over the number of classes."""
    curve = choice.curve
    lines = {
        "stability": [one.stability for one in curve],
        "explained variance": [one.explained for one in curve],
    }
    kept = [one.kept for one in curve if one.kept is not None]
    if kept:
        lines["kept information"] = kept
    spread = {"stability": [one.spread for one in curve]}
    save(number_curve([one.k for one in curve], lines, spread, choice.k), path)


def write_choice(path: Path, choice: Choice) -> None:
    """Write the table of all numbers of classes that were tried as CSV."""
    write_table(path, [one._asdict() | {"chosen": int(one.k == choice.k)} for one in choice.curve])


def class_table(labeller: Labeller, counts: NDArray[np.int64], voxel_size: VoxelSize | None) -> list[Row]:
    """Return the table of classes, a row each: voxels, fraction, volume, mean intensity, suggestion.

    Parameters
    ----------
    counts : int64 (K + 1,)
        Voxels of each label, 0..K.
    """
    nothing = [None] * labeller.k
    grey = labeller.metadata.get("intensities") or nothing
    suggested = labeller.metadata.get("suggestions") or nothing
    voxel = None if voxel_size is None else float(np.prod(voxel_size)) / 1e9
    return [
        {
            "label": k,
            "name": name,
            "voxels": int(counts[k]),
            "fraction": round(float(counts[k] / counts.sum()), 6),
            "volume_um3": None if voxel is None else round(float(counts[k] * voxel), 6),
            "mean_intensity_in_sample": grey[k - 1],
            "suggestion": (suggested[k - 1] or {}).get("name"),
            "suggestion_probability": (suggested[k - 1] or {}).get("probability"),
        }
        for k, name in labeller.names.items()
    ]


def suggestions(classes: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return what the encoder takes each class for, in words, where it says anything of it."""
    return {
        k: suggestion_text(row["suggestion"], row["suggestion_probability"])
        for k, row in enumerate(classes, start=1)
        if row.get("suggestion") is not None
    }


def captions(classes: Sequence[Row]) -> dict[int, str]:
    """Return what the picture calls each class: its name, with the suggestion where nobody named it."""
    names = {k: row["name"] for k, row in enumerate(classes, start=1)}
    return about.captions(names, suggestions(classes))
