"""What a volume that vemseg wrote says about itself: kept in the file, found there again.

A TIFF keeps the record as JSON, in ImageJ's ``Info`` or OME's ``Description``; an OME-Zarr keeps it in the
attribute ``vemseg`` of its group, and the names and colours of labels in ``image-label``, where viewers look
for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from vemseg.geometry import ZYX, VoxelSize

Record = dict[str, Any]
"""Plain JSON values by name."""

RGB = tuple[int, int, int]
"""Red, green, blue, 0..255."""

ORIGIN = "origin_voxels"
"""The key of a record under which the place of a cropped volume is kept."""


@dataclass(frozen=True)
class About:
    """What is written into a file beside its voxels.

    Attributes
    ----------
    voxel_size : (float, float, float) or None
        nm, z y x; None writes no physical size.
    origin : (int, int, int)
        Where the first voxel lies in the file that the volume was cropped from, in voxels, z y x.
    description : mapping
        What the voxels are and where they come from; anything JSON can hold.
    """

    voxel_size: VoxelSize | None = None
    origin: ZYX = (0, 0, 0)
    description: Mapping[str, object] = field(default_factory=dict)

    @property
    def palette(self) -> Mapping[int, RGB]:
        """The colour of each label; empty for grey values."""
        return {}

    def source(self) -> Record:
        """Return the record without the names and colours of labels."""
        place = {ORIGIN: list(self.origin)} if any(self.origin) else {}
        return {**place, **self.description}

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


def origin_of(record: Record | None) -> ZYX:
    """Return where a record says that the first voxel lies, (0, 0, 0) where it says nothing."""
    match (record or {}).get(ORIGIN):
        case [int(z), int(y), int(x)]:
            return z, y, x
    return 0, 0, 0


def evidence_of_labels(record: Record | None) -> str | None:
    """Return what a record says that makes its voxels labels, None where it says nothing."""
    known = record is not None and {"names", "colours"} <= record.keys()
    return "vemseg wrote it as labels" if known else None
