"""What a volume that vemseg wrote says about itself: kept in the file, found there again.

A TIFF keeps the record as JSON, in ImageJ's ``Info`` or OME's ``Description``; an OME-Zarr keeps it in the
attribute ``vemseg`` of its group, and the names and colours of labels in ``image-label``, where viewers look
for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from vemseg.geometry import ZYX, Position, VoxelSize, moved

Record = dict[str, Any]
"""Plain JSON values by name."""

RGB = tuple[int, int, int]
"""Red, green, blue, 0..255."""

START = "origin_voxels"
"""The key of a record under which it is kept which voxel of a file is the first one of a cropped volume."""

LEGEND = ("names", "colours", "suggestions")
"""The keys of a record that say what labels are called and how they look."""

ORIGIN = "origin_nm"
"""The key of a record under which the place of the first voxel in space is kept, in nm."""


@dataclass(frozen=True)
class About:
    """What is written into a file beside its voxels.

    Attributes
    ----------
    voxel_size : (float, float, float) or None
        nm, z y x; None writes no physical size.
    origin : (float, float, float) or None
        Where the centre of the first voxel lies in space, in nm, z y x; None where nothing states it.
    start : (int, int, int)
        Which voxel of the file that the volume was cropped from is its first one, z y x.
    description : mapping
        What the voxels are and where they come from; anything JSON can hold.
    channels : tuple of str
        The names of the channels; empty where there is no axis of them.
    span : (float, float)
        The least and the greatest value that viewers should show of channels.
    """

    voxel_size: VoxelSize | None = None
    origin: Position | None = None
    start: ZYX = (0, 0, 0)
    description: Mapping[str, object] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    span: tuple[float, float] = (0.0, 1.0)

    @property
    def palette(self) -> Mapping[int, RGB]:
        """The colour of each label; empty for grey values."""
        return {}

    @property
    def position(self) -> Position:
        """Where the centre of the first voxel lies: in nm, or in voxels where their size is unknown."""
        counted = moved(None, self.start, self.voxel_size or (1.0, 1.0, 1.0)) or (0.0, 0.0, 0.0)
        return counted if self.voxel_size is None or self.origin is None else self.origin

    def source(self) -> Record:
        """Return the record without the names and colours of labels."""
        place: Record = {START: list(self.start)} if any(self.start) else {}
        if self.position != replace(self, origin=None).position:
            place[ORIGIN] = list(self.position)
        named = {"channels": list(self.channels)} if self.channels else {}
        return {**place, **named, **self.description}

    def record(self) -> Record:
        """Return the whole record."""
        return self.source()


@dataclass(frozen=True)
class LabelInfo(About):
    """What is written into a file of labels beside its voxels.

    Attributes
    ----------
    names : mapping of int to str
        The name of each label.
    colours : mapping of int to (int, int, int)
        The colour of each label, RGB 0..255.
    suggestions : mapping of int to str
        What a label may be, in words; empty where nothing suggests that.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, RGB] = field(default_factory=dict)
    suggestions: Mapping[int, str] = field(default_factory=dict)

    @property
    def palette(self) -> Mapping[int, RGB]:
        """The colour of each label."""
        return self.colours

    def record(self) -> Record:
        """Return the whole record."""
        return {**legend(self.names, self.colours, self.suggestions), **self.source()}


def legend(
    names: Mapping[int, str],
    colours: Mapping[int, Sequence[int]],
    suggestions: Mapping[int, str] = MappingProxyType({}),
) -> Record:
    """Return the names and colours of labels, and suggestions where there are any, as a record keeps them."""
    suggested = {"suggestions": {str(label): text for label, text in suggestions.items()}}
    return {
        "names": {str(label): name for label, name in names.items()},
        "colours": {str(label): list(rgb) for label, rgb in colours.items()},
        **(suggested if suggestions else {}),
    }


def parse_record(text: object) -> Record | None:
    """Return the record in a description found in a TIFF, None where it is somebody else's text."""
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def start_of(record: Record | None) -> ZYX:
    """Return which voxel of a larger file a record says is the first one, (0, 0, 0) where it says nothing."""
    match (record or {}).get(START):
        case [int(z), int(y), int(x)]:
            return z, y, x
    return 0, 0, 0


def origin_of(record: Record | None, voxel_size: VoxelSize | None) -> Position | None:
    """Return where a record says that the first voxel lies, in nm; None where it says nothing."""
    match (record or {}).get(ORIGIN):
        case [int() | float() as z, int() | float() as y, int() | float() as x] if voxel_size is not None:
            return float(z), float(y), float(x)
    return moved(None, start_of(record), voxel_size)


def names_in(record: Record | None) -> dict[int, str]:
    """Return the names of labels in a record; what is not the name of a label is left out."""
    return {k: name for k, name in _by_label(record, "names") if isinstance(name, str)}


def suggestions_in(record: Record | None) -> dict[int, str]:
    """Return what each label may be, in words, as a record suggests; what is no suggestion is left out."""
    return {k: text for k, text in _by_label(record, "suggestions") if isinstance(text, str)}


def captions(names: Mapping[int, str], suggestions: Mapping[int, str]) -> dict[int, str]:
    """Return what pictures call each label: its name, with the suggestion where nobody named it."""
    return {
        k: f"{name}: {suggestions[k]}" if name == f"class {k}" and k in suggestions else name
        for k, name in names.items()
    }


def channels_in(record: Record | None) -> tuple[str, ...]:
    """Return the names of channels in a record, empty where it has none."""
    found = (record or {}).get("channels")
    return tuple(map(str, found)) if isinstance(found, list) else ()


def colours_in(record: Record | None) -> dict[int, RGB]:
    """Return the colours of labels in a record; what is not the colour of a label is left out."""
    found = {}
    for k, rgb in _by_label(record, "colours"):
        match rgb:
            case [int(red), int(green), int(blue)] if all(0 <= part <= 255 for part in rgb):
                found[k] = (red, green, blue)
    return found


def _by_label(record: Record | None, key: str) -> list[tuple[int, object]]:
    entries = (record or {}).get(key)
    known = entries.items() if isinstance(entries, Mapping) else ()
    return [(int(k), entry) for k, entry in known if re.fullmatch("[0-9]{1,9}", str(k))]


def evidence_of_labels(record: Record | None) -> str | None:
    """Return what a record says that makes its voxels labels, None where it says nothing."""
    known = record is not None and {"names", "colours"} <= record.keys()
    return "vemseg wrote it as labels" if known else None
