"""Turning the strips and tiles of a TIFF's pages into voxels: one decoder for each form of page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.foreign import reading
from vemseg.volume.dtypes import readable_dtype
from vemseg.volume.tiff_forms import Form, Page
from vemseg.volume.tiff_shown import one_sample

MOST_FORMS = 256
"""How many ways of storing pages one file may have; each is kept as tifffile's description of a page."""

SMALL_PIECE = 2**28
"""A strip or tile of fewer bytes that cannot be decoded for want of memory is damaged, not large."""


class Decoder:
    """Decodes the strips or tiles of pages that are stored alike.

    Parameters
    ----------
    form : Form
    page : tifffile.TiffPage
        One of these pages, of an open file.

    Attributes
    ----------
    form : Form
    stored : numpy.dtype
        The type of the values as they are stored.
    """

    def __init__(self, form: Form, page: tifffile.TiffPage) -> None:
        self.form = form
        self.stored = np.dtype(page.dtype)
        self._decode = page.decode  # made now: for JPEG, tifffile looks at the file
        self._nothing = page.nodata

    def read(self, path: Path, file: BinaryIO, page: Page, index: int) -> NDArray[np.generic]:
        """Decode a strip or tile of a page.

        Parameters
        ----------
        path : Path
            For messages.
        file : binary file
            The same file, open.
        page : Page
        index : int
            Which strip or tile, counted without those of further samples.

        Returns
        -------
        array (z, y, x) of the stored type, cut off where the page ends

        Raises
        ------
        InputError
            Where it does not decode, or its samples differ.
        """
        each = len(self.form.needed) // self.form.apart
        parts = [self._piece(path, file, page, index + k * each) for k in range(self.form.apart)]
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        if self.form.samples == 1:
            return samples[..., 0]
        return one_sample(samples, self.form, f"{path}, page {page.number},")

    def _piece(self, path: Path, file: BinaryIO, page: Page, index: int) -> NDArray[np.generic]:
        """Return one strip or tile as it is stored, (z, y, x, samples); empty ones hold nothing."""
        count, inside = int(page.counts[index]), self.form.samples // self.form.apart
        if count == 0:
            return np.full((*self.form.tile, inside), self._nothing).astype(self.stored)
        file.seek(int(page.offsets[index]))
        what = f"{self.form.pieces[:-1]} {index} of page {page.number}"
        with reading(f"{path} is damaged, {what} does not decode"):
            try:
                piece, _, _ = self._decode(file.read(count), index, jpegtables=self.form.tables)
            except MemoryError as error:
                if self.form.largest < SMALL_PIECE:
                    raise InputError(f"{path} is damaged, {what} claims more than its size") from error
                raise
            d, h, w = self.form.tile
            if piece.ndim != 4 or piece.shape[-1] != inside or piece.size > d * h * w * inside:
                raise InputError(f"{path} is damaged, {what} has the shape {piece.shape}")
        return np.asarray(piece)


def decoders_of(path: Path, file: tifffile.TiffFile, pages: Sequence[Page]) -> dict[Form, Decoder]:
    """Return the decoder of each form that pages have.

    Raises
    ------
    InputError
        Where a form has no type of numbers that can be read, or forms are too many.
    """
    examples = {page.form: page for page in pages}
    if len(examples) > MOST_FORMS:
        raise InputError(f"{path} stores its pages in {len(examples)} ways: write it anew")
    decoders = {}
    for form, page in examples.items():
        if page.number == 1:
            found = file.pages[0]
        else:
            file.filehandle.seek(page.offset)
            found = tifffile.TiffPage(file, page.number - 1)
        if found.dtype is None:
            raise InputError(f"{path} holds {form}, which cannot be read: convert it to integers or float32")
        readable_dtype(found.dtype, path)
        decoders[form] = Decoder(form, found)
    return decoders
