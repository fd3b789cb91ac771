"""Volumes in arrays of any number of axes, as Zarr, N5, HDF5 and others store them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from vemseg.cache import Cache
from vemseg.errors import InputError
from vemseg.foreign import reading
from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.volume.about import Record, evidence_of_labels, origin_of, start_of
from vemseg.volume.base import Described, Volume
from vemseg.volume.dtypes import readable_dtype
from vemseg.volume.frame import Frame
from vemseg.volume.layout import Choice, Layout, lay_out

CACHED_RATIO = 4
"""Chunks are cached where they hold at least this many times the voxels of the box that is read."""


class StoredArray(Protocol):
    """An array on disk: what h5py, zarr and memory-mapped arrays of numpy have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Entries along each axis."""

    @property
    def dtype(self) -> Any:
        """The type of its entries."""

    def __getitem__(self, index: Any) -> Any:
        """Return a part of it, of numpy's indexing by integers and slices, as something numpy takes."""


class Lazy:
    """An array that is opened where it is first read, in whichever process that is.

    Parameters
    ----------
    opener : callable
        A function of a module, which opens the array.
    where : tuple
        Its arguments; they can be pickled.
    shape, dtype
        Of the array.
    """

    def __init__(
        self, opener: Callable[..., Any], where: tuple[Any, ...], shape: tuple[int, ...], dtype: Any
    ) -> None:
        self.opener, self.where, self.shape, self.dtype = opener, where, shape, dtype
        self._opened: Any = None

    def __getitem__(self, index: Any) -> Any:
        if self._opened is None:
            self._opened = self.opener(*self.where)
        return self._opened[index]

    def __reduce__(self) -> tuple[type[Lazy], tuple[Any, ...]]:
        return Lazy, (self.opener, self.where, self.shape, self.dtype)


@dataclass(frozen=True)
class Wish:
    """How a user wants a volume to be read.

    Attributes
    ----------
    voxel_size : (float, float, float) or None
        nm, z y x; instead of what the file says.
    choice : Choice
        What is read where there is a choice.
    """

    voxel_size: VoxelSize | None = None
    choice: Choice = Choice()


@dataclass(frozen=True)
class Told:
    """What metadata say of an array.

    Attributes
    ----------
    frames : sequence of Frame
        The most trusted first; the first that gives a voxel size counts.
    names : sequence of tuples of str
        Further names of its axes, where the frames have none.
    channels : sequence of str
        Names of channels.
    hint : str or None
        What else was found of the voxel size, in words.
    """

    frames: Sequence[Frame] = ()
    names: Sequence[tuple[str, ...]] = ()
    channels: Sequence[str] = ()
    hint: str | None = None


class StoredVolume(Volume):
    """The z, y, x axes of a stored array, at one entry of each other axis.

    Parameters
    ----------
    array : StoredArray
    layout : Layout
        Which axes of the array are z, y, x.
    dtype : numpy.dtype
        What ``read`` returns.
    chunks : tuple of int or None
        The chunks of the array; None where it is not chunked.
    cache : Cache, optional
        Keeps the chunks from which much smaller boxes are read; only for arrays that do not change.
    """

    def __init__(
        self,
        array: StoredArray,
        dtype: np.dtype[np.generic],
        *,
        layout: Layout = Layout(("z", "y", "x")),
        chunks: tuple[int, ...] | None = None,
        cache: Cache | None = None,
        **about: Unpack[Described],
    ) -> None:
        axes = layout.zyx
        z, y, x = (1 if axis < 0 else int(array.shape[axis]) for axis in axes)
        super().__init__((z, y, x), dtype, **about)
        self._array = array
        self._axes = axes
        self._fixed = [layout.fixed.get(axis, 0) for axis in range(len(array.shape))]
        present = [axis for axis in axes if axis >= 0]
        stored = sorted(present)
        self._to_zyx = [stored.index(axis) for axis in present]
        self._cache = None if chunks is None else cache
        cz, cy, cx = (1 if axis < 0 or chunks is None else chunks[axis] for axis in axes)
        self._chunk: ZYX = (cz, cy, cx)

    def remembering(self, record: Record | None) -> Self:
        """Take over what vemseg said of the volume when it wrote it; return this volume.

        Where the record knows the place more exactly than the file, the record counts.
        """
        self.start = start_of(record)
        place = origin_of(record, self.voxel_size) if self.voxel_size_from == "file" else None
        self.origin = place or self.origin
        self.labelled = evidence_of_labels(record) or self.labelled
        return self

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
        index: list[slice | int] = list(self._fixed)
        for axis, part in zip(self._axes, box.slices, strict=True):
            if axis >= 0:
                index[axis] = part
        with reading(f"{self.address} is damaged, box {box} does not decode"):
            stored = np.asarray(self._array[tuple(index)])
        return stored.transpose(self._to_zyx).astype(self.dtype, order="C", copy=True).reshape(box.shape)


def channels_of(
    array: StoredArray, dtype: np.dtype[np.generic], **about: Unpack[Described]
) -> tuple[StoredVolume, ...]:
    """Return the volumes in an array of z, y, x, or of c, z, y, x: one for each channel.

    Parameters
    ----------
    array : StoredArray
    dtype : numpy.dtype
        What they are read as.
    **about
        What is known of them beside that; see ``Volume``.
    """
    if len(array.shape) == 3:
        return (StoredVolume(array, dtype, **about),)
    axes = ("c", "z", "y", "x")
    layouts = (Layout(axes, {0: channel}) for channel in range(array.shape[0]))
    return tuple(StoredVolume(array, dtype, layout=layout, **about) for layout in layouts)


def arrange(
    array: StoredArray, told: Told, wish: Wish, where: str | Path
) -> tuple[Layout, Frame, str | None]:
    """Return how a volume lies in an array, what is said of its axes, and a hint on an unknown voxel size.

    Parameters
    ----------
    array : StoredArray
    told : Told
        What metadata say of it.
    wish : Wish
    where : str or Path
        What messages call the array.

    Raises
    ------
    InputError, UsageError
        As ``lay_out``.
    """
    frames = [frame for frame in told.frames if frame.consistent]
    candidates = [*(frame.axes for frame in frames if frame.ordered), *told.names]
    layout = lay_out(array.shape, candidates, wish.choice, where, told.channels)
    renamed = wish.choice.axes is not None
    named = [frame.under(layout.names, renamed=renamed) for frame in frames]
    sized = next((frame for frame in named if frame.voxel_size is not None), Frame(layout.names))
    hints = [frame.size_hint for frame in named if frame.size_hint]
    return layout, sized, None if sized.voxel_size else next(iter(hints), told.hint)


def open_stored(
    array: StoredArray,
    told: Told,
    wish: Wish,
    *,
    path: Path | None,
    name: str,
    address: str,
    chunks: tuple[int, ...] | None = None,
) -> StoredVolume:
    """Return the volume in an array.

    Parameters
    ----------
    array : StoredArray
        It must not change while the volume is open, since chunks of it are kept in memory.
    told : Told
        What metadata say of it.
    wish : Wish
    path : Path or None
        The file or folder that it lies in; None where it is not on this machine.
    name : str
        A short name of the volume.
    address : str
        What opens it again.
    chunks : tuple of int, optional
        The chunks of the array; None where it is not chunked.

    Raises
    ------
    InputError, UsageError
        Where its voxels or its axes are of no use, or something was chosen that is not there.
    """
    if chunks is not None and min(chunks, default=1) < 1:
        raise InputError(f"{address} is damaged: it has chunks of the shape {list(chunks)}; copy it again")
    layout, frame, hint = arrange(array, told, wish, address)
    volume = StoredVolume(
        array,
        readable_dtype(array.dtype, Path(address)),
        layout=layout,
        chunks=chunks,
        cache=Cache(),
        voxel_size=wish.voxel_size or frame.voxel_size,
        voxel_size_from="option" if wish.voxel_size else "file",
        name=name,
        path=path,
        address=address,
    )
    volume.origin, volume.hint, volume.choice = frame.origin, hint, wish.choice.given
    return volume
