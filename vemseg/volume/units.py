"""Lengths as file formats spell them, in nm.

ImageJ, OME and NGFF each have their own words for a micrometre. Where the unit is missing or
is not a length ("pixel"), the voxel size is unknown: a number without a unit is never taken as nanometres.
"""

from __future__ import annotations

import math
import re

from vemseg.geometry import VoxelSize

_NM: dict[str, float] = {
    "a": 0.1, "å": 0.1, "\u212b": 0.1, "angstrom": 0.1, "ångström": 0.1, "ångstrom": 0.1,
    "pm": 1e-3, "picometer": 1e-3,
    "nm": 1.0, "nanometer": 1.0, "nano": 1.0,
    "um": 1e3, "µm": 1e3, "\u03bcm": 1e3, "micron": 1e3, "micrometer": 1e3, "mu": 1e3,
    "mm": 1e6, "millimeter": 1e6,
    "cm": 1e7, "centimeter": 1e7,
    "m": 1e9, "meter": 1e9,
    "in": 2.54e7, "inch": 2.54e7, "inches": 2.54e7,
}  # fmt: skip


def nanometres(unit: object) -> float | None:
    r"""Return how many nm one ``unit`` is, or None where it is not a unit of length.

    Parameters
    ----------
    unit : object
        As found in a file: ``"micron"``, ``"µm"``, ``"nanometer"``, ``None``. ImageJ writes µ as the six
        characters ``\u00B5``; both Unicode letters for it are known, and British spellings and plurals.
    """
    if not isinstance(unit, str):
        return None
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found.group(1), 16)), unit).strip().lower()
    text = re.sub(r"metres?$|meters$", "meter", text)
    text = re.sub(r"(?<=micron|gstrom)s$", "", text)
    return _NM.get(text)


def voxel_size_or_none(z: float | None, y: float | None, x: float | None) -> VoxelSize | None:
    """Return three edges in nm as a voxel size, or None unless all are known, finite and positive."""
    if z is None or y is None or x is None:
        return None
    return (z, y, x) if all(math.isfinite(edge) and edge > 0 for edge in (z, y, x)) else None
