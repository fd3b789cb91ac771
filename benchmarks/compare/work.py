"""One task in a process of its own: a training, which is a command of vemseg, or the scoring of a cell."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from compare.places import Place
from compare.plan import ENDLESS, Common, Plan, Task
from compare.scoring import score
from compare.systems import ADAPTED
from vemseg.cli import main as vemseg
from vemseg.context import Context
from vemseg.errors import InputError
from vemseg.recipe import load_recipe
from vemseg.run.locks import alone

ADAPTED_K = "6"
"""Number of classes of the labels that adapting leaves beside its run."""


def do(plan: Plan, task: Task, context: Context) -> int:
    """Do a task unless it is done, alone; return the exit code."""
    lock = plan.folder / "locks" / f"{task.key}.lock"
    with alone(lock, f"another process does {task.key}", context.stopped):
        if task.done:
            return 0
        if task.kind == "score":
            score(plan, task, context)
            return 0
        task.home.mkdir(parents=True, exist_ok=True)
        return command(words_of(plan, task, prepare=True))


def command(words: Sequence[str]) -> int:
    """Carry out a command of vemseg in this process, and return its exit code."""
    before, sys.argv = sys.argv, ["vemseg", *words]
    try:
        vemseg()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
    return 0


def words_of(plan: Plan, task: Task, *, prepare: bool = False) -> list[str]:
    """Return the command of a training.

    Parameters
    ----------
    plan : Plan
    task : Task
    prepare : bool
        Where it learns from labels, also write those of a few slices, and look which classes they have.
    """
    system, place, common = task.system, task.place, plan.common
    shared = [*_place(place, common), "-d", common.device]
    chosen = [f"train.seed={task.seed}", *system.set]
    if system.adapt:
        words = [
            "segment",
            *place.raws()[:1],
            "-k",
            ADAPTED_K,
            "-o",
            str(task.home / f"{system.key}.tif"),
            "-f",
        ]
        longest = "1000h" if common.minutes is None else f"{60 * common.minutes:g}s"
        return [*words, *shared, "--adapt", longest, *_set([*chosen, *_steps(common, ADAPTED, True)])]
    words = ["train", *place.raws(system.slices), "-c", str(system.train), "-o", str(task.run), *shared]
    if common.minutes is not None:
        words += ["--max-time", f"{60 * common.minutes:g}s"]
    words += _set([*chosen, *_steps(common, str(system.train), False, system.set)])
    if system.begin:
        words += ["--from", system.begin]
    if system.encoder:
        trained = system.teacher is not None and system.teacher.trained
        words += ["--encoder", str(task.run_of(system.teacher)) if trained else system.encoder]
    return [*words, *(_lessons(task, prepare) if system.labels else [])]


def _place(place: Place, common: Common) -> list[str]:
    size = ["--voxel-size", place.voxel_size] if place.voxel_size else []
    return [*size, *(["--crop", common.crop] if common.crop else [])]


def _set(settings: Sequence[str]) -> list[str]:
    return [word for text in settings for word in ("--set", text)]


def _steps(common: Common, recipe: str, own: bool, settings: Sequence[str] = ()) -> list[str]:
    """Return the setting for the length of a training, where the recipe does not decide.

    A training that adapts keeps its own length, and ends early where its time is up.
    """
    if common.samples is not None:
        batch = load_recipe(recipe, settings).train.batch
        return [f"train.steps={max(1, -(-common.samples // batch))}"]
    return [f"train.steps={ENDLESS}"] if common.minutes is not None and not own else []


def _lessons(task: Task, prepare: bool) -> list[str]:
    """Return the options that name labels to learn from."""
    folder, slices = task.home / f"lessons-{task.system.key}", task.system.slices
    labels, masks = task.place.lesson_files(slices, folder)
    words = [word for path in labels for word in ("--labels", path)]
    words += [word for path in masks for word in ("--mask", path)]
    if not prepare:
        return words
    names = task.place.lessons(slices, folder)
    return [*words, "--names", ",".join(f"{value}={name}" for value, name in names.items())]


def make_phantom(folder: Path) -> None:
    """Make the phantom of a comparison unless it is there.

    Raises
    ------
    InputError
        Where that fails.
    """
    path = folder / "phantom.tif"
    if not path.exists():
        words = [sys.executable, "-m", "vemseg", "fetch", "phantom", "-o", str(path)]
        if subprocess.run(words, stdout=sys.stderr, check=False).returncode:
            raise InputError(f"the phantom could not be made: {path}")
