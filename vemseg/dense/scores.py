"""Scores of vectors, and their interpolation from lattice points to voxels, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.geometry import ZYX, Box
from vemseg.labelling import Labeller
from vemseg.tiling import Floats, Interpolation, interpolation

Interpolations = tuple[Interpolation, Interpolation, Interpolation]
"""Interpolation along z, y and x."""

STRIP_BYTES = 2**24
"""Bytes of values that are interpolated at a time."""

TILE_VOXELS = 2**15
"""Voxels that are labelled together: a few arrays of that size stay in a core's cache."""

PART_ROWS = 2**16
"""Most vectors that a head gets in one call."""


SMALLEST = 2.0**-24
"""The smallest number above 0 that float16 knows."""


def in_parts(head: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a head that gets ``PART_ROWS`` vectors at a time, so that its own arrays stay small."""

    def apply(vectors: Tensor) -> Tensor:
        rows = torch.split(vectors.reshape(-1, vectors.shape[-1]), PART_ROWS)
        values = torch.cat([head(part) for part in rows])
        return values.reshape(*vectors.shape[:-1], values.shape[-1])

    return apply


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

    Whole columns of voxels are compared class by class: three times as fast as looking for the best of K
    neighbouring numbers.

    Parameters
    ----------
    scores : Tensor float (z, y, x, K)
        At the lattice points that ``axes`` need, K <= 255.
    axes : three Interpolation
        From lattice points to voxels, z y x.

    Returns
    -------
    uint8 (z', y', x')
        1 + argmax; the lower class where scores are equal.
    """
    labels = np.empty(_shape(axes), np.uint8)
    for part, tile in _tiles(scores, axes):
        labels[part] = _best(tile.numpy()).T
    return labels


def rated_interpolated(
    scores: Tensor, axes: Interpolations, labeller: Labeller, ratings: Sequence[str]
) -> Rated:
    """Do what :func:`argmax_interpolated` does, and rate each voxel by its interpolated scores.

    Parameters
    ----------
    scores, axes
        As there.
    labeller : Labeller
        What gave the scores.
    ratings : sequence of str
        Names of ``RATINGS``.

    Returns
    -------
    tuple of arrays
        uint8 (z', y', x'), 1 + argmax; and each rating, (z', y', x') or (K, z', y', x').
    """
    labels = np.empty(_shape(axes), np.uint8)
    wanted = [RATINGS[name] for name in ratings]
    rated = [rating.empty(labels.shape, scores.shape[-1]) for rating in wanted]
    for part, tile in _tiles(scores, axes):
        labels[part] = _best(tile.numpy()).T
        for rating, out in zip(wanted, rated, strict=True):
            out[(..., *part)] = rating.of(labeller, tile.movedim(1, -1)).numpy().T
    return labels, *rated


Rated = tuple[NDArray[Any], ...]
"""Labels, and each rating of the voxels that was asked for."""


@dataclass(frozen=True)
class Rating:
    """What is told of each voxel beside its label.

    Attributes
    ----------
    dtype : type
    of : callable
        Returns the rating for a labeller and scores (..., K): one number (...), or a number for each class
        (..., K).
    each : bool
        Whether there is a number for each class.
    """

    dtype: type[np.generic]
    of: Callable[[Labeller, Tensor], Tensor]
    each: bool

    def channels(self, k: int) -> int | None:
        """Return how many channels it has for ``k`` classes; None where it has no axis of channels."""
        return k if self.each else None

    def empty(self, shape: Sequence[int], k: int) -> NDArray[Any]:
        """Return an array for it, (z, y, x) or (K, z, y, x)."""
        return np.empty((k, *shape) if self.each else tuple(shape), self.dtype)

    def bytes(self, k: int) -> int:
        """Return the bytes that it takes for a voxel."""
        return np.dtype(self.dtype).itemsize * (self.channels(k) or 1)


def _certain(labeller: Labeller, scores: Tensor) -> Tensor:
    """Return how certain the best class is, from 0 (not at all) to 255 (wholly)."""
    return labeller.confidence(scores).mul(255).round().to(torch.uint8)


def _behind(labeller: Labeller, scores: Tensor) -> Tensor:
    """Return how far the score of each class lies behind the best one: float16, 0 for the best.

    A class that lies behind never gets 0 by rounding, and a difference too large for float16 becomes the
    largest that it holds.
    """
    behind = scores.float() - scores.float().amax(dim=-1, keepdim=True)
    half = behind.clamp(min=torch.finfo(torch.float16).min).half()
    return torch.where((half == 0) & (behind < 0), -SMALLEST, half)


RATINGS = {"confidence": Rating(np.uint8, _certain, False), "scores": Rating(np.float16, _behind, True)}
"""What can be told of each voxel beside its label, by name."""


def _shape(axes: Interpolations) -> ZYX:
    """Return how many voxels are interpolated to along each axis."""
    z, y, x = (len(axis.left) for axis in axes)
    return z, y, x


def _tiles(scores: Tensor, axes: Interpolations) -> Iterator[tuple[tuple[int, slice, slice], Tensor]]:
    """Interpolate scores tile by tile: yield the place of a tile in the box, and its scores (x, K, y)."""
    z, y, x = axes
    height = max(1, STRIP_BYTES // (scores.element_size() * scores[0, 0].numel()))
    for i, (left, right, weight) in enumerate(zip(z.left, z.right, z.weight, strict=True)):
        plane = scores[left] if weight == 0 else torch.lerp(scores[left], scores[right], float(weight))
        for j in range(0, len(y.left), height):
            rows = _interpolate(plane, y, axis=0, part=slice(j, j + height))
            by_column = rows.flatten(1).T.contiguous().view(*rows.shape[1:], -1)  # (x, K, y')
            width = max(1, TILE_VOXELS // len(rows))
            for k in range(0, len(x.left), width):
                tile = _interpolate(by_column, x, axis=0, part=slice(k, k + width))
                yield (i, slice(j, j + height), slice(k, k + width)), tile


def _best(scores: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return 1 + the first class of the highest score: (x, K, y) -> (x, y)."""
    highest = scores[:, 0].copy()
    label = np.ones(highest.shape, np.uint8)
    higher = np.empty(highest.shape, bool)
    for k in range(1, scores.shape[1]):
        np.greater(scores[:, k], highest, out=higher)
        np.maximum(scores[:, k], highest, out=highest)
        np.maximum(label, higher.view(np.uint8) * np.uint8(k + 1), out=label)
    return label


def _interpolate(values: Tensor, axis_rule: Interpolation, axis: int, part: slice = slice(None)) -> Tensor:
    """Interpolate one axis of an array of three at some of its voxels."""
    left = torch.from_numpy(axis_rule.left[part])
    if not axis_rule.weight.any():
        return values.index_select(axis, left)
    right = torch.from_numpy(axis_rule.right[part])
    shape = [1, 1, 1]
    shape[axis] = len(left)
    weight = torch.from_numpy(axis_rule.weight[part]).to(values.dtype).reshape(shape)
    return torch.lerp(values.index_select(axis, left), values.index_select(axis, right), weight)
