"""The types of voxels that can be read, and the types they are handed out in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vemseg.errors import InputError


def readable_dtype(dtype: object, where: str | Path) -> np.dtype[np.generic]:
    """Return the type in which the voxels of a file are handed out, in the machine's byte order.

    Integers of any width (labels may need them), float32 and float64 stay as they are, bool becomes uint8,
    float16 becomes float32, and what is longer than float64 becomes float64.

    Raises
    ------
    InputError
        For complex numbers, records, text, and whatever else is not one number.
    """
    found = np.dtype(dtype)  # type: ignore[call-overload]
    if found.kind == "b":
        return np.dtype(np.uint8)
    if found.kind == "f":
        return np.dtype(np.float32 if found.itemsize <= 4 else np.float64)
    if found.kind in "iu":
        native: np.dtype[np.generic] = found.newbyteorder("=")
        return native
    raise InputError(f"{where} holds {found} voxels: convert it to integers or float32")


def grey_dtype(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """Return the floating-point type in which grey values of a type keep their differences.

    float32 tells apart values of up to 24 bits. Integers of 32 bits and more and float64 may hold a contrast
    of a few grey levels on a large offset, which float32 would lose before the offset is subtracted: they
    need float64.
    """
    wide = dtype.itemsize > 4 or (dtype.itemsize == 4 and dtype.kind in "iu")
    return np.dtype(np.float64 if wide else np.float32)
