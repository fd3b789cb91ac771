"""From a layout to grey values and labels, one block at a time.

Grey values are those of FIB-SEM, stained structures dark. Every profile is a polynomial of a distance in nm,
so membranes are antialiased at any voxel size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.phantom.layout import Balls, Ints, Layout, lay_out
from vemseg.phantom.texture import F32, F64, Floats, Texture, Waves, spread, white_noise

OUTSIDE, CYTOSOL, NUCLEUS, MITOCHONDRION, GRANULE, VESICLE, MEMBRANE = range(7)

CONTRAST = 1.15  # of the detector: stretches the grey values of the painters around 150
SHOT = 0.42  # standard deviation of the noise over the square root of the grey value

_ACROSS = (  # unit vectors across which cristae alternate, one per tube in turn
    (0.0, 0.6, 0.8),
    (0.8, 0.0, 0.6),
    (0.6, 0.8, 0.0),
    (0.0, -0.8, 0.6),
)


def line(distance: Floats, width: float) -> Floats:
    """Return the profile of a membrane: 1 at distance 0, falling to 0 at ``width`` nm."""
    t = distance * np.float32(1 / width)
    t *= t
    np.subtract(1, t, out=t)
    np.maximum(t, 0, out=t)
    t *= t
    return t


def ramp(value: Floats, start: float, stop: float) -> Floats:
    """Return a smooth step from 0 at ``start`` to 1 at ``stop`` (which may be the smaller one)."""
    t = (value - np.float32(start)) * np.float32(1 / (stop - start))
    np.clip(t, 0, 1, out=t)
    step: Floats = t * t * (3 - 2 * t)
    return step


class Scene:
    """A layout with its textures on the grid of a volume.

    Parameters
    ----------
    shape : (int, int, int)
        Volume in voxels.
    seed : int
        Same seed, same phantom.
    voxel_size : (float, float, float)
        Voxel edges in nm.
    """

    def __init__(self, shape: ZYX, seed: int, voxel_size: VoxelSize) -> None:
        rng = np.random.default_rng([seed, 2])
        self.seed = seed
        self.voxel_size = voxel_size
        self.layout: Layout = lay_out(shape, seed, voxel_size)
        z, y, x = ((np.arange(n, dtype=np.float64) + 0.5) * d for n, d in zip(shape, voxel_size, strict=True))
        self.axes = z, y, x
        self.cell_dents = self.layout.cell.dents.on(self.axes)
        self.nucleus_dents = self.layout.nucleus.dents.on(self.axes)
        self.fold = Waves(rng, (900.0, 2200.0), 110.0).on(self.axes)
        self.patch = Waves(rng, (700.0, 2000.0), 1.0).on(self.axes)
        size = max(max(axis[-1] for axis in self.axes), 2000.0)
        self.drift = Waves(rng, (0.6 * size, 2.0 * size), 4.0, count=4).on(self.axes)
        self.grain, self.clump, self.cloud = (
            Texture(8 * seed + which, spacing, voxel_size)
            for which, spacing in enumerate((20.0, 62.0, 180.0), start=1)
        )
        self.curtain = Texture(8 * seed + 4, (6 * voxel_size[0], 1.0, 2 * voxel_size[2]), voxel_size)
        self.flicker: F32 = rng.normal(0, 0.9, shape[0]).astype(np.float32)


class Canvas:
    """One block being painted: grey values in float, labels, and the fields that several painters share."""

    def __init__(self, scene: Scene, box: Box) -> None:
        self.scene, self.box = scene, box
        z, y, x = (axis[s] for axis, s in zip(scene.axes, box.slices, strict=True))
        self.axes: tuple[F64, F64, F64] = z, y, x
        self.grey: F32 = np.empty(box.shape, np.float32)
        self.labels: NDArray[np.uint8] = np.full(box.shape, CYTOSOL, np.uint8)
        self.grain = scene.grain.read(box)
        self.clump = scene.clump.read(box)
        self.cloud = scene.cloud.read(box)
        self.fold = scene.fold.read(box)

    @property
    def whole(self) -> Box:
        """The block in its own coordinates."""
        return Box.whole(self.box.shape)

    @cached_property
    def to_cell(self) -> F32:
        """Distance in nm to the plasma membrane, negative inside."""
        layout = self.scene.layout
        outer = layout.cell.distance(spread(*self.axes), self.scene.cell_dents.read(self.box))
        around_nucleus = self.to_nucleus - np.float32(200)
        np.minimum(outer, around_nucleus, out=around_nucleus)
        return around_nucleus

    @cached_property
    def to_nucleus(self) -> F32:
        """Distance in nm to the nuclear envelope, negative inside."""
        dents = self.scene.nucleus_dents.read(self.box)
        return self.scene.layout.nucleus.distance(spread(*self.axes), dents)

    def around(self, low: F64, high: F64) -> Box:
        """Return the part of the block, in its own coordinates, whose voxel centres lie between (nm)."""
        size = np.array(self.scene.voxel_size)
        start = np.ceil(low / size - 0.5).astype(int)
        stop = np.maximum(np.floor(high / size - 0.5).astype(int) + 1, start)
        z, y, x = start.tolist()
        return Box((z, y, x), tuple(stop.tolist())).clip(self.box).relative_to(self.box)

    def offsets(self, part: Box, origin: F64) -> tuple[F32, F32, F32]:
        """Return z, y and x in nm relative to a point, shaped to broadcast to the part."""
        z, y, x = (
            (axis[s] - c).astype(np.float32)
            for axis, s, c in zip(self.axes, part.slices, origin, strict=True)
        )
        return spread(z, y, x)

    def cover(self, part: Box, opacity: Floats, fill: Floats, inside: NDArray[np.bool_], label: int) -> None:
        """Lay ``fill`` over a part of the block, and ``label`` where ``inside``."""
        grey = self.grey[part.slices]
        grey += opacity * (fill - grey)
        self.labels[part.slices][inside] = label

    def hits(self, low: F64, high: F64) -> Ints:
        """Return which of the boxes low..high (n, 3) in nm may hold voxels of the block."""
        first, last = (np.array([axis[i] for axis in self.axes]) for i in (0, -1))
        return np.flatnonzero(((high >= first) & (low <= last)).all(axis=1))


def paint(scene: Scene, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return grey values and labels of a box inside the volume."""
    canvas = Canvas(scene, box)
    _paint_cytosol(canvas)
    _paint_vesicles(canvas)
    _paint_granules(canvas)
    _paint_mitochondria(canvas)
    _paint_nucleus(canvas)
    _paint_outside(canvas)
    return _expose(canvas), canvas.labels


def _paint_cytosol(canvas: Canvas) -> None:
    """Ribosomes, in denser and thinner places, and rough endoplasmic reticulum: sheets along the nucleus."""
    grain, clump, cloud = canvas.grain, canvas.clump, canvas.cloud
    ribosomes = np.maximum(grain - 0.1, -0.3) * ramp(clump, -2.2, 1.2)
    canvas.grey[...] = 158 - 26 * ribosomes + 4 * clump + 6 * cloud

    spacing = 210.0
    phase = (canvas.to_nucleus + canvas.fold + 14 * cloud) * np.float32(1 / spacing)
    sheet = np.abs(phase - np.floor(phase) - np.float32(0.5)) * np.float32(spacing)
    present = ramp(canvas.scene.patch.read(canvas.box) + 0.3 * cloud, 0.35, 0.6)
    sheet += 25 * (1 - present)  # sheets taper where they end
    lumen = ramp(sheet, 24.0, 12.0)
    studs = ribosomes * ramp(sheet, 70.0, 40.0)
    canvas.grey += present * (8 * lumen - 58 * line(sheet - 27, 17.0) - 12 * studs)


def _paint_vesicles(canvas: Canvas) -> None:
    """Paint clear vesicles: a membrane around a bright lumen."""
    balls = canvas.scene.layout.vesicles
    for which, part, distance in _near(canvas, balls, 15.0):
        depth = np.float32(balls.radius[which]) - distance
        tone = float(balls.trait[which, 0])
        fill = (165 + 12 * tone) - 4 * canvas.grain[part.slices] - 75 * line(depth - 4, 17.0)
        canvas.cover(part, ramp(depth, -10.0, 6.0), fill, depth > 0, VESICLE)


def _paint_granules(canvas: Canvas) -> None:
    """Paint dense cores, off centre, in a bright halo; one in five is young: grey, almost without a halo."""
    balls = canvas.scene.layout.granules
    for which, part, distance in _near(canvas, balls, 15.0):
        tone, size, age, side = balls.trait[which].tolist()
        young = age < 0.2
        grain, clump = canvas.grain[part.slices], canvas.clump[part.slices]
        depth = np.float32(balls.radius[which]) - distance
        _, y, x = canvas.offsets(part, balls.centre[which])
        lean = 0.12 * (math.cos(2 * math.pi * side) * y + math.sin(2 * math.pi * side) * x)
        edge = float(balls.radius[which]) * ((0.86 if young else 0.6) + 0.1 * size)
        core = (112 if young else 72) + 38 * tone - 5 * grain + 4 * clump
        fill = (140 if young else 172) + 8 * tone - 5 * grain + 3 * clump
        fill += ramp(distance + lean + 6 * clump, edge + 14, edge - 14) * (core - fill)
        fill -= 55 * line(depth - 6, 18.0)
        canvas.cover(part, ramp(depth, -12.0, 6.0), fill, depth > 0, GRANULE)


def _paint_mitochondria(canvas: Canvas) -> None:
    """Paint a double membrane, a dark matrix, and cristae across the tube, each hung on one of its sides."""
    depth, arc, side, owner = _measure_tubes(canvas)
    at = np.nonzero(depth > -16)
    depth, arc, side, trait = depth[at], arc[at], side[at], canvas.scene.layout.mitochondria.trait[owner[at]]
    grain, clump = canvas.grain[at], canvas.clump[at]
    tone, pitch, phase, bend = trait.astype(np.float32).T
    spacing = 58 + 34 * pitch
    turn = (arc + 14 * clump + (0.8 * bend - 0.4) * side) / spacing + 7 * phase
    nearest = np.rint(turn)
    hung = (nearest.astype(np.int64) % 2 * 2 - 1).astype(np.float32)  # cristae hang on alternate sides
    crista = line((turn - nearest) * spacing, 19.0) * ramp(side * hung + 18 * clump, -60.0, -30.0)
    crista *= ramp(depth, 34.0, 44.0)
    fill = (114 + 36 * tone) - 6 * grain + 4 * clump - 32 * crista
    fill += 22 * line(depth - 20, 13.0) - 50 * line(depth - 5, 15.0) - 36 * line(depth - 34, 14.0)
    grey = canvas.grey[at]
    canvas.grey[at] = grey + ramp(depth, -12.0, 6.0) * (fill - grey)
    canvas.labels[at] = np.where(depth > 0, np.uint8(MITOCHONDRION), canvas.labels[at])


def _measure_tubes(canvas: Canvas) -> tuple[F32, F32, F32, Ints]:
    """Return depth below the surface, length along, offset across (nm) and index of each voxel's tube."""
    tubes = canvas.scene.layout.mitochondria
    shape = canvas.box.shape
    depth, arc, side = (
        np.full(shape, -1e6, np.float32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
    )
    owner = np.zeros(shape, np.int64)
    reach = tubes.radius.max(axis=1, initial=0)[:, None] + 20
    low, high = np.minimum(tubes.start, tubes.stop) - reach, np.maximum(tubes.start, tubes.stop) + reach
    for which in canvas.hits(low, high).tolist():
        part = canvas.around(low[which], high[which])
        z, y, x = canvas.offsets(part, tubes.start[which])
        dz, dy, dx = (tubes.stop[which] - tubes.start[which]).tolist()
        ez, ey, ex = _ACROSS[tubes.owner[which] % len(_ACROSS)]
        first, last = tubes.radius[which].tolist()
        length = math.hypot(dz, dy, dx)
        t = z * (dz / length**2) + y * (dy / length**2) + x * (dx / length**2)
        np.clip(t, 0, 1, out=t)
        pz, py, px = z - t * dz, y - t * dy, x - t * dx
        here = first + t * (last - first) - np.sqrt(pz * pz + py * py + px * px)
        closer = here > depth[part.slices]
        depth[part.slices][closer] = here[closer]
        arc[part.slices][closer] = float(tubes.arc[which]) + length * t[closer]
        side[part.slices][closer] = (pz * ez + py * ey + px * ex)[closer]
        owner[part.slices][closer] = tubes.owner[which]
    return depth, arc, side, owner


def _paint_nucleus(canvas: Canvas) -> None:
    """Paint chromatin at two scales, denser below the envelope; nucleoli; two membranes with pores."""
    distance = canvas.to_nucleus
    if distance.min() > 40:
        return
    grain, clump, cloud = canvas.grain, canvas.clump, canvas.cloud
    dense = ramp(0.8 * cloud + 0.75 * clump, -0.1, 1.3)
    rim = ramp(distance, -150.0, -60.0) * ramp(clump + cloud, -1.2, 0.1)
    np.maximum(dense, rim, out=dense)
    fill = 157 - 8 * np.maximum(grain, -0.8) - 5 * clump - dense * (38 + 3 * grain)
    nucleoli = canvas.scene.layout.nucleoli
    for which, part, apart in _near(canvas, nucleoli, 260.0):
        depth = np.float32(nucleoli.radius[which]) - apart + 45 * cloud[part.slices] + 15 * clump[part.slices]
        body = 104 - 12 * clump[part.slices] - 7 * grain[part.slices] + 6 * cloud[part.slices]
        fill[part.slices] += ramp(depth, -10.0, 10.0) * (body - fill[part.slices])
    between = line(distance, 22.0)
    closed = ramp(clump, 1.3, 0.9)
    fill += closed * (12 * between - 52 * (line(distance - 17, 15.0) + line(distance + 17, 15.0)))
    canvas.cover(canvas.whole, ramp(distance, 32.0, 20.0), fill, distance < 24, NUCLEUS)


def _paint_outside(canvas: Canvas) -> None:
    """Paint the plasma membrane, bright resin in a gap of varying width, and the rim of a neighbour cell."""
    distance = canvas.to_cell
    if distance.max() < -40:
        return
    grain, clump, cloud = canvas.grain, canvas.clump, canvas.cloud
    gap = 28 + 1.6 * np.maximum(canvas.fold - 70, 0) + 4 * clump
    fill = 196 - 4 * grain + 2 * clump
    neighbour = canvas.grey - 9 * np.maximum(cloud, -0.8)
    fill += ramp(distance - gap, 0.0, 16.0) * (neighbour - fill)
    fill -= 72 * line(distance - gap - 12, 20.0)
    canvas.cover(canvas.whole, ramp(distance, -4.0, 10.0), fill, distance > 0, OUTSIDE)
    canvas.grey -= 72 * line(distance, 20.0)
    canvas.labels[np.abs(distance) < 14] = MEMBRANE


def _expose(canvas: Canvas) -> NDArray[np.uint8]:
    """Take the picture: drift, curtains, flicker between slices, shot noise smeared along scan lines."""
    scene, box = canvas.scene, canvas.box
    (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
    grey = canvas.grey
    grey -= 150
    grey *= np.float32(CONTRAST)
    grey += 150
    grey += scene.drift.read(box)
    grey += 1.8 * scene.curtain.read(Box((z0, 0, x0), (z1, 1, x1)))
    grey += scene.flicker[z0:z1, None, None]
    noise = white_noise(Box((z0, y0 - 1, x0 - 1), (z1, y1, x1)), 8 * scene.seed)
    smeared = noise[:, 1:, 1:] + np.float32(0.45) * noise[:, 1:, :-1] + np.float32(0.25) * noise[:, :-1, 1:]
    smeared *= np.sqrt(np.maximum(grey, 20)) * np.float32(SHOT)
    grey += smeared
    np.rint(grey, out=grey)
    return np.clip(grey, 0, 255, out=grey).astype(np.uint8)


def _near(canvas: Canvas, balls: Balls, reach: float) -> Iterator[tuple[int, Box, F32]]:
    """Yield (index, part of the block, distance to the centre) of balls with voxels within ``reach`` nm."""
    low, high = (balls.centre + sign * (balls.radius + reach)[:, None] for sign in (-1, 1))
    for which in canvas.hits(low, high).tolist():
        part = canvas.around(low[which], high[which])
        z, y, x = canvas.offsets(part, balls.centre[which])
        yield which, part, np.sqrt(z * z + y * y + x * x)
