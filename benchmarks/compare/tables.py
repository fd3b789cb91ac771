"""The tables of a comparison, made of the cells that are there: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compare.plan import Plan
from compare.schedule import Outcome
from vemseg import metrics
from vemseg.files import write_text
from vemseg.run import read_json

SAME = {"cytoplasm": "cytosol"}
"""Classes of references that the default encoder knows by another name."""

REST = "rest"
"""The class of a reference that takes all classes which the reference has no name for."""

CLUSTERS = {"hungarian": metrics.match_hungarian, "greedy": metrics.merge_greedy}


@dataclass(frozen=True)
class Cell:
    """What a cell's file says."""

    facts: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Cell:
        """Read the file of a cell."""
        return cls(read_json(path))

    @property
    def classes(self) -> dict[int, str]:
        """The classes of the reference."""
        return {int(g): name for g, name in self.facts["classes"].items()}

    def scores(self, without: Iterable[int]) -> list[dict[str, Any]]:
        """Return an entry for each K, seed and protocol, without some slices."""
        return [
            {"k": one["k"], "seed": one["seed"], "training_seed": self.facts["seed"], "protocol": protocol}
            | told(self.score(one, protocol, without), self.classes)
            for one in self.facts["counts"]
            for protocol in protocols(one)
        ]

    def score(self, one: Mapping[str, Any], protocol: str, without: Iterable[int]) -> metrics.Scores:
        """Return the scores of one labeller under a protocol."""
        table = self.table(one, without)
        return metrics.score(table, self.assignment(one, table, protocol), self.classes)

    def table(self, one: Mapping[str, Any], without: Iterable[int]) -> NDArray[np.int64]:
        """Return the counts of one labeller, (P, G), without some slices."""
        return self.slices(one, without).sum(axis=0)

    def slices(self, one: Mapping[str, Any], without: Iterable[int]) -> NDArray[np.int64]:
        """Return the counts of one labeller slice by slice, (Z, P, G), without some slices."""
        slices = np.array(one["slices"], np.int64)
        return slices[sorted(set(range(len(slices))) - set(without))]

    def assignment(
        self, one: Mapping[str, Any], table: NDArray[np.int64], protocol: str
    ) -> metrics.Assignment:
        """Return which class of the reference each class of a labeller stands for."""
        if protocol != "names":
            return CLUSTERS[protocol](table)
        known = {name: g for g, own in self.classes.items() for name in (own, SAME.get(own, own))}
        rest = next((g for g, name in self.classes.items() if name == REST), None)
        found = {p: known.get(name, rest) for p, name in enumerate(one["names"])}
        return metrics.merge_manual(table, {p: g for p, g in found.items() if g is not None})


def protocols(one: Mapping[str, Any]) -> Sequence[str]:
    """Return how a labeller is matched: by the names of its classes where it has any."""
    return ("names",) if one["names"] else tuple(CLUSTERS)


def told(scores: metrics.Scores, classes: Mapping[int, str]) -> dict[str, Any]:
    """Return Dice of each class and their mean, as plain numbers."""
    dice = {classes[g]: round(float(scores.dice[g]), 4) for g in scores.present}
    return {"dice": dice, "mean": round(scores.mean(), 4)}


def read_cells(plan: Plan) -> dict[str, dict[str, list[Cell]]]:
    """Return the cells that are there, by volume and system."""
    found: dict[str, dict[str, list[Cell]]] = {place.name: {} for place in plan.places}
    for task in plan.cells:
        if task.cell.exists():
            found[task.place.name].setdefault(task.system.key, []).append(Cell.read(task.cell))
    return found


def write(plan: Plan, outcome: Outcome, heading: Sequence[str] = ()) -> Path:
    """Write ``compare.md`` and ``compare.json`` of the cells that are there, and return the first.

    Parameters
    ----------
    plan : Plan
    outcome : Outcome
        Names the cells that failed, and those that are not there yet.
    heading : sequence of str
        Paragraphs above the tables.
    """
    cells, results = read_cells(plan), []
    parts = ["# Comparison", *heading, _settings(plan), _made_by(cells)]
    for volume, systems in cells.items():
        if systems:
            text, found = _volume(volume, systems)
            parts.append(text)
            results += found
    parts += _missing(plan, outcome)
    report = {"benchmark": "compare", **plan.record(), "results": results, "failed": outcome.failed}
    write_text(plan.folder / "compare.json", json.dumps(report, indent=1) + "\n")
    path = plan.folder / "compare.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _settings(plan: Plan) -> str:
    common = plan.common
    lists = {"K": common.k, "seeds of the clustering": common.seeds, "of the training": plan.seeds}
    numbers = "; ".join(f"{what} {', '.join(map(str, values))}" for what, values in lists.items())
    part = f" Part of each volume: {common.crop}." if common.crop else ""
    return (
        f"{common.budget[0].upper()}{common.budget[1:]}, on {common.device}. {numbers}.{part} Dice, mean ± "
        "standard deviation over all of these. Hungarian: one cluster for each class. Greedy: further "
        "clusters are merged where that raises the mean. Both look at the reference: on data without "
        "labels, expect less. Names: classes are taken by the names that the system gives them. What "
        "learns from labelled slices is scored on the others."
    )


def _made_by(cells: Mapping[str, Mapping[str, Sequence[Cell]]]) -> str:
    """Return by which revisions of the source the cells were made."""
    each = [
        cell.facts["machine"].get("revision") or "unknown"
        for systems in cells.values()
        for found in systems.values()
        for cell in found
    ]
    counted = ", ".join(f"{name} ({n} cells)" for name, n in Counter(each).most_common())
    return f"Made by vemseg of revision {counted}."


def _volume(volume: str, systems: Mapping[str, list[Cell]]) -> tuple[str, list[dict[str, Any]]]:
    """Return the tables of a volume, and its scores one by one."""
    shared = sorted({z for cells in systems.values() for z in cells[0].facts["labelled_slices"]})
    views = [("own", f"## {volume}", None)]
    if shared:
        listed = ", ".join(map(str, shared))
        title = f"### {volume}, without the slices that any system had labels of ({listed})"
        views.append(("shared", title, shared))
    parts, results = [], []
    for view, title, without in views:
        scores = {
            key: [s for cell in cells for s in cell.scores(without or cell.facts["labelled_slices"])]
            for key, cells in systems.items()
        }
        rows = [row for key, cells in systems.items() for row in _rows(cells, scores[key])]
        parts += [title, markdown(_header(systems), rows)]
        results += [
            {"volume": volume, "system": key, "slices": view} | s for key in systems for s in scores[key]
        ]
    parts.append(f"![{volume}: one slice under every system](pictures/{volume}.png)")
    return "\n\n".join(parts), results


def _header(systems: Mapping[str, list[Cell]]) -> list[str]:
    classes = next(iter(systems.values()))[0].classes
    ks = [f"K = {k}" for k in _ks(systems)]
    return ["system", "protocol", *ks, "mean", *classes.values(), "samples", "training", "labels"]


def _ks(systems: Mapping[str, list[Cell]]) -> list[int]:
    counts = [one for cells in systems.values() for cell in cells for one in cell.facts["counts"]]
    return sorted({one["k"] for one in counts if not one["names"]})


def _rows(cells: Sequence[Cell], scores: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a row for each protocol of a system, by columns."""
    rows = []
    for protocol in dict.fromkeys(one["protocol"] for one in scores):
        mine = [one for one in scores if one["protocol"] == protocol]
        at = {
            f"K = {k}": _spread(one["mean"] for one in mine if one["k"] == k) for k in {o["k"] for o in mine}
        }
        named = {
            name: _spread(one["dice"][name] for one in mine if name in one["dice"])
            for name in cells[0].classes.values()
        }
        row = {
            "system": cells[0].facts["title"],
            "protocol": protocol,
            "mean": _spread(one["mean"] for one in mine),
        }
        rows.append(row | ({} if protocol == "names" else at) | named | _costs(cells))
    return rows


def _costs(cells: Sequence[Cell]) -> dict[str, str]:
    """Return samples and time of the training, and the time of the labels, means over training seeds."""
    runs = [run for cell in cells for run in cell.facts["training"].values()]
    samples, seconds = ([run[key] or 0 for run in runs] for key in ("samples", "seconds"))
    labels = statistics.mean(cell.facts["seconds"] for cell in cells)
    return {
        "samples": f"{sum(samples) / len(cells):.0f}" if runs else "",
        "training": f"{sum(seconds) / len(cells) / 60:.1f} min" if runs else "",
        "labels": f"{labels:.0f} s",
    }


def markdown(header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|---|---|{'---:|' * (len(header) - 2)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.get(key, '') for key in header)} |" for row in rows)])


def _spread(values: Iterable[float]) -> str:
    found = list(values)
    if not found:
        return ""
    deviation = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.3f}{deviation}"


def _missing(plan: Plan, outcome: Outcome) -> list[str]:
    """Return what the tables lack: cells, and numbers of classes that could not be told apart."""
    lacking = [task.key for task in plan.cells if not task.cell.exists()]
    lines = [f"- {key}: {outcome.failed.get(key, 'not begun, or not finished')}" for key in lacking]
    for task in plan.cells:
        if task.key not in lacking:
            refused = read_json(task.cell).get("refused", [])
            lines += [f"- {task.key}, K = {one['k']}, seed {one['seed']}: {one['reason']}" for one in refused]
    if not lines:
        return []
    return [f"## Missing\n\n{len(lacking)} of {len(plan.cells)} cells.", "\n".join(lines)]
