"""Synthetic tissue as a source: blocks are made up as training goes on, with the class of every voxel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.phantom.tissue import Tissue
from vemseg.ranks import here, shown_to_all
from vemseg.recipe import TissueTable
from vemseg.sampling.draws import Draw
from vemseg.sampling.held import BYTES_PER_LABEL, BYTES_PER_VOXEL, HeldBoxes, Index
from vemseg.sampling.stocks import Needs, Stock
from vemseg.tiling import Floats

Made = tuple[NDArray[np.float32], NDArray[np.uint8]]


class Maker(Protocol):
    """Makes blocks of tissue. It may be sent to other processes, so it has to be picklable."""

    @property
    def voxel_size(self) -> VoxelSize:
        """Edges of its voxels, z y x; only their ratios count."""

    @property
    def planes(self) -> int:
        """Number of planes of a block."""

    def make(self, rng: np.random.Generator, shape: ZYX) -> Made:
        """Make a block.

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of random numbers.
        shape : (int, int, int)
            Planes, rows and columns.

        Returns
        -------
        image : float32 (z, y, x)
            Intensities in [0, 1].
        labels : uint8 (z, y, x)
            Classes, 255 where the class is not known.
        """


@dataclass(frozen=True)
class Synthetic:
    """A source of synthetic blocks, which a sampler takes like a volume.

    Attributes
    ----------
    maker : Maker
    held : int
        Number of blocks in memory, unless they take more than the sampler's share.
    pace : int
        After so many steps one of them is replaced by a new one.
    margin : int
        Rows and columns by which a block is larger than a window, so that windows differ.
    """

    maker: Maker
    held: int = 24
    pace: int = 2
    margin: int = 32

    name = "synthetic"

    def stock(self, needs: Needs) -> Stock:
        """Return the stock that samples are cut from."""
        return MadeStock(self, needs)


class MadeStock(Stock):
    """Blocks that are replaced by new ones in turn; other processes make them in advance."""

    labelled, moving = True, True

    def __init__(self, source: Synthetic, needs: Needs) -> None:
        self.source, self.needs = source, needs
        self.pace = source.pace
        self.voxel_size = source.maker.voxel_size
        rows, columns = needs.reach
        self.shape = (source.maker.planes, rows + source.margin, columns + source.margin)
        room = needs.share // ((BYTES_PER_VOXEL + BYTES_PER_LABEL) * int(np.prod(self.shape)))
        count = max(1, min(source.held, room))
        self.boxes, self.axes = [Box.whole(self.shape)] * count, [[0]] * count
        self._held = HeldBoxes(count, self.shape, True, needs.device)
        self._coming: dict[int, Callable[[], Any]] = {}

    def expect(self, box: int, rng: np.random.Generator) -> None:
        """Have the next block for this place made, by one of the processes that train together."""
        if self._maker(box) == here().index:
            self._coming[box] = self.needs.workers.submit(self.source.maker.make, rng, self.shape)

    def fill(self, box: int, rng: np.random.Generator) -> None:
        """Put a new block in this place; the one that was expected is the same."""
        if (maker := self._maker(box)) == here().index:
            coming = self._coming.pop(box, None)
            image, labels = self.source.maker.make(rng, self.shape) if coming is None else coming()
            self._held.image(box).copy_(torch.from_numpy(image))
            self._held.labels(box).copy_(torch.from_numpy(labels))
        shown_to_all(maker, self._held.image(box), self._held.labels(box))

    def _maker(self, box: int) -> int:
        """Return which of the processes that train together makes the blocks for a place."""
        return box % here().count

    def cut(self, draw: Draw, index: Index) -> tuple[Tensor, Tensor | None]:
        """Cut windows and their labels."""
        return self._held.cut(draw, index)

    def positions(self, boxes: NDArray[np.int64], middles: Floats) -> Floats:
        """Return NaN, since synthetic blocks lie in no volume."""
        return np.full(middles.shape, np.nan)


def tissue_sources(table: TissueTable) -> list[Synthetic]:
    """Return the sources of synthetic tissue: one for each thickness of sections in pixels.

    The edges of pixels in nm are drawn from :meth:`vemseg.recipe.TissueTable.pixels`.
    """
    if not table.kinds:
        return []
    return [
        Synthetic(Tissue(ratio, table.pixels(ratio), table.kinds), table.held, table.pace)
        for ratio in table.ratios
    ]
