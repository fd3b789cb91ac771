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
    classes : mapping of int to str
        Names of the classes that the reference holds.
    """

    name: str
    wanted: Wanted
    grey: Volume
    reference: Volume
    classes: Mapping[int, str]


def open_pair(text: str, crop: str | None = None) -> Pair:
    """Open a volume with labels.

    Parameters
    ----------
    text : str
        ``NAME[@Z,Y,X]`` for a folder of the data directory with raw.tif and labels.tif, or
        ``NAME=RAW,LABELS[@Z,Y,X]``. Names of classes come from ``<raw>_classes.toml`` where it is there.
    crop : str, optional
        ``z0:z1,y0:y1,x0:x1``.

    Raises
    ------
    InputError
        Where volume and labels do not fit together.
    """
    text, _, size = text.partition("@")
    name, _, paths = text.partition("=")
    raw, _, labels = (
        paths.partition(",") if paths else (f"{DATA / name}/raw.tif", "", f"{DATA / name}/labels.tif")
    )
    if not labels:
        raise InputError(f"'{text}' names no labels: write NAME=RAW,LABELS")
    wanted = Wanted(raw, voxel_size=size or None, crop=crop)
    grey, reference = open_grey(raw, wanted.voxel_size, crop), open_volume(labels, crop=crop)
    if reference.shape != grey.shape:
        raise InputError(f"{name}: the volume has {grey.shape} voxels, its labels have {reference.shape}")
    return Pair(name, wanted, grey, reference, _classes(name, Path(raw), reference))


def _classes(name: str, raw: Path, reference: Volume) -> dict[int, str]:
    """Return the classes of a reference by name."""
    beside = raw.with_name(f"{split_name(raw)[0]}_classes.toml")
    known = CLASSES.get(name) or (names(str(beside)) if beside.exists() else None) or {}
    found = {g for box in reference.box.split(READ) for g in np.unique(reference.read(box)).tolist()}
    return {g: known.get(g, f"class {g}") for g in sorted(found)}
