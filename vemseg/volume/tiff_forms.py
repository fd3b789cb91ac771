"""How the voxels of a TIFF's page are stored, and where: read from its tags, page by page.

Nothing is taken from the first page for granted. Pages that are stored alike share one ``Form``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.geometry import ZYX
from vemseg.volume.tiff_chain import Chain, Directory, Entry

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3
"""What the values of a page mean, by the numbers of the tag PhotometricInterpretation."""

_SCALARS = {
    "kind": (254, 0),
    "old_kind": (255, 0),
    "width": (256, 0),
    "length": (257, 0),
    "compression": (259, 1),
    "meaning": (262, 1),
    "bit_order": (266, 1),
    "samples": (277, 1),
    "rows": (278, 2**32 - 1),
    "planar": (284, 1),
    "predictor": (317, 1),
    "tile_width": (322, 0),
    "tile_length": (323, 0),
    "depth": (32997, 1),
    "tile_depth": (32998, 1),
}
"""Tags of one whole number: code, and what holds where the tag is absent."""

_OTHERS = (258, 292, 293, 320, 338, 339, 347, 530, 42113, 65007, 65008, 65009)
"""Further tags that say how to decode a page: bits, type, colours, JPEG tables, and options of codecs."""

_CODES = (*(code for code, _ in _SCALARS.values()), *_OTHERS)

_OFFSETS, _COUNTS = (324, 273, 513), (325, 279, 514)
"""Where strips or tiles lie and how long they are: of tiles, of strips, of old JPEGs."""

_FOREIGN = {34412: "Zeiss LSM", 33629: "MetaMorph STK", 34362: "FluoView"}
"""Formats that count planes in a tag of their own, by the code of that tag."""

_DEFLATE, _ZSTD = dict.fromkeys((8, 32946, 50013), 1040), dict.fromkeys((34926, 50000), 2**16)
_JPEG = dict.fromkeys((6, 7, 33007, 34892), 2048)
RATIOS = {1: 1, 5: 1500, 32773: 66, 34925: 2**15, **_DEFLATE, **_ZSTD, **_JPEG}
"""How many bytes one stored byte can become at most, by the number of a compression.

None, LZW, PackBits, LZMA, Deflate, Zstandard and JPEG (a bit for 64 pixels of two bytes), rounded up.
"""

MOST_PER_BYTE = 2**24
"""The same for other compressions, which describe an empty picture in a few bytes."""

_HEADERS = 64
"""Bytes that a strip of any size may become beyond its ratio."""


@dataclass(frozen=True, eq=False)
class Form:
    """How pages store their voxels. Two pages stored alike have the same object.

    Attributes
    ----------
    width, length, depth : int
        Voxels of a page along x, y, z.
    bits, formats : tuple of int
        Bits of a sample, and whether it is unsigned (1), signed (2) or floating point (3), for each sample.
    extra : tuple of int
        What samples beyond grey or colour are: 0 unknown, 1 or 2 alpha.
    meaning : int
        ``WHITE_IS_ZERO``, ``BLACK_IS_ZERO``, ``RGB``, ``PALETTE``, or another.
    colours : bytes
        The colour table in the byte order of the file; empty where there is none.
    tables : bytes or None
        The tables that JPEGs of the page share.
    """

    kind: int
    old_kind: int
    width: int
    length: int
    compression: int
    meaning: int
    bit_order: int
    samples: int
    rows: int
    planar: int
    predictor: int
    tile_width: int
    tile_length: int
    depth: int
    tile_depth: int
    bits: tuple[int, ...]
    formats: tuple[int, ...]
    extra: tuple[int, ...]
    colours: bytes
    tables: bytes | None

    @property
    def tiled(self) -> bool:
        """Whether the page consists of tiles, not strips."""
        return self.tile_width > 0

    @property
    def pieces(self) -> str:
        """The word for what the page consists of."""
        return "tiles" if self.tiled else "strips"

    @cached_property
    def plain(self) -> bool:
        """Whether the voxels are whole bytes, stored as they are: one number each, without compression."""
        as_they_are = (self.compression, self.predictor, self.bit_order, self.samples) == (1, 1, 1, 1)
        return as_they_are and not self.tiled and self.bits[0] in (8, 16, 32, 64)

    @property
    def reduced(self) -> bool:
        """Whether the file calls the page a smaller version of another one, or a mask."""
        return bool(self.kind & 0b101) or self.old_kind == 2

    @property
    def area(self) -> int:
        """Voxels of the page."""
        return self.depth * self.length * self.width

    @cached_property
    def voxels(self) -> tuple[object, ...]:
        """What the pages of a stack must share: their size, and the type and the meaning of their values."""
        shape = (self.depth, self.length, self.width)
        return shape, self.samples, self.bits, self.formats, self.extra, self.meaning, self.colours

    @cached_property
    def tile(self) -> ZYX:
        """The shape of a tile or strip; the last strip may have fewer rows."""
        if self.tiled:
            return self.tile_depth, self.tile_length, self.tile_width
        return 1, min(self.rows, self.length), self.width

    @cached_property
    def grid(self) -> ZYX:
        """How many tiles or strips the page has along z, y, x, for each sample that is stored apart."""
        d, h, w = self.tile
        return -(-self.depth // d), -(-self.length // h), -(-self.width // w)

    @property
    def apart(self) -> int:
        """How many samples are stored apart from each other: all or one."""
        return self.samples if self.planar == 2 else 1

    @cached_property
    def alpha(self) -> int:
        """How many of the samples are transparency, the last ones."""
        clear = bool(self.extra) and all(kind in (1, 2) for kind in self.extra)
        return min(len(self.extra), self.samples - 1) if clear else 0

    def __str__(self) -> str:
        name = {1: "uint", 2: "int", 3: "float"}.get(self.formats[0])
        what = f"{name}{self.bits[0]}" if name else f"type {self.formats[0]} of {self.bits[0]} bits"
        deep = f"{self.depth} x " if self.depth > 1 else ""
        many = f", {self.samples} samples each" if self.samples > 1 else ""
        meant = {WHITE_IS_ZERO: ", white is 0", PALETTE: ", in palette colours"}.get(self.meaning, "")
        return f"{deep}{self.length} x {self.width} pixels of {what}{many}{meant}"

    @cached_property
    def row_bytes(self) -> int:
        """The bytes that a row of a tile or strip becomes."""
        return -(-self.tile[2] * sum(self.bits[: self.samples if self.apart == 1 else 1]) // 8)

    @property
    def largest(self) -> int:
        """The bytes that a whole tile or strip becomes."""
        return self.tile[0] * self.tile[1] * self.row_bytes

    @cached_property
    def needed(self) -> NDArray[np.int64]:
        """The bytes that each strip or tile becomes, in their order in the file."""
        nz, ny, nx = self.grid
        rows = np.full(ny, self.tile[1], np.int64)
        if not self.tiled:
            rows[-1] = self.length - (ny - 1) * self.tile[1]
        return np.tile(np.repeat(rows * (self.tile[0] * self.row_bytes), nx), nz * self.apart)


class Page(NamedTuple):
    """A page: its number from 1, the place of its directory, its form, and where its strips or tiles lie."""

    number: int
    offset: int
    form: Form
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def in_one_piece(self) -> bool:
        """Whether the voxels lie in the file as they are, row after row."""
        form = self.form
        if form.compression != 1 or form.tiled or form.apart > 1 or not self.counts.all():
            return False
        return len(self.offsets) == 1 or bool((np.diff(self.offsets) == form.needed[:-1]).all())


@dataclass
class Forms:
    """Reads the pages of a chain, and keeps one form for all pages that are stored alike.

    Attributes
    ----------
    chain : Chain
    """

    chain: Chain
    _seen: dict[tuple[Entry | None, ...], Form] = field(default_factory=dict)
    _known: dict[tuple[object, ...], Form] = field(default_factory=dict)
    _contents: dict[Entry, bytes] = field(default_factory=dict)

    def pages(self) -> Iterator[Page]:
        """Yield the pages of the file; directories without any tags are no pages.

        Raises
        ------
        InputError
            Where planes are counted in a format of their own, a page lacks its size or data, or its strips or
            tiles do not lie in the file or are too short for what they should become.
        """
        for directory in self.chain.directories():
            foreign = next((name for code, name in _FOREIGN.items() if code in directory.entries), None)
            if foreign is not None:
                how = "save it as TIFF or OME-TIFF (in Fiji: File > Save As)"
                raise InputError(f"{self.chain.path} is a stack of {foreign}: {how}")
            if directory.entries:
                yield self._page(directory)

    def _page(self, directory: Directory) -> Page:
        form = self._form(directory)
        offsets, counts = self._places(directory, form)
        return Page(directory.number, directory.offset, form, offsets, counts)

    def _form(self, directory: Directory) -> Form:
        """Return the form of a page: the one that is known for the same bytes, or for the same values."""
        entries = directory.entries
        listed = tuple([entries.get(code) for code in _CODES])
        form = self._seen.get(listed)
        if form is None:
            key = tuple((code, self._content(entries[code])) for code in _CODES if code in entries)
            if key not in self._known:
                self._known[key] = self._read_form(directory)
                self._check_claims(directory.number, self._known[key])
            form = self._seen[listed] = self._known[key]
        return form

    def _content(self, entry: Entry) -> bytes:
        """Return the bytes of a tag's values, which many pages may share."""
        if entry not in self._contents:
            self._contents[entry] = self.chain.content(entry)
        return self._contents[entry]

    def _read_form(self, directory: Directory) -> Form:
        chain, number = self.chain, directory.number

        def several(code: int, default: int, name: str) -> tuple[int, ...]:
            found = chain.values(directory, code, name)
            return (default,) if found is None else tuple(found.tolist())

        one = {name: several(code, default, name)[0] for name, (code, default) in _SCALARS.items()}
        samples = max(1, one["samples"])
        if min(one["width"], one["length"], one["depth"]) < 1 or samples > 2**16:
            raise chain.damaged(f"page {number} has no size")
        if one["rows"] < 1 or (278 in directory.entries and directory.entries[278][1] > 1):
            one["rows"] = one["length"]
        if one["tile_width"] < 0 or (one["tile_width"] and min(one["tile_length"], one["tile_depth"]) < 1):
            raise chain.damaged(f"page {number} has tiles without a size")
        bits, formats = several(258, 1, "bits"), several(339, 1, "type")
        if min(bits) < 1 or max(bits) > 128:
            raise chain.damaged(f"page {number} claims {max(bits)} bits for a sample")
        entries = directory.entries
        return Form(
            **one | {"samples": samples},
            bits=(bits + bits[-1:] * samples)[:samples],
            formats=(formats + formats[-1:] * samples)[:samples],
            extra=several(338, 0, "extra samples") if 338 in entries else (),
            colours=self._content(entries[320]) if 320 in entries and one["meaning"] == PALETTE else b"",
            tables=self._content(entries[347]) if 347 in entries else None,
        )

    def _check_claims(self, number: int, form: Form) -> None:
        """Refuse a form whose strips or tiles are larger or more than the file can hold."""
        if form.largest > self.chain.size * MOST_PER_BYTE:
            raise self.chain.damaged(f"page {number} claims {form.pieces} of {form.largest} bytes")
        if (many := math.prod(form.grid) * form.apart) > self.chain.size:
            raise self.chain.damaged(f"page {number} claims {many} {form.pieces}")

    def _places(self, directory: Directory, form: Form) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the strips or tiles of a page lie, and how long they are."""
        needed = form.needed
        offsets = self._first(directory, _OFFSETS)
        counts = self._first(directory, _COUNTS)
        if counts is None and form.compression == 1:
            counts = needed
        if offsets is None or counts is None:
            raise self.chain.damaged(f"page {directory.number} does not say where its data lie, or how long")
        listed = min(len(offsets), len(counts))
        if listed < len(needed):
            belong = f"{listed} {form.pieces} where {len(needed)} belong"
            raise self.chain.damaged(f"page {directory.number} lists {belong}")
        offsets, counts = offsets[: len(needed)], counts[: len(needed)]
        if form.compression == 1 and not counts.all():  # some programs leave the lengths 0
            counts = np.where((counts == 0) & (offsets > 0), needed, counts)
        if not (form.tiled or counts.any()):
            raise self.chain.damaged(f"page {directory.number} holds no data")
        self._check(directory.number, form, offsets, counts)
        return offsets, counts

    def _check(self, number: int, form: Form, offsets: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Refuse strips or tiles that are outside the file, or too short for what they become."""
        chain, needed = self.chain, form.needed
        ratio = RATIOS.get(form.compression, MOST_PER_BYTE)
        most = counts if ratio == 1 else counts * ratio + _HEADERS
        if len(offsets) == 1:
            at, count = int(offsets[0]), int(counts[0])
            if 0 <= at <= chain.size - count and count > 0 and int(needed[0]) <= int(most[0]):
                return
        if offsets.min() < 0 or counts.min() < 0:
            raise chain.damaged(f"page {number} has data at a negative place or of a negative length")
        if ((offsets > chain.size - counts) & (counts > 0)).any():
            raise chain.truncated(f"part of page {number} lies beyond the end of the file")
        short = (counts > 0) & (needed > most)
        if short.any():
            i = int(short.argmax())
            raise chain.damaged(
                f"{form.pieces[:-1]} {i} of page {number} has {counts[i]} bytes, "
                f"too few for the {needed[i]} that it should become"
            )

    def _first(self, directory: Directory, codes: tuple[int, ...]) -> NDArray[np.int64] | None:
        """Return the values of the first of these tags that a page has."""
        for code in codes:
            if code in directory.entries:
                one = self.chain.number(directory.entries[code])
                if one is not None:
                    return np.array([one], np.int64)
                return self.chain.values(directory, code, "the place or length of data")
        return None
