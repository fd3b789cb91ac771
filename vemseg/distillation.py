"""A dense encoder taught by another one: the student that a teacher asks for, and how well both agree."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vemseg.errors import UsageError
from vemseg.labelling import Labeller, Sample, fit
from vemseg.models import Model, build_encoder, build_student
from vemseg.models.devices import wants_bf16
from vemseg.models.distilled import Distillation
from vemseg.models.objective import step_generator
from vemseg.recipe import KINDS, KMeansTable, Recipe, override
from vemseg.sampling import HELD_OUT, Sampler, Source

DESCRIPTION = "The dense encoder, taught to give the vectors of another one: run.json names this teacher."
"""What a student's recipe says of itself."""

FIRST = 2**40
"""Step of the sampler from which on teacher and student are compared: no training gets there."""

BATCHES, REGIONS = 8, 4
"""What teacher and student are compared on: batches, and regions in each."""

SAMPLE = 48_000
"""Most vectors of these that count."""

CLASSES = 6
"""How many classes the teacher's vectors are divided into to see whether the student's agree with them."""

_log = logging.getLogger("vemseg")


def student_recipe(recipe: Recipe, teacher: Model) -> Recipe:
    """Return the recipe of a teacher's student: length and scaling of its vectors become the teacher's.

    Parameters
    ----------
    recipe : Recipe
        Of a dense encoder.
    teacher : Model
        Any encoder, for voxels of the same size and intensities.

    Raises
    ------
    UsageError
        Where a model of the student's kind cannot be taught, or the teacher sees other voxels.
    """
    if KINDS[recipe.model.kind].student is None:
        raise UsageError(f"a teacher teaches a dense encoder, not a '{recipe.model.kind}': add -c vemseg")
    ours, theirs = recipe.settings["volume"], teacher.recipe.settings["volume"]
    counting = {"percentile": "percentiles", "range": "range"}[theirs["intensity"]]
    keys = [key for key in ("voxel_size", "intensity", counting) if ours[key] != theirs[key]]
    if keys:
        shown = "; ".join(f"volume.{key} {theirs[key]} there, {ours[key]} here" for key in keys)
        way_out = " ".join(f"--set 'volume.{key}={theirs[key]}'" for key in keys)
        raise UsageError(f"teacher {teacher.title} sees other voxels ({shown}): add {way_out}")
    dim, scale = build_encoder(teacher.recipe.model).dim, teacher.recipe.cluster.scale
    return override(recipe, [f"description={DESCRIPTION}", f"model.dim={dim}", f"cluster.scale={scale}"])


def distillation(recipe: Recipe, teacher: Model, device: torch.device) -> Distillation:
    """Return the objective by which a teacher, on a device, teaches the student of a recipe."""
    dtype = torch.bfloat16 if wants_bf16(teacher.recipe.train.precision, device) else torch.float32
    encoder = teacher.load().prepare(device, dtype)
    stride = encoder.placements(teacher.recipe.embed)[2].stride
    objective = build_student(recipe.model, recipe.train.seed, encoder, stride)
    assert isinstance(objective, Distillation)
    return objective


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
    clusters = KMeansTable.model_validate(
        {"k": CLASSES, "sample": SAMPLE, "restarts": 3, "scale": recipe.cluster.scale}
    )
    labeller = fit(clusters, Sample(theirs.astype(np.float16), np.zeros(len(theirs), np.float32)))
    labels = [_labels(labeller, vectors) for vectors in (theirs, ours)]
    equal = float((labels[0] == labels[1]).mean())
    where = "held-out sections" if held else "volumes it learnt from, too small to hold a part out"
    _log.info("student and teacher in %s: cosine %.3f, %.1f %% equal labels", where, cosine, 100 * equal)
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


def _labels(labeller: Labeller, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = labeller.scores(torch.from_numpy(vectors)).argmax(dim=-1).numpy()
    return labels
