"""Gaussian smoothing of vectors on their lattice.

Where scores are affine in the vectors, smoothing the scores instead would give the same labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TRUNCATE = 2.5
"""Distance from its centre, in standard deviations, at which the Gaussian is cut off."""

LEAST_SIGMA = 0.4
"""Least standard deviation, in lattice points, with which an axis is smoothed at all."""


def gaussian(sigma: float) -> NDArray[np.float32]:
    """Return the taps of a Gaussian cut off at ``TRUNCATE`` sigmas; one tap where sigma is too small."""
    if sigma < LEAST_SIGMA:
        return np.ones(1, np.float32)
    radius = int(TRUNCATE * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    normalised: NDArray[np.float32] = (taps / taps.sum()).astype(np.float32)
    return normalised


def smoothed(values: Tensor, kernels: Sequence[NDArray[np.float32]]) -> Tensor:
    """Smooth (z, y, x, c) along the first three axes; at the ends the last value is repeated.

    Summed tap by tap, so that a value does not depend on the box it is computed in.
    """
    for axis, taps in enumerate(kernels):
        if len(taps) > 1:
            values = _along(values, axis, taps)
    return values


def _along(values: Tensor, axis: int, taps: NDArray[np.float32]) -> Tensor:
    n, radius = values.shape[axis], len(taps) // 2
    index = torch.arange(-radius, n + radius).clamp_(0, n - 1)
    padded = values.index_select(axis, index.to(values.device))
    out = torch.zeros_like(values)
    for i, tap in enumerate(taps.tolist()):
        out.add_(padded.narrow(axis, i, n), alpha=tap)
    return out
