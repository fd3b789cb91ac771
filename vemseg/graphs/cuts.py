"""Graphs cut into segments one by one: numerical spectral clustering, DSM and DeepCut.

These are the baselines that SCCS is compared with. A segment has a meaning in its own graph only;
``labelling.cuts`` says which class it belongs to.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.functional import elu, normalize

from vemseg.graphs.affinity import Affinity, Kernel
from vemseg.graphs.incremental import kmeans_labels
from vemseg.graphs.network import dropped

DENSE = 256
"""The eigenvectors of a graph of at most this many nodes come from a dense solver."""

STARTS = 10
"""Random starts of the k-means that cuts a graph by its eigenvectors."""

HIDDEN = (64, 32)
"""Channels of DeepCut's convolution, and of its hidden layer."""

DROPPED = 0.25
"""Share of the hidden layer that DeepCut's dropout sets to 0 in training."""


def eigenvectors(affinity: Affinity, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Solve (D - A) v = lambda D v for the smallest eigenvalues.

    With ``u = D^1/2 v`` this is the problem of the normalised Laplacian, whose smallest eigenvalues belong to
    the largest of ``D^-1/2 A D^-1/2``.

    Parameters
    ----------
    affinity : Affinity
        Its vectors are float64.
    count : int
        Number of eigenvectors; all where there are fewer nodes.

    Returns
    -------
    values : float64 (m,), ascending
    vectors : float64 (n, m)
        Their squares, weighted by the degrees, sum to 1 in each column; the signs are arbitrary.
    """
    n = len(affinity)
    scale = affinity.degrees.rsqrt().numpy()

    def times(x: NDArray[np.float64]) -> NDArray[np.float64]:
        product: NDArray[np.float64] = affinity.normalised_times(torch.from_numpy(x.reshape(n, -1))).numpy()
        return product.reshape(x.shape)

    if n <= max(DENSE, count + 1):
        largest, found = eigh(times(np.eye(n)))
    else:
        start = np.random.default_rng(0).normal(size=n)
        operator = LinearOperator((n, n), matvec=times, matmat=times, dtype=np.float64)
        largest, found = eigsh(operator, count, which="LA", v0=start)
    first = np.argsort(-largest, kind="stable")[:count]
    return 1 - largest[first], scale[:, None] * found[:, first]


def spectral_cut(affinity: Affinity, count: int, segments: int, seed: int) -> NDArray[np.int64]:
    """Cut a graph by k-means on its smallest eigenvectors but the first, which is constant.

    This is the numerical spectral clustering of SCCS's comparison (Shi, Malik 2000), and with the cosine
    affinity that of DSM (Melas-Kyriazi et al., CVPR 2022): 5 vectors, 15 segments there.

    Parameters
    ----------
    affinity : Affinity
        Its vectors are float64.
    count : int
        Number of eigenvectors, the constant one included.
    segments : int
        Number of segments; fewer where there are fewer nodes.
    seed : int

    Returns
    -------
    int64 (n,), the segment of each node.
    """
    _, vectors = eigenvectors(affinity, count)
    used = vectors[:, 1:] if vectors.shape[1] > 1 else vectors
    scaled = used * np.sqrt(float(affinity.degrees.sum()))  # so that no tolerance depends on the graph's size
    return kmeans_labels(scaled, min(segments, len(scaled)), seed, STARTS)


class DeepCut(Protocol):
    """The settings of DeepCut, as ``recipe.DeepCutTable`` has them."""

    loss: Literal["ncut", "cc"]
    alpha: float
    segments: int
    epochs: int
    seed: int


class _CutNetwork(nn.Module):
    """DeepCut's network: a graph convolution, ELU, a hidden layer, ELU, dropout, K outputs."""

    def __init__(self, dim: int, k: int) -> None:
        super().__init__()
        wide, narrow = HIDDEN
        self.convolution = nn.Linear(dim, wide)
        self.hidden = nn.Linear(wide, narrow)
        self.out = nn.Linear(narrow, k)

    def forward(self, mixed: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the soft assignment (n, K) of nodes whose vectors are mixed with those around them."""
        hidden = elu(self.hidden(elu(self.convolution(mixed))))
        found: Tensor = self.out(hidden if kept is None else hidden * kept)
        return found.softmax(dim=1)


def deep_cut(vectors: Tensor, settings: DeepCut) -> NDArray[np.int64]:
    """Cut a graph with a network that is trained on this graph alone (DeepCut, Aflalo et al., ICCVW 2023).

    Every graph begins with the same weights. AdamW with a rate of 1e-3, as in the published code. The
    convolution joins nodes whose similarity is above 0; for "cc" those above 1 / alpha, by what lies above.
    Two deviations: similarities are cosines, where the published code takes products of vectors of any length
    and their largest for 1; and segments are those of the trained network, without dropout, where it takes
    those that its last step began with.

    Parameters
    ----------
    vectors : Tensor float (n, d)
    settings : DeepCut
        ``segments`` is the number of outputs K, some of which may stay empty.

    Returns
    -------
    int64 (n,), the segment of each node.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = _CutNetwork(vectors.shape[1], settings.segments).to(vectors.dtype)
    alpha = settings.alpha if settings.loss == "cc" else 0.0
    affinity, unit = Affinity.of(vectors, Kernel(1.0, alpha, "cosine")), normalize(vectors, dim=1)
    mixed = affinity.normalised_times(vectors)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(settings.epochs):
        soft = network(mixed, dropped(len(vectors), HIDDEN[1], DROPPED, generator).to(vectors.dtype))
        if settings.loss == "ncut":
            value = ncut_loss(soft, affinity)
        else:
            value = correlation_loss(soft, unit, settings.alpha)
        optimiser.zero_grad()
        torch.autograd.backward(value)
        optimiser.step()
    with torch.no_grad():
        found: NDArray[np.int64] = network(mixed).argmax(dim=1).numpy()
    return found


def ncut_loss(soft: Tensor, affinity: Affinity) -> Tensor:
    """Return DeepCut's relaxed normalised cut of a soft assignment S (n, K).

    ``- tr(S^T A S) / tr(S^T D S) + | S^T S / |S^T S| - I / sqrt(K) |``, with Frobenius norms.
    """
    k = soft.shape[1]
    cut = affinity.inner(soft) / (affinity.degrees[:, None] * soft.square()).sum()
    shares = soft.T @ soft
    balanced = torch.eye(k, dtype=soft.dtype) / k**0.5
    unequal: Tensor = torch.linalg.norm(shares / torch.linalg.norm(shares) - balanced)
    return unequal - cut


def correlation_loss(soft: Tensor, unit: Tensor, alpha: float) -> Tensor:
    """Return DeepCut's correlation clustering loss of a soft assignment S (n, K).

    ``- sum((X X^T - 1 / alpha) * (S S^T))`` for the vectors X of length 1, so for cosines as they are, where
    the normalised cut has 0 in place of negative ones. The sum over all pairs is
    ``|X^T S|^2 - |sum_i S_i|^2 / alpha``. It is divided by the number of pairs, so that the step sizes of
    AdamW's epsilon do not depend on it.

    Parameters
    ----------
    soft : Tensor float (n, K)
    unit : Tensor float (n, d)
    alpha : float
        The largest cosine, 1, divided by it is where attraction turns into repulsion.
    """
    alike = (unit.T @ soft).square().sum() - soft.sum(dim=0).square().sum() / alpha
    return -alike / len(soft) ** 2
