"""What the descriptions and tags of a TIFF state: its voxel size, and what vemseg wrote about it.

Descriptions are those of ImageJ and OME, and tifffile's own.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

import tifffile

from vemseg.geometry import VoxelSize
from vemseg.volume.about import Record, parse_record
from vemseg.volume.tiff_pages import Stack
from vemseg.volume.units import nanometres, voxel_size_or_none

LARGEST_PIXEL_NM = 5000.0
"""The largest edge of a pixel in nm that is believed where a TIFF states pixels per inch or cm.

Larger ones are settings for a printer: 300 dpi is 84667 nm.
"""

_RESOLUTION_UNIT_NM = {2: 2.54e7, 3: 1e7, 4: 1e6, 5: 1e3}  # inch, cm; not in the standard: mm, µm


def tiff_voxel_size(file: tifffile.TiffFile, stack: Stack) -> VoxelSize | None:
    """Return the voxel size of a stack in nm, z y x.

    A stack whose step between slices is not stated has an unknown voxel size; a single plane has no step, so
    its in-plane edge stands in.

    Parameters
    ----------
    file : tifffile.TiffFile
    stack : Stack
        What of the file is read.
    """
    single = "Z" not in stack.axes and len(stack.shape) <= 2
    if stack.kind == "ome":
        return _ome(file.ome_metadata, single)
    described: Mapping[str, object] = {}
    if stack.kind == "imagej":
        described = file.imagej_metadata or {}
    elif stack.kind == "shaped" and file.shaped_metadata:
        described = file.shaped_metadata[0]
    unit, spacing = nanometres(described.get("unit")), _number(described.get("spacing"))
    z = None if unit is None or spacing is None else spacing * unit
    y, x = _plane(stack.keyframe, unit, trust_tag=stack.kind != "imagej")
    return voxel_size_or_none(y if single and z is None else z, y, x)


def record_in(file: tifffile.TiffFile) -> Record | None:
    """Return what vemseg wrote into an open TIFF about it, None where it wrote nothing.

    Parameters
    ----------
    file : tifffile.TiffFile
    """
    if file.is_imagej:
        return parse_record((file.imagej_metadata or {}).get("Info"))
    described = _ome_element(file.ome_metadata, "Description") if file.is_ome else None
    return None if described is None else parse_record(described.text)


def _plane(
    page: tifffile.TiffPage, unit: float | None, *, trust_tag: bool
) -> tuple[float | None, float | None]:
    """Return the edges y, x of a pixel in nm, from the tags that count pixels per unit.

    The unit is the one of the tag, where that yields the size of a pixel and not of a print; ImageJ keeps its
    own unit in its description and leaves the one of the tag alone, whatever it says.
    """
    edges = [_edge(page.tags.get(name)) for name in ("YResolution", "XResolution")]
    tag = page.tags.get("ResolutionUnit") if trust_tag else None
    stated = _RESOLUTION_UNIT_NM.get(int(tag.value)) if tag is not None else None
    if stated is not None and all(edge is not None and edge * stated <= LARGEST_PIXEL_NM for edge in edges):
        unit = stated
    y, x = (None if edge is None or unit is None else edge * unit for edge in edges)
    return y, x


def _edge(tag: tifffile.TiffTag | None) -> float | None:
    if tag is None:
        return None
    pixels, units = tag.value
    return units / pixels if pixels else None


def _ome(xml: str | None, single: bool) -> VoxelSize | None:
    """Return the physical size of the first image; the standard's default unit is µm."""
    pixels = _ome_element(xml, "Pixels")
    if pixels is None:
        return None
    edges: list[float | None] = []
    for axis in "ZYX":
        number = _number(pixels.get(f"PhysicalSize{axis}"))
        unit = nanometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        edges.append(None if number is None or unit is None else number * unit)
    z, y, x = edges
    return voxel_size_or_none(y if single and z is None else z, y, x)


def _ome_element(xml: str | None, name: str) -> ET.Element | None:
    """Return the first element of that name in OME-XML, None where there is none or the text is damaged."""
    try:
        root = ET.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", xml or ""))
    except ET.ParseError:
        return None
    return next((element for element in root.iter() if element.tag.rpartition("}")[2] == name), None)


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
