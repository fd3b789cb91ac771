"""How alike the regions of a graph are, and the spectra that follow from it.

The affinity joins every pair of regions of a graph, whether they touch or not (SCCS, section "spG
Construction"). It is computed from vectors in strips of rows, so a graph of any size can be multiplied by it
in bounded memory, also where gradients flow back through the product; a small one is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

STRIP = 1024
"""Rows of the affinity that are computed at a time."""

HELD = 4096
"""The affinity of a graph of at most this many nodes is kept; that of a larger one is computed again for
every product."""

COMPARED = 2048
"""Vectors of a reference graph between which distances are looked at, to find the scale of an affinity."""


Distance = Literal["plain", "squared", "cosine"]
"""The form of a similarity, see :func:`similarities`."""


class KernelSettings(Protocol):
    """The settings of an affinity, as recipes have them."""

    kappa: float | Literal["auto"]
    density: float
    alpha: float
    distance: Distance


@dataclass(frozen=True)
class Kernel:
    """How similar vectors are.

    Attributes
    ----------
    kappa : float
        What distances are divided by; the cosine has no use for it.
    alpha : float
        Similarities below 1 / alpha become 0; none do where it is 0.
    distance : {"plain", "squared", "cosine"}
    """

    kappa: float
    alpha: float
    distance: Distance

    @classmethod
    def of(cls, settings: KernelSettings, reference: Tensor) -> Kernel:
        """Return the kernel of some settings; where kappa is "auto", it follows from a reference graph.

        SCCS takes a kappa of 2, which belongs to its own encoder: vectors of another one are farther apart
        or nearer. Two vectors are joined where their distance (its square with "squared") is below kappa
        times the logarithm of alpha. So the kappa that joins a share of all pairs is the quantile of their
        distances at this share, divided by that logarithm.

        Parameters
        ----------
        settings : KernelSettings
            ``density`` is the share of pairs to join.
        reference : Tensor float (n, d)
            The vectors of the reference graph. At most ``COMPARED`` of them are compared, evenly spaced.
        """
        kappa = 1.0 if settings.distance == "cosine" else settings.kappa
        if kappa == "auto":
            kappa = _suited(settings, reference)
        return cls(kappa, settings.alpha, settings.distance)


def _suited(settings: KernelSettings, reference: Tensor) -> float:
    """Return the kappa that joins a share of the pairs of a graph, to four digits; 1 where all are equal."""
    some = reference[:: -(-len(reference) // COMPARED)].double()
    apart = torch.pdist(some - some.mean(dim=0))
    if settings.distance == "squared":
        apart = apart.square()
    different = apart[apart > 0]
    if not len(different):
        return 1.0
    place = min(int(settings.density * len(apart)), len(apart) - 1)
    found = max(float(apart.sort().values[place]), float(different.min()))
    return float(f"{found / math.log(settings.alpha):.4g}")


def similarities(rows: Tensor, columns: Tensor, kernel: Kernel) -> Tensor:
    """Return how alike vectors are, before weak similarities are cut off.

    SCCS prints ``exp(-|F_i - F_j|^2 / kappa)``. The later code of the same group computes
    ``exp(-|F_i - F_j| / kappa)`` with the same kappa of 2, which is "plain" here; "squared" is the printed
    form. "cosine" is the affinity of DSM and of DeepCut, ``max(cos(F_i, F_j), 0)``.

    Parameters
    ----------
    rows, columns : Tensor float (m, d), (n, d)
    kernel : Kernel

    Returns
    -------
    Tensor float (m, n), between 0 and 1.
    """
    if kernel.distance == "cosine":
        a, b = (torch.nn.functional.normalize(side, dim=1) for side in (rows, columns))
        return (a @ b.T).clamp_(0, 1)
    apart = torch.cdist(rows, columns, compute_mode="use_mm_for_euclid_dist")
    if kernel.distance == "squared":
        apart = apart.square_()
    return apart.div_(-kernel.kappa).exp_()


@dataclass(frozen=True)
class Affinity:
    """The sparsified affinity A of the regions of a graph (SCCS, equation 1).

    ``A = max(S - max(S) / alpha, 0)`` for the similarities S. Their largest one is that of a region with
    itself, 1, so everything below 1 / alpha becomes 0 and the diagonal is 1 - 1 / alpha: no region is
    isolated, and degrees are positive. With an alpha of 0 nothing is cut off. A is symmetric, and constant
    to whatever is trained: gradients pass through products to what A is multiplied by, never to the vectors.

    Attributes
    ----------
    vectors : Tensor float (n, d)
        Those of the regions, less their mean: distances stay the same and lose fewer digits.
    kernel : Kernel
    """

    vectors: Tensor
    kernel: Kernel

    @classmethod
    def of(cls, vectors: Tensor, kernel: Kernel) -> Affinity:
        """Return the affinity of vectors (n, d), through which no gradient reaches them."""
        vectors = vectors.detach()
        centred = vectors if kernel.distance == "cosine" else vectors - vectors.mean(dim=0)
        return cls(centred, kernel)

    def __len__(self) -> int:
        return len(self.vectors)

    def strips(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows of A, strip by strip: their places, and a tensor (m, n)."""
        if len(self) <= HELD:
            yield from self._held
        else:
            yield from self._computed()

    @cached_property
    def _held(self) -> list[tuple[slice, Tensor]]:
        return list(self._computed())

    def _computed(self) -> Iterator[tuple[slice, Tensor]]:
        cut = 1.0 / self.kernel.alpha if self.kernel.alpha else 0.0
        for start in range(0, len(self), STRIP):
            rows = slice(start, min(start + STRIP, len(self)))
            strip = similarities(self.vectors[rows], self.vectors, self.kernel)
            strip[:, rows].fill_diagonal_(1.0)
            yield rows, strip.sub_(cut).clamp_(min=0)

    @cached_property
    def degrees(self) -> Tensor:
        """The sum of each row: (n,), at least 1 - 1 / alpha."""
        return torch.cat([strip.sum(dim=1) for _, strip in self.strips()])

    def times(self, values: Tensor) -> Tensor:
        """Return A @ values for values (n, c)."""
        found: Tensor = _Product.apply(values, self)
        return found

    def inner(self, values: Tensor) -> Tensor:
        """Return the trace of values^T A values for values (n, c), whose gradient takes no second product."""
        found: Tensor = _Inner.apply(values, self)
        return found

    def normalised_times(self, values: Tensor) -> Tensor:
        """Return D^-1/2 A D^-1/2 @ values, where D holds the degrees, for values (n, c)."""
        scale = self.degrees.rsqrt()[:, None]
        return scale * self.times(scale * values)

    def laplacian_times(self, values: Tensor) -> Tensor:
        """Return L @ values for the normalised Laplacian L = I - D^-1/2 A D^-1/2 and values (n, c).

        SCCS prints L = D - A and speaks of the normalised one; the later code of the same group has I minus
        the normalised affinity, as here.
        """
        return values - self.normalised_times(values)

    @property
    def density(self) -> Tensor:
        """The share of pairs of different regions whose affinity is not 0, float64; 1 for one region."""
        n = len(self)
        entries = torch.stack([torch.count_nonzero(strip) for _, strip in self.strips()]).sum()
        return (entries - n).double() / (n * (n - 1)) if n > 1 else torch.ones_like(entries).double()

    def dense(self) -> Tensor:
        """Return A as one tensor (n, n)."""
        return torch.cat([strip for _, strip in self.strips()])


class _Product(torch.autograd.Function):
    """A @ values. Autograd would keep every strip of A, n^2 numbers; this computes them again."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, affinity: Affinity) -> Tensor:
        ctx.affinity = affinity  # type: ignore[attr-defined]
        # Few columns are multiplied several times as fast as few rows.
        return torch.cat([(values.T @ strip.T).T for _, strip in affinity.strips()])

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.affinity.times(gradient), None  # type: ignore[attr-defined]


class _Inner(torch.autograd.Function):
    """The sum of values * (A @ values), whose gradient is 2 A @ values."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, affinity: Affinity) -> Tensor:
        product = affinity.times(values)
        ctx.save_for_backward(product)
        return (values * product).sum()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (product,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return 2 * gradient * product, None
