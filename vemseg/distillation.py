"""How well a dense encoder has learnt to give its teacher's vectors."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vemseg.clustering import Clusterer, fit
from vemseg.models.distilled import Distillation
from vemseg.models.objective import step_generator
from vemseg.recipe import ClusterTable, Recipe
from vemseg.sampling import HELD_OUT, Sampler, Source

FIRST = 2**40
"""Step of the sampler from which on teacher and student are compared: no training gets there."""
BATCHES, REGIONS = 8, 4
"""What teacher and student are compared on: batches, and regions in each."""
SAMPLE = 48_000
"""Most vectors of these that count."""
CLASSES = 6
"""How many classes the teacher's vectors are divided into to see whether the student's agree with them."""

log = logging.getLogger("vemseg")


def agreement(
    objective: Distillation,
    learnt: Sequence[Source],
    held: Sequence[Source],
    recipe: Recipe,
    device: torch.device,
) -> dict[str, float | bool]:
    """Compare a student with its teacher on what was held out, or where nothing was, on what it learnt from.

    Parameters
    ----------
    objective : Distillation
        Holds both.
    learnt, held : sequence of Source
        See ``vemseg.sampling.hold_out``.
    recipe : Recipe
        The student's; ``cluster.scale`` is the teacher's.
    device : torch.device

    Returns
    -------
    dict
        ``cosine``: mean cosine of standardised vectors. ``label_agreement``: share of the places that get the
        same label of ``CLASSES``, found by k-means on the teacher's vectors alone, from both. ``held_out``:
        whether the places are new to the student.
    """
    pool = recipe.fov.pool_bytes // HELD_OUT
    table = recipe.fov.model_copy(update={"crop": "off", "pool_bytes": pool})
    sampler = Sampler(held or learnt, objective.window, table, recipe.train.seed, device)
    theirs, ours = _vectors(objective, sampler, recipe.train.seed)
    mean, spread = theirs.mean(axis=0), theirs.std(axis=0) + 1e-12
    a, b = (theirs - mean) / spread, (ours - mean) / spread
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())
    clusters = ClusterTable(k=CLASSES, sample=SAMPLE, restarts=3, scale=recipe.cluster.scale)
    clusterer = fit(theirs.astype(np.float16), np.zeros(len(theirs), np.float32), clusters)
    labels = [_labels(clusterer, vectors) for vectors in (theirs, ours)]
    equal = float((labels[0] == labels[1]).mean())
    where = "held-out sections" if held else "volumes it learnt from, too small to hold a part out"
    log.info("student and teacher in %s: cosine %.3f, %.1f %% equal labels", where, cosine, 100 * equal)
    return {"cosine": cosine, "label_agreement": equal, "held_out": bool(held)}


def _vectors(objective: Distillation, sampler: Sampler, seed: int) -> list[NDArray[np.float32]]:
    """Return vectors (n, d) of teacher and student in the same places, rounded as where they are used."""
    rng = np.random.default_rng(seed)
    objective.eval()
    found: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
    for step in range(FIRST, FIRST + BATCHES):
        pair = objective.vectors(sampler.batch(step, REGIONS), step_generator(seed, step))
        chosen = rng.permutation(len(pair[0]))[: SAMPLE // BATCHES]
        for vectors, side in zip(pair, found, strict=True):
            side.append(vectors[chosen].half().float().cpu().numpy())
    return [np.concatenate(side) for side in found]


def _labels(clusterer: Clusterer, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = clusterer.scores(torch.from_numpy(vectors)).argmax(dim=-1).numpy()
    return labels
