"""New values for tags of a TIFF's first page, without touching its voxels.

A TIFF begins with the place of its first directory, the list of tags of its first page. The new values and a
new directory with them are appended to the file, which changes nothing yet; then that place is overwritten,
in one write of 4 or 8 bytes. Whoever reads the file, or is left with it after a kill, has all of the old
values or all of the new ones. The old directory stays in the file, as a few unused kilobytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import tifffile

from vemseg.errors import InputError

ASCII, LONG, BYTE = 2, 4, 1
"""Types of values, by the numbers that TIFF gives them."""

LARGEST_TIFF = 2**32
"""The bytes of a file at which offsets of 4 bytes end; longer TIFFs need offsets of 8 bytes."""

_SIZES = {ASCII: 1, LONG: 4, BYTE: 1}


@dataclass(frozen=True)
class Value:
    """The new value of a tag.

    Attributes
    ----------
    type : int
        ``ASCII``, ``LONG`` or ``BYTE``.
    data : bytes
        In the byte order of the file.
    """

    type: int
    data: bytes

    @property
    def count(self) -> int:
        """How many values of its type the data are."""
        return len(self.data) // _SIZES[self.type]


@dataclass(frozen=True)
class Layout:
    """How wide numbers are in a TIFF (4 bytes) or BigTIFF (8 bytes), and in which order their bytes are."""

    order: str
    big: bool

    @property
    def number(self) -> struct.Struct:
        """The format of an offset in the file, or of the count of a tag."""
        return struct.Struct(self.order + ("Q" if self.big else "I"))

    @property
    def length(self) -> struct.Struct:
        """The format of the number of tags in a directory."""
        return struct.Struct(self.order + ("Q" if self.big else "H"))

    @property
    def first_directory(self) -> int:
        """The offset at which the file says where its first directory begins."""
        return 8 if self.big else 4

    def entry(self, code: int, value: Value, offset: int) -> bytes:
        """Return the entry of a tag whose data lie at an offset, or in the entry where they are short."""
        short = len(value.data) <= self.number.size
        place = value.data.ljust(self.number.size, b"\0") if short else self.number.pack(offset)
        return struct.pack(self.order + "HH", code, value.type) + self.number.pack(value.count) + place


def replace_tags(path: Path, values: Mapping[int, Value], in_place: Sequence[tuple[int, bytes]] = ()) -> None:
    """Give tags of the first page new values, all at once.

    Parameters
    ----------
    path : Path
        A TIFF. Until all that is new has been written, bytes are only appended to it.
    values : mapping of int to Value
        The new value of each tag, by the code of the tag.
    in_place : sequence of (int, bytes)
        Offsets in the file, and the bytes to write there just before the new values become valid.

    Raises
    ------
    InputError
        Where the file is a TIFF of 4 GB that cannot grow.
    """
    with path.open("r+b") as file:
        with tifffile.TiffFile(path) as tiff:
            layout = Layout(tiff.byteorder, tiff.is_bigtiff)
            entries = dict(_entries(file, layout))
        end = file.seek(0, os.SEEK_END)
        blocks, directory = _directory(layout, entries, values, end + end % 2)
        if not layout.big and end + len(blocks) >= LARGEST_TIFF:
            raise InputError(f"{path} is a TIFF of nearly 4 GB, which cannot grow: write the labels anew")
        file.write(b"\0" * (end % 2) + blocks)
        _flush(file)
        for offset, data in in_place:
            file.seek(offset)
            file.write(data)
        file.seek(layout.first_directory)
        file.write(layout.number.pack(directory))
        _flush(file)


def _entries(file: BinaryIO, layout: Layout) -> Iterator[tuple[int, bytes]]:
    """Yield code and bytes of each entry of the first directory; the last, of code -1, leads to the next."""
    number, length = layout.number, layout.length
    file.seek(layout.first_directory)
    (start,) = number.unpack(file.read(number.size))
    file.seek(start)
    (count,) = length.unpack(file.read(length.size))
    for _ in range(count):
        entry = file.read(4 + 2 * number.size)
        yield struct.unpack_from(layout.order + "H", entry)[0], entry
    yield -1, file.read(number.size)


def _directory(
    layout: Layout, entries: dict[int, bytes], values: Mapping[int, Value], start: int
) -> tuple[bytes, int]:
    """Return what is to be appended at an offset, and where the directory in it begins."""
    data, changed = b"", dict(entries)
    following = changed.pop(-1)
    for code, value in values.items():
        changed[code] = layout.entry(code, value, start + len(data))
        data += value.data + b"\0" * (len(value.data) % 2)
    listed = b"".join(changed[code] for code in sorted(changed))
    return data + layout.length.pack(len(changed)) + listed + following, start + len(data)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
