"""The classes of SCCS: a network that was trained once scores the regions of any graph.

Network and classes were trained on many graphs (``models.sccs``), so the labels of different parts and
volumes agree without being matched.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from vemseg.context import Context
from vemseg.errors import UsageError
from vemseg.graphs import Affinity, Graph, Kernel, SpectralNetwork
from vemseg.labelling.base import Arrays, Labeller, Sample, Single, Source
from vemseg.recipe import SccsTable


@dataclass(frozen=True, eq=False)
class SccsLabeller(Labeller):
    """A trained network; its arrays are those of ``graphs.SpectralNetwork``.

    Scores are logarithms of the sigmoid outputs. A confidence is the output of the best class as a share of
    all outputs of a region.

    Attributes
    ----------
    first, second, third : float32 (after, before)
        Weights of the convolutions.
    hidden, hidden_bias, out, out_bias : float32
        Weights and biases of the head.
    middle : float32 (dim,), optional
        What is subtracted from vectors; nothing in networks that were trained without it.
    kappa : float64 (), optional
        The scale of the affinity, where the settings leave it to the reference graph.
    """

    probabilistic: ClassVar[bool] = True

    first: Single
    second: Single
    third: Single
    hidden: Single
    hidden_bias: Single
    out: Single
    out_bias: Single
    middle: Single | None = None
    kappa: NDArray[np.generic] | None = None

    @property
    def k(self) -> int:
        """Number of classes."""
        return len(self.out)

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        return int(self.first.shape[1])

    @cached_property
    def _network(self) -> SpectralNetwork:
        names = (each.name for each in fields(self) if each.name not in ("metadata", "kappa"))
        arrays = {name: value for name in names if (value := getattr(self, name)) is not None}
        return SpectralNetwork.of_arrays(arrays).double().requires_grad_(False)

    @cached_property
    def _kernel(self) -> Kernel:
        table: SccsTable = self.settings
        known = table if self.kappa is None or table.kappa != "auto" else table.scaled(float(self.kappa))
        return Kernel.of(known, torch.empty(0, self.dim))

    def coordinates(self, graph: Graph) -> Tensor:
        """Return the spectral coordinates of all regions of a graph, float64 (n, u)."""
        vectors = graph.features(torch.float64)
        return self._network.coordinates(vectors, Affinity.of(vectors, self._kernel))

    def graph_scores(self, graph: Graph) -> Tensor:
        """Return the scores of all regions of a graph, float32 (n, K).

        They are computed in float64: labels must not depend on how sums are grouped.
        """
        return logsigmoid(self._network.logits(self.coordinates(graph))).float()

    def scores(self, vectors: Tensor) -> Tensor:
        """Return the scores of vectors (..., d) as the regions of one graph: (..., K)."""
        flat = vectors.reshape(-1, self.dim).half().cpu().numpy()
        alone = Graph(flat, np.zeros(len(flat), np.float32), np.zeros((0, 2), np.int64))
        scores = self.graph_scores(alone).to(vectors.device)
        return scores.reshape(*vectors.shape[:-1], self.k)

    def reordered(self, order: NDArray[np.int64]) -> Self:
        """Return the same classes under other numbers."""
        return replace(self, out=self.out[order], out_bias=self.out_bias[order])

    @classmethod
    def fit(cls, table: SccsTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Take the network that was trained with the model; nothing is fitted."""
        cls.check(table, sample.codes, sample.classes, sample.learned)
        return cls.restored(sample.learned, table.model_dump(mode="json"))

    @classmethod
    def check(cls, table: SccsTable, codes: Single | None, classes: tuple[str, ...], learned: Arrays) -> None:
        """Refuse a model without such a network, and another number of classes than it has."""
        if "out" not in learned:
            raise UsageError(
                "cluster.method sccs needs a model that was trained for it: "
                "vemseg train VOLUMES -c sccs --encoder MODEL -o RUN, then -m RUN"
            )
        if table.kappa == "auto" and not learned.get("kappa", 0.0):
            raise UsageError("this model was trained with a cluster.kappa of its own: leave it out")
        if table.k != len(learned["out"]):
            raise UsageError(
                f"this model was trained for {len(learned['out'])} classes, not {table.k}: leave out -k, or "
                "train another one"
            )
