"""Points that somebody clicked in a volume, each with its class: a table in a file -> voxels.

The table is CSV with a line of heads: ``z,y,x,class``, in any order, beside any other columns. Places are
whole voxels of the volume, counted from 0, or nanometres, measured as the volume's own place is.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError, UsageError
from vemseg.foreign import quoted, read_text, reading
from vemseg.geometry import ZYX, Box
from vemseg.recipe.spelling import nearest

AXES = ("z", "y", "x")
CLASS = "class"
MOST_CLASSES = 255
"""Most classes: labels are bytes."""


class Placed(Protocol):
    """What has to be known of a volume to find points in it."""

    @property
    def shape(self) -> ZYX:
        """Its voxels along z, y and x."""

    @property
    def voxel_size(self) -> tuple[float, float, float] | None:
        """Edges of a voxel in nm."""

    @property
    def origin(self) -> tuple[float, float, float] | None:
        """Where the centre of its first voxel lies, in nm; at 0 where that is not known."""


class Line(NamedTuple):
    """A line of the table: its number in the file, the place in the unit of the file, and the class."""

    number: int
    place: tuple[float, float, float]
    name: str


@dataclass(frozen=True)
class Points:
    """Voxels with classes.

    Attributes
    ----------
    voxels : int64 (n, 3)
        z, y, x; no voxel is there twice.
    classes : int64 (n,)
        The class of each, an index into ``names``.
    names : tuple of str
        The classes that points have: in the order of the numbers that the user gives them, or else in the
        order in which the file names them.
    """

    voxels: NDArray[np.int64]
    classes: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True)
class PointFile:
    """A table of points, as a user names it.

    Attributes
    ----------
    path : Path
    unit : {"voxel", "nm"}
    names : mapping of int to str
        The classes that there are, by number; the file may use either. Where it is empty, every word of the
        file is a class.
    """

    path: Path
    unit: str = "voxel"
    names: Mapping[int, str] = field(default_factory=dict)

    def state(self) -> dict[str, object]:
        """Return what results depend on, as plain JSON types."""
        text = self._text()
        return {
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "unit": self.unit,
            "names": {str(number): name for number, name in self.names.items()},
        }

    def read(self, volume: Placed) -> Points:
        """Read the points.

        Parameters
        ----------
        volume : Placed
            The volume that they lie in.

        Raises
        ------
        InputError
            Where a line cannot be read, a point lies outside the volume or has an unknown class, or a voxel
            has two classes. The message names the line.
        UsageError
            Where places in nm are given for a volume without a voxel size.
        """
        seen: dict[ZYX, Line] = {}
        for line in self._lines():
            voxel = self._voxel(line, volume)
            before = seen.setdefault(voxel, line)
            if before.name != line.name:
                z, y, x = voxel
                raise InputError(
                    f"{self.path}: voxel {z}, {y}, {x} is {before.name} in line {before.number} and "
                    f"{line.name} in line {line.number}: keep one of them"
                )
        if not seen:
            raise InputError(f"{self.path}: there is no point below the line of heads")
        names = self._order([line.name for line in seen.values()])
        classes = np.array([names.index(line.name) for line in seen.values()], np.int64)
        return Points(np.array(list(seen), np.int64).reshape(-1, 3), classes, names)

    def _order(self, found: Sequence[str]) -> tuple[str, ...]:
        """Return the classes that occur, in their order.

        Raises
        ------
        InputError
            Where there are too many.
        """
        known = [self.names[number] for number in sorted(self.names)]
        names = tuple(name for name in dict.fromkeys(known or found) if name in set(found))
        if len(names) > MOST_CLASSES:
            raise InputError(f"{self.path}: {len(names)} classes; there can be {MOST_CLASSES}")
        return names

    def _text(self) -> str:
        return read_text(self.path, f"cannot read points from {self.path}").removeprefix("\ufeff")

    def _lines(self) -> Iterator[Line]:
        text = self._text()
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        with reading(f"{self.path} is not a table of points"):
            rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
        columns = self._columns(rows[0] if rows else [])
        for number, row in enumerate(rows[1:], start=2):
            if any(cell.strip() for cell in row):
                yield self._line(number, row, columns)

    def _columns(self, heads: Sequence[str]) -> list[int]:
        """Return where z, y, x and class stand.

        Raises
        ------
        InputError
            Where one is missing.
        """
        found = [head.strip().lower() for head in heads]
        if missing := [name for name in (*AXES, CLASS) if name not in found]:
            raise InputError(
                f"{self.path}: the first line must name the columns z, y, x and class, and has no "
                f"'{missing[0]}' ({quoted(', '.join(found)) or 'it is empty'}); for nm, add --unit nm"
            )
        return [found.index(name) for name in (*AXES, CLASS)]

    def _line(self, number: int, row: Sequence[str], columns: Sequence[int]) -> Line:
        where = f"{self.path}, line {number}"
        if len(row) <= max(columns):
            raise InputError(f"{where}: it has {len(row)} columns, and needs z, y, x and class")
        *cells, name = (row[column].strip() for column in columns)
        place = []
        for axis, cell in zip(AXES, cells, strict=True):
            with reading(f"{where}: {axis} is '{quoted(cell)}', which is not a number"):
                place.append(float(cell))
            if not math.isfinite(place[-1]):
                raise InputError(f"{where}: {axis} is '{quoted(cell)}', which is not a number")
        z, y, x = place
        return Line(number, (z, y, x), self._class(where, name))

    def _class(self, where: str, name: str) -> str:
        if not name:
            raise InputError(f"{where}: the point has no class")
        if not self.names:
            return name
        called = self.names.get(int(name), "") if name.isdecimal() else name
        if called not in self.names.values():
            known = ", ".join(f"{number}={word}" for number, word in sorted(self.names.items()))
            hint = nearest(name, self.names.values())
            raise InputError(f"{where}: there is no class '{quoted(name)}'{hint}; --names has {known}")
        return called

    def _voxel(self, line: Line, volume: Placed) -> ZYX:
        """Return the voxel that a point lies in."""
        where = f"{self.path}, line {line.number}"
        z, y, x = self._in_nm(line.place, volume) if self.unit == "nm" else self._whole(where, line.place)
        if not Box.whole(volume.shape).contains(Box((z, y, x), (z + 1, y + 1, x + 1))):
            shape = " x ".join(map(str, volume.shape))
            told = ", ".join(f"{value:g}" for value in line.place)
            hint = "" if self.unit == "nm" else "; if places are in nm, add --unit nm"
            raise InputError(
                f"{where}: {told} {self.unit} (z, y, x) lies outside the volume of {shape} voxels{hint}"
            )
        return z, y, x

    def _whole(self, where: str, place: Sequence[float]) -> ZYX:
        if broken := [value for value in place if value != int(value)]:
            raise InputError(
                f"{where}: {broken[0]:g} is not a whole voxel; if places are in nm, add --unit nm"
            )
        z, y, x = map(int, place)
        return z, y, x

    def _in_nm(self, place: Sequence[float], volume: Placed) -> ZYX:
        if volume.voxel_size is None:
            raise UsageError(
                f"{self.path}: --unit nm needs the voxel size, and the volume has none: give --voxel-size"
            )
        origin = volume.origin or (0.0, 0.0, 0.0)
        z, y, x = (
            math.floor((value - start) / edge + 0.5)
            for value, start, edge in zip(place, origin, volume.voxel_size, strict=True)
        )
        return z, y, x


def values_at(read: Callable[[Box], NDArray[np.generic]], voxels: NDArray[np.int64]) -> NDArray[np.generic]:
    """Return the values of some voxels.

    Parameters
    ----------
    read : callable
        Returns the values of a box; one slice at most is read at a time.
    voxels : int64 (n, 3)
        z, y, x.

    Returns
    -------
    array (n,)
    """
    parts, order = [], []
    for z in np.unique(voxels[:, 0]).tolist():
        mine = np.flatnonzero(voxels[:, 0] == z)
        plane = voxels[mine, 1:]
        (y0, x0), (y1, x1) = plane.min(axis=0).tolist(), (plane.max(axis=0) + 1).tolist()
        values = read(Box((z, y0, x0), (z + 1, y1, x1)))[0]
        parts.append(values[plane[:, 0] - y0, plane[:, 1] - x0])
        order.append(mine)
    found = np.concatenate(parts)
    return found[np.argsort(np.concatenate(order))]
