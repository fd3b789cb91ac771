"""Graphs to train a labeller on: random parts of volumes, divided in the same way as for labelling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from vemseg.batch import Batch
from vemseg.context import Context
from vemseg.dense.regions import Divided, RegionVectors
from vemseg.dense.sources import LatticeVectors
from vemseg.errors import Interrupted
from vemseg.graphs import Graph, most_varied
from vemseg.recipe import Recipe


class GraphSampler:
    """Makes batches of graphs from a set of parts that is drawn once.

    The parts are ``regions.parts`` tiles of slices (``regions.tile``), as many of each volume as of any
    other. Training sees each of them once in a round, in an order that is drawn anew for every round. Their
    graphs are kept in memory, up to ``fov.pool_bytes``; the others are made again.

    Parameters
    ----------
    sources : sequence of LatticeVectors
        The vectors of the volumes, all by the same encoder.
    recipe : Recipe
        Its tables ``regions``, ``fov`` and ``train`` count.
    """

    def __init__(self, sources: Sequence[LatticeVectors], recipe: Recipe) -> None:
        self.sources = [RegionVectors(source, recipe.regions, whole=False) for source in sources]
        self.device, self.seed, self.room = (
            sources[0].machine.device,
            recipe.train.seed,
            recipe.fov.pool_bytes,
        )
        self.dim = self.sources[0].dim
        each = -(-recipe.regions.parts // len(sources))
        rng = np.random.default_rng([self.seed, 0x6A])
        usable = [[n for n in range(len(s.parts)) if s.showing(n)] for s in self.sources]
        drawn = [rng.choice(some, min(len(some), each), replace=False) for some in usable]
        self.parts = [(i, int(number)) for i, some in enumerate(drawn) for number in some]
        self._kept: dict[int, Divided] = {}
        self._reference: Graph | None = None

    def prepare(self, context: Context) -> None:
        """Encode all parts, which takes longer than training on them, and find the reference among them.

        Raises
        ------
        Interrupted
            Where ``context`` says to stop; nothing is kept then.
        """
        self._reference = most_varied(self._graphs(context))

    def batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Return graphs ``rank::world`` of a step; the choice depends on (seed, step) alone.

        Tiles of volumes of other voxel sizes have other numbers of voxels, so images end with the smallest.
        """
        chosen = [self._number(step * size + i) for i in range(size)[rank::world]]
        parts = [self._part(number) for number in chosen]
        d, h, w = np.min([part.grey.shape for part in parts], axis=0)
        images = np.stack([part.grey[:d, :h, :w] for part in parts])[:, None]
        return Batch(
            torch.from_numpy(images).to(self.device),
            volume=torch.tensor([self.parts[number][0] for number in chosen]),
            graphs=tuple(part.graph for part in parts),
            find_reference=lambda: self.reference,
        )

    @property
    def reference(self) -> Graph:
        """The graph of the part whose vectors vary most."""
        if self._reference is None:
            self.prepare(Context())
        assert self._reference is not None
        return self._reference

    def _graphs(self, context: Context) -> Iterator[Graph]:
        """Yield the graphs of all parts, and say how many are done."""
        count = len(self.parts)
        for number in range(count):
            if context.stopped():
                raise Interrupted("stopped while vectors were computed: the same command starts again")
            context.report("encoding", number / count, f"graph {number + 1}/{count}")
            yield self._part(number).graph

    def _number(self, count: int) -> int:
        """Return the part that is the ``count``-th to be seen."""
        turn, place = divmod(count, len(self.parts))
        return int(np.random.default_rng([self.seed, 0x6B, turn]).permutation(len(self.parts))[place])

    def _part(self, number: int) -> Divided:
        """Return a part, from memory if it is there."""
        if number in self._kept:
            return self._kept[number]
        source, place = self.parts[number]
        made = self.sources[source].divided(place)
        size = made.graph.vectors.nbytes + made.grey.nbytes + made.numbers.nbytes
        if (len(self._kept) + 1) * size <= self.room:
            self._kept[number] = made
        return made

    def close(self) -> None:
        """Do nothing: there are no other processes."""
