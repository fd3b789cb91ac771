"""The two jobs of dense inference: the labels of a volume, and its vectors, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import Job, Stages
from vemseg.blocks.job import Marked
from vemseg.context import Context
from vemseg.dense.holding import point_stages
from vemseg.dense.opening import Wanted
from vemseg.dense.scores import RATINGS, Rated
from vemseg.dense.sources import Given, VectorSource
from vemseg.features import Features, Values
from vemseg.geometry import Box
from vemseg.labelling import Labeller, load
from vemseg.volume import LabelStore, grow


@dataclass(frozen=True)
class Seen:
    """What was read for a block: what labels are made from, unless nothing of the specimen lies in it.

    Attributes
    ----------
    given : array, Tensor or None
        What the source read; None where nothing of the specimen lies in the block.
    shown : uint8 (z, y, x) or None
        1 where voxels show the specimen; None where all voxels do.
    """

    given: Given | None
    shown: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class LabelJob(Job[Seen, Rated]):
    """Label a volume, block by block; writing a block returns the voxels of each label, 0..K.

    Attributes
    ----------
    wanted : Wanted
        Volume and model, or stored features.
    labeller : Path
        A saved labeller.
    store : Path
        The ``LabelStore`` that labels are written to.
    ratings : tuple of (str, Path)
        What else is told of each voxel (see ``scores.RATINGS``), and the ``LabelStore``, of the same shape
        and blocks, that it is written to.
    """

    wanted: Wanted
    labeller: Path
    store: Path
    ratings: tuple[tuple[str, Path], ...] = ()

    def open(self, context: Context) -> Stages[Seen, Rated]:
        """Open source, labeller and stores."""
        ratings = {name: LabelStore.open(path) for name, path in self.ratings}
        return label_stages(
            self.wanted.open(context), load(self.labeller), LabelStore.open(self.store), ratings
        )


@dataclass(frozen=True)
class EmbedJob(Job[Given | None, Values]):
    """Compute and store the vectors of a volume, box by box of lattice points.

    Attributes
    ----------
    wanted : Wanted
        Volume and model.
    store : Path
        The ``Features`` that vectors are written to.
    """

    wanted: Wanted
    store: Path

    def open(self, context: Context) -> Stages[Given | None, Values]:
        """Open source and store."""
        return point_stages(self.wanted.vectors(context), Features(self.store, mode="r+"))


def label_stages(
    source: VectorSource, labeller: Labeller, store: LabelStore, ratings: Mapping[str, LabelStore]
) -> Stages[Seen, Rated]:
    """Return how a block is read, labelled and written; writing returns the voxels of each label, 0..K.

    Voxels outside the specimen get label 0, which is nothing, and 0 in each rating. Blocks without any
    specimen are not encoded.
    """
    names, stores = list(ratings), [store, *ratings.values()]
    specimen = source.volume.specimen

    def read(box: Box) -> Seen:
        if specimen is None:
            return Seen(source.read(box))
        shown = specimen.voxels.read(box).astype(np.uint8, copy=False)
        return Seen(source.read(box) if shown.any() else None, shown)

    def compute(box: Box, seen: Seen) -> Rated:
        if seen.given is None:
            ratings = (RATINGS[name].empty(box.shape, labeller.k) for name in names)
            return (np.zeros(box.shape, np.uint8), *map(np.zeros_like, ratings))
        made = source.rated(box, seen.given, labeller, names)
        return made if seen.shown is None else tuple(each * seen.shown for each in made)

    def write(box: Box, made: Rated) -> list[int]:
        for growing, voxels in zip(stores, made, strict=True):
            growing.write(box, voxels)
        planes = [np.bincount(plane.ravel(), minlength=labeller.k + 1) for plane in made[0]]
        counts: list[int] = np.sum(planes, axis=0).tolist()
        return counts

    def then(box: Box, marked: Marked) -> None:
        for growing in stores:
            grow(growing, box, marked)

    return Stages(read, compute, write, then)
