"""What ``segment`` would take: blocks, memory, disk and time, the time measured on a part of the volume."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vemseg.budget import Blocks
from vemseg.context import Context
from vemseg.dense import VectorSource, Wanted
from vemseg.geometry import ZYX, Box
from vemseg.labelling import AffineLabeller, Labeller, count
from vemseg.names import check_output
from vemseg.pipeline.extras import Extras
from vemseg.pipeline.segment import load_classes, plan_blocks, refuse_misfits

PROBE_SECONDS = 2.0
"""Least time of a measurement that the time of the whole volume is extrapolated from."""

FIRST_PROBE: ZYX = (8, 32, 32)
"""Voxels of the first measurement; each further one is twice as long along every axis."""

MOST_PROBED = 2**21
"""Most that is encoded for the first measurement: voxels that are resampled to many take smaller boxes."""

COMPRESSED = 0.1
"""Bytes per voxel of labels in an OME-Zarr, as in one of a phantom; a TIFF is not compressed."""


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
    k_range : (int, int) or ()
        The numbers of classes from which one will be chosen, first and last; empty where it is known.
    vectors : int
        Computed for labels.
    dim : int
        Length of a vector.
    blocks : Blocks
        Their number and shape.
    memory : int
        Bytes occupied at most.
    disk : int
        About how many bytes the labels take: their blocks and, where the output is a TIFF, that file too.
    sampling, labelling : float
        Seconds for the vectors that classes are fitted on, where they are computed apart; for the labels.
    machine : str
        What it was measured with.
    """

    volume: str
    shape: ZYX
    model: str
    k_range: tuple[int, ...]
    vectors: int
    dim: int
    blocks: Blocks
    memory: int
    disk: int
    sampling: float
    labelling: float
    machine: str

    @property
    def seconds(self) -> float:
        """Seconds in all, without starting the program, choosing K and fitting the classes."""
        return self.sampling + self.labelling


def plan(
    wanted: Wanted,
    out: Path,
    *,
    clusters: Path | None = None,
    extras: Extras = Extras(),
    context: Context = Context(),
) -> Plan:
    """Say what ``segment`` with the same arguments would take; nothing is written.

    The time is measured on boxes in the middle of the volume, each larger than the one before, until one
    takes ``PROBE_SECONDS``, and extrapolated by what is encoded for a box, its context included.

    Raises
    ------
    ResourceError
        Where the memory is not enough.
    MissingError, InputError, UsageError
        Where ``segment`` would refuse the model, the classes or the output.
    """
    check_output(out)
    fitted = None if clusters is None else load_classes(clusters)
    extras.check(out, fitted)
    source = wanted.open(context)
    refuse_misfits([out, extras.confidence], source, fitted, clusters)
    table, shape = source.maker.recipe.cluster, source.volume.shape
    blocks = plan_blocks(source, fitted, context, extras)
    labeller = fitted or _some_labeller(source.dim, count(table, source.classes))
    rated = extras.confidence is not None
    each, voxels = _seconds_per_voxel(source, labeller, blocks, rated), math.prod(shape)
    sampling, memory = 0.0, blocks.bytes
    drawn = 0 if fitted else table.sample_of(voxels)
    if drawn and (held := source.holding_bytes(context.limit)):
        memory = min(memory + held, context.limit)
    elif drawn:
        sampling = each * source.sampling_work(drawn, table.seed)
    return Plan(
        source.volume.name,
        shape,
        source.maker.title,
        () if fitted else table.k_range,
        source.count,
        source.dim,
        blocks,
        memory,
        sum(_bytes(path, voxels) for path in (out, extras.confidence) if path is not None),
        sampling,
        each * blocks.encoded,
        str(source.machine),
    )


def _bytes(out: Path, voxels: int) -> int:
    """Return about what a volume of bytes takes: its blocks and, where it becomes a TIFF, that file too."""
    return int(COMPRESSED * voxels) + (0 if out.suffix == ".zarr" else voxels)


def _seconds_per_voxel(source: VectorSource, labeller: Labeller, blocks: Blocks, rated: bool) -> float:
    """Measure what a voxel costs that is encoded (or a vector that is read), labels included."""
    label = source.rated if rated else source.labels
    edges = FIRST_PROBE
    while source.work(_middle(source.volume.shape, edges)) > MOST_PROBED and max(edges) > 1:
        edges = (-(-edges[0] // 2), -(-edges[1] // 2), -(-edges[2] // 2))
    while True:
        box = _middle(source.volume.shape, edges)
        started = time.perf_counter()
        label(box, source.read(box), labeller)
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


def _some_labeller(dim: int, k: int) -> Labeller:
    """Return a labeller of random centres: any labeller takes about the same time."""
    return AffineLabeller.of_centres(np.random.default_rng(0).normal(size=(k, dim)), {"margin": 1.0})
