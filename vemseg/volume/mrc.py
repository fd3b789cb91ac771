"""Reading MRC files (``.mrc``, ``.rec``, ``.st``, ``.map``), memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from vemseg.errors import InputError
from vemseg.foreign import reading
from vemseg.names import volume_name
from vemseg.volume.base import Volume
from vemseg.volume.frame import Frame
from vemseg.volume.optional import needed
from vemseg.volume.stored import Lazy, Told, Wish, open_stored

_MARK, _AT = b"MAP ", 208
_STAMP, _STAMP_AT = 1146047817, 152
_HEADER, _EXTENDED_AT, _MACHINE_AT = 1024, 92, 212
_SIGNED, _AS_MRC2014 = 1, 4
"""Flags of IMOD: bytes are signed; the origin has the sign of MRC2014, the opposite of IMOD's own."""


def is_mrc(path: Path) -> bool:
    """Tell whether a file has the mark of MRC2014."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(_AT + len(_MARK))[_AT:] == _MARK


def open_mrc(path: Path, wish: Wish) -> Volume:
    """Open an MRC file: a volume, a stack of images, or one of several volumes (``--time``).

    Its voxel size is in ångström; its origin is heeded where the voxel size is known.

    Raises
    ------
    InputError
        Where mrcfile is missing, or the file is truncated.
    """
    wish.choice.refuse("channel", "level", "axes", where=path)
    mrcfile = needed("mrcfile", path)
    _refuse_lying_header(path)
    with reading(f"{path} is not a readable MRC file"):
        opened = mrcfile.mmap(path, mode="r", permissive=False)
    data = _bytes_of_imod(opened)
    told = Told([_frame(opened.header, opened.voxel_size, data.ndim)])
    array = Lazy(_opened, (path.absolute(),), tuple(data.shape), data.dtype)
    return open_stored(array, told, wish, path=path, name=volume_name(path), address=str(path))


def _refuse_lying_header(path: Path) -> None:
    """Refuse a file that is shorter than its extended header: mrcfile allocates that before it reads it."""
    with path.open("rb") as file:
        head = file.read(_HEADER)
    order: Literal["big", "little"] = "big" if head[_MACHINE_AT : _MACHINE_AT + 1] == b"\x11" else "little"
    extended = int.from_bytes(head[_EXTENDED_AT : _EXTENDED_AT + 4], order, signed=True)
    if extended > path.stat().st_size - _HEADER:
        raise InputError(
            f"{path} is damaged: its extended header has {extended} bytes, more than the file: copy it again"
        )


class Mapped:
    """An array in a file that is mapped anew for each part: only this part stays in memory.

    Parameters
    ----------
    data : numpy.memmap
    """

    def __init__(self, data: Any) -> None:
        self._where: tuple[Any, ...] = (data.filename, data.dtype, "r", data.offset, data.shape)

    def __getitem__(self, index: Any) -> Any:
        return np.array(np.memmap(*self._where)[index])


def _opened(path: Path) -> Mapped:
    return Mapped(_bytes_of_imod(needed("mrcfile", path).mmap(path, mode="r")))


def _bytes_of_imod(opened: Any) -> Any:
    """Return the voxels of an MRC file, as IMOD understands bytes.

    MRC2014 has them signed. IMOD says by a flag whether they are; those of a file without flags, which says
    that its values go beyond 127, can only be unsigned.
    """
    header, data, flags = opened.header, opened.data, _flags_of_imod(opened.header)
    if data.dtype != np.int8:
        return data
    signed = not (float(header.dmin) >= 0 and float(header.dmax) > 127) if flags is None else flags & _SIGNED
    return data if signed else data.view(np.uint8)


def _flags_of_imod(header: Any) -> int | None:
    """Return ``imodFlags``, None where IMOD did not leave its stamp (IMOD, "The MRC file format")."""
    stamp, flags = np.frombuffer(header.tobytes()[_STAMP_AT:][:8], header.nx.dtype)
    return int(flags) if stamp == _STAMP else None


def _frame(header: Any, voxel_size: Any, n: int) -> Frame:
    """Return the voxel size of the header, which is 0, or the number of voxels, where nobody set it.

    Columns, rows and sections may lie along any of x, y and z. Where the header states no origin, its first
    column, row and section say where the volume begins.
    """
    order = [int(header[key]) for key in ("maps", "mapr", "mapc")]
    axes = tuple("xyz"[axis - 1] for axis in order) if sorted(order) == [1, 2, 3] else ("z", "y", "x")
    edges = {axis: float(voxel_size[axis]) for axis in "xyz"}
    flags = _flags_of_imod(header)
    sign = 1 if flags is None or flags & _AS_MRC2014 else -1
    at = {axis: sign * float(header["origin"][axis]) for axis in "xyz"}
    first = dict(zip(axes, (int(header[key]) for key in ("nzstart", "nystart", "nxstart")), strict=True))
    if not any(at.values()):
        at = {axis: first[axis] * edges[axis] for axis in "xyz"}
    unset = all(edge in (0.0, 1.0) for edge in edges.values())
    units = (None if unset else "angstrom",) * 3
    frame = Frame(axes, units, tuple(edges[axis] for axis in axes), tuple(at[axis] for axis in axes))
    return frame.along(("t", *axes)[-n:] if n > 3 else axes[-n:])
