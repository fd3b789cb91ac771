"""Reading TIFF stacks.

The directories of all pages are read and checked first (``tiff_chain``, ``tiff_forms``), then it is decided
which pages form the stack (``tiff_pages``). Uncompressed stacks are memory-mapped. Others are decoded strip
by strip or tile by tile (``tiff_decoding``), only where a box asks for it, with a cache of bounded size; the
file is opened anew for each box, so that threads and forked workers share no file position. Only tifffile
calls that are the same before and after its release 2026.5 are used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Unpack

import numpy as np
import tifffile
from numpy.typing import NDArray

from vemseg.cache import Cache
from vemseg.errors import InputError
from vemseg.foreign import reading
from vemseg.geometry import ZYX, Box
from vemseg.names import volume_name
from vemseg.volume.about import Record, evidence_of_labels, origin_of, start_of
from vemseg.volume.base import Described, Volume
from vemseg.volume.dtypes import readable_dtype
from vemseg.volume.stored import Wish
from vemseg.volume.tiff_chain import Chain
from vemseg.volume.tiff_decoding import Decoder, decoders_of
from vemseg.volume.tiff_description import place_in, record_in, tiff_edges
from vemseg.volume.tiff_forms import Form, Forms, Page
from vemseg.volume.tiff_pages import only_stack
from vemseg.volume.tiff_shown import Show, as_shown
from vemseg.volume.tiff_stack import Stack

_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


@dataclass(frozen=True)
class Seen:
    """How the voxels of a file are handed out.

    Attributes
    ----------
    wish : Wish
        What the volume was opened with.
    order : (int, int, int)
        Which of pages, rows and columns are z, y and x.
    show : callable or None
        Turns stored values into those that are meant.
    remark : str or None
        What to tell the user of that; None where the file has no meaning beside the stored values.
    as_stored : bool
        Whether the stored values are wanted, whatever is meant.
    """

    wish: Wish
    order: ZYX
    show: Show | None = None
    remark: str | None = None
    as_stored: bool = False


class _Tiff(Volume):
    """A volume that is sent to another process as its path, and opened there again.

    Parameters
    ----------
    stored : (int, int, int)
        The lengths of pages, rows and columns.
    dtype : numpy.dtype
    seen : Seen
    """

    def __init__(
        self, stored: ZYX, dtype: np.dtype[np.generic], seen: Seen, **about: Unpack[Described]
    ) -> None:
        z, y, x = (stored[axis] for axis in seen.order)
        super().__init__((z, y, x), dtype, **about)
        self._seen = seen

    def __reduce__(self) -> tuple[Callable[..., Volume], tuple[object, ...]]:
        return open_tiff, (self.path, self._seen.wish, self._seen.as_stored)

    def stored(self) -> Volume:
        """Return the volume of the stored values, whatever the file says that they mean."""
        if self._seen.remark is None:
            return self
        assert self.path is not None
        return open_tiff(self.path, self._seen.wish, as_stored=True)

    def _read(self, box: Box) -> NDArray[np.generic]:
        order, show = self._seen.order, self._seen.show
        start, stop = [0, 0, 0], [0, 0, 0]
        for axis, (a, b) in zip(order, zip(box.start, box.stop, strict=True), strict=True):
            start[axis], stop[axis] = a, b
        with reading(f"{self.path} cannot be read"):
            voxels = self._stored(Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])))
        if order != (0, 1, 2):
            voxels = np.ascontiguousarray(voxels.transpose(order))
        return voxels if show is None else show(voxels)

    def _stored(self, box: Box) -> NDArray[np.generic]:
        """Return the stored values of a box of pages, rows and columns."""
        raise NotImplementedError


class MappedTiff(_Tiff):
    """An uncompressed, contiguous stack, memory-mapped.

    Reading what is mapped beyond the end of a file ends the process, so the file's size is looked at first.
    """

    def __init__(
        self,
        mapped: np.memmap[tuple[int, ...], np.dtype[np.generic]],
        dtype: np.dtype[np.generic],
        seen: Seen,
        **about: Unpack[Described],
    ) -> None:
        z, y, x = mapped.shape
        super().__init__((z, y, x), dtype, seen, **about)
        self._where: tuple[Any, ...] = (mapped.filename, mapped.dtype, "r", mapped.offset, mapped.shape)
        self._end = mapped.offset + mapped.nbytes

    def _stored(self, box: Box) -> NDArray[np.generic]:
        if self.path is not None and self.path.exists() and self.path.stat().st_size < self._end:
            raise InputError(f"{self.path} was cut off while it was read: is it still being written?")
        mapped = np.memmap(*self._where)  # anew each time: pages that were read would stay in memory
        return np.array(mapped[box.slices], dtype=self.dtype)


class DecodedTiff(_Tiff):
    """A compressed, tiled or scattered stack, decoded where it is read.

    Parameters
    ----------
    stack : Stack
        Its pages take 16 bytes for each strip or tile.
    decoders : mapping of Form to Decoder
        One for each form of its pages.
    """

    def __init__(
        self, stack: Stack, decoders: Mapping[Form, Decoder], seen: Seen, **about: Unpack[Described]
    ) -> None:
        decoder = decoders[stack.form]
        dtype = readable_dtype(decoder.stored, about.get("path") or Path())
        super().__init__(stack.shape, dtype, seen, **about)
        self._pages, self._decoders = stack.pages, decoders
        self._cache = Cache()

    def check_colours(self) -> None:
        """Refuse a stack in colour, as far as its first, middle and last page show it."""
        assert self.path is not None
        with self.path.open("rb") as file:
            for z in {0, len(self._pages) // 2, len(self._pages) - 1}:
                self._decode(file, self._pages[z], 0)

    def _stored(self, box: Box) -> NDArray[np.generic]:
        out = np.zeros(box.shape, self.dtype)
        if not out.size:
            return out
        assert self.path is not None
        depth = self._pages[0].form.depth
        with self.path.open("rb") as file:
            for z in range(box.start[0] // depth, -(-box.stop[0] // depth)):
                self._read_page(file, z, box, out)
        return out

    def _read_page(self, file: BinaryIO, z: int, box: Box, out: NDArray[np.generic]) -> None:
        page = self._pages[z]
        form, origin = page.form, (z * page.form.depth, 0, 0)
        page_box = Box.whole((form.depth, form.length, form.width)).shift(origin)
        for index in _indices(form, box.clip(page_box).relative_to(page_box)):
            key = (z, index)
            segment = self._cache.get(key)
            if segment is None:
                segment = self._decode(file, page, index)
                self._cache.put(key, segment)
            part = _segment_box(form, index, segment.shape).shift(origin).clip(page_box)
            wanted = part.clip(box)
            out[wanted.relative_to(box).slices] = segment[wanted.relative_to(part).slices]

    def _decode(self, file: BinaryIO, page: Page, index: int) -> NDArray[np.generic]:
        assert self.path is not None
        segment = self._decoders[page.form].read(self.path, file, page, index)
        return np.ascontiguousarray(segment).astype(self.dtype, copy=False)


def _indices(form: Form, inner: Box) -> Iterator[int]:
    """Yield the strips or tiles of a page that a box meets."""
    z, y, x = (range(a // t, -(-b // t)) for a, b, t in zip(inner.start, inner.stop, form.tile, strict=True))
    _, ny, nx = form.grid
    return ((k * ny + j) * nx + i for k, j, i in itertools.product(z, y, x))


def _segment_box(form: Form, index: int, shape: tuple[int, ...]) -> Box:
    _, ny, nx = form.grid
    d, h, w = form.tile
    z, y, x = index // (ny * nx) * d, index // nx % ny * h, index % nx * w
    return Box((z, y, x), (z + shape[0], y + shape[1], x + shape[2]))


def is_tiff(path: Path) -> bool:
    """Tell whether a file begins as a TIFF or BigTIFF does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def open_tiff(path: Path, wish: Wish = Wish(), as_stored: bool = False) -> Volume:
    """Open a TIFF stack: plain, BigTIFF, ImageJ or OME; one channel, one time point.

    Where a file says that 0 is white, or has a table of greys, its values are turned into what is shown;
    ``remarks`` of the volume say so.

    Parameters
    ----------
    wish : Wish
        Its choice may name a channel and a time point, by their numbers from 0.
    as_stored : bool
        Leave the stored values as they are.

    Raises
    ------
    InputError
        Where the file is no TIFF, truncated, damaged, in colour, or no single stack.
    UsageError
        Where something was chosen that is not there.
    """
    wish.choice.refuse("level", "axes", where=path)
    with _opened(path) as chain:
        pages = list(Forms(chain).pages())
        with tifffile.TiffFile(path) as file:
            record = record_in(file)
            labelled = evidence_of_labels(record)
            volume = _open(path, file, pages, wish, as_stored or labelled is not None)
    volume.start = start_of(record)
    volume.origin = origin_of(record, volume.voxel_size) or volume.origin
    volume.labelled = labelled
    return volume


def tiff_record(path: Path) -> Record | None:
    """Return what vemseg wrote into a TIFF about it, None where it wrote nothing."""
    with _opened(path) as chain:
        next(chain.directories(), None)
        with tifffile.TiffFile(path) as tiff:
            return record_in(tiff)


@contextmanager
def _opened(path: Path) -> Iterator[Chain]:
    """Open a file, and turn all that goes wrong with it into one line that names it."""
    with reading(f"{path} is not a readable TIFF"), path.open("rb", buffering=0) as file:
        yield Chain.of(path, file)


def _open(
    path: Path,
    file: tifffile.TiffFile,
    pages: Sequence[Page],
    wish: Wish,
    as_stored: bool,
) -> Volume:
    stack = only_stack(path, file, pages).along_z(path, wish.choice)
    decoders = decoders_of(path, file, stack.pages)
    stored = decoders[stack.form].stored
    seen = _seen(stack, readable_dtype(stored, path), file.byteorder, wish, as_stored)
    edges = tiff_edges(file, stack)
    about: Described = {
        "voxel_size": wish.voxel_size or edges.voxel_size,
        "voxel_size_from": "option" if wish.voxel_size else "file",
        "name": volume_name(path),
        "path": path,
    }
    start = _start_of_piece(stack, stored)
    if start is None:
        decoded = DecodedTiff(stack, decoders, seen, **about)
        if stack.form.samples > 1:
            decoded.check_colours()
        volume: _Tiff = decoded
    else:
        mapped = np.memmap(path, stored.newbyteorder(file.byteorder), "r", start, tuple(stack.shape))
        volume = MappedTiff(mapped, readable_dtype(stored, path), seen, **about)
    volume.hint, volume.choice = edges.hint, wish.choice.given
    volume.origin = place_in(file, stack, volume.voxel_size)
    colours = stack.form.samples - stack.form.alpha
    volume.pictured = f"its {colours} colour samples are equal and are read as one" if colours > 1 else None
    clear = "its transparency is left out" if stack.form.alpha else None
    told = (*stack.remarks, seen.remark, volume.pictured, clear)
    volume.remarks = tuple(remark for remark in told if remark is not None)
    return volume


def _seen(stack: Stack, dtype: np.dtype[np.generic], byteorder: str, wish: Wish, as_stored: bool) -> Seen:
    show, remark = (None, None) if as_stored else as_shown(stack.form, dtype, byteorder)
    return Seen(wish, stack.order, show, remark, as_stored)


def _start_of_piece(stack: Stack, stored: np.dtype[np.generic]) -> int | None:
    """Return where the voxels of a stack begin if they lie in the file in one piece, as they are."""
    each = int(stack.form.needed.sum())
    if stored.kind not in "iuf" or not all(page.form.plain and page.in_one_piece for page in stack.pages):
        return None
    starts = np.array([page.offsets[0] for page in stack.pages])
    return int(starts[0]) if (np.diff(starts) == each).all() else None
