"""Whether a labeller that was read from a file can be used: its arrays, and what it says about itself."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch

from vemseg.errors import InputError
from vemseg.foreign import Form, reading
from vemseg.labelling.base import MARGIN, OWN, Labeller

MOST_CLASSES = 255
"""Most classes of a labeller: labels are bytes."""

_FACTS = Form(
    {
        f"{OWN}?": list[str],
        f"{MARGIN}?": float,
        "names?": dict[str, str],
        "intensities?": list[float | None],
        "suggestions?": list[dict[str, str | float] | None],
        "model?": str,
        "choice?": {
            "k": int,
            "reason": str,
            "stable": bool,
            "curve": list[dict[str, float | int | None]],
        },
    }
)
"""What the metadata of a labeller say that is read."""


def check_saved(labeller: Labeller, complaint: str) -> None:
    """Refuse a labeller whose arrays or facts do not fit each other; it scores two vectors of zeros.

    Parameters
    ----------
    labeller : Labeller
        As its file describes it.
    complaint : str
        What is wrong and where; the reason follows it.

    Raises
    ------
    InputError
        Where it cannot be used.
    """
    facts = labeller.metadata
    _FACTS.check(facts, complaint)
    with reading(complaint):
        for name in (field.name for field in fields(labeller) if field.name != "metadata"):
            _check_array(getattr(labeller, name), name)
        k, dim = labeller.k, labeller.dim
        if not (1 <= k <= MOST_CLASSES and dim >= 1):
            raise InputError(f"{complaint}: {k} classes of vectors of {dim} numbers")
        for name, most in ((OWN, k), ("intensities", k), ("suggestions", k)):
            if facts.get(name) and len(facts[name]) != most:
                raise InputError(f"{complaint}: {len(facts[name])} {name} for {k} classes")
        _ = labeller.names
        scores = labeller.scores(torch.zeros(2, dim))
        if scores.shape != (2, k):
            raise InputError(f"{complaint}: it gives {tuple(scores.shape)} scores to 2 vectors")


def _check_array(array: object, name: str) -> None:
    """Refuse numbers that no labeller holds."""
    if array is None:
        return
    values = np.asarray(array)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinity")
    if values.dtype not in (np.float32, np.float64, np.int64) or (
        values.dtype == np.int64 and (values < 0).any()
    ):
        raise ValueError(f"{name} holds {values.dtype} numbers, or negative ones")
