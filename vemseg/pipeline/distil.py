"""What ``train --teacher`` adds: the student that a teacher asks for, and how well both agree in the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import UsageError
from vemseg.fov import FovStream, Source
from vemseg.geometry import Box
from vemseg.labelling import Labeller, Sample, fit
from vemseg.models import build_distillation, build_encoder, for_inference
from vemseg.pipeline.common import Model
from vemseg.pipeline.dense_input import placements
from vemseg.recipe import KINDS, KMeansTable, Recipe, override
from vemseg.training import step_generator
from vemseg.volume import Cropped

HELD_OUT = 8
"""One of so many sections of a volume is kept from a student."""
FIRST = 2**40
"""Step of the stream from which on teacher and student are compared: no training gets there."""
BATCHES, REGIONS = 8, 4
"""What teacher and student are compared on in the end: batches, and regions in each."""
SAMPLE = 48_000
"""Most vectors of these that count."""
CLASSES = 6

DESCRIPTION = "The dense encoder, taught to give the vectors of another one: run.json names this teacher."
"""Of a student's recipe."""

log = logging.getLogger("vemseg")


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
        Where the student is no dense encoder, or the teacher sees other voxels.
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


def distillation(recipe: Recipe, teacher: Model, device: Any) -> Any:
    """Return the objective by which a teacher, on a torch device, teaches the student of a recipe."""
    encoder: Any = for_inference(teacher.load((1.0, 1.0, 1.0)), device, teacher.recipe.train.precision)
    stride = placements(encoder, teacher.recipe.embed)[2].stride
    return build_distillation(recipe.model, recipe.train.seed, encoder, stride)


def hold_out(sources: Sequence[Source], slices: int, edge: int) -> tuple[list[Source], list[Source]]:
    """Divide volumes into what a student learns from and what it is examined on: their last sections.

    A volume is learnt whole where these would be fewer than the student's ``slices``, or sections are
    narrower than half a region of ``edge`` voxels.
    """
    learnt: list[Source] = []
    held: list[Source] = []
    for source in sources:
        depth, *plane = source.volume.shape
        kept = depth // HELD_OUT
        if kept < slices or min(plane) < edge / 2:
            learnt.append(source)
            continue
        for part, start, stop in ((learnt, 0, depth - kept), (held, depth - kept, depth)):
            box = Box((start, 0, 0), (stop, plane[0], plane[1]))
            part.append(Source(Cropped(source.volume, box), source.intensity))
    return learnt, held


def agreement(
    objective: Any,
    learnt: Sequence[Source],
    held: Sequence[Source],
    recipe: Recipe,
    teacher: Model,
    device: Any,
) -> dict[str, Any]:
    """Compare a student with its teacher on what was held out, or where nothing was, on what it learnt from.

    Returns
    -------
    dict
        ``cosine``: mean cosine of standardised vectors. ``label_agreement``: share of the places that get the
        same label of ``CLASSES``, found by k-means on the teacher's vectors alone, from both. ``held_out``:
        whether the places are new to the student.
    """
    pool = recipe.fov.pool_bytes // HELD_OUT
    table = recipe.fov.model_copy(update={"crop": "off", "pool_bytes": pool})
    stream = FovStream(held or learnt, objective.fov, table, recipe.train.seed, device)
    theirs, ours = _vectors(objective, stream, recipe)
    mean, spread = theirs.mean(axis=0), theirs.std(axis=0) + 1e-12
    a, b = (theirs - mean) / spread, (ours - mean) / spread
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())
    clusters = KMeansTable(k=CLASSES, sample=SAMPLE, restarts=3, scale=teacher.recipe.cluster.scale)
    labeller = fit(clusters, Sample(theirs.astype(np.float16), np.zeros(len(theirs), np.float32)))
    labels = [_labels(labeller, vectors) for vectors in (theirs, ours)]
    equal = float((labels[0] == labels[1]).mean())
    where = "held-out sections" if held else "volumes it learnt from, too small to hold a part out"
    log.info("student and teacher in %s: cosine %.3f, %.1f %% equal labels", where, cosine, 100 * equal)
    return {"cosine": cosine, "label_agreement": equal, "held_out": bool(held)}


def _vectors(objective: Any, stream: FovStream, recipe: Recipe) -> list[NDArray[np.float32]]:
    """Return vectors (n, d) of teacher and student in the same places, rounded as where they are used."""
    rng = np.random.default_rng(recipe.train.seed)
    objective.eval()
    found: tuple[list[Any], list[Any]] = ([], [])
    for step in range(FIRST, FIRST + BATCHES):
        images = stream.batch(step, REGIONS)
        pair = objective.vectors(images, step_generator(recipe.train.seed, step))
        chosen = rng.permutation(len(pair[0]))[: SAMPLE // BATCHES]
        for vectors, side in zip(pair, found, strict=True):
            side.append(vectors[chosen].half().float().cpu().numpy())
    return [np.concatenate(side) for side in found]


def _labels(labeller: Labeller, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    import torch

    labels: NDArray[np.int64] = labeller.scores(torch.from_numpy(vectors)).argmax(dim=-1).numpy()
    return labels
