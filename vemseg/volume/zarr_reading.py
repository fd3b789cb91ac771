"""Reading Zarr arrays and OME-Zarr images, Zarr formats 2 and 3."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import numpy as np
import zarr
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.foreign import check_regular
from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.names import volume_name
from vemseg.volume.about import Record, evidence_of_labels, origin_of
from vemseg.volume.base import Described, Volume
from vemseg.volume.cache import Cache
from vemseg.volume.dtypes import readable_dtype
from vemseg.volume.foreign import as_input_error
from vemseg.volume.ngff import (
    Attributes,
    Multiscale,
    is_image_collection,
    legend_in,
    multiscale_of,
    record_in,
)

CACHED_RATIO = 4
"""Chunks are cached where they hold at least this many times the voxels of the box that is read."""

_MARKERS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


class ZarrVolume(Volume):
    """The z, y, x axes of a Zarr array whose other axes have length 1.

    Parameters
    ----------
    array : zarr.Array
    axes : tuple of int
        Which axes of the array are z, y, x; -1 where the array has none (a single plane).
    dtype : numpy.dtype
        What ``read`` returns.
    cache : Cache, optional
        Keeps the chunks from which much smaller boxes are read; only for arrays that do not change.
    """

    def __init__(
        self,
        array: zarr.Array,
        axes: ZYX,
        dtype: np.dtype[np.generic],
        *,
        cache: Cache | None = None,
        **about: Unpack[Described],
    ) -> None:
        z, y, x = (1 if axis < 0 else array.shape[axis] for axis in axes)
        super().__init__((z, y, x), dtype, **about)
        self._array = array
        self._axes = axes
        present = [axis for axis in axes if axis >= 0]
        stored = sorted(present)
        self._to_zyx = [stored.index(axis) for axis in present]
        self._cache = cache
        cz, cy, cx = (1 if axis < 0 else array.chunks[axis] for axis in axes)
        self._chunk: ZYX = (cz, cy, cx)

    def _read(self, box: Box) -> NDArray[np.generic]:
        chunks = self._whole_chunks(box)
        worth_keeping = (
            self._cache is not None
            and chunks.size >= CACHED_RATIO * box.size > 0
            and math.prod(self._chunk) * self.dtype.itemsize <= self._cache.limit // 8
        )
        if not worth_keeping:
            return self._load(box)
        out = np.empty(box.shape, self.dtype)
        for chunk in chunks.split(self._chunk):
            part = chunk.clip(box)
            out[part.relative_to(box).slices] = self._cached(chunk)[part.relative_to(chunk).slices]
        return out

    def _whole_chunks(self, box: Box) -> Box:
        """Return the box of all chunks that a box meets."""
        z, y, x = (
            (a // c * c, -(-b // c) * c) for a, b, c in zip(box.start, box.stop, self._chunk, strict=True)
        )
        return Box((z[0], y[0], x[0]), (z[1], y[1], x[1])).clip(self.box)

    def _cached(self, chunk: Box) -> NDArray[np.generic]:
        assert self._cache is not None
        array = self._cache.get(chunk.start)
        if array is None:
            array = self._load(chunk)
            self._cache.put(chunk.start, array)
        return array

    def _load(self, box: Box) -> NDArray[np.generic]:
        index: list[slice | int] = [0] * self._array.ndim
        for axis, part in zip(self._axes, box.slices, strict=True):
            if axis >= 0:
                index[axis] = part
        with as_input_error(f"{self.path} is damaged, box {box} does not decode"):
            stored = np.asarray(self._array[tuple(index)])
        return stored.transpose(self._to_zyx).astype(self.dtype, order="C", copy=True).reshape(box.shape)


def is_zarr(path: Path) -> bool:
    """Tell whether a directory is a Zarr array or group."""
    if not path.is_dir():
        return False
    for marker in _MARKERS:
        check_regular(path / marker)
    return any((path / marker).is_file() for marker in _MARKERS)


@dataclass(frozen=True)
class Located:
    """An array, and what the group around it says of it.

    Attributes
    ----------
    path : Path
        The path of the array, or of the image whose finest level it is.
    array : zarr.Array
    image : Multiscale or None
        The image that the array is a level of, None where it is an array alone.
    level : str
        The path of the array in the group of the image.
    attributes : mapping
        The attributes of that group; empty where there is none.
    """

    path: Path
    array: zarr.Array
    image: Multiscale | None = None
    level: str = ""
    attributes: Attributes = field(default_factory=dict)

    @property
    def is_finest(self) -> bool:
        """Whether the array is the finest level of its image."""
        return self.image is not None and self.level == next(iter(self.image.levels))


def open_zarr(path: Path, voxel_size: VoxelSize | None = None) -> Volume:
    """Open a Zarr array, or level 0 of an OME-Zarr image (``file.zarr``, ``file.zarr/labels/mito``).

    Raises
    ------
    InputError
        Where it is neither, has several channels or time points, or is damaged.
    """
    with as_input_error(f"{path} is no readable Zarr"):
        return _open(path, voxel_size)


def _open(path: Path, voxel_size: VoxelSize | None) -> Volume:
    found = _locate(path)
    stated = found.image.voxel_size(found.level) if found.image else None
    volume = ZarrVolume(
        found.array,
        _spatial_axes(found.array, found.image, found.path),
        cache=Cache(),
        dtype=readable_dtype(found.array.dtype, found.path),
        voxel_size=voxel_size or stated,
        voxel_size_from="option" if voxel_size else "file",
        name=volume_name(found.path),
        path=found.path,
    )
    record = record_in(found.attributes)
    volume.origin = origin_of(record) if found.is_finest else (0, 0, 0)
    stated_labels = "its metadata have an image-label" if legend_in(found.attributes) is not None else None
    volume.labelled = evidence_of_labels(record) or stated_labels
    return volume


def zarr_record(path: Path) -> Record | None:
    """Return what vemseg wrote into an OME-Zarr, or into the one that an array lies in; else None."""
    with as_input_error(f"{path} is no readable Zarr"):
        return record_in(_locate(path).attributes)


def _locate(path: Path) -> Located:
    """Find the array of a path: itself, or the finest level of the image that a group is.

    Raises
    ------
    InputError
        Where the path leads to no array.
    """
    node = _open_node(path)
    if isinstance(node, zarr.Group) and multiscale_of(node.attrs) is None and is_image_collection(node.attrs):
        path = path / "0"
        node = _open_node(path)
    if not isinstance(node, zarr.Group):
        return _in_its_image(path, node)
    image = multiscale_of(node.attrs)
    if image is None or not image.levels:
        raise InputError(f"{path} is a Zarr group without an image; {_inner_arrays(node, path)}")
    level = next(iter(image.levels))
    array = _open_node(path / level)
    if isinstance(array, zarr.Group):
        raise InputError(f"{path} names the group '{level}' as an image level: it must be an array")
    return Located(path, array, image, level, dict(node.attrs))


def _open_node(path: Path) -> zarr.Array | zarr.Group:
    if not is_zarr(path):
        raise InputError(f"{path} is no Zarr array or group")
    with as_input_error(f"{path} is no readable Zarr"):
        return zarr.open(str(path), mode="r")


def _in_its_image(path: Path, array: zarr.Array) -> Located:
    """Return an array with the image that it is a level of, looking for that in the groups around it."""
    inner = path.absolute()
    for group in inner.parents:
        if not is_zarr(group):
            break
        node = _open_node(group)
        image = multiscale_of(node.attrs) if isinstance(node, zarr.Group) else None
        level = inner.relative_to(group).as_posix()
        if image is not None and level in image.levels:
            return Located(path, array, image, level, dict(node.attrs))
    return Located(path, array)


def _spatial_axes(array: zarr.Array, image: Multiscale | None, path: Path) -> ZYX:
    """Return which axes of an array are z, y, x (-1: none); all others must have length 1."""
    n = array.ndim
    named = image.axes if image is not None and len(image.axes) == n else ()
    if not named:
        named = tuple(getattr(array.metadata, "dimension_names", None) or ())
    if not ({"y", "x"} <= set(named) and len(set(named)) == len(named) == n):
        named = ("t", "c", "z", "y", "x")[-n:] if 2 <= n <= 5 else ()
    if not named:
        raise InputError(f"{path} has {n} axes: a volume has z, y, x")
    for axis, length in zip(named, array.shape, strict=True):
        if axis not in "zyx" and length > 1:
            raise InputError(f"{path} has {length} entries along axis '{axis}': extract one as a volume")
    z, y, x = (named.index(axis) if axis in named else -1 for axis in "zyx")
    return z, y, x


def _inner_arrays(group: zarr.Group, path: Path) -> str:
    names = sorted(name for name, _ in group.members(max_depth=3) if is_zarr(path / name))
    return f"name one inside it, such as {path / names[0]}" if names else "it is empty"
