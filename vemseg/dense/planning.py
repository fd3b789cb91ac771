"""The blocks in which a source is labelled, or its vectors are stored, within a budget of memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vemseg import labelling
from vemseg.budget import RESERVE, Blocks, Cuts, Reach, choose_blocks
from vemseg.dense.scores import RATINGS
from vemseg.dense.sources import LatticeVectors, VectorSource
from vemseg.errors import ResourceError, UsageError
from vemseg.recipe import ClusterTable
from vemseg.resources import byte_text, resident_memory

WRITING = 3.0
"""Bytes needed for each byte of a block while it is turned, compressed and put together as a shard."""

WRITTEN = 1.0 + WRITING
"""Bytes that each voxel of a block takes while one volume of bytes is written: its labels, as a rule."""


def label_blocks(source: VectorSource, k: int, limit: int, ratings: Sequence[str] = ()) -> Blocks:
    """Choose the blocks in which a volume is segmented into ``k`` classes.

    Parameters
    ----------
    source : VectorSource
    k : int
        Number of classes.
    limit : int
        Bytes that this process may occupy.
    ratings : sequence of str
        What else is written beside labels (see ``scores.RATINGS``).

    Raises
    ------
    ResourceError
        Where no block fits.
    """
    written = WRITTEN * (1 + sum(RATINGS[name].bytes(k) for name in ratings))

    def reach(axis: int) -> Reach:
        return lambda start, stop: source.reach(axis, start, stop)

    z, y, x = (Cuts.of(n, reach(axis)) for axis, n in enumerate(source.volume.shape))
    return choose_blocks((z, y, x), source.budgets(k, written, limit), source.sweeps)


def point_blocks(source: LatticeVectors, limit: int) -> Blocks:
    """Choose the boxes of lattice points in which vectors are computed and stored."""

    def reach(axis: int) -> Reach:
        return lambda start, stop: source.point_reach(axis, start, stop)

    z, y, x = (
        Cuts.of(n, reach(axis), unit)
        for axis, (n, unit) in enumerate(zip(source.shape, source.cell, strict=True))
    )
    sweeps = tuple(source.order.index(axis) for axis in source.sweeps)
    return choose_blocks((z, y, x), source.point_budgets(WRITING, limit), sweeps)


def check_sample(
    table: ClusterTable, sources: Sequence[VectorSource], limit: int, *, pointed: bool = False
) -> int:
    """Return how many vectors to fit classes on; refuse a limit of memory that is too small for that.

    Parameters
    ----------
    table : ClusterTable
    sources : sequence of VectorSource
        Vectors of one model, of one volume or of several.
    limit : int
        Bytes that this process may occupy.
    pointed : bool
        Whether somebody has given points.

    Raises
    ------
    ResourceError
        Where the memory is not enough; the message names what is.
    UsageError
        Where the method of clustering does not go with the model, or needs points.
    """
    if table.by_points and not pointed:
        raise UsageError(
            f"cluster.method {table.method} learns from points: vemseg cluster FEATURES --points points.csv"
        )
    codes = sources[0].maker.codes
    labelling.check(table, codes, sources[0].classes, sources[0].maker.learned)
    n = table.sample_of(sum(math.prod(source.volume_shape) for source in sources))
    if not n:  # nothing is looked for
        return 0
    most = min(n, sum(source.count for source in sources))
    demands = labelling.demands(table, most, sources[0].dim, codes)
    need = resident_memory() + RESERVE + sum(demand.bytes for demand in demands)
    if need > limit:
        worst = max(demands, key=lambda demand: demand.bytes)
        raise ResourceError(
            f"{byte_text(limit)} of memory is not enough to {worst.what}: the least that works is "
            f"{byte_text(1.01 * need)}, or take {worst.instead}"
        )
    return n
