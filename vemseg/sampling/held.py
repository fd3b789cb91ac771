"""Boxes of voxels in memory, and windows that are cut out of them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vemseg.geometry import ZYX
from vemseg.sampling.draws import Draw, plane_axes
from vemseg.tiling import Ints

Index = tuple[Ints, Ints, Ints]
"""The voxels of its box that make up each window: planes (b, d), rows (b, h) and columns (b, w)."""

BYTES_PER_VOXEL = 2
"""Bytes for the intensity of a voxel, which is held in float16."""
BYTES_PER_LABEL = 1
"""Bytes for the label of a voxel, if there are labels."""


class HeldBoxes:
    """Boxes of one shape, one after the other in memory.

    Parameters
    ----------
    count : int
        Number of boxes.
    shape : (int, int, int)
        Shape of each.
    labelled : bool
        Whether labels are held, too.
    device : torch.device
    """

    def __init__(self, count: int, shape: ZYX, labelled: bool, device: torch.device) -> None:
        self.shape = shape
        self._images = torch.empty((count, *shape), dtype=torch.float16, device=device)
        self._labels = torch.empty_like(self._images, dtype=torch.uint8) if labelled else None

    def image(self, box: int) -> Tensor:
        """Return the intensities of a box, float16 (z, y, x), to be written to."""
        return self._images[box]

    def labels(self, box: int) -> Tensor:
        """Return the labels of a box, uint8 (z, y, x), to be written to."""
        assert self._labels is not None
        return self._labels[box]

    def cut(self, draw: Draw, index: Index) -> tuple[Tensor, Tensor | None]:
        """Cut windows, and their labels if there are labels; a mirrored voxel keeps its label."""
        strides = np.array([self.shape[1] * self.shape[2], self.shape[2], 1])
        axes = np.concatenate([draw.axis[:, None], plane_axes(draw.axis)], axis=1)
        places = [along * strides[axes[:, k], None] for k, along in enumerate(index)]
        places[0] = places[0] + (draw.box * math.prod(self.shape))[:, None]
        planes, rows, columns = (torch.from_numpy(along).to(self._images.device) for along in places)
        inside = (planes[:, :, None] + rows[:, None])[..., None] + columns[:, None, None]

        def taken(held: Tensor) -> Tensor:
            return held.view(-1).index_select(0, inside.view(-1)).view(inside.shape)

        return taken(self._images), None if self._labels is None else taken(self._labels)
