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


@dataclass(frozen=True)
class LabelJob(Job[Given, Labels]):
    """Label a volume, block by block; writing a block returns the voxels of each label, 0..K.

    Attributes
    ----------
    wanted : Wanted
        Volume and model, or stored features.
    labeller : Path
        A saved labeller.
    store : Path
        The ``LabelStore`` that labels are written to.
    """

    wanted: Wanted
    labeller: Path
    store: Path

    def open(self, context: Context) -> Stages[Given, Labels]:
        """Open source, labeller and store."""
        source, labeller = self.wanted.open(context), load(self.labeller)
        return label_stages(source, labeller, LabelStore.open(self.store))


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
        return point_stages(self.wanted.open(context), Features(self.store, mode="r+"))


def label_stages(source: VectorSource, labeller: Labeller, store: LabelStore) -> Stages[Given, Labels]:
    """Return how a block is read, labelled and written; writing returns the voxels of each label, 0..K."""

    def compute(box: Box, given: Given) -> Labels:
        return source.labels(box, given, labeller)

    def write(box: Box, labels: Labels) -> list[int]:
        store.write(box, labels)
        planes = [np.bincount(plane.ravel(), minlength=labeller.k + 1) for plane in labels]
        counts: list[int] = np.sum(planes, axis=0).tolist()
        return counts

    return Stages(source.read, compute, write)
