"""Writing TIFF stacks plane by plane: ImageJ's format where it can hold the volume, else OME-BigTIFF.

ImageJ's is uncompressed and contiguous, so that Fiji opens it as a virtual stack and others map it; it
carries voxel size, colour table and description. It ends at 4 GB and knows uint8, uint16 and float32 only;
beyond that OME-BigTIFF, zlib-compressed, is written.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from vemseg.geometry import Box, VoxelSize
from vemseg.volume.about import RGB, About
from vemseg.volume.base import Volume

IMAGEJ_BYTES = 2**32 - 2**25
"""The most bytes of voxels that go into an ImageJ TIFF: 4 GB, less room for metadata."""

SLAB_BYTES = 256 * 2**20
"""The most bytes of planes that are in memory while a TIFF is written."""

SLAB_DEPTH = 64
"""How many planes are read at once for a TIFF if they fit into memory; most chunks are as deep."""


def write_tiff(volume: Volume, path: Path, about: About) -> None:
    """Write a volume as one TIFF file.

    Parameters
    ----------
    volume : Volume
    path : Path
    about : About
        Its record goes into ImageJ's ``Info`` or OME's ``Description``. Colours of labels become a colour
        table where labels are of one or two bytes (those from 256 on have none). The place of the first
        voxel is also the position of each plane in OME, and ImageJ's origin. Channels, where it names
        any, vary fastest from plane to plane. float16 becomes float32, since neither ImageJ nor OME knows it.
    """
    dtype = np.dtype(np.float32) if volume.dtype == np.float16 else volume.dtype
    shape = (volume.shape[0], *([len(volume.channels)] if about.channels else []), *volume.shape[1:])
    as_imagej = (
        dtype in (np.uint8, np.uint16, np.float32) and math.prod(shape) * dtype.itemsize <= IMAGEJ_BYTES
    )
    table = colour_table(about.palette) if about.palette and dtype in (np.uint8, np.uint16) else None
    options: dict[str, Any] = {"shape": shape, "dtype": dtype, "photometric": "minisblack"}
    if table is not None and dtype == np.uint8:
        options |= {"photometric": "palette", "colormap": table_of_words(table)}
    if as_imagej:
        options["metadata"] = _imagej_metadata(about)
        if table is not None and dtype == np.uint16:
            options["metadata"] |= {"LUTs": [table], "Ranges": (0.0, 255.0)}
        if about.voxel_size is not None:
            _, y, x = about.voxel_size
            options |= {"resolution": (1 / x, 1 / y), "resolutionunit": 1}
    else:
        options["metadata"] = _ome_metadata(about, volume.shape[0])
        options["compression"] = "zlib"
    with tifffile.TiffWriter(path, imagej=as_imagej, ome=not as_imagej, bigtiff=not as_imagej) as file:
        file.write(_planes(volume, dtype), **options)


def _planes(volume: Volume, dtype: np.dtype[np.generic]) -> Iterator[NDArray[np.generic]]:
    """Yield planes (y, x) in order of z, and of channels at each z, reading slabs of bounded size."""
    _, ny, nx = volume.shape
    depth = max(1, min(SLAB_DEPTH, SLAB_BYTES // (ny * nx * dtype.itemsize * len(volume.channels))))
    for slab in Box.whole(volume.shape).split((depth, ny, nx)):
        parts = [channel.read(slab).astype(dtype, copy=False) for channel in volume.channels]
        for planes in zip(*parts, strict=True):
            yield from planes


def _axes(about: About) -> str:
    return "ZCYX" if about.channels else "ZYX"


def _imagej_metadata(about: About) -> dict[str, object]:
    metadata: dict[str, object] = {"axes": _axes(about)}
    if about.voxel_size is not None:
        metadata |= {"spacing": about.voxel_size[0], "unit": "nm"} | _imagej_origin(about, about.voxel_size)
    if record := about.record():
        metadata["Info"] = json.dumps(record)
    return metadata


def _imagej_origin(about: About, edges: VoxelSize) -> dict[str, float]:
    """Return which voxel lies at zero, as ImageJ states a place; nothing where that is the first voxel."""
    if not any(about.position):
        return {}
    voxels = [-at / edge for at, edge in zip(about.position, edges, strict=True)]
    return dict(zip(("zorigin", "yorigin", "xorigin"), voxels, strict=True))


def _ome_metadata(about: About, planes: int) -> dict[str, object]:
    metadata: dict[str, object] = {"axes": _axes(about)}
    if about.channels:
        metadata["Channel"] = {"Name": list(about.channels)}
    if about.voxel_size is not None:
        for axis, edge in zip("ZYX", about.voxel_size, strict=True):
            metadata |= {f"PhysicalSize{axis}": edge, f"PhysicalSize{axis}Unit": "nm"}
    if any(about.position):
        metadata["Plane"] = _positions(about, planes)
    if record := about.record():
        metadata["Description"] = json.dumps(record)
    # tifffile takes one from the clock: the same volume shall be the same file
    metadata["UUID"] = str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(metadata)))
    return metadata


def _positions(about: About, planes: int) -> dict[str, list[float] | list[str]]:
    """Return where each plane lies: in nm, or else in pixels of the file that it was cropped from."""
    unit = "pixel" if about.voxel_size is None else "nm"
    edges = about.voxel_size or (1.0, 1.0, 1.0)
    z, y, x = about.position
    each = len(about.channels) or 1
    depths = [z + i * edges[0] for i in range(planes) for _ in range(each)]
    planes *= each
    places = {"Z": depths, "Y": [y] * planes, "X": [x] * planes}
    positions: dict[str, list[float] | list[str]] = {}
    for axis, values in places.items():
        positions |= {f"Position{axis}": values, f"Position{axis}Unit": [unit] * planes}
    return positions


def table_of_words(table: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return a colour table as TIFF's ``ColorMap`` holds it: 0..65535, of the same shape."""
    return table.astype(np.uint16) * np.uint16(257)


def colour_table(colours: Mapping[int, RGB]) -> NDArray[np.uint8]:
    """Return the colours of labels 0..255, uint8 (3, 256); labels without one are grey, 0 is black."""
    table = np.full((3, 256), 128, np.uint8)
    table[:, 0] = 0
    for label, rgb in colours.items():
        if 0 <= label < 256:
            table[:, label] = rgb
    return table
