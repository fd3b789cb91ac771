"""The one way to a volume on disk: the format that recognises the path opens it.

A further format is a module that reads it and one line in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vemseg.errors import InputError
from vemseg.foreign import check_regular
from vemseg.geometry import VoxelSize, parse_box
from vemseg.names import TIFF_SUFFIXES
from vemseg.volume.about import Record
from vemseg.volume.base import Volume
from vemseg.volume.tiff import is_tiff, open_tiff, tiff_record
from vemseg.volume.views import Cropped
from vemseg.volume.zarr_reading import is_zarr, open_zarr, zarr_record


def no_record(path: Path) -> Record | None:
    """Return None: files of a format that vemseg does not write have no record."""
    return None


@dataclass(frozen=True)
class Format:
    """A way in which volumes lie on disk.

    Attributes
    ----------
    recognises : callable
        Tells whether a path is of this format. A path may also lead into a file (``cell.h5/raw``), and need
        not exist.
    open : callable
        Returns the volume at a path; its second argument is a voxel size (nm, z y x) that takes the place of
        the file's, or None.
    suffixes : tuple of str
        Endings of names, in lower case, that promise this format; only messages need them.
    record : callable
        Returns what vemseg wrote into a file about it, or None.
    """

    recognises: Callable[[Path], bool]
    open: Callable[[Path, VoxelSize | None], Volume]
    suffixes: tuple[str, ...] = ()
    record: Callable[[Path], Record | None] = no_record


FORMATS = {
    "Zarr array or group": Format(is_zarr, open_zarr, record=zarr_record),
    "TIFF stack": Format(is_tiff, open_tiff, TIFF_SUFFIXES, tiff_record),
}
"""The formats that are read, by what messages call them; the first that recognises a path opens it."""


def open_volume(path: str | Path, *, voxel_size: VoxelSize | None = None, crop: str | None = None) -> Volume:
    """Open a grey or label volume for reading; nothing but metadata is read yet.

    Parameters
    ----------
    path : str or Path
        A TIFF stack (plain, BigTIFF, ImageJ, OME; a 2-D image is a volume with z = 1), a Zarr array, an
        OME-Zarr image, or an array or ``labels/<name>`` group inside one (``cell.zarr/labels/mito``); or
        whatever else ``FORMATS`` knows.
    voxel_size : (float, float, float), optional
        nm, z y x; instead of what the file says.
    crop : str, optional
        ``z0:z1,y0:y1,x0:x1`` in voxels, as ``vemseg.geometry.parse_box`` reads it.

    Returns
    -------
    Volume
        Integers keep their type, bool becomes uint8, floating point becomes float32. ``voxel_size`` is None
        where neither the option nor the file states it.

    Raises
    ------
    InputError
        Where the path is missing, unknown, damaged, empty, in colour, complex, or has several channels or
        time points.
    UsageError
        Where ``crop`` cannot be parsed, is empty, or reaches beyond the volume.
    """
    path = Path(path)
    volume = _format_of(path).open(path, voxel_size)
    return volume if crop is None else Cropped(volume, parse_box(crop, volume.shape, str(path)))


def record(path: str | Path) -> Record | None:
    """Return what vemseg wrote into a volume's file about it, None where it wrote nothing.

    Parameters
    ----------
    path : str or Path
        Any volume that ``open_volume`` opens.

    Returns
    -------
    dict or None
        The description given when the volume was written. A cropped one has ``origin_voxels`` beside it
        (see ``Volume.origin``), and labels have ``names`` and ``colours``, by the number of the label as a
        text.

    Raises
    ------
    InputError
        Where the path is missing, damaged, or of no known format.
    """
    path = Path(path)
    return _format_of(path).record(path)


def _format_of(path: Path) -> Format:
    check_regular(path)
    try:
        found = next((known for known in FORMATS.values() if known.recognises(path)), None)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if found is None:
        raise InputError(_complaint(path))
    return found


def _complaint(path: Path) -> str:
    """Say why nothing recognises a path."""
    if not path.exists():
        return f"{path} does not exist"
    if path.is_dir():
        return (
            f"{path} is a directory but {' and '.join(f'no {title}' for title in FORMATS)}: give one of these"
        )
    for title, known in FORMATS.items():
        if path.suffix.lower() in known.suffixes:
            short = title.split()[0]
            return (
                f"{path} is no {short}, in spite of its name" if path.stat().st_size else f"{path} is empty"
            )
    return f"{path} has an unknown format: give a {' or a '.join(FORMATS)}"
