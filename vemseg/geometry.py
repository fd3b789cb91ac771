"""Integer boxes and nanometres. Axes are always (z, y, x), units always voxels unless a name says nm."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from vemseg.errors import UsageError

ZYX = tuple[int, int, int]
"""Three integers in the order z, y, x."""

VoxelSize = tuple[float, float, float]
"""Edge lengths of a voxel in nm, in the order z, y, x."""

Position = tuple[float, float, float]
"""A point in space in nm, in the order z, y, x."""

ANISOTROPY_LIMIT = 1.5
"""A volume whose longest voxel edge exceeds the shortest by more than this factor is anisotropic."""


_NM = {None: 1.0, "nm": 1.0, "um": 1000.0, "µm": 1000.0, "A": 0.1, "Å": 0.1}


@dataclass(frozen=True, order=True)
class Box:
    """A half-open box of voxels.

    Parameters
    ----------
    start, stop : (int, int, int)
        First voxel and one past the last, z y x. May lie outside a volume; ``stop >= start``.
    """

    start: ZYX
    stop: ZYX

    def __post_init__(self) -> None:
        if any(b < a for a, b in zip(self.start, self.stop, strict=True)):
            raise ValueError(f"box stops before it starts: {self.start} .. {self.stop}")

    @classmethod
    def whole(cls, shape: ZYX) -> Box:
        """Return the box of a volume of that shape."""
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> ZYX:
        """Edge lengths in voxels."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index for an array whose first voxel is the origin."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def shift(self, by: ZYX) -> Box:
        """Return the box moved by a vector."""
        return Box(add(self.start, by), add(self.stop, by))

    def relative_to(self, other: Box) -> Box:
        """Return this box in the coordinates of an array that holds ``other``."""
        z, y, x = other.start
        return self.shift((-z, -y, -x))

    def scaled(self, factors: ZYX) -> Box:
        """Return the same part of space in smaller voxels; each is cut into so many along an axis."""
        (a, b, c), (d, e, f) = self.start, self.stop
        z, y, x = factors
        return Box((a * z, b * y, c * x), (d * z, e * y, f * x))

    def divided(self, factors: ZYX) -> Box:
        """Return the smallest box of larger voxels that covers this one; each joins so many along an axis."""
        z, y, x = (a // f for a, f in zip(self.start, factors, strict=True))
        d, h, w = (-(-b // f) for b, f in zip(self.stop, factors, strict=True))
        return Box((z, y, x), (d, h, w))

    def clip(self, other: Box) -> Box:
        """Return the common part of two boxes (empty where they do not meet)."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(max(lo, min(a, b)) for lo, a, b in zip(start, self.stop, other.stop, strict=True))
        return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def contains(self, other: Box) -> bool:
        """Tell whether ``other`` lies wholly inside."""
        return all(
            a <= c and d <= b
            for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )

    def split(self, shape: ZYX) -> Iterator[Box]:
        """Cut into boxes of at most that shape, in z, y, x order; the last ones may be smaller."""
        starts = [range(a, b, s) for a, b, s in zip(self.start, self.stop, shape, strict=True)]
        for z, y, x in itertools.product(*starts):
            yield Box((z, y, x), add((z, y, x), shape)).clip(self)

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))


def add(a: ZYX, b: ZYX) -> ZYX:
    """Add two integer vectors."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def enlarged(voxel_size: VoxelSize | None, factors: tuple[float, float, float]) -> VoxelSize | None:
    """Return edge lengths that are ``factors`` (z, y, x) times as long; None where nothing says how long."""
    if voxel_size is None:
        return None
    z, y, x = (edge * factor for edge, factor in zip(voxel_size, factors, strict=True))
    return z, y, x


def moved(origin: Position | None, voxels: ZYX, voxel_size: VoxelSize | None) -> Position | None:
    """Return the point some voxels further than ``origin``; None where nothing says how long voxels are.

    Parameters
    ----------
    origin : (float, float, float) or None
        nm, z y x; None counts as (0, 0, 0), unless there is nothing to move by.
    voxels : (int, int, int)
        How far, along z, y, x.
    voxel_size : (float, float, float) or None
        nm, z y x.
    """
    if voxel_size is None or (origin is None and not any(voxels)):
        return None
    z, y, x = (
        at + edge * n for at, edge, n in zip(origin or (0.0, 0.0, 0.0), voxel_size, voxels, strict=True)
    )
    return z, y, x


def parse_box(text: str, shape: ZYX, whose: str = "a volume") -> Box:
    """Read ``z0:z1,y0:y1,x0:x1`` as numpy reads an index, but without clipping.

    Ends may be left out, and negative numbers count from the end.

    Parameters
    ----------
    text : str
    shape : (int, int, int)
        Of the volume that the box must lie in.
    whose : str
        What messages call that volume.

    Raises
    ------
    UsageError
        Where the text cannot be parsed, or the box is empty or reaches beyond the volume.
    """
    parts = text.split(",")
    ranges = [re.fullmatch(r"\s*(-?\d+)?:(-?\d+)?\s*", part) for part in parts]
    if len(parts) != 3 or not all(ranges):
        raise UsageError(f"'{text}' is not a box: write z0:z1,y0:y1,x0:x1 in voxels, such as 0:64,100:400,:")
    limits = []
    for found, n in zip(ranges, shape, strict=True):
        assert found is not None
        ends = (int(end or default) for end, default in zip(found.groups(), (0, n), strict=True))
        limits.append(tuple(n + end if end < 0 else end for end in ends))
    if any(not (0 <= a <= n and 0 <= b <= n) for (a, b), n in zip(limits, shape, strict=True)):
        raise UsageError(f"box '{text}' reaches beyond {whose} of shape {shape} (z, y, x)")
    if any(b <= a for a, b in limits):
        raise UsageError(f"box '{text}' holds no voxel of {whose} of shape {shape} (z, y, x)")
    (z0, z1), (y0, y1), (x0, x1) = limits
    return Box((z0, y0, x0), (z1, y1, x1))


def parse_voxel_size(text: str) -> VoxelSize:
    """Read ``16``, ``50,4.6,4.6nm``, ``0.016um`` or ``0.05um,4.6nm,4.6nm`` as nm in z, y, x order.

    A unit (nm, um, µm, A or Å) at the end holds for all three lengths, unless each has its own; without any
    they are nm.

    Raises
    ------
    UsageError
        Where the text cannot be parsed as one or three positive lengths.
    """
    parts = [re.fullmatch(r"\s*([0-9.eE+-]+)\s*(nm|um|µm|A|Å)?\s*", part) for part in text.split(",")]
    found = [part.groups() for part in parts if part]
    units = [unit for _, unit in found]
    last = units[-1] if found else None
    clear = len(found) == len(parts) and (all(units) or not any(units[:-1]))
    try:
        values = [float(number) * _NM[unit or last] for number, unit in found] if clear else []
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not all(math.isfinite(v) and v > 0 for v in values):
        raise UsageError(f"'{text}' is not a voxel size: write z,y,x in nm, such as 16,16,16 or 50,4.6,4.6nm")
    return values[0], values[1], values[2]


def is_anisotropic(voxel_size: VoxelSize | None) -> bool:
    """Tell whether the longest voxel edge exceeds the shortest by more than ``ANISOTROPY_LIMIT``."""
    return voxel_size is not None and max(voxel_size) > ANISOTROPY_LIMIT * min(voxel_size)


def sharp_axis(voxel_size: VoxelSize | None) -> int:
    """Return the axis (0, 1 or 2) across the sharpest plane: the coarsest one, z where all are alike."""
    if voxel_size is None or not is_anisotropic(voxel_size):
        return 0
    return max(range(3), key=lambda axis: voxel_size[axis])
