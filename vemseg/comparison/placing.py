"""The part of space that several volumes show, on the same voxels.

Voxel sizes and places decide what belongs together. Along each axis the grid is that of the finest volume;
the others are looked up at the centres of its voxels, so labels stay labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.volume import Cropped, Nearest, Volume

SAME_EDGE = 0.01
"""Voxel edges that differ by no more than this fraction are the same: files round them."""

_NEARLY = 1e-6


@dataclass(frozen=True)
class Span:
    """One axis of a volume: ``n`` voxels of ``edge`` nm each, the first of which begins at ``corner`` nm."""

    n: int
    edge: float
    corner: float

    @property
    def end(self) -> float:
        """Where the last voxel ends."""
        return self.corner + self.n * self.edge

    def like(self, other: Span) -> bool:
        """Tell whether another axis has voxels of the same edge."""
        return abs(self.edge - other.edge) <= SAME_EDGE * min(self.edge, other.edge)

    def meets(self, other: Span) -> tuple[int, int]:
        """Return the first and one past the last of this axis' voxels whose centres another axis covers."""
        if self.like(other):
            first = round((other.corner - self.corner) / self.edge)
            return max(first, 0), min(first + other.n, self.n)
        start = math.ceil((other.corner - self.corner) / self.edge - 0.5 - _NEARLY)
        stop = math.floor((other.end - self.corner) / self.edge - 0.5 - _NEARLY) + 1
        return max(start, 0), min(stop, self.n)

    def part(self, start: int, stop: int) -> Span:
        """Return some of its voxels."""
        return Span(stop - start, self.edge, self.corner + start * self.edge)

    def index(self, other: Span) -> NDArray[np.intp]:
        """Return which of this axis' voxels holds each voxel of another axis, by their centres."""
        if self.like(other):
            first = round((other.corner - self.corner) / self.edge)
            return np.clip(np.arange(first, first + other.n), 0, self.n - 1)
        centres = other.corner + (np.arange(other.n) + 0.5) * other.edge
        found = np.floor((centres - self.corner) / self.edge + _NEARLY).astype(np.intp)
        held: NDArray[np.intp] = np.clip(found, 0, self.n - 1)
        return held


def together(volumes: Sequence[Volume], finest_of: int) -> list[Volume]:
    """Return the part that all volumes show, each on the same voxels.

    Parameters
    ----------
    volumes : sequence of Volume
        Each of known voxel size. One without a place begins at zero. Where all begin at zero, or none says
        where, their corners fall together; else their first voxels' centres lie where they say.
    finest_of : int
        The grid is that of the finest of the first so many volumes, along each axis.

    Returns
    -------
    list of Volume
        Of one shape, in the same order. A volume that lies on the grid is handed out as it is, or cropped.

    Raises
    ------
    InputError
        Where they have no voxel in common.
    """
    spans = [_spans(volume, centred=any(_is_moved(v) for v in volumes)) for volume in volumes]
    grid = []
    for axis, name in enumerate("zyx"):
        along = [each[axis] for each in spans]
        finest = along[0]
        for span in along[1:finest_of]:
            if span.edge < finest.edge and not span.like(finest):
                finest = span
        meetings = [finest.meets(span) for span in along]
        start, stop = max(a for a, _ in meetings), min(b for _, b in meetings)
        if stop <= start:
            raise InputError(_apart(volumes, along, name))
        grid.append(finest.part(start, stop))
    size: VoxelSize = (grid[0].edge, grid[1].edge, grid[2].edge)
    return [_on(volume, own, grid, size) for volume, own in zip(volumes, spans, strict=True)]


def _is_moved(volume: Volume) -> bool:
    return volume.origin is not None and any(volume.origin)


def _spans(volume: Volume, *, centred: bool) -> list[Span]:
    assert volume.voxel_size is not None
    along = zip(volume.shape, volume.voxel_size, volume.origin or (0.0, 0.0, 0.0), strict=True)
    return [Span(n, edge, at - edge / 2 if centred else 0.0) for n, edge, at in along]


def _on(volume: Volume, own: Sequence[Span], grid: Sequence[Span], size: VoxelSize) -> Volume:
    """Return a volume on the voxels of a grid that it covers."""
    index = [span.index(wanted) for span, wanted in zip(own, grid, strict=True)]
    if all(span.like(wanted) for span, wanted in zip(own, grid, strict=True)):
        z, y, x = (int(along[0]) for along in index)
        start: ZYX = (z, y, x)
        box = Box(start, (z + len(index[0]), y + len(index[1]), x + len(index[2])))
        return volume if box == volume.box else Cropped(volume, box)
    return Nearest(volume, index, size)


def _apart(volumes: Sequence[Volume], along: Sequence[Span], axis: str) -> str:
    where = ", ".join(
        f"{volume.name} from {span.corner:.6g} to {span.end:.6g} nm"
        for volume, span in zip(volumes, along, strict=True)
    )
    return (
        f"the volumes lie apart along {axis}: {where}; --crop says which part of the larger one the other "
        "shows, and --ignore-place compares voxel by voxel"
    )
