"""How voxel sizes and places are stated outside NGFF: a small table of the conventions of this field.

Each convention is a function that looks at the attributes of an array or group and returns a ``Frame``, or
None where its attributes are not there. They serve Zarr, N5 and HDF5 alike; those that count axes from x (N5,
BigDataViewer, ImageJ) say so themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vemseg.volume.frame import Frame, axis_name, numbers, size_hint
from vemseg.volume.units import nanometres

Attributes = Mapping[str, Any]
"""The attributes of a group or an array: plain JSON values by name."""

ZYX_NAMES = ("z", "y", "x")
DIMENSION_NAMES = "dimension_names"
"""Where Zarr format 3 keeps the names of axes, beside the attributes of an array."""

_SIZE_WORDS = re.compile(
    r"resolution|voxel|pixel|spacing|element.?size|sampling|^transform\.scale$", re.IGNORECASE
)
_SIZE_KEYS = ("resolution", "voxel_size", "voxelsize")

LEAST_NM = 0.05
"""The least edge of a voxel in nm that is believed of electron microscopy."""


def frame_in(attributes: Attributes, n: int) -> Frame | None:
    """Return what the attributes of an array of ``n`` axes say of its voxel size and place.

    Returns
    -------
    Frame or None
        None where no known convention is followed.
    """
    found = (convention(attributes, n) for convention in CONVENTIONS)
    return next((frame for frame in found if frame is not None), None)


def of_level(group: Attributes, array: Attributes, name: str) -> Attributes:
    """Return the attributes of an array in a group, as the group states them for a level of a pyramid.

    Parameters
    ----------
    group, array : mapping
        Their attributes.
    name : str
        Of the array in the group; ``s0``, ``s1`` ... are the levels of a pyramid, the finest first.

    Returns
    -------
    mapping
        With ``downsamplingFactors`` where the level has any; empty for a level of unknown coarseness.
    """
    found = re.fullmatch(r"s(\d+)", name.rpartition("/")[2])
    level = int(found[1]) if found else 0
    scales = _listed(group.get("scales", group.get("downsamplingFactors")))
    factors = array.get("downsamplingFactors")
    if factors is None and isinstance(scales, list) and level < len(scales):
        factors = scales[level] if isinstance(scales[level], list) else None
    if not level or factors is not None:
        size = ("pixelResolution", "pixelResolutionUnit", "unit", "units")
        kept = group if not level else {key: group[key] for key in size if key in group}
        return {**kept, "downsamplingFactors": factors}
    return {}


def unknown_size_in(attributes: Attributes) -> str | None:
    """Return three numbers that look like a voxel size, though their meaning is not known; else None.

    Returns
    -------
    str or None
        What was found, and the option that would take it as nm.
    """
    nested = [
        (f"{outer}.{key}", value)
        for outer, inner in attributes.items()
        if isinstance(inner, Mapping)
        for key, value in inner.items()
    ]
    for key, value in (*attributes.items(), *nested):
        found = numbers(_listed(value))
        if _SIZE_WORDS.search(key) and len(found) == 3 and all(number > 0 for number in found):
            return size_hint(found, "in this order", f"under '{key}', which vemseg cannot interpret")
    return None


def named_axes(attributes: Attributes) -> tuple[str, ...]:
    """Return the names of an array's axes where its attributes hold nothing but names; else ()."""
    for key in (
        DIMENSION_NAMES,
        "_ARRAY_DIMENSIONS",
        "axis_names",
        "axes",
        "DIMENSION_LABELS",
        "dimension_labels",
    ):
        names = _listed(attributes.get(key))
        if isinstance(names, list) and names and all(isinstance(name, str) and name for name in names):
            return tuple(axis_name(name) for name in names)
    return ()


def _cosem(attributes: Attributes, n: int) -> Frame | None:
    """``transform`` of COSEM and OpenOrganelle: axes, scale, translate and units, in the array's order."""
    described = attributes.get("transform")
    if not isinstance(described, Mapping):
        return None
    scale = numbers(described.get("scale"))
    shift = numbers(described.get("translate", described.get("translation")))
    axes, units = described.get("axes"), described.get("units", described.get("unit"))
    if not scale or not isinstance(axes, list):
        return None
    names = tuple(axis_name(name) for name in axes)
    units = [units] * len(names) if isinstance(units, str) else units
    spelt = [str(unit) for unit in units] if isinstance(units, list) else []
    order = str(described.get("order", "C")).upper()
    frame = Frame(names, tuple(spelt), scale, shift or None)
    return _reversed(frame) if order == "F" else frame


def _vigra(attributes: Attributes, n: int) -> Frame | None:
    """``axistags`` of vigra, which ilastik writes: JSON with a key and a resolution for each axis.

    The resolutions are lengths where ``axis_units``, JSON of a unit for each key, stands beside them.
    """
    described = attributes.get("axistags")
    try:
        tags = json.loads(described)["axes"] if isinstance(described, str) else None
        names = tuple(axis_name(tag["key"]) for tag in tags or ())
    except (ValueError, KeyError, TypeError):
        return None
    if len(names) != n:
        return None
    size = frame_in({key: value for key, value in attributes.items() if key != "axistags"}, n)
    return (
        _sized_tags(attributes, tags or (), names)
        if size is None
        else replace(size.along(names), ordered=True)
    )


def _sized_tags(attributes: Attributes, tags: Sequence[Any], names: tuple[str, ...]) -> Frame:
    """Return what tags of vigra say of their axes: sizes too, where it is said what they count in."""
    try:
        units = json.loads(attributes["axis_units"])
        spelt = tuple(str(units.get(tag["key"]) or "") or None for tag in tags)
        scale = numbers([tag.get("resolution") or 1.0 for tag in tags])
    except (ValueError, KeyError, TypeError, AttributeError):
        return Frame(names)
    return Frame(names, spelt, scale) if len(scale) == len(names) else Frame(names)


def _element_size(attributes: Attributes, n: int) -> Frame | None:
    """``element_size_um`` of Fiji's HDF5 plug-in and of PlantSeg: z, y, x in µm."""
    edges = numbers(_listed(attributes.get("element_size_um")))
    return Frame(ZYX_NAMES, ("um",) * 3, edges, ordered=False) if len(edges) == 3 else None


def _pixel_resolution(attributes: Attributes, n: int) -> Frame | None:
    """``pixelResolution`` of N5: x, y, z with a unit; ``downsamplingFactors`` make it coarser."""
    described = attributes.get("pixelResolution")
    spelt = described.get("unit") if isinstance(described, Mapping) else None
    values = described.get("dimensions") if isinstance(described, Mapping) else described
    edges = numbers(_listed(values))
    unit = spelt or attributes.get("pixelResolutionUnit") or attributes.get("unit") or attributes.get("units")
    if len(edges) < 3 or (isinstance(unit, list) and len(set(map(str, unit))) != 1):
        return None
    unit = unit[0] if isinstance(unit, list) else unit
    factors = numbers(_listed(attributes.get("downsamplingFactors"))) or (1.0,) * len(edges)
    if len(factors) < 3:
        return None
    fine = edges[:3]
    scale = tuple(edge * factor for edge, factor in zip(fine, factors, strict=False))
    shift = tuple(edge * (factor - 1) / 2 for edge, factor in zip(fine, factors, strict=False))
    units = (None if unit is None else str(unit),) * 3
    return _reversed(Frame(("x", "y", "z"), units, scale, shift, ordered=False))


def _image_plus(attributes: Attributes, n: int) -> Frame | None:
    """``pixelWidth``, ``pixelHeight``, ``pixelDepth``, ``pixelUnit`` of ImageJ's N5 plug-in."""
    keys = ("pixelDepth", "pixelHeight", "pixelWidth")
    edges = numbers([attributes.get(key) for key in keys])
    unit = attributes.get("pixelUnit")
    return Frame(ZYX_NAMES, (str(unit),) * 3, edges, ordered=False) if edges and unit else None


def _resolution(attributes: Attributes, n: int) -> Frame | None:
    """``resolution`` or ``voxel_size``, and ``offset``, of CREMI and funlib, in nm unless stated.

    The numbers run along z, y and x in the order in which the array has these: z, y, x where its attributes
    do not name them. Numbers without a unit that would be no voxels in nm are not believed. ``offset`` is the
    place of a corner there. It is taken as that of the first voxel's centre: volumes whose offset is zero
    then agree with NGFF's that state no place.
    """
    key = next((key for key in _SIZE_KEYS if key in attributes), None)
    stated = None if key is None else _listed(attributes[key])
    units = attributes.get("units", attributes.get("unit"))
    names = _zyx_in(named_axes(attributes))
    if isinstance(stated, Mapping):
        stated = [stated.get(axis) for axis in names]
    edges = numbers(stated)
    spelt = [str(unit) for unit in units] if isinstance(units, list) else [str(units or "nm")] * 3
    if len(edges) != 3 or nanometres(spelt[0] if spelt else None) is None:
        return None
    if units is None and min(edges) < LEAST_NM:
        return None
    offset = numbers(_listed(attributes.get("offset")))
    return Frame(names, tuple(spelt[-3:]), edges, offset if len(offset) == 3 else None, ordered=False)


def _zyx_in(names: Sequence[str]) -> tuple[str, ...]:
    """Return z, y and x in the order in which axes are named; z, y, x unless all three are."""
    found = tuple(name for name in names if name in ZYX_NAMES)
    return found if sorted(found) == sorted(ZYX_NAMES) else ZYX_NAMES


CONVENTIONS: tuple[Callable[[Attributes, int], Frame | None], ...] = (
    _cosem,
    _vigra,
    _element_size,
    _pixel_resolution,
    _image_plus,
    _resolution,
)
"""The conventions that are known; the first that is followed counts."""


def _reversed(frame: Frame) -> Frame:
    """Return a frame with its axes in the opposite order, z before x."""
    return frame.along(frame.axes[::-1])


def _listed(value: object) -> object:
    """Return an array of HDF5 or numpy as a list; anything else as it is."""
    to_list = getattr(value, "tolist", None)
    return to_list() if callable(to_list) else value
