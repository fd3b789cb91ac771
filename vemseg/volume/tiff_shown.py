"""The grey values that a TIFF shows, where these are not the values that it stores.

A page may say that 0 is white, or that its values are places in a table of colours. Viewers show what is
meant; labels are what is stored.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.volume.tiff_forms import PALETTE, WHITE_IS_ZERO, Form

Show = Callable[[NDArray[np.generic]], NDArray[np.generic]]
"""Turns stored values into shown ones, of the same shape and type."""


def as_shown(form: Form, dtype: np.dtype[np.generic], order: str) -> tuple[Show | None, str | None]:
    """Return what turns stored values into shown ones (None: nothing), and what to tell the user of it.

    Parameters
    ----------
    form : Form
    dtype : numpy.dtype
        In which voxels are handed out.
    order : str
        ``"<"`` or ``">"``: the byte order of the colour table.
    """
    if form.meaning == WHITE_IS_ZERO:
        return _inverted(dtype, form.bits[0]), "it says that 0 is white; its values are inverted"
    if form.meaning != PALETTE:
        return None, None
    table = np.frombuffer(form.colours, order + "u2").astype(np.uint16)
    table = table.reshape(3, -1) if table.size and table.size % 3 == 0 else np.zeros((3, 0), np.uint16)
    grey = table[0]
    is_grey = (table == grey).all() and len(grey) >= 2 ** form.bits[0] and len(np.unique(grey)) > 1
    if not is_grey or dtype.kind != "u":
        return None, "its colour table is not one of greys; the stored values count"
    if dtype == np.uint8 and grey.max() > 255:
        grey = grey >> 8
    shown = grey.astype(dtype)
    if (shown == np.arange(len(shown))).all():
        return None, None
    return (lambda values: shown[values]), "its values are shown through a table of greys, which is applied"


def _inverted(dtype: np.dtype[np.generic], bits: int) -> Show:
    """Return the function that swaps black and white; unsigned values have so many bits."""
    if dtype.kind == "f":
        return lambda values: np.negative(values)
    if dtype.kind == "i":
        return lambda values: np.invert(values)
    most = dtype.type(2 ** min(bits, 8 * dtype.itemsize) - 1)
    return lambda values: np.subtract(most, values)


def one_sample(samples: NDArray[np.generic], form: Form, where: str) -> NDArray[np.generic]:
    """Return the grey values of voxels with several samples, all of which are equal, transparency aside.

    Parameters
    ----------
    samples : array (z, y, x, samples)
    where : str
        The file and page, for the message.

    Raises
    ------
    InputError
        Where the samples of a voxel differ.
    """
    first = samples[..., 0]
    for other in range(1, form.samples - form.alpha):
        if not np.array_equal(first, samples[..., other]):
            raise InputError(
                f"{where} has {form.samples} colour samples, which differ: extract one as a grey stack "
                "(in Fiji: Image > Type > 8-bit)"
            )
    return first
