"""A closed surface made of triangles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.drawing.colours import RGB

NM_PER_UM = 1000.0

NEEDED = "meshes need trimesh to be written"
"""The beginning of the message where trimesh is not installed."""


@dataclass(frozen=True)
class Mesh:
    """The surface of a class, or of an object.

    Attributes
    ----------
    label : int
        The number of the class or the object.
    name : str
    colour : (int, int, int)
        RGB 0..255.
    vertices : float64 (n, 3)
        z, y, x, in nm.
    faces : int64 (m, 3)
        Three vertices for each triangle. Seen from outside they turn to the left, where x points to the
        right, y up and z to the viewer.
    """

    label: int
    name: str
    colour: RGB
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]

    @property
    def xyz(self) -> NDArray[np.float64]:
        """The vertices as files have them, x y z."""
        return np.ascontiguousarray(self.vertices[:, ::-1])

    @property
    def volume(self) -> float:
        """The volume inside, in nm³: the sum of the signed tetrahedra between triangles and the middle."""
        a, b, c = self._corners()
        return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)

    @property
    def area(self) -> float:
        """The area of all triangles, in nm²."""
        a, b, c = self._corners()
        return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)

    def told(self, known_size: bool) -> dict[str, object]:
        """Return what the record of pictures says of it; volume and area only where voxels have a size."""
        facts: dict[str, object] = {"label": self.label, "name": self.name, "triangles": len(self.faces)}
        if known_size:
            facts["volume_um3"] = round(self.volume / NM_PER_UM**3, 6)
            facts["surface_um2"] = round(self.area / NM_PER_UM**2, 6)
        return facts

    def _corners(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the first, second and third corner of each triangle, x y z around the middle, (m, 3)."""
        points = self.xyz - (self.xyz.mean(axis=0) if len(self.vertices) else 0.0)
        return points[self.faces[:, 0]], points[self.faces[:, 1]], points[self.faces[:, 2]]
