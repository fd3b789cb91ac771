"""Synthetic tissue: every window is made up when it is needed, with the class of every voxel."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.geometry import ZYX, Box
from vemseg.sampling.draws import Draw, random_numbers
from vemseg.sampling.stocks import Index, Needs, Stock
from vemseg.tiling import Floats, Ints


class Synthetic(ABC):
    """A source of synthetic windows, which a sampler takes like a volume.

    The windows that :meth:`make` returns are enlarged, mirrored and turned like those of volumes.
    """

    name = "synthetic"

    @abstractmethod
    def make(self, rng: np.random.Generator, window: ZYX) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Make a window.

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of random numbers.
        window : (int, int, int)
            Planes, rows and columns.

        Returns
        -------
        image : float32 (d, h, w)
            Intensities in [0, 1].
        labels : uint8 (d, h, w)
            Classes, 255 where the class is not known.
        """

    def stock(self, needs: Needs) -> Stock:
        """Return the stock that samples are cut from."""
        return MadeStock(self, needs)


class MadeStock(Stock):
    """One box, as large as a window, whose voxels are made anew for every sample."""

    labelled, moving = True, False
    voxel_size = (1.0, 1.0, 1.0)

    def __init__(self, source: Synthetic, needs: Needs) -> None:
        self.source, self.device = source, needs.device
        self.boxes = [Box.whole((needs.window[0], *needs.reach))]
        self.axes = [[0]]

    def middles(self, box: int, axis: int) -> range:
        """Return only the middle plane, the first of two if their number is even."""
        middle = (self.boxes[box].shape[0] - 1) // 2
        return range(middle, middle + 1)

    def fill(self, box: int, rng: np.random.Generator) -> None:
        """Do nothing: windows are made when they are cut."""

    def cut(self, draw: Draw, index: Index, step: int, seed: int) -> tuple[Tensor, Tensor | None]:
        """Make the windows of these samples, each with its own random numbers."""
        images, labels = [], []
        for i, number in enumerate(draw.number):
            rng = random_numbers(seed, step, stream=0, sample=1 + int(number))
            image, classes = self.source.make(rng, self.boxes[0].shape)
            inside = np.ix_(*(along[i] for along in index))
            images.append(torch.from_numpy(image[inside]))
            labels.append(torch.from_numpy(classes[inside]))
        return torch.stack(images).half().to(self.device), torch.stack(labels).to(self.device)

    def positions(self, boxes: Ints, middles: Floats) -> Floats:
        """Return NaN, since synthetic windows lie in no volume."""
        return np.full(middles.shape, np.nan)
