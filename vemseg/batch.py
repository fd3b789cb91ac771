"""What training sees in one step: windows of voxels, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

UNKNOWN = 255
"""The label of a voxel whose class nobody knows; no loss may count it."""

Nearby = Callable[[Tensor], Tensor]
"""Cuts windows near the samples of a batch; see :meth:`Batch.around`."""


@dataclass(frozen=True)
class Batch:
    """Samples of one training step.

    Attributes
    ----------
    images : Tensor float32 (b, 1, d, h, w)
        Intensities in [0, 1]. Axes are those of the window: across its planes, along their rows and columns.
    labels : Tensor uint8 or int64 (b, d, h, w), or None
        Classes, ``UNKNOWN`` (255) where a voxel's class is not known; None where no source has labels.
    positions : Tensor float32 (b, 3), or None
        Where the middle of each window lies, z y x in nm from the middle of its volume's first voxel. In
        voxels where the voxel size is not known; not a number for windows that come from no volume.
    volume : Tensor int64 (b,), or None
        Which of the sources each sample comes from.
    nearby : callable, or None
        What :meth:`around` asks; set by the sampler.
    """

    images: Tensor
    labels: Tensor | None = None
    positions: Tensor | None = None
    volume: Tensor | None = None
    nearby: Nearby | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.images)

    def first(self, n: int) -> Batch:
        """Return the first ``n`` samples, or all where there are fewer."""
        labels, positions, volume = (
            None if tensor is None else tensor[:n] for tensor in (self.labels, self.positions, self.volume)
        )
        return Batch(self.images[:n], labels, positions, volume, self.nearby)

    def around(self, offsets: Tensor) -> Tensor:
        """Cut windows of the same size that are shifted from the place of each sample.

        They are neither enlarged nor mirrored nor turned, so an offset of zero gives the window of the sample
        as it was before that. Where they reach beyond the voxels that are held in memory, these are mirrored.

        Parameters
        ----------
        offsets : Tensor int64 (b, p, 3)
            Voxels along the axes of the window: across its planes (sections, in an anisotropic volume), along
            rows and along columns. These are z, y, x where the planes lie across z.

        Returns
        -------
        Tensor float32 (b, p, 1, d, h, w)

        Raises
        ------
        ValueError
            Where the batch was made by hand, or ``offsets`` has another shape.
        """
        if self.nearby is None:
            raise ValueError("this batch comes from no sampler, so nothing lies around its samples")
        if offsets.ndim != 3 or len(offsets) != len(self) or offsets.shape[2] != 3:
            raise ValueError(f"offsets must be ({len(self)}, p, 3), not {tuple(offsets.shape)}")
        return self.nearby(offsets)
