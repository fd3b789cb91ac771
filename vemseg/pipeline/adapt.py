"""Train a model further on the very volume that it is to segment; no labels are needed for that.

The run lies beside the labels and is used again the next time.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.errors import InputError, MissingError, UsageError
from vemseg.models import open_model
from vemseg.pipeline.beside import beside
from vemseg.pipeline.self_train import COURSE, HARDER, self_train
from vemseg.pipeline.train import Training, train
from vemseg.recipe import METHODS, override
from vemseg.run import Run

_log = logging.getLogger("vemseg")

ENDING = ".run"
"""Ending of the name of the run, which begins with the stem of the labels."""

LEARNING = ("volume", "fov", "tissue", "model", "train")
"""Tables of settings that training depends on; the others may change from one segmentation to the next."""

ENOUGH = "train.steps=800"
"""Setting for the length of the training of an encoder without classes of its own, unless the user's settings
name another: features that learn for longer tell regions apart instead of organelles
(``benchmarks/RESULTS.md``)."""

GENTLY = 0.25
"""Factor on the learning rate of such an encoder, unless the user's settings name a rate: its weights are
good already."""


def is_adapted(out: Path) -> bool:
    """Tell whether the training for labels at ``out`` has finished."""
    with contextlib.suppress(InputError, MissingError):  # there is none, or it was killed as it began
        return Run.open(beside(out, ENDING)).finished
    return False


def adapt(wanted: Wanted, out: Path, seconds: float, context: Context) -> Path:
    """Train a model on a volume, from the weights it has, and return the run.

    A run that is finished is used as it is, whatever time is asked for now; one that was stopped goes on.

    Parameters
    ----------
    wanted : Wanted
        Volume and model; the settings are laid over the model's recipe.
    out : Path
        The labels it is for; the run is ``<stem>.run`` beside them.
    seconds : float
        Longest time for the training.
    context : Context

    Raises
    ------
    UsageError
        Where the model needs no training, or its checkpoint comes without a recipe.
    OutputExistsError
        Where a run of another volume, other settings or other weights is there.
    Interrupted
        Where the work was stopped; the same call goes on with it.
    """
    learning = [text for text in wanted.settings if text.partition(".")[0].strip() in LEARNING]
    start = open_model(wanted.model)
    knows = bool(start.recipe.model.known_classes)
    gently = f"train.lr={GENTLY * start.recipe.train.lr!r}"
    ours = [*COURSE, *HARDER] if knows else [ENOUGH, gently]
    if METHODS[start.recipe.cluster.method].objective:
        raise UsageError(
            f"--adapt: '{start.title}' has classes that were trained on the vectors of an encoder; leave it "
            "out, or train others on this volume: vemseg train VOLUME -c sccs --encoder MODEL -o RUN"
        )
    if not start.trained or start.weights is None:
        raise UsageError(f"--adapt: '{start.title}' is not trained; leave it out")
    if start.weights.suffix != ".safetensors":
        raise UsageError("--adapt goes on from a run or from bundled weights, not from a .pt file")
    run = beside(out, ENDING)
    if is_adapted(out):
        _log.info("%s was adapted to this volume before: used as it is (delete it to start again)", run)
    training = Training(
        [wanted.path],
        run,
        override(start.recipe, [*ours, *learning]),
        start=start,
        voxel_size=wanted.voxel_size,
        crop=wanted.crop,
        choice=wanted.choice,
        backgrounds=[wanted.background],
        max_seconds=seconds,
    )
    return (self_train if knows else train)(training, context)
