"""The contract between a source and the sampler: a stock of voxels that samples are cut from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.recipe import FovTable
from vemseg.sampling.draws import Draw
from vemseg.sampling.held import Index
from vemseg.sampling.workers import Workers
from vemseg.tiling import Floats, Ints

REFRESH = 50
"""Number of steps after which the next box of the volumes is replaced."""


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
        Bytes that the source may hold in memory, unless a single window takes more.
    device : torch.device
        Where voxels are held.
    workers : Workers
        Other processes, which synthetic tissue is made in.
    """

    window: ZYX
    settings: FovTable
    share: int
    device: torch.device
    workers: Workers = field(default_factory=lambda: Workers(0))

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns that a plane needs for a window to fit, even if it is turned by 90 degrees."""
        _, h, w = self.window
        return (max(h, w), max(h, w)) if self.settings.rotate90 else (h, w)


class Stock(ABC):
    """Numbered boxes of voxels of one source, which samples are cut from.

    Attributes
    ----------
    boxes : list of Box
        Where the boxes lie in the source.
    axes : list of list of int
        For each box, the axes across which planes may be taken.
    moving : bool
        Whether the boxes are replaced by others as training goes on.
    pace : int
        After so many steps one of them is replaced; stocks of the same pace take turns.
    labelled : bool
        Whether the source has labels.
    voxel_size : (float, float, float)
        z, y, x in nm; (1, 1, 1) where it is not known.
    """

    boxes: list[Box]
    axes: list[list[int]]
    moving: bool
    pace: int = REFRESH
    labelled: bool
    voxel_size: VoxelSize

    @property
    def shapes(self) -> Ints:
        """Edges of the boxes, int64 (boxes, 3)."""
        return np.array([box.shape for box in self.boxes])

    def middles(self, box: int, axis: int) -> range:
        """Return the planes of a box, across an axis, that may be the middle plane of a window.

        These are all; a window that reaches beyond the first or the last is filled by mirroring.
        """
        return range(self.boxes[box].shape[axis])

    def anchors(self, box: int) -> Ints | None:
        """Return the voxels of a box, int64 (m, 3), of which each window shows one; None for any window.

        Beyond that, windows lie anywhere. :meth:`middles` holds for boxes without anchors.
        """
        return None

    @abstractmethod
    def fill(self, box: int, rng: np.random.Generator) -> None:
        """Bring the voxels of a box into memory, from another place of the source if boxes move."""

    def expect(self, box: int, rng: np.random.Generator) -> None:  # noqa: B027 - nothing to do for most
        """Prepare for :meth:`fill`, which is going to be called with a generator in the same state."""

    @abstractmethod
    def cut(self, draw: Draw, index: Index) -> tuple[Tensor, Tensor | None]:
        """Cut windows out of the boxes.

        Parameters
        ----------
        draw : Draw
            The choices of these samples.
        index : Index
            The voxels of each window in its box.

        Returns
        -------
        images : Tensor float16 (b, d, h, w)
        labels : Tensor uint8 (b, d, h, w), or None
            255 where the class is not known.
        """

    @abstractmethod
    def positions(self, boxes: Ints, middles: Floats) -> Floats:
        """Convert the middles of windows from voxels of their boxes, float64 (b, 3), to nm: (b, 3)."""
