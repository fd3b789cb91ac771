"""The vectors that classes are fitted on: which lattice points they come from, and how they are collected."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.context import Context
from vemseg.errors import InputError, Interrupted
from vemseg.geometry import ZYX, Box, add
from vemseg.labelling import Sample
from vemseg.models import in_order
from vemseg.run import load_tensors, save_tensors

CELLS_AT_LEAST = 64
"""Least number of cells that a sample is drawn from, unless the volume has fewer."""

PLACES = 4096
"""Cells that a sample is drawn from, if they hold at most ``SPREAD`` times as many points as it takes."""

SPREAD = 5
"""How many points are computed for each that is taken, so that a sample comes from many places.

Neighbours are alike, and what is rare lies in few places: 200,000 vectors from 64 places of a volume gave
other classes with every seed."""

TOGETHER = 4
"""Edge, in cells, of the boxes that are computed in one go where a sample takes every point."""

ALL_CELLS = 2**53
"""More cells than any sample is drawn from."""

Drawn = tuple[NDArray[np.float16], NDArray[np.float16]]
"""Vectors (n, d), and the mean intensities of their patches (n,)."""


@dataclass(frozen=True)
class SampleCell:
    """A box of lattice points, and which of its points belong to a sample (indices into the raveled box)."""

    cells: Box
    points: NDArray[np.int64]


def sample_cells(inside: Box, cell: ZYX, n: int, seed: int) -> list[SampleCell]:
    """Choose lattice points for fitting classes; the choice depends on the arguments alone.

    Points that come out of one field of view are cheap to sample together, so the lattice is cut into cells,
    random cells are taken, many enough that a sample shows all kinds of places (``PLACES``, ``SPREAD``,
    ``CELLS_AT_LEAST``), and ``n`` points are drawn from all points of these cells.

    Parameters
    ----------
    inside : Box
        The lattice points within the volume.
    cell : (int, int, int)
        Lattice points per cell.
    n : int
        Number of vectors wanted; where there are fewer, all are taken.
    seed : int
        Seed of the choice.

    Returns
    -------
    list of SampleCell
        In z, y, x order; together they have min(n, ``inside.size``) points.
    """
    if n >= inside.size:
        z, y, x = (edge * TOGETHER if edge > 1 else edge for edge in cell)
        return [SampleCell(c, np.arange(c.size)) for c in inside.split((z, y, x))]
    rng = np.random.default_rng([seed, 0xCE11])
    grid = [-(-edge // c) for edge, c in zip(inside.shape, cell, strict=True)]
    total, size = math.prod(grid), math.prod(cell)
    count = max(-(-n // size), min(PLACES, SPREAD * n // size), CELLS_AT_LEAST)
    while True:  # cells at the far border may be smaller than the others
        count = min(count, total)
        chosen = np.sort(rng.choice(total, count, replace=False))
        cells = [_nth_cell(inside, cell, grid, int(i)) for i in chosen]
        missing = n - sum(c.size for c in cells)
        if missing <= 0:
            break
        count += -(-missing // size)
    each = rng.multivariate_hypergeometric([c.size for c in cells], n, method="marginals")
    drawn = [np.sort(rng.choice(c.size, m, replace=False)) for c, m in zip(cells, each, strict=True)]
    return [SampleCell(c, points) for c, points in zip(cells, drawn, strict=True) if len(points)]


def _nth_cell(inside: Box, cell: ZYX, grid: list[int], n: int) -> Box:
    """Return the box that ``inside.split(cell)`` yields as its ``n``-th; ``grid`` cells along each axis."""
    z, y, x = (int(i) * c for i, c in zip(np.unravel_index(n, grid), cell, strict=True))
    start = add(inside.start, (z, y, x))
    return Box(start, add(start, cell)).clip(inside)


def collect(
    cells: Sequence[SampleCell],
    draw: Callable[[SampleCell], Drawn],
    context: Context,
    keep: Path | None,
    workers: int = 1,
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Draw the vectors of a sample cell by cell; where the work is stopped, save what was drawn.

    Parameters
    ----------
    cells : sequence of SampleCell
    draw : callable
        Returns the vectors of the points of a cell, and the mean intensities of their patches.
    context : Context
    keep : Path or None
        A safetensors file for what was drawn before a stop; the next call goes on from it.
    workers : int
        How many cells are drawn at the same time.

    Returns
    -------
    float16 (n, d), float32 (n,)

    Raises
    ------
    Interrupted
        Where the work was stopped.
    """
    drawn, done = _taken_up(keep)
    wanted = takewhile(lambda _: not context.stopped(), cells[done:])
    for one in in_order(draw, wanted, workers):
        drawn.append(one)
        done += 1
        context.report("sampling", done / len(cells), f"{done}/{len(cells)} places")
    if done < len(cells):
        raise _stopped(drawn, done, len(cells), keep)
    vectors, grey = (np.concatenate(values) for values in zip(*drawn, strict=True))
    if not len(vectors):
        raise InputError("no vector lies in the specimen: give a mask that marks more, or --background none")
    if keep is not None:
        keep.unlink(missing_ok=True)
    return vectors, grey.astype(np.float32)


def keep_sample(sample: Sample, keep: Path) -> None:
    """Save a whole sample, so that the next :func:`collect` takes it and draws nothing."""
    arrays: dict[str, NDArray[np.generic]] = {"vectors": sample.vectors, "intensities": sample.intensities}
    save_tensors(keep, arrays, {"cells": ALL_CELLS})


def _taken_up(keep: Path | None) -> tuple[list[Drawn], int]:
    """Return what was drawn before a stop, and the number of cells it was drawn from."""
    if keep is None or not keep.exists():
        return [], 0
    arrays, facts = load_tensors(keep)
    return [(arrays["vectors"], arrays["intensities"])], int(facts["cells"])


def _stopped(drawn: Sequence[Drawn], done: int, total: int, keep: Path | None) -> Interrupted:
    """Save what was drawn from the first cells, and return the error that says so."""
    if keep is None:
        return Interrupted("stopped while a sample was drawn: the same command starts again")
    if drawn:
        vectors, grey = (np.concatenate(values) for values in zip(*drawn, strict=True))
        save_tensors(keep, {"vectors": vectors, "intensities": grey}, {"cells": done})
    return Interrupted(
        f"stopped after {done} of {total} places of the sample: the same command goes on from there"
    )
