"""Reading HDF5: ``file.h5:/path``, or a file of one volume, as ilastik, CREMI and BigDataViewer write."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from vemseg.errors import InputError
from vemseg.foreign import reading
from vemseg.names import HDF5_SUFFIXES, volume_name
from vemseg.volume.about import Record, channels_in
from vemseg.volume.base import Volume
from vemseg.volume.bigdataviewer import frame_beside
from vemseg.volume.conventions import Attributes, frame_in, named_axes, unknown_size_in
from vemseg.volume.frame import Frame
from vemseg.volume.optional import needed
from vemseg.volume.stored import Lazy, Told, Wish, open_stored

MAGIC = b"\x89HDF\r\n\x1a\n"

RECORD = "vemseg_record"
"""The data set that holds what vemseg says of the volume, as JSON, in the root of a file that it wrote."""

OF = "of"
"""The attribute of the record that names the data set of the volume."""

_MOST_LISTED = 6
_LABELS = re.compile("label|mask|seg|_ids|annotation", re.IGNORECASE)
_BDV_FINEST = "/t00000/s00/0/cells"


def is_hdf5(path: Path) -> bool:
    """Tell whether a path is an HDF5 file, or leads into one."""
    file = _file_of(path)
    if file is None:
        return False
    with file.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC


def open_hdf5(path: Path, wish: Wish) -> Volume:
    """Open a data set of an HDF5 file; where the path names none, the only one that can be a volume.

    Raises
    ------
    InputError
        Where h5py is missing, the file is damaged, or it holds several volumes; they are listed then. Also
        where a file is missing that a virtual data set takes its voxels from.
    """
    file = _file_of(path)
    assert file is not None
    h5py = needed("h5py", file)
    inner = "/" + path.relative_to(file).as_posix().removeprefix(".")
    with reading(f"{file} is not a readable HDF5 file"), h5py.File(file, "r") as opened:
        found = _data_set(opened, inner, file, h5py, wish.choice.level)
        file = Path(found.file.filename)  # another one where a link leads out of the file
        _check(found, file)
        name, chunks = str(found.name), found.chunks
        array = Lazy(_opened, (file, name), found.shape, found.dtype)
        record = _record_of(found.file, name)
        told = replace(_told(found, file), channels=channels_in(record))
    address = f"{file.absolute()}:{name}"
    volume = open_stored(
        array, told, wish, path=file, name=volume_name(f"{file}{name}"), address=address, chunks=chunks
    )
    return volume.remembering(record)


def hdf5_record(path: Path) -> Record | None:
    """Return what vemseg wrote into an HDF5 file, or into the one that a path leads into; else None."""
    file = _file_of(path)
    assert file is not None
    with reading(f"{file} is not a readable HDF5 file"), needed("h5py", file).File(file, "r") as opened:
        return _record_of(opened, path.relative_to(file).as_posix().removeprefix("."))


def _record_of(file: Any, inner: str) -> Record | None:
    """Return what vemseg wrote of a data set of an open HDF5 file, None where it wrote nothing."""
    if RECORD not in file or inner.strip("/") not in ("", str(file[RECORD].attrs.get(OF, "")).strip("/")):
        return None
    found = json.loads(file[RECORD][()])
    return found if isinstance(found, dict) else None


def _opened(file: Path, inner: str) -> Any:
    return needed("h5py", file).File(file, "r")[inner]


def _file_of(path: Path) -> Path | None:
    """Return the file that a path is or leads into."""
    if path.is_file():
        return path
    inside = (part for part in path.parents if part.suffix.lower() in HDF5_SUFFIXES)
    return next((part for part in inside if part.is_file()), None)


def _check(found: Any, file: Path) -> None:
    """Refuse a data set without numbers, or whose voxels lie in other files that are missing."""
    if found.dtype.kind not in "biufc" or not found.shape:
        raise InputError(f"{file}:{found.name} is not an array of numbers")
    sources = found.virtual_sources() if found.is_virtual else []
    named = {str(source.file_name) for source in sources} - {"."}
    if missing := sorted(name for name in named if "%" not in name and not (file.parent / name).is_file()):
        raise InputError(
            f"{file}:{found.name} takes its voxels from {len(named)} files, of which {len(missing)} are not "
            f"there, such as {missing[0]}: copy them beside it"
        )


def _data_set(opened: Any, inner: str, file: Path, h5py: Any, level: str | None) -> Any:
    """Return the data set at a place, or the only volume below it."""
    found = opened.get(inner)
    if found is None:
        link = opened.get(inner, getlink=True) if inner in opened else None
        if isinstance(link, h5py.ExternalLink):
            raise InputError(f"{file}:{inner} is a link into {link.filename}, which cannot be opened")
        listed = ", ".join(_volumes(opened, h5py)[:_MOST_LISTED])
        raise InputError(f"{file} has no {inner}; it holds {listed or 'no volume'}")
    if isinstance(found, h5py.Dataset):
        return found
    below = _volumes(found, h5py)
    if (bdv := _BDV_FINEST.lstrip("/")) in found:
        step = level or "0"
        place = f"t00000/s00/{step}/cells"
        if place not in found or bdv not in found:
            raise InputError(f"{file} has no level {step}")
        return found[place]
    if len(below) == 1:
        return opened[below[0]]
    if not below:
        raise InputError(f"{file}:{inner} holds no volume")
    more = " ..." if len(below) > _MOST_LISTED else ""
    raise InputError(
        f"{file} holds {len(below)} volumes ({', '.join(below[:_MOST_LISTED])}{more}): name one, such as "
        f"{file}:{below[0]}"
    )


def _volumes(group: Any, h5py: Any) -> list[str]:
    """Return the places of what can be volumes: data sets of numbers, the likeliest to be grey first.

    Links out of the file count; tables of two axes count where nothing has more. A data set that several
    links lead to counts once.
    """
    found: dict[tuple[int, int], tuple[str, int]] = {}

    def look(name: str, link: Any) -> None:
        node = group.get(name)  # None where a link leads nowhere
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "biuf" and _may_be_a_volume(node.shape):
            place = name if isinstance(link, h5py.ExternalLink) else str(node.name)
            info = h5py.h5o.get_info(node.id)
            found.setdefault((info.fileno, info.addr), (f"/{place}".replace("//", "/"), node.ndim))

    group.visititems_links(look)
    deep = [place for place, axes in found.values() if axes > 2] or [place for place, _ in found.values()]
    return sorted(deep, key=lambda place: (_LABELS.search(place) is not None, place))


def _may_be_a_volume(shape: tuple[int, ...]) -> bool:
    """Tell a volume from tables and lists of numbers, by its shape."""
    return 2 <= len(shape) <= 5 and sum(n > 1 for n in shape) >= 2 and min(shape) > 0 and max(shape) > 3


def _told(found: Any, file: Path) -> Told:
    """Return what attributes of a data set and its group say, and the XML of BigDataViewer beside it."""
    own = _plain(found.attrs)
    group = _plain(found.parent.attrs)
    frames = [frame_in(own, found.ndim), _bdv_frame(found, file), frame_in(group, found.ndim)]
    labels = tuple(str(dimension.label) for dimension in found.dims)
    names = [named_axes(own), named_axes({"axis_names": list(labels)} if all(labels) else {})]
    return Told([frame for frame in frames if frame is not None], names, (), unknown_size_in(own))


def _plain(attributes: Any) -> Attributes:
    """Return HDF5 attributes as plain values."""
    plain = {}
    for key in attributes:
        value = attributes[key]
        value = value.tolist() if callable(getattr(value, "tolist", None)) else value
        if isinstance(value, list):
            value = [each.decode() if isinstance(each, bytes) else each for each in value]
        plain[str(key)] = value.decode() if isinstance(value, bytes) else value
    return plain


def _bdv_frame(found: Any, file: Path) -> Frame | None:
    """Return the voxel size that the XML beside a BigDataViewer file states, times the level's factors."""
    place = PurePosixPath(str(found.name))
    if place.name != "cells" or len(place.parts) < 5:
        return None
    resolutions, level = f"{place.parts[2]}/resolutions", place.parts[3]
    factors = [1.0, 1.0, 1.0]
    if resolutions in found.file and level.isdecimal():
        factors = [float(factor) for factor in found.file[resolutions][int(level)]]
    return frame_beside(file, place.parts[2].removeprefix("s"), factors)
