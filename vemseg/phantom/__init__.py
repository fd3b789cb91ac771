"""A procedural cell with exact labels, in place of a real volume.

A beta cell as FIB-SEM shows it: nucleus, mitochondria, dense-core granules, vesicles, endoplasmic reticulum,
plasma membrane, and the rim of a neighbour. It is drawn where it is read, so a volume of any size costs the
memory of one block. ``layout`` says where things lie, ``painting`` paints them, ``texture`` makes the random
fields, and ``tissue`` is another generator, of random tissue to learn from.

>>> phantom = Phantom((24, 96, 96), seed=1)
>>> raw, labels = phantom.render(Box((0, 0, 0), (24, 96, 96)))
>>> raw.shape, raw.dtype
((24, 96, 96), dtype('uint8'))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import UsageError
from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.phantom import painting

CLASSES: dict[int, str] = {
    painting.OUTSIDE: "outside",
    painting.CYTOSOL: "cytosol",
    painting.NUCLEUS: "nucleus",
    painting.MITOCHONDRION: "mitochondrion",
    painting.GRANULE: "granule",
    painting.VESICLE: "vesicle",
    painting.MEMBRANE: "plasma membrane",
}
"""Label values and what they mean. 0 is all that lies beyond the cell's own plasma membrane; endoplasmic
reticulum and ribosomes count as cytosol, the nuclear envelope as nucleus."""

_TILE: ZYX = (32, 128, 256)  # painted at once: fits a processor's cache


@dataclass(frozen=True)
class Phantom:
    """A cell that fills a volume, or a window into one where the volume is small.

    Any box reads exactly as the same crop of a larger box: the voxels depend on the three parameters alone.

    Parameters
    ----------
    shape : (int, int, int)
        Volume in voxels, z y x; 1 is allowed.
    seed : int, optional
        Non-negative; another seed gives another cell.
    voxel_size : (float, float, float), optional
        Voxel edges in nm, z y x. Organelles keep their size in nm; cell and nucleus fill the volume.

    Raises
    ------
    UsageError
        Where shape or voxel size is not positive, or the seed negative.
    """

    shape: ZYX
    seed: int = 0
    voxel_size: VoxelSize = (16.0, 16.0, 16.0)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise UsageError(f"a phantom of shape {self.shape} has no voxels: give three sizes from 1, z y x")
        if len(self.voxel_size) != 3 or not all(math.isfinite(v) and v > 0 for v in self.voxel_size):
            raise UsageError(f"{self.voxel_size} is not a voxel size: give three lengths in nm, z y x")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed} is negative: give 0 or a positive integer")

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return the grey values of a box inside the volume, (z, y, x), 0 dark to 255 bright."""
        return self.render(box)[0]

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """Return the classes (see ``CLASSES``) of a box inside the volume, (z, y, x)."""
        return self.render(box)[1]

    def render(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return grey values and classes of a box together; costs no more than either.

        Raises
        ------
        UsageError
            Where the box reaches beyond the volume.
        """
        if not Box.whole(self.shape).contains(box):
            raise UsageError(f"box {box} reaches beyond a phantom of shape {self.shape} (z, y, x)")
        raw, labels = np.empty(box.shape, np.uint8), np.empty(box.shape, np.uint8)
        scene = _scene(self)
        for tile in box.split(_TILE):
            part = tile.relative_to(box).slices
            raw[part], labels[part] = painting.paint(scene, tile)
        return raw, labels


@lru_cache(maxsize=4)
def _scene(phantom: Phantom) -> painting.Scene:
    return painting.Scene(phantom.shape, phantom.seed, phantom.voxel_size)
