"""Writing HDF5 as ilastik does: one data set with ``axistags``, compressed in chunks, in a file of its own.

ilastik takes the size of a pixel from ``resolution`` of the tags and their units from ``axis_units``; Fiji
and PlantSeg from ``element_size_um``; CREMI and funlib size and place from ``resolution`` and ``offset`` in
nm. All of them are written. What vemseg says of the volume lies beside the data set, as JSON in a data set of
one text, because an attribute ends at 64 KB.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vemseg.errors import UsageError
from vemseg.files import FAILING, atomic_path, writing
from vemseg.foreign import reading
from vemseg.volume.about import About, Record
from vemseg.volume.content import Content
from vemseg.volume.hdf5 import OF, RECORD
from vemseg.volume.optional import needed
from vemseg.volume.pyramid import Level
from vemseg.volume.store import CHUNK_EDGE

INNER = "exported_data"
"""What ilastik calls a data set that it exports."""

_SPACE, _CHANNEL = 2, 1
"""vigra's kinds of axes."""


def write_hdf5(content: Content, target: Path, inner: str = INNER) -> None:
    """Write an HDF5 file of one volume; what lies at ``target`` is replaced.

    Parameters
    ----------
    content : Content
    target : Path
        The file.
    inner : str
        Where in it the data set lies.
    """
    h5py = needed("h5py", target)
    about, channels = content.about, content.volume.channels
    many = (len(channels),) if about.channels else ()
    shape = (*many, *content.volume.shape)
    chunks = (*(1 for _ in many), *(min(CHUNK_EDGE, n) for n in content.volume.shape))
    with writing(target, FAILING), h5py.File(target, "w") as file:
        array = file.create_dataset(
            inner, shape, content.volume.dtype, chunks=chunks, compression="gzip", compression_opts=1
        )
        Level(array).fill(channels)
        array.attrs.update(_attributes("czyx"[-len(shape) :], about))
        _remember(file, about.record(), inner)


def check_own_file(path: Path, inner: str) -> None:
    """Refuse to replace an HDF5 file that holds more than one result.

    Raises
    ------
    UsageError
        Where there is such a file: replacing it would lose the rest of it.
    """
    if not path.is_file():
        return
    with reading(f"{path} is not a readable HDF5 file"), needed("h5py", path).File(path, "r") as file:
        others = [name for name in file if name not in (RECORD, inner.split("/")[0])]
        if others or RECORD not in file:
            raise UsageError(
                f"{path} holds other data ({', '.join(others[:3] or [inner])}), and a result has a file of "
                "its own: give another -o"
            )


def _remember(file: Any, record: Record, inner: str) -> None:
    text = needed("h5py", file.filename).string_dtype()
    file.create_dataset(RECORD, data=json.dumps(record), dtype=text).attrs[OF] = inner


def _attributes(axes: Sequence[str], about: About) -> dict[str, object]:
    """Return voxel size and place in the words of all programs that have some for them."""
    size, place = about.voxel_size, about.position
    micrometres = {} if size is None else {axis: edge / 1000 for axis, edge in zip("zyx", size, strict=True)}
    tags = [
        {
            "key": axis,
            "typeFlags": _CHANNEL if axis == "c" else _SPACE,
            "resolution": micrometres.get(axis, 0),
            "description": "",
        }
        for axis in axes
    ]
    known: dict[str, object] = {"axistags": json.dumps({"axes": tags})}
    if size is not None:
        known |= {"axis_units": json.dumps({axis: "um" if axis in micrometres else "" for axis in axes})}
        known |= {"element_size_um": list(micrometres.values()), "resolution": list(size)}
        known |= {"offset": list(place), "units": "nm"}
    return known


def rewrite_record(path: Path, record: Record) -> None:
    """Give an HDF5 file that vemseg wrote another record; a copy is changed, and takes the file's place."""
    h5py = needed("h5py", path)
    with (
        atomic_path(path) as temporary,
        h5py.File(path, "r") as before,
        h5py.File(temporary, "w") as after,
    ):
        for name in before:
            if name != RECORD:
                before.copy(name, after)
        _remember(after, record, str(before[RECORD].attrs[OF]))
        after.flush()
