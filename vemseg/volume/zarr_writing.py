"""Writing OME-Zarr: NGFF 0.5 in Zarr format 3, made of a store as it lies, and NGFF 0.4 in Zarr format 2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr

from vemseg.files import remove
from vemseg.geometry import ZYX
from vemseg.names import split_name
from vemseg.volume import pyramid
from vemseg.volume.base import Volume
from vemseg.volume.content import Content
from vemseg.volume.durable import Durable
from vemseg.volume.growing import begun
from vemseg.volume.labels_of_images import SOURCE, LabelsOfImage, factors_of
from vemseg.volume.ngff import FORMATS_OF_ZARR, VERSION, image_metadata
from vemseg.volume.pyramid import Level
from vemseg.volume.store import CHUNK_EDGE, LabelStore

BLOCK_SHAPE: ZYX = (64, 256, 256)
"""Voxels of a grey volume that are read at once for an OME-Zarr, and its shards, z y x."""


def write_zarr(
    content: Content, target: Path, version: str = VERSION, image: LabelsOfImage | None = None
) -> None:
    """Write an OME-Zarr from any volume; what lies at ``target`` is removed.

    Parameters
    ----------
    content : Content
    target : Path
    version : str
        Of NGFF, one of ``FORMATS_OF_ZARR``.
    image : LabelsOfImage, optional
        Where the result becomes labels of an image.
    """
    remove(target)
    channels = content.volume.channels
    count = len(channels) if content.about.channels else None
    dtype, shape = content.volume.dtype, content.volume.shape
    if FORMATS_OF_ZARR[version] == 2:
        group = zarr.create_group(Durable(target), zarr_format=2)
        finest = _old_level(group, 0, shape, dtype, count)
        finest.fill(channels)
        _describe(group, content, finest.channels, version, image, split_name(Path(target.name))[0])
        return
    size = content.about.voxel_size
    store = LabelStore.create(target, shape, BLOCK_SHAPE, dtype, size, count)
    Level(store.array, store.block_shape).fill(channels)
    finish_store(store, content, target.name, image)


def finish_store(
    store: LabelStore, content: Content, file_name: str, image: LabelsOfImage | None = None
) -> None:
    """Make a store an OME-Zarr of NGFF 0.5: add the coarser levels that it lacks, and the metadata."""
    group = zarr.open_group(Durable(store.directory), mode="r+", zarr_format=3)
    size = content.about.voxel_size
    _describe(group, content, store.channels, VERSION, image, split_name(Path(file_name))[0])
    group["0"].attrs.put({} if size is None else {"voxel_size_nm": list(size)})


def _describe(
    group: zarr.Group,
    content: Content,
    finest: Sequence[Volume],
    version: str,
    image: LabelsOfImage | None,
    name: str,
) -> None:
    """Write coarser levels of a group, each from the one before, and its metadata.

    ``finest`` holds the channels of the finest level as they were written, so that the volume is read once.
    """
    about, channels = content.about, content.volume.channels
    count = len(channels) if about.channels else None
    factors = factors_of(image, content.volume.shape, about.voxel_size)
    begin = _old_level if FORMATS_OF_ZARR[version] == 2 else begun

    def make(number: int, shape: ZYX) -> Level:
        return begin(group, number, shape, content.volume.dtype, count)

    pyramid.write_levels(finest, factors, make, content.reduce)
    ome = image_metadata(name, about, factors, content.reduce.__name__, version)
    labels = content.image_label(version)
    if labels:
        labels["image-label"] |= {} if image is None else SOURCE
    ome |= labels
    group.attrs.put({**({"ome": ome} if version == VERSION else ome), "vemseg": about.source()})


def _old_level(
    group: zarr.Group, number: int, shape: ZYX, dtype: np.dtype[np.generic], channels: int | None
) -> Level:
    """Begin a level in Zarr format 2, which has no shards: every chunk is a file."""
    one = () if channels is None else (1,)
    array = group.create_array(
        str(number),
        shape=(*(() if channels is None else (channels,)), *shape),
        chunks=(*one, *(min(CHUNK_EDGE, n) for n in shape)),
        dtype=dtype,
        fill_value=0,
        compressors={"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1, "blocksize": 0},
        chunk_key_encoding={"name": "v2", "separator": "/"},
        config={"write_empty_chunks": False},
    )
    return Level(array, pyramid.BLOCK_SHAPE)
