"""What of a source samples are cut from: the contract between a source and the sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.recipe import FovTable
from vemseg.sampling.draws import Draw
from vemseg.tiling import Floats, Ints

Index = tuple[Ints, Ints, Ints]
"""Which voxels of its box each window is made of: planes (b, d), rows (b, h) and columns (b, w)."""


@dataclass(frozen=True)
class Needs:
    """What a sampler needs of a source.

    Attributes
    ----------
    window : (int, int, int)
        Planes, rows and columns of a window.
    settings : FovTable
        Axes, turns and mirrors.
    share : int
        Bytes that may be held in memory, unless a single window takes more.
    device : torch.device
        Where they are held.
    """

    window: ZYX
    settings: FovTable
    share: int
    device: torch.device

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of a plane in which a window fits, also where it is turned by 90 degrees."""
        _, h, w = self.window
        return (max(h, w), max(h, w)) if self.settings.rotate90 else (h, w)


class Stock(ABC):
    """Boxes of voxels of one source, by number.

    Attributes
    ----------
    boxes : list of Box
        Where they lie in the source.
    axes : list of list of int
        Of each box, the axes across which planes may be taken.
    moving : bool
        Whether its boxes are replaced by others as training goes on.
    labelled : bool
        Whether it gives labels.
    voxel_size : (float, float, float)
        z, y, x in nm; (1, 1, 1) where it is not known.
    """

    boxes: list[Box]
    axes: list[list[int]]
    moving: bool
    labelled: bool
    voxel_size: VoxelSize

    @property
    def shapes(self) -> Ints:
        """Edges of the boxes, int64 (boxes, 3)."""
        return np.array([box.shape for box in self.boxes])

    @abstractmethod
    def middles(self, box: int, axis: int) -> range:
        """Return the planes of a box, across an axis, that may be the middle of a window."""

    @abstractmethod
    def fill(self, box: int, rng: np.random.Generator) -> None:
        """Bring the voxels of a box into memory; where boxes move, from another place of the source."""

    @abstractmethod
    def cut(self, draw: Draw, index: Index, step: int, seed: int) -> tuple[Tensor, Tensor | None]:
        """Cut windows out of the boxes.

        Parameters
        ----------
        draw : Draw
            The choices of these samples.
        index : Index
            The voxels of each window in its box.
        step, seed : int
            What samples that are made up follow from.

        Returns
        -------
        images : Tensor float16 (b, d, h, w)
        labels : Tensor uint8 (b, d, h, w), or None
            255 where nothing is known.
        """

    @abstractmethod
    def positions(self, boxes: Ints, middles: Floats) -> Floats:
        """Return where the middles of windows, float64 (b, 3) voxels of their boxes, lie in nm: (b, 3)."""
