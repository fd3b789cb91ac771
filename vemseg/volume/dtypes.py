"""The types of voxels that can be read, and the types they are handed out in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vemseg.errors import InputError


def readable_dtype(dtype: object, where: str | Path) -> np.dtype[np.generic]:
    """Return the type in which the voxels of a file are handed out, in the machine's byte order.

    Integers of any width (labels may need them) and float32 stay as they are, bool becomes uint8, float16 and
    float64 become float32 (grey values need no more than its 24 bits).

    Raises
    ------
    InputError
        For complex numbers, records, text, and whatever else is not one number.
    """
    found = np.dtype(dtype)  # type: ignore[call-overload]
    if found.kind == "b":
        return np.dtype(np.uint8)
    if found.kind == "f":
        return np.dtype(np.float32)
    if found.kind in "iu":
        native: np.dtype[np.generic] = found.newbyteorder("=")
        return native
    raise InputError(f"{where} holds {found} voxels: convert it to integers or float32")
