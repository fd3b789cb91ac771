"""``train``: volumes -> a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vemseg.dense import working_grid
from vemseg.errors import Interrupted, UsageError
from vemseg.fov import FovStream, Source
from vemseg.models import build_objective
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
from vemseg.recipe import Recipe
from vemseg.run import Run
from vemseg.training import Progress, Trainer

log = logging.getLogger("vemseg")


def train(
    volumes: Sequence[str],
    out: Path,
    recipe: Recipe,
    *,
    start: Model | None = None,
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
        Whose encoder to begin with, of the same ``[model]`` table; what the objective has besides starts new.
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
        Where ``start`` is another model than the recipe's.
    Interrupted
        Where it was stopped with its state saved.
    """
    objective: Any = build_objective(recipe.model, recipe.train.seed)
    if start is not None:
        _begin_with(objective, recipe, start)
    target = pick_device(device)
    opened = [open_input(path, voxel_size, crop) for path in volumes]
    sources, facts = [], []
    for volume in opened:
        intensity = intensity_of(volume, recipe)
        oriented, _ = sharp_plane_first(volume)
        sources.append(Source(working_grid(oriented, recipe.volume.voxel_size).volume, intensity))
        facts.append(describe(volume, intensity))
    stream = FovStream(sources, objective.fov, recipe.fov, recipe.train.seed, target)
    details = {"volumes": facts, "device": str(target), "max_seconds": max_seconds}
    inputs = [v.path for v in opened if v.path]
    parents = start.parents if start is not None else []
    with Run.create(out, recipe, inputs=inputs, parents=parents, details=details, overwrite=overwrite) as run:
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
        run.finish(seconds=trainer.elapsed, steps=trainer.step)
    return out


def _begin_with(objective: Any, recipe: Recipe, start: Model) -> None:
    """Copy the weights of a model into an objective's encoder."""
    ours, theirs = recipe.settings["model"], start.recipe.settings["model"]
    if differing := [key for key in ours if ours[key] != theirs.get(key)]:
        raise UsageError(f"{start.title} is another model: it differs in model.{', model.'.join(differing)}")
    objective.encoder.load_state_dict(start.load((1.0, 1.0, 1.0)).state_dict())


def words(progress: Progress) -> str:
    """Return one line on a training: step, loss, rate."""
    return (
        f"step {progress.step}/{progress.steps}  loss {progress.loss:.4f}  "
        f"{progress.samples_per_second:.0f} samples/s"
    )
