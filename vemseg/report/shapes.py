"""How large the objects of each class are, and how round: the distributions of a table of objects."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.foreign import check_regular, reading

BINS = 40
"""Bins of a distribution."""

MEASURES: Mapping[str, tuple[str, bool]] = {
    "volume_um3": ("volume (µm³)", True),
    "voxels": ("volume (voxels)", True),
    "surface_um2": ("surface (µm²)", True),
    "axis_1_um": ("longest axis (µm)", True),
    "sphericity": ("sphericity", False),
}
"""The columns that are shown, what they are called, and whether their axis is logarithmic."""

Columns = dict[int, dict[str, NDArray[np.float32]]]
"""For each class its columns, one value for each object."""


def distributions(table: Path) -> dict[str, object]:
    """Return what a page shows of a table of objects.

    Parameters
    ----------
    table : Path
        A CSV that ``objects`` wrote.

    Returns
    -------
    dict
        ``measures``: for each its ``key``, ``title``, ``log`` and ``range``; ``classes``: for each its
        ``label``, ``count``, ``touching`` (objects that touch the border) and, by measure, ``quartiles`` and
        ``bins`` (objects in each part of the range).

    Raises
    ------
    InputError
        Where the file is not such a table.
    """
    columns = _read(table)
    shown = [key for key in MEASURES if all(key in found for found in columns.values())]
    ranges = {key: _range([found[key] for found in columns.values()], MEASURES[key][1]) for key in shown}
    return {
        "measures": [
            {"key": key, "title": MEASURES[key][0], "log": MEASURES[key][1], "range": ranges[key]}
            for key in shown
        ],
        "classes": [
            {
                "label": label,
                "count": len(found["voxels"]),
                "touching": int(found["touches_border"].sum()),
                **{key: _distribution(found[key], ranges[key], MEASURES[key][1]) for key in shown},
            }
            for label, found in sorted(columns.items())
        ],
    }


def _read(table: Path) -> Columns:
    """Read the columns that are shown, as float32."""
    complaint = f"cannot read {table} as a table that 'vemseg objects' wrote"
    rows: dict[int, list[list[float]]] = defaultdict(list)
    with reading(complaint):
        check_regular(table)
        with table.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            names = [name for name in (*MEASURES, "touches_border") if name in (lines.fieldnames or ())]
            if not {"voxels", "touches_border"} <= set(names):
                raise InputError(f"{complaint}: it has no columns 'voxels' and 'touches_border'")
            for line in lines:
                rows[int(line["class"])].append([float(line[name]) for name in names])
        return {
            label: dict(zip(names, np.array(found, np.float32).T, strict=True))
            for label, found in rows.items()
        }


def _range(parts: Iterable[NDArray[np.float32]], log: bool) -> list[float]:
    """Return the least and the greatest value; 0 to 1 for what is not ``log``: sphericity."""
    values = np.concatenate([np.zeros(0, np.float32), *parts])
    values = values[np.isfinite(values) & (values > 0)]
    if not log or not values.size:
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    return [low, high if high > low else low * 2]


def _distribution(values: NDArray[np.float32], between: list[float], log: bool) -> dict[str, object]:
    """Return quartiles, and how many objects lie in each part of a range."""
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = np.log(between) if log else between
    scaled = np.log(finite[finite > 0]) if log else finite
    bins = ((scaled - low) / (high - low) * BINS).astype(int).clip(0, BINS - 1)
    quartiles = np.percentile(finite, (25, 50, 75)) if finite.size else np.zeros(3)
    return {
        "quartiles": [float(f"{value:.6g}") for value in quartiles],
        "bins": np.bincount(bins, minlength=BINS).tolist(),
    }
