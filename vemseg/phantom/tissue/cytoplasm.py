"""Paints what fills cells and is not an organelle: grain, ribosomes, glycogen, microtubules, filaments.

None of it has a class of its own. An encoder has to learn not to take it for one.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates

from vemseg.phantom.tissue.canvas import F32, Canvas, Point
from vemseg.phantom.tissue.style import Style


def fill_cells(canvas: Canvas, style: Style, count: int) -> None:
    """Paint the cytosol of every cell, with its own darkness and grain."""
    rng = canvas.rng
    base = style.cytosol + style.cells * rng.standard_normal(count)
    dark = rng.random(count) < canvas.uniform(0, 0.15)
    pale = ~dark & (rng.random(count) < canvas.uniform(-0.3, 0.3))
    base = base - dark * rng.uniform(0.1, 0.3, count) + pale * rng.uniform(0.04, 0.22, count)
    base = base.clip(0.2, 0.97)
    coarse = rng.uniform(0, 0.05, count) * (1 + dark)
    fine = rng.uniform(0, canvas.uniform(0.04, 0.14), count) * (1 + dark)
    mottled = rng.uniform(0.3, 1, count) * canvas.uniform(0, 0.09)
    cell = canvas.owner
    canvas.image[...] = base.astype(np.float32)[cell]
    canvas.image += coarse.astype(np.float32)[cell] * canvas.noise(canvas.uniform(80, 400))
    canvas.image += fine.astype(np.float32)[cell] * canvas.noise(canvas.uniform(20, 50))
    spots = canvas.noise(canvas.uniform(35, 110))
    canvas.image -= mottled.astype(np.float32)[cell] * (spots + np.float32(0.35) * (spots * spots - 1))


def stain(canvas: Canvas, cell: int, by: float) -> None:
    """Make the cytosol of a cell darker."""
    mine = canvas.owner == cell
    canvas.image[mine] = np.clip(canvas.image[mine] - np.float32(by), 0.08, None)


def _per_cell(canvas: Canvas, count: int, share: float, strength: float) -> F32:
    """Draw how much of something each cell has, and return that for every voxel."""
    amount = np.where(canvas.rng.random(count) < share, canvas.rng.uniform(0.3, 1, count), 0) * strength
    found: F32 = amount.astype(np.float32)[canvas.owner]
    return found


def ribosomes(canvas: Canvas, count: int) -> None:
    """Scatter dots of 20 to 30 nm, alone or in clusters."""
    dots = canvas.noise(max(canvas.uniform(22, 34), 1.2 * canvas.pixel))
    if canvas.chance(0.5):
        dots = dots + np.float32(0.8) * canvas.noise(canvas.uniform(80, 250))
    shown = np.clip((dots - np.float32(canvas.uniform(1.0, 2.2))) * 2, 0, 1)
    canvas.image -= shown * _per_cell(canvas, count, 0.7, canvas.uniform(0.05, 0.3))


def glycogen(canvas: Canvas, count: int) -> None:
    """Scatter dark clumps of 40 to 90 nm in patches of a cell."""
    clumps = canvas.noise(max(canvas.uniform(40, 90), 1.5 * canvas.pixel))
    gate = np.clip(2 * canvas.noise(canvas.uniform(300, 900)) - canvas.uniform(-0.5, 1.5), 0, 1)
    shown = np.clip((clumps - np.float32(canvas.uniform(0.5, 1.5))) * 2, 0, 1) * gate
    canvas.image -= shown * _per_cell(canvas, count, 0.4, canvas.uniform(0.1, 0.35))


def fibres(canvas: Canvas, count: int, *, thick: bool) -> None:
    """Paint microtubules (thick) or filaments: lines, nearly parallel, that show as dots where cut across."""
    spacing = canvas.uniform(70, 220) if thick else canvas.uniform(22, 60)
    spacing = max(spacing, 2.5 * canvas.pixel)
    half = canvas.uniform(10, 14) if thick else canvas.uniform(3, 6)
    away = _bundle(canvas, spacing)
    ink = canvas.fill(away - np.float32(half))
    if thick and canvas.pixel < 8:
        ink = ink - 0.6 * canvas.fill(away - np.float32(half / 2))
    gate = np.clip(3 * canvas.noise((300, 300, 300)) + canvas.uniform(-2, 2), 0, 1)
    canvas.image -= ink * gate * _per_cell(canvas, count, canvas.uniform(0.2, 1), canvas.uniform(0.05, 0.3))


def _bundle(canvas: Canvas, spacing: float) -> F32:
    """Return the distance in nm to the nearest of many bent lines, scattered so far apart on average."""
    axis = canvas.direction()
    first = np.cross(axis, canvas.direction())
    first /= np.linalg.norm(first) + 1e-9
    second = np.cross(axis, first)
    bend, grain = np.float32(0.5 * spacing), max(canvas.uniform(4, 12) * spacing, 400.0)
    u, v = (_along(canvas, across) + bend * canvas.noise(grain) for across in (first, second))
    fine = max(spacing / 6, 4.0)
    low = np.array([u.min(), v.min()])
    size = np.ceil((np.array([u.max(), v.max()]) - low) / fine).astype(int) + 2
    empty = canvas.rng.random(size) > (fine / spacing) ** 2
    apart = distance_transform_edt(empty).astype(np.float32) * np.float32(fine)
    found: F32 = map_coordinates(apart, [(u - low[0]) / fine, (v - low[1]) / fine], order=1, mode="nearest")
    return found


def _along(canvas: Canvas, axis: Point) -> F32:
    """Return how far along an axis every voxel lies, in nm."""
    z, y, x = canvas.grid(canvas.whole())
    found: F32 = z * np.float32(axis[0]) + y * np.float32(axis[1]) + x * np.float32(axis[2])
    return found
