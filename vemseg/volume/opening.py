"""The one way to a volume on disk: the format that recognises the path opens it.

A further format is a module that reads it and one line in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vemseg.errors import InputError, MissingError
from vemseg.foreign import check_regular
from vemseg.geometry import VoxelSize, parse_box
from vemseg.names import HDF5_SUFFIXES, TIFF_SUFFIXES, is_url, without_format
from vemseg.volume.about import Record
from vemseg.volume.base import Volume
from vemseg.volume.hdf5 import hdf5_record, is_hdf5, open_hdf5
from vemseg.volume.layout import Choice
from vemseg.volume.mrc import is_mrc, open_mrc
from vemseg.volume.nifti import is_nifti, open_nifti
from vemseg.volume.precomputed import precomputed_record
from vemseg.volume.remote import is_n5, open_n5, open_remote
from vemseg.volume.slices import are_slices, open_slices
from vemseg.volume.sniffing import complaint
from vemseg.volume.stored import Wish
from vemseg.volume.tiff import is_tiff, open_tiff, tiff_record
from vemseg.volume.views import Cropped
from vemseg.volume.zarr_nodes import is_zarr
from vemseg.volume.zarr_reading import open_zarr, zarr_record


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
        Returns the volume at a path, as a ``Wish`` says: with a voxel size (nm, z y x) that takes the place
        of the file's, and what is read where there is a choice.
    suffixes : tuple of str
        Endings of names, in lower case, that promise this format; only messages need them.
    record : callable
        Returns what vemseg wrote into a file about it, or None.
    """

    recognises: Callable[[Path], bool]
    open: Callable[[Path, Wish], Volume]
    suffixes: tuple[str, ...] = ()
    record: Callable[[Path], Record | None] = no_record


FORMATS = {
    "Zarr array or group": Format(is_zarr, open_zarr, record=zarr_record),
    "TIFF stack": Format(is_tiff, open_tiff, TIFF_SUFFIXES, tiff_record),
    "HDF5 file": Format(is_hdf5, open_hdf5, HDF5_SUFFIXES, hdf5_record),
    "MRC file": Format(is_mrc, open_mrc, (".mrc", ".rec", ".st", ".map")),
    "NIfTI file": Format(is_nifti, open_nifti, (".nii", ".gz")),
    "N5 or precomputed volume": Format(is_n5, open_n5, (".n5",), precomputed_record),
    "folder of slices": Format(are_slices, open_slices),
}
"""The formats that are read, by what messages call them; the first that recognises a path opens it."""


def open_volume(
    path: str | Path,
    *,
    voxel_size: VoxelSize | None = None,
    crop: str | None = None,
    choice: Choice = Choice(),
    offline: bool = False,
) -> Volume:
    """Open a grey or label volume for reading; nothing but metadata is read yet.

    Parameters
    ----------
    path : str or Path
        A TIFF stack (plain, BigTIFF, ImageJ, OME; a 2-D image is a volume with z = 1), a Zarr array, an
        OME-Zarr image, or an array or ``labels/<name>`` group inside one (``cell.zarr/labels/mito``); or
        whatever else ``FORMATS`` knows. ``file://`` may stand before it, and other
        addresses are read over the network.
    voxel_size : (float, float, float), optional
        nm, z y x; instead of what the file says.
    crop : str, optional
        ``z0:z1,y0:y1,x0:x1`` in voxels, as ``vemseg.geometry.parse_box`` reads it.
    choice : Choice
        What is read where a file holds more than one volume.
    offline : bool
        Whether addresses on the network are refused.

    Returns
    -------
    Volume
        Integers, float32 and float64 keep their type, bool becomes uint8, float16 becomes float32.
        ``voxel_size`` is None where neither the option nor the file states it.

    Raises
    ------
    InputError
        Where the path is missing, unknown, damaged, empty, in colour, complex, or has several channels or
        time points of which none was chosen.
    MissingError
        Where the path is an address on the network and ``offline`` is set.
    UsageError
        Where ``crop`` cannot be parsed, is empty, or reaches beyond the volume, or something was chosen that
        is not there.
    """
    wish, text = Wish(voxel_size, choice), str(path)
    if is_remote(text):
        if offline:
            raise MissingError(
                f"{text} lies on the network: leave --offline (VEMSEG_OFFLINE) out, or copy it here"
            )
        volume = open_remote(text, wish)
    else:
        path = local(path)
        volume = _format_of(path).open(path, wish)
    return volume if crop is None else Cropped(volume, parse_box(crop, volume.shape, text))


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
        (see ``Volume.start``), one that lies elsewhere in space ``origin_nm`` (see ``Volume.origin``), and
        labels have ``names`` and ``colours``, by the number of the label as a text.

    Raises
    ------
    InputError
        Where the path is missing, damaged, or of no known format.
    """
    if is_remote(str(path)):
        return None
    path = local(path)
    return _format_of(path).record(path)


def is_remote(text: str) -> bool:
    """Tell whether a text is an address on the network: of any scheme but ``file://``."""
    text = without_format(text)
    return is_url(text) and urlsplit(text).scheme.lower() != "file"


def absolute(text: str) -> str:
    """Return what opens the same volume from any folder."""
    return text if is_remote(text) else str(local(text).absolute())


def local(path: str | Path) -> Path:
    """Return the path on this machine that a text means.

    ``file://``, ``precomputed://`` and other formats before it, and ``cell.h5:/raw`` are understood.
    """
    text = without_format(str(path))
    if is_url(text) and urlsplit(text).scheme.lower() == "file":
        text = unquote(urlsplit(text).path)
    try:
        there = Path(text).exists()
    except OSError:  # in a folder that may not be looked into: opening it says so
        there = True
    return Path(text) if there else Path(text.replace(":/", "/"))


def _format_of(path: Path) -> Format:
    check_regular(path)
    try:
        found = next((known for known in FORMATS.values() if known.recognises(path)), None)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if found is None:
        raise InputError(complaint(path, {title: known.suffixes for title, known in FORMATS.items()}))
    return found
