"""One vector for each region of a volume that is divided into regions of even grey, such as superpixels.

The volume is looked at in parts: whole slices, or tiles of slices. Each part is divided by itself, and its
regions become the nodes of a graph. The vector of a region is the mean of the vectors of its voxels, and
beside it their standard deviation (SCCS, section "spG Construction"). Parts are made when they are needed
and dropped again, so a volume of any size is labelled in bounded memory, and every graph gets the same
classes wherever blocks are cut.

Slices lie across the first axis of the lattice, which is across the sharp plane of an anisotropic volume.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vemseg.budget import Budget, Stretch
from vemseg.context import Context
from vemseg.dense.parts import Parts
from vemseg.dense.pooling import CHANNELS, moments
from vemseg.dense.scores import RATINGS, Interpolations, Rated
from vemseg.dense.sources import Given, LatticeVectors, VectorSource, turned, turned_back
from vemseg.errors import Interrupted
from vemseg.features import Features, RegionArrays
from vemseg.geometry import ZYX, Box
from vemseg.graphs import Graph
from vemseg.graphs.affinity import HELD, STRIP
from vemseg.labelling import Labeller, Sample
from vemseg.recipe import RegionsTable
from vemseg.superpixels import divide
from vemseg.tiling import Floats, Interpolation, Ints, interpolation, reflect
from vemseg.volume import Permuted, intensity_of

DIVIDING = 320.0
"""Bytes for each voxel of a part while it is divided and the weights of its voxels are worked out."""

POOLING = 24.0
"""Bytes for each number at the lattice points of a part while they are summed up, ``CHANNELS`` at a time."""

NODE = 24.0
"""Bytes for each number of the vectors of a graph, and for each entry of a strip of its affinity."""


DIVISION = 2
"""Rises when the same settings divide volumes otherwise than before."""


@dataclass(frozen=True)
class Divided:
    """A part of a volume, divided into regions.

    Attributes
    ----------
    box : Box
        Voxels of the volume, its axes in the order of the lattice; it may reach beyond the volume's border.
    numbers : int64 (z, y, x)
        The region of each voxel, which is its place in the graph.
    graph : Graph
    grey : float32 (z, y, x)
        Intensities.

    Regions that show nothing of the specimen are no part of the graph; their voxels have any number.
    """

    box: Box
    numbers: Ints
    graph: Graph
    grey: NDArray[np.float32]


class RegionVectors(VectorSource):
    """The vectors of the regions of a volume, part by part.

    Parameters
    ----------
    source : LatticeVectors
        The source whose vectors are averaged.
    table : RegionsTable
    whole : bool, optional
        Whether parts are whole slices; by default as the table says.
    """

    def __init__(self, source: LatticeVectors, table: RegionsTable, whole: bool | None = None) -> None:
        self.source, self.table = source, table
        self.whole = table.whole if whole is None else whole
        self.machine, self.dim, self.sweeps = source.machine, 2 * source.dim, source.sweeps
        made = json.dumps([source.maker.model, table.model_dump(mode="json"), DIVISION])
        self.maker = replace(source.maker, model=f"regions {hashlib.sha256(made.encode()).hexdigest()}")
        self.volume, self.intensity, self.shown = source.volume, source.intensity, source.shown
        self._grey = source.intensity or intensity_of(self.volume, source.maker.recipe.volume)
        order = source.order
        self._turned = self.volume if order == (0, 1, 2) else Permuted(self.volume, order)
        self.parts = Parts.of(self._turned, source.factors, table, self.whole)
        there = source.stored_regions
        complete = there is not None and there.settings == self.meaning and len(there) == len(self.parts)
        self._stored = there if complete else None

    @property
    def volume_shape(self) -> ZYX:
        """Shape of the volume."""
        return self.source.volume_shape

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that the encoder itself tells apart, unless their logits are standardised away."""
        return () if self.table.standardise else self.maker.classes

    @property
    def count(self) -> int:
        """About how many regions there are."""
        return len(self.parts) * self.parts.regions

    @property
    def meaning(self) -> dict[str, object]:
        """What a region is, as plain JSON: regions of equal meaning are the same."""
        without = {"parts", "whole"} | ({"tile"} if self.whole else set())
        return self.table.model_dump(mode="json", exclude=without) | {
            "whole": self.whole,
            "division": DIVISION,
        }

    def store_regions(self, features: Features, context: Context) -> None:
        """Store the regions of the volume beside its vectors; go on where an earlier call was stopped.

        Raises
        ------
        Interrupted
            Where the work was stopped.
        """
        store = features.divide(self.dim, self.meaning)
        total, whole = len(self.parts), Box.whole(self._turned.shape)
        for number in range(len(store), total):
            if context.stopped():
                raise Interrupted(f"stopped after {number} of {total} parts: the same command goes on")
            part = self.divided(number)
            inside, graph = part.box.clip(whole), part.graph
            numbers = part.numbers[inside.relative_to(part.box).slices].transpose(self.source.back)
            arrays = RegionArrays(graph.vectors, graph.intensities, graph.edges)
            store.append(turned(inside, self.source.back), numbers, arrays)
            context.report("dividing", (number + 1) / total, f"{number + 1}/{total} parts")

    def graph(self, number: int) -> Graph:
        """Return the graph of a part, as it is stored or made anew."""
        if self._stored is None:
            return self.divided(number).graph
        return Graph(*self._stored.part(number)[1])

    def divided(self, number: int) -> Divided:
        """Return a part by its number: read, encoded, divided and summed up."""
        box = self.parts.box(number)
        points = self._points(box)
        return self._divided(box, points, self.source.values(points).numpy())

    def sample(self, n: int, seed: int, context: Context, keep: Path | None = None) -> Sample:
        """Return the graphs of random parts with ``n`` regions or more together; all where there are fewer.

        Nothing is kept where the work is stopped: a sample has few parts.
        """
        graphs: list[Graph] = []
        for number in self._drawn(n, seed):
            if context.stopped():
                raise Interrupted("stopped while regions were sampled: the same command starts again")
            if not self.showing(number):
                continue
            graphs.append(self.graph(number))
            done = sum(map(len, graphs))
            wanted = min(n, self.count)
            context.report("sampling", min(1.0, done / wanted), f"{done} regions of {len(graphs)} parts")
            if done >= n:
                break
        vectors = [np.empty((0, self.dim), np.float16), *(graph.vectors for graph in graphs)]
        grey = [np.empty(0, np.float32), *(graph.intensities for graph in graphs)]
        arrays = np.concatenate(vectors), np.concatenate(grey)
        return Sample(*arrays, self.maker.codes, self.classes, tuple(graphs), self.maker.learned)

    def _drawn(self, n: int, seed: int) -> list[int]:
        """Return the parts of a sample of ``n`` regions, in random order; some more, as regions vary."""
        if not n:
            return []
        most = min(len(self.parts), 2 * math.ceil(-(-n // self.parts.regions) / self.shown))
        drawn = np.random.default_rng([seed, 0x5E6]).choice(len(self.parts), most, replace=False)
        return [int(number) for number in drawn]

    def showing(self, number: int) -> bool:
        """Tell whether a part shows anything of the specimen."""
        shown = self._specimen(self.parts.box(number))
        return shown is None or bool(shown.any())

    def _specimen(self, box: Box) -> NDArray[np.bool_] | None:
        """Return which voxels of a part, mirrored beyond the border, show the specimen; None where all do."""
        specimen = self._turned.specimen
        return None if specimen is None else specimen.voxels.read_reflected(box) != 0

    def read(self, box: Box) -> Given:
        """Read what the lattice points of all parts in a box are computed from, or the regions of voxels."""
        if self._stored is not None:
            return self._stored.map(box)
        return self.source.read_points(self._points(self._slab(box)))

    def rated(self, box: Box, given: Given, labeller: Labeller, ratings: Sequence[str] = ()) -> Rated:
        """Paint each region of a box with its class, and with each rating of that."""
        inside, wanted = turned(box, self.source.order), [RATINGS[name] for name in ratings]
        painted = [
            np.zeros(inside.shape, np.uint8),
            *(np.zeros_like(each.empty(inside.shape, labeller.k)) for each in wanted),
        ]
        found = self._computed if self._stored is None else self._read
        for place, numbers, graph in found(box, inside, given):
            scores = labeller.graph_scores(graph)
            values = [
                (1 + scores.argmax(dim=-1)).to(torch.uint8),
                *(each.of(labeller, scores) for each in wanted),
            ]
            for one, out in zip(values, painted, strict=True):
                out[(..., *place.slices)] = one.cpu().numpy().T[..., numbers]
        return turned_back(tuple(painted), self.source.back)

    def _computed(self, box: Box, inside: Box, given: Given) -> Iterator[tuple[Box, Ints, Graph]]:
        """Yield what each part has in a box: its place there, the regions of its voxels, and its graph."""
        points = self._points(self._slab(box))
        vectors = self.source.compute(points, given).numpy()
        for number in filter(self.showing, self.parts.touching(inside)):
            part = self._divided(self.parts.box(number), points, vectors)
            both = part.box.clip(inside)
            yield both.relative_to(inside), part.numbers[both.relative_to(part.box).slices], part.graph

    def _read(self, box: Box, inside: Box, given: Given) -> Iterator[tuple[Box, Ints, Graph]]:
        """Yield the same from what is stored; ``given`` holds rows of regions."""
        assert self._stored is not None and isinstance(given, np.ndarray)
        rows = given.transpose(self.source.order).astype(np.int64)
        for number in self.parts.touching(inside):
            place = self.parts.box(number).clip(inside).relative_to(inside)
            first, arrays = self._stored.part(number)
            yield place, rows[place.slices] - first, Graph(*arrays)

    def _divided(self, box: Box, points: Box, vectors: NDArray[np.float16]) -> Divided:
        """Divide a part whose lattice points are among those with these vectors (z, y, x, d)."""
        grey = self._grey.apply(self._turned.read_reflected(box))
        numbers = divide(grey, self.parts.regions, self.table.compactness, self.parts.spacing)
        axes = _relative(self._axes(box), points)
        mean, deviation = moments(vectors, axes, numbers, self.table.standardise)
        graph = Graph(
            np.concatenate([mean, deviation], axis=1).astype(np.float16),
            (np.bincount(numbers.ravel(), grey.ravel()) / np.bincount(numbers.ravel())).astype(np.float32),
            _touching(numbers),
        )
        shown = self._specimen(box)
        if shown is not None:
            kept = np.bincount(numbers.ravel(), shown.ravel()) > 0
            graph, numbers = graph.part(kept), np.where(kept, kept.cumsum() - 1, 0)[numbers]
        return Divided(box, numbers, graph, grey)

    def _axes(self, box: Box) -> Interpolations:
        """Return how each axis is interpolated to the voxels of a part, mirrored beyond the border."""
        z, y, x = (
            _mirrored(positions, start, stop, n)
            for positions, start, stop, n in zip(
                self.source.positions, box.start, box.stop, self._turned.shape, strict=True
            )
        )
        return z, y, x

    def _points(self, box: Box) -> Box:
        """Return the lattice points that the voxels of parts lie between."""
        z, y, x = self._axes(box)
        return Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))

    def _slab(self, box: Box) -> Box:
        """Return the box of all parts in a box of the volume, its axes in the order of the lattice."""
        return self.parts.around(turned(box, self.source.order))

    def reach(self, axis: int, start: int, stop: int) -> Stretch:
        """Return the same for all parts that cover ``start .. stop``, since a part is read whole."""
        along = self.source.order.index(axis)
        edge, n = self.parts.shape[along], self.volume.shape[axis]
        return self.source.reach(axis, start // edge * edge, min(-(-stop // edge) * edge, n))

    def budgets(self, k: int, written: float, limit: int) -> list[Budget]:
        """Return what labelling takes: the vectors of the lattice, and one part at a time."""
        return [
            replace(budget, base=budget.base + self.part_bytes) if budget.name == "memory" else budget
            for budget in self.source.budgets(self.source.dim, written, limit)
        ]

    @property
    def part_bytes(self) -> int:
        """Bytes that it takes to divide a part and to score its graph."""
        box = self.parts.box(0)
        numbers = self._points(box).size * (self.source.dim + CHANNELS)
        nodes = 2 * self.parts.regions
        strips = nodes * max(STRIP, min(nodes, HELD))
        return int(DIVIDING * box.size + POOLING * numbers + NODE * (nodes * self.dim + strips))

    def work(self, box: Box) -> float:
        """Return how many voxels are encoded, or vectors read, for a box."""
        return self._part_work(self._slab(box))

    def sampling_work(self, n: int, seed: int) -> float:
        """Return how many voxels are encoded for a sample."""
        needed = self._drawn(n, seed)[: -(-n // self.parts.regions)]
        return sum(self._part_work(self.parts.box(number)) for number in needed)

    def _part_work(self, box: Box) -> float:
        """Return how many voxels are encoded, or vectors read, for parts; axes as the lattice has them."""
        return self.source.work(turned(box.clip(self._turned.box), self.source.back))

    def at(self, voxels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vector of the region that each voxel lies in."""
        lying = voxels[:, list(self.source.order)]
        parts = np.array([self.parts.touching(Box(tuple(v), tuple(v + 1)))[0] for v in lying])
        found = np.empty((len(voxels), self.dim), np.float32)
        for number in np.unique(parts).tolist():
            part, mine = self.divided(number), np.flatnonzero(parts == number)
            places = lying[mine] - part.box.start
            found[mine] = part.graph.vectors[part.numbers[tuple(places.T)]]
        return found

    def holding_bytes(self, limit: int) -> int:
        """Return the bytes that :meth:`held` keeps within a limit."""
        return self.source.holding_bytes(limit)

    def held(self, context: Context, keep: Path | None = None) -> RegionVectors:
        """Return the regions of vectors that are held in memory where they are few, else this source."""
        return RegionVectors(self.source.held(context, keep), self.table, self.whole)


def _mirrored(positions: Floats, start: int, stop: int, n: int) -> Interpolation:
    """Interpolate at voxels ``start .. stop`` of an axis of ``n``, mirrored where they lie outside."""
    folded = reflect(np.arange(start, stop), n)
    low = int(folded.min())
    rule, place = interpolation(positions, low, int(folded.max()) + 1), folded - low
    return Interpolation(rule.start, rule.stop, rule.left[place], rule.right[place], rule.weight[place])


def _relative(axes: Interpolations, points: Box) -> Interpolations:
    """Count the neighbours of voxels from the first of some lattice points, instead of the first needed."""
    z, y, x = (
        replace(rule, left=rule.left + rule.start - start, right=rule.right + rule.start - start)
        for rule, start in zip(axes, points.start, strict=True)
    )
    return z, y, x


def _touching(numbers: Ints) -> Ints:
    """Return the pairs of regions that lie face to face, each once, the lower first: int64 (e, 2)."""
    pairs = []
    for axis in range(3):
        n = numbers.shape[axis]
        first, second = (numbers.take(range(a, b), axis).ravel() for a, b in ((0, n - 1), (1, n)))
        differ = first != second
        pairs.append(np.sort(np.stack([first[differ], second[differ]], axis=1), axis=1))
    return np.unique(np.concatenate(pairs), axis=0)
