"""The parts of a volume that become graphs of their own: whole slices, or tiles of slices."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from vemseg.geometry import ZYX, Box
from vemseg.recipe import RegionsTable
from vemseg.volume import Volume


@dataclass(frozen=True)
class Parts:
    """A grid of parts over a volume; where tiles do not fit, the last ones reach beyond the far border.

    Attributes
    ----------
    whole : (int, int, int)
        Voxels of the volume, its sharp plane (y, x).
    shape : (int, int, int)
        Voxels of a part.
    regions : int
        About how many regions a part is divided into.
    spacing : (float, float, float)
        Edges of a voxel in nm, or in voxels where these are not known.
    """

    whole: ZYX
    shape: ZYX
    regions: int
    spacing: tuple[float, float, float]

    @classmethod
    def of(
        cls, volume: Volume, factors: tuple[float, float, float], table: RegionsTable, whole: bool
    ) -> Parts:
        """Return the parts of a volume.

        Parameters
        ----------
        volume : Volume
            Its sharp plane is (y, x).
        factors : (float, float, float)
            Edge of a working voxel in voxels of the volume.
        table : RegionsTable
        whole : bool
            Whether parts are whole slices, not tiles.
        """
        z, y, x = factors
        plane = volume.shape[1:] if whole else (round(table.tile * y), round(table.tile * x))
        voxels = math.prod(plane) / (y * x) * (1 if table.depth == 1 else table.depth / z)
        shape = (table.depth, *plane)
        return cls(
            volume.shape, shape, max(1, round(voxels / table.size)), volume.voxel_size or (1.0, 1.0, 1.0)
        )

    @property
    def counts(self) -> ZYX:
        """Number of parts along each axis."""
        z, y, x = (-(-n // edge) for n, edge in zip(self.whole, self.shape, strict=True))
        return z, y, x

    def __len__(self) -> int:
        return math.prod(self.counts)

    def box(self, number: int) -> Box:
        """Return a part, counted in the order z, y, x."""
        _, ny, nx = self.counts
        place = (number // (ny * nx), number // nx % ny, number % nx)
        z, y, x = (i * edge for i, edge in zip(place, self.shape, strict=True))
        return Box((z, y, x), (z + self.shape[0], y + self.shape[1], x + self.shape[2]))

    def around(self, box: Box) -> Box:
        """Return the box of all parts that a box touches."""
        z, y, x = (start // edge * edge for start, edge in zip(box.start, self.shape, strict=True))
        d, h, w = (-(-stop // edge) * edge for stop, edge in zip(box.stop, self.shape, strict=True))
        return Box((z, y, x), (d, h, w))

    def touching(self, box: Box) -> list[int]:
        """Return the numbers of the parts that a box touches."""
        _, ny, nx = self.counts
        ranges = (
            range(start // edge, -(-stop // edge))
            for start, stop, edge in zip(box.start, box.stop, self.shape, strict=True)
        )
        return [(z * ny + y) * nx + x for z, y, x in itertools.product(*ranges)]
