"""A model trained on, on the very volume it is to segment: self-supervised, so no labels are needed.

The run lies beside the labels and is used again the next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vemseg.errors import UsageError
from vemseg.pipeline.common import log, open_model
from vemseg.pipeline.outputs import beside
from vemseg.pipeline.train import TrainJob
from vemseg.recipe import MODEL_KINDS, override
from vemseg.run import Run

ENDING = ".run"
"""Of the run that lies beside labels: it follows their stem."""

LEARNING = ("volume", "fov", "model", "train")
"""Tables of settings that training depends on; the others may change from one segmentation to the next."""

ENOUGH = "train.steps=800"
"""Unless the time ends before, or the settings name another number: features that learn for longer tell
regions apart instead of organelles (``benchmarks/RESULTS.md``)."""

GENTLY = 0.25
"""Of the recipe's learning rate, where the settings name none: the weights are good already."""


def adaptation(
    path: str,
    out: Path,
    seconds: float,
    *,
    model: str | None,
    settings: Sequence[str],
    voxel_size: str | None,
    crop: str | None,
) -> TrainJob:
    """Return the training of a model on a volume, from the weights it has.

    A run that is finished is used as it is, whatever time is asked for now; one that was stopped goes on.

    Parameters
    ----------
    path : str
        The volume.
    out : Path
        The labels it is for; the run is ``<stem>.run`` beside them.
    seconds : float
        Time for the training, at most.
    model : str or None
        As in ``open_model``.
    settings : sequence of str
        ``table.key=value`` laid over the model's recipe.

    Raises
    ------
    UsageError
        Where the model needs no training, or its checkpoint comes without a recipe.
    """
    learning = [text for text in settings if text.partition(".")[0].strip() in LEARNING]
    start = open_model(model, [ENOUGH])
    gently = f"train.lr={GENTLY * start.recipe.train.lr!r}"
    start = replace(start, recipe=override(start.recipe, [gently, *learning]))
    if not MODEL_KINDS[start.recipe.model.kind].trains or start.weights is None:
        raise UsageError(f"--adapt: '{start.title}' is not trained; leave it out")
    if start.weights.suffix != ".safetensors":
        raise UsageError("--adapt goes on from a run or from bundled weights, not from a .pt file")
    run = beside(out, ENDING)
    if run.exists() and Run.open(run).finished:
        log.info("%s was adapted to this volume before: used as it is (delete it to start again)", run)
    return TrainJob(
        [path], run, start.recipe, start=start, voxel_size=voxel_size, crop=crop, max_seconds=seconds
    )
