"""Labels to meshes: marching cubes, smoothed without loss of volume, and made of fewer triangles.

The surface of a label is found by marching cubes (Lewiner et al. 2003, as scikit-image has them) at the
border between its voxels and all others, and closed where the volume ends. Its steps, which are those of
voxels, are smoothed by Taubin's filter (SIGGRAPH 1995), which does not shrink it. Triangles are merged where
that moves the surface least (quadric errors, Garland and Heckbert 1997).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array

from vemseg.context import Context
from vemseg.drawing import palette
from vemseg.drawing.colours import MOST_COLOURS, RGB
from vemseg.errors import InputError, Interrupted, ResourceError, UsageError
from vemseg.foreign import library
from vemseg.geometry import Position
from vemseg.resources import byte_text, resident_memory
from vemseg.surfaces.mesh import Mesh
from vemseg.volume import Coarser, Volume, shrunk

_log = logging.getLogger("vemseg")

VOXEL_BYTES = 360
"""Bytes that a voxel takes where classes are walls a few voxels thick; most of it is triangles."""

MOST_VOXELS = 2**27
"""The most voxels that surfaces are made from: 512 along each edge."""

MOST_MESHES = 10_000
"""The most meshes that are made at once."""

ROUNDS, FORWARD, BACK = 24, 0.5, 0.53
"""How many steps smooth a surface, and how far they go forward and back in turn (Taubin's lambda and -mu).

The number is even: each step forward shrinks a body, and the step back that follows undoes it.
"""

Placing = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A function of points in voxels, (n, 3), z y x, which returns where these lie, (n, 3), z y x."""

Each = Literal["class", "object"]
"""What gets a mesh of its own: all voxels of a label, or every connected part of them."""


@dataclass(frozen=True)
class Meshing:
    """Which meshes are wanted.

    Attributes
    ----------
    each : {"class", "object"}
        What gets a mesh of its own. Parts that touch by a face, an edge or a corner are one object.
    faces : int
        The most triangles of a mesh; 0 keeps all.
    names : mapping of int to str
        Names of labels.
    colours : mapping of int to (int, int, int)
        Colours of labels that take the place of those of the palette.
    labels : tuple of int
        Only these labels; empty for all.

    Raises
    ------
    UsageError
        Where ``faces`` is below 0, or so small that no surface can be closed.
    """

    each: Each = "class"
    faces: int = 200_000
    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, RGB] = field(default_factory=dict)
    labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.faces < 0 or 0 < self.faces < 4:
            raise UsageError(f"--faces {self.faces}: a closed surface has at least 4 triangles; 0 keeps all")

    def name(self, label: int) -> str:
        """Return what a label is called."""
        return self.names.get(label, f"class {label}")

    def colour(self, label: int) -> RGB:
        """Return the colour of a label; beyond the palette colours come again."""
        return self.colours.get(label, palette(MOST_COLOURS)[(label - 1) % MOST_COLOURS])


def most_voxels(limit: int) -> int:
    """Return how many voxels surfaces may be made from within a limit of memory, in bytes.

    Raises
    ------
    ResourceError
        Where the memory is not enough for a volume of 32 x 32 x 32.
    """
    most = (limit - resident_memory()) // VOXEL_BYTES
    if most < 32**3:
        need = byte_text(resident_memory() + VOXEL_BYTES * 32**3)
        raise ResourceError(f"{byte_text(limit)} of memory is not enough for surfaces: they take {need}")
    return min(most, MOST_VOXELS)


def surfaces(labels: Volume, wish: Meshing, context: Context) -> Iterator[Mesh]:
    """Return the surface of each label, or of each object, at the finest level that fits into memory.

    Parameters
    ----------
    labels : Volume
        Integers; 0 and below are nothing.
    wish : Meshing
    context : Context

    Yields
    ------
    Mesh
        By label; the objects of a class in the order of their first voxels.

    Raises
    ------
    InputError
        Where there is no label, there are more than ``MOST_MESHES`` meshes, or a library is missing.
    Interrupted
        Where the work was stopped.
    """
    seen = shrunk(labels, most_voxels(context.limit))
    if seen.shape != labels.shape:
        _log.info(
            "%s: surfaces are made from %s of its %s voxels; --max-memory or --crop make them finer",
            labels.name, seen.shape, labels.shape,
        )  # fmt: skip
    lie = _lying(seen, labels)
    voxels = np.maximum(seen.read(seen.box), 0)
    if wish.labels:
        voxels[~np.isin(voxels, wish.labels)] = 0
    parts, owners = _parts(voxels, wish.each)
    if len(owners) > MOST_MESHES:
        raise InputError(f"{labels.name}: {len(owners)} meshes are more than {MOST_MESHES}: give a --crop")
    if not owners:
        raise InputError(f"{labels.address}: no voxel has a label that is wanted, so there is no surface")
    boxes = ndimage.find_objects(parts)
    for i, (box, label) in enumerate(zip(boxes, owners, strict=True)):
        if context.stopped():
            raise Interrupted("stopped while surfaces were made: the same command starts again")
        vertices, faces = _surface(parts[box] == i + 1)
        vertices = lie(vertices + [each.start for each in box])
        yield Mesh(label, _called(wish, label, i, owners), wish.colour(label), *_fewer(vertices, faces, wish))
        context.report("surfaces", (i + 1) / len(owners), f"{i + 1}/{len(owners)}")


def extent_of(labels: Volume) -> tuple[Position, Position]:
    """Return the first and the last corner of a volume, z y x, as the meshes of its labels have them."""
    corners = np.stack([np.full(3, -0.5), np.array(labels.shape) - 0.5])
    (z0, y0, x0), (z1, y1, x1) = _placed(labels)(corners).tolist()
    return (z0, y0, x0), (z1, y1, x1)


def _called(wish: Meshing, label: int, number: int, owners: list[int]) -> str:
    """Return the name of a mesh: that of its class, and which of its objects it is."""
    name = wish.name(label)
    return name if wish.each == "class" else f"{name} {number + 1 - owners.index(label)}"


def _placed(volume: Volume) -> Placing:
    """Return the function from voxels to nm in space; to voxels of the whole file where no size is known."""
    edges, begin = np.array(volume.voxel_size or (1.0, 1.0, 1.0)), np.array(volume.corner, np.float64)
    return lambda points: points * edges + begin


def _lying(seen: Volume, labels: Volume) -> Placing:
    """Return the function from voxels of a level of labels to where ``labels`` lie (see ``_placed``).

    A level that the file holds says where it lies itself, if the voxel size is that of the file; else it
    spans what the labels span, because how many voxels became one is not known.
    """
    if isinstance(seen, Coarser):
        finer, factors = _lying(seen.source, labels), np.array(seen.factors)
        return lambda points: finer((points + 0.5) * factors - 0.5)
    if seen is labels or seen.voxel_size_from == labels.voxel_size_from == "file":
        return _placed(seen)
    place, steps = _placed(labels), np.array(labels.shape) / seen.shape
    return lambda points: place((points + 0.5) * steps - 0.5)


def _parts(labels: NDArray[np.generic], each: Each) -> tuple[NDArray[np.int32], list[int]]:
    """Return what gets a mesh of its own, numbered from 1 without gaps, and the label of each."""
    if each == "class":
        found = np.unique(np.concatenate([np.unique(plane) for plane in labels]))
        found = found[found > 0]
        parts = np.zeros(labels.shape, np.int32)
        for plane, out in zip(labels, parts, strict=True):  # one after the other, to save memory
            out[plane > 0] = np.searchsorted(found, plane[plane > 0]) + 1
        return parts, found.tolist()
    from skimage.measure import label

    parts = label(labels, background=0, connectivity=3)
    owner = np.zeros(int(parts.max()) + 1, np.int64)
    owner[parts.reshape(-1)] = labels.reshape(-1)
    order = np.argsort(owner[1:], kind="stable")
    rank = np.zeros(len(owner), np.int32)
    rank[1 + order] = np.arange(1, len(owner))
    return rank[parts], owner[1:][order].tolist()


def _surface(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the closed surface of a mask: vertices in voxels, z y x, and triangles."""
    from skimage.measure import marching_cubes

    wide = np.pad(mask, 1).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(wide, 0.5, allow_degenerate=False)
    return _smoothed(vertices.astype(np.float64) - 1.0, faces), faces.astype(np.int64)


def _smoothed(vertices: NDArray[np.float64], faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return vertices moved to and fro by Taubin's filter, each towards the mean of its neighbours.

    Two triangles meet at each edge of a closed surface and go along it in opposite directions, so their
    edges are all pairs of neighbours.
    """
    n, ends = len(vertices), np.roll(faces, -1, axis=1)
    pairs = faces.reshape(-1), ends.reshape(-1)
    beside = coo_array((np.ones(faces.size, np.float32), pairs), shape=(n, n)).tocsr()
    share = 1 / np.maximum(beside.sum(axis=1), 1)[:, None]
    for round_ in range(ROUNDS):
        step = FORWARD if round_ % 2 == 0 else -BACK
        vertices = vertices + step * (share * (beside @ vertices) - vertices)
    return vertices


def _fewer(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], wish: Meshing
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return a surface with no more triangles than wished."""
    if not 0 < wish.faces < len(faces):
        return vertices, faces
    simplify = library("fast_simplification", "meshes need fast-simplification to be made smaller", "meshes")
    middle = vertices.mean(axis=0)  # the library computes in float32, which large coordinates do not suit
    share = math.nextafter(1 - wish.faces / len(faces), 1.0)
    points, triangles = simplify.simplify(
        (vertices - middle).astype(np.float32), faces.astype(np.int32), target_reduction=share
    )
    return points.astype(np.float64) + middle, triangles.astype(np.int64)
