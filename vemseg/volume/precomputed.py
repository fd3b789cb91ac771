"""Reading neuroglancer precomputed volumes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from vemseg.errors import InputError, UsageError
from vemseg.foreign import read_text, reading
from vemseg.names import volume_name
from vemseg.volume.about import Record, channels_in
from vemseg.volume.base import Volume
from vemseg.volume.frame import Frame
from vemseg.volume.places import Node, opened
from vemseg.volume.stored import Lazy, Told, Wish, open_stored

_UNPACKED_BY = {
    ".gz": "gunzip -r FOLDER",
    ".br": "brotli -d --rm FOLDER/*",
    ".zstd": "zstd -d --rm -r FOLDER",
}
"""What unpacks chunks of a precomputed volume that were compressed one by one."""

RECORD = "vemseg.json"
"""The file that holds what vemseg says of a precomputed volume, in its folder."""


def open_precomputed(node: Node, wish: Wish, path: Path | None) -> Volume:
    """Return the volume at a scale of a precomputed volume; its axes are x, y, z, channel, its unit nm."""
    index, key, frame = _scale(node, wish.choice.level)
    if path is not None:
        _check_chunks(path / key)
    where = ("neuroglancer_precomputed", json.dumps(node.place.kvstore()), True, index)
    store = opened(*where)
    record = None if path is None else precomputed_record(path)
    volume = open_stored(
        Lazy(opened, where, tuple(store.shape), store.dtype),
        Told([frame], channels=channels_in(record)),
        wish,
        path=path,
        name=volume_name(node.place.address),
        address=node.place.address if path is None else str(path),
        chunks=tuple(store.chunk_layout.read_chunk.shape),
    )
    segmented = "it is a segmentation" if node.metadata.get("type") == "segmentation" else None
    volume.labelled = segmented
    return volume.remembering(record) if index == 0 else volume


def _scale(node: Node, level: str | None) -> tuple[int, str, Frame]:
    """Return the number of a scale, its folder, and its voxel size and place.

    A scale begins at the corner ``voxel_offset * resolution``. At the finest one, the centre of the first
    voxel is taken to lie there, as vemseg writes it; larger voxels at that corner have centres further in.
    """
    with reading(f"{node.place.address}/info is damaged"):
        scales = node.metadata["scales"]
        keys = [str(scale["key"]) for scale in scales]
        if not keys:
            raise InputError(f"{node.place.address} holds no scale")
        if level is not None and level not in keys and not (level.isdecimal() and int(level) < len(keys)):
            raise UsageError(
                f"--level {level}: {node.place.address} has no such scale; there are {', '.join(keys)}"
            )
        index = 0 if level is None else keys.index(level) if level in keys else int(level)
        size, finest = ([float(edge) for edge in scales[i]["resolution"]] for i in (index, 0))
        corner = [float(at) for at in scales[index].get("voxel_offset", (0, 0, 0))]
        shift = [at * edge + (edge - fine) / 2 for at, edge, fine in zip(corner, size, finest, strict=True)]
        axes, units = ("c", "z", "y", "x"), (None, "nm", "nm", "nm")
        return index, keys[index], Frame(axes, units, (1.0, *size[::-1]), (0.0, *shift[::-1]))


def _check_chunks(scale: Path) -> None:
    """Refuse a scale whose chunks are compressed files, which would be taken for chunks that are missing."""
    if not scale.is_dir():
        return
    with os.scandir(scale) as entries:
        first = next((entry.name for entry in entries if not entry.name.startswith(".")), "")
    if remedy := _UNPACKED_BY.get(Path(first).suffix):
        raise InputError(
            f"{scale} holds chunks that are compressed as files ({first}), as cloud-volume writes them here: "
            f"unpack them with {remedy.replace('FOLDER', str(scale))}"
        )


def precomputed_record(path: Path) -> Record | None:
    """Return what vemseg wrote of a precomputed volume on this machine, None where it wrote nothing."""
    if not (path / RECORD).is_file():
        return None
    complaint = f"{path / RECORD} is damaged"
    text = read_text(path / RECORD, complaint)
    with reading(complaint):
        found: object = json.loads(text)
    return dict(found) if isinstance(found, dict) else None
