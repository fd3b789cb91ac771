"""Labels that labellers give a volume where they are sure, computed where they are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.batch import UNKNOWN, Pair
from vemseg.dense.scores import in_parts, interpolated
from vemseg.dense.sources import LatticeVectors
from vemseg.geometry import Box
from vemseg.labelling import Labeller, Sample
from vemseg.volume import Volume


@dataclass(frozen=True)
class Judge:
    """A labeller, and by how much its best score must exceed the second best for a label to be sure."""

    labeller: Labeller
    margin: float

    @classmethod
    def of(cls, labeller: Labeller, sample: Sample, share: float) -> Judge:
        """Return a judge whose margin is a share of the median margin over a sample."""
        scores = in_parts(labeller.scores)(torch.from_numpy(sample.vectors).float())
        best = scores.topk(2, dim=-1).values
        return cls(labeller, share * float((best[:, 0] - best[:, 1]).median()))

    def labels(self, scores: Tensor) -> NDArray[np.uint8]:
        """Return the classes of scores (..., K), ``Pair.UNSURE`` where the best is too close to the next.

        Where scores are equal, it is the lower class, as in ``argmax_interpolated``.
        """
        best = scores.topk(2, dim=-1).values
        sure = (best[..., 0] - best[..., 1] >= self.margin).numpy()
        return np.where(sure, scores.numpy().argmax(axis=-1), Pair.UNSURE).astype(np.uint8)


class PseudoLabels(Volume):
    """Two classes for every voxel, packed as ``vemseg.batch.Pair`` says.

    Parameters
    ----------
    source : LatticeVectors
        The vectors of a volume whose first axis is the one across its sharp planes.
    known, found : Judge
        The encoder's own classes, and those found in the volume; at most 15 of each, at least 2.
    """

    def __init__(self, source: LatticeVectors, known: Judge, found: Judge) -> None:
        volume = source.volume
        super().__init__(
            volume.shape,
            np.dtype(np.uint8),
            voxel_size=volume.voxel_size,
            voxel_size_from=volume.voxel_size_from,
            name=f"classes of {volume.name}",
        )
        self.source, self.known, self.found = source, known, found

    def _scores(self, vectors: Tensor) -> Tensor:
        return torch.cat([self.known.labeller.scores(vectors), self.found.labeller.scores(vectors)], dim=-1)

    def _read(self, box: Box) -> NDArray[np.generic]:
        source, k = self.source, self.known.labeller.k
        scores = source.compute(source.points_of(box), source.read(box), in_parts(self._scores))
        labels = np.empty(box.shape, np.uint8)
        for plane, rows, strip in interpolated(scores, source.interpolations(box)):
            known, found = self.known.labels(strip[..., :k]), self.found.labels(strip[..., k:])
            labels[plane, rows] = Pair.packed(known, found)
        if self.source.volume.specimen is not None:
            labels[self.source.volume.specimen.voxels.read(box) == 0] = UNKNOWN
        return labels
