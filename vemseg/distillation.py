"""Teaching a dense encoder by another model: the student's recipe, its objective, and how well both agree."""

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
"""The description in the recipe of every student."""

FIRST = 2**40
"""The first of the sampler's steps on which teacher and student are compared; no training gets that far."""

BATCHES, REGIONS = 8, 4
"""Number of batches on which teacher and student are compared, and of regions in each batch."""

SAMPLE = 48_000
"""The largest number of vectors that are compared."""

CLASSES = 6
"""How many classes the teacher's vectors are divided into to see whether the student's agree with them."""

_log = logging.getLogger("vemseg")


def student_recipe(recipe: Recipe, teacher: Model) -> Recipe:
    """Return the recipe of a student whose vectors have the length and the scaling of the teacher's.

    Parameters
    ----------
    recipe : Recipe
        The recipe of a dense encoder.
    teacher : Model
        An encoder of any kind that works on the same voxel size and intensities.

    Raises
    ------
    UsageError
        Where a model of the student's kind cannot be taught, or the teacher works on other voxels.
    """
    if KINDS[recipe.model.kind].student is None:
        raise UsageError(f"a teacher teaches a dense encoder, not a '{recipe.model.kind}': add -c vemseg")
    ours, theirs = recipe.settings["volume"], teacher.recipe.settings["volume"]
    limits = {"percentile": "percentiles", "range": "range"}[teacher.recipe.volume.intensity]
    keys = [key for key in ("voxel_size", "intensity", limits) if ours[key] != theirs[key]]
    if keys:
        shown = "; ".join(f"volume.{key} {theirs[key]} there, {ours[key]} here" for key in keys)
        way_out = " ".join(f"--set 'volume.{key}={theirs[key]}'" for key in keys)
        raise UsageError(f"teacher {teacher.title} sees other voxels ({shown}): add {way_out}")
    dim, scale = build_encoder(teacher.recipe.model).dim, teacher.recipe.cluster.scale
    # A student learns what its teacher sees, and no more.
    own = ["model.classes=[]", "model.full_resolution=false", "tissue.kinds=[]"]
    settings = [f"description={DESCRIPTION}", f"model.dim={dim}", f"cluster.scale={scale}"]
    return override(recipe, [*own, *settings])


def distillation(recipe: Recipe, teacher: Model, device: torch.device) -> Distillation:
    """Return the objective with which a teacher teaches the student of a recipe, on a device."""
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
    """Compare a student with its teacher on held-out sections, or on the training volumes without such.

    Parameters
    ----------
    objective : Distillation
        Holds the student and its teacher.
    learnt, held : sequence of Source
        As ``vemseg.sampling.hold_out`` returns them.
    recipe : Recipe
        The student's; ``cluster.scale`` is the teacher's.
    device : torch.device

    Returns
    -------
    dict
        ``cosine``: mean cosine of standardised vectors. ``label_agreement``: share of the places where the
        vectors of both get the same label, one of ``CLASSES`` that k-means finds in the teacher's vectors
        alone. ``held_out``: whether the places are new to the student.
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
    """Return vectors (n, d) of teacher and student in the same places, rounded to float16 as in use."""
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
