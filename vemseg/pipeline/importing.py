"""``fetch weights --from``: the released checkpoint of MAESTER, and its cluster centres, as a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.clustering import Clusterer
from vemseg.errors import InputError, MissingError, OutputExistsError
from vemseg.pipeline.common import open_model
from vemseg.run import Run, fingerprint

CLUSTERS = "clusters.safetensors"


def import_weights(checkpoint: Path, centroids: Path | None, out: Path, *, overwrite: bool) -> list[Path]:
    """Turn a checkpoint of the reference code of MAESTER into a run directory.

    Parameters
    ----------
    checkpoint : Path
        A state dict (.pt); nothing in it is executed.
    centroids : Path, optional
        Text, one cluster centre per line, as numbers between spaces or commas. The classes keep the order of
        the file.
    out : Path
        The run directory.
    overwrite : bool
        Replace a run that is there.

    Returns
    -------
    list of Path
        The run, and the clusters, for ``segment --clusters``, where centres were given.

    Raises
    ------
    MissingError, InputError
        Where a file is not there, or is none of the kind.
    OutputExistsError
        Where ``out`` holds another run and ``overwrite`` is not set.
    """
    from vemseg.models import import_maester, save_encoder

    table, objective = import_maester(checkpoint)
    centres = None if centroids is None else _read_centres(centroids, table.dim)
    recipe = open_model(str(checkpoint)).recipe
    source = fingerprint(checkpoint, whole=True)
    with Run.create(out, recipe, parents=[checkpoint], overwrite=overwrite) as run:
        before = run.info.get("imported", {}).get("sha256")
        if run.finished and before != source["sha256"]:
            raise OutputExistsError(f"{out} holds another run: name another -o, or -f to replace it")
        save_encoder(run.model, objective, {"imported": checkpoint.name})
        if not run.finished:
            run.finish(imported={"file": checkpoint.name, "sha256": source["sha256"]})
    if centres is None:
        return [out]
    _clusterer(centres, open_model(str(out.resolve())).hash).save(out / CLUSTERS)
    return [out, out / CLUSTERS]


def _read_centres(path: Path, dim: int) -> NDArray[np.float64]:
    """Read a text file of numbers, one vector a line."""
    if not path.is_file():
        raise MissingError(f"no centroids at {path}")
    try:
        text = path.read_text(encoding="utf-8").replace(",", " ")
        centres = np.loadtxt(text.splitlines(), ndmin=2, dtype=np.float64)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no text file of numbers ({' '.join(str(error).split())})") from None
    if centres.shape[1] != dim or not np.isfinite(centres).all():
        found = f"{centres.shape[0]} lines of {centres.shape[1]} numbers"
        raise InputError(f"{path}: {found}, but the model's vectors have {dim}")
    return centres


def _clusterer(centres: NDArray[np.float64], model: str) -> Clusterer:
    """Return the classes of the nearest centre: scores 2 z.c - |c|^2."""
    weight, bias = 2 * centres.T, -np.square(centres).sum(axis=1)
    about = {"method": "imported", "scale": "none", "k": len(centres), "model": model}
    return Clusterer(np.ascontiguousarray(weight, np.float32), bias.astype(np.float32), about)
