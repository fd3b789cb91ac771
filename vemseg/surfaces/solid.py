"""Meshes as pictures in space, drawn by pyvista without a display.

The picture is a parallel projection, so a scale bar holds everywhere in it. The viewer looks from the first
slice into the volume, a little from above and from the left, and y points down, as it does in slices.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import ResourceError
from vemseg.foreign import library
from vemseg.geometry import Position
from vemseg.surfaces.mesh import Mesh

NEEDED = "pictures in space need pyvista"
"""The beginning of the message where pyvista is not installed."""

SIZE = 1600
"""Pixels of the edge of a picture."""

TURNING_SIZE, FRAMES = 640, 48
"""Pixels of the edge of a turning picture, and how many of them make a turn."""

DIRECTION = (-0.55, -0.45, -1.0)
"""From the middle of the volume to the viewer, x y z."""

MARGIN = 1.02
"""How much more is seen than the sphere around the volume."""

Extent = tuple[Position, Position]
"""The first and the last corner of a volume, z y x, in the unit of the meshes' vertices."""


def check_drawing() -> None:
    """Refuse to begin where nothing can be drawn in space.

    Raises
    ------
    InputError
        Where pyvista is not installed.
    ResourceError
        Where this machine has no OpenGL.
    """
    library("pyvista", NEEDED, "3d")
    _try()


def draw_solid(meshes: Sequence[Mesh], extent: Extent) -> tuple[NDArray[np.uint8], float]:
    """Draw meshes in space, and the edges of their volume.

    Parameters
    ----------
    meshes : sequence of Mesh
    extent : (corner, corner)

    Returns
    -------
    picture : uint8 (h, w, 3)
        On white, cut to what is drawn.
    pixel : float
        The edge of a pixel, in the unit of the vertices.

    """
    with _stage(meshes, extent, SIZE) as plotter:
        picture = _taken(plotter)
        pixel = 2 * float(plotter.camera.parallel_scale) / SIZE
    return _cut(picture), pixel


def draw_turning(meshes: Sequence[Mesh], extent: Extent) -> list[NDArray[np.uint8]]:
    """Draw meshes from all sides, one turn around the axis that points up; see ``draw_solid``.

    Returns
    -------
    list of uint8 (h, w, 3)
        ``FRAMES`` pictures.
    """
    frames = []
    with _stage(meshes, extent, TURNING_SIZE) as plotter:
        for _ in range(FRAMES):
            frames.append(_taken(plotter))
            plotter.camera.azimuth += 360 / FRAMES
    return frames


@contextmanager
def _stage(meshes: Sequence[Mesh], extent: Extent, size: int) -> Iterator[Any]:
    """Yield a plotter with everything on it."""
    pyvista = library("pyvista", NEEDED, "3d")
    logger = library("vtkmodules.vtkCommonCore", NEEDED, "3d").vtkLogger
    logger.SetStderrVerbosity(logger.VERBOSITY_OFF)  # VTK would complain where there is no display
    low, high = (np.array(corner[::-1]) for corner in extent)
    plotter = pyvista.Plotter(off_screen=True, window_size=(size, size), lighting="light kit")
    try:
        plotter.set_background("white")
        for mesh in meshes:
            surface = pyvista.PolyData.from_regular_faces(mesh.xyz, mesh.faces)
            plotter.add_mesh(
                surface, color=[part / 255 for part in mesh.colour], smooth_shading=True, ambient=0.25
            )
        bounds = [edge for pair in zip(low, high, strict=True) for edge in pair]
        plotter.add_mesh(pyvista.Box(bounds).outline(), color="grey", line_width=1.5)
        _look(plotter, (low + high) / 2, float(np.linalg.norm(high - low)) / 2)
        plotter.enable_anti_aliasing("ssaa")
        yield plotter
    finally:
        plotter.close()


def _look(plotter: Any, middle: NDArray[np.float64], radius: float) -> None:
    """Place the viewer."""
    direction = np.array(DIRECTION) / np.linalg.norm(DIRECTION)
    plotter.camera.focal_point = middle
    plotter.camera.position = middle + 4 * radius * direction
    plotter.camera.up = (0.0, -1.0, 0.0)
    plotter.enable_parallel_projection()
    plotter.camera.parallel_scale = MARGIN * radius
    plotter.renderer.reset_camera_clipping_range()


def _taken(plotter: Any) -> NDArray[np.uint8]:
    """Return what the plotter shows."""
    plotter.render()
    return np.array(plotter.screenshot(None, return_img=True), np.uint8)


@cache
def _try() -> None:
    """Draw nothing in a process of its own, since VTK takes a process with it where there is no OpenGL."""
    trial = "import pyvista; pyvista.Plotter(off_screen=True, window_size=(8, 8)).screenshot(None)"
    if subprocess.run([sys.executable, "-c", trial], capture_output=True, check=False).returncode:
        raise ResourceError(
            "this machine cannot draw in space: install OpenGL in software, such as Debian's packages "
            "libegl1 and libgl1-mesa-dri"
        )


def _cut(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture without its white margins, but for a few pixels."""
    drawn = (picture != 255).any(axis=2)
    rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return picture
    more = SIZE // 50
    top, left = max(rows[0] - more, 0), max(columns[0] - more, 0)
    return picture[top : rows[-1] + more + 1, left : columns[-1] + more + 1]
