"""Paints organelles into the room that cells leave: each with the variety that textbooks show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vemseg.phantom.tissue.canvas import F32, Canvas, Part, Point
from vemseg.phantom.tissue.classes import (
    CYTOSOL,
    GRANULE,
    MITOCHONDRION,
    NUCLEUS,
    RETICULUM,
    VESICLE,
)
from vemseg.phantom.tissue.style import Style

STRETCHED, ENVELOPE = 1.25, (15.0, 45.0)
"""Nuclei are stretched at most so much; the two membranes around one lie so many nm apart."""


@dataclass(frozen=True)
class Tube:
    """A bent tube in nm: its middle line (n, 3), its radius, and how much it is flattened along an axis."""

    line: Point
    radius: float
    flat: float
    axis: Point

    def part(self, canvas: Canvas, margin: float) -> Part | None:
        """Return the voxels that it may reach."""
        reach = self.radius * 1.35 + margin
        return canvas.around(self.line.min(axis=0) - reach, self.line.max(axis=0) + reach)

    def distance(self, canvas: Canvas, part: Part) -> F32:
        """Return the distance to its surface in nm, negative inside."""
        z, y, x = canvas.grid(part)
        nearest = np.full(canvas.image[part].shape, np.float32(1e12))
        steps = zip(self.line[:-1], self.line[1:], strict=True) if len(self.line) > 1 else ()
        for start, stop in steps:
            step = stop - start
            offset = [axis - np.float32(c) for axis, c in zip((z, y, x), start, strict=True)]
            along = sum(o * np.float32(s) for o, s in zip(offset, step, strict=True))
            t = np.clip(along / np.float32(step @ step + 1e-6), 0, 1)
            away = [o - t * np.float32(s) for o, s in zip(offset, step, strict=True)]
            square = sum(np.square(a) for a in away)
            if self.flat > 1.05:
                across = sum(a * np.float32(u) for a, u in zip(away, self.axis, strict=True))
                square = square + np.float32(self.flat**2 - 1) * np.square(across)
            np.minimum(nearest, square, out=nearest)
        return np.sqrt(nearest) - np.float32(self.radius)


@dataclass(frozen=True)
class Core:
    """A nucleus: its place and radius in nm, and the number of its cell."""

    place: Point
    radius: float
    cell: int

    @property
    def reach(self) -> float:
        """How far in nm its envelope reaches from its place, where its surface has no bumps."""
        return STRETCHED * self.radius + ENVELOPE[1]


def nucleus(canvas: Canvas, style: Style, core: Core) -> None:
    """Paint a nucleus: envelope, chromatin, nucleolus. It gives way to the membrane of its cell."""
    place, radius, gap = core.place, core.radius, canvas.uniform(*ENVELOPE)
    stretch = canvas.rng.uniform(0.8, STRETCHED, 3)
    distance = np.sqrt(canvas.square(place, stretch=stretch)) - np.float32(radius)
    distance = distance + np.float32(canvas.uniform(0, 0.05) * radius) * canvas.noise(
        min(canvas.uniform(0.2, 0.6) * radius, 2500.0)
    )
    away = np.where(canvas.owner == core.cell, canvas.room, np.float32(-100))
    distance = np.maximum(distance, np.float32(gap + style.membrane_half + canvas.uniform(15, 60)) - away)
    if not (distance < 0).any():
        return
    base = style.nucleoplasm
    lumps = canvas.noise(canvas.uniform(80, 350)) + np.float32(canvas.uniform(0, 0.7)) * canvas.noise(
        canvas.uniform(30, 60)
    )
    rim = np.exp(distance / np.float32(canvas.uniform(60, 250)))
    sharp, level = canvas.uniform(2, 8), canvas.uniform(-0.2, 1.6)
    dark = 1 / (1 + np.exp(-sharp * (lumps + canvas.uniform(0, 1.5) * rim - level)))
    grey = np.float32(base) - np.float32(canvas.uniform(0.04, 0.35)) * dark
    if canvas.chance(0.4):
        body = _ball(canvas, place + radius * 0.4 * canvas.direction(), canvas.uniform(0.15, 0.35) * radius)
        speckle = np.float32(0.05) * canvas.noise(60)
        body = body + np.float32(40) * canvas.noise(150)
        grey = np.where(body < 0, np.float32(base - canvas.uniform(0.15, 0.35)) + speckle, grey)
    canvas.paint(canvas.whole(), grey, canvas.fill(distance))
    canvas.paint(canvas.whole(), style.cytosol + 0.05, canvas.sheet(distance - np.float32(gap / 2), gap / 2))
    pores = np.clip(canvas.noise(110) * 2 + 2.2, 0, 1) if canvas.chance(0.5) else np.float32(1)
    for offset in (0.0, gap):
        edge = canvas.sheet(distance - np.float32(offset), style.membrane_half)
        canvas.paint(canvas.whole(), style.membrane, edge * pores)
    outer = distance - np.float32(gap + style.membrane_half)
    canvas.labels[outer < 0] = NUCLEUS
    np.minimum(canvas.room, outer, out=canvas.room)


def _ball(canvas: Canvas, place: Point, radius: float) -> F32:
    distance: F32 = np.sqrt(canvas.square(place)) - np.float32(radius)
    return distance


def mitochondrion(canvas: Canvas, style: Style) -> None:
    """Paint one mitochondrion: a bent tube with two membranes, a matrix and cristae."""
    radius = canvas.uniform(*style.mitochondria_radius)
    found = canvas.place(0.6 * radius + 30)
    if found is None:
        return
    centre, voxel = found
    cell = canvas.owner[voxel]
    length = canvas.uniform(0, 1) ** 2 * 3000 + 0.4 * radius
    heading, bend = canvas.direction(), 0.35 * canvas.direction()
    t = np.linspace(-0.5, 0.5, max(3, int(length / 220)))
    line = centre + t[:, None] * length * heading + (t[:, None] ** 2 - 0.06) * length * 2 * bend
    tube = Tube(line, radius, canvas.uniform(1, 1.6), canvas.direction())
    part = tube.part(canvas, 60)
    if part is None:
        return
    distance = tube.distance(canvas, part)
    wave = canvas.noise(canvas.uniform(0.6, 2.0) * radius + 2 * canvas.pixel, part)
    distance = distance + np.float32(canvas.uniform(0.02, 0.16) * radius) * wave
    half = style.membrane_half
    clear = np.float32(half + canvas.uniform(5, 45))
    distance = _kept_clear(distance, clear - canvas.room[part], 0.3 * radius)
    distance = np.where(canvas.owner[part] == cell, distance, np.float32(50))
    if int((distance < 0).sum()) < 12:
        return
    base = style.cytosol + style.matrix + canvas.uniform(-0.04, 0.04)
    matrix = np.float32(base) + np.float32(style.matrix_grain) * canvas.noise(canvas.uniform(20, 50), part)
    matrix = _cristae(canvas, style, tube, part, distance, matrix)
    canvas.paint(part, matrix, canvas.fill(distance))
    canvas.paint(part, style.mitochondria_rim, canvas.sheet(distance, half * canvas.uniform(0.8, 1.5)))
    if style.double:
        canvas.paint(part, style.cytosol, 0.7 * canvas.sheet(distance + np.float32(half + 7), 5))
        canvas.paint(part, style.mitochondria_rim, canvas.sheet(distance + np.float32(2 * half + 12), half))
    canvas.labels[part][distance < half] = MITOCHONDRION
    np.minimum(canvas.room[part], distance - np.float32(half), out=canvas.room[part])


def _kept_clear(distance: F32, other: F32, soft: float) -> F32:
    """Return the larger of two distances, with rounded corners (a polynomial smooth maximum)."""
    blend = np.clip(np.float32(0.5) + (distance - other) / np.float32(2 * soft), 0, 1)
    found: F32 = other + (distance - other) * blend + np.float32(soft) * blend * (1 - blend)
    return found


def _cristae(canvas: Canvas, style: Style, tube: Tube, part: Part, distance: F32, matrix: F32) -> F32:
    """Return the matrix with cristae: lamellae across or along, tubules, or none."""
    kind = canvas.rng.random()
    if kind < 0.1:
        return matrix
    z, y, x = canvas.grid(part)
    heading = tube.line[-1] - tube.line[0]
    heading = heading / (np.linalg.norm(heading) + 1e-9)
    axis = heading * canvas.uniform(0, 1.5) + canvas.direction()
    axis /= np.linalg.norm(axis) + 1e-9
    along = sum(c * np.float32(u) for c, u in zip((z, y, x), axis, strict=True))
    along = along + np.float32(canvas.uniform(5, 40)) * canvas.noise(canvas.uniform(80, 200), part)
    period = style.cristae_period * canvas.uniform(0.8, 1.25)
    if kind < 0.65:
        phase = np.remainder(along, np.float32(period)) - np.float32(period / 2)
        sheets = canvas.sheet(phase, min(style.cristae_half, 0.3 * period))
    else:
        field = canvas.noise(max(0.55 * period, 1.5 * canvas.pixel), part)
        sheets = np.clip((field - np.float32(canvas.uniform(0.3, 1.2))) * 2.5, 0, 1)
    gate = np.clip(2 * canvas.noise(canvas.uniform(100, 300), part) + canvas.uniform(-0.5, 4), 0, 1)
    inner = np.clip(-(distance + np.float32(style.membrane_half)) / np.float32(canvas.pixel), 0, 1)
    painted: F32 = matrix + np.float32(style.cristae) * sheets * gate * inner
    return painted


def reticulum(canvas: Canvas, style: Style) -> None:
    """Paint endoplasmic reticulum: sheets or tubules, with or without ribosomes, swollen or flat."""
    grain = canvas.uniform(120, 500)
    field = canvas.noise(grain)
    slope = np.maximum(canvas.slopes(field), np.float32(2e-4))
    if canvas.chance(0.55):
        period = canvas.uniform(max(0.2, 90 / grain), 1.8)
        away = np.abs(np.remainder(field + canvas.uniform(0, 1), np.float32(period)) - period / 2) / slope
    else:
        away = np.abs(field / slope)
        other = canvas.noise(grain * canvas.uniform(0.7, 1.4))
        across = np.abs(other) / np.maximum(canvas.slopes(other), np.float32(2e-4))
        away = np.hypot(away, across) if canvas.chance(0.7) else np.minimum(away, across)
    gate = canvas.noise(canvas.uniform(200, 900)) - np.float32(canvas.uniform(-0.5, 1.5))
    has = canvas.rng.random(canvas.owner.max() + 1) < canvas.uniform(0.2, 1.2)
    half = canvas.uniform(10, 28) * (2.5 if canvas.chance(0.08) else 1)
    cover = np.clip(gate * 4, 0, 1) * np.clip((canvas.room - 25) / 20, 0, 1) * has[canvas.owner]
    distance = (away - np.float32(half)).astype(np.float32)
    inside = canvas.fill(distance) * cover
    canvas.paint(canvas.whole(), style.lumen, inside)
    edge = canvas.sheet(distance, style.membrane_half * 0.9) * cover
    canvas.paint(canvas.whole(), style.membrane + canvas.uniform(0, 0.12), edge)
    if canvas.chance(0.5):
        dots = canvas.noise(max(28, 1.3 * canvas.pixel)) > canvas.uniform(0.8, 1.5)
        ring = canvas.sheet(distance - np.float32(14), 13) * cover
        canvas.paint(canvas.whole(), style.membrane, np.float32(canvas.uniform(0.4, 0.9)) * ring * dots)
    taken = (distance < style.membrane_half) & (cover > 0.5)
    canvas.labels[taken & (canvas.labels == CYTOSOL)] = RETICULUM
    canvas.room[taken] = np.minimum(canvas.room[taken], 0)


def golgi(canvas: Canvas, style: Style) -> None:
    """Paint a stack of flat cisternae with vesicles at its rims."""
    radius = canvas.uniform(250, 700)
    found = canvas.place(90)
    if found is None:
        return
    place, voxel = found
    part = canvas.around(place - radius, place + radius)
    assert part is not None
    z, y, x = canvas.grid(part)
    axis = canvas.direction()
    offset = [c - np.float32(p) for c, p in zip((z, y, x), place, strict=True)]
    across = sum(o * np.float32(u) for o, u in zip(offset, axis, strict=True))
    flat = np.sqrt(np.maximum(canvas.square(place, part) - np.square(across), 0))
    bowl = across - np.float32(canvas.uniform(0, 0.6) / radius) * np.square(flat)
    bowl = bowl + np.float32(canvas.uniform(5, 25)) * canvas.noise(150, part)
    period, layers = canvas.uniform(38, 75), int(canvas.rng.integers(3, 8))
    number = np.round(bowl / np.float32(period))
    away = bowl - number * np.float32(period)
    rim = radius * (0.85 - 0.06 * np.abs(number)) + np.float32(40) * canvas.noise(120, part)
    same = canvas.owner[part] == canvas.owner[voxel]
    inside = same & (np.abs(number) <= layers / 2) & (flat < rim) & (canvas.room[part] > 15)
    half = canvas.uniform(0.16, 0.3) * period
    distance = np.where(inside, np.abs(away) - np.float32(half), np.float32(100)).astype(np.float32)
    canvas.paint(part, style.lumen, canvas.fill(distance))
    canvas.paint(part, style.membrane + 0.05, canvas.sheet(distance, style.membrane_half * 0.9))
    canvas.labels[part][inside & (canvas.labels[part] == CYTOSOL)] = RETICULUM
    canvas.room[part][inside] = np.minimum(canvas.room[part][inside], 0)
    spheres(canvas, style, VESICLE, int(canvas.rng.integers(5, 40)), (20, 45), place, 0.8 * radius)


def spheres(
    canvas: Canvas,
    style: Style,
    kind: int,
    count: int,
    radii: tuple[float, float],
    place: Point | None = None,
    spread: float = 0.0,
) -> None:
    """Scatter vesicles, granules or droplets of lipid, around a place or anywhere."""
    look = style.look(canvas.rng, kind)
    for _ in range(count):
        radius = canvas.uniform(*radii)
        if place is None:
            found = canvas.place(0.7 * radius)
            if found is None:
                continue
            centre = found[0]
        else:
            centre = place + canvas.rng.standard_normal(3) * spread * 0.5
        _sphere(canvas, style, kind, look, centre, radius)


def _sphere(
    canvas: Canvas, style: Style, kind: int, look: tuple[float, float, float, float], at: Point, radius: float
) -> None:
    core, rim, halo, grain = look
    stretch = canvas.rng.uniform(0.82, 1.2, 3) if kind != VESICLE else np.ones(3)
    reach = radius * (stretch.max() + (0.4 if kind != VESICLE else 0)) + 20  # 0.4: bumps of 3 deviations
    part = canvas.around(at - reach, at + reach)
    if part is None:
        return
    distance = np.sqrt(canvas.square(at, part, stretch)) - np.float32(radius)
    if kind != VESICLE and radius > 4 * canvas.pixel and canvas.chance(0.4):
        distance = distance + np.float32(0.12 * radius) * canvas.noise(0.8 * radius, part)
    inside = distance < 0
    if (
        not inside.any()
        or (inside & (canvas.room[part] < np.minimum(-distance, 8))).mean() > 0.1 * inside.mean()
    ):
        return
    body = canvas.fill(distance)
    grey: F32 | float = core
    if grain > 0:
        grey = np.float32(core) + np.float32(grain) * canvas.noise(max(30, 0.2 * radius), part)
    if halo > 0:
        canvas.paint(part, style.cytosol + 0.12, body)
        canvas.paint(part, grey, canvas.fill(distance + np.float32(halo * radius)))
    else:
        canvas.paint(part, grey, body)
    if rim >= 0:
        canvas.paint(part, rim, canvas.sheet(distance, style.membrane_half * 0.9))
    edge = style.membrane_half if rim >= 0 else 0.0
    canvas.labels[part][distance < edge] = kind
    np.minimum(canvas.room[part], distance - np.float32(edge), out=canvas.room[part])


def bouton(canvas: Canvas, style: Style, cell: int) -> None:
    """Fill a cell with vesicles, close to each other, where there is room."""
    radius = canvas.uniform(15, 27)
    gate = canvas.noise(canvas.uniform(200, 500)) > canvas.uniform(-1.5, 0.3)
    inside = (canvas.owner == cell) & (canvas.room > 0) & gate
    canvas.image[inside] -= np.float32(max(0.0, canvas.uniform(-0.08, 0.15)))
    voxels = np.argwhere(inside & (canvas.room > 4))
    if not len(voxels):
        return
    centres = _scattered(canvas, voxels, radius * canvas.uniform(2.0, 4.0))
    at = tuple((centres / canvas.voxel_size).astype(int).T)
    centres = centres[inside[at] & (canvas.room[at] > radius + 4)]
    if not len(centres):
        return
    distance = np.full(canvas.shape, np.float32(50))
    away, _ = cKDTree(centres).query((voxels + 0.5) * canvas.voxel_size, distance_upper_bound=3 * radius)
    distance[tuple(voxels.T)] = np.minimum(away - radius, 50)
    core, rim, _, _ = style.look(canvas.rng, VESICLE)
    opaque = np.float32(canvas.uniform(0.5, 1))
    canvas.paint(canvas.whole(), core, opaque * canvas.fill(distance))
    canvas.paint(canvas.whole(), rim, opaque * canvas.sheet(distance, style.membrane_half * 0.9))
    taken = (distance < style.membrane_half) & (canvas.labels == CYTOSOL)
    canvas.labels[taken] = VESICLE
    canvas.room[taken] = 0


def _scattered(canvas: Canvas, voxels: NDArray[np.int64], spacing: float) -> Point:
    """Return places (n, 3) in nm among voxels, about one in each cube of an edge of ``spacing`` nm."""
    low, high = voxels.min(axis=0) * canvas.voxel_size, (voxels.max(axis=0) + 1) * canvas.voxel_size
    edges = [np.arange(a, b, spacing) for a, b in zip(low, high, strict=True)]
    cubes = np.stack(np.meshgrid(*edges), axis=-1).reshape(-1, 3)
    cubes = cubes[canvas.rng.random(len(cubes)) < canvas.uniform(0.5, 1)]
    places = cubes + spacing * canvas.rng.uniform(0, 0.8, cubes.shape)
    found: Point = places[(places < canvas.extent).all(axis=1)]
    return found


def lysosome(canvas: Canvas, style: Style) -> None:
    """Paint a dark, lumpy body, sometimes with whorls or vesicles inside."""
    radius = canvas.uniform(100, 420)
    found = canvas.place(0.8 * radius)
    if found is None:
        return
    place, _ = found
    part = canvas.around(place - radius * 1.5, place + radius * 1.5)
    assert part is not None
    distance = np.sqrt(canvas.square(place, part)) - np.float32(radius)
    distance = distance + np.float32(0.12 * radius) * canvas.noise(0.9 * radius, part)
    distance = np.maximum(distance, np.float32(15) - canvas.room[part])
    grey = np.float32(canvas.uniform(0.1, 0.5)) + np.float32(canvas.uniform(0.02, 0.2)) * canvas.noise(
        canvas.uniform(30, 120), part
    )
    if canvas.chance(0.35):
        grey = grey + np.float32(canvas.uniform(0.05, 0.2)) * np.sin(
            distance * np.float32(2 * math.pi / canvas.uniform(25, 60))
        )
    if canvas.chance(0.3):
        grey = np.where(canvas.noise(90, part) > 1.0, np.float32(style.lumen), grey)
    canvas.paint(part, grey, canvas.fill(distance))
    canvas.paint(part, style.membrane, canvas.sheet(distance, style.membrane_half))
    distance -= np.float32(style.membrane_half)
    canvas.labels[part][distance < 0] = GRANULE
    np.minimum(canvas.room[part], distance, out=canvas.room[part])
