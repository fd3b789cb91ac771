"""What ``train --teacher`` adds: the student that a teacher asks for."""

from __future__ import annotations

from typing import Any

from vemseg.errors import UsageError
from vemseg.models import build_distillation, build_encoder, for_inference
from vemseg.models.distilled import Distillation
from vemseg.models.layers import pick_device
from vemseg.pipeline.common import Model
from vemseg.pipeline.dense_input import placements
from vemseg.recipe import Recipe, UNetTable, override

DESCRIPTION = "The dense encoder, taught to give the vectors of another one: run.json names this teacher."
"""What a student's recipe says of itself."""


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
    if not isinstance(recipe.model, UNetTable):
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


def distillation(recipe: Recipe, teacher: Model, device: str) -> Distillation:
    """Return the objective by which a teacher, on a device, teaches the student of a recipe."""
    encoder: Any = for_inference(
        teacher.load((1.0, 1.0, 1.0)), pick_device(device), teacher.recipe.train.precision
    )
    stride = placements(encoder, teacher.recipe.embed)[2].stride
    return build_distillation(recipe.model, recipe.train.seed, encoder, stride)
