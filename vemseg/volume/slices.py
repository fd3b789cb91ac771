"""Reading a folder, or a pattern such as ``slices/*.tif``, of pictures that are the slices of one volume."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from vemseg.cache import Cache
from vemseg.errors import InputError
from vemseg.files import matching
from vemseg.foreign import reading
from vemseg.geometry import Box
from vemseg.names import is_pattern, volume_name
from vemseg.volume.base import Volume
from vemseg.volume.dtypes import readable_dtype
from vemseg.volume.optional import needed
from vemseg.volume.stored import Wish
from vemseg.volume.tiff import open_tiff

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
"""Endings, in lower case, of pictures that can be slices."""

_LAST_BYTES = 4096
"""Where the end of a JPEG is looked for; some programs write something after it."""


class Slices(Volume):
    """One picture for each z, decoded where it is read.

    Parameters
    ----------
    files : list of Path
        In the order of z.
    path : Path
        Their folder, or the pattern that they match.
    """

    def __init__(
        self, files: list[Path], path: Path, address: str, wish: Wish, *, as_stored: bool = False
    ) -> None:
        first = read_picture(files[0], as_stored)
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
        self._first, self._as_stored = first.dtype, as_stored
        self._made_of = files, path, address, wish
        self._cache = Cache()

    def stored(self) -> Volume:
        """Return the volume of the stored values, whatever the files say that they mean."""
        return Slices(*self._made_of, as_stored=True)

    def _read(self, box: Box) -> NDArray[np.generic]:
        out = np.empty(box.shape, self.dtype)
        for i, z in enumerate(range(box.start[0], box.stop[0])):
            out[i] = self._plane(z)[box.slices[1:]]
        return out

    def _plane(self, z: int) -> NDArray[np.generic]:
        plane = self._cache.get(z)
        if plane is None:
            plane = read_picture(self.files[z], self._as_stored)
            if plane.shape != self.shape[1:] or plane.dtype != self._first:
                raise InputError(
                    f"{self.files[z]} is {plane.shape} {plane.dtype}, but {self.files[0]} is "
                    f"{self.shape[1:]} {self._first}: all slices must be alike"
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
    found = matching(path) if pattern else folder.iterdir()
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
    volume = Slices(files, path, str(path), wish)
    first = open_tiff(files[0]) if _is_tiff(files[0]) else None
    shown = () if first is None else first.remarks
    volume.remarks = (*shown, *missing_numbers(files))
    volume.hint = None if first is None else _hint(first)
    return volume


def missing_numbers(files: Sequence[Path]) -> tuple[str, ...]:
    """Return what is odd about the numbers in names of slices: gaps, or several slices of one number.

    The last number of a name counts. Where they rise by the same step from slice to slice, nothing is odd.

    Parameters
    ----------
    files : sequence of Path
        In their natural order.

    Returns
    -------
    tuple of str
        One sentence, or none.
    """
    numbers = [int(found[-1]) for file in files if (found := re.findall(r"\d+", file.stem))]
    if len(numbers) < len(files) or len(files) < 3:
        return ()
    steps = [after - before for before, after in pairwise(numbers)]
    usual = max(set(steps), key=steps.count)
    odd = next((i for i, step in enumerate(steps) if step != usual), None)
    if odd is None:
        return ("the last number in the names of all slices is the same",) if usual == 0 else ()
    names = f"{files[odd].name} is followed by {files[odd + 1].name}"
    return (f"slices may be missing, or be of several series: {names}",)


def _hint(first: Volume) -> str | None:
    """Return what the first slice says of the voxel size; it cannot say how far the next one is away."""
    if first.voxel_size is None:
        return first.hint
    _, y, x = first.voxel_size
    return f"the first slice says y {y:.6g} nm, x {x:.6g} nm: --voxel-size ?,{y:.6g},{x:.6g}"


def natural(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts names as people count: numbers in them by their value."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def read_picture(file: Path, as_stored: bool = False) -> NDArray[np.generic]:
    """Read a picture of one grey plane, as it is shown.

    Parameters
    ----------
    file : Path
    as_stored : bool
        Return the values of a TIFF as they are stored, whatever it says that they mean.

    Raises
    ------
    InputError
        Where it is damaged, in colour, or a stack.
    """
    if _is_tiff(file):
        volume = open_tiff(file, as_stored=as_stored)
        if volume.shape[0] > 1:
            raise InputError(
                f"{file} is a stack of {volume.shape[0]} planes and no slice: name one file alone"
            )
        plane: NDArray[np.generic] = volume.read(volume.box)[0]
        return plane
    with reading(f"{file} is not a readable picture"):
        _check_end(file)
        plane = np.asarray(needed("imagecodecs", file).imread(file))
    if plane.ndim == 3 and plane.shape[-1] == 2:
        plane = plane[..., 0]  # the other is transparency
    if plane.ndim == 3 and plane.shape[-1] in (3, 4) and np.ptp(plane[..., :3], axis=-1).max() == 0:
        plane = plane[..., 0]  # a grey picture saved as RGB
    plane = plane.squeeze() if plane.ndim > 2 else plane
    if plane.ndim != 2:
        raise InputError(f"{file} is not a grey plane: its shape is {plane.shape}")
    return plane


def _check_end(file: Path) -> None:
    """Refuse a JPEG without its end: decoders fill what is missing with grey."""
    with file.open("rb") as opened:
        jpeg = opened.read(2) == b"\xff\xd8"
        opened.seek(max(0, opened.seek(0, 2) - _LAST_BYTES))
        if jpeg and b"\xff\xd9" not in opened.read():
            raise InputError(f"{file} is truncated: the end of its picture is missing; copy it again")


def _is_tiff(file: Path) -> bool:
    return file.suffix.lower() in (".tif", ".tiff")


def _is_picture(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _size(file: Path) -> tuple[int, int] | None:
    """Return height and width of a TIFF or PNG; None of other pictures, which would have to be decoded."""
    with reading(f"{file} is not a readable picture"):
        if _is_tiff(file):
            with tifffile.TiffFile(file) as opened:
                page = opened.pages[0]
                return int(page.imagelength), int(page.imagewidth)
        if file.suffix.lower() == ".png":
            with file.open("rb") as opened:
                width, height = struct.unpack(">II", opened.read(24)[16:])
            return height, width
    return None
