"""The volumes that commands begin with, grey ones and labels: opened, checked, turned and described."""

from __future__ import annotations

import logging
from pathlib import Path

from vemseg.errors import InputError
from vemseg.geometry import ZYX, parse_voxel_size, sharp_axis
from vemseg.names import is_url
from vemseg.recipe import VolumeTable
from vemseg.volume.base import Volume
from vemseg.volume.conventions import LEAST_NM
from vemseg.volume.intensity import Intensity, measure_intensity
from vemseg.volume.layout import Choice
from vemseg.volume.meaning import check_grey, check_labels
from vemseg.volume.opening import open_volume, record
from vemseg.volume.views import AsIntegers, Cropped, Permuted

_log = logging.getLogger("vemseg")

SHARP_PLANE_FIRST: tuple[ZYX, ZYX, ZYX] = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
"""The order of the axes that turns a volume's sharp plane to (y, x), by the axis across that plane."""


LARGEST_VOXEL_NM = 200.0
"""The longest edge of a voxel that is believed of electron microscopy. Writers that know no size put 1 µm."""


def open_grey(
    path: str | Path,
    voxel_size: str | None = None,
    crop: str | None = None,
    choice: Choice = Choice(),
    *,
    offline: bool = False,
) -> Volume:
    """Open a grey volume, crop it, and say once where its voxel size is unknown.

    Parameters
    ----------
    path : str or Path
    voxel_size, crop : str, optional
        As a user writes them; the voxel size is the file's where left out.
    choice : Choice
        What is read where a file holds more than one volume.
    offline : bool
        Whether addresses on the network are refused.

    Raises
    ------
    InputError
        Where it cannot be read, holds labels, or has voxels of a size that electron microscopy has not.
    UsageError
        Where the voxel size or crop cannot be parsed, or the crop reaches beyond the volume.
    """
    size = None if voxel_size is None else parse_voxel_size(voxel_size)
    volume = open_volume(path, voxel_size=size, crop=crop, choice=choice, offline=offline)
    check_grey(volume)
    _tell(volume)
    _check_size(volume)
    return volume


def _check_size(volume: Volume) -> None:
    """Refuse voxels that cannot be, and say where their size is unknown."""
    size = volume.voxel_size
    if size is None:
        said = volume.hint or "--voxel-size z,y,x gives it"
        _log.warning("%s: voxel size unknown, so results state none (%s)", volume.name, said)
    elif max(size) > LARGEST_VOXEL_NM or min(size) < LEAST_NM:
        edges = " x ".join(f"{edge:.6g}" for edge in size)
        large = max(size) > LARGEST_VOXEL_NM
        odd = "large" if large else "small"
        given = volume.voxel_size_from == "option"
        who = f"{volume.address}: --voxel-size gives" if given else f"{volume.address} states"
        why = "writers that know none put 1 µm" if large and not given else "they may be micrometres"
        why = "" if large and given else f" ({why})"
        raise InputError(
            f"{who} voxels of {edges} nm (z, y, x), too {odd} for electron microscopy{why}: "
            "give the true size in nm, such as --voxel-size 8,8,8"
        )


def open_labels(path: str | Path, *, voxel_size: str | None = None, offline: bool = False) -> Volume:
    """Open a volume of labels.

    Parameters
    ----------
    path : str or Path
    voxel_size : str, optional
        As a user writes it; that of the file where left out.
    offline : bool
        Whether addresses on the network are refused.

    Raises
    ------
    InputError
        Where it cannot be read, or holds no labels.
    UsageError
        Where the voxel size cannot be parsed.
    """
    size = None if voxel_size is None else parse_voxel_size(voxel_size)
    volume = open_volume(path, voxel_size=size, offline=offline).stored()
    if volume.dtype.kind == "f":
        volume = AsIntegers(volume)
    check_labels(volume)
    _tell(volume)
    return volume


def _tell(volume: Volume) -> None:
    """Tell the user how a file was understood, where there was more than one way."""
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
    """Return the mapping of a volume's grey values to [0, 1] that a recipe asks for.

    It is the same however the volume is turned.
    """
    if table.intensity == "range":
        return Intensity(*table.range)
    return measure_intensity(sharp_plane_first(volume)[0], table.percentiles)


def describe(volume: Volume, intensity: Intensity | None = None) -> dict[str, object]:
    """Return what provenance says of an input volume."""
    facts: dict[str, object] = {
        "path": _address(volume),
        "shape": list(volume.shape),
        "dtype": str(volume.dtype),
        "voxel_size_nm": None if volume.voxel_size is None else list(volume.voxel_size),
        "voxel_size_from": volume.voxel_size_from,
        "crop": str(volume.crop) if isinstance(volume, Cropped) else None,
    }
    facts |= _parts(volume)
    if volume.specimen is not None and volume.specimen.files:
        facts["mask"] = str(volume.specimen.files[0].resolve())
    if intensity is not None:
        facts["intensity"] = {"low": intensity.low, "high": intensity.high}
    return facts


def identity(volume: Volume) -> dict[str, object]:
    """Return which part of an input it is that was read, beside its crop; empty for the whole of a file."""
    whole = volume.path is not None and volume.address == str(volume.path)
    place: dict[str, object] = {} if whole else {"address": volume.address}
    return place | _parts(volume)


def _parts(volume: Volume) -> dict[str, object]:
    """Return what a file was narrowed to: the choice among its volumes and channels, and the specimen."""
    parts: dict[str, object] = {"read": dict(volume.choice)} if volume.choice else {}
    return parts if volume.specimen is None else parts | {"background": dict(volume.specimen.facts)}


def _address(volume: Volume) -> str | None:
    """Return what opens a volume again from any folder; None for one in memory."""
    if volume.path is None:
        return volume.address if is_url(volume.address) else None
    return str(volume.path.resolve()) if volume.address == str(volume.path) else volume.address
