"""``train``: volumes -> a run."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vemseg import ranks
from vemseg.batch import Batches
from vemseg.comparison import open_subject
from vemseg.context import Context
from vemseg.dense import GraphSampler, Lessons, lay_over_volume, teach, training_source
from vemseg.distillation import agreement, distillation, student_recipe
from vemseg.errors import Interrupted, UsageError
from vemseg.models import (
    Machine,
    Model,
    Objective,
    build_labeller,
    build_objective,
    settle,
)
from vemseg.recipe import METHODS, Recipe
from vemseg.resources import usable_cores
from vemseg.run import Run
from vemseg.sampling import Sampler, Source, Synthetic, examining_sampler, hold_out, tissue_sources
from vemseg.training import Trainer, refuse_undivided
from vemseg.volume import Background, Choice, Intensity, Volume, describe

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
    encoder : Model, optional
        The model on whose vectors the labeller of the recipe is trained, instead of an encoder.
    lessons : Lessons, optional
        Labels to learn from; a recipe that learns from labels needs them, and no other takes them.
    voxel_size, crop : str, optional
        Voxel size and crop of every volume; a voxel size that is left out is read from the file.
    choice : Choice
        What is read of every volume whose file holds more than one.
    backgrounds : sequence of Background
        Which voxels of each volume show nothing, as far as the user says; one for all where there is one.
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
    encoder: Model | None = None
    lessons: Lessons | None = None
    voxel_size: str | None = None
    crop: str | None = None
    choice: Choice = Choice()
    backgrounds: Sequence[Background] = (Background(),)
    max_seconds: float | None = None
    overwrite: bool = False

    @property
    def origin(self) -> Model | None:
        """The model that the training begins with or learns from; None where there is none."""
        return self.teacher or self.encoder or self.start

    @property
    def role(self) -> str:
        """What ``origin`` is to this training: "start", "teacher" or "encoder"."""
        return "teacher" if self.teacher else "encoder" if self.encoder else "start"

    @property
    def parents(self) -> list[Path]:
        """The files of the model that the training begins with or learns from."""
        return self.origin.parents if self.origin is not None else []


def open_all(training: Training, context: Context) -> list[Volume]:
    """Open the volumes of a training."""
    how = (training.voxel_size, training.crop, training.choice)
    each = zip(training.volumes, itertools.cycle(training.backgrounds), strict=False)
    return [open_subject(path, *how, blank, offline=context.offline) for path, blank in each]


def train(training: Training, context: Context) -> Path:
    """Train a recipe's model on volumes and return the run; the same call again goes on where it stopped.

    Raises
    ------
    UsageError
        Where ``start`` is another model than the recipe's, or ``teacher`` or ``encoder`` does not fit it.
    OutputExistsError
        Where another run is there, or one that began from another model or learns from another teacher.
    Interrupted
        Where the training was stopped and its state saved.
    """
    if sum(model is not None for model in (training.start, training.teacher, training.encoder)) > 1:
        raise UsageError("--from, --teacher and --encoder do not go together: give one of them")
    if training.lessons is not None or training.recipe.model.learns_labels:
        return _train_with_labels(training, context)
    if training.encoder is not None or METHODS[training.recipe.cluster.method].objective:
        return _train_labeller(training, context)
    recipe = (
        training.recipe if training.teacher is None else student_recipe(training.recipe, training.teacher)
    )
    machine = settle(context, recipe.train.precision)
    device = machine.device
    student = None if training.teacher is None else distillation(recipe, training.teacher, device)
    objective = student if student is not None else _objective(recipe, training.start)
    opened = open_all(training, context)
    learnt = [training_source(volume, recipe) for volume in opened]
    details = details_of(training, opened, [source.intensity for source in learnt], machine)
    held: list[Source] = []
    if student is not None:
        learnt, held = hold_out(learnt, student.encoder.slices, student.window[1])
    sampler = sampler_of([*learnt, *tissue_sources(recipe.tissue)], objective, recipe, machine)

    def conclude() -> Mapping[str, object]:
        return {} if student is None else agreement(student, learnt, held, recipe, device)

    inputs = [path for volume in opened for path in volume.sources]
    return carry_out(
        training, recipe, Course(objective, sampler, machine, inputs, details, conclude), context
    )


def _train_with_labels(training: Training, context: Context) -> Path:
    """Train the model of a recipe on the labels of volumes, and examine it on some that are held out."""
    if training.lessons is None:
        raise UsageError(f"a '{training.recipe.model.kind}' learns from labels: add --labels LABELS")
    if training.teacher is not None or training.encoder is not None:
        raise UsageError("--labels and --teacher or --encoder do not go together: a model learns from one")
    opened = open_all(training, context)
    taught = teach(training.lessons, opened, training.recipe, training.crop, offline=context.offline)
    recipe = taught.recipe
    machine = settle(context, recipe.train.precision)
    objective = _objective(recipe, training.start)
    held = examining_sampler(taught.held, objective.window, recipe.fov, recipe.train.seed, machine.device)
    grey = [source.intensity for source in taught.learnt]
    details = details_of(training, opened, grey, machine, taught.facts)
    sampler = sampler_of(taught.learnt, objective, recipe, machine)
    inputs = [path for volume in (*opened, *taught.labels) for path in volume.sources]
    return carry_out(
        training, recipe, Course(objective, sampler, machine, inputs, details, held=held), context
    )


def _train_labeller(training: Training, context: Context) -> Path:
    """Train the labeller of a recipe on the vectors that a model gives of volumes."""
    table = training.recipe.cluster
    if training.encoder is None:
        instead = "with --encoder instead of --from" if training.start else "with --encoder"
        raise UsageError(
            f"cluster.method {table.method} is trained on the vectors of a model: name it {instead}"
        )
    recipe = training.recipe.on_vectors_of(training.encoder.recipe)
    model = replace(training.encoder, recipe=recipe)
    opened = open_all(training, context)
    sources = [lay_over_volume(model, volume, context) for volume in opened]
    sampler = GraphSampler(sources, recipe)
    objective = build_labeller(table, recipe.train.seed, model.load(), sampler.dim)
    machine, inputs = sources[0].machine, [path for volume in opened for path in volume.sources]
    details = details_of(training, opened, [source.intensity for source in sources], machine)
    return carry_out(training, recipe, Course(objective, sampler, machine, inputs, details), context)


@dataclass(frozen=True)
class Course:
    """What a training consists of, once its volumes and models are open.

    Attributes
    ----------
    objective : Objective
    sampler : Batches
        Closed at the end.
    machine : Machine
    inputs : list of Path
        The volumes on disk.
    details : dict
        What ``run.json`` says beside what it says of every run.
    conclude : callable
        Called at the end; returns what ``run.json`` says of the result.
    held : Batches, optional
        What the objective is examined on.
    """

    objective: Objective
    sampler: Batches
    machine: Machine
    inputs: Sequence[Path]
    details: Mapping[str, object]
    conclude: Callable[[], Mapping[str, object]] = dict
    held: Batches | None = None


def carry_out(training: Training, recipe: Recipe, course: Course, context: Context) -> Path:
    """Train in a run directory; go on where an earlier call stopped, and do nothing where it is finished.

    Raises
    ------
    OutputExistsError
        Where another run is there, or one that began from another model or learns from another teacher.
    Interrupted
        Where the training was stopped and its state saved.
    """
    refuse_undivided(course.objective, recipe.train.batch)
    begin = partial(
        Run.create,
        training.out,
        recipe,
        inputs=course.inputs,
        parents=training.parents,
        details=dict(course.details),
        overwrite=training.overwrite,
    )
    with ranks.first(begin, partial(Run.open, training.out)) as run, closing(course.sampler):
        if run.finished:
            _log.info("%s is trained already", training.out)
            return training.out
        course.machine.say()
        objective = course.objective.to(course.machine.device)
        trainer = Trainer(objective, course.sampler, run, recipe.train, training.max_seconds, course.held)
        _fit(trainer, context)
        if ranks.leads():
            run.finish(seconds=trainer.elapsed, steps=trainer.step, **course.conclude())
    return training.out


def _fit(trainer: Trainer, context: Context) -> None:
    """Train to the end, or until it is to stop."""
    if trainer.step:
        _log.info("going on from step %d", trainer.step)
    if not trainer.fit(context):
        raise Interrupted(
            f"stopped at step {trainer.step}, state saved in {trainer.run.path}: the same command goes on"
        )
    trainer.draw()


def details_of(
    training: Training,
    volumes: Sequence[Volume],
    grey: Sequence[Intensity | None],
    machine: Machine,
    labels: Sequence[dict[str, object]] = (),
) -> dict[str, object]:
    """Return what ``run.json`` says of volumes, their labels, the machine, and the model to begin with."""
    facts = [describe(volume, intensity) for volume, intensity in zip(volumes, grey, strict=True)]
    facts = [fact | told for fact, told in zip(facts, labels or [{}] * len(facts), strict=True)]
    details: dict[str, object] = {
        "volumes": facts,
        "machine": machine.facts,
        "processes": ranks.here().count,
        "max_seconds": training.max_seconds,
    }
    if training.origin is not None:
        details[training.role] = {"model": training.origin.title, "hash": training.origin.hash}
    return details


def sampler_of(
    sources: Sequence[Source | Synthetic], objective: Objective, recipe: Recipe, machine: Machine
) -> Sampler:
    """Return what draws the windows of an objective; all cores but one make synthetic tissue for it."""
    others = max(1, usable_cores() - 1)
    return Sampler(sources, objective.window, recipe.fov, recipe.train.seed, machine.device, others)


def _objective(recipe: Recipe, start: Model | None) -> Objective:
    """Return the recipe's own objective, its encoder with the weights of a model where one is given."""
    objective = build_objective(recipe.model, recipe.train.seed)
    if start is not None:
        start.refuse_other(recipe)
        objective.begin_with(start.load())
    return objective
