"""The volumes that commands begin with, grey ones and labels: opened, checked, turned and described."""

from __future__ import annotations

import logging
from pathlib import Path

from vemseg.geometry import ZYX, parse_voxel_size, sharp_axis
from vemseg.recipe import VolumeTable
from vemseg.volume.base import Volume
from vemseg.volume.intensity import Intensity, measure_intensity
from vemseg.volume.meaning import check_grey, check_labels
from vemseg.volume.opening import open_volume, record
from vemseg.volume.views import Cropped, Permuted

_log = logging.getLogger("vemseg")

SHARP_PLANE_FIRST: tuple[ZYX, ZYX, ZYX] = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
"""The order of the axes that turns a volume's sharp plane to (y, x), by the axis across that plane."""


def open_grey(path: str | Path, voxel_size: str | None = None, crop: str | None = None) -> Volume:
    """Open a grey volume, crop it, and say once where its voxel size is unknown.

    Parameters
    ----------
    path : str or Path
    voxel_size, crop : str, optional
        As a user writes them; the voxel size is the file's where left out.

    Raises
    ------
    InputError
        Where it cannot be read, or holds labels.
    UsageError
        Where the voxel size or crop cannot be parsed, or the crop reaches beyond the volume.
    """
    size = None if voxel_size is None else parse_voxel_size(voxel_size)
    volume = open_volume(path, voxel_size=size, crop=crop)
    check_grey(volume)
    _tell(volume)
    if volume.voxel_size is None:
        _log.warning(
            "%s: voxel size unknown, taken as the model's; outputs carry none (%s)",
            volume.name,
            volume.size_hint or "--voxel-size z,y,x gives it",
        )
    return volume


def open_labels(path: str | Path, crop: str | None = None) -> Volume:
    """Open a volume of labels, and crop it.

    Raises
    ------
    InputError
        Where it cannot be read, or holds no labels.
    UsageError
        Where the crop cannot be parsed, or reaches beyond the volume.
    """
    volume = open_volume(path, crop=crop).stored()
    check_labels(volume)
    _tell(volume)
    return volume


def _tell(volume: Volume) -> None:
    """Say how a file was understood, where that is not plain."""
    for remark in volume.remarks:
        _log.warning("%s: %s", volume.path or volume.name, remark)


def crop_of(path: str | Path) -> str | None:
    """Return the crop that labels say they were made from; None where they name none."""
    about = (record(path) or {}).get("volume")
    crop = about.get("crop") if isinstance(about, dict) else None
    return crop if isinstance(crop, str) else None


def sharp_plane_first(volume: Volume) -> tuple[Volume, ZYX]:
    """Turn a volume so that its sharp plane is (y, x); return it and the order of the axes."""
    order = SHARP_PLANE_FIRST[sharp_axis(volume.voxel_size)]
    return (volume if order == (0, 1, 2) else Permuted(volume, order)), order


def intensity_of(volume: Volume, table: VolumeTable) -> Intensity:
    """Return the mapping of a volume's grey values to [0, 1] that a recipe asks for."""
    if table.intensity == "range":
        return Intensity(*table.range)
    return measure_intensity(volume, table.percentiles)


def describe(volume: Volume, intensity: Intensity | None = None) -> dict[str, object]:
    """Return what provenance says of an input volume."""
    facts: dict[str, object] = {
        "path": None if volume.path is None else str(volume.path.resolve()),
        "shape": list(volume.shape),
        "dtype": str(volume.dtype),
        "voxel_size_nm": None if volume.voxel_size is None else list(volume.voxel_size),
        "voxel_size_from": volume.voxel_size_from,
        "crop": str(volume.crop) if isinstance(volume, Cropped) else None,
    }
    if intensity is not None:
        facts["intensity"] = {"low": intensity.low, "high": intensity.high}
    return facts
