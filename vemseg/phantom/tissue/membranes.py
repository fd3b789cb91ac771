"""Paints plasma membranes and what belongs to them: the gap between cells, densities, synapses, myelin."""

from __future__ import annotations

import math

import numpy as np

from vemseg.phantom.tissue.canvas import F32, Bools, Canvas, Part
from vemseg.phantom.tissue.classes import CYTOSOL, MEMBRANE, MYELIN, NUCLEUS, OUTSIDE, SYNAPSE, VESICLE
from vemseg.phantom.tissue.organelles import spheres
from vemseg.phantom.tissue.style import Style

WIDE = 35.0
"""A gap between cells that is wider than this many nm is labelled as outside."""

AXON, THINNEST = 0.5, 25.0
"""Myelin takes at most this share of a cell's radius; where that is less than so many nm, there is none."""


def synapse(canvas: Canvas, style: Style, border: F32, gap: float) -> None:
    """Paint a synapse: a density on one side of two membranes, vesicles on the other.

    Only what lies inside the membranes has its class, since ``plasma_membranes`` paints these and the cleft
    over it. Cells that are farther apart than ``WIDE`` have no synapses.

    Parameters
    ----------
    border : float32 (z, y, x)
        Distance in nm to the middle between two cells.
    gap : float
        Thickness in nm of what lies between two cells.
    """
    if gap > WIDE:
        return
    found = None
    for _ in range(40):
        voxel = tuple(int(canvas.rng.integers(n)) for n in canvas.shape)
        if border[voxel] < 1.5 * canvas.pixel and canvas.labels[voxel] == CYTOSOL:
            found = (np.array(voxel) + 0.5) * canvas.voxel_size
            break
    if found is None:
        return
    radius = canvas.uniform(70, 260)
    part = canvas.around(found - 2 * radius, found + 2 * radius)
    assert part is not None
    square = canvas.square(found, part)
    inside = np.clip((radius - np.sqrt(square)) / 30, 0, 1)
    cells = np.unique(canvas.owner[part][square < radius**2])
    if len(cells) < 2:
        return
    before, after = canvas.rng.permutation(cells)[:2]
    deep = canvas.uniform(15, 55)
    post = inside * (canvas.owner[part] == after)
    pre = inside * (canvas.owner[part] == before) * canvas.uniform(0, 0.6)
    density = np.clip((gap / 2 + 2 * style.membrane_half + deep - border[part]) / 12, 0, 1)
    ink = np.maximum(post * density, pre * density)
    if canvas.chance(0.25):  # a T-bar, as insects have them
        body = canvas.fill(np.sqrt(square) - np.float32(canvas.uniform(30, 80)))
        ink = np.maximum(np.float32(canvas.uniform(0, 0.6)) * ink, body * (canvas.owner[part] == before))
    clumps = np.clip(0.8 + 0.3 * canvas.noise(50, part), 0, 1)
    canvas.paint(part, canvas.uniform(0.05, 0.3), ink * clumps)
    free = np.isin(canvas.labels[part], (CYTOSOL, MEMBRANE)) & (
        border[part] > gap / 2 + _reach(canvas, style)
    )
    canvas.labels[part][free & (ink > 0.5)] = SYNAPSE
    canvas.room[part] = np.minimum(canvas.room[part], np.where(ink > 0.5, 0, 1e6))
    if canvas.chance(0.8):
        _gather(canvas, style, part, (canvas.owner[part] == before) & (square < (1.2 * radius) ** 2), radius)


def _gather(canvas: Canvas, style: Style, part: Part, side: Bools, radius: float) -> None:
    """Scatter vesicles around a voxel on one side of a synapse whose radius is given in nm."""
    voxels = np.argwhere(side)
    if not len(voxels):
        return
    start = np.array([cut.start for cut in part])
    middle = (voxels[canvas.rng.integers(len(voxels))] + start + 0.5) * canvas.voxel_size
    count, size = int(canvas.rng.integers(8, 60)), canvas.uniform(16, 24)
    spheres(canvas, style, VESICLE, count, (size, size * 1.3), middle, canvas.uniform(0.7, 1.8) * radius)


def plasma_membranes(canvas: Canvas, style: Style, border: F32, gap: float, empty: F32) -> None:
    """Paint membranes and what lies between two of them.

    Parameters
    ----------
    border : float32 (z, y, x)
        Distance in nm to the middle between two cells.
    gap : float
        Thickness in nm of what lies between two cells.
    empty : float32 (z, y, x)
        1 where there is no cell.
    """
    half = style.membrane_half
    middle = border - np.float32(gap / 2)
    uneven = np.clip(1 + 0.25 * canvas.noise(200), 0.3, 1.5)
    if gap > 4:
        between = style.outside if gap > WIDE else style.cleft
        canvas.paint(canvas.whole(), between, canvas.fill(middle))
    spots = canvas.noise(canvas.uniform(150, 500))
    thick = np.clip(spots - canvas.uniform(1.2, 2.5), 0, 1) * canvas.uniform(0, 25)
    cover = canvas.sheet(middle, half)
    if canvas.chance(0.5):
        cover = np.maximum(cover, canvas.fill(np.abs(middle) - half - thick))
    else:
        thick[...] = 0
    grey = np.float32(style.membrane) + np.float32(0.03) * canvas.noise(120)
    canvas.paint(canvas.whole(), grey, np.clip(cover * uneven, 0, 1) * (1 - empty))
    wide = gap > WIDE
    reach = _reach(canvas, style)
    band = (np.abs(middle) < reach + thick) if wide else (middle < reach + thick)
    taken = band & ~np.isin(canvas.labels, (NUCLEUS, MYELIN, SYNAPSE)) & (empty < 0.5)
    canvas.labels[taken] = MEMBRANE
    if wide:
        canvas.labels[(middle < -reach) | (empty > 0.5)] = OUTSIDE


def _reach(canvas: Canvas, style: Style) -> float:
    """Return how far in nm from its middle a membrane is labelled: so far that no voxel is skipped."""
    return max(style.membrane_half, 0.55 * canvas.pixel)


def myelin(canvas: Canvas, style: Style, border: F32, cell: Bools) -> None:
    """Wrap a cell in myelin: many membranes, one around the other.

    Parameters
    ----------
    border : float32 (z, y, x)
        Distance in nm to the middle between two cells.
    cell : bool (z, y, x)
        Where the cell is. Myelin takes at most ``AXON`` of its radius, so that an axon is left.
    """
    thickness, period = canvas.uniform(50, 320), canvas.uniform(10, 18)
    thickness = min(thickness, AXON * float(border[cell].max(initial=0)))
    period = max(period, 1.6 * canvas.pixel)
    uneven = border + np.float32(canvas.uniform(0, 6)) * canvas.noise(150)
    wave = np.float32(0.5) + np.float32(0.5) * np.cos(uneven * np.float32(2 * math.pi / period))
    contrast = canvas.uniform(0, 0.3)
    grey = np.float32(canvas.uniform(0.05, 0.35)) + np.float32(contrast) * wave
    if thickness < THINNEST:
        return
    cover = canvas.fill(border - np.float32(thickness)) * cell
    canvas.paint(canvas.whole(), grey, cover)
    canvas.labels[cover > 0.5] = MYELIN
    inside = border - np.float32(thickness + 15)
    canvas.room[cell] = np.minimum(canvas.room, inside)[cell]
