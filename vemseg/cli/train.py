"""``vemseg train``: volumes -> a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vemseg.cli import options, parsing, reading, shell
from vemseg.cli.words import BackgroundKind
from vemseg.errors import UsageError

if TYPE_CHECKING:
    from vemseg.dense import Lessons
    from vemseg.recipe import Recipe
    from vemseg.volume import Background

SUPERVISED = "unet_supervised"
"""The recipe that is used where labels are given and no recipe is named."""


def train(
    volumes: options.TrainingVolumes = None,
    *,
    voxel_size: options.VoxelSize = None,
    crop: options.Crop = None,
    channel: reading.Channel = None,
    time: reading.TimePoint = None,
    level: reading.Level = None,
    axes: reading.Axes = None,
    background: reading.Background = BackgroundKind.auto,
    offline: options.Offline = False,
    labels: options.LessonLabels = None,
    mask: options.LessonMasks = None,
    unlabelled: options.Unlabelled = None,
    names: options.Names = None,
    config: options.Config = None,
    start: options.Start = None,
    teacher: options.Teacher = None,
    encoder: options.Encoder = None,
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    lr: options.LearningRate = None,
    out: options.RunFolder = None,
    overwrite: options.Overwrite = False,
    dump_config: options.DumpConfig = False,
    device: options.Device = "auto",
    max_time: options.MaxTime = None,
    seed: options.Seed = None,
    set_: options.Settings = None,
) -> None:
    """Train a model on volumes, without labels; with --labels it learns their classes.

    A training that is stopped by SIGTERM or SIGUSR1 saves its state, and the same command goes on. The recipe
    decides on all that you leave out; --dump-config shows its settings.
    """
    shortcuts = {"train.steps": steps, "train.batch": batch_size, "train.lr": lr, "train.seed": seed}
    lessons = _lessons(labels, mask, unlabelled, names)
    recipe = _recipe(config or (SUPERVISED if labels else None), start, parsing.settings(set_, shortcuts))
    seconds = parsing.duration(max_time) if max_time else None
    if dump_config:
        return shell.result(_as_trained(recipe, teacher, encoder).to_toml().rstrip())
    if out is None or not (volumes or recipe.tissue.kinds):
        raise UsageError("name what to learn from and where to put it: vemseg train cell.tif -o run")
    with shell.together(device=device, offline=offline) as context:
        from vemseg.models import open_model
        from vemseg.pipeline.train import Training
        from vemseg.pipeline.train import train as compute

        training = Training(
            volumes or [],
            out,
            recipe,
            start=open_model(start) if start else None,
            teacher=open_model(teacher) if teacher else None,
            encoder=open_model(encoder) if encoder else None,
            lessons=lessons,
            voxel_size=voxel_size,
            crop=crop,
            choice=parsing.choice(channel, time, level, axes),
            backgrounds=_backgrounds(background, None if labels else mask, volumes or []),
            max_seconds=seconds,
            overwrite=overwrite,
        )
        run = compute(training, context)
    shell.result(run)


def _lessons(
    labels: list[str] | None, mask: list[str] | None, unlabelled: str | None, names: str | None
) -> Lessons | None:
    """Return the labels to learn from; None where there are none.

    Raises
    ------
    UsageError
        Where an option on labels is given without any.
    """
    named, values = parsing.names(names), parsing.ids(unlabelled)
    if labels:
        from vemseg.dense import Lessons

        return Lessons(labels, mask or (), values, named or {})
    for option, given in (("--unlabelled", unlabelled), ("--names", names)):
        if given:
            raise UsageError(f"{option} is about labels to learn from: add --labels LABELS")
    return None


def _backgrounds(kind: BackgroundKind, masks: list[str] | None, volumes: list[str]) -> list[Background]:
    """Return which voxels of each volume show nothing.

    Raises
    ------
    UsageError
        Where there are more or fewer masks than volumes.
    """
    if masks and len(masks) != len(volumes):
        raise UsageError(
            f"{len(masks)} --mask for {len(volumes)} volumes: repeat --mask once for each volume"
        )
    return [parsing.background(kind, mask) for mask in (masks or (None,))]


def _recipe(config: str | None, start: str | None, settings: list[str]) -> Recipe:
    """Load the recipe that is named, else that of the model to begin with, else the default."""
    from vemseg.recipe import DEFAULT_RECIPE, load_recipe

    if start is None or config is not None:
        return load_recipe(config or DEFAULT_RECIPE, settings)
    from vemseg.models import open_model

    return open_model(start, settings).recipe


def _as_trained(recipe: Recipe, teacher: str | None, encoder: str | None) -> Recipe:
    """Return the settings that training would use: they follow a teacher, or the encoder of a labeller."""
    if teacher is None and encoder is None:
        return recipe
    from vemseg.distillation import student_recipe
    from vemseg.models import open_model

    if teacher is None:
        return recipe.on_vectors_of(open_model(encoder).recipe)
    return student_recipe(recipe, open_model(teacher))
