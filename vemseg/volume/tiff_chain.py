"""The list of directories that a TIFF is, read and checked before anything else looks at the file.

Each page of a TIFF has a directory, a list of tags, which ends with the place of the next directory. In a
damaged file the list may run in a circle, or lead outside, and a tag may claim more values than the file has
bytes. All of that is found here, in a time that grows with the file and not with what it claims. Only then is
the file given to tifffile, which believes what it reads.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.volume.tiff_tags import Layout

MOST_TAGS = 4096
"""A directory with more tags than this is damaged; tifffile has the same limit."""

_OF_ONE_BYTE, _OF_EIGHT = dict.fromkeys((1, 2, 6, 7), 1), dict.fromkeys((5, 10, 12, 16, 17, 18), 8)
_SIZES = {3: 2, 4: 4, 8: 2, 9: 4, 11: 4, 13: 4, **_OF_ONE_BYTE, **_OF_EIGHT}
"""The bytes of one value, by the number that TIFF gives its type."""

_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}

_AT_ONCE = 512
"""The bytes that are read of a directory at first; more than most have."""


Entry: TypeAlias = tuple[int, int, bytes]
"""A tag of a directory: the type of its values, their number, and the 4 or 8 bytes that hold them.

Where the values do not fit into these bytes, they say where in the file the values lie.
"""


class Directory(NamedTuple):
    """The tags of a page by their codes; ``number`` counts pages from 1, ``offset`` is its place in bytes."""

    number: int
    offset: int
    entries: dict[int, Entry]


@dataclass
class Chain:
    """An open TIFF whose directories can be read one after the other.

    Attributes
    ----------
    path : Path
    file : binary file
        Open for reading, unbuffered.
    layout : Layout
    size : int
        Bytes of the file.
    left : int
        How many bytes of values may still be read. Values of a sound file lie side by side, so that all
        together are no more than the file.
    """

    path: Path
    file: BinaryIO
    layout: Layout
    size: int
    left: int

    def __post_init__(self) -> None:
        self._length, self._offset = self.layout.length, self.layout.number
        self._entry = struct.Struct(self.layout.order + ("HHQ8s" if self.layout.big else "HHI4s"))
        self._byteorder: Literal["little", "big"] = "little" if self.layout.order == "<" else "big"
        self._plain = {3, 4, 13, 16, 18} if self.layout.big else {3, 4, 13}

    @classmethod
    def of(cls, path: Path, file: BinaryIO) -> Chain:
        """Return the chain of a file that begins as a TIFF does."""
        size = os.fstat(file.fileno()).st_size
        start = file.read(4)
        order = ">" if start[:1] == b"M" else "<"
        layout = Layout(order, big=b"\x2b" in start)
        return cls(path, file, layout, size, left=2 * size)

    def damaged(self, what: str) -> InputError:
        """Return the error of a file that contradicts itself."""
        return InputError(f"{self.path} is damaged: {what}; copy it again, or write it anew")

    def truncated(self, what: str = "part of its data lies beyond the end of the file") -> InputError:
        """Return the error of a file that ends too early."""
        return InputError(f"{self.path} is truncated: {what}; copy it again")

    def directories(self) -> Iterator[Directory]:
        """Yield the directories in their order, each one once.

        Raises
        ------
        InputError
            Where the list leaves the file, runs in a circle, or takes more bytes than the file has.
        """
        seen: dict[int, int] = {}
        taken, at = 0, self._number(self._bytes(self.layout.first_directory, self.layout.number.size))
        while at:
            number = len(seen) + 1
            if at in seen:
                raise self.damaged(f"page {number - 1} leads back to page {seen[at]}, in a circle")
            seen[at] = number
            directory, following, length = self._directory(number, at)
            taken += length
            if taken > self.size:
                raise self.damaged("the lists of tags of its pages overlap")
            yield directory
            at = following

    def values(self, directory: Directory, code: int, name: str) -> NDArray[np.int64] | None:
        """Return the whole numbers of a tag, None where the page lacks it.

        Raises
        ------
        InputError
            Where they are no whole numbers, or lie outside the file.
        """
        entry = directory.entries.get(code)
        if entry is None or not entry[1]:
            return None
        if entry[0] not in _INTEGERS:
            raise self.damaged(f"{name} of page {directory.number} is not a whole number")
        stored = np.dtype(self.layout.order + _INTEGERS[entry[0]])
        return np.frombuffer(self.content(entry), stored).astype(np.int64)

    def number(self, entry: Entry) -> int | None:
        """Return the one unsigned whole number of a tag of 2 or 4 bytes (8 in BigTIFF), None for others."""
        kind, count, raw = entry
        return self._number(raw[: _SIZES[kind]]) if count == 1 and kind in self._plain else None

    def content(self, entry: Entry) -> bytes:
        """Return the bytes of a tag's values, in the byte order of the file."""
        kind, count, raw = entry
        size = count * _SIZES.get(kind, 0)
        if size <= len(raw):
            return raw[:size]
        self.left -= size
        if self.left < 0:
            raise self.damaged("the values of its tags overlap")
        return self._bytes(self._number(raw), size)

    def _directory(self, number: int, at: int) -> tuple[Directory, int, int]:
        """Return a directory, the place of the next one, and how many bytes this one takes."""
        length, offset = self._length, self._offset
        if not 8 <= at < self.size:
            raise self.truncated(f"page {number} lies beyond the end of the file")
        self.file.seek(at)
        data = self.file.read(_AT_ONCE)
        if len(data) < length.size:
            raise self.truncated()
        (count,) = length.unpack_from(data)
        if count > MOST_TAGS:
            raise self.damaged(f"page {number} claims {count} tags")
        each = 4 + 2 * offset.size
        end = length.size + count * each
        if end + offset.size > len(data):
            data = self._bytes(at, end + offset.size)
        found = self._entry.iter_unpack(data[length.size : end])
        entries = {code: (kind, n, raw) for code, kind, n, raw in found}
        self._check(number, entries)
        return Directory(number, at, entries), self._number(data[end : end + offset.size]), end + offset.size

    def _check(self, number: int, entries: dict[int, Entry]) -> None:
        """Refuse a directory whose tags claim more bytes than the file has, all together.

        A tag whose values lie outside the file does not count; nobody reads it.
        """
        sizes = [(count * _SIZES.get(kind, 0), raw) for kind, count, raw in entries.values()]
        if sum([size for size, _ in sizes]) <= self.size:
            return
        apart = [(size, self._number(raw)) for size, raw in sizes if size > len(raw)]
        if sum(size for size, at in apart if at + size <= self.size) > self.size:
            raise self.damaged(f"the values of the tags of page {number} overlap")

    def _bytes(self, at: int, count: int) -> bytes:
        if at + count > self.size:
            raise self.truncated()
        self.file.seek(at)
        data = self.file.read(count)
        if len(data) < count:
            raise self.truncated()
        return data

    def _number(self, raw: bytes) -> int:
        return int.from_bytes(raw, self._byteorder)
