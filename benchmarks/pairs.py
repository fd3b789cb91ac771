"""Volumes with reference labels, as the benchmarks that score segmentations open them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vemseg.cli.parsing import names
from vemseg.dense import Wanted
from vemseg.errors import InputError
from vemseg.names import split_name
from vemseg.volume import Volume, open_grey, open_volume

DATA = Path(os.environ.get("VEMSEG_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CLASSES = {
    "epfl_train_15nm": {0: "rest", 1: "mitochondrion"},
    "epfl_train_10nm": {0: "rest", 1: "mitochondrion"},
    "cdeep3m_mito_train": {0: "rest", 1: "mitochondrion"},
    "drosophila_vnc": {1: "membrane", 2: "glia", 3: "mitochondrion", 4: "synapse", 5: "cytoplasm"},
}
HELP = "folder of the data directory, or NAME=RAW,LABELS; @Z,Y,X gives a voxel size in nm"
READ = (16, 512, 512)
"""Voxels looked at together."""


@dataclass(frozen=True)
class Pair:
    """A grey volume and its reference labels, as they lie on disk.

    Attributes
    ----------
    name : str
    wanted : Wanted
        The grey volume, for a model to be laid over.
    grey, reference : Volume
    mask : Volume or None
        Voxels count where it is above 0; everywhere where there is none.
    classes : mapping of int to str
        Names of the classes that the reference holds.
    """

    name: str
    wanted: Wanted
    grey: Volume
    reference: Volume
    classes: Mapping[int, str]
    mask: Volume | None = None


def open_pair(text: str, crop: str | None = None) -> Pair:
    """Open a volume with labels.

    Parameters
    ----------
    text : str
        ``NAME[@Z,Y,X]`` for a folder of the data directory with raw.tif and labels.tif, or
        ``NAME=RAW,LABELS[,MASK][@Z,Y,X]``. Names of classes come from ``<raw>_classes.toml`` or
        ``<labels>.toml`` where one is there.
    crop : str, optional
        ``z0:z1,y0:y1,x0:x1``.

    Raises
    ------
    InputError
        Where volume and labels do not fit together.
    """
    name, raw, labels, mask, size = parts_of(text)
    wanted = Wanted(raw, voxel_size=size, crop=crop)
    grey, reference = open_grey(raw, size, crop), open_volume(labels, crop=crop)
    inside = None if mask is None else open_volume(mask, crop=crop)
    for what, one in (("labels", reference), ("mask", inside)):
        if one is not None and one.shape != grey.shape:
            raise InputError(f"{name}: the volume has {grey.shape} voxels, its {what} {one.shape}")
    return Pair(name, wanted, grey, reference, _classes(name, Path(raw), Path(labels), reference), inside)


def parts_of(text: str) -> tuple[str, str, str, str | None, str | None]:
    """Return name, volume, labels, mask and voxel size of what ``open_pair`` opens."""
    text, _, size = text.partition("@")
    name, _, paths = text.partition("=")
    folder = DATA / name
    raw, *rest = paths.split(",") if paths else (f"{folder}/raw.tif", f"{folder}/labels.tif")
    if len(rest) not in (1, 2) or not all(rest):
        raise InputError(f"'{text}' names no labels: write NAME=RAW,LABELS")
    return name, raw, rest[0], rest[1] if len(rest) == 2 else None, size or None


def _classes(name: str, raw: Path, labels: Path, reference: Volume) -> dict[int, str]:
    """Return the classes of a reference by name."""
    beside = (raw.with_name(f"{split_name(raw)[0]}_classes.toml"), labels.with_suffix(".toml"))
    known = CLASSES.get(name) or next((names(str(path)) for path in beside if path.exists()), None) or {}
    found = {g for box in reference.box.split(READ) for g in np.unique(reference.read(box)).tolist()}
    return {g: known.get(g, f"class {g}") for g in sorted(found)}
