"""Into which blocks a volume is cut: the cheapest ones whose work fits into a budget of memory.

An axis can be cut into pieces of many lengths. A cut costs the context (halo, or overlap of fields of view)
that both its sides read, so long pieces are cheap and short ones small. All cuts of the three axes are tried:
the memory of a block grows with the voxels of its window, its lattice points and the voxels it writes. Among
the blocks that fit, those that make the least work are taken.

Labels do not depend on the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import ResourceError
from vemseg.geometry import ZYX
from vemseg.resources import byte_text, resident_memory

GRAIN = 32
"""Pieces of an axis are as long as a multiple of this, a smaller power of two, or the whole axis."""

MOST_VOXELS = 2**28
"""Most voxels of a block, which is one shard on disk."""

BLOCK_OVERHEAD = 2**16
"""Cost of a block whatever its size (files, markers, calls), as voxels encoded in the same time."""

FILL = 0.1
"""Time at the start and the end when stages do not overlap, as a fraction of computing one block."""

RESERVE = 160 * 2**20
"""Bytes set aside for what is not counted: strips, chunks, shards being packed, pictures, libraries loaded
after the plan (of these scikit-learn and the kernels of convolutions take most)."""

PIECES_LOOKED_AT = 48
"""Most pieces of an axis that are measured; where there are more, evenly spread ones stand for all."""

Sizes = NDArray[np.float64]
"""Numbers of voxels, pixels, points or bytes, one for each way to cut a volume."""


class Stretch(NamedTuple):
    """What a range of an axis takes.

    Attributes
    ----------
    window, points : int
        Voxels that are read, and lattice points.
    encoded : int
        Voxels that are encoded, on average over the layers of an encoder that does less work for context.
    """

    window: int
    points: int
    encoded: int


Reach = Callable[[int, int], Stretch]
"""Returns what a range of an axis takes."""


@dataclass(frozen=True)
class Need:
    """Memory at one phase of the work on a block, while its neighbours are read and written.

    Attributes
    ----------
    window, point, voxel : float
        Bytes for each voxel of the window that is read, each lattice point computed, each voxel written.
    pixel : float
        Bytes for each pixel of the largest plane of the window that the encoder looks at.
    """

    window: float = 0.0
    point: float = 0.0
    voxel: float = 0.0
    pixel: float = 0.0

    def __add__(self, other: Need) -> Need:
        return Need(
            self.window + other.window,
            self.point + other.point,
            self.voxel + other.voxel,
            self.pixel + other.pixel,
        )


@dataclass(frozen=True)
class Budget:
    """What the work on a block takes of one memory, and how much it may take.

    Attributes
    ----------
    limit : int
        Bytes that may be occupied.
    base : int
        Bytes that are occupied whatever the block.
    phases : tuple of Need
        What each phase of the work needs; the phase that needs most counts.
    name : str
        What messages call the memory.
    """

    limit: int
    base: int
    phases: tuple[Need, ...]
    name: str = "memory"

    @classmethod
    def of_process(cls, limit: int, fixed: int, phases: tuple[Need, ...]) -> Budget:
        """Return the budget of this process: what it occupies already counts, and so do ``fixed`` bytes."""
        return cls(limit, resident_memory() + RESERVE + fixed, phases)

    def bytes(self, window: Sizes, points: Sizes, voxels: Sizes, pixels: Sizes) -> Sizes:
        """Return what blocks of these sizes need."""
        each = [
            need.window * window + need.point * points + need.voxel * voxels + need.pixel * pixels
            for need in self.phases
        ]
        most: Sizes = self.base + np.max(each, axis=0)
        return most


@dataclass(frozen=True)
class Blocks:
    """The blocks chosen.

    Attributes
    ----------
    shape : (int, int, int)
        Edges of a block; the last ones of an axis may be shorter.
    count : int
    encoded : int
        Voxels encoded in all windows together; where planes are looked at across several axes, the mean over
        these axes.
    bytes : int
        Memory needed at most.
    gpu : int
        GPU memory needed at most; 0 where no GPU computes.
    """

    shape: ZYX
    count: int
    encoded: int
    bytes: int
    gpu: int = 0

    def __str__(self) -> str:
        plural = "" if self.count == 1 else "s"
        edges = " x ".join(map(str, self.shape))
        return f"{self.count} block{plural} of {edges} voxels, {byte_text(self.bytes)} of memory at most"


@dataclass
class Cuts:
    """The ways to cut one axis; one entry in each array for each way.

    Attributes
    ----------
    length : int
        Voxels of the axis.
    edge, count : int64
        Length of a piece, and how many there are.
    encoded : float64
        Voxels encoded in all windows together.
    window, points : int64
        Length of the largest window, and its lattice points.
    """

    length: int
    edge: NDArray[np.int64]
    count: NDArray[np.int64] = field(init=False)
    encoded: NDArray[np.float64] = field(init=False)
    window: NDArray[np.int64] = field(init=False)
    points: NDArray[np.int64] = field(init=False)

    @classmethod
    def of(cls, n: int, reach: Reach, unit: int = 1) -> Cuts:
        """Return the ways to cut an axis of ``n`` into multiples of ``unit``."""
        found = cls(n, np.array(_edges(n, unit), np.int64))
        found.count = -(-n // found.edge)
        looked = [_measure(n, int(edge), reach) for edge in found.edge]
        found.encoded = np.array([encoded for encoded, _, _ in looked])
        found.window = np.array([window for _, window, _ in looked])
        found.points = np.array([points for _, _, points in looked])
        return found


def choose_blocks(
    axes: tuple[Cuts, Cuts, Cuts], budgets: Sequence[Budget], sweeps: Sequence[int] = ()
) -> Blocks:
    """Choose the blocks that make the least work among those that fit.

    Work is what is encoded, ``BLOCK_OVERHEAD`` for each block, and ``FILL`` of one block: more and smaller
    blocks overlap better, fewer and larger ones share more.

    Parameters
    ----------
    axes : three Cuts
        z, y, x.
    budgets : sequence of Budget
        The limits that a block must keep, all of them: that of the machine's memory and, where a GPU
        computes, that of the GPU's.
    sweeps : sequence of int
        The axes across which an encoder of planes looks at a window: along these, context is read but not
        encoded. Empty where all of a window is encoded.

    Raises
    ------
    ResourceError
        Where no block fits, naming the least memory that is enough.
    """
    edge, count, window, points = (
        _product([getattr(cuts, name) for cuts in axes]) for name in ("edge", "count", "window", "points")
    )
    encoded, pixels = _encoded(axes, sweeps)
    allowed = edge <= max(MOST_VOXELS, edge.min())
    for budget in budgets:
        need = budget.bytes(window, points, edge, pixels)
        fits = need <= budget.limit
        if not (allowed & fits).any():
            least = byte_text(1.01 * need[allowed].min())
            raise ResourceError(
                f"{byte_text(budget.limit)} of {budget.name} is not enough: the least that works is {least}"
            )
        allowed &= fits
    work = np.where(allowed, encoded * (1 + FILL / count) + BLOCK_OVERHEAD * count, np.inf)
    i, j, k = (int(at) for at in np.unravel_index(int(work.argmin()), work.shape))
    z, y, x = axes
    return Blocks(
        (int(z.edge[i]), int(y.edge[j]), int(x.edge[k])),
        int(count[i, j, k]),
        int(encoded[i, j, k]),
        *(int(budget.bytes(window, points, edge, pixels)[i, j, k]) for budget in budgets),
    )


def _encoded(axes: tuple[Cuts, Cuts, Cuts], sweeps: Sequence[int]) -> tuple[Sizes, Sizes]:
    """Return the voxels encoded in all blocks together, and the pixels of the largest plane looked at."""
    encoded, window = [cuts.encoded for cuts in axes], [cuts.window for cuts in axes]
    one = [np.ones(len(cuts.edge)) for cuts in axes]
    if not sweeps:
        return _product(encoded), _product(window)
    lengths = [np.full(len(cuts.edge), cuts.length) for cuts in axes]
    swept = [_product([*encoded[:i], lengths[i], *encoded[i + 1 :]]) for i in sweeps]
    planes = [_product([*window[:i], one[i], *window[i + 1 :]]) for i in sweeps]
    return np.mean(swept, axis=0), np.max(planes, axis=0)


def _product(axes: Sequence[NDArray[np.generic]]) -> NDArray[np.float64]:
    """Return the products of all combinations of three arrays."""
    z, y, x = (axis.astype(np.float64) for axis in axes)
    return z[:, None, None] * y[:, None] * x


def _edges(n: int, unit: int) -> list[int]:
    """Return the lengths of pieces worth trying: one for each number of pieces."""
    grain = -(-GRAIN // unit) * unit
    thin = [unit * 2**i for i in range(GRAIN.bit_length()) if unit * 2**i < min(n, grain)]
    parts = range(2, -(-n // grain) + 1)
    thick = {-(-n // p // grain) * grain if n // p >= grain else grain for p in parts}
    return sorted({*thin, *(edge for edge in thick if edge < n), n})


def _measure(n: int, edge: int, reach: Reach) -> tuple[float, int, int]:
    """Return the voxels encoded in all windows together, the longest window, and the most lattice points."""
    count = -(-n // edge)
    looked = np.unique(np.linspace(0, count - 1, min(count, PIECES_LOOKED_AT)).round().astype(int))
    found = [reach(int(i) * edge, min(n, (int(i) + 1) * edge)) for i in looked]
    lengths, points, encoded = zip(*found, strict=True)
    return sum(encoded) / len(encoded) * count, max(lengths), max(points)
