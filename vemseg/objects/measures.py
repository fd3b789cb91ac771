"""The table of objects: volumes, surfaces, shapes, places and contacts, from what was counted.

The axes of an object are those of the ellipsoid with the same volume moments: their full lengths are
``2 sqrt(5 l)`` for the eigenvalues ``l`` of the covariance of its points, in which each voxel counts as the
box that it is. Sphericity is the surface of the sphere of the same volume over the object's own (Wadell, J.
Geol. 43 (1935), 250-280). Surfaces and contacts are those of ``crofton``, so the contacts of an object add up
to its surface. Where the border of the volume cuts an object, the cut counts as its surface too.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError, UsageError
from vemseg.files import atomic_path
from vemseg.foreign import library
from vemseg.geometry import Position, VoxelSize
from vemseg.objects.blockwise import OUTSIDE
from vemseg.objects.components import Objects
from vemseg.objects.counting import PRODUCTS, Bodies, Contacts
from vemseg.objects.crofton import areas_of_crossings

Column = NDArray[np.generic]
"""One value for each object."""

DIGITS = 6
"""Significant digits of what is computed."""

NEEDED = "--parquet needs pyarrow"
"""The beginning of the message where pyarrow is not installed."""

ROWS = 65536
"""Rows that are written at a time."""


@dataclass(frozen=True)
class Asked:
    """What is asked for beside the objects of all classes and their CSV.

    Attributes
    ----------
    classes : sequence of str
        Only these classes, by number or name; empty for all.
    parquet : bool
        Whether the table is written as Parquet too.
    neck : float, optional
        The share, above 0 and below 1, that says which necks objects are split at (see ``necks``); objects
        stay whole where it is left out.
    """

    classes: Sequence[str] = ()
    parquet: bool = False
    neck: float | None = None

    def state(self) -> dict[str, object]:
        """Return what is asked for beside the classes, as plain JSON types."""
        asked = {"parquet": self.parquet or None, "split": self.neck}
        return {name: value for name, value in asked.items() if value is not None}

    def check(self) -> None:
        """Refuse to begin where Parquet cannot be written, or nothing is split in that way.

        Raises
        ------
        UsageError
            Where ``neck`` is not above 0 and below 1.
        InputError
            Where pyarrow is not installed.
        """
        if self.neck is not None and not 0 < self.neck < 1:
            raise UsageError(f"--split {self.neck:g}: give a share above 0 and below 1, such as 0.7")
        if self.parquet:
            library("pyarrow.parquet", NEEDED, "tables")


@dataclass(frozen=True)
class Measures:
    """What is measured of objects, column by column.

    Attributes
    ----------
    columns : mapping of str to array
        In the order of the table; see ``of``.
    """

    columns: Mapping[str, Column]

    @classmethod
    def of(
        cls, found: Objects, names: Mapping[int, str], voxel_size: VoxelSize | None, origin: Position | None
    ) -> Measures:
        """Measure objects.

        Parameters
        ----------
        found : Objects
        names : mapping of int to str
            Names of classes.
        voxel_size : (float, float, float) or None
            nm, z y x; None leaves out all lengths, areas, volumes and shapes.
        origin : (float, float, float) or None
            Where the centre of the first voxel lies, in nm; None for (0, 0, 0).

        Returns
        -------
        Measures
            ``object``, ``class``, ``name``, ``voxels``, centre and bounding box (half-open) in voxels, and
            ``touches_border`` (0 or 1). With a voxel size also ``volume_um3``, ``surface_um2``,
            ``sphericity``, the centre in nm, full lengths of the three axes in µm, longest first, with their
            directions (unit vectors, z y x), and the area in µm² where the object meets each other class,
            nothing, and the border of the volume; and its own class, where objects were split.
        """
        bodies, contacts = found.bodies, found.contacts
        n = len(found.classes)
        centre = bodies.sums / np.maximum(bodies.voxels, 1)[:, None]
        columns: dict[str, Column] = {
            "object": np.arange(1, n + 1),
            "class": found.classes,
            "name": np.array([names.get(k, f"class {k}") for k in found.classes.tolist()], dtype=object),
            "voxels": bodies.voxels,
            **{f"centre_{axis}": centre[:, i] for i, axis in enumerate("zyx")},
            **{f"{axis}_start": bodies.low[:, i] for i, axis in enumerate("zyx")},
            **{f"{axis}_stop": bodies.high[:, i] for i, axis in enumerate("zyx")},
            "touches_border": bodies.touching(found.shape).astype(np.int64),
        }
        if voxel_size is not None:
            columns |= _shapes(bodies, contacts, voxel_size)
            places = centre * voxel_size + (origin or (0.0, 0.0, 0.0))
            columns |= {f"centre_{axis}_nm": places[:, i] for i, axis in enumerate("zyx")}
            columns |= _axes(bodies, centre, voxel_size)
            columns |= _met(contacts, n, voxel_size, names)
        return cls(columns)

    def __len__(self) -> int:
        return len(self.columns["object"])


def _shapes(bodies: Bodies, contacts: Contacts, voxel_size: VoxelSize) -> dict[str, Column]:
    """Return volume, surface and sphericity."""
    volume = bodies.voxels * (float(np.prod(voxel_size)) / 1e9)
    surface = np.zeros(len(volume))
    np.add.at(surface, contacts.component - 1, _areas(contacts, voxel_size))
    sphere = np.pi ** (1 / 3) * (6 * volume) ** (2 / 3)
    return {"volume_um3": volume, "surface_um2": surface, "sphericity": sphere / surface}


def _areas(contacts: Contacts, voxel_size: VoxelSize) -> NDArray[np.float64]:
    """Return the area of each contact, in µm²."""
    areas: NDArray[np.float64] = contacts.crossings @ areas_of_crossings(voxel_size) / 1e6
    return areas


def _axes(bodies: Bodies, centre: NDArray[np.float64], voxel_size: VoxelSize) -> dict[str, Column]:
    """Return the lengths of the axes, in µm, and their directions."""
    edges = np.array(voxel_size)
    covariance = np.zeros((len(centre), 3, 3))
    for k, (i, j) in enumerate(PRODUCTS):
        mean = bodies.products[:, k] / np.maximum(bodies.voxels, 1)
        spread = (mean - centre[:, i] * centre[:, j] + (i == j) / 12) * edges[i] * edges[j]
        covariance[:, i, j] = covariance[:, j, i] = spread
    values, vectors = np.linalg.eigh(covariance)
    lengths = 2 * np.sqrt(5 * np.maximum(values[:, ::-1], 0)) / 1000
    vectors = vectors[:, :, ::-1]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    vectors = vectors * np.where(largest < 0, -1, 1)  # the same way for the same object
    columns: dict[str, Column] = {f"axis_{i + 1}_um": lengths[:, i] for i in range(3)}
    for i in range(3):
        columns |= {f"axis_{i + 1}_{axis}": vectors[:, k, i] for k, axis in enumerate("zyx")}
    return columns


def _met(contacts: Contacts, n: int, voxel_size: VoxelSize, names: Mapping[int, str]) -> dict[str, Column]:
    """Return the area of contact with each class, nothing and the border, in µm²."""
    areas, columns = _areas(contacts, voxel_size), {}
    heads = {OUTSIDE: "border", 0: "nothing"}
    for other in np.unique(contacts.other).tolist():
        area, here = np.zeros(n), contacts.other == other
        area[contacts.component[here] - 1] = areas[here]
        head = heads.get(other) or (f"{other}_{names[other]}" if other in names else f"class_{other}")
        columns[f"contact_{head}_um2"] = area
    return dict(columns)


def chosen(wanted: Sequence[str], known: Sequence[int], names: Mapping[int, str]) -> tuple[int, ...]:
    """Return the classes that a user names by their numbers or their names.

    Raises
    ------
    InputError
        Where there is no such class.
    """
    found: list[int] = []
    for text in wanted:
        matching = [k for k in known if text in (str(k), names.get(k))]
        if not matching:
            shown = ", ".join(f"{k} {names[k]}" if k in names else str(k) for k in known[:24])
            raise InputError(f"there is no class '{text}': the labels have {shown or 'no class at all'}")
        found += matching
    return tuple(dict.fromkeys(found))


def write_measures(path: Path, measures: Measures) -> None:
    """Write the table as CSV, whole or not at all; what is computed has six significant digits."""
    columns = measures.columns
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for begin in range(0, len(measures), ROWS):
            parts = [_text(values[begin : begin + ROWS]) for values in columns.values()]
            writer.writerows(zip(*parts, strict=True))


def write_parquet(path: Path, measures: Measures) -> None:
    """Write the table as Parquet, whole or not at all; numbers keep all their digits.

    Parameters
    ----------
    path : Path
    measures : Measures

    Raises
    ------
    InputError
        Where pyarrow is not installed.
    """
    arrow = library("pyarrow", NEEDED, "tables")
    parquet = library("pyarrow.parquet", NEEDED, "tables")
    with atomic_path(path) as temporary:
        parquet.write_table(
            arrow.table({name: arrow.array(v) for name, v in measures.columns.items()}), temporary
        )


def _text(values: Column) -> list[object]:
    if values.dtype.kind == "f":
        return [f"{value:.{DIGITS}g}" for value in values.tolist()]
    return list(values.tolist())
