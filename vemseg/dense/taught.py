"""Prepares volumes and their labels for training: the recipe gets the classes, and a part is held out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.dense.lessons import Lesson, Lessons
from vemseg.dense.opening import training_source
from vemseg.errors import InputError, UsageError
from vemseg.recipe import Recipe
from vemseg.sampling import Known, Source, hold_out_known, survey
from vemseg.volume import Volume, describe

_log = logging.getLogger("vemseg")


@dataclass(frozen=True)
class Taught:
    """What a model learns from labels.

    Attributes
    ----------
    recipe : Recipe
        With the classes of the labels.
    learnt, held : list of Source
        The labels to learn from, and those that are held out, of which there may be none.
    labels : list of Volume
        All labels and masks.
    facts : list of dict
        For each volume, what ``run.json`` says of its labels.
    """

    recipe: Recipe
    learnt: list[Source]
    held: list[Source]
    labels: list[Volume]
    facts: list[dict[str, object]]


def teach(
    lessons: Lessons, volumes: Sequence[Volume], recipe: Recipe, crop: str | None, *, offline: bool = False
) -> Taught:
    """Prepare volumes with labels for the training of a recipe.

    Parameters
    ----------
    lessons : Lessons
        The labels that the user names.
    volumes : sequence of Volume
    recipe : Recipe
        One that learns from labels.
    crop : str or None
        How the volumes were cropped.
    offline : bool
        Whether addresses on the network are refused.

    Raises
    ------
    UsageError
        Where the recipe does not learn from labels.
    InputError
        Where labels do not fit their volume or the recipe, or a class has no voxels.
    """
    opened = lessons.open(volumes, crop, offline=offline)
    values = lessons.values(opened)
    recipe = _with_classes(recipe, lessons, values)
    sources, surveys = [], []
    for volume, lesson in zip(volumes, opened, strict=True):
        source = training_source(volume, recipe, lesson.numbered(values))
        assert source.labels is not None
        sources.append(source)
        surveys.append(survey(source.labels))
    counts = np.sum([known.counts for known in surveys], axis=0)[: len(values)]
    if lost := [value for k, value in enumerate(values) if not counts[k]]:
        raise InputError(
            f"{', '.join(lessons.labels)}: no voxel of {lost} is left at the model's voxel size: label "
            "larger parts, or take --set volume.voxel_size=NM nearer to the volume's own"
        )
    _say(recipe.model.label_classes, counts, zero=0 in values and 0 not in lessons.names)
    learnt, held = _divide(sources, surveys)
    facts = [_facts(lesson, lessons, values, known) for lesson, known in zip(opened, surveys, strict=True)]
    labels = [volume for lesson in opened for volume in (lesson.labels, lesson.mask) if volume is not None]
    return Taught(recipe, learnt, held, labels, facts)


def _say(names: Sequence[str], counts: NDArray[np.int64], *, zero: bool) -> None:
    """Say what is learned and how much of it there is, and that 0 is a class, which nobody may have meant."""
    shares = (f"{name} {100 * n / counts.sum():.3g} %" for name, n in zip(names, counts, strict=True))
    hint = "; if label 0 means unknown, add --unlabelled 0" if zero else ""
    _log.info("classes to learn, in shares of what is labelled: %s%s", ", ".join(shares), hint)


def _with_classes(recipe: Recipe, lessons: Lessons, values: Sequence[int]) -> Recipe:
    """Return a recipe whose model has the classes of labels; the recipe's own where it names them."""
    if not recipe.model.learns_labels:
        raise UsageError(
            f"--labels: a '{recipe.model.kind}' does not learn from labels: add -c unet_supervised"
        )
    wanted = recipe.model.label_classes
    if wanted and len(wanted) != len(values):
        raise InputError(
            f"{', '.join(lessons.labels)}: {len(values)} classes (values {list(values)}), but model.classes "
            f"names {len(wanted)}: --unlabelled leaves values out, --set model.classes=[] takes all of them"
        )
    names = wanted or lessons.classes(values)
    try:
        return recipe.model_copy(update={"model": recipe.model.taught(names)})
    except ValueError as error:
        raise UsageError(f"{', '.join(lessons.labels)}: the labels do not fit the recipe ({error})") from None


def _divide(sources: Sequence[Source], surveys: Sequence[Known]) -> tuple[list[Source], list[Source]]:
    """Divide every source into what is learned from and what is held out, and say where nothing is."""
    learnt, held = [], []
    for source, known in zip(sources, surveys, strict=True):
        mine, theirs = hold_out_known(source, known)
        learnt.append(mine)
        if theirs is None:
            _log.warning(
                "%s: too few labels to hold a part out: nothing says how well they are learned",
                source.volume.name,
            )
        else:
            held.append(theirs)
    return learnt, held


def _facts(lesson: Lesson, lessons: Lessons, values: Sequence[int], known: Known) -> dict[str, object]:
    """Return what ``run.json`` says of the labels of a volume; voxels are counted at the working size."""
    return {
        "labels": describe(lesson.labels),
        "mask": None if lesson.mask is None else describe(lesson.mask),
        "label_values": list(values),
        "unlabelled": sorted(lessons.unlabelled),
        "known_voxels": [int(known.counts[k]) for k in range(len(values))],
    }
