"""Reading TIFF stacks.

Uncompressed stacks are memory-mapped. Others are decoded strip by strip or tile by tile, only where a box
asks for it, with a cache of bounded size; the file is opened anew for each box, so that threads and forked
workers share no file position. Only tifffile calls that are the same before and after its release 2026.5 are
used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Unpack

import numpy as np
import tifffile
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.names import volume_name
from vemseg.volume.about import Record, evidence_of_labels, origin_of, start_of
from vemseg.volume.base import Described, Volume
from vemseg.volume.cache import Cache
from vemseg.volume.dtypes import readable_dtype
from vemseg.volume.foreign import as_input_error
from vemseg.volume.tiff_description import record_in, tiff_voxel_size
from vemseg.volume.tiff_pages import Page, only_stack, truncated

_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


@dataclass(frozen=True)
class Strips:
    """Where the strips or tiles of one page lie in the file."""

    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    jpeg_tables: bytes | None


class _Tiff(Volume):
    """A volume that is sent to another process as its path, and opened there again."""

    def __reduce__(self) -> tuple[Callable[[Path, VoxelSize | None], Volume], tuple[object, ...]]:
        return open_tiff, (self.path, self.voxel_size if self.voxel_size_from == "option" else None)


class MappedTiff(_Tiff):
    """An uncompressed, contiguous stack, memory-mapped."""

    def __init__(
        self,
        mapped: NDArray[np.generic],
        shape: ZYX,
        dtype: np.dtype[np.generic],
        **about: Unpack[Described],
    ) -> None:
        super().__init__(shape, dtype, **about)
        self._mapped = mapped

    def _read(self, box: Box) -> NDArray[np.generic]:
        return np.array(self._mapped[box.slices], dtype=self.dtype)


class DecodedTiff(_Tiff):
    """A compressed, tiled or scattered stack, decoded where it is read.

    Parameters
    ----------
    keyframe : tifffile.TiffPage
        The page that describes all others.
    pages : list of Strips or None
        One for each page, in z order; None is a missing page, read as zeros. Takes 16 bytes for each strip.
    """

    def __init__(
        self,
        keyframe: tifffile.TiffPage,
        pages: list[Strips | None],
        shape: ZYX,
        dtype: np.dtype[np.generic],
        **about: Unpack[Described],
    ) -> None:
        super().__init__(shape, dtype, **about)
        self._keyframe = keyframe
        self._pages = pages
        self._cache = Cache()
        depth = max(1, keyframe.imagedepth)
        if keyframe.is_tiled:
            tile = (max(1, keyframe.tiledepth), keyframe.tilelength, keyframe.tilewidth)
        else:
            tile = (1, min(keyframe.rowsperstrip, keyframe.imagelength), keyframe.imagewidth)
        self._page_shape: ZYX = (depth, keyframe.imagelength, keyframe.imagewidth)
        self._tile: ZYX = tile
        self._grid = tuple(-(-n // t) for n, t in zip(self._page_shape, tile, strict=True))

    def _read(self, box: Box) -> NDArray[np.generic]:
        out = np.zeros(box.shape, self.dtype)
        if not out.size:
            return out
        assert self.path is not None
        depth = self._page_shape[0]
        with self.path.open("rb") as file:
            for page in range(box.start[0] // depth, -(-box.stop[0] // depth)):
                strips = self._pages[page]
                if strips is not None:
                    self._read_page(file, page, strips, box, out)
        return out

    def _read_page(
        self, file: BinaryIO, page: int, strips: Strips, box: Box, out: NDArray[np.generic]
    ) -> None:
        origin = (page * self._page_shape[0], 0, 0)
        page_box = Box.whole(self._page_shape).shift(origin)
        for index in self._indices(box.clip(page_box).relative_to(page_box)):
            key = (page, index)
            segment = self._cache.get(key)
            if segment is None:
                segment = self._decode(file, strips, index)
                self._cache.put(key, segment)
            part = self._segment_box(index, segment.shape).shift(origin).clip(page_box)
            wanted = part.clip(box)
            out[wanted.relative_to(box).slices] = segment[wanted.relative_to(part).slices]

    def _indices(self, inner: Box) -> Iterator[int]:
        """Yield the strips or tiles of a page that a box meets."""
        z, y, x = (
            range(a // t, -(-b // t)) for a, b, t in zip(inner.start, inner.stop, self._tile, strict=True)
        )
        _, ny, nx = self._grid
        for k in z:
            for j in y:
                for i in x:
                    yield (k * ny + j) * nx + i

    def _segment_box(self, index: int, shape: tuple[int, ...]) -> Box:
        _, ny, nx = self._grid
        d, h, w = self._tile
        z, y, x = index // (ny * nx) * d, index // nx % ny * h, index % nx * w
        return Box((z, y, x), (z + shape[0], y + shape[1], x + shape[2]))

    def _decode(self, file: BinaryIO, strips: Strips, index: int) -> NDArray[np.generic]:
        count = int(strips.counts[index])
        if count == 0:
            return np.full(self._tile, self._keyframe.nodata).astype(self.dtype)
        file.seek(int(strips.offsets[index]))
        with as_input_error(f"{self.path} is damaged, strip or tile {index} does not decode"):
            segment, _, _ = self._keyframe.decode(file.read(count), index, jpegtables=strips.jpeg_tables)
        return np.ascontiguousarray(segment[..., 0]).astype(self.dtype, copy=False)


def is_tiff(path: Path) -> bool:
    """Tell whether a file begins as a TIFF or BigTIFF does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def open_tiff(path: Path, voxel_size: VoxelSize | None = None) -> Volume:
    """Open a TIFF stack: plain, BigTIFF, ImageJ or OME; one channel, one time point.

    Parameters
    ----------
    voxel_size : (float, float, float), optional
        nm, z y x; instead of what the file says.

    Raises
    ------
    InputError
        Where the file is no TIFF, truncated, in colour, or no single stack.
    """
    with as_input_error(f"{path} is no readable TIFF"), tifffile.TiffFile(path) as file:
        volume = _open(path, file, voxel_size)
        record = record_in(file)
    volume.start, volume.origin = start_of(record), origin_of(record, volume.voxel_size)
    volume.labelled = evidence_of_labels(record)
    return volume


def tiff_record(path: Path) -> Record | None:
    """Return what vemseg wrote into a TIFF about it, None where it wrote nothing."""
    with as_input_error(f"{path} is no readable TIFF"), tifffile.TiffFile(path) as file:
        return record_in(file)


def _open(path: Path, file: tifffile.TiffFile, voxel_size: VoxelSize | None) -> Volume:
    stack = only_stack(path, file)
    found = tiff_voxel_size(file, stack)
    shape, dtype = stack.shape_zyx(path), readable_dtype(stack.dtype, path)
    about: Described = {
        "voxel_size": voxel_size or found,
        "voxel_size_from": "option" if voxel_size else "file",
        "name": volume_name(path),
        "path": path,
    }
    stored, size = stack.dtype.newbyteorder(file.byteorder), path.stat().st_size
    if stack.offset is not None and stored.kind != "b":
        if stack.offset + math.prod(shape) * stored.itemsize > size:
            raise truncated(path)
        return MappedTiff(np.memmap(path, stored, "r", stack.offset, shape), shape, dtype, **about)
    pages = [_strips(path, file, page, size) for page in stack.pages]
    expected = -(-shape[0] // max(1, stack.keyframe.imagedepth))
    if len(pages) != expected:
        raise InputError(f"{path} is truncated or damaged: {len(pages)} pages instead of {expected}")
    return DecodedTiff(stack.keyframe, pages, shape, dtype, **about)


def _strips(path: Path, file: tifffile.TiffFile, page: Page | None, size: int) -> Strips | None:
    if page is None:
        return None
    if page.parent is not file:
        raise InputError(f"{path} is one part of an OME image in several files: join them into one file")
    offsets, counts = np.array(page.dataoffsets, np.int64), np.array(page.databytecounts, np.int64)
    if not offsets.size or np.any(offsets + counts > size):
        raise truncated(path)
    return Strips(offsets, counts, page.jpegtables)
