"""``fetch weights --from``: the released checkpoint of MAESTER, and its cluster centres, as a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError, MissingError, OutputExistsError
from vemseg.labelling import Labeller, load
from vemseg.labelling.affine import AffineLabeller
from vemseg.pipeline.common import reference_recipe, run_model
from vemseg.run import Run, sha256

CLUSTERS = "clusters.safetensors"
MOST = 255
"""Classes: labels are bytes."""


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
        Replace a run, or clusters, that are there.

    Returns
    -------
    list of Path
        The run, and the clusters, for ``segment --clusters``, where centres were given.

    Raises
    ------
    MissingError, InputError
        Where a file is not there, or is none of the kind.
    OutputExistsError
        Where ``out`` holds another run, or other clusters, and ``overwrite`` is not set.
    """
    from vemseg.models import import_maester, save_encoder

    table, objective = import_maester(checkpoint)
    centres = None if centroids is None else _read_centres(centroids, table.dim)
    source = sha256(checkpoint)
    with Run.create(out, reference_recipe(table), parents=[checkpoint], overwrite=overwrite) as run:
        if run.finished and run.info.get("imported", {}).get("sha256") != source:
            raise OutputExistsError(f"{out} holds another run: name another -o, or -f to replace it")
        if not run.finished:
            save_encoder(run.model, objective, {})
            run.finish(imported={"file": checkpoint.name, "sha256": source})
    if centroids is None or centres is None:
        return [out]
    about = {
        "imported": True,
        "scale": "none",
        "k": len(centres),
        "model": run_model(out, str(out)).hash,
        "centroids": sha256(centroids),
    }
    _keep(AffineLabeller.of_centres(centres, about), out / CLUSTERS, overwrite)
    return [out, out / CLUSTERS]


def _keep(labeller: Labeller, path: Path, overwrite: bool) -> None:
    """Write clusters, unless they are there; refuse to replace others."""
    if path.exists() and not overwrite:
        if load(path).metadata.get("centroids") == labeller.metadata["centroids"]:
            return
        raise OutputExistsError(f"{path} holds other clusters: name another -o, or -f to replace it")
    labeller.save(path)


def _read_centres(path: Path, dim: int) -> NDArray[np.float64]:
    """Read a text file of numbers, one vector a line."""
    if not path.is_file():
        raise MissingError(f"no centroids at {path}")
    try:
        text = path.read_text(encoding="utf-8").replace(",", " ")
        centres = np.loadtxt(text.splitlines(), ndmin=2, dtype=np.float64)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no text file of numbers ({' '.join(str(error).split())})") from None
    found = f"{centres.shape[0]} lines of {centres.shape[1]} numbers"
    if centres.shape[1] != dim:
        raise InputError(f"{path}: {found}, but the model's vectors have {dim}")
    if not np.isfinite(centres).all():
        raise InputError(f"{path}: {found}, some of them NaN or infinite")
    if len(centres) > MOST:
        raise InputError(f"{path}: {len(centres)} centres, but labels go up to {MOST}")
    return centres
