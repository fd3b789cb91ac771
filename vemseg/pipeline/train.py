"""``train``: volumes -> a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from vemseg.context import Context
from vemseg.dense import working_grid
from vemseg.distillation import agreement, distillation, student_recipe
from vemseg.errors import Interrupted, OutputExistsError, UsageError
from vemseg.models import Machine, Model, Objective, build_objective, differing_encoder, settle
from vemseg.phantom.tissue import Tissue
from vemseg.recipe import Recipe, TissueTable
from vemseg.resources import usable_cores
from vemseg.run import Run, sha256
from vemseg.sampling import Sampler, Source, Synthetic, hold_out
from vemseg.training import Trainer
from vemseg.volume import Choice, Volume, describe, intensity_of, open_grey, sharp_plane_first

_log = logging.getLogger("vemseg")


@dataclass(frozen=True)
class Training:
    """A training: what to learn, from what, and where to put it.

    Attributes
    ----------
    volumes : sequence of str
        Paths; all are drawn from equally often. There need be none if the recipe has synthetic tissue.
    out : Path
        The run directory.
    recipe : Recipe
        All settings.
    start : Model, optional
        A model of the same sizes with whose encoder to begin; the rest of the objective starts anew.
    teacher : Model, optional
        The encoder whose vectors a dense one is taught to give, instead of the recipe's own objective. How
        well it does in the end is said, and kept in ``run.json``; see ``vemseg.distillation``.
    voxel_size, crop : str, optional
        Voxel size and crop of every volume; a voxel size that is left out is read from the file.
    choice : Choice
        What is read of every volume whose file holds more than one.
    max_seconds : float, optional
        Time for the whole training, earlier parts of a resumed run included; the schedule ends with it.
    overwrite : bool
        Start again, whatever is in the directory.
    """

    volumes: Sequence[str]
    out: Path
    recipe: Recipe
    start: Model | None = None
    teacher: Model | None = None
    voxel_size: str | None = None
    crop: str | None = None
    choice: Choice = Choice()
    max_seconds: float | None = None
    overwrite: bool = False

    @property
    def origin(self) -> Model | None:
        """The model that the training begins with or learns from; None where there is none."""
        return self.teacher or self.start

    @property
    def role(self) -> str:
        """What ``origin`` is to this training: "start" or "teacher"."""
        return "start" if self.teacher is None else "teacher"

    @property
    def parents(self) -> list[Path]:
        """The files of the model that the training begins with or learns from."""
        return self.origin.parents if self.origin is not None else []


def open_all(training: Training, context: Context) -> list[Volume]:
    """Open the volumes of a training."""
    how = (training.voxel_size, training.crop, training.choice)
    return [open_grey(path, *how, offline=context.offline) for path in training.volumes]


def train(training: Training, context: Context) -> Path:
    """Train a recipe's model on volumes and return the run; the same call again goes on where it stopped.

    Raises
    ------
    UsageError
        Where ``start`` is another model than the recipe's, or ``teacher`` does not fit it.
    OutputExistsError
        Where another run is there, or one that began from another model or learns from another teacher.
    Interrupted
        Where the training was stopped and its state saved.
    """
    if training.start is not None and training.teacher is not None:
        raise UsageError("--from and --teacher do not go together: a student begins from nothing")
    recipe = (
        training.recipe if training.teacher is None else student_recipe(training.recipe, training.teacher)
    )
    machine = settle(context, recipe.train.precision)
    device = machine.device
    student = None if training.teacher is None else distillation(recipe, training.teacher, device)
    objective = student if student is not None else _objective(recipe, training.start)
    opened = open_all(training, context)
    learnt = [source_of(volume, recipe) for volume in opened]
    details = details_of(training, opened, learnt, machine)
    held: list[Source] = []
    if student is not None:
        learnt, held = hold_out(learnt, student.encoder.slices, student.window[1])
    sampler = sampler_of([*learnt, *tissue_sources(recipe.tissue)], objective, recipe, machine)

    def conclude() -> Mapping[str, object]:
        return {} if student is None else agreement(student, learnt, held, recipe, device)

    inputs = [volume.path for volume in opened if volume.path]
    return carry_out(
        training, recipe, Course(objective, sampler, machine, inputs, details, conclude), context
    )


@dataclass(frozen=True)
class Course:
    """What a training consists of, once its volumes and models are open.

    Attributes
    ----------
    objective : Objective
    sampler : Sampler
        Closed at the end.
    machine : Machine
    inputs : list of Path
        The volumes on disk.
    details : dict
        What ``run.json`` says beside what it says of every run.
    conclude : callable
        Called at the end; returns what ``run.json`` says of the result.
    """

    objective: Objective
    sampler: Sampler
    machine: Machine
    inputs: Sequence[Path]
    details: Mapping[str, object]
    conclude: Callable[[], Mapping[str, object]] = dict


def carry_out(training: Training, recipe: Recipe, course: Course, context: Context) -> Path:
    """Train in a run directory; go on where an earlier call stopped, and do nothing where it is finished.

    Raises
    ------
    OutputExistsError
        Where another run is there, or one that began from another model or learns from another teacher.
    Interrupted
        Where the training was stopped and its state saved.
    """
    run = Run.create(
        training.out,
        recipe,
        inputs=course.inputs,
        parents=training.parents,
        details=dict(course.details),
        overwrite=training.overwrite,
    )
    with run, closing(course.sampler):
        _refuse_other_origin(run, training)
        if run.finished:
            _log.info("%s is trained already", training.out)
            return training.out
        course.machine.say()
        objective = course.objective.to(course.machine.device)
        trainer = Trainer(objective, course.sampler, run, recipe.train, training.max_seconds)
        _fit(trainer, context)
        run.finish(seconds=trainer.elapsed, steps=trainer.step, **course.conclude())
    return training.out


def _fit(trainer: Trainer, context: Context) -> None:
    """Train to the end, or until it is to stop."""
    if trainer.step:
        _log.info("going on from step %d", trainer.step)
    context.report("training", trainer.fraction, f"step {trainer.step}")
    if not trainer.fit(context):
        raise Interrupted(
            f"stopped at step {trainer.step}, state saved in {trainer.run.path}: the same command goes on"
        )
    trainer.draw()


def details_of(
    training: Training, volumes: Sequence[Volume], sources: Sequence[Source], machine: Machine
) -> dict[str, object]:
    """Return what ``run.json`` says of the volumes, the machine, and the model to begin or learn from."""
    facts = [describe(volume, source.intensity) for volume, source in zip(volumes, sources, strict=True)]
    details: dict[str, object] = {
        "volumes": facts,
        "machine": machine.facts,
        "max_seconds": training.max_seconds,
    }
    if training.origin is not None:
        details[training.role] = {"model": training.origin.title, "hash": training.origin.hash}
    return details


def source_of(volume: Volume, recipe: Recipe) -> Source:
    """Return a volume as training looks at it."""
    oriented, _ = sharp_plane_first(volume)
    grid = working_grid(oriented, recipe.volume.voxel_size)
    return Source(grid.volume, intensity_of(volume, recipe.volume))


def sampler_of(
    sources: Sequence[Source | Synthetic], objective: Objective, recipe: Recipe, machine: Machine
) -> Sampler:
    """Return what draws the windows of an objective; all cores but one make synthetic tissue for it."""
    others = max(1, usable_cores() - 1)
    return Sampler(sources, objective.window, recipe.fov, recipe.train.seed, machine.device, others)


def tissue_sources(table: TissueTable) -> list[Synthetic]:
    """Return the sources of synthetic tissue: one for each thickness of sections."""
    if not table.kinds:
        return []
    pixels = [
        table.pixel if ratio == 1 else (table.section[0] / ratio, table.section[1] / ratio)
        for ratio in table.ratios
    ]
    return [
        Synthetic(Tissue(ratio, pixel, table.kinds), table.held, table.pace)
        for ratio, pixel in zip(table.ratios, pixels, strict=True)
    ]


def _objective(recipe: Recipe, start: Model | None) -> Objective:
    """Return the recipe's own objective, its encoder with the weights of a model where one is given."""
    objective = build_objective(recipe.model, recipe.train.seed)
    if start is not None:
        refuse_other_encoder(recipe, start)
        objective.begin_with(start.load())
    return objective


def refuse_other_encoder(recipe: Recipe, start: Model) -> None:
    """Refuse a model whose encoder has other settings than the recipe's."""
    if differing := differing_encoder(recipe.model, start.recipe.model):
        raise UsageError(
            f"{start.title} is another model than the recipe's: it differs in {', '.join(differing)}"
        )


def _refuse_other_origin(run: Run, training: Training) -> None:
    """Refuse to go on with a run that began with other weights, or learns from another teacher."""
    there, origin = run.info, training.origin
    weights = [entry["sha256"] for entry in there["parents"]]
    teacher = None if training.teacher is None else training.teacher.hash
    if (
        weights == [sha256(path) for path in training.parents]
        and there.get("teacher", {}).get("hash") == teacher
    ):
        return
    named = [f"{role} {there[role]['model']}" for role in ("start", "teacher") if role in there]
    before = ", ".join(named or [entry["path"] for entry in there["parents"]]) or "no other model"
    now = "no other model" if origin is None else f"{training.role} {origin.title}"
    raise OutputExistsError(
        f"{run.path} began otherwise ({before} there, {now} now): give another -o, or -f to start again"
    )
