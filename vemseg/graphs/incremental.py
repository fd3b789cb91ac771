"""Incremental k-means: classes that keep their meaning while graph after graph is added."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.errors import InputError
from vemseg.modules import Keeps

RESTARTS = 20
"""Random starts of the k-means on the reference graph; the best is kept."""


class IncrementalMeans(Keeps):
    """The centres of K classes: anchored in one graph, then moved by every graph that is added (SCCS).

    The centre of a class is the mean of the nodes that were assigned to it so far. Centres move once in
    ``every`` graphs, and classes keep their numbers. The coordinates of SCCS change while its network trains,
    which the paper does not go into; with ``forgetting`` below 1, what was added before an update counts for
    that much less after it. A class whose nodes are all forgotten starts again from the node that lies
    farthest from its centre.

    Parameters
    ----------
    k, dim : int
        Number of classes, and of coordinates.
    every : int
        Graphs from one update of the centres to the next.
    forgetting : float
        Weight of what was added earlier, above 0 up to 1, which is the mean of all.

    Attributes
    ----------
    centres : Tensor float (K, dim)
    known : Tensor bool
        Whether there are centres yet.
    """

    on_host = ("known", "added")

    centres: Tensor
    known: Tensor
    total: Tensor
    fresh: Tensor
    added: Tensor

    def __init__(self, k: int, dim: int, every: int, forgetting: float) -> None:
        super().__init__()
        self.every, self.forgetting = every, forgetting
        self.register_buffer("centres", torch.zeros(k, dim))
        self.register_buffer("known", torch.tensor(False))
        self.register_buffer("added", torch.tensor(0))
        # per class: the sum of coordinates, the sum of intensities, and the number of nodes
        self.register_buffer("total", torch.zeros(k, dim + 2))
        self.register_buffer("fresh", torch.zeros(k, dim + 2))

    @torch.no_grad()
    def begin(self, coordinates: Tensor, intensities: Tensor, seed: int) -> None:
        """Anchor the classes by k-means in a reference graph.

        Parameters
        ----------
        coordinates : Tensor float (n, dim)
        intensities : Tensor float (n,)
            Mean intensities of the regions, by which classes are put in order.
        seed : int

        Raises
        ------
        InputError
            Where there are fewer nodes than classes.
        """
        k = len(self.centres)
        if len(coordinates) < k:
            raise InputError(
                f"the reference graph has {len(coordinates)} regions, fewer than the {k} classes: lower "
                "cluster.k or regions.size"
            )
        label = kmeans_labels(coordinates.double().cpu().numpy(), k, seed, RESTARTS)
        assigned = torch.from_numpy(label).to(coordinates.device)
        self.total.copy_(self._sums(coordinates, intensities, assigned))
        self.known.fill_(True)
        self._move(coordinates, intensities)

    @torch.no_grad()
    def assign(self, coordinates: Tensor) -> Tensor:
        """Return the class of the nearest centre of nodes: (n, dim) -> int64 (n,)."""
        return torch.cdist(coordinates, self.centres).argmin(dim=1)

    @torch.no_grad()
    def add(self, coordinates: Tensor, intensities: Tensor, assigned: Tensor) -> None:
        """Add the nodes of a graph to the classes that they were assigned to; move centres if it is time."""
        self.fresh += self._sums(coordinates, intensities, assigned)
        self.added += 1
        if int(self.added) % self.every == 0:
            self.update(coordinates, intensities)

    @torch.no_grad()
    def update(self, coordinates: Tensor, intensities: Tensor) -> None:
        """Move centres to the means of their nodes; those of empty classes to the farthest of these nodes.

        Parameters
        ----------
        coordinates : Tensor float (n, dim)
        intensities : Tensor float (n,)
        """
        self.total.mul_(self.forgetting).add_(self.fresh)
        self.fresh.zero_()
        self._move(coordinates, intensities)

    @property
    def order(self) -> NDArray[np.int64]:
        """The classes from dark to bright, by the mean intensity of their nodes."""
        grey = self.total[:, -2] / self.total[:, -1].clamp_min(1e-12)
        found: NDArray[np.int64] = torch.argsort(grey, stable=True).cpu().numpy()
        return found

    def _sums(self, coordinates: Tensor, intensities: Tensor, assigned: Tensor) -> Tensor:
        """Return for each class the sums of coordinates and intensities, and the number of nodes."""
        rows = torch.cat([coordinates, intensities[:, None], torch.ones_like(intensities)[:, None]], dim=1)
        member = torch.nn.functional.one_hot(assigned, len(self.centres)).to(rows.dtype)
        return member.T @ rows

    def _move(self, coordinates: Tensor, intensities: Tensor) -> None:
        """Put each centre at the mean of its class; start empty classes from the farthest nodes."""
        counts = self.total[:, -1:]
        empty = (counts[:, 0] < 1).nonzero().flatten()[: len(coordinates)]
        moved = self.total[:, :-2] / counts.clamp_min(1e-12)
        self.centres.copy_(torch.where(counts >= 1, moved, self.centres))
        if len(empty):
            filled = self.centres[counts[:, 0] >= 1]
            away = torch.cdist(coordinates, filled).amin(dim=1)
            farthest = away.topk(len(empty)).indices
            self.centres[empty] = coordinates[farthest]
            self.total[empty, :-2] = coordinates[farthest]
            self.total[empty, -2] = intensities[farthest]
            self.total[empty, -1] = 1


def kmeans_labels(data: NDArray[np.float64], k: int, seed: int, restarts: int) -> NDArray[np.int64]:
    """Return the cluster of each of n vectors, 0..k-1, by k-means++ and Lloyd's algorithm.

    Where there are fewer than ``k`` distinct vectors, some clusters are empty.

    Parameters
    ----------
    data : float64 (n, d), n >= k
    k, seed, restarts : int
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than clusters
        found = KMeans(k, n_init=restarts, random_state=seed).fit_predict(data)
    label: NDArray[np.int64] = found.astype(np.int64)
    return label
