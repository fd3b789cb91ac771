"""K-means in hyperbolic space (Hsu et al., NeurIPS 2021): the nearest of K centroids by hyperbolic distance.

A vector v is a tangent at the origin of the Poincaré ball of curvature -1 and stands for the point
``tanh(|v|) v / |v|``, whose distance from the origin is 2 |v|. Points themselves could not be stored in
float16: those far from the origin lie so close to the border of the ball that they would be rounded to it.

The centroid of a class is its Fréchet mean, to which one step of the iteration of Lou et al. (ICML 2020,
algorithm 1) is taken in each iteration of k-means; the reference code of CIHS takes ten. A step never raises
the sum of squared distances, so k-means ends at the same centroids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.context import Context
from vemseg.labelling.base import SAMPLE_BYTES, Demand, Labeller, Sample, Single, Source
from vemseg.labelling.centroids import refuse_few
from vemseg.labelling.columns import CHUNK_BYTES, prepared
from vemseg.recipe import HyperbolicTable

FARTHEST = 15.0
"""Longer tangents are shortened to this: points farther from the origin are not told apart in float64."""

SEARCH = 20_000
"""Number of vectors on which the restarts compete; the best is refined on the whole sample."""

EXACT_BYTES = 24
"""Bytes that are held for each number of a vector, three copies in float64, and twice for each distance."""

SETTLED = 1e-10
"""The fit ends once the squared movements of all centroids in the tangent space add up to less."""


@dataclass(frozen=True, eq=False)
class HyperbolicLabeller(Labeller):
    """Classes whose scores are minus the hyperbolic distance from their centroid.

    Attributes
    ----------
    centres : float32 (K, d)
        The centroids, as tangents at the origin.
    """

    centres: Single

    @property
    def k(self) -> int:
        """Number of classes."""
        return len(self.centres)

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        return int(self.centres.shape[1])

    def scores(self, vectors: Tensor) -> Tensor:
        """Return class scores: float32 (..., d) -> float32 (..., K), on the device of the vectors."""
        device = vectors.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        centres = torch.from_numpy(self.centres).to(device, exact)
        flat = vectors.reshape(-1, self.dim)
        rows = max(1, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"]) // (8 * self.k))
        parts = [-distances(part.to(exact), centres).float() for part in torch.split(flat, rows)]
        return torch.cat(parts).view(*vectors.shape[:-1], self.k)

    @classmethod
    def demands(cls, table: HyperbolicTable, n: int, dim: int, codes: Single | None) -> list[Demand]:
        """Return the memory that fitting takes: for the sample, and for its distances from centroids."""
        smaller = f"a smaller sample (--set cluster.sample={n // 4})"
        need = n * ((SAMPLE_BYTES + EXACT_BYTES) * dim + EXACT_BYTES * 2 * table.k)
        return [Demand(f"fit classes to {n} vectors", need, smaller)]

    def reordered(self, order: NDArray[np.int64]) -> Self:
        """Return the same classes under other numbers."""
        return type(self)(self.centres[order], metadata=self.metadata)

    @classmethod
    def fit(cls, table: HyperbolicTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Find classes by k-means; restarts (k-means++) compete on the first ``SEARCH`` vectors."""
        data, _ = prepared(table, sample)
        refuse_few(data, table.k, table)
        tangents = torch.from_numpy(data).double()
        search = tangents[: max(SEARCH, table.k)]
        found = [
            lloyd(
                search, spread(search, table.k, np.random.default_rng([table.seed, i])), table.max_iterations
            )
            for i in range(table.restarts)
        ]
        best = min(found, key=lambda one: one.cost).centres
        if len(search) < len(tangents):
            best = lloyd(tangents, best, table.max_iterations).centres
        return cls(best.float().numpy())


class Found(NamedTuple):
    """Centroids as tangents, float64 (K, d), and the mean squared distance of vectors from the nearest."""

    centres: Tensor
    cost: float


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the hyperbolic distances of points, given as tangents at the origin: (n, d), (m, d) -> (n, m).

    By the law of cosines, written with differences of lengths and directions, so that nothing cancels.
    """
    (far_a, along_a), (far_b, along_b) = polar(a), polar(b)
    chord = torch.cdist(along_a, along_b, compute_mode="donot_use_mm_for_euclid_dist").square() / 2
    radial = torch.sinh(far_a - far_b.T).square()
    excess = 2 * radial + torch.sinh(2 * far_a) * torch.sinh(2 * far_b).T * chord
    return torch.log1p(excess + excess.sqrt() * (excess + 2).sqrt())


def polar(tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Return lengths (n, 1), at most ``FARTHEST``, and directions (n, d) of tangents, 0 for the tangent 0."""
    far = tangents.norm(dim=1, keepdim=True)
    return far.clamp_max(FARTHEST), tangents / far.clamp_min(torch.finfo(far.dtype).tiny)


def stepped(tangents: Tensor, centre: Tensor) -> Tensor:
    """Take a step from a centre (d,) towards the Fréchet mean of points, all as tangents: (n, d) -> (d,)."""
    far, along = polar(tangents)
    apart = distances(tangents, centre[None])
    bent = torch.where(apart > 1e-6, apart / torch.sinh(apart.clamp_min(1e-6)), 1.0)
    weight = bent * torch.cosh(far).square()
    points = torch.tanh(far) * along
    total = (weight * (1 + torch.tanh(far).square())).sum()
    moment = (weight * points).sum(dim=0)
    mean = 2 * moment / (total + (total.square() - 4 * moment.square().sum()).clamp_min(0).sqrt())
    radius = mean.norm()
    moved: Tensor = (
        mean / radius.clamp_min(torch.finfo(mean.dtype).tiny) * torch.atanh(radius).clamp_max(FARTHEST)
    )
    return moved


def spread(tangents: Tensor, k: int, rng: np.random.Generator) -> Tensor:
    """Choose K of the points to begin with, far ones rather than near ones (k-means++): (n, d) -> (K, d)."""
    chosen = [int(rng.integers(len(tangents)))]
    nearest = torch.full((len(tangents),), torch.inf, dtype=tangents.dtype)
    for _ in range(1, k):
        last = distances(tangents, tangents[chosen[-1:]])[:, 0]
        nearest = torch.minimum(nearest, last.square())
        reached = nearest.cumsum(0)
        place = torch.searchsorted(reached, torch.tensor(rng.random(), dtype=reached.dtype) * reached[-1])
        chosen.append(min(int(place), len(tangents) - 1))
    return tangents[chosen].clone()


def lloyd(tangents: Tensor, centres: Tensor, iterations: int) -> Found:
    """Move centroids until they settle; one without points is put where the farthest point is.

    Parameters
    ----------
    tangents : Tensor float64 (n, d)
    centres : Tensor float64 (K, d)
    iterations : int
        Largest number of them.
    """
    for _ in range(iterations):
        nearest, label = distances(tangents, centres).min(dim=1)
        moved = torch.stack(
            [
                stepped(tangents[label == i], centre)
                if bool((label == i).any())
                else tangents[nearest.argmax()]
                for i, centre in enumerate(centres)
            ]
        )
        change = (moved - centres).square().sum()
        centres = moved
        if change < SETTLED:
            break
    cost = distances(tangents, centres).amin(dim=1).square().mean()
    return Found(centres, float(cost))
