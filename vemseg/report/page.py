"""Everything that a report shows -> one HTML file."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Self

import numpy as np

from vemseg.drawing import palette
from vemseg.names import WRITTEN_SUFFIXES, split_name
from vemseg.report.counting import Counts
from vemseg.report.shapes import distributions
from vemseg.report.slices import Slice
from vemseg.report.subject import Subject
from vemseg.run.files import plain
from vemseg.volume import Record, Volume
from vemseg.volume.about import LEGEND, colours_in, names_in

SCRIPTS = ("classes.js", "slices.js", "table.js", "points.js", "objects.js", "main.js")
"""The scripts of the page, in the order in which they are read."""

PARTS = 512
"""Most parts of a volume along z whose shares are drawn."""


@dataclass(frozen=True)
class Page:
    """What a page shows beside its slices; each attribute is plain JSON.

    Attributes
    ----------
    labels : str
        The name of the labels.
    command : str
        The command that applies what was edited.
    facts : mapping of str to str
        The overview.
    classes : list of dict
        One for each class: ``label``, ``name``, ``colour`` (``#rrggbb``), ``voxels``, ``fraction``,
        ``volume_um3`` and ``suggestion``.
    through : list of list of float
        For each of some parts of the volume along z, the share of each class.
    extent : (int, int, int)
        Voxels of the volume along z, y, x.
    voxel_size : list of float or None
        nm, z y x.
    provenance : dict
        What made the report.
    points, objects : dict or None
        See ``points.scatter`` and ``shapes.distributions``.
    """

    labels: str
    command: str
    facts: Mapping[str, str]
    classes: list[dict[str, object]]
    through: list[list[float]]
    extent: tuple[int, int, int]
    voxel_size: list[float] | None
    provenance: Mapping[str, object] = field(default_factory=dict)
    points: Mapping[str, object] | None = None
    objects: Mapping[str, object] | None = None

    @classmethod
    def of(
        cls, subject: Subject, image: Volume, counts: Counts, told: Record, provenance: Mapping[str, object]
    ) -> Self:
        """Return the page of labels.

        Parameters
        ----------
        subject : Subject
        image : Volume
            Whose voxels the labels have.
        counts : Counts
            The classes of the labels.
        told : dict
            What the labels say of themselves.
        provenance : mapping
            What made the report.
        """
        named = ["vemseg", "refine", subject.labels, "--names", "names.toml", "-o", _refined(subject.labels)]
        return cls(
            Path(subject.labels).name,
            shlex.join(named),
            _facts(image, counts, told),
            _classes(subject, image, counts, told),
            _through(counts),
            image.shape,
            image.voxel_size and list(image.voxel_size),
            {"report": dict(provenance), "labels": {k: v for k, v in told.items() if k not in LEGEND}},
        )

    def showing(self, points: Mapping[str, object] | None, table: Path | None) -> Self:
        """Return the page with vectors, as ``scatter`` gives them, and a table of objects."""
        return replace(self, points=points, objects=None if table is None else distributions(table))


def write_page(path: Path, page: Page, slices: Iterable[Slice]) -> None:
    """Write a report; slices are asked for one by one.

    Parameters
    ----------
    path : Path
        Written in place: give a path in a directory that is published whole.
    page : Page
    slices : iterable of Slice
    """
    before, after = _file("page.html").split("<!-- data -->")
    head = before.replace("/* style */", _file("page.css"))
    with path.open("w", encoding="utf-8", errors="replace") as out:
        out.write(head)
        out.write(f'<script type="application/json" id="page">{_json(vars(page))}</script>\n')
        for one in slices:
            out.write(f'<script type="application/json" class="slice">{_json(one.entry())}</script>\n')
        scripts = "\n".join(_file(name) for name in SCRIPTS)
        out.write(after.replace("/* scripts */", scripts))


def _refined(labels: str) -> str:
    """Return the name for refined labels that the page suggests."""
    stem, suffix = split_name(Path(labels))
    return f"{stem}_named{suffix if Path(suffix).suffix in WRITTEN_SUFFIXES else '.ome.zarr'}"


def _facts(image: Volume, counts: Counts, told: Record) -> dict[str, str]:
    """Return the overview."""
    size, shape = image.voxel_size, image.shape
    lengths = None if size is None else [n * edge / 1000 for n, edge in zip(shape, size, strict=True)]
    model, k = told.get("recipe"), len(counts.labels)
    facts = {
        "Image": image.name,
        "Voxels": " × ".join(map(str, shape)),
        "Voxel size": "unknown" if size is None else " × ".join(f"{edge:g}" for edge in size) + " nm",
        "Size": "" if lengths is None else " × ".join(f"{length:.3g}" for length in lengths) + " µm",
        "Classes": f"{k}" if k else "none",
        "Nothing": f"{counts.totals[0] / counts.totals.sum():.1%}" if counts.totals[0] else "",
        "Made by": f"vemseg {told['vemseg']}" if isinstance(told.get("vemseg"), str) else "",
        "Recipe": model[:12] if isinstance(model, str) else "",
    }
    return {name: text for name, text in facts.items() if text}


def _classes(subject: Subject, image: Volume, counts: Counts, told: Record) -> list[dict[str, object]]:
    """Return a row for each class."""
    subject.check(counts.labels)
    names, colours = names_in(told) | dict(subject.names), colours_in(told) | dict(subject.colours)
    suggested = told.get("suggestions")
    hints = suggested if isinstance(suggested, Mapping) else {}
    leaders = {k: min(members) for members, _ in subject.merges for k in members}
    voxel = None if image.voxel_size is None else math.prod(image.voxel_size) / 1e9
    spare = palette(len(counts.labels))
    return [
        {
            "label": k,
            "name": names.get(k, f"class {k}"),
            "colour": "#{:02x}{:02x}{:02x}".format(*colours.get(k, spare[i])),
            "leader": leaders.get(k, k),
            "voxels": int(counts.totals[i + 1]),
            "fraction": round(float(counts.totals[i + 1] / counts.totals.sum()), 6),
            "volume_um3": None if voxel is None else round(float(counts.totals[i + 1] * voxel), 6),
            "suggestion": str(hints.get(str(k), "")),
        }
        for i, k in enumerate(counts.labels)
    ]


def _through(counts: Counts) -> list[list[float]]:
    """Return the share of each class in parts of the volume along z, at most ``PARTS``."""
    parts = np.array_split(counts.voxels, min(PARTS, len(counts.voxels)))
    return [(part.sum(axis=0)[1:] / part.sum()).round(5).tolist() for part in parts]


def _file(name: str) -> str:
    return (resources.files("vemseg.report") / name).read_text(encoding="utf-8")


def _json(data: object) -> str:
    """Return JSON that cannot end the element it stands in."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, default=plain, separators=(",", ":"))
    return text.replace("<", "\\u003c")
