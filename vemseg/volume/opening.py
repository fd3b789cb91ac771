"""The one way to a volume on disk: by what the path is, with the voxel size and the crop of the user."""

from __future__ import annotations

from pathlib import Path

from vemseg.errors import InputError
from vemseg.geometry import VoxelSize, parse_box
from vemseg.volume.base import Volume
from vemseg.volume.tiff import open_tiff
from vemseg.volume.views import Cropped
from vemseg.volume.zarr_reading import is_zarr, open_zarr

_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")


def open_volume(path: str | Path, *, voxel_size: VoxelSize | None = None, crop: str | None = None) -> Volume:
    """Open a grey or label volume for reading; nothing but metadata is read yet.

    Parameters
    ----------
    path : str or Path
        A TIFF stack (plain, BigTIFF, ImageJ, OME; a 2-D image is a volume with z = 1), a Zarr array, an
        OME-Zarr image, or an array or ``labels/<name>`` group inside one (``cell.zarr/labels/mito``).
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
        Where ``crop`` is no box of the volume.
    """
    path = Path(path)
    volume = _open(path, voxel_size)
    return volume if crop is None else Cropped(volume, parse_box(crop, volume.shape))


def _open(path: Path, voxel_size: VoxelSize | None) -> Volume:
    if is_zarr(path):
        return open_zarr(path, voxel_size=voxel_size)
    if path.is_dir():
        raise InputError(f"{path} is a directory but no Zarr array or group: give a TIFF stack or a .zarr")
    if not path.exists():
        raise InputError(f"{path} does not exist")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if magic in _TIFF_MAGIC:
        return open_tiff(path, voxel_size=voxel_size)
    if path.suffix.lower() in _TIFF_SUFFIXES:
        raise InputError(f"{path} is no TIFF, in spite of its name" if magic else f"{path} is empty")
    raise InputError(f"{path} has an unknown format: give a TIFF stack or a Zarr array")
