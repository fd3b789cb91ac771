"""Writing TIFF stacks plane by plane: ImageJ's format where it can hold the volume, else OME-BigTIFF.

ImageJ's is uncompressed and contiguous, so that Fiji opens it as a virtual stack and others map it; it
carries voxel size, colour table and description. It ends at 4 GB and knows uint8, uint16 and float32 only;
beyond that OME-BigTIFF, zlib-compressed, is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from vemseg.geometry import Box, VoxelSize
from vemseg.volume.base import Volume

IMAGEJ_BYTES = 2**32 - 2**25
"""Most bytes of voxels in an ImageJ TIFF: 4 GB, less room for metadata."""

SLAB_BYTES = 256 * 2**20
"""Most bytes of planes that are held at once."""

SLAB_DEPTH = 64
"""Planes read at once, if they fit: the depth of most chunks."""

Colours = Mapping[int, tuple[int, int, int]]


def write_tiff(
    volume: Volume,
    path: Path,
    *,
    voxel_size: VoxelSize | None,
    colours: Colours | None = None,
    description: Mapping[str, Any] | None = None,
) -> None:
    """Write a volume as one TIFF file.

    Parameters
    ----------
    voxel_size : (float, float, float) or None
        nm, z y x; None writes no physical size.
    colours : mapping of int to (int, int, int), optional
        RGB 0..255 of each label; written as a colour table where labels are below 256.
    description : mapping, optional
        Anything JSON can hold: kept in ImageJ's ``Info`` or OME's ``Description``.
    """
    dtype = volume.dtype
    as_imagej = (
        dtype in (np.uint8, np.uint16, np.float32)
        and math.prod(volume.shape) * dtype.itemsize <= IMAGEJ_BYTES
    )
    table = _colour_table(colours) if colours and dtype in (np.uint8, np.uint16) else None
    options: dict[str, Any] = {"shape": volume.shape, "dtype": dtype, "photometric": "minisblack"}
    if table is not None and dtype == np.uint8:
        options |= {"photometric": "palette", "colormap": table.astype(np.uint16) * 257}
    if as_imagej:
        options["metadata"] = _imagej_metadata(voxel_size, description)
        if table is not None and dtype == np.uint16:
            options["metadata"] |= {"LUTs": [table], "Ranges": (0.0, 255.0)}
        if voxel_size is not None:
            options |= {"resolution": (1 / voxel_size[2], 1 / voxel_size[1]), "resolutionunit": 1}
    else:
        options["metadata"] = _ome_metadata(voxel_size, description)
        options["compression"] = "zlib"
    with tifffile.TiffWriter(path, imagej=as_imagej, ome=not as_imagej, bigtiff=not as_imagej) as file:
        file.write(_planes(volume), **options)


def _planes(volume: Volume) -> Iterator[NDArray[np.generic]]:
    """Yield planes (y, x) in order of z, reading slabs of bounded size."""
    _, ny, nx = volume.shape
    depth = max(1, min(SLAB_DEPTH, SLAB_BYTES // (ny * nx * volume.dtype.itemsize)))
    for slab in Box.whole(volume.shape).split((depth, ny, nx)):
        yield from volume.read(slab)


def _imagej_metadata(voxel_size: VoxelSize | None, description: Mapping[str, Any] | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "ZYX"}
    if voxel_size is not None:
        metadata |= {"spacing": voxel_size[0], "unit": "nm"}
    if description:
        metadata["Info"] = json.dumps(description)
    return metadata


def _ome_metadata(voxel_size: VoxelSize | None, description: Mapping[str, Any] | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "ZYX"}
    if voxel_size is not None:
        for axis, edge in zip("ZYX", voxel_size, strict=True):
            metadata |= {f"PhysicalSize{axis}": edge, f"PhysicalSize{axis}Unit": "nm"}
    if description:
        metadata["Description"] = json.dumps(description)
    return metadata


def _colour_table(colours: Colours) -> NDArray[np.uint8]:
    """Return the colours of labels 0..255, uint8 (3, 256); labels without one are grey, 0 is black."""
    table = np.full((3, 256), 128, np.uint8)
    table[:, 0] = 0
    for label, rgb in colours.items():
        if 0 <= label < 256:
            table[:, label] = rgb
    return table
