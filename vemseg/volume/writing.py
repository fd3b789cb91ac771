"""Finished outputs: a store of labels, or any grey volume, in each format that is written.

All are written over whatever lies at the path that the caller names. The output grows there until the caller
gives it its final name. A further format is a module that writes it and one line in ``WRITERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vemseg.files import remove
from vemseg.volume.about import About, LabelInfo
from vemseg.volume.base import Volume
from vemseg.volume.content import Content, LabelContent
from vemseg.volume.form import LabelForm
from vemseg.volume.hdf5_writing import write_hdf5
from vemseg.volume.precomputed_writing import write_precomputed
from vemseg.volume.store import LabelStore
from vemseg.volume.tiff_writing import write_tiff
from vemseg.volume.zarr_writing import finish_store, write_zarr


def finish_labels(store: LabelStore, target: Path, info: LabelInfo, form: LabelForm = LabelForm()) -> None:
    """Write the final form of a store whose blocks are all there.

    ``.tif``, ``.tiff``: ImageJ TIFF (uint8, uint16, below 4 GB) or OME-BigTIFF. ``.h5``: HDF5 as ilastik
    writes it. ``.precomputed``: neuroglancer's format. ``.zarr``: OME-Zarr with ``image-label``. All but
    TIFF and HDF5 have coarser levels by majority. The store stays as it is, but for NGFF 0.5: the store
    becomes its level 0 as it lies, and moves to ``target`` in the end. Where this is interrupted, the store
    is whole and the call can be repeated.

    Parameters
    ----------
    store : LabelStore
    target : Path
        Where the labels grow. An OME-Zarr may grow where the store lies, or elsewhere on its disk.
    info : LabelInfo
        What the file says about the labels: voxel size, names, colours and more.
    form : LabelForm
        How they are written, beside what the suffix says.

    Raises
    ------
    UsageError
        Where the suffix of ``target`` names no format.
    """
    _finish(store, target, LabelContent(store, info), form)


def finish_grey(store: LabelStore, target: Path, about: About, form: LabelForm = LabelForm()) -> None:
    """Do what :func:`finish_labels` does with a store of grey values or scores; coarser levels are means."""
    _finish(store, target, Content(store, about), form)


def write_volume(
    source: Volume,
    target: Path,
    *,
    description: Mapping[str, object] | None = None,
    labelled: bool = False,
) -> None:
    """Write a grey volume, block by block, in a format by the suffix, as in ``finish_labels``.

    Parameters
    ----------
    source : Volume
        Its voxel size and its place are kept.
    target : Path
        Where the output grows.
    description : mapping, optional
        What the volume is and where it comes from; anything JSON can hold.
    labelled : bool
        Whether its voxels are labels, without names.

    Raises
    ------
    UsageError
        Where the suffix of ``target`` names no format.
    """
    said = description or {}
    if labelled:
        content: Content = LabelContent(source, LabelInfo(**source.placed, description=said))
    else:
        content = Content(source, About(**source.placed, description=said))
    _write(content, target, LabelForm())


def _finish(store: LabelStore, target: Path, content: Content, form: LabelForm) -> None:
    """Write the final form of a store; an OME-Zarr of NGFF 0.5 is made of it as it lies."""
    if not form.grows_in_place(target):
        _write(content, target, form)
        return
    finish_store(store, content, target.name, form.image)
    if store.directory != target:
        remove(target)
        store.directory.replace(target)


def _write(content: Content, target: Path, form: LabelForm) -> None:
    write = WRITERS[form.kind(target)]
    target.parent.mkdir(parents=True, exist_ok=True)
    with _whole_or_absent(target):
        write(content, target, form)


@contextmanager
def _whole_or_absent(target: Path) -> Iterator[None]:
    """Remove the beginnings of an output if the block fails: the disk may be full."""
    try:
        yield
    except BaseException:
        remove(target)
        raise


WRITERS: dict[str, Callable[[Content, Path, LabelForm], None]] = {
    "tiff": lambda content, target, form: write_tiff(content.volume, target, content.about),
    "zarr": lambda content, target, form: write_zarr(content, target, form.ngff, form.image),
    "hdf5": lambda content, target, form: write_hdf5(content, target, form.inner),
    "precomputed": lambda content, target, form: write_precomputed(content, target),
}
"""What writes each format, as ``names.output_format`` calls them."""
