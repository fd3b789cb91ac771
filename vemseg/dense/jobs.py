"""The two jobs of dense inference: the labels of a volume, and its vectors, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import Job, Stages
from vemseg.context import Context
from vemseg.dense.holding import point_stages
from vemseg.dense.opening import Wanted
from vemseg.dense.sources import Given, VectorSource
from vemseg.features import Features, Values
from vemseg.geometry import Box
from vemseg.labelling import Labeller, load
from vemseg.volume import LabelStore

Labels = NDArray[np.uint8]

Labelled = tuple[Labels, ...]
"""The labels of a block, and how certain they are where that is wanted."""


@dataclass(frozen=True)
class Seen:
    """What was read for a block: what labels are made from, unless nothing of the specimen lies in it.

    Attributes
    ----------
    given : array or None
    shown : uint8 (z, y, x) or None
        1 where voxels show the specimen; None where all voxels do.
    """

    given: Given | None
    shown: Labels | None = None


@dataclass(frozen=True)
class LabelJob(Job[Seen, Labelled]):
    """Label a volume, block by block; writing a block returns the voxels of each label, 0..K.

    Attributes
    ----------
    wanted : Wanted
        Volume and model, or stored features.
    labeller : Path
        A saved labeller.
    store : Path
        The ``LabelStore`` that labels are written to.
    confidence : Path, optional
        The ``LabelStore``, of the same shape and blocks, that is told how certain they are.
    """

    wanted: Wanted
    labeller: Path
    store: Path
    confidence: Path | None = None

    def open(self, context: Context) -> Stages[Seen, Labelled]:
        """Open source, labeller and stores."""
        source, labeller = self.wanted.open(context), load(self.labeller)
        confidence = None if self.confidence is None else LabelStore.open(self.confidence)
        return label_stages(source, labeller, LabelStore.open(self.store), confidence)


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
    source: VectorSource, labeller: Labeller, store: LabelStore, confidence: LabelStore | None = None
) -> Stages[Seen, Labelled]:
    """Return how a block is read, labelled and written; writing returns the voxels of each label, 0..K.

    Voxels outside the specimen get label 0, which is nothing, and are not certain of anything. Blocks
    without any specimen are not encoded.
    """
    stores = [store] if confidence is None else [store, confidence]
    specimen = source.volume.specimen

    def read(box: Box) -> Seen:
        if specimen is None:
            return Seen(source.read(box))
        shown = specimen.voxels.read(box).astype(np.uint8, copy=False)
        return Seen(source.read(box) if shown.any() else None, shown)

    def compute(box: Box, seen: Seen) -> Labelled:
        if seen.given is None:
            return tuple(np.zeros(box.shape, np.uint8) for _ in stores)
        rate = confidence is not None
        made = (
            source.rated(box, seen.given, labeller) if rate else (source.labels(box, seen.given, labeller),)
        )
        return made if seen.shown is None else tuple(each * seen.shown for each in made)

    def write(box: Box, made: Labelled) -> list[int]:
        for growing, voxels in zip(stores, made, strict=True):
            growing.write(box, voxels)
        planes = [np.bincount(plane.ravel(), minlength=labeller.k + 1) for plane in made[0]]
        counts: list[int] = np.sum(planes, axis=0).tolist()
        return counts

    return Stages(read, compute, write)
