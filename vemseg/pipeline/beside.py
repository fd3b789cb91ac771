"""What lies beside labels: statistics, QC picture, provenance; and new names for the classes in all of it."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.drawing import Manner, palette, save, three_planes
from vemseg.errors import InputError
from vemseg.files import write_text
from vemseg.geometry import VoxelSize
from vemseg.labelling import Labeller, legend, suggestion_text
from vemseg.names import split_name
from vemseg.run import State, read_json, sidecar, write_json
from vemseg.volume import Thinned, Volume, open_volume, planes, rename_labels

Row = dict[str, Any]
"""What the table of classes says of one class, by column."""

ENDINGS = (".csv", "_qc.png", "_k.png", "_clusters.safetensors")
"""Endings of the files beside labels, apart from their description."""


def beside(out: Path, ending: str) -> Path:
    """Return the path of a file that lies beside an output: its stem and an ending."""
    return out.with_name(split_name(out)[0] + ending)


def files_beside(out: Path) -> list[Path]:
    """Return all files that lie beside labels."""
    return [sidecar(out), *(beside(out, ending) for ending in ENDINGS)]


def state_in(description: Path) -> State | None:
    """Return the state in the description (JSON) of a result; None without such a file or such an entry."""
    found: object = None
    with contextlib.suppress(InputError):
        found = read_json(description)
    state = found.get("state") if isinstance(found, dict) else None
    return state if isinstance(state, dict) else None


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


def classes_of(out: Path) -> list[Row]:
    """Return the table of classes that lies beside labels."""
    classes: list[Row] = read_json(sidecar(out))["classes"]
    return classes


def suggestions(classes: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return what the encoder takes each class for, in words, where it says anything of it."""
    return {
        k: suggestion_text(row["suggestion"], row["suggestion_probability"])
        for k, row in enumerate(classes, start=1)
        if row.get("suggestion") is not None
    }


def captions(classes: Sequence[Row]) -> dict[int, str]:
    """Return what the picture calls each class: its name, with the suggestion where it was given none."""
    known = suggestions(classes)
    return {
        k: f"{row['name']}: {known[k]}" if row["name"] == f"class {k}" and k in known else row["name"]
        for k, row in enumerate(classes, start=1)
    }


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write a table, such as that of the classes, as CSV; what is None stays empty."""
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())


def draw_check(path: Path, volume: Volume, labels: Volume, legend: Mapping[int, str]) -> None:
    """Draw three planes through the middle of a volume and their labels, for a quick check of the labels."""
    grey, painted = Thinned(volume), Thinned(labels)
    z, y, x = (n // 2 for n in volume.shape)
    at = grey.at((z, y, x))
    raw, seen = planes(grey, at), planes(painted, at)
    manner = Manner(steps=grey.steps)
    save(three_planes(raw, seen, grey.voxel_size, dict(legend), position=at, manner=manner), path)


def rename(out: Path, volume: Volume, names: Mapping[int, str]) -> bool:
    """Give the classes of finished labels other names, in all files; the labels themselves stay as they are.

    Parameters
    ----------
    out : Path
        The labels.
    volume : Volume
        The grey volume, for the picture.
    names : mapping of int to str
        Classes that it leaves out are called by their own names, or by their numbers.

    Returns
    -------
    bool
        Whether anything was to be changed.

    Raises
    ------
    InputError
        Where there is no such class.
    """
    about = read_json(sidecar(out))
    classes: list[Row] = about["classes"]
    own = {int(label): name for label, name in about.get("own_names", {}).items()}
    named = legend(len(classes), names, own)
    if named == {k: row["name"] for k, row in enumerate(classes, start=1)}:
        return False
    renamed: list[Row] = [row | {"name": name} for row, name in zip(classes, named.values(), strict=True)]
    rename_labels(out, named, dict(enumerate(palette(len(classes)), start=1)))
    write_table(beside(out, ".csv"), renamed)
    draw_check(beside(out, "_qc.png"), volume, open_volume(out), captions(renamed))
    write_json(sidecar(out), about | {"classes": renamed})  # last: until then the same call does it again
    return True
