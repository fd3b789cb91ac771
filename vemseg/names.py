"""What the name of a volume's file says: its format, and what outputs made from it are called."""

from __future__ import annotations

import re
from pathlib import Path

from vemseg.errors import UsageError

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
"""Endings, in lower case, that a TIFF to be read may have."""

WRITTEN_SUFFIXES = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".zarr": "zarr",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".precomputed": "precomputed",
}
"""Endings, in lower case, of the volumes that are written, and the formats that they stand for."""

ZIPPED_SUFFIXES = (".zip", ".ozx")
"""Endings, in lower case, of a Zarr hierarchy in one ZIP file."""

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5", ".ims", ".ilp")
"""Endings, in lower case, of HDF5 files."""

_TWOFOLD = (
    *(".ome.zarr.zip", ".zarr.zip", ".ome.zarr", ".nii.gz"),
    *(f".ome{suffix}" for suffix in TIFF_SUFFIXES),
)
_CONTAINERS = (".zarr", ".n5", *ZIPPED_SUFFIXES, *HDF5_SUFFIXES)
_FORMAT = re.compile(r"(?:(?:zarr[23]?|n5|(?:neuroglancer[-_])?precomputed)://)+", re.IGNORECASE)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(?:\+[a-zA-Z0-9]+)?://")


def is_url(text: str) -> bool:
    """Tell whether a text is an address with a scheme, such as ``s3://`` or ``file://``."""
    return _SCHEME.match(text) is not None


def without_format(text: str) -> str:
    """Return an address or path without the format that neuroglancer and tensorstore put before it.

    Examples
    --------
    >>> without_format("precomputed://gs://bucket/em"), without_format("n5://cell.n5/em")
    ('gs://bucket/em', 'cell.n5/em')
    """
    return _FORMAT.sub("", text)


def is_pattern(text: str) -> bool:
    """Tell whether a text names files by wildcards, as ``slices/*.tif`` does."""
    return not is_url(text) and any(sign in text for sign in "*?[")


def split_name(path: Path) -> tuple[str, str]:
    """Return stem and suffix of a volume's name; ``.ome.zarr`` and ``.ome.tif`` count as one suffix."""
    for suffix in _TWOFOLD:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)], path.name[-len(suffix) :]
    return path.stem, path.suffix


def volume_name(path: str | Path) -> str:
    """Return a short name for a volume: the stem of its file, followed by its place inside that.

    Examples
    --------
    >>> volume_name(Path("/data/cell.ome.tif")), volume_name(Path("cell.zarr/em/s2"))
    ('cell', 'cell-em-s2')
    >>> volume_name("cell.h5:/volumes/raw"), volume_name("s3://bucket/jrc.n5/em")
    ('cell-volumes-raw', 'jrc-em')
    """
    text = _SCHEME.sub("/", str(path)).replace(":/", "/").rstrip("/")
    whole = Path(text).absolute()
    parts = (whole.parent if is_pattern(whole.name) else whole).parts
    inner = [i for i, part in enumerate(parts) if part.lower().endswith(_CONTAINERS)]
    outer = max(inner, default=len(parts) - 1)
    return "-".join((split_name(Path(parts[outer]))[0], *parts[outer + 1 :]))


def is_zipped(path: Path) -> bool:
    """Tell whether a file's name is that of a Zarr hierarchy in a ZIP file."""
    return path.suffix.lower() in ZIPPED_SUFFIXES


def is_tiff_name(path: Path) -> bool:
    """Tell whether a file's name is that of a TIFF."""
    return path.suffix.lower() in TIFF_SUFFIXES


def output_format(out: Path) -> str:
    """Return the format of an output by its name: ``tiff``, ``zarr``, ``hdf5`` or ``precomputed``.

    Raises
    ------
    UsageError
        Where its suffix names no format that can be written.
    """
    found = WRITTEN_SUFFIXES.get(out.suffix.lower())
    if found is None:
        raise UsageError(
            f"{out} has no suffix of a volume: name it .tif or .ome.zarr, or else .h5 or .precomputed"
        )
    return found
