"""What the descriptions and tags of a TIFF state: its voxel size, and what vemseg wrote about it.

Descriptions are those of ImageJ and OME, and tifffile's own.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, replace

import tifffile

from vemseg.geometry import Position, VoxelSize
from vemseg.volume.about import Record, parse_record
from vemseg.volume.tiff_ome import elements, ome_root
from vemseg.volume.tiff_pages import shaped_description
from vemseg.volume.tiff_stack import Stack
from vemseg.volume.units import nanometres, voxel_size_or_none

LARGEST_PIXEL_NM = 5000.0
"""The largest edge of a voxel in nm that is believed.

Larger ones are settings for a printer (300 dpi is 84667 nm), or of another unit than the file says.
"""

_RESOLUTION_UNIT_NM = {2: 2.54e7, 3: 1e7, 4: 1e6, 5: 1e3}  # inch, cm; not in the standard: mm, µm


@dataclass(frozen=True)
class Edges:
    """What a TIFF states of the edges of its voxels, z, y, x.

    Attributes
    ----------
    nm : tuple of (float or None)
        In nm, None where that is not known.
    bare : tuple of (float or None)
        The numbers that the file gives without a unit of length.
    """

    nm: tuple[float | None, float | None, float | None]
    bare: tuple[float | None, ...] = (None, None, None)

    @property
    def believed(self) -> tuple[float | None, ...]:
        """The edges that voxels of electron microscopy may have."""
        return tuple(edge if edge is not None and 0 < edge <= LARGEST_PIXEL_NM else None for edge in self.nm)

    @property
    def voxel_size(self) -> VoxelSize | None:
        """All three edges, None unless all are known."""
        z, y, x = self.believed
        return voxel_size_or_none(z, y, x)

    @property
    def hint(self) -> str:
        """What the file does say where that is not a voxel size, with the option to paste; else empty."""
        known = dict(zip("zyx", self.believed, strict=True))
        odd = [edge for edge in self.nm if edge is not None and edge > LARGEST_PIXEL_NM]
        said = ", ".join(f"{axis} {edge:.6g} nm" for axis, edge in known.items() if edge is not None)
        if self.voxel_size is not None:
            return ""
        if said:
            option = ",".join("?" if edge is None else f"{edge:.6g}" for edge in known.values())
            return f"the file says {said}: --voxel-size {option}"
        if odd:
            return f"the file says {odd[0]:.6g} nm, which is not a voxel of electron microscopy"
        if all(number is not None and 0 < number < math.inf for number in self.bare):
            numbers = ",".join(f"{number:.6g}" for number in self.bare)
            return f"the file says {numbers} (z,y,x) without a unit: --voxel-size {numbers} if that is nm"
        return ""


def tiff_edges(file: tifffile.TiffFile, stack: Stack) -> Edges:
    """Return what a TIFF states of the edges of the voxels of a stack.

    Where the step between slices is not stated it is not known; a single plane has no step, so its in-plane
    edge stands in. Nothing is known where pages are no planes of y and x.

    Parameters
    ----------
    file : tifffile.TiffFile
    stack : Stack
        What of the file is read.
    """
    if stack.order != (0, 1, 2):
        return Edges((None, None, None))
    if stack.kind == "ome":
        return _for_one_plane(_ome(file.ome_metadata), stack)
    described: Mapping[str, object] = {}
    if stack.kind == "imagej":
        described = file.imagej_metadata or {}
    elif stack.kind == "shaped":
        described = shaped_description(file)
    edges = _counted(file.pages[0], described, trust_tag=stack.kind != "imagej")
    if not any(edges.believed[1:]) and (found := _of_microscope(file)):
        edges = replace(edges, nm=(edges.nm[0], *found))
    return _for_one_plane(edges, stack)


def _of_microscope(file: tifffile.TiffFile) -> tuple[float, float] | None:
    """Return the edges of a pixel, y, x in nm, that a microscope of FEI or Zeiss wrote."""
    scan = (file.fei_metadata or {}).get("Scan", {})
    metres = [_number(scan.get(f"Pixel{side}")) for side in ("Height", "Width")]
    match metres, (file.sem_metadata or {}).get("ap_image_pixel_size"):
        case [float(y), float(x)], _:
            return y * 1e9, x * 1e9
        case _, (_, int() | float() as edge, str(unit)) if (length := nanometres(unit)) is not None:
            return edge * length, edge * length
    return None


def place_in(file: tifffile.TiffFile, stack: Stack, edges: VoxelSize | None) -> Position | None:
    """Return where a TIFF says that the centre of its first voxel lies, in nm; None where it does not.

    ImageJ states which voxel lies at zero. OME states the position of each plane, in units that may be no
    lengths; that of the first one counts, where all three are lengths.

    Parameters
    ----------
    file : tifffile.TiffFile
    stack : Stack
        What of the file is read.
    edges : (float, float, float) or None
        The voxel size in nm.
    """
    if edges is None or stack.order != (0, 1, 2):
        return None
    if stack.kind == "ome":
        return _place_of_plane(file.ome_metadata)
    described = (file.imagej_metadata or {}) if stack.kind == "imagej" else {}
    stated = [_number(described.get(f"{axis}origin")) for axis in "zyx"]
    if all(at is None for at in stated):
        return None
    z, y, x = (-(at or 0.0) * edge for at, edge in zip(stated, edges, strict=True))
    return z, y, x


def _place_of_plane(xml: str | None) -> Position | None:
    root = ome_root(xml)
    planes = [] if root is None else list(elements(root, "Plane"))
    first = next((plane for plane in planes if int(_number(plane.get("TheZ")) or 0) == 0), None)
    if first is None:
        return None
    stated = [_number(first.get(f"Position{axis}")) for axis in "ZYX"]
    units = [nanometres(first.get(f"Position{axis}Unit")) for axis in "ZYX"]
    match [at * unit for at, unit in zip(stated, units, strict=True) if at is not None and unit is not None]:
        case [z, y, x]:
            return z, y, x
    return None


def _for_one_plane(edges: Edges, stack: Stack) -> Edges:
    z, y, x = edges.nm
    return replace(edges, nm=(y, y, x)) if z is None and stack.shape[0] == 1 else edges


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


def _counted(page: tifffile.TiffPage, described: Mapping[str, object], *, trust_tag: bool) -> Edges:
    """Return the edges from the tags that count pixels per unit, and the spacing that a description gives.

    The unit is the one of the tag, where that yields the size of a pixel and not of a print; ImageJ keeps its
    own units in its description and leaves the one of the tag alone, whatever it says. ImageJ takes the
    magnitude of a negative spacing.
    """
    spacing = _number(described.get("spacing"))
    z = None if spacing is None else abs(spacing)
    y, x = (_edge(page.tags.get(name)) for name in ("YResolution", "XResolution"))
    units = [described.get(name, described.get("unit")) for name in ("zunit", "yunit", "unit")]
    tag = page.tags.get("ResolutionUnit") if trust_tag else None
    stated = _RESOLUTION_UNIT_NM.get(int(tag.value)) if tag is not None else None
    lengths = [nanometres(unit) for unit in units]
    if stated is not None and all(edge is not None and edge * stated <= LARGEST_PIXEL_NM for edge in (y, x)):
        lengths[1:] = stated, stated
    z_nm, y_nm, x_nm = (
        None if edge is None or length is None else edge * length
        for edge, length in zip((z, y, x), lengths, strict=True)
    )
    without_unit = all(unit is None or unit == "" for unit in units)
    return Edges((z_nm, y_nm, x_nm), (z, y, x) if without_unit else (None, None, None))


def _edge(tag: tifffile.TiffTag | None) -> float | None:
    if tag is None:
        return None
    pixels, units = tag.value
    return units / pixels if pixels else None


def _ome(xml: str | None) -> Edges:
    """Return the physical size of the first image; the standard's default unit is µm."""
    pixels = _ome_element(xml, "Pixels")
    if pixels is None:
        return Edges((None, None, None))
    edges: list[float | None] = []
    for axis in "ZYX":
        number = _number(pixels.get(f"PhysicalSize{axis}"))
        unit = nanometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        edges.append(None if number is None or unit is None else abs(number) * unit)
    z, y, x = edges
    return Edges((z, y, x))


def _ome_element(xml: str | None, name: str) -> ET.Element | None:
    """Return the first element of that name in OME-XML, None where there is none or the text is damaged."""
    root = ome_root(xml)
    return None if root is None else next(elements(root, name), None)


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
