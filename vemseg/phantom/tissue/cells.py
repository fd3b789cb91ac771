"""Divides a block among cells, and paints what every cell is filled with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vemseg.phantom.tissue.canvas import F32, Canvas, Part, Point

FAR = np.float32(1e6)
THIN = 12.0
"""Processes of glia end where they would be thinner than twice so many nm."""

FEW = 8
"""So few seeds compete for the whole block, and more only for what lies around them."""


@dataclass(frozen=True)
class Cells:
    """How the cells of a tissue are.

    Attributes
    ----------
    sizes : (float, float)
        Smallest and largest diameter in nm.
    stretch : float
        Largest ratio of length to width.
    joined : float
        Share of the seeds that belong to the cell of another seed, which makes cells of any shape.
    gap : (float, float)
        Thickness in nm of what lies between cells.
    empty : float
        Share of the seeds that are no cell but the space outside.
    """

    sizes: tuple[float, float]
    stretch: float = 2.0
    joined: float = 0.3
    gap: tuple[float, float] = (0.0, 25.0)
    empty: float = 0.0


@dataclass(frozen=True)
class Seed:
    """One seed of the division: its place and radius in nm, its axis and stretch, and its cell."""

    place: Point
    radius: float
    axis: Point
    stretch: float
    cell: int


def seeds(canvas: Canvas, cells: Cells) -> list[Seed]:
    """Scatter seeds, small ones and large ones, in the block and around it."""
    rng = canvas.rng
    low, high = np.log(cells.sizes)
    low += canvas.uniform(-0.4, 0.4)
    high = max(low, high + canvas.uniform(-0.4, 0.4))
    middle = float(np.exp((low + high) / 2))
    margin = min(middle, 1500.0)
    room = np.prod(canvas.extent + 2 * margin)
    count = int(np.clip(room / (0.55 * middle**3), 3, 180))
    bundle = canvas.direction()
    found: list[Seed] = []
    for number in range(count):
        diameter = float(np.exp(rng.uniform(low, high)))
        axis = bundle + canvas.uniform(0.1, 1.5) * canvas.direction()
        cell = number
        place = rng.uniform(-margin, canvas.extent + margin)
        if found and canvas.chance(cells.joined):
            near = min(found, key=lambda seed: float(np.linalg.norm(seed.place - place)))
            cell = near.cell
            diameter = min(diameter, 2.2 * near.radius)
        found.append(
            Seed(
                place,
                diameter / 2,
                axis / np.linalg.norm(axis),
                canvas.uniform(1, cells.stretch),
                cell,
            )
        )
    return found


def divide(canvas: Canvas, found: list[Seed], cells: Cells) -> F32:
    """Give every voxel to the cell of its nearest seed; return the distance to the nearest border in nm.

    The distance to a seed is counted from its surface, so that borders curve around the smaller cell.
    """
    coordinates = _warped(canvas, cells)
    nearest, second = np.full(canvas.shape, FAR), np.full(canvas.shape, FAR)
    middle = float(np.sqrt(cells.sizes[0] * cells.sizes[1]))
    for seed in found:
        part = canvas.whole() if len(found) <= FEW else _reach(canvas, seed, seed.radius + 1.8 * middle)
        if part is not None:
            _compete(canvas, seed, part, coordinates, nearest, second)
    cap = np.float32(0.9 * middle) if len(found) > FEW else FAR  # beyond it, not all seeds have competed
    difference = np.minimum(second - nearest, cap)
    slope = canvas.slopes(difference)
    border: F32 = (difference / np.maximum(slope, np.float32(0.6))).astype(np.float32)
    return border


def wrap(canvas: Canvas, border: F32, cell: int) -> F32:
    """Let one more cell run between the others in thin processes, as glia does; return the new borders."""
    width = np.float32(canvas.uniform(20, 100)) * (
        canvas.noise(canvas.uniform(250, 1200)) + np.float32(canvas.uniform(-0.8, 0.6))
    )
    width[width < THIN] = 0
    canvas.owner[border < width] = cell
    found: F32 = np.abs(border - width)
    return found


def _reach(canvas: Canvas, seed: Seed, width: float) -> Part | None:
    """Return the voxels that a seed may be nearest to."""
    half = width * np.sqrt(1 + (seed.stretch**2 - 1) * np.square(seed.axis))
    return canvas.around(seed.place - half, seed.place + half)


def _warped(canvas: Canvas, cells: Cells) -> list[F32]:
    """Return the coordinates of all voxels, bent so that borders are no planes or spheres."""
    middle = float(np.sqrt(cells.sizes[0] * cells.sizes[1]))
    grains = (min(canvas.uniform(0.8, 2.0) * middle, 3000.0), canvas.uniform(0.15, 0.5) * middle)
    grains = (grains[0], max(grains[1], 5 * canvas.pixel))
    heights = (canvas.uniform(0.02, 0.25) * grains[0], canvas.uniform(0.0, 0.18) * grains[1])
    bent = []
    for axis in canvas.grid(canvas.whole()):
        moved = np.broadcast_to(axis, canvas.shape).copy()
        for grain, height in zip(grains, heights, strict=True):
            moved += np.float32(height) * canvas.noise(grain)
        bent.append(moved)
    return bent


def _compete(
    canvas: Canvas, seed: Seed, part: Part, coordinates: list[F32], nearest: F32, second: F32
) -> None:
    """Let one more seed take the voxels of a part that it is nearest to."""
    z, y, x = (field[part] - np.float32(c) for field, c in zip(coordinates, seed.place, strict=True))
    along = z * np.float32(seed.axis[0])
    along += y * np.float32(seed.axis[1])
    along += x * np.float32(seed.axis[2])
    for offset in (z, y, x, along):
        offset *= offset
    z += y
    z += x
    along *= np.float32(1 - seed.stretch**-2)
    z -= along
    away = np.sqrt(np.maximum(z, 0, out=z), out=z)
    away -= np.float32(seed.radius)
    first, other, owner = nearest[part], second[part], canvas.owner[part]
    mine, closer = owner == seed.cell, away < first
    np.minimum(other, np.where(mine, FAR, np.where(closer, first, away)), out=other)
    np.minimum(first, away, out=first)
    owner[closer] = seed.cell
