"""Which lattice points classes are fitted on, and which are stored together: index arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.geometry import ZYX, Box, add

CELLS_AT_LEAST = 64
TOGETHER = 4
"""Cells along a side that are computed in one go where all points are wanted."""

BOX_BYTES = 2**27


@dataclass(frozen=True)
class SampleCell:
    """A box of lattice points, and which of its points belong to a sample (indices into the raveled box)."""

    cells: Box
    points: NDArray[np.int64]


def sample_cells(inside: Box, cell: ZYX, n: int, seed: int) -> list[SampleCell]:
    """Choose lattice points for fitting classes; the choice depends on the arguments alone.

    Points that come out of one field of view are cheap to sample together, so the lattice is cut into cells,
    random cells are taken, at least ``CELLS_AT_LEAST`` where there are as many, and from all their points
    ``n`` are drawn.

    Parameters
    ----------
    inside : Box
        The lattice points within the volume.
    cell : (int, int, int)
        Lattice points per cell.
    n : int
        Vectors wanted; all where there are no more.
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
    total, count = math.prod(grid), max(-(-n // math.prod(cell)), CELLS_AT_LEAST)
    while True:  # cells at the far border may be smaller than the others
        count = min(count, total)
        chosen = np.sort(rng.choice(total, count, replace=False))
        cells = [_nth_cell(inside, cell, grid, int(i)) for i in chosen]
        missing = n - sum(c.size for c in cells)
        if missing <= 0:
            break
        count += -(-missing // math.prod(cell))
    each = rng.multivariate_hypergeometric([c.size for c in cells], n, method="marginals")
    drawn = [np.sort(rng.choice(c.size, m, replace=False)) for c, m in zip(cells, each, strict=True)]
    return [SampleCell(c, points) for c, points in zip(cells, drawn, strict=True) if len(points)]


def _nth_cell(inside: Box, cell: ZYX, grid: list[int], n: int) -> Box:
    """Return the box that ``inside.split(cell)`` yields as its ``n``-th; ``grid`` cells along each axis."""
    z, y, x = (int(i) * c for i, c in zip(np.unravel_index(n, grid), cell, strict=True))
    start = add(inside.start, (z, y, x))
    return Box(start, add(start, cell)).clip(inside)


def lattice_boxes(shape: ZYX, cell: ZYX, dim: int) -> ZYX:
    """Return the lattice points to compute and store at a time: about ``BOX_BYTES`` of whole cells."""
    box = [min(n, c) for n, c in zip(shape, cell, strict=True)]
    for axis in (2, 1, 0):
        room = max(1, BOX_BYTES // (2 * dim * int(np.prod(box))))
        cells = min(room, -(-shape[axis] // cell[axis]))
        box[axis] = min(shape[axis], cell[axis] * cells)
    return box[0], box[1], box[2]
