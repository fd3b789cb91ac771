"""Meshes to files: one GLB with all of them, or a folder with a PLY or OBJ file for each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vemseg.files import atomic_path
from vemseg.foreign import library
from vemseg.surfaces.mesh import NEEDED, Mesh

MESH_FORMATS = ("glb", "ply", "obj")
"""The formats of meshes, by their endings."""


def mesh_names(stem: str, form: str) -> str:
    """Return the name of the file, or of the folder, that meshes of a volume go to."""
    return f"{stem}_meshes.glb" if form == "glb" else f"{stem}_meshes_{form}"


def write_meshes(meshes: Sequence[Mesh], form: str, target: Path) -> None:
    """Write meshes; coordinates are x, y, z in nm.

    Parameters
    ----------
    meshes : sequence of Mesh
    form : {"glb", "ply", "obj"}
        GLB holds all meshes by name, each in its colour; in the other formats each has a file of its own,
        named after its label, and its colour at the vertices.
    target : Path
        What ``mesh_names`` gives, where it grows.

    Raises
    ------
    InputError
        Where trimesh is not installed.
    ResourceError
        Where it cannot be written.
    """
    trimesh = library("trimesh", NEEDED, "meshes")
    if form == "glb":
        scene = trimesh.Scene()
        for mesh in meshes:
            name = f"{mesh.label} {mesh.name}"
            scene.add_geometry(_shaded(trimesh, mesh), node_name=name, geom_name=name)
        with atomic_path(target) as growing:
            growing.write_bytes(scene.export(file_type="glb"))
        return
    target.mkdir(parents=True, exist_ok=True)
    for i, mesh in enumerate(meshes):
        colours = np.tile(np.array((*mesh.colour, 255), np.uint8), (len(mesh.vertices), 1))
        found = trimesh.Trimesh(mesh.xyz, mesh.faces, process=False, vertex_colors=colours)
        name = re.sub(r"[^\w.-]+", "_", mesh.name).strip("._") or "mesh"
        with atomic_path(target / f"{i + 1:04d}_{name}.{form}") as growing:
            found.export(str(growing), file_type=form)


def _shaded(trimesh: Any, mesh: Mesh) -> Any:
    """Return a mesh with a material of its colour, as glTF has it."""
    visual = trimesh.visual
    material = visual.material.PBRMaterial(
        name=mesh.name, baseColorFactor=(*mesh.colour, 255), metallicFactor=0.0, roughnessFactor=0.7
    )
    return trimesh.Trimesh(
        mesh.xyz, mesh.faces, process=False, visual=visual.texture.TextureVisuals(material=material)
    )
