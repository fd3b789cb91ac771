"""What SCCS minimises: its network and its classes are trained on graphs of the vectors of a fixed encoder.

Jiang et al., SCCS: Deep Neural Spectral Clustering for Self-Supervised Subcellular Structure Segmentation
(AAAI), equations 2 to 5. The paper anchors the classes in a reference graph and leaves open when. Coordinates
of an untrained network mean nothing, so the spectral loss is alone at first, for ``warmup`` steps, or for
``WARM`` of a short training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vemseg.batch import Batch
from vemseg.graphs import (
    Affinity,
    Graph,
    IncrementalMeans,
    Kernel,
    SpectralNetwork,
    clustering_loss,
    smoothness_loss,
    spectral_loss,
)
from vemseg.graphs.network import dropped
from vemseg.models.encoder import Encoder
from vemseg.models.objective import Objective
from vemseg.modules import Keeps
from vemseg.recipe import SccsTable

LABELLER = "labeller."
"""The names of the arrays of a labeller begin with this where they are saved beside an encoder."""


WARM = 0.25
"""The spectral loss is alone for at most this part of a training."""


class SpectralClustering(Keeps, Objective):
    """Spectral loss + gamma_1 x cross-entropy with incremental k-means + gamma_2 x smoothness (equation 5).

    Gradients of the spectral loss reach the convolutions alone, those of the other two the head as well. The
    classes of the incremental k-means are targets, and no gradient passes through them.

    Parameters
    ----------
    table : SccsTable
    encoder : Encoder
        What the graphs' vectors come from. It is saved with the network, and not trained.
    dim : int
        Length of the vectors of regions.
    """

    on_host = ("steps", "done", "kappa")
    shortens = False

    steps: Tensor
    done: Tensor
    kappa: Tensor

    def __init__(self, table: SccsTable, encoder: Encoder, dim: int) -> None:
        super().__init__()
        self.table, self.window = table, (1, 1, 1)
        self.encoder = encoder.requires_grad_(False)
        self.network = SpectralNetwork(dim, table.widths, table.k)
        self.means = IncrementalMeans(table.k, table.widths[-1], table.every, table.forgetting)
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("done", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("kappa", torch.tensor(0.0))
        self._kernel: Kernel | None = None

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss``, its terms, and ``density``, the share of pairs of regions with an affinity.

        Parameters
        ----------
        batch : Batch
            Its ``graphs`` count, and its ``reference``.
        generator : torch.Generator
            Decides what dropout sets to 0.
        """
        if self._kernel is None:
            self._kernel = self._scaled(batch)
        if self.table.centred and not int(self.steps):
            self.network.middle.copy_(batch.reference().features(torch.float32).mean(dim=0))
        anchored = int(self.steps) >= self.table.warmup or float(self.done) >= WARM
        if anchored and not self.means.known:
            graph = batch.reference()
            coordinates, _ = self._embedded(graph)
            self.means.begin(coordinates.detach(), self._grey(graph), self.table.seed)
        each = [self._terms(graph, generator, anchored) for graph in batch.graphs]
        self.steps += 1
        terms = {name: torch.stack([one[name] for one in each]).mean() for name in each[0]}
        weighed = [name for name in ("spectral", "clustering", "smoothness") if name in terms]
        loss = torch.stack([getattr(self.table, name) * terms[name] for name in weighed]).sum()
        return {"loss": loss, **terms}

    def after_step(self, fraction: float, generator: torch.Generator) -> None:
        """Note how much of the training is done, which may end the warm-up."""
        self.done.fill_(fraction)

    def _scaled(self, batch: Batch) -> Kernel:
        """Return the kernel of the affinity; its scale is found in the reference graph once, and kept."""
        if self.table.kappa == "auto" and not self.kappa:
            found = Kernel.of(self.table, batch.reference().features(torch.float64))
            self.kappa.fill_(found.kappa)
        known = self.table.scaled(float(self.kappa)) if self.table.kappa == "auto" else self.table
        return Kernel.of(known, self.kappa)

    def _terms(self, graph: Graph, generator: torch.Generator, anchored: bool) -> dict[str, Tensor]:
        """Return the terms of the loss of one graph, and add the graph to the classes."""
        table = self.table
        coordinates, affinity = self._embedded(graph)
        terms = {"spectral": spectral_loss(coordinates, affinity, table.mu)}
        if anchored:
            targets = self.means.assign(coordinates.detach())
            kept = dropped(len(coordinates), coordinates.shape[1], table.dropout, generator)
            logits = self.network.logits(coordinates, kept.to(coordinates.device))
            terms["clustering"] = clustering_loss(logits, targets)
            terms["smoothness"] = smoothness_loss(logits.sigmoid(), affinity, table.eta, table.nu)
            self.means.add(coordinates.detach(), self._grey(graph), targets)
        return terms | {"density": affinity.density}

    def _embedded(self, graph: Graph) -> tuple[Tensor, Affinity]:
        """Return the spectral coordinates of a graph, and its affinity."""
        vectors = graph.features(torch.float32).to(self.means.centres.device)
        assert self._kernel is not None
        affinity = Affinity.of(vectors, self._kernel)
        return self.network.coordinates(vectors, affinity), affinity

    def _grey(self, graph: Graph) -> Tensor:
        return torch.from_numpy(graph.intensities).to(self.means.centres.device)

    def tensors(self) -> dict[str, Tensor]:
        """Return the network, its classes from dark to bright, as ``labelling.sccs`` takes it."""
        arrays = self.network.arrays(self.means.order)
        if self.table.kappa == "auto":
            arrays["kappa"] = self.kappa
        return {f"{LABELLER}{name}": value for name, value in arrays.items()}
