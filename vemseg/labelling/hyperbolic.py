"""K-means in hyperbolic space (Hsu et al., NeurIPS 2021): the nearest of K centroids by hyperbolic distance.

A vector v is a tangent at the origin of the Poincaré ball of curvature -1 and stands for the point
``tanh(|v|) v / |v|``, whose distance from the origin is 2 |v|. Points themselves could not be stored in
float16: those far from the origin lie so close to the border of the ball that they would be rounded to it.

The centroid of a class is its Fréchet mean, to which one step of the iteration of Lou et al. (ICML 2020,
algorithm 1) is taken in each iteration of k-means; the reference code of CIHS takes ten. A step never raises
the sum of squared distances, and none is left to take only where each centroid is the mean of its class: with
one step as with ten, k-means descends to a local optimum, but not always to the same one.
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
"""Longer tangents are shortened to this.

At this length, rounding a direction to float64 moves a point by about a thousandth; every further unit of
length makes that seven times as much.
"""

SEARCH = 20_000
"""Number of vectors on which the restarts compete; the best is refined on the whole sample."""

EXACT_BYTES = 24
"""Bytes that are held for each number of a vector: three copies in float64."""

ROW_BYTES = 192
"""Bytes that are held for each vector besides, as measured: lengths, distances, weights, classes."""

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
        """Return the memory that fitting takes: for the sample, and for its points in polar coordinates."""
        smaller = f"a smaller sample (--set cluster.sample={n // 4})"
        need = n * ((SAMPLE_BYTES + EXACT_BYTES) * dim + ROW_BYTES)
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


class Polar(NamedTuple):
    """Points by the lengths and directions of their tangents.

    Attributes
    ----------
    far : Tensor (n, 1)
        Lengths, at most ``FARTHEST``.
    along : Tensor (n, d)
        Directions, 0 for the tangent 0.
    swell : Tensor (n, 1)
        ``sinh(2 far)``.
    """

    far: Tensor
    along: Tensor
    swell: Tensor


class Nearest(NamedTuple):
    """Distances from the nearest centroid, float64 (n,), and the numbers of these centroids, int64 (n,)."""

    apart: Tensor
    label: Tensor


def polar(tangents: Tensor) -> Polar:
    """Return tangents (n, d) as lengths and directions."""
    length = tangents.norm(dim=1, keepdim=True)
    far = length.clamp_max(FARTHEST)
    return Polar(far, tangents / length.clamp_min(torch.finfo(length.dtype).tiny), torch.sinh(2 * far))


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the hyperbolic distances of points, given as tangents: (n, d), (m, d) -> (n, m)."""
    return arcosh1p(excess(polar(a), polar(b)))


def excess(a: Polar, b: Polar) -> Tensor:
    """Return by how much the hyperbolic cosines of the distances exceed 1: n points, m points -> (n, m).

    By the law of cosines, written with differences of lengths and directions, so that nothing cancels.
    """
    chord = torch.cdist(a.along, b.along, compute_mode="donot_use_mm_for_euclid_dist").square() / 2
    radial = torch.sinh(a.far - b.far.T).square()
    return 2 * radial + a.swell * b.swell.T * chord


def arcosh1p(x: Tensor) -> Tensor:
    """Return ``arcosh(1 + x)``, of any shape."""
    return torch.log1p(x + x.sqrt() * (x + 2).sqrt())


def assigned(points: Polar, centres: Tensor) -> Nearest:
    """Return which of K centres (K, d), given as tangents, is nearest to each point, and how far it is.

    Points are taken so many at a time that four matrices of distances have ``CHUNK_BYTES``.
    """
    ends, rows = polar(centres), max(1, CHUNK_BYTES["cpu"] // (4 * 8 * len(centres)))
    parts = zip(*(torch.split(column, rows) for column in points), strict=True)
    least, label = zip(*(excess(Polar(*part), ends).min(dim=1) for part in parts), strict=True)
    return Nearest(arcosh1p(torch.cat(least)), torch.cat(label))


def stepped(points: Polar, near: Nearest, centres: Tensor) -> Tensor:
    """Take a step from the centre of each class towards the Fréchet mean of its points.

    On the hyperboloid, the points of a class add up, by their weights, to an arrow of length c along the axis
    and s across it, which points to the new centre: a tangent of length ``artanh(s / c) / 2``. Far from the
    origin ``c - s`` would cancel, so it is added up from what each point adds to it. Directions are added up
    by how they differ from that of the present centre, so that sums over many points hardly round once the
    centre has almost settled.

    Parameters
    ----------
    points : Polar
        Of n points.
    near : Nearest
        Their classes, and their distances from the centres of these.
    centres : Tensor float64 (K, d)
        As tangents.

    Returns
    -------
    Tensor float64 (K, d)
        New centres, as tangents; the origin for a class without points.
    """
    label, k, tiny = near.label, len(centres), torch.finfo(centres.dtype).tiny
    apart = near.apart[:, None]
    weight = torch.where(apart > 1e-6, apart / torch.sinh(apart.clamp_min(1e-6)), 1.0)
    pull = weight * points.swell
    before = polar(centres).along
    turn = added(before[label].sub_(points.along).mul_(pull), label, k)
    across = added(pull, label, k) * before - turn
    s = across.norm(dim=1, keepdim=True)
    along = across / s.clamp_min(tiny)
    chord = along[label].sub_(points.along).norm(dim=1, keepdim=True).square() / 2
    gap = added(weight * torch.exp(-2 * points.far) + pull * chord, label, k)
    moved: Tensor = along * torch.log1p(2 * s / gap.clamp_min(tiny)) / 4
    return moved


def added(rows: Tensor, label: Tensor, k: int) -> Tensor:
    """Return the sums of the rows of each class: (n, c), int64 (n,) -> (K, c)."""
    return rows.new_zeros(k, rows.shape[1]).index_add_(0, label, rows)


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
    points = polar(tangents)
    near = assigned(points, centres)
    for _ in range(iterations):
        moved = stepped(points, near, centres)
        moved[near.label.bincount(minlength=len(centres)) == 0] = tangents[near.apart.argmax()]
        change = (moved - centres).square().sum()
        centres = moved
        near = assigned(points, centres)
        if change < SETTLED:
            break
    return Found(centres, float(near.apart.square().mean()))
