"""Vectors of a volume, wherever they come from: the contract, and what all vectors on a lattice share.

A source is asked about boxes of the volume as it lies on disk. How it deals with the orientation of sharp
planes, resampling, context and lattices is its own affair.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vemseg.budget import Budget, Stretch
from vemseg.context import Context
from vemseg.dense.sample import Drawn, SampleCell, collect, sample_cells
from vemseg.dense.scores import (
    Interpolations,
    Rated,
    in_parts,
    interpolated,
    interpolations,
    rated_interpolated,
)
from vemseg.features import Features, RegionStore
from vemseg.geometry import ZYX, Box
from vemseg.labelling import Labeller, Sample
from vemseg.models import Machine
from vemseg.recipe import Recipe
from vemseg.tiling import Floats, interpolation
from vemseg.volume import Intensity, Volume

Head = Callable[[Tensor], Tensor]
"""Turns float16 vectors (..., d) into the channels that are kept of them (..., c), float32."""

Given = NDArray[np.generic] | Tensor
"""What was read for a box: voxels as they are stored, windows of an encoder, stored vectors, or regions."""


@dataclass(frozen=True)
class Maker:
    """What makes, or made, the vectors of a source.

    Attributes
    ----------
    recipe : Recipe
    model : str
        Hash of the model; vectors of models with different hashes have nothing to do with each other.
    title : str
        Name of the model, for people.
    codes : float32 (n, d) or None
        The codebook of a model that learned one.
    inputs, parents : tuple of Path
        The volume or stored features, and the files that decide what the model computes.
    classes : tuple of str
        The classes that the encoder itself tells apart (see ``models.Encoder``).
    learned : mapping of str to array
        The labeller that was trained together with the model; empty where there is none.
    """

    recipe: Recipe
    model: str
    title: str
    codes: NDArray[np.float32] | None
    inputs: tuple[Path, ...]
    parents: tuple[Path, ...]
    classes: tuple[str, ...] = ()
    learned: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


class VectorSource(ABC):
    """Vectors of a volume.

    Attributes
    ----------
    volume : Volume
        The grey volume as it lies on disk; all boxes are boxes of it.
    maker : Maker
    machine : Machine
        What the source computes with.
    dim : int
        Length of a vector.
    intensity : Intensity or None
        Maps grey values to [0, 1]; None where the vectors are not computed here.
    sweeps : tuple of int
        Axes along which context is read but not encoded (see ``models.Encoder.sweeps``).
    shown : float
        The part of the volume that shows the specimen, above 0 up to 1 (``volume.Specimen``).
    """

    volume: Volume
    maker: Maker
    machine: Machine
    dim: int
    intensity: Intensity | None = None
    sweeps: tuple[int, ...] = ()
    shown: float = 1.0

    @property
    def volume_shape(self) -> ZYX:
        """Shape of the volume; sources of stored vectors know it without opening the volume."""
        return self.volume.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that the encoder itself tells apart; a vector begins with their logits."""
        return self.maker.classes

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of vectors of the whole volume."""

    @abstractmethod
    def sample(self, n: int, seed: int, context: Context, keep: Path | None = None) -> Sample:
        """Return vectors to fit classes on.

        Parameters
        ----------
        n : int
            Number of vectors wanted; where there are fewer, all are taken. 0 draws none.
        seed : int
            The same seed draws the same vectors.
        context : Context
        keep : Path, optional
            A file for the vectors drawn before a stop; the next call goes on from it.

        Raises
        ------
        Interrupted
            Where the work was stopped.
        """

    @abstractmethod
    def at(self, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors that some voxels are labelled by: (n, 3) z y x -> float32 (n, d)."""

    @abstractmethod
    def read(self, box: Box) -> Given:
        """Read what :meth:`rated` needs for a box; called in a thread of its own."""

    @abstractmethod
    def rated(self, box: Box, given: Given, labeller: Labeller, ratings: Sequence[str] = ()) -> Rated:
        """Return the labels of a box, and each rating of its voxels (see ``scores.RATINGS``).

        Labels are uint8 ``box.shape``, 1 + the class of the highest score.
        """

    def labels(self, box: Box, given: Given, labeller: Labeller) -> NDArray[np.uint8]:
        """Return the labels of a box alone."""
        labels: NDArray[np.uint8] = self.rated(box, given, labeller)[0]
        return labels

    @abstractmethod
    def reach(self, axis: int, start: int, stop: int) -> Stretch:
        """Return what voxels ``start .. stop`` of an axis take."""

    @abstractmethod
    def budgets(self, k: int, written: float, limit: int) -> list[Budget]:
        """Return what labelling blocks takes of each memory: the machine's and, where one is used, a GPU's.

        Parameters
        ----------
        k : int
            Number of classes.
        written : float
            Bytes that each voxel of a block takes while it is written.
        limit : int
            Bytes of the machine's memory that this process may occupy.
        """

    @abstractmethod
    def work(self, box: Box) -> float:
        """Return how many voxels are encoded, or stored vectors read, for a box (see ``Blocks.encoded``)."""

    def sampling_work(self, n: int, seed: int) -> float:
        """Return how many voxels are encoded for a sample, counted as :meth:`work` does."""
        return 0.0

    def store_regions(self, features: Features, context: Context) -> None:  # noqa: B027
        """Store beside the vectors of a lattice what is made of them; by default nothing is."""

    def holding_bytes(self, limit: int) -> int:
        """Return the bytes that :meth:`held` keeps within a limit; 0 where it keeps nothing."""
        return 0

    def held(self, context: Context, keep: Path | None = None) -> VectorSource:
        """Return a source that has all vectors in memory where they are few, else this one.

        No vector is then computed twice: for fitting classes and for labelling.

        Parameters
        ----------
        keep : Path, optional
            As for :meth:`sample`.
        """
        return self


class LatticeVectors(VectorSource):
    """Vectors on a lattice: computed or stored, they share interpolation and sampling.

    Attributes
    ----------
    order : (int, int, int)
        Axis ``i`` of the lattice is axis ``order[i]`` of the volume.
    positions : three float64 arrays
        Where the lattice points lie along each axis of the lattice, in voxels of the volume.
    inside : Box
        The lattice points within the volume.
    cell : (int, int, int)
        Shape of the boxes of lattice points that are cheapest to compute together.
    factors : (float, float, float)
        Edge of a working voxel in voxels of the volume, along the axes of the lattice.
    stored_regions : RegionStore or None
        Regions that are stored beside the vectors.
    workers : int
        How many boxes of lattice points may be computed at the same time.
    """

    order: ZYX
    positions: tuple[Floats, Floats, Floats]
    inside: Box
    cell: ZYX
    factors: tuple[float, float, float]
    stored_regions: RegionStore | None = None
    workers: int = 1

    @abstractmethod
    def read_points(self, points: Box) -> Given:
        """Read what :meth:`compute` needs for a box of lattice points."""

    @abstractmethod
    def compute(self, points: Box, given: Given, head: Head | None = None) -> Tensor:
        """Return the vectors of a box of lattice points, or what a head makes of them.

        Parameters
        ----------
        points : Box
            Lattice points.
        given : array or Tensor
            What :meth:`read_points` read.
        head : callable, optional
            Applied to the vectors, batch by batch.

        Returns
        -------
        Tensor (z, y, x, c), on the CPU
            float16 vectors, or what the head returns.
        """

    @abstractmethod
    def intensities(self, points: Box, given: Given) -> NDArray[np.float16]:
        """Return the mean intensity of the patch of each vector, (z, y, x), from what was read.

        NaN stands for points outside the specimen.
        """

    @abstractmethod
    def point_reach(self, axis: int, start: int, stop: int) -> Stretch:
        """Return what :meth:`reach` does, for lattice points ``start .. stop`` of an axis of the lattice."""

    @abstractmethod
    def point_budgets(self, writing: float, limit: int) -> list[Budget]:
        """Return what computing and storing boxes of lattice points takes of each memory.

        Parameters
        ----------
        writing : float
            Bytes that each byte of vectors takes while it is written.
        limit : int
            Bytes of the machine's memory that this process may occupy.
        """

    @property
    def shape(self) -> ZYX:
        """Number of lattice points along each axis."""
        z, y, x = (len(axis) for axis in self.positions)
        return z, y, x

    @property
    def count(self) -> int:
        """Number of lattice points."""
        return Box.whole(self.shape).size

    def values(self, points: Box, head: Head | None = None) -> Tensor:
        """Read and compute: see :meth:`compute`."""
        return self.compute(points, self.read_points(points), head)

    def sample(self, n: int, seed: int, context: Context, keep: Path | None = None) -> Sample:
        """Return the vectors of random lattice points, drawn cell by cell."""
        if not n:
            nothing = np.empty((0, self.dim), np.float16), np.empty(0, np.float32)
            return Sample(*nothing, self.maker.codes, self.classes, learned=self.maker.learned)
        reading = Lock()  # not every volume can be read by several threads

        def draw(cell: SampleCell) -> Drawn:
            with reading:
                read = self._read_cell(cell)
            return self._drawn(cell, *read)

        vectors, grey = collect(self._cells(n, seed), draw, context, keep, self.workers)
        return Sample(vectors, grey, self.maker.codes, self.classes, learned=self.maker.learned)

    def _cells(self, n: int, seed: int) -> list[SampleCell]:
        """Choose about ``n`` points that show the specimen, and those between them that do not."""
        return sample_cells(self.inside, self.cell, math.ceil(n / self.shown), seed)

    def _read_cell(self, cell: SampleCell) -> tuple[NDArray[np.int64], NDArray[np.float16], Given | None]:
        """Read what the vectors of a cell are computed from, None without any in the specimen.

        Returns those points of the cell that lie there, and their mean intensities, before it.
        """
        points = self.shown_points(cell)
        if not points.size:
            return points, np.empty(0, np.float16), None
        given = self.read_points(cell.cells)
        return points, self.intensities(cell.cells, given).reshape(-1)[points], given

    def _drawn(
        self, cell: SampleCell, points: NDArray[np.int64], grey: NDArray[np.float16], given: Given | None
    ) -> Drawn:
        if given is None:
            return np.empty((0, self.dim), np.float16), grey
        return self.compute(cell.cells, given).numpy().reshape(-1, self.dim)[points], grey

    def shown_points(self, cell: SampleCell) -> NDArray[np.int64]:
        """Return those points of a cell that lie in the specimen, as indices into its raveled box."""
        shown = self.showing(cell.cells)
        return cell.points if shown is None else cell.points[shown.reshape(-1)[cell.points]]

    def showing(self, points: Box) -> NDArray[np.bool_] | None:
        """Return which of some lattice points lie in the specimen, (z, y, x); None where all of them do."""
        return None

    def at(self, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Interpolate the vectors of the lattice to some voxels, as scores are for labels."""
        found = np.empty((len(voxels), self.dim), np.float32)
        for i in np.lexsort(voxels.T[::-1]):  # neighbours one after the other: they share what is read
            z, y, x = voxels[i].tolist()
            box = Box((z, y, x), (z + 1, y + 1, x + 1))
            values = self.values(self.points_of(box)).float()
            for _, _, strip in interpolated(values, self.interpolations(box)):
                found[i] = strip.reshape(-1).numpy()
        return found

    def interpolations(self, box: Box) -> Interpolations:
        """Return how each axis of the lattice is interpolated to the voxels of a box."""
        return interpolations(self.positions, turned(box, self.order))

    def points_of(self, box: Box) -> Box:
        """Return the lattice points that the voxels of a box lie between."""
        z, y, x = self.interpolations(box)
        return Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))

    def read(self, box: Box) -> Given:
        """Read what :meth:`rated` needs for a box."""
        return self.read_points(self.points_of(box))

    def rated(self, box: Box, given: Given, labeller: Labeller, ratings: Sequence[str] = ()) -> Rated:
        """Interpolate the scores to voxels, take the best class and rate it."""
        scores = self.compute(self.points_of(box), given, in_parts(labeller.scores))
        turned = rated_interpolated(scores, self.interpolations(box), labeller, ratings)
        return turned_back(turned, self.back)

    def reach(self, axis: int, start: int, stop: int) -> Stretch:
        """Return what voxels of an axis of the volume take: those of the lattice that they lie between."""
        along = self.back[axis]
        rule = interpolation(self.positions[along], start, stop)
        return self.point_reach(along, rule.start, rule.stop)

    def held(self, context: Context, keep: Path | None = None) -> LatticeVectors:
        """Return these vectors in memory where they are few."""
        return self

    @property
    def back(self) -> ZYX:
        """Axis of the lattice for each axis of the volume; turns arrays back."""
        return self.order.index(0), self.order.index(1), self.order.index(2)


def turned_back(parts: Rated, back: ZYX) -> Rated:
    """Return arrays whose last three axes are put into the order ``back``; channels before them stay."""
    leading = [tuple(range(part.ndim - 3)) for part in parts]
    return tuple(
        np.ascontiguousarray(part.transpose(*first, *(len(first) + axis for axis in back)))
        for part, first in zip(parts, leading, strict=True)
    )


def turned(box: Box, order: ZYX) -> Box:
    """Return a box with its axes in another order: axis ``i`` of it is axis ``order[i]`` of the one given."""
    return Box(_ordered(box.start, order), _ordered(box.stop, order))


def _ordered(axes: Sequence[int], order: ZYX) -> ZYX:
    return axes[order[0]], axes[order[1]], axes[order[2]]
