"""Scores interpolated from lattice points to voxels, strip by strip, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.geometry import Box
from vemseg.tiling import Floats, Interpolation, interpolation

Interpolations = tuple[Interpolation, Interpolation, Interpolation]
"""Interpolation along z, y and x."""

STRIP_BYTES = 2**26


def interpolations(positions: tuple[Floats, Floats, Floats], box: Box) -> Interpolations:
    """Return how each axis of a box of source voxels is interpolated from lattice positions."""
    z, y, x = (
        interpolation(places, start, stop)
        for places, start, stop in zip(positions, box.start, box.stop, strict=True)
    )
    return z, y, x


def interpolated(values: Tensor, axes: Interpolations) -> Iterator[tuple[int, slice, Tensor]]:
    """Interpolate from lattice points to voxels, strip by strip.

    Parameters
    ----------
    values : Tensor float (z, y, x, c)
        At the lattice points that ``axes`` need.
    axes : three Interpolation
        From lattice points to voxels, z y x.

    Yields
    ------
    plane : int
        Index of the strip along z.
    rows : slice
        Its rows, as an index along y.
    strip : Tensor (rows, x', c)
        About ``STRIP_BYTES`` of values.
    """
    z, y, x = axes
    rows = max(1, STRIP_BYTES // (values.element_size() * values.shape[-1] * len(x.left)))
    for i, (left, right, weight) in enumerate(zip(z.left, z.right, z.weight, strict=True)):
        plane = values[left] if weight == 0 else torch.lerp(values[left], values[right], float(weight))
        for j in range(0, len(y.left), rows):
            part = slice(j, min(j + rows, len(y.left)))
            yield i, part, _interpolate(_interpolate(plane, y, axis=0, part=part), x, axis=1)


def argmax_interpolated(scores: Tensor, axes: Interpolations) -> NDArray[np.uint8]:
    """Interpolate scores as :func:`interpolated` does and take the best class.

    Returns
    -------
    uint8 (z', y', x')
        1 + argmax; the lower class where scores are equal.
    """
    z, y, x = axes
    labels = np.empty((len(z.left), len(y.left), len(x.left)), np.uint8)
    for plane, rows, strip in interpolated(scores, axes):
        labels[plane, rows] = (strip.argmax(dim=-1) + 1).to(torch.uint8).numpy()
    return labels


def _interpolate(values: Tensor, axis_rule: Interpolation, axis: int, part: slice = slice(None)) -> Tensor:
    """Interpolate one axis of (y, x, K) values at some of its voxels."""
    left = torch.from_numpy(axis_rule.left[part])
    if not axis_rule.weight.any():
        return values.index_select(axis, left)
    right = torch.from_numpy(axis_rule.right[part])
    shape = [1, 1, 1]
    shape[axis] = len(left)
    weight = torch.from_numpy(axis_rule.weight[part]).to(values.dtype).reshape(shape)
    return torch.lerp(values.index_select(axis, left), values.index_select(axis, right), weight)
