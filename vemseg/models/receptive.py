"""Which pixels the vectors of a U-Net depend on, level by level.

A 3 x 3 convolution looks one pixel of its level beyond its output, and so does the first layer, which halves
the resolution. Pooling and enlarging stay within the coarser pixels. So what lies around the wanted pixels is
needed in full only by the first layers: less of it the later a layer comes, and none by the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class Needs:
    """The pixels of each level, along one axis, that some of the finest level's outputs are computed from.

    Attributes
    ----------
    down : tuple of range
        Of each level, fine to coarse: what enters its convolutions on the way down. At the finest level that
        is what the first layer gives, of twice as many voxels each.
    up : tuple of range
        Of each level: what is handed on upwards. At the finest level these are the wanted pixels.
    """

    down: tuple[range, ...]
    up: tuple[range, ...]

    @classmethod
    def of(cls, wanted: range, n: int, levels: int, layers: int) -> Self:
        """Return what is needed.

        Parameters
        ----------
        wanted : range
            Pixels of the finest level.
        n : int
            Number of these in the window; a multiple of ``2 ** (levels - 1)``.
        levels, layers : int
            Of the network; ``layers`` convolutions of each level on the way down, and one on the way up.
        """
        up, down = [wanted], []
        for level in range(levels - 1):
            up.append(_halved(_grown(up[-1], 1, n >> level)))
        needed = up[-1]
        for level in reversed(range(levels)):
            entering = _grown(needed, layers + (level == 0), n >> level)
            if level < levels - 1:  # it is pooled
                entering = _doubled(_halved(entering))
            down.append(entering)
            needed = _doubled(entering)
        return cls(tuple(reversed(down)), tuple(up))

    @property
    def voxels(self) -> slice:
        """The voxels of the window that the first layer is given."""
        return slice(2 * self.down[0].start, 2 * self.down[0].stop)


@dataclass(frozen=True)
class Part:
    """Maps (..., y, x) of a part of a window, and where they lie in it."""

    maps: Tensor
    rows: range
    columns: range

    def cut(self, rows: range, columns: range) -> Tensor:
        """Return the maps of a part of this one."""
        y = slice(rows.start - self.rows.start, rows.stop - self.rows.start)
        x = slice(columns.start - self.columns.start, columns.stop - self.columns.start)
        return self.maps[..., y, x]

    def pooled(self, maps: Tensor) -> Part:
        """Return maps of half the resolution, which lie where this part does."""
        return Part(maps, _halved(self.rows), _halved(self.columns))


def enlarged(maps: Tensor, rows: range, columns: range) -> Part:
    """Return maps of twice the resolution, which lie where some coarse pixels do."""
    return Part(maps, _doubled(rows), _doubled(columns))


def reach(levels: int, layers: int) -> int:
    """Return how many voxels beyond its pixel an output of the finest level sees, at most."""
    half: int = 2 ** (levels - 1)
    convolutions = layers * (2 * half - 1) + half - 1
    corner = half - 1  # the pixel may lie at the corner of one of the coarsest
    return 1 + 2 * (convolutions + corner)


def mean_reach(widths: Sequence[int], layers: int, slices: int) -> float:
    """Return how many voxels around wanted ones are computed on average, weighed by the work of each layer.

    Parameters
    ----------
    widths : sequence of int
        Channels of each level.
    layers : int
        Convolutions of each level on the way down.
    slices : int
        Channels that the first layer is given.
    """
    levels = len(widths)
    wide = 2**levels
    needs = Needs.of(range(8 * wide, 9 * wide), 16 * wide, levels, layers)  # far from every border
    each = [(16.0 * slices * widths[0], needs.down[0], 0)]
    for level, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False)):
        inputs = before + (layers - 1) * width
        each.append((9.0 * width * inputs / 4.0**level, needs.down[level], level))
        if level + 1 < levels:
            each.append((9.0 * width * width / 4.0**level, _doubled(needs.up[level + 1]), level))
    work = sum(products for products, _, _ in each)
    around = ((products, (len(computed) << level + 1) - 2 * wide) for products, computed, level in each)
    return float(sum(products * voxels / 2 for products, voxels in around) / work)


def _grown(pixels: range, margin: int, n: int) -> range:
    return range(max(0, pixels.start - margin), min(n, pixels.stop + margin))


def _halved(pixels: range) -> range:
    """Return the pixels of half the resolution that hold some."""
    return range(pixels.start // 2, -(-pixels.stop // 2))


def _doubled(pixels: range) -> range:
    return range(2 * pixels.start, 2 * pixels.stop)
