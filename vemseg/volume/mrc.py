"""Reading MRC files (``.mrc``, ``.rec``, ``.st``, ``.map``), memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vemseg.errors import InputError
from vemseg.foreign import reading
from vemseg.names import volume_name
from vemseg.volume.base import Volume
from vemseg.volume.foreign import needed
from vemseg.volume.frame import Frame
from vemseg.volume.stored import Lazy, Told, Wish, open_stored

_MARK, _AT = b"MAP ", 208


def is_mrc(path: Path) -> bool:
    """Tell whether a file has the mark of MRC2014."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(_AT + len(_MARK))[_AT:] == _MARK


def open_mrc(path: Path, wish: Wish) -> Volume:
    """Open an MRC file. Its voxel size is in ångström; its origin is heeded where the voxel size is known.

    Raises
    ------
    InputError
        Where mrcfile is missing, the file is truncated, or its axes are turned.
    """
    wish.choice.refuse("channel", "time", "level", "axes", where=path)
    mrcfile = needed("mrcfile", path)
    with reading(f"{path} is no readable MRC file"):
        opened = mrcfile.mmap(path, mode="r", permissive=False)
    header, data = opened.header, opened.data
    if tuple(int(header[key]) for key in ("mapc", "mapr", "maps")) != (1, 2, 3):
        raise InputError(f"{path} stores its axes in another order than x, y, z: turn it with IMOD first")
    told = Told([_frame(header, opened.voxel_size)])
    array = Lazy(_opened, (path.absolute(),), tuple(data.shape), data.dtype)
    return open_stored(array, told, wish, path=path, name=volume_name(path), address=str(path))


def _opened(path: Path) -> Any:
    return needed("mrcfile", path).mmap(path, mode="r").data


def _frame(header: Any, voxel_size: Any) -> Frame:
    """Return the voxel size of the header, which is 0, or the number of voxels, where nobody set it."""
    edges = [float(voxel_size[axis]) for axis in "zyx"]
    at = [float(header["origin"][axis]) for axis in "zyx"]
    unset = all(edge in (0.0, 1.0) for edge in edges)
    units = (None if unset else "angstrom",) * 3
    return Frame(("z", "y", "x"), units, tuple(edges), tuple(at))
