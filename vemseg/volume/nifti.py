"""Reading NIfTI files (``.nii``, ``.nii.gz``)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.foreign import reading
from vemseg.names import volume_name
from vemseg.volume.base import Volume
from vemseg.volume.frame import Frame
from vemseg.volume.optional import needed
from vemseg.volume.stored import Lazy, Told, Wish, open_stored

MOST_UNPACKED = 2**29
"""The most bytes of a compressed file that are held in memory: a gzip file cannot be read in pieces."""

_SUFFIXES = (".nii", ".nii.gz")
_UNITS = {1: "m", 2: "mm", 3: "um"}


class Turned:
    """A NIfTI image with its axes in the opposite order, z before x, as numpy indexes an array."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __getitem__(self, index: Any) -> Any:
        return np.asarray(self._data[index[::-1]]).transpose()


def is_nifti(path: Path) -> bool:
    """Tell whether a file has the name and the mark of NIfTI."""
    if not path.is_file() or not path.name.lower().endswith(_SUFFIXES):
        return False
    with path.open("rb") as file:
        head = file.read(348)
    return head[:2] == b"\x1f\x8b" or head[344:347] == b"n+1" or head[4:7] == b"n+2"


def open_nifti(path: Path, wish: Wish) -> Volume:
    """Open a NIfTI image; its axes are x, y, z and time.

    Its place is known where a header gives an affine matrix, and no axis runs backwards in it.

    Raises
    ------
    InputError
        Where nibabel is missing, the file is damaged, its axes are turned, or it is compressed and too large.
    """
    nibabel = needed("nibabel", path)
    with reading(f"{path} is not a readable NIfTI file"):
        image = nibabel.load(path)
        _check_axes(image.affine[:3, :3], path)
    shape = tuple(int(n) for n in image.shape)
    plain = tuple(image.header.get_slope_inter()) in ((None, None), (1.0, 0.0))
    dtype = image.get_data_dtype() if plain else np.dtype(np.float32)
    packed = path.name.lower().endswith(".gz")
    if packed and math.prod(shape) * dtype.itemsize > MOST_UNPACKED:
        raise InputError(f"{path} is compressed and too large to be held in memory: gunzip it first")
    axes = ("c", "t", "z", "y", "x")[-len(shape) :]
    if len(shape) == 4:
        axes = ("t", "z", "y", "x")
    volume = open_stored(
        Lazy(_opened, (path.absolute(),), shape[::-1], dtype),
        Told([_frame(image, axes)]),
        wish,
        path=path,
        name=volume_name(path),
        address=str(path),
    )
    if (image.affine.diagonal() < 0).any() or not any(image.header[f"{form}form_code"] for form in "sq"):
        volume.origin = None  # nibabel makes up an affine matrix where the header has none
    return volume


def _check_axes(matrix: NDArray[np.float64], path: Path) -> None:
    """Refuse an image whose axes are not x, y, z in this order, and say how to turn it."""
    turned = np.abs(matrix) > 1e-6 * np.abs(matrix).max()
    if np.count_nonzero(turned) > 3:
        raise InputError(
            f"{path} is rotated in space by an angle: resample it along x, y, z first, with "
            "nibabel.processing.resample_to_output"
        )
    if not turned.diagonal().all():
        raise InputError(
            f"{path} is turned in space: bring its axes to x, y, z first, with nibabel.as_closest_canonical"
        )


def _opened(path: Path) -> Turned:
    data = needed("nibabel", path).load(path).dataobj
    return Turned(np.asarray(data) if path.name.lower().endswith(".gz") else data)


def _frame(image: Any, axes: tuple[str, ...]) -> Frame:
    """Return voxel size and place, in the unit that the header names; no unit where it names none."""
    unit = _UNITS.get(int(image.header["xyzt_units"]) & 7)
    edges = [float(edge) for edge in image.header.get_zooms()[:3]][::-1]
    place = [float(at) for at in image.affine[:3, 3]][::-1]
    return Frame(("z", "y", "x")[-len(edges) :], (unit,) * len(edges), tuple(edges), tuple(place)).along(axes)
