"""Cluster centres that others have found, as text; classes are made of them, and saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError, MissingError, OutputExistsError
from vemseg.labelling.affine import AffineLabeller
from vemseg.labelling.fitting import load
from vemseg.labelling.saved import MOST_CLASSES


def read_centres(path: Path, dim: int) -> NDArray[np.float64]:
    """Read a text file with one centre per line, as numbers between spaces or commas.

    Parameters
    ----------
    path : Path
    dim : int
        Numbers that a line must have: the length of the vectors.

    Returns
    -------
    float64 (k, dim)

    Raises
    ------
    MissingError
        Where there is no such file.
    InputError
        Where it holds anything else, numbers that are not finite, or more than ``MOST_CLASSES`` centres.
    """
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
    if len(centres) > MOST_CLASSES:
        raise InputError(f"{path}: {len(centres)} centres, but labels go up to {MOST_CLASSES}")
    return centres


def keep_centres(
    centres: NDArray[np.float64], about: Mapping[str, object], path: Path, overwrite: bool
) -> None:
    """Write the classes of cluster centres, unless they are there.

    Parameters
    ----------
    centres : float64 (k, d)
    about : mapping
        What is kept with the centres; ``centroids`` is the hash of the file that they come from.
    path : Path
    overwrite : bool
        Replace other classes.

    Raises
    ------
    OutputExistsError
        Where classes of another file are there, and ``overwrite`` is not set.
    """
    labeller = AffineLabeller.of_centres(centres, dict(about))
    if path.exists() and not overwrite:
        if load(path).metadata.get("centroids") == labeller.metadata["centroids"]:
            return
        raise OutputExistsError(f"{path} holds other clusters: name another -o, or -f to replace it")
    labeller.save(path)
