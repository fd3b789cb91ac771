"""The three losses of SCCS (Jiang et al., AAAI), each with the form in which it can be minimised."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vemseg.graphs.affinity import Affinity
from vemseg.graphs.network import unit_columns


def spectral_loss(coordinates: Tensor, affinity: Affinity, mu: float) -> Tensor:
    """Return how far coordinates are from eigenvectors of the normalised Laplacian.

    Printed (equation 2): ``sum over i != j of z_i.z_j + mu (z_i^T L z_j)^2`` for the columns z of Z. That has
    no least value, because the first term has a sign, and Z = 0 makes it 0. Computed, as in the later code of
    the same group: the columns are brought to length 1, and the loss is the mean square of the entries of
    ``Z^T Z - I`` plus mu times the mean absolute value of the entries of ``Z^T L Z`` off the diagonal. It is
    0 for orthogonal eigenvectors and positive for everything else.

    Parameters
    ----------
    coordinates : Tensor float (n, u)
        Z, of any scale.
    affinity : Affinity
        Gives the Laplacian.
    mu : float
        Weight of the second term.
    """
    z = unit_columns(coordinates)
    u = z.shape[1]
    apart = (z.T @ z - torch.eye(u, dtype=z.dtype, device=z.device)).square().mean()
    if u == 1:
        return apart
    mixed = z.T @ affinity.laplacian_times(z)
    off = mixed - torch.diag(torch.diagonal(mixed))
    return apart + mu * off.abs().sum() / (u * (u - 1))


def clustering_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy of sigmoid outputs and targets, its mean over nodes and classes (3).

    Parameters
    ----------
    logits : Tensor float (n, K)
    targets : Tensor int64 (n,)
        The class of each node by incremental k-means.
    """
    wanted = torch.nn.functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)


def smoothness_loss(probabilities: Tensor, affinity: Affinity, eta: float, nu: float) -> Tensor:
    """Return how unlike the classes of similar nodes are, and how far each node is from one class (4).

    ``1/n^2 sum_ij (a_ij - eta) (1 - cos(P_i, P_j)) + nu |sum_i |P_i|_1 / n - 1|``, as printed. The second
    term is always 0 for rows that sum to 1, so the outputs must be sigmoids. The first is computed without a
    matrix of all pairs of rows: for rows Q of length 1 the sum of ``(a_ij - eta) Q_i.Q_j`` is
    ``tr(Q^T A Q) - eta |sum_i Q_i|^2``.

    Parameters
    ----------
    probabilities : Tensor float (n, K), 0 to 1
    affinity : Affinity
    eta, nu : float
        The similarity above which nodes should agree; the weight of the second term.
    """
    n = len(probabilities)
    rows = normalize(probabilities, dim=1)
    alike = affinity.inner(rows) - eta * rows.sum(dim=0).square().sum()
    apart = (affinity.degrees.sum() - eta * n**2 - alike) / n**2
    return apart + nu * (probabilities.sum() / n - 1).abs()
