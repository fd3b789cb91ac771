"""Results for people to read: scores, and what is at hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from vemseg.cli.progress import words
from vemseg.resources import batch_header, byte_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from vemseg.labelling import Choice
    from vemseg.metrics import Scores
    from vemseg.pipeline.evaluate import Evaluation
    from vemseg.pipeline.plan import Plan

PROTOCOLS = {
    "identity": "labels taken as classes",
    "hungarian": "one label for each class, the rest left out",
    "majority": "each label given to the class it overlaps most",
    "greedy": "labels merged step by step while the mean Dice rises",
    "manual": "labels merged as --map says",
}
"""What each protocol of matching does, by its name."""

COLUMNS = {
    "Dice": "dice",
    "IoU": "iou",
    "sens.": "sensitivity",
    "prec.": "precision",
    "acc.": "accuracy",
}
"""The measure that a column shows, by the head of the column."""


MOST_ROWS, MOST_LABELS = 24, 12
"""The most classes that a table shows, and the most labels that it lists for one class."""


def score_tables(found: Evaluation) -> Group:
    """Return a table for each protocol, and that they look at the reference."""
    from rich.console import Group
    from rich.text import Text

    sighted = [scores.assignment.name for scores in found.tables if scores.assignment.uses_reference]
    note = (
        f"All of these use the reference to match labels, so on new data expect less: {', '.join(sighted)}."
    )
    return Group(
        *(_score_table(scores, found) for scores in found.tables), *([Text(note)] if sighted else [])
    )


def _score_table(scores: Scores, found: Evaluation) -> Table:
    """Return a row for each class, then the mean of the present ones."""
    protocol, lost = scores.assignment.name, scores.unassigned_voxels
    table = _table(f"{protocol}: {PROTOCOLS[protocol]}")
    table.add_column("reference class", no_wrap=True, max_width=28)
    table.add_column("labels", min_width=9)
    for head in ("share", *COLUMNS):
        table.add_column(head, justify="right", no_wrap=True)
    for name, labels, share, measures in _rows(scores, found):
        table.add_row(name, labels, share, *measures)
    shown, held = len(table.rows), int((scores.reference_voxels + scores.predicted_voxels > 0).sum())
    if held > shown:
        table.add_row(f"and {held - shown} smaller ones", "", "", *("" for _ in COLUMNS))
    means = [_number(scores.mean(measure)) for measure in COLUMNS.values()]
    table.add_section()
    table.add_row(f"mean of {len(scores.present)}", "", "", *means, style="bold")
    if lost:
        table.add_row("in no class", "", f"{lost / found.voxels:.1%}")
    return table


def _rows(scores: Scores, found: Evaluation) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield name, labels, share of the voxels and measures of the classes that either side holds.

    Where these are more than ``MOST_ROWS``, the largest are shown.
    """
    actual, size = scores.reference_voxels, scores.reference_voxels + scores.predicted_voxels
    labels: dict[int, list[str]] = {}
    for p, g in scores.assignment.mapping.items():
        if g is not None:
            labels.setdefault(g, []).append(str(found.clusters[p]))
    largest = sorted(sorted(range(len(size)), key=lambda i: -int(size[i]))[:MOST_ROWS])
    for i in [i for i in largest if size[i]]:
        share = f"{actual[i] / found.voxels:.1%}"
        measures = [_number(float(getattr(scores, measure)[i])) for measure in COLUMNS.values()]
        unnamed = f"class {found.classes[i]}"
        name = unnamed if scores.names[i] == unnamed else f"{found.classes[i]} {scores.names[i]}"
        yield name, _listed(labels.get(i, [])), share, measures


def _listed(labels: Sequence[str]) -> str:
    """Return labels in a row, the first of them where they are many."""
    more = f" and {len(labels) - MOST_LABELS} more" if len(labels) > MOST_LABELS else ""
    return (", ".join(labels[:MOST_LABELS]) or "none") + more


class Entry(TypedDict, total=False):
    """Something that comes with the package or can be had; ``path`` is None where it is not here yet."""

    kind: str
    name: str
    about: str
    megabytes: float
    licence: str
    path: str | None
    url: str
    sha256: str


def catalogue() -> list[Entry]:
    """Return the weights, recipes and volumes that come with the package or can be downloaded."""
    from vemseg.catalog import HOW_RELEASED, RELEASED, bundled_weights
    from vemseg.recipe import load_recipe, shipped
    from vemseg.run import Run

    found: list[Entry] = [
        {
            "kind": "weights",
            "name": name,
            "about": Run.open(path).recipe.description,
            "megabytes": round((path / "model.safetensors").stat().st_size / 1e6, 1),
            "licence": "BSD-3-Clause, as vemseg",
            "path": str(path),
        }
        for name, path in bundled_weights().items()
    ]
    found.append({"kind": "weights", "name": RELEASED, "about": HOW_RELEASED, "path": None})
    found += [
        {"kind": "recipe", "name": name, "about": load_recipe(name).description, "path": str(path)}
        for name, path in shipped().items()
    ]
    return found + _volumes()


def _volumes() -> list[Entry]:
    """Return the volumes that ``fetch`` brings."""
    from vemseg.catalog import DATASETS, openorganelle

    made = "A synthetic cell with exact labels: vemseg fetch phantom"
    crops = f"{openorganelle.ABOUT}: vemseg fetch openorganelle. {openorganelle.REFERENCE}"
    archives: list[Entry] = [
        {
            "kind": "volume",
            "name": name,
            "about": f"{data.about}: vemseg fetch {name}. {data.reference}",
            "licence": data.licence,
            "url": data.url,
            "sha256": data.sha256,
        }
        for name, data in DATASETS.items()
    ]
    return [
        {"kind": "volume", "name": "phantom", "about": made},
        *archives,
        {
            "kind": "volume",
            "name": "openorganelle",
            "about": crops,
            "licence": openorganelle.LICENCE,
            "url": openorganelle.ROOT,
        },
    ]


def catalogue_table(entries: list[Entry]) -> Table:
    """Return what ``catalogue`` found as a table."""
    table = _table(None, "what", "name", "about")
    for entry in entries:
        size = f" ({entry['megabytes']} MB)" if "megabytes" in entry else ""
        table.add_row(entry["kind"], entry["name"], f"{entry['about']}{size}")
    return table


def class_table(classes: Sequence[Mapping[str, Any]]) -> Table:
    """Return the classes of labels, with the encoder's suggestions where it has any."""
    from vemseg.labelling.telling import suggestions

    suggested = suggestions(classes)
    table = _table(None, "label", "class")
    for head in ("share", "µm³"):
        table.add_column(head, justify="right", no_wrap=True)
    if suggested:
        table.add_column("suggestion")
    for row in classes:
        size = "-" if row["volume_um3"] is None else f"{row['volume_um3']:.4g}"
        also = [suggested.get(row["label"], "")] if suggested else []
        table.add_row(str(row["label"]), row["name"], f"{row['fraction']:.1%}", size, *also)
    return table


def plan_table(plan: Plan, training: float | None) -> Table:
    """Return what a segmentation takes; before it, ``training`` seconds are spent on the volume."""
    z, y, x = plan.shape
    table = _table(None)
    table.show_header = False
    table.add_column()
    table.add_column()
    rows = {
        "volume": f"{plan.volume}, {z} x {y} x {x} voxels",
        "model": plan.model,
        "vectors": f"{plan.vectors / 1e6:.3g} million of {plan.dim} numbers",
        "blocks": f"{plan.blocks.count} of {' x '.join(map(str, plan.blocks.shape))} voxels",
        "memory": f"{byte_text(plan.memory)} at most",
        **({"GPU memory": f"{byte_text(plan.blocks.gpu)} at most"} if plan.blocks.gpu else {}),
        "disk": f"about {byte_text(plan.disk)} of labels",
    }
    if plan.k_range:
        first, last = plan.k_range
        rows["classes"] = f"to be chosen: {first} to {last} are tried, which takes time of its own"
    if training:
        rows["training"] = f"{words(training)} at most"
    if plan.sampling:
        rows["sampling"] = words(plan.sampling)
    rows["labelling"] = words(plan.labelling)
    most = " at most" if training else ""
    seconds = plan.seconds + (training or 0.0)
    rows["time"] = f"{words(seconds)}{most}, measured on {plan.machine}"
    rows["SLURM"] = "\n".join(batch_header(plan.memory, seconds, gpu=plan.blocks.gpu > 0))
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def choice_table(choice: Choice) -> Table:
    """Return what was found for each number of classes; the one that was chosen is bold."""
    table = _table(None)
    known = any(one.kept is not None for one in choice.curve)
    for head in ("K", "stability", "spread", "expl. variance", "smallest class", *(["kept inf."] * known)):
        table.add_column(head, justify="right", no_wrap=True)
    for one in choice.curve:
        cells = [str(one.k), *map(_number, (one.stability, one.spread, one.explained))]
        cells += [f"{one.smallest:.1%}"] + ([] if one.kept is None else [_number(one.kept)])
        table.add_row(*cells, style="bold" if one.k == choice.k else None)
    return table


def as_json(value: object) -> str:
    """Return JSON for a program to read."""
    return json.dumps(value, indent=2, allow_nan=False)


def _table(title: str | None, *columns: str) -> Table:
    """Return an empty table, light enough for 80 columns."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
