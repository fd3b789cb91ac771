"""Self-training of an encoder that knows organelles on the volume that it is to segment.

1. the encoder as it is finds classes in the volume; only the places where they are sure count
2. the same encoder learns these classes from single planes, under changes of contrast and noise, beside
   synthetic tissue of the same voxel size
3. what it has learned shows in its own classes, too: they were learned from single planes in the same way
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from vemseg.context import Context
from vemseg.dense import Judge, PseudoLabels, lay_over_volume, training_source
from vemseg.errors import UsageError
from vemseg.geometry import is_anisotropic
from vemseg.labelling import fit
from vemseg.models import Model, build_self_training, settle
from vemseg.phantom.tissue import Tissue
from vemseg.pipeline.train import Course, Training, carry_out, details_of, open_all, sampler_of
from vemseg.recipe import KMeansTable, NamedTable, Recipe
from vemseg.sampling import Source, Synthetic, tissue_sources
from vemseg.volume import Volume

FOUND = 8
"""Number of classes that are looked for in the volume."""

SAMPLE = 100_000
"""Number of vectors that they are fitted to."""

SURE = 0.5
"""A place counts where the margin of its class exceeds this share of the median margin."""

AROUND = 1.4
"""Pixels of synthetic tissue are up to this factor smaller or larger than those of the volume."""

COURSE = (
    "train.steps=450",
    "train.lr=1e-3",
    "model.average=0.997",  # a quarter of what is kept is the encoder as it was
    "fov.pool_bytes=67108864",  # of the volume, or of boxes of it
    "tissue.held=12",
)
"""Settings of the training, unless the user's name others: two to three minutes of two cores."""

HARDER = (
    "model.contrast=0.4",
    "model.brightness=0.15",
    "model.noise=0.1",
    "model.mask_ratio=0.15",
    "model.mask_block=16",
)
"""What makes single planes harder to read than the planes together that the classes were found in."""


def self_train(training: Training, context: Context) -> Path:
    """Train ``training.start`` further on one volume, and return the run.

    Raises
    ------
    UsageError
        Where settings make another encoder of it, or the voxel size is not known: then labels look at the
        volume at the scale at which the encoder tells most, and training would look at another.
    OutputExistsError
        Where a run of another volume, other settings or other weights is there.
    Interrupted
        Where the work was stopped; the same call goes on with it.
    """
    start, recipe = training.start, training.recipe
    assert start is not None
    start.refuse_other(recipe)
    machine = settle(context, recipe.train.precision)
    volume = open_all(training, context)[0]
    if volume.voxel_size is None:
        raise UsageError(
            f"--adapt needs the voxel size, which nothing says of {volume.name}: add --voxel-size Z,Y,X"
        )
    source = training_source(volume, recipe)
    tissue = [_tissue_like(source.volume, recipe)] if recipe.tissue.alike else tissue_sources(recipe.tissue)
    sources: list[Source | Synthetic] = [_with_found_classes(source, start, context), *tissue]
    objective = build_self_training(recipe.model, recipe.train.seed, start.load(), FOUND)
    sampler = sampler_of(sources, objective, recipe, machine)
    details = details_of(training, [volume], [source.intensity], machine)
    return carry_out(training, recipe, Course(objective, sampler, machine, volume.sources, details), context)


def _with_found_classes(source: Source, start: Model, context: Context) -> Source:
    """Label a volume with the encoder's own classes and with those that it finds, where it is sure.

    Its own are called as cautiously as ``segment --classes named`` calls them (``NamedTable``).
    """
    vectors = lay_over_volume(start, source.volume, context, source.intensity)
    table = KMeansTable(k=FOUND, sample=SAMPLE, restarts=3, scale="whiten")
    sample = vectors.sample(table.sample_of(source.volume.box.size), table.seed, context)
    known, found = (
        Judge.of(fit(each, sample, vectors, context), sample, SURE) for each in (NamedTable(), table)
    )
    return replace(source, labels=PseudoLabels(vectors, known, found))


def _tissue_like(volume: Volume, recipe: Recipe) -> Synthetic:
    """Return synthetic tissue of the voxel size of a volume."""
    assert volume.voxel_size is not None
    table, (z, y, x) = recipe.tissue, volume.voxel_size
    pixel = math.sqrt(y * x)
    around = (pixel / AROUND, pixel * AROUND)
    ratio = z / pixel if is_anisotropic(volume.voxel_size) else 1.0
    return Synthetic(Tissue(ratio, around, table.kinds), table.held, table.pace)
