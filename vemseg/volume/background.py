"""A constant background: voxels of one value around the specimen, as padding and cropping leave them.

A volume is looked at twice, both times in bounded memory.

1. The volume is divided into cells of 8 voxels' edge (16 or more where that would be too many cells). Cells
   that hold one and the same value everywhere and hang together by faces, up to the border of the volume,
   are the core of the background. This takes one pass, and one bit of knowledge for each cell.
2. A voxel belongs to the background where it has that value and hangs together with the core, by faces and
   through voxels of that value, within its tile of 64 voxels' edge and two cells around it. Tiles begin at
   multiples of 64, so a block that is cut out anywhere finds the same.

So a dark hole within the specimen is no background, even where it has the very value of the background: no
cells of that value lead from it to the border. A rim narrower than a cell counts as specimen, but for that
behind the last whole cell of an axis, where cells are narrower themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vemseg.cache import Cache
from vemseg.geometry import ZYX, Box
from vemseg.volume.base import Specimen, Volume
from vemseg.volume.specimen import BLOCK, middle_of
from vemseg.volume.views import Overlay

CELL = 8
"""Edge in voxels of the smallest cells."""

MOST_CELLS = 2**24
"""Most cells of a volume; where there were more, cells are twice as long."""

TILE = 64
"""Edge in voxels of the tiles; a multiple of the edge of cells."""

LEAST_SHARE = 0.02
"""The core takes at least this part of a volume; less is no background."""

PATCHES, PATCH = 16, 64
"""Number of patches of each face of a volume that are looked at first, and their edge in voxels."""

FLAT = 0.01
"""At least this part of the squares of 8 voxels' edge in these patches holds one value each."""

CACHE_BYTES = 2**25
"""Most bytes of tiles that are kept."""

Bools = NDArray[np.bool_]


def constant_background(volume: Volume) -> Specimen | None:
    """Find the constant background of a volume; return what it leaves, None where there is no background.

    Only patches at the border are read where these show that there is no background; else all of the volume.

    Parameters
    ----------
    volume : Volume
        Grey values.
    """
    value = _value_at_border(volume)
    if value is None:
        return None
    core = Core.of(volume, value)
    share = core.share
    if share < LEAST_SHARE or core.cells.all():
        return None
    left = 1.0 - share
    facts = {"value": value.item(), "share": round(share, 6)}
    return Specimen(NotBackground(volume, core), left, middle_of(core.left), facts)


def _value_at_border(volume: Volume) -> np.generic | None:
    """Return the value of most flat squares at the border of a volume; None where there are few of them."""
    found, total = [], 0
    for plane in volume.read_each(list(_border_patches(volume.shape))):
        squares = [plane[part.slices] for part in Box.whole(plane.shape).split((CELL, CELL, CELL))]
        total += len(squares)
        found += [square.flat[0] for square in squares if (square == square.flat[0]).all()]
    if len(found) < FLAT * total:
        return None
    values, counts = np.unique(np.array(found), return_counts=True)
    most = values[counts.argmax()]
    return most if counts.max() >= FLAT * total and np.isfinite(most) else None


def _border_patches(shape: ZYX) -> Iterator[Box]:
    """Yield patches of the six faces of a volume, one voxel thick: those in the corners, and random ones."""
    rng = np.random.default_rng(0)
    for face in range(6):
        edges, room = [min(PATCH, n) for n in shape], [max(0, n - PATCH) for n in shape]
        axis, far = face % 3, face // 3
        edges[axis], room[axis] = 1, shape[axis] - 1
        for number in range(PATCHES):
            start = [int(rng.integers(n + 1)) for n in room]
            if number < 4:
                start[axis - 1], start[axis - 2] = (
                    room[axis - 1] * (number & 1),
                    room[axis - 2] * (number // 2),
                )
            start[axis] = room[axis] * far
            z, y, x = start
            yield Box((z, y, x), (z + edges[0], y + edges[1], x + edges[2]))


@dataclass(frozen=True)
class Core:
    """The cells that are background as a whole.

    Attributes
    ----------
    cells : bool (z, y, x)
    edge : int
        Voxels of the edge of a cell; the last of an axis may be shorter.
    shape : (int, int, int)
        Voxels of the volume.
    value : numpy scalar
        The value of the background.
    """

    cells: Bools
    edge: int
    shape: ZYX
    value: np.generic

    @classmethod
    def of(cls, volume: Volume, value: np.generic) -> Core:
        """Read a volume once, block by block."""
        from scipy.ndimage import label

        edge = CELL
        while np.prod([-(-n // edge) for n in volume.shape], dtype=np.int64) > MOST_CELLS:
            edge *= 2
        z, y, x = (-(-n // edge) for n in volume.shape)
        flat = np.zeros((z, y, x), bool)
        for box in volume.box.split((max(BLOCK[0], edge), max(BLOCK[1], edge), max(BLOCK[2], edge))):
            place = tuple(slice(a // edge, -(-b // edge)) for a, b in _sides(box))
            flat[place] = _whole_cells(volume.read(box) == value, edge)
        numbers, count = label(flat)
        at_border = np.zeros(count + 1, bool)
        for axis in range(3):
            at_border[np.take(numbers, [0, -1], axis=axis)] = True
        at_border[0] = False
        return cls(at_border[numbers], edge, volume.shape, value)

    @property
    def share(self) -> float:
        """The part of the volume's voxels that lie in the core."""
        return 1.0 - float(self.left[0].sum()) / float(np.prod(self.shape, dtype=np.float64))

    @cached_property
    def left(self) -> list[NDArray[np.float64]]:
        """How many voxels beside the core lie in the layers of cells across z, y and x."""
        lengths = [np.minimum(self.edge, n - self.edge * np.arange(-(-n // self.edge))) for n in self.shape]
        z, y, x = (along.astype(np.float64) for along in lengths)
        left = ~self.cells
        return [
            np.einsum("ijk,j,k->i", left, y, x) * z,
            np.einsum("ijk,i,k->j", left, z, x) * y,
            np.einsum("ijk,i,j->k", left, z, y) * x,
        ]

    def within(self, box: Box) -> Bools:
        """Return the cells that a box touches."""
        return self.cells[tuple(slice(a // self.edge, -(-b // self.edge)) for a, b in _sides(box))]

    def voxels(self, box: Box) -> Bools:
        """Return which voxels of a box lie in the core."""
        z, y, x = (np.arange(a, b) // self.edge for a, b in _sides(box))
        return self.cells[np.ix_(z, y, x)]


class NotBackground(Overlay):
    """1 where a volume shows something, 0 where it is background; see the head of this module.

    Parameters
    ----------
    volume : Volume
    core : Core
    """

    def __init__(self, volume: Volume, core: Core) -> None:
        super().__init__(volume, np.dtype(np.uint8))
        self.core = core
        self._kept = Cache(CACHE_BYTES)

    def _read(self, box: Box) -> NDArray[np.generic]:
        found = np.ones(box.shape, np.uint8)
        for tile in _tiles(box, self.shape):
            both = tile.clip(box)
            found[both.relative_to(box).slices] = self._tile(tile)[both.relative_to(tile).slices]
        return found

    def _tile(self, tile: Box) -> NDArray[np.generic]:
        """Return one tile. Only where background and specimen meet are voxels read."""
        margin = 2 * self.core.edge
        (z, y, x), (z1, y1, x1) = tile.start, tile.stop
        around = Box((z - margin, y - margin, x - margin), (z1 + margin, y1 + margin, x1 + margin))
        around = around.clip(self.box)
        if not self.core.within(around).any():
            return np.ones(tile.shape, np.uint8)
        if self.core.within(tile).all():
            return np.zeros(tile.shape, np.uint8)
        known = self._kept.get(tile)
        if known is None:
            known = self._divided(around)[tile.relative_to(around).slices].astype(np.uint8)
            self._kept.put(tile, known)
        return known

    def _divided(self, box: Box) -> Bools:
        """Return which voxels of a box do not hang together with the core inside it."""
        from scipy.ndimage import label

        numbers, count = label(self.source.read(box) == self.core.value)
        outside = np.zeros(count + 1, bool)
        outside[numbers[self.core.voxels(box)]] = True
        outside[0] = False
        found: Bools = ~outside[numbers]
        return found


def _sides(box: Box) -> Iterator[tuple[int, int]]:
    return zip(box.start, box.stop, strict=True)


def _tiles(box: Box, shape: ZYX) -> Iterator[Box]:
    """Yield the tiles that a box touches."""
    z, y, x = (start // TILE * TILE for start in box.start)
    for tile in Box((z, y, x), box.stop).split((TILE, TILE, TILE)):
        z, y, x = tile.start
        yield Box((z, y, x), (z + TILE, y + TILE, x + TILE)).clip(Box.whole(shape))


def _whole_cells(equal: Bools, edge: int) -> Bools:
    """Return which cells of a block, which begins with one, hold nothing but True."""
    for axis in range(3):
        equal = np.logical_and.reduceat(equal, np.arange(0, equal.shape[axis], edge), axis=axis)
    return equal
