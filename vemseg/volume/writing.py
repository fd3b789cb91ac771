"""Finished outputs: a store of labels, or any grey volume, as TIFF or OME-Zarr."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr

from vemseg.files import remove
from vemseg.geometry import ZYX, VoxelSize
from vemseg.volume.base import Volume
from vemseg.volume.ngff import image_metadata, label_metadata
from vemseg.volume.publish import check_output, is_tiff_output, partial_directory, publish
from vemseg.volume.pyramid import Reduce, majority, mean, write_levels
from vemseg.volume.store import LabelStore
from vemseg.volume.tiff_writing import write_tiff


def finish_labels(
    store: LabelStore,
    out: Path,
    *,
    names: dict[int, str],
    colours: dict[int, tuple[int, int, int]],
    voxel_size: VoxelSize | None,
    description: Mapping[str, Any],
    overwrite: bool = False,
) -> Path:
    """Turn a fully written store into its final form; the store is gone afterwards.

    ``.tif``, ``.tiff``: ImageJ TIFF (uint8, uint16, below 4 GB) or OME-BigTIFF. ``.zarr``: OME-Zarr (NGFF
    0.5) with ``image-label`` and coarser levels by majority; the store becomes its level 0 as it lies. Where
    this is interrupted, the store is whole and the call can be repeated; ``<out>.partial/`` is removed at the
    end.

    Parameters
    ----------
    store : LabelStore
        On the same disk as ``out``, best inside ``partial_directory(out)``.
    names : dict of int to str
        Of labels.
    colours : dict of int to (int, int, int)
        RGB 0..255 of labels.
    voxel_size : (float, float, float) or None
        nm, z y x; None writes no physical size.
    description : mapping
        What the labels are and where they come from; anything JSON can hold.

    Raises
    ------
    OutputExistsError
        Where ``out`` exists and ``overwrite`` is not set.
    UsageError
        Where the suffix of ``out`` names no format.
    """
    check_output(out, overwrite)
    if is_tiff_output(out):
        about = {
            "names": {str(k): name for k, name in names.items()},
            "colours": {str(k): list(rgb) for k, rgb in colours.items()},
            **description,
        }
        _publish_tiff(store, out, overwrite, voxel_size=voxel_size, colours=colours, description=about)
        remove(store.directory)
    else:
        labels = label_metadata(names, colours)
        _publish_zarr(store, out, overwrite, majority, voxel_size, description, labels)
    remove(partial_directory(out))
    return out


def write_volume(
    source: Volume,
    out: Path,
    *,
    block_shape: ZYX = (64, 256, 256),
    description: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a grey volume, block by block, as TIFF or OME-Zarr, by the suffix as in ``finish_labels``.

    Parameters
    ----------
    source : Volume
        Its voxel size is kept.
    block_shape : (int, int, int)
        Voxels read at once, and shards of an OME-Zarr.

    Raises
    ------
    OutputExistsError
        Where ``out`` exists and ``overwrite`` is not set.
    UsageError
        Where the suffix of ``out`` names no format.
    """
    check_output(out, overwrite)
    partial = partial_directory(out)
    remove(partial)
    try:
        if is_tiff_output(out):
            _publish_tiff(source, out, overwrite, voxel_size=source.voxel_size, description=description)
        else:
            store = LabelStore.create(
                partial / "volume", source.shape, block_shape, source.dtype, source.voxel_size
            )
            for box in store.box.split(store.block_shape):
                store.write(box, source.read(box))
            _publish_zarr(store, out, overwrite, mean, source.voxel_size, description or {}, {})
    finally:
        remove(partial)
    return out


def _publish_tiff(volume: Volume, out: Path, overwrite: bool, **about: Any) -> None:
    growing = partial_directory(out) / out.name
    growing.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_tiff(volume, growing, **about)
        publish(growing, out, overwrite)
    finally:
        remove(growing)


def _publish_zarr(
    store: LabelStore,
    out: Path,
    overwrite: bool,
    reduce: Reduce,
    voxel_size: VoxelSize | None,
    description: Mapping[str, Any],
    labels: Mapping[str, Any],
) -> None:
    group = zarr.open_group(str(store.directory), mode="r+", zarr_format=3)
    factors = write_levels(group, store, voxel_size, reduce)
    name = out.name.removesuffix(".zarr").removesuffix(".ome")
    group["0"].attrs.put({} if voxel_size is None else {"voxel_size_nm": list(voxel_size)})
    ome = {**image_metadata(name, voxel_size, factors, reduce.__name__), **labels}
    group.attrs.put({"ome": ome, "vemseg": dict(description)})
    publish(store.directory, out, overwrite)
