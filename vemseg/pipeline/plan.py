"""What ``segment`` would take: blocks, memory, disk and time, the time measured on a part of the volume."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from vemseg.budget import Blocks
from vemseg.context import Context
from vemseg.dense import RATINGS, Wanted
from vemseg.dense.probing import seconds_per_voxel, some_labeller
from vemseg.geometry import ZYX
from vemseg.labelling import count, load
from vemseg.pipeline.extras import Extras
from vemseg.pipeline.segment import plan_blocks, refuse_misfits

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
    takes some seconds, and extrapolated by what is encoded for a box, its context included.

    Raises
    ------
    ResourceError
        Where the memory is not enough.
    MissingError, InputError, UsageError
        Where ``segment`` would refuse the model, the classes or the output.
    """
    fitted = None if clusters is None else load(clusters)
    extras.check(out, fitted)
    source = wanted.open(context)
    refuse_misfits([extras.form.main(out), *extras.ratings.values()], source, fitted, clusters)
    table, shape = source.maker.recipe.cluster, source.volume.shape
    blocks = plan_blocks(source, fitted, context, extras)
    labeller = fitted or some_labeller(source.dim, count(table, source.classes))
    each, voxels = seconds_per_voxel(source, labeller, blocks, list(extras.ratings)), math.prod(shape)
    sampling, memory = 0.0, blocks.bytes
    drawn = 0 if fitted else table.sample_of(voxels)
    if drawn and context.alone and (held := source.holding_bytes(context.limit)):
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
        _bytes(out, voxels)
        + sum(
            RATINGS[name].bytes(labeller.k) * _bytes(path, voxels) for name, path in extras.ratings.items()
        ),
        sampling,
        each * blocks.encoded,
        str(source.machine),
    )


def _bytes(out: Path, voxels: int) -> int:
    """Return about what a volume of bytes takes: its blocks and, where it becomes a TIFF, that file too."""
    return int(COMPRESSED * voxels) + (0 if out.suffix == ".zarr" else voxels)
