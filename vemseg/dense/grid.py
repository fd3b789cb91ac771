"""The working grid of a model in a volume, and the lattice its vectors lie on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vemseg.geometry import ZYX, Box, VoxelSize, enlarged, is_anisotropic
from vemseg.tiling import Floats, Lattice, Placement, rescaled
from vemseg.volume import Resampled, Volume, looked_up

SAME_VOXEL_SIZE = 0.1
"""A volume within this fraction of the model's voxel size is not resampled."""

DENSE_EDGE = 16
"""Lattice points that a dense encoder computes together for a sample, along each axis that it looks along."""

APART_EDGE = 4
"""The same for an encoder whose fields of view give one vector each: vectors that a sample does not take are
computed in vain, so boxes are small, and nearly all of their points are taken."""


@dataclass(frozen=True)
class Grid:
    """A volume at the model's voxel size.

    Attributes
    ----------
    volume : Volume
        The working grid; the source itself where voxel sizes agree.
    factors : (float, float, float)
        Edge of a working voxel in source voxels.
    spacing : (float, float, float)
        Edges of a working voxel in units of the shortest.
    """

    volume: Volume
    factors: tuple[float, float, float]
    spacing: tuple[float, float, float]

    def looked_up(self, labels: Volume) -> Volume:
        """Return labels of the source's voxels on this grid: those of the voxels that its centres lie in."""
        if self.factors == (1.0, 1.0, 1.0) or self.volume.voxel_size is None:
            return labels
        return looked_up(labels, self.volume.shape, self.factors)


def working_grid(volume: Volume, voxel_size: float | tuple[float, float]) -> Grid:
    """Bring a volume to a model's voxel size.

    An isotropic volume is resampled along all axes, an anisotropic one in its sharp plane alone. A volume
    of unknown voxel size, or one within ``SAME_VOXEL_SIZE`` of the model's, is taken as it is.

    Parameters
    ----------
    volume : Volume
        Its sharp plane is (y, x).
    voxel_size : float or (float, float)
        The model's voxel edge in nm, or the smallest and largest of them.
    """
    factors = working_factors(volume.voxel_size, voxel_size)
    edges = enlarged(volume.voxel_size, factors)
    if edges is None:
        return Grid(volume, factors, (1.0, 1.0, 1.0))
    spacing = (edges[0] / min(edges), edges[1] / min(edges), edges[2] / min(edges))
    return Grid(volume if factors == (1.0, 1.0, 1.0) else Resampled(volume, factors), factors, spacing)


def working_factors(
    size: VoxelSize | None, voxel_size: float | tuple[float, float]
) -> tuple[float, float, float]:
    """Return the edge of a working voxel in voxels of a volume, as :func:`working_grid` takes it.

    Parameters
    ----------
    size : (float, float, float) or None
        Edge of the volume's voxels in nm, its sharp plane (y, x); None where it is not known.
    voxel_size : float or (float, float)
        The model's voxel edge in nm, or the smallest and largest of them.
    """
    if size is None:
        return (1.0, 1.0, 1.0)
    if isinstance(voxel_size, tuple):
        voxel_size = float(np.clip(math.sqrt(size[1] * size[2]), *voxel_size))
    wanted = (size[0] if is_anisotropic(size) else voxel_size, voxel_size, voxel_size)
    ratios = (wanted[0] / size[0], wanted[1] / size[1], wanted[2] / size[2])
    z, y, x = (1.0 if abs(ratio - 1.0) <= SAME_VOXEL_SIZE else ratio for ratio in ratios)
    return z, y, x


@dataclass(frozen=True)
class Layout:
    """The lattice of an encoder's vectors in a volume.

    Attributes
    ----------
    lattices : three Lattice
        On the working grid, z y x.
    positions : three float64 arrays
        Where the lattice points lie, in voxels of the volume, its axes in the order of the working grid.
    """

    lattices: tuple[Lattice, Lattice, Lattice]
    positions: tuple[Floats, Floats, Floats]

    @property
    def shape(self) -> ZYX:
        """Number of lattice points along each axis."""
        z, y, x = (len(lattice) for lattice in self.lattices)
        return z, y, x

    @property
    def inside(self) -> Box:
        """The lattice points that lie within the volume."""
        (z0, z1), (y0, y1), (x0, x1) = (lattice.inside() for lattice in self.lattices)
        return Box((z0, y0, x0), (z1, y1, x1))

    @property
    def cell(self) -> ZYX:
        """Shape of the boxes of lattice points that are cheapest to compute together."""
        if all(lattice.per_stride == 1 for lattice in self.lattices):
            apart = all(lattice.placement.fov == lattice.placement.patch for lattice in self.lattices)
            edge = APART_EDGE if apart else DENSE_EDGE
            z, y, x = (edge if lattice.placement.fov > 1 else 1 for lattice in self.lattices)
        else:
            z, y, x = (lattice.per_stride for lattice in self.lattices)
        return z, y, x

    @property
    def kept(self) -> tuple[slice, slice, slice]:
        """The tokens kept of each field of view."""
        z, y, x = (lattice.placement.kept for lattice in self.lattices)
        return z, y, x


def lay_out(placements: tuple[Placement, Placement, Placement], grid: Grid) -> Layout:
    """Lay placements, z y x, over the working grid of a volume."""
    z, y, x = (placement.lattice(n) for placement, n in zip(placements, grid.volume.shape, strict=True))
    places = [rescaled(axis.positions, factor) for axis, factor in zip((z, y, x), grid.factors, strict=True)]
    return Layout((z, y, x), (places[0], places[1], places[2]))
