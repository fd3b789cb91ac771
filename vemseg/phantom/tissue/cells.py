"""Divides a block among cells, and paints what every cell is filled with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from vemseg.geometry import ZYX
from vemseg.phantom.tissue.canvas import F32, Canvas, Part, Point

FAR = np.float32(1e6)
THICK = 900.0
"""A bundle of thin processes is at most so many nm thick."""
MOST_CELLS, MOST_BUNDLES = 300, 8
THIN = 12.0
"""Processes of glia end where they would be thinner than twice so many nm."""

TILE = (9, 24, 24)
"""Voxels z, y, x that are divided together, among the few seeds that are near."""


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
    bundles : (float, float)
        Number of bundles of thin processes, per cubic micrometre; a range that begins below 0 may give none.
    """

    sizes: tuple[float, float]
    stretch: float = 2.0
    joined: float = 0.3
    gap: tuple[float, float] = (0.0, 25.0)
    empty: float = 0.0
    bundles: tuple[float, float] = (0.0, 0.0)


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
    count = int(np.clip(room / (0.55 * middle**3), 3, MOST_CELLS))
    bundle = canvas.direction()
    found: list[Seed] = []
    places = np.empty((count, 3))
    for number in range(count):
        diameter = float(np.exp(rng.uniform(low, high)))
        axis = bundle + canvas.uniform(0.1, 1.5) * canvas.direction()
        cell = number
        place = rng.uniform(-margin, canvas.extent + margin)
        if found and canvas.chance(cells.joined):
            near = found[int(np.square(places[:number] - place).sum(axis=1).argmin())]
            cell = near.cell
            diameter = min(diameter, 2.2 * near.radius)
        places[number] = place
        found.append(
            Seed(
                place,
                diameter / 2,
                axis / np.linalg.norm(axis),
                canvas.uniform(1, cells.stretch),
                cell,
            )
        )
    return _with_bundles(canvas, cells, found)


def _with_bundles(canvas: Canvas, cells: Cells, found: list[Seed]) -> list[Seed]:
    """Let some of the seeds make room for bundles of thin processes, which run side by side."""
    volume = float(np.prod(canvas.extent + THICK)) / 1e9
    for _ in range(
        min(MOST_BUNDLES, int(canvas.rng.poisson(max(0.0, canvas.uniform(*cells.bundles)) * volume)))
    ):
        middle, across = canvas.rng.uniform(0, canvas.extent), canvas.uniform(0.5, 1) * THICK
        found = [seed for seed in found if np.linalg.norm(seed.place - middle) > across / 2 + seed.radius / 2]
        size, axis = canvas.uniform(90, 240), canvas.direction()
        first = max((seed.cell for seed in found), default=-1) + 1
        for number in range(int(np.clip((across / size) ** 3 / 2, 4, 40))):
            place = middle + across / 2 * canvas.direction() * canvas.rng.random() ** (1 / 3)
            along = axis + canvas.uniform(0, 0.5) * canvas.direction()
            found.append(
                Seed(
                    place,
                    size * canvas.uniform(0.3, 0.7),
                    along / np.linalg.norm(along),
                    canvas.uniform(1.5, 5),
                    first + number,
                )
            )
    return found


def divide(canvas: Canvas, found: list[Seed], cells: Cells) -> F32:
    """Give every voxel to the cell of its nearest seed; return the distance to the nearest border in nm.

    The distance to a seed is counted from its surface, so that borders curve around the smaller cell.
    """
    coordinates = _warped(canvas, cells)
    field = _Field.of(found)
    difference = np.empty(canvas.shape, np.float32)
    for part in _tiles(canvas.shape):
        places = np.stack([axis[part].ravel() for axis in coordinates])
        owner, lead = field.nearest(places)
        canvas.owner[part] = owner.reshape(difference[part].shape)
        difference[part] = lead.reshape(difference[part].shape)
    difference /= np.maximum(_steepness(canvas, difference), np.float32(0.6))
    return _bounded(canvas, difference)


def _steepness(canvas: Canvas, lead: F32) -> F32:
    """Return the slope per nm of how much farther the second nearest seed is than the nearest.

    That has a kink at borders, where it is 0 on both sides, so along each axis the steeper side counts.
    """
    total = np.zeros_like(lead)
    for axis, edge in enumerate(canvas.voxel_size):
        step = np.square(np.diff(lead, axis=axis) / np.float32(edge))
        ahead, behind = _sides(lead.ndim, axis)
        steeper = np.zeros_like(lead)
        steeper[behind] = step
        np.maximum(steeper[ahead], step, out=steeper[ahead])
        total += steeper
    return np.sqrt(total, out=total)


def _bounded(canvas: Canvas, border: F32) -> F32:
    """Hold estimated distances to the nearest border, in nm, to what the voxels of the block allow.

    Far from borders the estimate jumps where another cell becomes the second nearest. A distance is at most
    that to the nearest voxel at a border in the block, plus one voxel, and at least that or the way out of
    the block, behind which there may be other borders.
    """
    at_border = np.zeros(canvas.shape, np.bool_)
    for axis in range(3):
        ahead, behind = _sides(3, axis)
        changes = canvas.owner[ahead] != canvas.owner[behind]
        at_border[ahead] |= changes
        at_border[behind] |= changes
    if not at_border.any():
        return border
    far = distance_transform_edt(~at_border, sampling=canvas.voxel_size).astype(np.float32)
    z, y, x = (
        np.minimum(axis, np.float32(size) - axis)
        for axis, size in zip(canvas.grid(canvas.whole()), canvas.extent, strict=True)
    )
    out = np.minimum(np.minimum(z, y), x)
    return np.clip(border, np.minimum(far, out), far + np.float32(canvas.voxel_size.max()))


def _sides(ndim: int, axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return what cuts all but the first and all but the last voxels along an axis."""
    whole = [slice(None)] * ndim
    ahead, behind = whole.copy(), whole.copy()
    ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
    return tuple(ahead), tuple(behind)


def wrap(canvas: Canvas, border: F32, cell: int) -> F32:
    """Let one more cell run between the others in thin processes, as glia does; return the new borders."""
    width = np.float32(canvas.uniform(20, 100)) * (
        canvas.noise(canvas.uniform(250, 1200)) + np.float32(canvas.uniform(-0.8, 0.6))
    )
    width[width < THIN] = 0
    canvas.owner[border < width] = cell
    found: F32 = np.abs(border - width)
    return found


def _warped(canvas: Canvas, cells: Cells) -> list[F32]:
    """Return the coordinates of all voxels, bent so that borders are no planes or spheres."""
    middle = float(np.sqrt(cells.sizes[0] * cells.sizes[1]))
    grains = (min(canvas.uniform(0.8, 2.0) * middle, 3000.0), canvas.uniform(0.15, 0.5) * middle)
    grains = (grains[0], max(grains[1], 5 * canvas.pixel))
    heights = (canvas.uniform(0.02, 0.25) * grains[0], canvas.uniform(0.0, 0.28) * grains[1])
    bent = []
    for axis in canvas.grid(canvas.whole()):
        moved = np.broadcast_to(axis, canvas.shape).copy()
        for grain, height in zip(grains, heights, strict=True):
            moved += np.float32(height) * canvas.noise(grain)
        bent.append(moved)
    return bent


def _tiles(shape: ZYX) -> Iterator[Part]:
    """Yield the parts of a block that are divided one after the other."""
    for corner in itertools.product(*(range(0, n, edge) for n, edge in zip(shape, TILE, strict=True))):
        z, y, x = (slice(a, a + edge) for a, edge in zip(corner, TILE, strict=True))
        yield z, y, x


@dataclass(frozen=True)
class _Field:
    """The seeds as arrays, in order of their cells.

    Attributes
    ----------
    places : float64 (n, 3)
        In nm.
    forms : float64 (n, 3, 3)
        Square forms whose value at an offset from the place is the squared distance.
    radii : float64 (n,)
        In nm.
    cells : int32 (n,)
    """

    places: NDArray[np.float64]
    forms: NDArray[np.float64]
    radii: NDArray[np.float64]
    cells: NDArray[np.int32]

    @classmethod
    def of(cls, found: list[Seed]) -> _Field:
        """Gather seeds."""
        found = sorted(found, key=lambda seed: seed.cell)
        axes = np.array([seed.axis for seed in found])
        shrunk = 1 - np.array([seed.stretch for seed in found]) ** -2.0
        forms = np.eye(3) - shrunk[:, None, None] * axes[:, :, None] * axes[:, None, :]
        return cls(
            np.array([seed.place for seed in found]),
            forms,
            np.array([seed.radius for seed in found]),
            np.array([seed.cell for seed in found], np.int32),
        )

    def nearest(self, places: F32) -> tuple[NDArray[np.int32], F32]:
        """Return the nearest cell of each place (3, n) in nm, and how much farther the second nearest is."""
        low, high = places.min(axis=1), places.max(axis=1)
        middle = (low + high) / 2
        few = self._near(middle.astype(np.float64), float(np.linalg.norm(high - low)) / 2)
        away = few._distances(places - middle[:, None], middle)
        own, starts = np.unique(few.cells, return_index=True)
        owner = np.full(places.shape[1], few.cells[0])
        first, second = np.full(places.shape[1], FAR), np.full(places.shape[1], FAR)
        for cell, seeds_of_cell in zip(own, np.split(away, starts[1:]), strict=True):
            mine = seeds_of_cell.min(axis=0) if len(seeds_of_cell) > 1 else seeds_of_cell[0]
            closer = mine < first
            np.minimum(second, np.maximum(first, mine), out=second)
            np.minimum(first, mine, out=first)
            owner[closer] = cell
        return owner, second - first

    def _near(self, middle: Point, reach: float) -> _Field:
        """Return the seeds that can be nearest or second nearest somewhere at most ``reach`` from a place."""
        offset = self.places - middle
        away = np.sqrt(np.einsum("ni,nij,nj->n", offset, self.forms, offset)) - self.radii
        each = np.minimum.reduceat(away, np.flatnonzero(np.diff(self.cells, prepend=-1)))
        bound = np.partition(each, 1)[1] if len(each) > 1 else np.inf
        kept = away <= bound + 2 * reach
        return _Field(self.places[kept], self.forms[kept], self.radii[kept], self.cells[kept])

    def _distances(self, places: F32, middle: F32) -> F32:
        """Return the distance (seeds, n) in nm of places (3, n), relative to a middle, from each surface."""
        offset = self.places - middle
        mixed = self.forms[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]] * [1, 1, 1, 2, 2, 2]
        linear = -2 * np.einsum("nij,nj->ni", self.forms, offset)
        constant = np.einsum("ni,nij,nj->n", offset, self.forms, offset)
        z, y, x = places
        terms = np.stack([z * z, y * y, x * x, z * y, z * x, y * x, z, y, x, np.ones_like(z)])
        weights = np.concatenate([mixed, linear, constant[:, None]], axis=1).astype(np.float32)
        square = weights @ terms
        away: F32 = np.sqrt(np.maximum(square, 0, out=square), out=square)
        away -= self.radii[:, None].astype(np.float32)
        return away
