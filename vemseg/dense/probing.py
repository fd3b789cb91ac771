"""How long labels take, measured on a part of the volume."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from vemseg.budget import Blocks
from vemseg.dense.sources import VectorSource
from vemseg.geometry import ZYX, Box
from vemseg.labelling import AffineLabeller, Labeller

PROBE_SECONDS = 2.0
"""Least time of a measurement that the time of the whole volume is extrapolated from."""

FIRST_PROBE: ZYX = (8, 32, 32)
"""Voxels of the first measurement; each further one is twice as long along every axis."""

MOST_PROBED = 2**21
"""Most that is encoded for the first measurement: voxels that are resampled to many take smaller boxes."""


def seconds_per_voxel(
    source: VectorSource, labeller: Labeller, blocks: Blocks, ratings: Sequence[str]
) -> float:
    """Measure the seconds for each voxel that is encoded (or vector that is read), labelling included."""
    edges = FIRST_PROBE
    while source.work(_middle(source.volume.shape, edges)) > MOST_PROBED and max(edges) > 1:
        edges = (-(-edges[0] // 2), -(-edges[1] // 2), -(-edges[2] // 2))
    while True:
        box = _middle(source.volume.shape, edges)
        started = time.perf_counter()
        source.rated(box, source.read(box), labeller, ratings)
        seconds = time.perf_counter() - started
        whole = all(edge >= most for edge, most in zip(edges, blocks.shape, strict=True))
        if seconds > PROBE_SECONDS or whole:
            return seconds / source.work(box)
        z, y, x = (min(2 * edge, most) for edge, most in zip(edges, blocks.shape, strict=True))
        edges = (z, y, x)


def _middle(shape: ZYX, edges: ZYX) -> Box:
    """Return a box of at most these edges in the middle of a volume."""
    lengths = [min(n, edge) for n, edge in zip(shape, edges, strict=True)]
    z, y, x = ((n - length) // 2 for n, length in zip(shape, lengths, strict=True))
    return Box((z, y, x), (z + lengths[0], y + lengths[1], x + lengths[2]))


def some_labeller(dim: int, k: int) -> Labeller:
    """Return a labeller of random centres: any labeller takes about the same time."""
    return AffineLabeller.of_centres(np.random.default_rng(0).normal(size=(k, dim)), {"margin": 1.0})
