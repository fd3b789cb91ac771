"""Volumes that are written in ``<out>.partial/`` and take their name at the end, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vemseg.names import is_tiff_output
from vemseg.volume.about import LabelInfo
from vemseg.volume.base import Volume
from vemseg.volume.publish import check_output, partial_directory, publish, remove
from vemseg.volume.store import LabelStore
from vemseg.volume.writing import finish_labels, finish_zarr, write_volume


def publish_labels(store: LabelStore, out: Path, info: LabelInfo, overwrite: bool = False) -> Path:
    """Finish labels as ``finish_labels`` does, give them their name, and remove ``<out>.partial/``.

    Raises
    ------
    OutputExistsError
        Where ``out`` exists and ``overwrite`` is not set.
    """
    check_output(out, overwrite)
    if is_tiff_output(out):
        growing = partial_directory(out) / out.name
        finish_labels(store, growing, info)
    else:
        growing = store.directory
        finish_zarr(store, out.name, info)
    try:
        publish(growing, out, overwrite)
    except BaseException:
        if growing != store.directory:
            remove(growing)
        raise
    remove(store.directory)
    remove(partial_directory(out))
    return out


def publish_volume(
    source: Volume, out: Path, *, description: Mapping[str, Any] | None = None, overwrite: bool = False
) -> Path:
    """Write a grey volume as ``write_volume`` does, and give it its name.

    Raises
    ------
    OutputExistsError
        Where ``out`` exists and ``overwrite`` is not set.
    """
    check_output(out, overwrite)
    partial = partial_directory(out)
    remove(partial)
    try:
        write_volume(source, partial / out.name, description=description)
        publish(partial / out.name, out, overwrite)
    finally:
        remove(partial)
    return out
