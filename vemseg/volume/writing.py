"""Finished outputs: a store of labels, or any grey volume, as TIFF or OME-Zarr.

Both are written over whatever lies at the path that the caller names. The output grows there until the caller
gives it its final name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import zarr

from vemseg.files import remove
from vemseg.geometry import ZYX
from vemseg.names import is_tiff_output, split_name
from vemseg.volume.about import About, LabelInfo
from vemseg.volume.base import Volume
from vemseg.volume.ngff import image_metadata, label_metadata
from vemseg.volume.pyramid import Reduce, majority, mean, write_levels
from vemseg.volume.store import LabelStore
from vemseg.volume.tiff_writing import write_tiff

BLOCK_SHAPE: ZYX = (64, 256, 256)
"""Voxels of a grey volume that are read at once for an OME-Zarr, and its shards, z y x."""


def finish_labels(store: LabelStore, target: Path, info: LabelInfo) -> None:
    """Write the final form of a store whose blocks are all there.

    ``.tif``, ``.tiff``: ImageJ TIFF (uint8, uint16, below 4 GB) or OME-BigTIFF; the store stays as it is.
    ``.zarr``: OME-Zarr (NGFF 0.5) with ``image-label`` and coarser levels by majority; the store becomes its
    level 0 as it lies, and moves to ``target`` in the end. Where this is interrupted, the store is whole and
    the call can be repeated.

    Parameters
    ----------
    store : LabelStore
    target : Path
        Where the labels grow. An OME-Zarr may grow where the store lies, or elsewhere on its disk.
    info : LabelInfo
        What the file says about the labels: voxel size, names, colours and more.

    Raises
    ------
    UsageError
        Where the suffix of ``target`` names no format.
    """
    _finish(store, target, info, majority, label_metadata(info.names, info.colours, info.suggestions))


def finish_grey(store: LabelStore, target: Path, about: About) -> None:
    """Do what :func:`finish_labels` does with a store of grey values; coarser levels are means."""
    _finish(store, target, about, mean, {})


def write_volume(source: Volume, target: Path, *, description: Mapping[str, object] | None = None) -> None:
    """Write a grey volume, block by block, as TIFF or OME-Zarr, by the suffix as in ``finish_labels``.

    Parameters
    ----------
    source : Volume
        Its voxel size and its place are kept.
    target : Path
        Where the output grows.
    description : mapping, optional
        What the volume is and where it comes from; anything JSON can hold.

    Raises
    ------
    UsageError
        Where the suffix of ``target`` names no format.
    """
    about = About(**source.placed, description=description or {})
    if is_tiff_output(target):
        _write_tiff(source, target, about)
        return
    remove(target)
    with _whole_or_absent(target):
        store = LabelStore.create(target, source.shape, BLOCK_SHAPE, source.dtype, source.voxel_size)
        for box in store.box.split(store.block_shape):
            store.write(box, source.read(box))
        _describe_zarr(store, target.name, about, mean, {})


def _finish(
    store: LabelStore, target: Path, about: About, reduce: Reduce, labels: Mapping[str, object]
) -> None:
    """Write the final form of a store; an OME-Zarr is made of it as it lies."""
    if is_tiff_output(target):
        _write_tiff(store, target, about)
        return
    _describe_zarr(store, target.name, about, reduce, labels)
    if store.directory != target:
        remove(target)
        store.directory.replace(target)


def _write_tiff(volume: Volume, target: Path, about: About) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _whole_or_absent(target):
        write_tiff(volume, target, about)


@contextmanager
def _whole_or_absent(target: Path) -> Iterator[None]:
    """Remove the beginnings of an output if the block fails: the disk may be full."""
    try:
        yield
    except BaseException:
        remove(target)
        raise


def _describe_zarr(
    store: LabelStore, file_name: str, about: About, reduce: Reduce, labels: Mapping[str, object]
) -> None:
    """Add coarser levels and metadata to a store, which make it an OME-Zarr."""
    group = zarr.open_group(str(store.directory), mode="r+", zarr_format=3)
    factors = write_levels(group, store, about.voxel_size, reduce)
    size = about.voxel_size
    group["0"].attrs.put({} if size is None else {"voxel_size_nm": list(size)})
    name, _ = split_name(Path(file_name))
    ome = {**image_metadata(name, about, factors, reduce.__name__), **labels}
    group.attrs.put({"ome": ome, "vemseg": about.source()})
