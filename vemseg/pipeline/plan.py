"""What ``segment`` would take: blocks, memory, disk and time, the time measured on a part of the volume."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vemseg.dense import DenseEncoder, StoredVectors, block_input, block_labels, sample_cells
from vemseg.geometry import ZYX, Box
from vemseg.labelling import load
from vemseg.labelling.affine import AffineLabeller
from vemseg.pipeline.blocking import Blocks
from vemseg.pipeline.features import fits_in_memory, held_bytes
from vemseg.pipeline.memory import encoded_voxels, set_threads
from vemseg.pipeline.subject import Subject, open_subject
from vemseg.resources import memory_budget
from vemseg.volume import check_output

PROBE_SECONDS = 2.0
"""A probe that takes so long is believed."""

FIRST_PROBE: ZYX = (8, 32, 32)
"""Voxels of the first probe; each further one is twice as long along every axis."""

COMPRESSED = 0.1
"""Labels of a phantom as OME-Zarr, as a part of one byte per voxel; those of a TIFF are not compressed."""


@dataclass(frozen=True)
class Plan:
    """What a segmentation takes.

    Attributes
    ----------
    volume : str
        Its name.
    shape : (int, int, int)
        Voxels.
    model : str
    vectors : int
        Computed for labels.
    dim : int
        Length of a vector.
    blocks : Blocks
        Their number and shape.
    memory : int
        Bytes occupied at most.
    disk : int
        Bytes of labels, about: blocks, and the TIFF that they become where that is wanted.
    sampling, labelling : float
        Seconds for the vectors that classes are fitted on, where they are computed apart; for the labels.
    device : str
    threads : int
    """

    volume: str
    shape: ZYX
    model: str
    vectors: int
    dim: int
    blocks: Blocks
    memory: int
    disk: int
    sampling: float
    labelling: float
    device: str
    threads: int

    @property
    def seconds(self) -> float:
        """Seconds in all, without starting the program and fitting the classes."""
        return self.sampling + self.labelling


def plan(
    path: str,
    out: Path,
    *,
    model: str | None = None,
    clusters: Path | None = None,
    settings: Sequence[str] = (),
    voxel_size: str | None = None,
    crop: str | None = None,
    device: str = "auto",
    max_memory: int | None = None,
    threads: int | None = None,
) -> Plan:
    """Say what ``segment`` with the same arguments would take; nothing is written.

    The time is measured on boxes in the middle of the volume, each larger than the one before, until one
    takes ``PROBE_SECONDS``, and extrapolated by what is encoded for a box, its context included.

    Raises
    ------
    ResourceError
        Where ``max_memory`` is not enough.
    """
    cores = set_threads(threads)
    check_output(out, overwrite=True)
    where: dict[str, Any] = {"voxel_size": voxel_size, "crop": crop, "device": device}
    subject = open_subject(path, model=model, clusters=clusters, settings=settings, **where)
    vectors, table = subject.vectors, subject.recipe.cluster
    k = table.k if clusters is None else load(clusters).k
    blocks = subject.blocks(k, max_memory)
    each = _seconds_per_voxel(subject, k, blocks)
    voxels = math.prod(subject.volume.shape)
    sampling, memory = 0.0, blocks.bytes
    if isinstance(vectors, DenseEncoder) and clusters is None:
        if fits_in_memory(vectors, max_memory):
            memory = min(memory + held_bytes(vectors), max_memory or memory_budget())
        else:
            cells = sample_cells(vectors.layout.inside, vectors.layout.cell, subject.sample, table.seed)
            sampling = each * sum(encoded_voxels(vectors, cell.cells) for cell in cells)
    return Plan(
        subject.volume.name,
        subject.volume.shape,
        subject.title,
        math.prod(vectors.shape),
        vectors.dim,
        blocks,
        memory,
        int(COMPRESSED * voxels) + (0 if out.suffix == ".zarr" else voxels),
        sampling,
        each * blocks.encoded,
        "cpu" if isinstance(vectors, StoredVectors) else str(vectors.device),
        cores,
    )


def _seconds_per_voxel(subject: Subject, k: int, blocks: Blocks) -> float:
    """Measure what a voxel costs that is encoded (or a vector that is read), labels included."""
    vectors, head = subject.vectors, _any_head(subject.vectors.dim, k)
    edges = FIRST_PROBE
    while True:
        box = subject.turn(_middle(subject.volume.shape, edges))
        started = time.perf_counter()
        block_labels(vectors, box, block_input(vectors, box), head)
        seconds = time.perf_counter() - started
        whole = all(edge >= most for edge, most in zip(edges, blocks.shape, strict=True))
        if seconds > PROBE_SECONDS or whole:
            cells = [(rule.start, rule.stop) for rule in vectors.interpolations(box)]
            starts, stops = zip(*cells, strict=True)
            return seconds / encoded_voxels(vectors, Box(starts, stops))
        z, y, x = (min(2 * edge, most) for edge, most in zip(edges, blocks.shape, strict=True))
        edges = (z, y, x)


def _middle(shape: ZYX, edges: ZYX) -> Box:
    lengths = [min(n, edge) for n, edge in zip(shape, edges, strict=True)]
    z, y, x = ((n - length) // 2 for n, length in zip(shape, lengths, strict=True))
    return Box((z, y, x), (z + lengths[0], y + lengths[1], x + lengths[2]))


def _any_head(dim: int, k: int) -> Any:
    """Return the scores of some classes: all cost alike."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(dim, k)).astype(np.float32)
    return AffineLabeller(weight, np.zeros(k, np.float32)).scores
