"""What training sees in one step: windows of voxels, their labels and their positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.context import Context
from vemseg.graphs import Graph

UNKNOWN = 255
"""The label of a voxel whose class is not known; a loss must leave such voxels out."""


class Pair:
    """Two classes in one label: the lower four bits hold one, the higher four the other.

    Where both are unsure, the label is ``UNKNOWN``.
    """

    UNSURE = 15
    """What a half holds where its class is not sure; the numbers of classes are below it."""

    @staticmethod
    def packed(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the labels of two classes each."""
        labels: NDArray[np.uint8] = low | (high << np.uint8(4))
        return labels

    @staticmethod
    def parts(labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lower and the higher class of uint8 labels."""
        return labels & 15, labels >> 4


Nearby = Callable[[Tensor], Tensor]
"""A function that cuts windows near the samples of a batch; see :meth:`Batch.around`."""


@dataclass(frozen=True)
class Batch:
    """The samples of one training step.

    Attributes
    ----------
    images : Tensor float32 (b, 1, d, h, w)
        Intensities in [0, 1]. Axes are those of the window: across its planes, along their rows and columns.
    labels : Tensor uint8 or int64 (b, d, h, w), or None
        Classes, ``UNKNOWN`` (255) where a voxel's class is not known; None where no source has labels.
    positions : Tensor float32 (b, 3), or None
        The middle of each window, z y x in nm, measured from the middle of the volume's first voxel. The unit
        is a voxel where the voxel size is not known; NaN for windows of synthetic tissue.
    volume : Tensor int64 (b,), or None
        The number of the source that each sample comes from; on the CPU, since it decides what is done.
    nearby : callable, or None
        Does the work of :meth:`around`; set by the sampler.
    graphs : tuple of Graph
        Where samples are parts of volumes that are divided into regions: the graph of each.
    find_reference : callable, or None
        Does the work of :meth:`reference`; set by the sampler of graphs.
    labelled : Tensor bool (b,), or None
        Whether the source of each sample has labels; on the CPU, as ``volume``.
    """

    images: Tensor
    labels: Tensor | None = None
    positions: Tensor | None = None
    volume: Tensor | None = None
    nearby: Nearby | None = field(default=None, repr=False, compare=False)
    graphs: tuple[Graph, ...] = ()
    find_reference: Callable[[], Graph] | None = field(default=None, repr=False, compare=False)
    labelled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def first(self, n: int) -> Batch:
        """Return the first ``n`` samples, or all of them where there are fewer."""
        labels, positions, volume, labelled = (
            None if tensor is None else tensor[:n]
            for tensor in (self.labels, self.positions, self.volume, self.labelled)
        )
        shown = self.images[:n], labels, positions, volume, self.nearby, self.graphs[:n]
        return Batch(*shown, self.find_reference, labelled)

    def reference(self) -> Graph:
        """Return the graph that classes are anchored in, the same one in all steps.

        Raises
        ------
        ValueError
            Where the samples are no graphs.
        """
        if self.find_reference is None:
            raise ValueError("this batch was not made by a sampler of graphs, so it has no reference")
        return self.find_reference()

    def around(self, offsets: Tensor) -> Tensor:
        """Cut windows of the same size at some distance from each sample.

        These windows are neither enlarged nor mirrored nor turned: an offset of zero gives the sample's own
        window as it was before augmentation. Where a window reaches beyond the voxels held in memory, those
        are mirrored.

        Parameters
        ----------
        offsets : Tensor int64 (b, p, 3)
            Shifts of ``p`` windows for each sample, in voxels along the axes of its window: across the planes
            (sections, in an anisotropic volume), along rows and along columns. These are z, y, x where the
            planes lie across z.

        Returns
        -------
        Tensor float32 (b, p, 1, d, h, w)

        Raises
        ------
        ValueError
            Where the batch was not made by a sampler, or ``offsets`` has another shape.
        """
        if self.nearby is None:
            raise ValueError("this batch was not made by a sampler, so nothing lies around its samples")
        if offsets.ndim != 3 or len(offsets) != len(self) or offsets.shape[2] != 3:
            raise ValueError(f"offsets must be ({len(self)}, p, 3), not {tuple(offsets.shape)}")
        return self.nearby(offsets)


class Batches(Protocol):
    """Where training gets its batches from: windows of volumes, or graphs."""

    device: torch.device
    """Where batches are made."""

    def batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Return samples ``rank::world`` of one step; a step that is asked for again is the same."""

    def prepare(self, context: Context) -> None:
        """Do what would make the first batches slow, and say how far it is.

        Raises
        ------
        Interrupted
            Where ``context`` says to stop.
        """

    def close(self) -> None:
        """Stop the other processes, if there are any."""
