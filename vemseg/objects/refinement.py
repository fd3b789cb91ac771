"""What is to be done to finished labels, and what becomes of each class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from vemseg.context import Context
from vemseg.errors import InputError, UsageError
from vemseg.geometry import VoxelSize, is_anisotropic
from vemseg.objects.blockwise import MOST_CLASS, Blocks, block_shape, borders, read_classes
from vemseg.objects.majority import voters_of
from vemseg.volume import Record, Volume
from vemseg.volume.about import RGB, colours_in, names_in

MOST_COLOURS, GREY = 255, (128, 128, 128)
"""How many classes have colours of their own, and the colour of the others."""


@dataclass(frozen=True)
class Least:
    """The smallest object that stays.

    Attributes
    ----------
    value : float
    cubic_um : bool
        Whether the value is a volume in µm³; else it counts voxels.
    """

    value: float
    cubic_um: bool = False

    def voxels(self, voxel_size: VoxelSize | None) -> int:
        """Return the voxels that an object must have, rounded up.

        Raises
        ------
        UsageError
            Where a volume in µm³ is given and the voxel size (nm, z y x) is not known.
        """
        if self.cubic_um and voxel_size is None:
            raise UsageError(
                f"--min-size {self.value:g}um3: the labels have no voxel size; give it with --voxel-size, or "
                "count voxels, such as --min-size 500"
            )
        voxel = math.prod(voxel_size) / 1e9 if self.cubic_um and voxel_size else 1.0
        return math.ceil(round(self.value / voxel, 6))


@dataclass(frozen=True)
class Class:
    """A class of refined labels: its number, name and colour, and the classes it was made of."""

    label: int
    name: str
    colour: RGB
    made_of: tuple[int, ...]


@dataclass(frozen=True)
class Refinement:
    """What is to be done to labels, in this order; all numbers of classes are those that the labels have.

    Attributes
    ----------
    merges : sequence of (classes, name)
        Classes that become one, and the name of the merged class; None where it keeps one of theirs.
    numbers : mapping of int to int
        Class -> its new number, 0 for nothing. Where it is empty and classes are merged, a merged class
        stands where its smallest number stood, and numbers close up.
    names : mapping of int to str
        Names of classes.
    smooth : int
        Rounds of the majority of the voxels around each (see ``majority``).
    fill : bool
        Whether holes are filled (see ``absorbing``).
    least : Least, optional
        Smaller objects go to their neighbours.
    points : mapping, optional
        What merges and names were taken from, where that is points (see ``naming``); plain JSON types.
    colours : mapping of int to (int, int, int)
        Colours of classes; others keep theirs.
    """

    merges: Sequence[tuple[tuple[int, ...], str | None]] = ()
    numbers: Mapping[int, int] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    smooth: int = 0
    fill: bool = False
    least: Least | None = None
    points: Mapping[str, object] | None = None
    colours: Mapping[int, RGB] = field(default_factory=dict)

    @property
    def moves_voxels(self) -> bool:
        """Whether it changes more than names."""
        return bool(self.merges or self.numbers or self.smooth or self.fill or self.least)

    def state(self) -> dict[str, object]:
        """Return all of it as plain JSON types."""
        return {
            "merges": [{"classes": list(members), "name": name} for members, name in self.merges],
            "numbers": {str(k): v for k, v in self.numbers.items()},
            "names": {str(k): v for k, v in self.names.items()},
            "smooth": self.smooth,
            "fill_holes": self.fill,
            "min_size": None if self.least is None else asdict(self.least),
            **({} if self.points is None else {"points": dict(self.points)}),
            **({"colours": {str(k): list(v) for k, v in self.colours.items()}} if self.colours else {}),
        }

    def manner(self, labels: Volume) -> dict[str, object]:
        """Return what tells results of these labels from those of earlier versions, for their state."""
        size = labels.voxel_size
        manner: dict[str, object] = borders(labels) if self.fill else {}
        if self.smooth and is_anisotropic(size):
            manner["voters"] = list(voters_of(size))
        if self.least and size and len(set(size)) > 1:
            manner["specks"] = "by area"
        return manner

    def classes(self, known: Sequence[int], record: Record | None) -> list[Class]:
        """Return the classes that come out, by number.

        Parameters
        ----------
        known : sequence of int
            The classes of the labels.
        record : dict or None
            What the labels say of themselves: names and colours.

        Raises
        ------
        InputError
            Where there is no such class.
        UsageError
            Where a class is merged twice, or merged and given a number.
        """
        self._check(known)
        old, colours = names_in(record), colours_in(record) | dict(self.colours)
        found = []
        for label, members, name in self._groups(known):
            first = sorted(members, key=lambda k: (k != label, k))
            given = [self.names[k] for k in first if k in self.names]
            kept = [old[k] for k in first if old.get(k, f"class {k}") != f"class {k}"]
            colour = next((colours[k] for k in first if k in colours), None) or _colour(label)
            called = [*filter(None, [name]), *given, *kept, f"class {label}"][0]
            found.append(Class(label, called, colour, members))
        return found

    def _check(self, known: Sequence[int]) -> None:
        merged = [k for members, _ in self.merges for k in members]
        legend = [*self.names, *self.colours]
        for option, named in (("--merge", merged), ("--map", self.numbers), ("--names", legend)):
            if unknown := sorted(set(named) - {*known, 0}):
                raise InputError(
                    f"{option}: there is no class {unknown[0]}; the labels have {_listed(known)}"
                )
        twice = sorted(k for k in set(merged) if merged.count(k) > 1 or k in self.numbers)
        if twice:
            raise UsageError(f"class {twice[0]} is merged or renumbered twice: name it once")
        if wrong := sorted(n for n in self.numbers.values() if not 0 <= n <= MOST_CLASS):
            raise UsageError(f"--map: {wrong[0]} is not the number of a class: 0 (nothing) to {MOST_CLASS}")
        if 0 in merged:
            raise UsageError("--merge: 0 is nothing; --map 3=0 makes class 3 nothing")

    def _groups(self, known: Sequence[int]) -> list[tuple[int, tuple[int, ...], str | None]]:
        """Return number, members and given name of each class that comes out."""
        joined = {k: (min(members), name) for members, name in self.merges for k in members}
        target = {k: self.numbers.get(k, joined.get(k, (k, None))[0]) for k in (*known, 0)}
        if not target.pop(0):
            target = {k: n for k, n in target.items() if n}
        else:
            target[0] = self.numbers[0]
        if self.merges and not self.numbers:
            close = {n: i for i, n in enumerate(sorted(set(target.values())), start=1)}
            target = {k: close[n] for k, n in target.items()}
        groups = {
            n: tuple(sorted(k for k in target if target[k] == n)) for n in sorted({*target.values()} - {0})
        }
        named = {target[members[0]]: name for members, name in self.merges if members[0] in target}
        return [(n, members, named.get(n)) for n, members in groups.items()]


def known_classes(labels: Volume, record: Record | None, context: Context) -> list[int]:
    """Return the classes of labels: those that their file names, or else those that are found in them."""
    if told := names_in(record):
        return sorted(told)
    found: set[int] = set()
    boxes = Blocks(labels.box, block_shape(context.limit)).boxes
    for i, box in enumerate(boxes):
        found.update(np.flatnonzero(np.bincount(read_classes(labels, box).reshape(-1))).tolist())
        context.report("looking for classes", (i + 1) / len(boxes))
    return sorted(found - {0})


def tabulated(
    classes: Sequence[Class], counts: NDArray[np.int64], voxel_size: VoxelSize | None
) -> list[dict[str, object]]:
    """Return a row for each class: its number, name, voxels, share of all, volume, and what it was made of.

    Parameters
    ----------
    classes : sequence of Class
    counts : int64
        The voxels of each number.
    voxel_size : (float, float, float) or None
        nm, z y x.
    """
    voxel = None if voxel_size is None else math.prod(voxel_size) / 1e9
    return [
        {
            "label": one.label,
            "name": one.name,
            "voxels": int(counts[one.label]),
            "fraction": round(float(counts[one.label] / counts.sum()), 6),
            "volume_um3": None if voxel is None else round(float(counts[one.label] * voxel), 6),
            "made_of": " ".join(map(str, one.made_of)),
        }
        for one in classes
    ]


def renamed(record: Record, classes: Sequence[Class]) -> list[dict[str, object]]:
    """Return the table of classes in a record with other names; rows that describe no class are left out."""
    table = record.get("classes")
    rows = [row for row in table if isinstance(row, Mapping)] if isinstance(table, list) else []
    names = {one.label: one.name for one in classes}
    return [{**row, "name": names[k]} for row in rows if (k := row.get("label")) in names]  # type: ignore[index]


class Shown(TypedDict):
    """What viewers show of classes, by number."""

    names: dict[int, str]
    colours: dict[int, RGB]


def shown(classes: Sequence[Class]) -> Shown:
    """Return names and colours of classes, as ``LabelInfo`` and ``rename_labels`` take them."""
    return {"names": {c.label: c.name for c in classes}, "colours": {c.label: c.colour for c in classes}}


def _colour(label: int) -> RGB:
    from vemseg.drawing import palette  # it imports matplotlib, and most labels have colours

    return palette(label)[label - 1] if label <= MOST_COLOURS else GREY


def _listed(known: Sequence[int]) -> str:
    shown = ", ".join(map(str, known[:24])) or "none"
    return shown + (f" and {len(known) - 24} more" if len(known) > 24 else "")
