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
class LabelJob(Job[Given, Labelled]):
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

    def open(self, context: Context) -> Stages[Given, Labelled]:
        """Open source, labeller and stores."""
        source, labeller = self.wanted.open(context), load(self.labeller)
        confidence = None if self.confidence is None else LabelStore.open(self.confidence)
        return label_stages(source, labeller, LabelStore.open(self.store), confidence)


@dataclass(frozen=True)
class EmbedJob(Job[Given, Values]):
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

    def open(self, context: Context) -> Stages[Given, Values]:
        """Open source and store."""
        return point_stages(self.wanted.vectors(context), Features(self.store, mode="r+"))


def label_stages(
    source: VectorSource, labeller: Labeller, store: LabelStore, confidence: LabelStore | None = None
) -> Stages[Given, Labelled]:
    """Return how a block is read, labelled and written; writing returns the voxels of each label, 0..K."""
    stores = [store] if confidence is None else [store, confidence]

    def compute(box: Box, given: Given) -> Labelled:
        if confidence is None:
            return (source.labels(box, given, labeller),)
        return source.rated(box, given, labeller)

    def write(box: Box, made: Labelled) -> list[int]:
        for growing, voxels in zip(stores, made, strict=True):
            growing.write(box, voxels)
        planes = [np.bincount(plane.ravel(), minlength=labeller.k + 1) for plane in made[0]]
        counts: list[int] = np.sum(planes, axis=0).tolist()
        return counts

    return Stages(source.read, compute, write)
