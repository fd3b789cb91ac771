"""Other names and colours for labels that are finished; their voxels are not touched."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.sax.saxutils import escape

import tifffile
import zarr

from vemseg.errors import InputError
from vemseg.files import remove, sweep_stores
from vemseg.foreign import reading
from vemseg.volume.about import RGB, Record, evidence_of_labels, legend
from vemseg.volume.base import Volume
from vemseg.volume.durable import Durable
from vemseg.volume.form import LabelForm
from vemseg.volume.hdf5 import hdf5_record, is_hdf5
from vemseg.volume.hdf5_writing import rewrite_record
from vemseg.volume.labels_of_images import GROUP
from vemseg.volume.ngff import FORMATS_OF_ZARR, label_metadata, record_in
from vemseg.volume.precomputed import precomputed_record
from vemseg.volume.precomputed_writing import rename_segments
from vemseg.volume.remote import is_n5
from vemseg.volume.tiff import is_tiff, tiff_record
from vemseg.volume.tiff_tags import ASCII, BYTE, LONG, Value, replace_tags
from vemseg.volume.tiff_writing import colour_table, table_of_words
from vemseg.volume.zarr_nodes import is_zarr
from vemseg.volume.zarr_reading import zarr_record

NOTHING: Mapping[str, Any] = MappingProxyType({})
"""A description in which nothing changes."""

_DESCRIPTION, _BYTE_COUNTS, _IMAGEJ = 270, 50838, 50839


def rename_labels(
    path: Path,
    names: Mapping[int, str],
    colours: Mapping[int, RGB],
    description: Mapping[str, Any] = NOTHING,
) -> None:
    """Give finished labels other names and colours; the old ones are forgotten.

    What else the file says about itself stays as it is, suggestions too. In an OME-Zarr the metadata are
    replaced in one piece. In a TIFF one short write makes the new record valid (see ``tiff_tags``); its
    colour table is overwritten just before that, so that a kill between the two leaves the new colours with
    the old names, and the same call completes the change. A TIFF that was written without any colours has no
    such table; only its record has the new ones.

    Parameters
    ----------
    path : Path
        What ``finish_labels`` wrote.
    names : mapping of int to str
        The name of each label.
    colours : mapping of int to (int, int, int)
        The colour of each label, RGB 0..255.
    description : mapping, optional
        What the file says of itself from now on, entry by entry; anything JSON can hold.

    Raises
    ------
    InputError
        Where there are no labels at ``path`` that vemseg wrote.
    """
    if is_zarr(path):
        _rename_in_zarr(path, names, colours, description)
    elif is_tiff(path):
        record = _of_labels(tiff_record(path), path)
        _rename_in_tiff(path, {**record, **description} | legend(names, colours), colours)
    elif is_hdf5(path):
        record = _of_labels(hdf5_record(path), path)
        rewrite_record(path, {**record, **description} | legend(names, colours))
    elif is_n5(path):
        record = _of_labels(precomputed_record(path), path)
        rename_segments(path, {**record, **description} | legend(names, colours), names)
    else:
        raise InputError(f"there are no labels at {path}")


def copied(labels: Volume, target: Path, form: LabelForm) -> bool:
    """Copy labels that vemseg wrote, as they lie on disk, and tell whether that could be done.

    It cannot where ``target`` is to be of another format, the labels are a part of a larger file, or their
    voxel size was given.

    Parameters
    ----------
    labels : Volume
    target : Path
        Where the copy grows; what lies there is removed.
    form : LabelForm
        The form that is wanted.
    """
    path = labels.path
    if path is None or labels.voxel_size_from == "option" or labels.address != str(path):
        return False
    if not _alike(path, form.kind(target), form):
        return False
    if evidence_of_labels(tiff_record(path) if is_tiff(path) else zarr_record(path)) is None:
        return False
    remove(target)
    if path.is_dir():
        shutil.copytree(path, target)
    else:
        shutil.copyfile(path, target)
    return True


def _alike(path: Path, kind: str, form: LabelForm) -> bool:
    """Tell whether a file already has the form that is wanted, so that a copy of it has it too."""
    if is_tiff(path):
        return kind == "tiff"
    format_of_zarr = 3 if (path / "zarr.json").is_file() else 2
    alone = form.image is None and path.parent.name != GROUP
    return (
        kind == "zarr"
        and is_zarr(path)
        and path.is_dir()
        and alone
        and (format_of_zarr == FORMATS_OF_ZARR[form.ngff])
    )


def _of_labels(record: Record | None, path: Path) -> Record:
    if record is None or evidence_of_labels(record) is None:
        raise InputError(f"{path} holds no labels that vemseg wrote: only those can be given other names")
    return record


def _rename_in_zarr(
    path: Path, names: Mapping[int, str], colours: Mapping[int, RGB], description: Mapping[str, Any]
) -> None:
    sweep_stores(path)
    with reading(f"{path} is not a readable OME-Zarr"):
        group = zarr.open_group(Durable(path), mode="r+")
    attributes = dict(group.attrs)
    known = _of_labels(record_in(attributes), path).get("suggestions", {})
    suggestions = {int(label): text for label, text in known.items()}
    own = {**attributes["vemseg"], **description}
    ome = dict(attributes.get("ome", attributes))
    kept = {k: v for k, v in ome["image-label"].items() if k not in ("colors", "properties")}
    ome["image-label"] = label_metadata(names, colours, suggestions)["image-label"] | kept
    group.attrs.put((attributes | {"ome": ome} if "ome" in attributes else ome) | {"vemseg": own})


def _rename_in_tiff(path: Path, record: Record, colours: Mapping[int, RGB]) -> None:
    with tifffile.TiffFile(path) as file:
        values = _in_imagej(file, record, colours) if file.is_imagej else _in_ome(file, record)
        table = table_of_words(colour_table(colours)).astype(file.byteorder + "u2").tobytes()
        in_place = [(offset, table) for offset in sorted(set(_colour_tables(file)))]
    replace_tags(path, values, in_place)


def _in_imagej(file: tifffile.TiffFile, record: Record, colours: Mapping[int, RGB]) -> dict[int, Value]:
    """Return the tags in which ImageJ keeps the record, and the colours of labels of two bytes."""
    metadata = dict(file.pages[0].tags[_IMAGEJ].value) | {"Info": json.dumps(record)}
    if "LUTs" in metadata:
        metadata["LUTs"] = [colour_table(colours)]
    tags = tifffile.imagej_metadata_tag(metadata, file.byteorder)
    data = {code: value for code, _, _, value, _ in tags}
    return {_BYTE_COUNTS: Value(LONG, data[_BYTE_COUNTS]), _IMAGEJ: Value(BYTE, data[_IMAGEJ])}


def _in_ome(file: tifffile.TiffFile, record: Record) -> dict[int, Value]:
    """Return the tag of the OME-XML, with the record as its first description."""
    text = f"<Description>{escape(json.dumps(record))}</Description>"
    first = re.compile("<Description>.*?</Description>", re.DOTALL)
    xml = first.sub(lambda found: text, file.ome_metadata, count=1)
    return {_DESCRIPTION: Value(ASCII, xml.encode() + b"\0")}


def _colour_tables(file: tifffile.TiffFile) -> Iterator[int]:
    """Yield where colour tables lie; tifffile writes one for the first page and one for all others."""
    for index in (0, 1, len(file.pages) - 1):
        tag = file.pages[min(index, len(file.pages) - 1)].tags.get("ColorMap")
        if tag is not None:
            yield tag.valueoffset
