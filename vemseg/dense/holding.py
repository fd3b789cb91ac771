"""Vectors of small volumes kept in memory, since they are needed twice: to fit classes, and to label."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vemseg.blocks import Stages, map_blocks
from vemseg.context import Context
from vemseg.dense.planning import point_blocks
from vemseg.dense.sources import Given, LatticeVectors
from vemseg.dense.stored import StoredVectors
from vemseg.errors import Interrupted
from vemseg.features import Features, HeldFeatures, Values
from vemseg.geometry import Box
from vemseg.resources import resident_memory

HELD_SHARE = 0.4
"""Vectors of a whole volume are held where they take at most this part of the memory that is left."""


def holding_bytes(source: LatticeVectors, limit: int) -> int:
    """Return the bytes that :func:`hold` would keep; 0 where they are too large a part of ``limit`` bytes."""
    size = source.count * (source.dim + 1) * 2
    return size if size <= HELD_SHARE * (limit - resident_memory()) else 0


def hold(source: LatticeVectors, context: Context, keep: Path | None = None) -> StoredVectors:
    """Compute all vectors of a volume and keep them in memory.

    Parameters
    ----------
    source : LatticeVectors
    context : Context
    keep : Path, optional
        A file for the vectors that were computed before a stop; the next call goes on with it.

    Raises
    ------
    Interrupted
        Where the work was stopped.
    """
    held = HeldFeatures(source.positions, source.dim, source.inside, source.cell, source.shown)
    limit = context.limit
    limit -= holding_bytes(source, limit)
    shape, done = (held.load(keep) if keep is not None else None) or (point_blocks(source, limit).shape, 0)
    boxes = list(Box.whole(source.shape).split(shape))
    before, total = sum(box.size for box in boxes[:done]), source.count
    written: list[Box] = []

    def write(points: Box, values: Values) -> None:
        held.write(points, *values)
        written.append(points)

    def progress(size: int, _: int) -> None:
        now = before + size
        context.report("encoding", now / total, f"{now / 1e6:.2f}/{total / 1e6:.2f} million vectors")

    each = point_stages(source, held)
    stages = Stages(each.read, each.compute, write)
    try:
        map_blocks(stages, dict(enumerate(boxes[done:])), None, progress, context.stopped)
    except Interrupted:
        if keep is None:
            raise
        done += len(written)
        held.save(keep, shape, done)
        raise Interrupted(
            f"stopped after {done} of {len(boxes)} blocks: the same command goes on from there"
        ) from None
    if keep is not None:
        keep.unlink(missing_ok=True)
    volume, maker = source.volume, source.maker
    return StoredVectors(
        lambda: volume, volume.shape, source.order, held, maker, source.machine, source.factors
    )


def point_stages(source: LatticeVectors, features: Features | HeldFeatures) -> Stages[Given | None, Values]:
    """Return how a box of lattice points is read, encoded and kept."""

    def read(points: Box) -> Given | None:
        shown = source.showing(points)
        return None if shown is not None and not shown.any() else source.read_points(points)

    def compute(points: Box, given: Given | None) -> Values:
        if given is None:  # nothing of the specimen: not worth encoding
            return np.zeros((*points.shape, source.dim), np.float16), np.full(
                points.shape, np.nan, np.float16
            )
        return source.compute(points, given).numpy(), source.intensities(points, given)

    return Stages(read, compute, lambda points, values: features.write(points, *values))
