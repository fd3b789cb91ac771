r"""Train on synthetic tissue that other processes paint, where training is faster than painting.

A GPU learns from some hundred windows in a second, and a core paints two or three blocks. So blocks are
painted by as many processes as there are cores, into a folder, for as long as anything trains; a training
takes blocks from there at random, and images each anew every time: another blur, noise, background, gamma.
Which blocks there are depends on the clock, so two such trainings are not the same.

    export POOL=/dev/shm/pool
    for i in $(seq 8); do python benchmarks/pooled_tissue.py paint $i & done
    python benchmarks/pooled_tissue.py train VOLUMES -c vemseg -o RUN -d cuda       # as "vemseg train"
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vemseg.cli import main as command
from vemseg.geometry import VoxelSize
from vemseg.phantom import tissue
from vemseg.phantom.tissue.imaging import imaged
from vemseg.pipeline import train
from vemseg.recipe import TissueTable, load_recipe
from vemseg.sampling import Synthetic, tissue_sources

POOL = Path(os.environ.get("POOL", "/dev/shm/pool"))
EDGE = 160
"""Rows and columns of a block: a window of the recipe, and the sampler's margin."""
FEWEST, LOOK = 3, 5.0
"""Blocks that there must be before one is taken; seconds after which the folder is looked at again."""


def paint(number: int) -> None:
    """Paint blocks for ever, each as it is before a microscope images it."""
    tissue.imaged = lambda rng, image, sections: image
    sources = tissue_sources(load_recipe("vemseg").tissue)
    for n in range(sys.maxsize):
        maker = sources[(n + number) % len(sources)].maker
        image, labels = maker.make(np.random.default_rng([7, number, n]), (maker.planes, EDGE, EDGE))
        folder = POOL / f"{maker.voxel_size[0]:g}"
        folder.mkdir(parents=True, exist_ok=True)
        growing = folder / f".{number}_{n}.npy"
        np.save(growing, np.stack([np.round(255 * image).astype(np.uint8), labels]))
        growing.rename(folder / f"{number}_{n}.npy")


@dataclass(frozen=True)
class Pooled:
    """Takes painted blocks of one thickness of sections, and images them."""

    ratio: float
    planes: int

    @property
    def voxel_size(self) -> VoxelSize:
        """Edges of its voxels in units of a pixel, z y x."""
        return (self.ratio, 1.0, 1.0)

    def make(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Image one of the blocks that are there."""
        found = _listed(POOL / f"{self.ratio:g}")
        image, labels = np.load(found[int(rng.integers(len(found)))])
        if image.shape != tuple(shape):
            raise ValueError(f"the blocks of the pool have {image.shape} voxels, not {shape}")
        seen = imaged(rng, image.astype(np.float32) / 255, self.ratio > 1.5)
        return np.clip(seen, 0, 1), labels


_seen: dict[Path, tuple[float, list[Path]]] = {}


def _listed(folder: Path) -> list[Path]:
    """Return the blocks of a folder, looking at it from time to time; wait until there are some."""
    when, found = _seen.get(folder, (0.0, []))
    while time.monotonic() - when > LOOK or len(found) < FEWEST:
        found = sorted(folder.glob("[0-9]*.npy"))
        when = time.monotonic()
        _seen[folder] = when, found
        if len(found) < FEWEST:
            time.sleep(0.5)
    return found


def pooled_sources(table: TissueTable) -> list[Synthetic]:
    """Return sources that take their blocks from the pool."""
    return [
        Synthetic(Pooled(source.maker.voxel_size[0], source.maker.planes), table.held, table.pace)
        for source in tissue_sources(table)
    ]


if __name__ == "__main__":
    if sys.argv[1] == "paint":
        paint(int(sys.argv[2]))
    import pooled_tissue  # the makers are sent to other processes, which know them by this name

    train.tissue_sources = pooled_tissue.pooled_sources
    command()
