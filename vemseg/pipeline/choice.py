"""What ``cluster`` and ``segment`` tell of a number of classes that was chosen: a line, a plot, a table."""

from __future__ import annotations

import logging
from pathlib import Path

from vemseg.drawing import number_curve, save
from vemseg.labelling import Choice, Labeller
from vemseg.pipeline.beside import write_table

_log = logging.getLogger("vemseg")

PLOT, TABLE = "_k.png", "_k.csv"
"""Endings of the files beside classes whose number was chosen; beside labels lies the plot alone."""


def choice_of(labeller: Labeller) -> Choice | None:
    """Return how the number of classes was chosen; None where it was given."""
    facts = labeller.metadata.get("choice")
    return None if facts is None else Choice.of(facts)


def say_choice(labeller: Labeller) -> None:
    """Say which number of classes was chosen, and why; nothing where it was given."""
    if choice := choice_of(labeller):
        tell = _log.info if choice.stable else _log.warning
        tell("K = %d of %d to %d: %s", choice.k, choice.curve[0].k, choice.curve[-1].k, choice.reason)


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
