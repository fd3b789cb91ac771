"""Where things lie in a phantom: the cell, its nucleus and its organelles, in nm, without voxels.

Laid out once per phantom. Organelles are balls or chains of balls; candidates are drawn at random and kept in
order wherever they touch nothing that was kept before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from vemseg.geometry import ZYX, VoxelSize
from vemseg.phantom.texture import F64, Floats, Waves

CELL_SIZE = 4500.0
"""Volumes shorter than this (nm) are windows into a cell rather than a cell."""

NUCLEUS_FRACTION, OUTSIDE_FRACTION = 0.16, 0.10  # of the volume
MITOCHONDRIA_DENSITY, GRANULE_DENSITY, VESICLE_DENSITY = 0.105, 0.14, 0.006  # of the cytosol
GRANULE_RADII, VESICLE_RADII, TUBE_RADII = (125.0, 175.0), (40.0, 75.0), (95.0, 195.0)  # nm
MARGIN = 300.0  # nm around the volume where organelles are laid out, too
GAP = 25.0  # nm of cytosol between any two organelles
STEP = 80.0  # nm between the nodes of a mitochondrion

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Solid:
    """A dented (super)ellipsoid: sum(|p - centre| / radii) ** power < 1, its surface moved by ``dents``."""

    centre: F64
    radii: F64
    power: int
    dents: Waves

    def distance(self, axes: tuple[F64, F64, F64], dents: Floats) -> Floats:
        """Return the distance to the surface in nm, negative inside, good to first order near the surface.

        Parameters
        ----------
        axes : (ndarray, ndarray, ndarray)
            z, y and x, float64 in nm, that broadcast together.
        dents : ndarray
            The value of ``dents`` at these points; its dtype is that of the result.
        """
        level, slope = np.zeros_like(dents), np.zeros_like(dents)
        for axis, centre, radius in zip(axes, self.centre, self.radii, strict=True):
            q = (axis - centre) / radius
            level += (q**self.power).astype(dents.dtype)
            slope += ((q ** (self.power - 1) / radius) ** 2).astype(dents.dtype)
        root = np.sqrt(level) if self.power == 2 else np.sqrt(np.sqrt(level))
        lean = root if self.power == 2 else root * root * root
        reach = lean / (np.sqrt(slope) + dents.dtype.type(1e-25))
        np.maximum(reach, dents.dtype.type(self.radii.min() / 2), out=reach)  # 0 / 0 at the centre
        distance: Floats = (root - 1) * reach + dents
        return distance

    def distance_at(self, points: F64) -> F64:
        """Return the distance of points (n, 3) in nm."""
        z, y, x = points.T
        return self.distance((z, y, x), self.dents.at(points)).astype(np.float64, copy=False)


@dataclass(frozen=True)
class Balls:
    """Spherical organelles. ``centre`` (n, 3) and ``radius`` (n,) in nm; ``trait`` (n, 4) in [0, 1)."""

    centre: F64
    radius: F64
    trait: F64

    def __add__(self, other: Balls) -> Balls:
        return Balls(
            np.vstack([self.centre, other.centre]),
            np.append(self.radius, other.radius),
            np.vstack([self.trait, other.trait]),
        )


@dataclass(frozen=True)
class Tubes:
    """Organelles that are bent tubes, as segments.

    ``start`` and ``stop`` (n, 3) and ``radius`` (n, 2) at both ends in nm, ``arc`` (n,) the length of the
    tube before the segment, ``owner`` (n,) the tube, ``trait`` (tubes, 4) in [0, 1).
    """

    start: F64
    stop: F64
    radius: F64
    arc: F64
    owner: Ints
    trait: F64


@dataclass(frozen=True)
class Layout:
    """Everything in a phantom that has a place."""

    cell: Solid
    nucleus: Solid
    nucleoli: Balls
    mitochondria: Tubes
    granules: Balls
    vesicles: Balls


def lay_out(shape: ZYX, seed: int, voxel_size: VoxelSize) -> Layout:
    """Place a cell and its organelles in a volume."""
    rng = np.random.default_rng([seed, 1])
    extent = np.array(shape) * np.array(voxel_size)
    cell, nucleus = _cell_and_nucleus(rng, extent)

    def clearance(points: F64) -> F64:
        return np.minimum(nucleus.distance_at(points), -cell.distance_at(points))

    room = _Room(rng, extent, clearance)
    first = _balls(room, 1, GRANULE_RADII)  # else mitochondria could leave a small volume no place for any
    mitochondria = _mitochondria(room)
    granules = _balls(room, room.volume * GRANULE_DENSITY / _ball_volume(GRANULE_RADII), GRANULE_RADII)
    vesicles = _balls(room, room.volume * VESICLE_DENSITY / _ball_volume(VESICLE_RADII), VESICLE_RADII)
    return Layout(cell, nucleus, _nucleoli(rng, extent, nucleus), mitochondria, first + granules, vesicles)


class _Room:
    """The cytosol as organelles see it, and what is already taken.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws all candidates.
    extent : ndarray
        Edges of the volume in nm.
    clearance : callable
        Distance in nm of points (n, 3) to the nearest border of the cytosol.
    """

    def __init__(self, rng: np.random.Generator, extent: F64, clearance: Callable[[F64], F64]) -> None:
        self.rng, self.extent, self.clearance = rng, extent, clearance
        self._centre, self._radius = np.empty((0, 3)), np.empty(0)
        free = clearance(self.points(4096)) > 0
        self.volume = float(free.mean() * np.prod(extent + 2 * MARGIN))
        """Volume of the cytosol in nm³, margin included."""

    def points(self, count: int, inside: int = 0) -> F64:
        """Draw points in the volume and its margin, the first ``inside`` of them in the volume itself."""
        points = self.rng.uniform(-MARGIN, self.extent + MARGIN, (count, 3))
        points[:inside] = self.rng.uniform(0, 1, (inside, 3)) * self.extent
        return points

    def admit(self, centre: F64, radius: F64, owner: Ints, room: float, size: F64) -> Mask:
        """Take in objects made of balls, in order, that touch nothing, until they fill their share.

        Parameters
        ----------
        centre, radius, owner : ndarray
            Balls (n, 3) and (n,) in nm, and the object (n,) each belongs to.
        room : float
            No further object is taken in once the ``size`` (objects,) of those taken in adds up to this.

        Returns
        -------
        ndarray of bool
            Which objects were taken in, as long as ``size``.
        """
        before = len(self._radius)
        kept = keep_apart(
            np.vstack([self._centre, centre]),
            np.append(self._radius, radius),
            np.append(np.arange(before), owner + before),
            before + len(size),
            before,
        )[before:]
        filled = np.cumsum(np.where(kept, size, 0))
        kept &= filled - size < room
        self._centre = np.vstack([self._centre, centre[kept[owner]]])
        self._radius = np.append(self._radius, radius[kept[owner]])
        return kept


def _cell_and_nucleus(rng: np.random.Generator, extent: F64) -> tuple[Solid, Solid]:
    """Scale both so that they fill their share of the volume, whatever window of a cell it is."""
    whole = np.maximum(extent, CELL_SIZE)
    lean = rng.choice([-1.0, 1.0], 3) * (0.05 * whole + 0.4 * (whole - extent) * extent / extent.max())
    dent = min(140.0, 0.03 * extent.max())
    lengths = (0.35 * whole.max(), 0.9 * whole.max())
    solids = []
    for fraction, power, offset, stretch in (
        (1 - OUTSIDE_FRACTION, 4, 0.5 * lean, 0.08),
        (NUCLEUS_FRACTION, 2, lean, 0.15),
    ):
        centre, radii = extent / 2 + offset, whole * rng.uniform(1 - stretch, 1 + stretch, 3)
        points = rng.uniform(0, 1, (8192, 3)) * extent
        level = (np.abs((points - centre) / radii) ** power).sum(axis=1) ** (1 / power)
        scale = np.quantile(level, fraction)
        solids.append(Solid(centre, radii * scale, power, Waves(rng, lengths, dent)))
    return solids[0], solids[1]


def _nucleoli(rng: np.random.Generator, extent: F64, nucleus: Solid) -> Balls:
    """Place up to two nucleoli deep in the nucleus; none where the volume shows only its rim."""
    centre = rng.uniform(0, 1, (2048, 3)) * extent
    radius = np.minimum(-0.42 * nucleus.distance_at(centre), 650.0) * rng.uniform(0.6, 1.0, len(centre))
    order = np.argsort(-radius, kind="stable")[: np.count_nonzero(radius > 180.0)]
    centre, radius = centre[order], radius[order]
    kept = np.flatnonzero(keep_apart(centre, radius, np.arange(len(order)), len(order)))[:2]
    return Balls(centre[kept], radius[kept], rng.random((len(kept), 4)))


def _balls(room: _Room, count: float, radii: tuple[float, float]) -> Balls:
    """Scatter about so many balls in what is left of the cytosol."""
    centre = room.points(round(12 * count) + 400, inside=200)
    radius = room.rng.uniform(*radii, len(centre))
    free = room.clearance(centre) > radius + GAP
    centre, radius = centre[free], radius[free]
    kept = room.admit(centre, radius, np.arange(len(centre)), count, np.ones(len(centre)))
    return Balls(centre[kept], radius[kept], room.rng.random((int(kept.sum()), 4)))


def _ball_volume(radii: tuple[float, float]) -> float:
    return float(4 / 3 * np.pi * np.mean(radii) ** 3)


def _mitochondria(room: _Room) -> Tubes:
    """Grow bent tubes through the cytosol, each up to where it would leave it."""
    rng, longest = room.rng, 36
    share = MITOCHONDRIA_DENSITY * room.volume
    count = round(5 * share / (np.pi * np.mean(TUBE_RADII) ** 2 * STEP * longest / 2)) + 400
    radius = rng.uniform(*TUBE_RADII, count)
    nodes = _walk(room, room.points(count, inside=300), radius, longest)
    width = radius[:, None] * (1 + 0.1 * np.sin(np.arange(longest) * rng.uniform(0.3, 0.8, (count, 1))))

    free = room.clearance(nodes.reshape(-1, 3)).reshape(width.shape) > width + GAP
    free &= np.arange(longest) < rng.integers(6, longest, (count, 1))
    free = np.logical_and.accumulate(free, axis=1)
    free &= (free.sum(axis=1) >= 3)[:, None]
    volume = np.pi * radius**2 * STEP * free.sum(axis=1)
    free &= room.admit(nodes[free], width[free], np.nonzero(free)[0], share, volume)[:, None]

    tube, step = np.nonzero(free[:, 1:] & free[:, :-1])
    return Tubes(
        start=nodes[tube, step],
        stop=nodes[tube, step + 1],
        radius=np.stack([width[tube, step], width[tube, step + 1]], axis=1),
        arc=(step * STEP).astype(np.float64),
        owner=tube,
        trait=rng.random((count, 4)),
    )


def _walk(room: _Room, start: F64, radius: F64, steps: int) -> F64:
    """Return paths (n, steps, 3) of steady curvature that bend away from the borders of the cytosol."""
    rng, count = room.rng, len(start)
    heading = rng.standard_normal((count, 3))
    bend = 0.07 * rng.standard_normal((count, 3))
    path = [start]
    for _ in range(steps - 1):
        here = path[-1]
        clear = room.clearance(here)
        ahead = [room.clearance(here + shift) - clear for shift in 20.0 * np.eye(3)]
        push = np.clip((radius + 250.0 - clear) / 250.0, 0, 1)
        heading = heading + bend + 0.12 * rng.standard_normal((count, 3))
        heading += push[:, None] * np.stack(ahead, axis=1) / 20.0
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        path.append(here + STEP * heading)
    return np.stack(path, axis=1)


def keep_apart(centre: F64, radius: F64, owner: Ints, objects: int, placed: int = 0) -> Mask:
    """Keep objects, in order, that leave ``GAP`` to every object kept before.

    Parameters
    ----------
    centre, radius, owner : ndarray
        Balls (n, 3) and (n,) in nm, and the object (n,) each belongs to.
    objects : int
        Number of objects; one without balls is not kept.
    placed : int, optional
        The first objects, kept unseen.

    Returns
    -------
    ndarray of bool
        One per object.
    """
    kept = np.zeros(objects, bool)
    kept[owner] = True
    a, b = cKDTree(centre).query_pairs(2 * radius.max(initial=0) + GAP, output_type="ndarray").T
    between = np.sqrt(((centre[a] - centre[b]) ** 2).sum(axis=1))
    close = (between < radius[a] + radius[b] + GAP) & (owner[a] != owner[b])
    early, late = np.sort([owner[a][close], owner[b][close]], axis=0)
    order = np.argsort(late, kind="stable")
    early, bounds = early[order], np.searchsorted(late[order], np.arange(objects + 1))
    for item in np.unique(late[late >= placed]).tolist():
        kept[item] = not kept[early[bounds[item] : bounds[item + 1]]].any()
    return kept
