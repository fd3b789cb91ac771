"""What lies at a path that no reader opens: told by its first bytes, its marker files, its name or address.

Each answer says what was found and what to do about it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

MOST_LISTED = 2000
"""The most entries of a folder that are looked at."""

_BIOFORMATS = "convert it to OME-Zarr with bioformats2raw, or save it as a TIFF stack with Fiji"
_FIJI = "save it as a TIFF stack with Fiji"

_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"ZISRAWFILE", "a Zeiss CZI file", _BIOFORMATS),
    (0, b"\x70\x00\x00\x00\x2a", "a Leica LIF file", _BIOFORMATS),
    (0, b"\xda\xce\xbe\x0a", "a Nikon ND2 file", _BIOFORMATS),
    (0, b"\x00\x00\x00\x03\x00", "a Gatan DM3 file", _BIOFORMATS),
    (0, b"\x00\x00\x00\x04\x00", "a Gatan DM4 file", _BIOFORMATS),
    (0, b"\xd4\xca\x3c\x4e", "a raw FIB-SEM .dat file", _FIJI),
    (0, b"# AmiraMesh", "an Amira mesh", "save it as a TIFF stack with Amira or Fiji"),
    (0, b"# Avizo", "an Avizo mesh", "save it as a TIFF stack with Avizo or Fiji"),
    (0, b"NRRD", "an NRRD file", _FIJI),
    (0, b"ObjectType", "a MetaImage header", _FIJI),
    (0, b"\x93NUMPY", "a numpy array", "write it as TIFF: tifffile.imwrite('cell.tif', numpy.load(...))"),
    (0, b"\xd0\xcf\x11\xe0", "an OLE file, as Zeiss TXM is", _FIJI),
    (0, b"\x89PNG", "one PNG picture", "give the folder of all slices"),
    (0, b"\xff\xd8\xff", "one JPEG picture", "give the folder of all slices"),
    (0, b"BM", "a BMP picture", _FIJI),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture", _FIJI),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", ""),
    (208, b"MAP ", "an MRC file", ""),
    (344, b"n+1\0", "a NIfTI file", ""),
    (344, b"ni1\0", "a NIfTI header beside an .img file", "save both as one .nii, with nibabel"),
    (0, b"PK\x03\x04", "a ZIP file that holds no Zarr hierarchy", "unzip it, and name what is in it"),
    (0, b"\x1f\x8b", "a gzip-compressed file", "decompress it with gunzip"),
    (0, b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (0, b"Rar!", "a RAR archive", "unpack it"),
    (257, b"ustar", "a tar archive", "unpack it"),
    (0, b"<!DOCTYPE", "a web page", "the download went wrong: open the address in a browser"),
    (0, b"<html", "a web page", "the download went wrong: open the address in a browser"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "run 'git lfs pull' to get the file itself"),
    (0, b"<?xml", "an XML file", "give the images that it describes"),
)
"""Where bytes stand, which, whose they are, and what to do."""


def complaint(path: Path, promised: Mapping[str, tuple[str, ...]]) -> str:
    """Say why nothing opens a path, and what helps.

    Parameters
    ----------
    path : Path
    promised : mapping of str to tuple of str
        The endings of names that promise a format, by what messages call the format.
    """
    if not path.exists():
        return _missing(path)
    if path.is_dir():
        return _folder(path, list(promised))
    if not path.stat().st_size:
        return f"{path} is empty: copy it again"
    with path.open("rb") as file:
        head = file.read(512)
    for title, endings in promised.items():
        if path.suffix.lower() in endings and _meaning(head) is None:
            return f"{path} is not {_a(title)}, in spite of its name"
    if head[:4] == b"PK\x03\x04" and not zipfile.is_zipfile(path):
        return f"{path} is a ZIP file that was cut off, since its end is missing: copy it again"
    found = _meaning(head)
    if found is None:
        return f"{path} has an unknown format: {_FIJI}, or give one of these: {', '.join(promised)}"
    what, remedy = found
    return f"{path} is {what}: {remedy}"


def _meaning(head: bytes) -> tuple[str, str] | None:
    """Return what kind of file begins with these bytes, and what the user can do."""
    if b"<SpimData" in head:
        return "an XML of BigDataViewer", "give the .h5 or .n5 beside it, which is read together with it"
    for at, magic, what, remedy in _MAGIC:
        if what and head[at : at + len(magic)] == magic:
            return what, remedy
    return None


def _missing(path: Path) -> str:
    """Say how far a path exists that leads to nothing."""
    outer = next((part for part in path.parents if part.exists()), None)
    if (
        outer is None
        or outer in (Path(), Path("/"))
        or (outer == path.parent and outer.is_dir() and not _store(outer))
    ):
        return f"{path} does not exist"
    inner = path.relative_to(outer)
    return f"{path} does not exist: there is no {inner} in {outer}{_held(outer)}"


def _store(path: Path) -> bool:
    markers = ("zarr.json", ".zgroup", ".zarray", "attributes.json")
    return any((path / marker).exists() for marker in markers)


def _held(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))[:6]
    return f", which holds {', '.join(names)}" if names else ", which is empty"


def _folder(path: Path, titles: list[str]) -> str:
    """Say what kind of folder this is, since no reader opens it."""
    if _is_json_of(path / "info", "scales"):
        return f"{path} is a neuroglancer precomputed volume that cannot be read here"
    if (path / "datasource-properties.json").is_file():
        return f"{path} is a WEBKNOSSOS dataset: name a magnification in it, such as {path}/color/1"
    inner = sorted(entry for entry in path.iterdir() if entry.is_dir())[:MOST_LISTED]
    if found := [entry for entry in inner if _store(entry)]:
        return f"{path} is a folder of Zarr or N5 data: name one in it, such as {found[0]}"
    files = sorted(entry for entry in path.iterdir() if entry.is_file())[:MOST_LISTED]
    if files:
        listed = ", ".join(entry.name for entry in files[:3])
        return (
            f"{path} is a folder of files ({listed}{' ...' if len(files) > 3 else ''}): name the one to read"
        )
    return f"{path} is a folder without a volume: give one of these: {', '.join(titles)}"


def _a(title: str) -> str:
    """Return what messages call a format, with its article."""
    return f"an {title}" if title.startswith(("HDF5", "MRC", "N5")) else f"a {title}"


def _is_json_of(path: Path, key: str) -> bool:
    """Tell whether a small file is JSON with a certain key."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size < 2**20 else None
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and key in found
