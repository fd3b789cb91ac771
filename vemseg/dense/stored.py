"""Vectors that were computed before: on disk or in memory. They give the same labels as the encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.budget import Budget, Need, Stretch
from vemseg.dense.sources import Given, Head, LatticeVectors, Maker
from vemseg.features import RegionStore
from vemseg.geometry import ZYX, Box
from vemseg.models import Machine
from vemseg.tiling import Floats
from vemseg.volume import Volume


class VectorStore(Protocol):
    """Where vectors are kept: ``features.Features`` or ``features.HeldFeatures``."""

    dim: int
    """Length of a vector."""

    @property
    def shown(self) -> float:
        """The share of the volume that shows the specimen; outside of it, intensities are NaN."""

    @property
    def positions(self) -> tuple[Floats, Floats, Floats]:
        """Where the lattice points lie, in voxels of the volume."""

    @property
    def inside(self) -> Box:
        """The lattice points within the volume."""

    @property
    def cell(self) -> ZYX:
        """Shape of the boxes of lattice points that are cheapest to compute together."""

    @property
    def regions(self) -> RegionStore | None:
        """The regions that are stored beside the vectors; None where there are none."""

    def vectors(self, box: Box) -> NDArray[np.float16]:
        """Return the vectors of a box of lattice points, (z, y, x, d)."""

    def intensities(self, box: Box) -> NDArray[np.float16]:
        """Return the mean intensities of their patches, (z, y, x)."""


class StoredVectors(LatticeVectors):
    """Vectors that are kept in a store.

    Parameters
    ----------
    open_volume : callable
        Opens the volume that the vectors were computed from; called once that is asked for.
    volume_shape : (int, int, int)
        Shape of that volume.
    order : (int, int, int)
        Axis ``i`` of the lattice is axis ``order[i]`` of the volume.
    store : VectorStore
    maker : Maker
    machine : Machine
    factors : (float, float, float)
        Edge of a working voxel in voxels of the volume, along the axes of the lattice.
    """

    def __init__(
        self,
        open_volume: Callable[[], Volume],
        volume_shape: ZYX,
        order: ZYX,
        store: VectorStore,
        maker: Maker,
        machine: Machine,
        factors: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        self._open_volume, self._volume_shape = open_volume, volume_shape
        self.order, self.store, self.factors = order, store, factors
        self.maker, self.machine, self.shown = maker, machine, store.shown
        self.dim = store.dim
        self.positions, self.inside, self.cell = store.positions, store.inside, store.cell
        self.stored_regions = store.regions

    @cached_property
    def volume(self) -> Volume:  # type: ignore[override]
        """The grey volume as it lies on disk."""
        return self._open_volume()

    @property
    def volume_shape(self) -> ZYX:
        """Shape of the volume, as it was when the vectors were computed."""
        return self._volume_shape

    def read_points(self, points: Box) -> Given:
        """Read the vectors of a box of lattice points."""
        return self.store.vectors(points)

    def compute(self, points: Box, given: Given, head: Head | None = None) -> Tensor:
        """Return the vectors that were read, or what a head makes of them."""
        vectors = torch.from_numpy(given)
        return vectors if head is None else head(vectors)

    def intensities(self, points: Box, given: Given) -> NDArray[np.float16]:
        """Read the mean intensities."""
        return self.store.intensities(points)

    def showing(self, points: Box) -> NDArray[np.bool_] | None:
        """Return which of some lattice points lay in the specimen when they were stored."""
        return None if self.shown == 1.0 else ~np.isnan(self.store.intensities(points))

    def point_reach(self, axis: int, start: int, stop: int) -> Stretch:
        """Return the number of lattice points: nothing else is read."""
        return Stretch(stop - start, stop - start, stop - start)

    def budgets(self, k: int, written: float, limit: int) -> list[Budget]:
        """Return what labelling takes of the memory of the machine."""
        return [Budget.of_process(limit, 0, (Need(point=10.0 * self.dim + 8.0 * k, voxel=written),))]

    def point_budgets(self, writing: float, limit: int) -> list[Budget]:
        """Return what copying boxes of vectors takes."""
        stored = 2.0 * self.dim
        return [Budget.of_process(limit, 0, (Need(point=stored, voxel=writing * stored),))]

    def work(self, box: Box) -> float:
        """Return how many vectors are read for a box."""
        return float(self.points_of(box).size)
