"""Labels that a labeller gives a volume where it is sure, computed where they are read."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from vemseg.batch import UNKNOWN
from vemseg.dense.scores import in_parts, interpolated
from vemseg.dense.sources import LatticeVectors
from vemseg.geometry import Box
from vemseg.labelling import Labeller, Sample
from vemseg.volume import Volume


def margin_of(labeller: Labeller, sample: Sample, share: float) -> float:
    """Return by how much the best score must exceed the second best for a label to be sure.

    Parameters
    ----------
    labeller : Labeller
    sample : Sample
    share : float
        The margin in units of the median over the sample.
    """
    scores = in_parts(labeller.scores)(torch.from_numpy(sample.vectors).float())
    best = scores.topk(2, dim=-1).values
    return share * float((best[:, 0] - best[:, 1]).median())


class PseudoLabels(Volume):
    """The classes of a volume, 0..K-1, or 255 where the best score is too close to the next.

    Parameters
    ----------
    source : LatticeVectors
        The vectors of a volume whose first axis is the one across its sharp planes.
    labeller : Labeller
        At most 255 classes, at least 2.
    margin : float
        By how much the best score must exceed the second best.
    """

    def __init__(self, source: LatticeVectors, labeller: Labeller, margin: float) -> None:
        volume = source.volume
        super().__init__(
            volume.shape,
            np.dtype(np.uint8),
            voxel_size=volume.voxel_size,
            voxel_size_from=volume.voxel_size_from,
            name=f"classes of {volume.name}",
        )
        self.source, self.labeller, self.margin = source, labeller, margin

    def _read(self, box: Box) -> NDArray[np.generic]:
        source = self.source
        scores = source.compute(source.points_of(box), source.read(box), in_parts(self.labeller.scores))
        labels = np.empty(box.shape, np.uint8)
        for plane, rows, strip in interpolated(scores, source.interpolations(box)):
            best = strip.topk(2, dim=-1)
            sure = best.values[..., 0] - best.values[..., 1] >= self.margin
            labels[plane, rows] = torch.where(sure, best.indices[..., 0], UNKNOWN).numpy()
        return labels
