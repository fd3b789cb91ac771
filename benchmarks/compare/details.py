"""What a mean hides: Dice slice by slice, and what each class of the reference is taken for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compare.plan import Plan
from compare.tables import Cell, markdown, protocols, read_cells
from vemseg import metrics
from vemseg.files import write_text

NOWHERE = "no class"
"""What the tables call voxels whose class stands for none of the reference."""


def write_details(plan: Plan) -> None:
    """Write ``compare_details.md`` of the cells that are there, with the first training seed."""
    parts = [_explanation()]
    for volume, systems in read_cells(plan).items():
        cells = [found[0] for found in systems.values()]
        if cells:
            header, rows = _slices(cells)
            parts += [f"## {volume}", "Dice slice by slice: lowest, median, highest.", markdown(header, rows)]
            header, rows = _confusions(cells)
            parts += ["Of 100 voxels of each class of the reference:", markdown(header, rows)]
    write_text(plan.folder / "compare_details.md", "\n\n".join(parts) + "\n")


def drawn(cell: Cell) -> Mapping[str, Any]:
    """Return the counts of the labeller that pictures show."""
    key = cell.facts["drawn"]
    found: Mapping[str, Any] = next(one for one in cell.facts["counts"] if [one["k"], one["seed"]] == key)
    return found


def judged(cell: Cell) -> tuple[Mapping[str, Any], metrics.Scores]:
    """Return the counts that pictures show and their scores, merged greedily or by name."""
    one = drawn(cell)
    return one, cell.score(one, protocols(one)[-1], cell.facts["labelled_slices"])


def _explanation() -> str:
    return (
        "# The comparison in detail\n\nOne labeller of each system: the first seeds and, where there are "
        "clusters, K as in the table. Clusters are merged greedily. What learns from labelled slices is "
        "counted on the others."
    )


def _slices(cells: Sequence[Cell]) -> tuple[list[str], list[dict[str, str]]]:
    """Return the table of Dice slice by slice."""
    rows = []
    for cell in cells:
        one, scores = judged(cell)
        counts = cell.slices(one, cell.facts["labelled_slices"])
        dice = metrics.slice_dice(counts, scores.assignment)
        spread = {cell.classes[g]: _spread(dice[:, g]) for g in scores.present}
        rows.append(_named(cell, one) | spread)
    return ["system", "K", *cells[0].classes.values()], rows


def _spread(values: NDArray[np.float64]) -> str:
    """Return the lowest, the middle and the highest of the values that there are."""
    known = values[~np.isnan(values)]
    return ", ".join(f"{value:.2f}" for value in np.quantile(known, (0.0, 0.5, 1.0))) if len(known) else ""


def _confusions(cells: Sequence[Cell]) -> tuple[list[str], list[dict[str, str]]]:
    """Return the table of what the classes of the reference are taken for."""
    rows = [row for cell in cells for row in _confusion(cell)]
    return ["system", "K", "class", *cells[0].classes.values(), NOWHERE], rows


def _confusion(cell: Cell) -> Iterator[dict[str, str]]:
    """Yield a row for each class of the reference: the share of its voxels under each class."""
    one, scores = judged(cell)
    taken = [*(cell.classes[g] for g in sorted(cell.classes)), NOWHERE]
    places = [*sorted(cell.classes), -1]
    for g in sorted(cell.classes):
        column = scores.confusion[places, g]
        if total := column.sum():
            shares = {name: f"{100 * n / total:.0f}" for name, n in zip(taken, column, strict=True)}
            yield _named(cell, one) | {"class": cell.classes[g]} | shares


def _named(cell: Cell, one: Mapping[str, Any]) -> dict[str, str]:
    return {"system": cell.facts["title"], "K": "" if one["names"] else str(one["k"])}
