"""The surfaces of labels: as meshes in files that other programs open, and as pictures in space.

    mesh       a closed surface, its volume and its area
    meshing    labels -> a mesh for each class, or for each object
    writing    meshes -> GLB, PLY or OBJ
    solid      meshes -> pictures in space, without a display

Vertices lie in nm, z y x, where the volume lies in space; in voxels where their size is unknown. Files have
the order x, y, z. trimesh writes, fast-simplification makes meshes smaller, pyvista draws; all
three are imported when they are needed.
"""

from vemseg.surfaces.mesh import Mesh
from vemseg.surfaces.meshing import Meshing, extent_of, most_voxels, surfaces
from vemseg.surfaces.solid import check_drawing, draw_solid, draw_turning
from vemseg.surfaces.writing import MESH_FORMATS, mesh_names, write_meshes

__all__ = [
    "MESH_FORMATS",
    "Mesh",
    "Meshing",
    "check_drawing",
    "draw_solid",
    "draw_turning",
    "extent_of",
    "mesh_names",
    "most_voxels",
    "surfaces",
    "write_meshes",
]
