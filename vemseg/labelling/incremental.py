"""Incremental k-means on the regions of graph after graph: SCCS without its network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from vemseg.context import Context
from vemseg.graphs import IncrementalMeans
from vemseg.labelling.affine import AffineScores
from vemseg.labelling.base import Sample, Source
from vemseg.labelling.centroids import nearness
from vemseg.labelling.scaling import scaling
from vemseg.recipe import IncrementalTable


@dataclass(frozen=True, eq=False)
class IncrementalLabeller(AffineScores):
    """The centres of incremental k-means: every region belongs to the nearest."""

    @classmethod
    def fit(cls, table: IncrementalTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Anchor classes in the most varied graph of a sample, and add the others one by one."""
        scaled = scaling(sample.vectors.astype(np.float32), table)
        nodes = []
        for graph in sample.graphs:
            vectors = graph.vectors.astype(np.float32)
            if scaled is not None:
                scaled.apply(vectors)
            nodes.append((torch.from_numpy(vectors), torch.from_numpy(graph.intensities)))
        means = IncrementalMeans(table.k, sample.vectors.shape[1], table.every, forgetting=1.0)
        reference = max(range(len(nodes)), key=lambda i: sample.graphs[i].variety)
        means.begin(*nodes[reference], table.seed)
        for i, (data, grey) in enumerate(nodes):
            if i != reference:
                means.add(data, grey, means.assign(data))
        means.update(*nodes[reference])
        return cls(*nearness(means.centres.numpy()).after(scaled).rounded())
