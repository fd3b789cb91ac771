"""``train``: volumes -> a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vemseg.dense import working_grid
from vemseg.errors import Interrupted, OutputExistsError, UsageError
from vemseg.fov import FovStream, Source
from vemseg.models import build_objective, differing_encoder
from vemseg.models.layers import pick_device
from vemseg.pipeline.common import (
    Model,
    Report,
    Stopped,
    describe,
    intensity_of,
    open_input,
    sharp_plane_first,
)
from vemseg.pipeline.distil import agreement, distillation, hold_out, student_recipe
from vemseg.recipe import Recipe
from vemseg.run import Run, sha256
from vemseg.training import Progress, Trainer
from vemseg.volume import Volume

log = logging.getLogger("vemseg")


def train(
    volumes: Sequence[str],
    out: Path,
    recipe: Recipe,
    *,
    start: Model | None = None,
    teacher: Model | None = None,
    voxel_size: str | None = None,
    crop: str | None = None,
    device: str = "auto",
    max_seconds: float | None = None,
    overwrite: bool = False,
    report: Report,
    stopped: Stopped,
) -> Path:
    """Train a recipe's model on volumes; the same call again goes on where it stopped.

    Parameters
    ----------
    volumes : sequence of str
        Paths; each is drawn from alike.
    out : Path
        The run directory.
    recipe : Recipe
        All settings.
    start : Model, optional
        Whose encoder to begin with, of the same sizes; what the objective has besides starts new.
    teacher : Model, optional
        The encoder whose vectors a dense one is taught to give, instead of the recipe's own objective. How
        well it does in the end is said, and kept in ``run.json``; see ``vemseg.pipeline.distil``.
    voxel_size, crop : str, optional
        Of every volume; the voxel size is read from the file where left out.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps".
    max_seconds : float, optional
        Time for the whole training, earlier parts of a resumed run included; the schedule ends with it.
    overwrite : bool
        Start again, whatever is in the directory.

    Raises
    ------
    UsageError
        Where ``start`` is another model than the recipe's, or ``teacher`` does not fit it.
    OutputExistsError
        Where another run is there, or one that began from another model or learns from another teacher.
    Interrupted
        Where it was stopped with its state saved.
    """
    if start is not None and teacher is not None:
        raise UsageError("--from and --teacher do not go together: a student begins from nothing")
    target = pick_device(device)
    if teacher is not None:
        recipe = student_recipe(recipe, teacher)
        objective = distillation(recipe, teacher, target)
    else:
        objective = _objective(recipe, start)
    opened = [open_input(path, voxel_size, crop) for path in volumes]
    sources = [_source(volume, recipe) for volume in opened]
    facts = [describe(volume, source.intensity) for volume, source in zip(opened, sources, strict=True)]
    held: list[Source] = []
    if teacher is not None:
        sources, held = hold_out(sources, objective.encoder.slices, objective.fov[1])
    stream = FovStream(sources, objective.fov, recipe.fov, recipe.train.seed, target)
    details: dict[str, Any] = {"volumes": facts, "device": str(target), "max_seconds": max_seconds}
    role, origin = ("start", start) if teacher is None else ("teacher", teacher)
    if origin is not None:
        details[role] = {"model": origin.title, "hash": origin.hash}
    parents = origin.parents if origin is not None else []
    inputs = [v.path for v in opened if v.path]
    with Run.create(out, recipe, inputs=inputs, parents=parents, details=details, overwrite=overwrite) as run:
        _refuse_other_origin(run, parents, details)
        if run.finished:
            log.info("%s is trained already", out)
            return out
        trainer = Trainer(objective.to(target), stream, run, recipe.train, max_seconds)
        if trainer.step:
            log.info("going on from step %d", trainer.step)
        report("training", trainer.fraction, f"step {trainer.step}")
        if not trainer.fit(lambda progress: report("training", progress.fraction, words(progress)), stopped):
            raise Interrupted(
                f"stopped at step {trainer.step}, state saved in {out}: the same command goes on"
            )
        trainer.draw()
        found = {} if teacher is None else agreement(objective, sources, held, recipe, teacher, target)
        run.finish(seconds=trainer.elapsed, steps=trainer.step, **found)
    return out


def _source(volume: Volume, recipe: Recipe) -> Source:
    """Return a volume as training looks at it."""
    oriented, _ = sharp_plane_first(volume)
    grid = working_grid(oriented, recipe.volume.voxel_size)
    return Source(grid.volume, intensity_of(volume, recipe))


def _objective(recipe: Recipe, start: Model | None) -> Any:
    """Return the recipe's own objective, its encoder with the weights of a model where one is given."""
    objective: Any = build_objective(recipe.model, recipe.train.seed)
    if start is not None:
        if differing := differing_encoder(recipe.model, start.recipe.model):
            raise UsageError(
                f"{start.title} is another model than the recipe's: it differs in {', '.join(differing)}"
            )
        objective.encoder.load_state_dict(start.load((1.0, 1.0, 1.0)).state_dict())
    return objective


def _refuse_other_origin(run: Run, parents: Sequence[Path], details: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that began with other weights, or learns from another teacher."""
    there = run.info
    weights = [sha256(path) for path in parents]
    teachers = [info.get("teacher", {}).get("hash") for info in (there, details)]
    if weights == [entry["sha256"] for entry in there["parents"]] and teachers[0] == teachers[1]:
        return
    raise OutputExistsError(
        f"{run.path} began otherwise ({_origin(there)} there, {_origin(details)} now): "
        f"give another -o, or -f to start again"
    )


def _origin(info: Mapping[str, Any]) -> str:
    """Say what other model a training begins with or learns from."""
    named = [f"{role} {info[role]['model']}" for role in ("start", "teacher") if role in info]
    return ", ".join(named or [entry["path"] for entry in info.get("parents", [])]) or "no other model"


def words(progress: Progress) -> str:
    """Return one line on a training: step, loss, rate."""
    return (
        f"step {progress.step}/{progress.steps}  loss {progress.loss:.4f}  "
        f"{progress.samples_per_second:.0f} samples/s"
    )
