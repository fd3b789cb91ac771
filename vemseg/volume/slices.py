"""Reading a folder, or a pattern such as ``slices/*.tif``, of pictures that are the slices of one volume."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.foreign import reading
from vemseg.geometry import Box
from vemseg.names import is_pattern, volume_name
from vemseg.volume.base import Volume
from vemseg.volume.cache import Cache
from vemseg.volume.dtypes import readable_dtype
from vemseg.volume.foreign import needed
from vemseg.volume.stored import Wish

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
"""Endings, in lower case, of pictures that can be slices."""


class Slices(Volume):
    """One picture for each z, decoded where it is read.

    Parameters
    ----------
    files : list of Path
        In the order of z.
    """

    def __init__(self, files: list[Path], path: Path, address: str, wish: Wish) -> None:
        first = read_picture(files[0])
        super().__init__(
            (len(files), *first.shape[:2]),
            readable_dtype(first.dtype, files[0]),
            voxel_size=wish.voxel_size,
            voxel_size_from="option",
            name=volume_name(address),
            path=path,
            address=address,
        )
        self.files = files
        self._stored = first.dtype
        self._cache = Cache()

    def _read(self, box: Box) -> NDArray[np.generic]:
        out = np.empty(box.shape, self.dtype)
        for i, z in enumerate(range(box.start[0], box.stop[0])):
            out[i] = self._plane(z)[box.slices[1:]]
        return out

    def _plane(self, z: int) -> NDArray[np.generic]:
        plane = self._cache.get(z)
        if plane is None:
            plane = read_picture(self.files[z])
            if plane.shape != self.shape[1:] or plane.dtype != self._stored:
                raise InputError(
                    f"{self.files[z]} is {plane.shape} {plane.dtype}, but {self.files[0]} is "
                    f"{self.shape[1:]} {self._stored}: all slices must be alike"
                )
            self._cache.put(z, plane)
        return plane


def are_slices(path: Path) -> bool:
    """Tell whether a path is a pattern, or a folder that holds pictures."""
    if is_pattern(path.name):
        return path.parent.is_dir()
    return path.is_dir() and any(entry.suffix.lower() in SUFFIXES for entry in path.iterdir())


def open_slices(path: Path, wish: Wish) -> Volume:
    """Open pictures as one volume, in the natural order of their names: slice 2 comes before slice 10.

    Raises
    ------
    InputError
        Where there are none, they are of several kinds, of different sizes, or in colour.
    """
    wish.choice.refuse("channel", "time", "level", "axes", where=path)
    pattern = is_pattern(path.name)
    folder = path.parent if pattern else path
    found = folder.glob(path.name) if pattern else folder.iterdir()
    files = sorted((file for file in found if _is_picture(file)), key=natural)
    if not files:
        raise InputError(f"{path} names no picture: slices are TIFF, PNG, JPEG or BMP")
    if len(kinds := sorted({file.suffix.lower() for file in files})) > 1:
        raise InputError(
            f"{folder} holds pictures of several kinds ({', '.join(kinds)}): name one, {folder}/*{kinds[0]}"
        )
    sizes = {file: size for file in files if (size := _size(file)) is not None}
    if odd := [file for file, size in sizes.items() if size != sizes.get(files[0])]:
        raise InputError(
            f"{odd[0]} is {sizes[odd[0]]} pixels, but {files[0]} is {sizes.get(files[0])}: all must be alike"
        )
    return Slices(files, folder, str(path), wish)


def natural(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts names as people count: numbers in them by their value."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def read_picture(file: Path) -> NDArray[np.generic]:
    """Read a picture of one grey plane.

    Raises
    ------
    InputError
        Where it is damaged, in colour, or a stack.
    """
    with reading(f"{file} is no readable picture"):
        if file.suffix.lower() in (".tif", ".tiff"):
            plane = np.asarray(tifffile.imread(file))
        else:
            plane = np.asarray(needed("imagecodecs", file).imread(file))
    if plane.ndim == 3 and plane.shape[-1] in (3, 4) and np.ptp(plane[..., :3], axis=-1).max() == 0:
        plane = plane[..., 0]  # a grey picture saved as RGB
    plane = plane.squeeze() if plane.ndim > 2 else plane
    if plane.ndim != 2:
        raise InputError(f"{file} is no grey plane: its shape is {plane.shape}")
    return plane


def _is_picture(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _size(file: Path) -> tuple[int, int] | None:
    """Return height and width of a TIFF or PNG; None of other pictures, which would have to be decoded."""
    with reading(f"{file} is no readable picture"):
        if file.suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(file) as opened:
                page = opened.pages[0]
                return int(page.imagelength), int(page.imagewidth)
        if file.suffix.lower() == ".png":
            with file.open("rb") as opened:
                width, height = struct.unpack(">II", opened.read(24)[16:])
            return height, width
    return None
