"""Writing neuroglancer's precomputed format: a folder of ``info``, chunks, and the names of segments.

Labels become a segmentation, in which viewers show each label in a colour of its own; everything else is an
image. Axes are x, y, x there and lengths nm; a place is counted in whole voxels.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from vemseg.errors import InputError
from vemseg.files import remove, write_text
from vemseg.geometry import ZYX, VoxelSize
from vemseg.volume.about import Record
from vemseg.volume.content import Content
from vemseg.volume.optional import needed
from vemseg.volume.places import Indexed, Place
from vemseg.volume.precomputed import RECORD
from vemseg.volume.pyramid import Level, level_factors, write_levels
from vemseg.volume.store import CHUNK_EDGE

_log = logging.getLogger("vemseg")

PROPERTIES = "properties"
"""The folder of the names of segments."""


def write_precomputed(content: Content, target: Path) -> None:
    """Write a precomputed volume with its coarser scales; what lies at ``target`` is replaced.

    Labels of up to 32 bits become uint32, the smallest type that the format compresses as a segmentation;
    float16 becomes float32, which is the only type of fractions that it knows. Where the place of the volume
    is not a whole number of voxels, it is rounded and a warning says so; scales at which it would be none are
    left out.

    Parameters
    ----------
    content : Content
    target : Path
        The folder.
    """
    tensorstore = needed("tensorstore", target)
    volume, about = content.volume, content.about
    size = about.voxel_size or (1.0, 1.0, 1.0)
    corner = _corner(about.position, size, target)
    found = level_factors(volume.shape, about.voxel_size)
    factors = [each for each in found if not any(at % f for at, f in zip(corner, each, strict=True))]
    remove(target)
    target.mkdir(parents=True)

    def make(number: int, shape: ZYX) -> Level:
        metadata = _metadata(content)
        scale = _scale(content, factors[number], shape, size, corner)
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": Place("", str(target.absolute())).kvstore(),
            "multiscale_metadata": metadata,
            "scale_metadata": scale,
            "create": True,
            "open": number > 0,
        }
        return Level(Indexed(tensorstore.open(spec).result(), turned=True))

    finest = make(0, volume.shape)
    finest.fill(volume.channels)
    write_levels(finest.channels, factors, make, content.reduce)
    write_text(target / RECORD, json.dumps(about.record()))
    if content.labelled:
        _name_segments(target, content.names)
        _mark(target)


def _corner(position: Iterable[float], size: VoxelSize, target: Path) -> ZYX:
    """Return a place in whole voxels, and say where it had to be rounded."""
    exact = [at / edge for at, edge in zip(position, size, strict=True)]
    z, y, x = (round(at) for at in exact)
    if max(abs(a - b) for a, b in zip(exact, (z, y, x), strict=True)) > 1e-3:
        _log.warning(
            "%s: the volume begins at voxel %s (z, y, x); this format counts whole voxels, so %d, %d, %d is "
            "written (vemseg reads the exact place from %s)",
            target.name, ", ".join(f"{at:.3f}" for at in exact), z, y, x, RECORD,
        )  # fmt: skip
    return z, y, x


def _metadata(content: Content) -> dict[str, object]:
    dtype = content.volume.dtype
    if content.labelled:
        dtype = np.dtype(np.uint32 if dtype.itemsize <= 4 else np.uint64)
    elif dtype.kind == "f":
        dtype = np.dtype(np.float32)
    elif dtype == np.int64:
        raise InputError(f"precomputed has no type for {dtype}: write {content.volume.name} as .h5")
    return {
        "type": "segmentation" if content.labelled else "image",
        "data_type": dtype.name,
        "num_channels": len(content.volume.channels),
    }


def _scale(content: Content, factors: ZYX, shape: ZYX, size: VoxelSize, corner: ZYX) -> dict[str, object]:
    """Return the metadata of a scale, whose axes are x, y, z."""
    edges = [float(edge * f) for edge, f in zip(size, factors, strict=True)][::-1]
    block = {"compressed_segmentation_block_size": [8, 8, 8]} if content.labelled else {}
    return {
        "key": "_".join(f"{edge:.12g}" for edge in edges),
        "resolution": edges,
        "size": list(shape[::-1]),
        "voxel_offset": [at // f for at, f in zip(corner, factors, strict=True)][::-1],
        "chunk_size": [CHUNK_EDGE] * 3,
        "encoding": "compressed_segmentation" if content.labelled else "raw",
        **block,
    }


def _mark(target: Path) -> None:
    """Name the folder of the names of segments in ``info``, where viewers look for it."""
    info = json.loads((target / "info").read_text(encoding="utf-8"))
    write_text(target / "info", json.dumps(info | {"segment_properties": PROPERTIES}))


def segment_names(names: Mapping[int, str]) -> str:
    """Return the names of segments as neuroglancer reads them from a file ``info``."""
    shown = {"id": "label", "type": "label", "values": list(names.values())}
    inline = {"ids": [str(label) for label in names], "properties": [shown]}
    return json.dumps({"@type": "neuroglancer_segment_properties", "inline": inline})


def _name_segments(target: Path, names: Mapping[int, str]) -> None:
    write_text(target / PROPERTIES / "info", segment_names(names))


def rename_segments(path: Path, record: Record, names: Mapping[int, str]) -> None:
    """Give a precomputed volume that vemseg wrote another record and other names of segments."""
    _name_segments(path, names)
    write_text(path / RECORD, json.dumps(record))
