"""The Poincaré ball of curvature -1 as a latent space; geoopt (Kochurov et al. 2020) does the geometry."""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vemseg.errors import UsageError
from vemseg.foreign import how_to_add

if TYPE_CHECKING:
    from geoopt import PoincareBall

EXTRA = "hyperbolic"
"""The extra of the package that brings geoopt."""


@cache
def ball() -> PoincareBall:
    """Return the ball.

    Raises
    ------
    UsageError
        Where geoopt is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # geoopt uses torch.jit, of whose end newer versions of torch warn
            from geoopt import PoincareBall
    except ImportError:
        raise UsageError(
            f"model.kind 'cihs' is trained with geoopt, which is missing; {how_to_add(EXTRA)}"
        ) from None
    return PoincareBall(c=1.0)


def repeatable() -> AbstractContextManager[None]:
    """Return a context in which geoopt gives the same numbers from its first call on.

    Its functions are compiled while they are used, and after some calls their last digits change.
    """
    context: AbstractContextManager[None] = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
    return context


class WrappedNormal:
    """A normal distribution on the tangent space at a point, wrapped onto the ball (Nagano et al. 2019).

    Parameters
    ----------
    mean : Tensor float (..., d)
        A point of the ball.
    deviation : Tensor float (..., d)
        Standard deviations, in hyperbolic length along the axes of the ball.
    """

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        self.mean, self.deviation = mean, deviation

    def sample(self, noise: Tensor) -> Tensor:
        """Return points that follow from standard normal noise (..., d), by a differentiable map."""
        space = ball()
        at_origin = self.deviation * noise / 2  # 2: the conformal factor of the ball at its origin
        points: Tensor = space.expmap(self.mean, space.transp0(self.mean, at_origin))
        return points

    def log_density(self, points: Tensor) -> Tensor:
        """Return the logarithm of the density at points (..., d), by hyperbolic volume: (...)."""
        space = ball()
        tangents = 2 * space.transp0back(self.mean, space.logmap(self.mean, points))
        flat = (
            -0.5 * (tangents / self.deviation).square() - self.deviation.log() - 0.5 * math.log(2 * math.pi)
        ).sum(dim=-1)
        density: Tensor = flat - (points.shape[-1] - 1) * log_sinh_ratio(space.dist(self.mean, points))
        return density


def log_sinh_ratio(r: Tensor) -> Tensor:
    """Return log(sinh(r) / r), by which the exponential map stretches lengths across; 0 at 0."""
    safe = r.clamp_min(1e-3)
    exact = safe + torch.log1p(-torch.exp(-2 * safe)) - torch.log(2 * safe)
    return torch.where(r < 1e-3, r.square() / 6, exact)


class Gyroplanes(nn.Module):
    """Signed distances of points from hyperplanes of the ball (Ganea et al., NeurIPS 2018).

    A plane is given by its normal at the origin and by how far along it, in units of its length, it lies.

    Parameters
    ----------
    dim, planes : int
        Dimensions of the ball, and number of hyperplanes.
    """

    def __init__(self, dim: int, planes: int) -> None:
        super().__init__()
        ball()
        self.normals = nn.Parameter(torch.empty(planes, dim))
        self.offsets = nn.Parameter(torch.empty(planes, 1))
        nn.init.kaiming_normal_(self.normals, a=math.sqrt(5))
        bound = 4 / math.sqrt(dim)
        nn.init.uniform_(self.offsets, -bound, bound)

    def forward(self, points: Tensor) -> Tensor:
        """Return distances, negative behind a plane: float32 (..., d) -> (..., planes)."""
        space, normals = ball(), self.normals.float()
        places = space.expmap0(normals * self.offsets.float())
        distances: Tensor = space.dist2plane(points[..., None, :], places, normals, signed=True)
        return distances
