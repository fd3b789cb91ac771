"""What lies beside labels: their legend, statistics, QC picture and provenance."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.clustering import Clusterer
from vemseg.drawing import save, three_planes
from vemseg.errors import InputError, OutputExistsError
from vemseg.files import write_text
from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.run import read_json, sidecar, split_name, write_json
from vemseg.volume import Volume

Planes = tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]]
"""Slices across z, y and x: (y, x), (z, x), (z, y)."""


def beside(out: Path, ending: str) -> Path:
    """Return the path of a file that lies beside an output: its stem and an ending."""
    return out.with_name(split_name(out)[0] + ending)


ENDINGS = (".csv", "_qc.png", "_clusters.safetensors")
"""Of the files beside labels, apart from their description."""


def state_beside(out: Path) -> dict[str, Any] | None:
    """Return the state that the description beside labels gives, None where there is none of theirs."""
    path = sidecar(out)
    state = read_json(path).get("state") if path.exists() else None
    return state if isinstance(state, dict) else None


def check_beside(out: Path) -> None:
    """Refuse to overwrite files beside an output that are not its own.

    Raises
    ------
    OutputExistsError
        Naming the first of them.
    """
    there = [path for path in (sidecar(out), *(beside(out, e) for e in ENDINGS)) if path.exists()]
    if there and (state_beside(out) or {}).get("output") != out.name:
        raise OutputExistsError(f"{there[0]} exists and does not belong to {out}: give another -o, or -f")


def legend_of(clusterer: Clusterer, names: dict[int, str] | None) -> dict[int, str]:
    """Return the name of each class: given, or kept with the clusterer, or its number."""
    known = names or {int(k): v for k, v in clusterer.metadata.get("names", {}).items()}
    if extra := [k for k in known if not 1 <= k <= clusterer.k]:
        raise InputError(f"names for classes {extra}, but there are classes 1 to {clusterer.k}")
    return {k: known.get(k, f"class {k}") for k in range(1, clusterer.k + 1)}


def class_table(
    clusterer: Clusterer, legend: dict[int, str], counts: NDArray[np.int64], voxel_size: VoxelSize | None
) -> list[dict[str, Any]]:
    """Return what is to be said of each class: voxels, fraction, volume, mean intensity.

    Parameters
    ----------
    counts : int64 (K + 1,)
        Voxels of each label, 0..K.
    """
    grey = clusterer.metadata.get("intensities") or [None] * clusterer.k
    voxel = None if voxel_size is None else float(np.prod(voxel_size)) / 1e9
    return [
        {
            "label": k,
            "name": name,
            "voxels": int(counts[k]),
            "fraction": round(float(counts[k] / counts.sum()), 6),
            "volume_um3": None if voxel is None else round(float(counts[k] * voxel), 6),
            "mean_intensity_in_sample": grey[k - 1],
        }
        for k, name in legend.items()
    ]


def write_beside(
    out: Path,
    volume: Volume,
    labels: Volume,
    origin: dict[str, Any],
    legend: dict[int, str],
    classes: list[dict[str, Any]],
) -> None:
    """Write provenance, statistics and the QC picture."""
    write_json(sidecar(out), origin)
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(classes[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(classes)
    write_text(beside(out, ".csv"), table.getvalue())
    position: ZYX = (volume.shape[0] // 2, volume.shape[1] // 2, volume.shape[2] // 2)
    raw, seen = planes(volume, position), planes(labels, position)
    save(three_planes(raw, seen, volume.voxel_size, legend, position=position), beside(out, "_qc.png"))


def planes(volume: Volume, position: ZYX) -> Planes:
    """Read the three orthogonal planes through a voxel: (y, x), (z, x), (z, y)."""
    found = []
    for axis in range(3):
        start, stop = [0, 0, 0], list(volume.shape)
        start[axis], stop[axis] = position[axis], position[axis] + 1
        box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        found.append(np.squeeze(volume.read(box), axis=axis))
    return found[0], found[1], found[2]
