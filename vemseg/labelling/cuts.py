"""Classes of segments: every graph is cut by itself, and its segments go to the nearest of K centres.

A cut says which regions of one graph belong together, and nothing of other graphs. So each segment is
described by the mean vector of its regions, and k-means on these descriptions, over the graphs of a sample,
gives the classes. DSM clusters the segments of a data set in the same way (Melas-Kyriazi et al., CVPR 2022),
with descriptors of a vision transformer; SCCS compares itself with DeepCut graph by graph, matched with the
reference labels, which needs these.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.cache import Cache
from vemseg.context import Context
from vemseg.errors import InputError, Interrupted
from vemseg.graphs import Affinity, Graph, Kernel, deep_cut, most_varied, spectral_cut
from vemseg.labelling.affine import AffineScores
from vemseg.labelling.base import Doubles, OwnTable, Sample, Single, Source
from vemseg.labelling.centroids import centroids, nearness
from vemseg.labelling.columns import prepared
from vemseg.recipe import CutTable, DeepCutTable, SpectralTable

Ints = NDArray[np.int64]

CUTS_BYTES = 16 * 2**20
"""The most bytes of cuts that are kept, those of some 500 graphs of a thousand regions."""

_cuts = Cache(CUTS_BYTES)
"""The last cuts: fitting looks at the graphs of a sample several times, with other numbers of classes, too;
and then they are labelled."""


@dataclass(frozen=True, eq=False)
class CutLabeller(AffineScores):
    """A labeller that cuts graphs; the columns of its map are scores of the descriptions of segments."""

    reads: ClassVar[frozenset[str]]
    """The settings that :meth:`cut` depends on."""

    @classmethod
    @abstractmethod
    def cut(cls, table: OwnTable, graph: Graph) -> Ints:
        """Return the segment of each node of a graph, int64 (n,), 0 or more; numbers may have gaps."""

    @classmethod
    def fit(cls, table: CutTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Cut all graphs of a sample, and find K classes among their segments by k-means."""
        described = []
        for i, graph in enumerate(sample.graphs):
            if context.stopped():
                raise Interrupted("stopped while graphs were cut: the same command starts again")
            described.append(cls._segments(table, graph)[0])
            context.report("clustering", i / len(sample.graphs), f"cut {i + 1}/{len(sample.graphs)} graphs")
        vectors = np.concatenate(described)
        if len(vectors) < table.k:
            found = f"but the sample has only {len(vectors)} segments: lower -k"
            raise InputError(f"k = {table.k} classes, {found}")
        alone = Sample(vectors.astype(np.float16), np.zeros(len(vectors), np.float32))
        data, scaled = prepared(table, alone)
        columns = nearness(centroids(data, table.k, table, table.restarts)).after(scaled)
        return cls(*columns.rounded(), metadata=table.model_dump(mode="json"))

    def graph_scores(self, graph: Graph) -> Tensor:
        """Return the scores of the segment that each node belongs to, float32 (n, K)."""
        vectors, place = self._segments(self.settings, graph)
        return self.scores(torch.from_numpy(vectors))[torch.from_numpy(place)]

    @classmethod
    def _segments(cls, table: CutTable, graph: Graph) -> tuple[Single, Ints]:
        """Return what ``_described`` says of the cut of a graph; the last cuts are kept."""
        digest = blake2b(graph.vectors.tobytes()).digest()
        settings = tuple(sorted(table.model_dump(include=set(cls.reads)).items()))
        # Sums are rounded otherwise by another number of threads: whether a cut is kept must change nothing.
        key = (cls, settings, graph.vectors.shape, digest, torch.get_num_threads())
        segments = _cuts.get(key)
        if segments is None:
            segments = cls.cut(table, graph)
            _cuts.put(key, segments)
        return _described(graph, segments)


@dataclass(frozen=True, eq=False)
class SpectralLabeller(CutLabeller):
    """Cuts by the eigenvectors of the Laplacian: numerical spectral clustering, and DSM.

    Attributes
    ----------
    kappa : float64 (), optional
        The scale of the affinity, where the settings leave it to the reference graph.
    """

    reads = frozenset(
        ("kappa", "density", "alpha", "distance", "eigenvectors", "segments", "seed", "centred")
    )

    kappa: Doubles | None = None

    @property
    def settings(self) -> SpectralTable:
        """The table that it was fitted with, with the scale that was found."""
        table: SpectralTable = super().settings
        return table if self.kappa is None else table.scaled(float(self.kappa))

    @classmethod
    def fit(cls, table: OwnTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Take the scale from the most varied graph of a sample, and cut all of them."""
        reference = most_varied(sample.graphs).features(torch.float64)
        kappa = Kernel.of(table, reference).kappa
        return replace(super().fit(table.scaled(kappa), sample, source, context), kappa=np.array(kappa))

    @classmethod
    def cut(cls, table: SpectralTable, graph: Graph) -> Ints:
        """Cut a graph by k-means on its first eigenvectors."""
        vectors = graph.features(torch.float64, centred=table.centred)
        affinity = Affinity.of(vectors, Kernel.of(table, vectors))
        return spectral_cut(affinity, table.eigenvectors, table.segments, table.seed)


@dataclass(frozen=True, eq=False)
class DeepCutLabeller(CutLabeller):
    """Cuts by a network that is trained on each graph."""

    reads = frozenset(("loss", "alpha", "segments", "epochs", "seed", "centred"))

    @classmethod
    def cut(cls, table: DeepCutTable, graph: Graph) -> Ints:
        """Train a network on a graph and cut it."""
        return deep_cut(graph.features(torch.float32, centred=table.centred), table)


def _described(graph: Graph, segments: NDArray[np.generic]) -> tuple[Single, Ints]:
    """Return the mean vector of each segment, float32 (s, d), and the place of each node's segment in it."""
    _, place, sizes = np.unique(segments, return_inverse=True, return_counts=True)
    total = np.zeros((len(sizes), graph.vectors.shape[1]))
    np.add.at(total, place, graph.vectors.astype(np.float64))
    return (total / sizes[:, None]).astype(np.float32), place
