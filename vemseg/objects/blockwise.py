"""The blocks of this room: how large they are, and what a pass over them is."""

from __future__ import annotations

import itertools
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import Job, Stages
from vemseg.blocks.job import Given, Made, Marked, Result
from vemseg.context import Context
from vemseg.errors import InputError, ResourceError
from vemseg.files import remove
from vemseg.geometry import ZYX, Box
from vemseg.resources import byte_text, resident_memory
from vemseg.volume import LabelStore, Plan, Volume

_log = logging.getLogger("vemseg")

SHAPES: tuple[ZYX, ...] = ((128, 256, 256), (128, 128, 128), (64, 64, 64), (32, 32, 32))
"""The shapes that blocks may have, from the fastest to the smallest."""

VOXEL_BYTES = 96
"""Bytes that the work on a voxel of a block takes at most, the blocks that are read and written included."""

MOST_CLASS = 65535
"""The largest number that a class may have."""

OUTSIDE = -1
"""What voxels beyond the border of the volume are called."""

Reading = Callable[[Volume, Box], NDArray[np.generic]]
"""Reads a box of a volume."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of a volume, numbered in the order z, y, x.

    Attributes
    ----------
    whole : Box
        The volume.
    shape : (int, int, int)
        Of a block; the last ones of an axis may be shorter.
    """

    whole: Box
    shape: ZYX

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """The box of each block."""
        return tuple(self.whole.split(self.shape))

    def number(self, box: Box) -> int:
        """Return the number of the block that is a box."""
        at = [
            (i - first) // edge
            for i, first, edge in zip(box.start, self.whole.start, self.shape, strict=True)
        ]
        return int(np.ravel_multi_index(at, self._counts))

    def after(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield the blocks that share a face, an edge or a corner with the end of a block.

        Yields
        ------
        (int, int)
            The number of the other block, and the first axis along which it lies further.
        """
        at = np.unravel_index(number, self._counts)
        for step in itertools.product((0, 1), repeat=3):
            there = [int(i) + s for i, s in zip(at, step, strict=True)]
            if any(step) and all(i < n for i, n in zip(there, self._counts, strict=True)):
                yield int(np.ravel_multi_index(there, self._counts)), step.index(1)

    def meeting(self, box: Box) -> list[int]:
        """Return the numbers of the blocks that a box within the volume meets."""
        ends = zip(box.start, box.stop, self.whole.start, self.shape, strict=True)
        z, y, x = (range((a - first) // edge, -(-(b - first) // edge)) for a, b, first, edge in ends)
        return [int(np.ravel_multi_index(at, self._counts)) for at in itertools.product(z, y, x)]

    @property
    def _counts(self) -> list[int]:
        """How many blocks there are along each axis."""
        return [-(-n // edge) for n, edge in zip(self.whole.shape, self.shape, strict=True)]


def block_shape(limit: int) -> ZYX:
    """Return the shape of blocks whose work fits into a limit of memory, in bytes.

    Raises
    ------
    ResourceError
        Where even the smallest does not fit.
    """
    needs = [resident_memory() + VOXEL_BYTES * Box.whole(shape).size for shape in SHAPES]
    fitting = [shape for shape, need in zip(SHAPES, needs, strict=True) if need <= limit]
    if not fitting:
        raise ResourceError(
            f"{byte_text(limit)} of memory is not enough: the least that works is "
            f"{byte_text(1.05 * needs[-1])}"
        )
    return fitting[0]


@dataclass(frozen=True)
class Pass(Job[Given, Made]):
    """One pass over the blocks of a volume: a job that is its own three stages.

    Its volumes can be pickled; each process opens them where it first reads.
    """

    @abstractmethod
    def read(self, box: Box) -> Given:
        """Return what is needed to compute a block."""

    @abstractmethod
    def compute(self, box: Box, given: Given) -> Made:
        """Turn it into what is to be written."""

    @abstractmethod
    def write(self, box: Box, made: Made) -> Result:
        """Store it; return what its marker keeps."""

    @property
    def complete(self) -> bool:
        """Whether every block is done, by whichever process."""
        return all(self.marker(number).exists() for number in range(len(self.boxes)))

    def then(self, box: Box, marked: Marked) -> None:
        """Do what can be done when a block is marked (see ``Stages``)."""

    def open(self, context: Context) -> Stages[Given, Made]:
        """Return how a block is read, computed and written."""
        return Stages(self.read, self.compute, self.write, self.then)


def passing(blocks: Blocks, markers: Path, stage: str) -> tuple[tuple[Box, ...], Path, str, str]:
    """Return the first four attributes of a pass over blocks, with the folder of its markers and its name."""
    return blocks.boxes, markers.absolute(), stage, "{:.1f}/{:.1f} Mvoxel"


def begin(directory: Path, like: Volume, dtype: str, shape: ZYX, plan: Plan | None = None) -> LabelStore:
    """Return the store in a directory; begin it, in blocks of ``shape``, if it is not there.

    With a plan, coarser levels grow beside the blocks. A store that became an output is not there any more.
    What says that its blocks are written goes with it.
    """
    if directory.exists():
        return LabelStore.open(directory)
    remove(markers_of(directory))
    return LabelStore.create(directory, like.shape, shape, dtype, like.voxel_size, plan=plan)


def markers_of(directory: Path) -> Path:
    """Return the folder of the markers of the blocks that are written into the store in a directory."""
    return directory.with_name(f"{directory.name}.done")


def borders(volume: Volume) -> dict[str, object]:
    """Return the axes whose ends are borders of single images, for the state; nothing for other volumes."""
    axes = [axis for axis, n in zip("zyx", volume.shape, strict=True) if n > 1]
    return {"borders": axes} if len(axes) < 3 else {}


def grown(box: Box, by: int, along: ZYX = (1, 1, 1)) -> Box:
    """Return a box that reaches further by some voxels on every side, so many times ``along`` each axis."""
    z, y, x = (by * times for times in along)
    (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
    return Box((z0 - z, y0 - y, x0 - x), (z1 + z, y1 + y, x1 + x))


def read_around(volume: Volume, box: Box, read: Reading = Volume.read) -> NDArray[np.signedinteger]:
    """Read a box and one voxel more on every side.

    Parameters
    ----------
    volume : Volume
    box : Box
    read : callable
        What reads a box of the volume, such as ``read_classes``.

    Returns
    -------
    signed integers (z + 2, y + 2, x + 2)
        Of the shortest type that holds them. What lies beyond the volume is ``OUTSIDE``.
    """
    wide = grown(box, 1)
    inner = wide.clip(volume.box)
    found = read(volume, inner)
    seen = np.full(wide.shape, OUTSIDE, np.min_scalar_type(OUTSIDE - int(found.max(initial=0))))
    seen[inner.relative_to(wide).slices] = found
    return seen


def read_classes(volume: Volume, box: Box) -> NDArray[np.integer]:
    """Read a box of classes, with labels below 0 as 0, which is said once.

    Raises
    ------
    InputError
        Where a class has a number above ``MOST_CLASS``.
    """
    found: NDArray[np.integer] = volume.read(box)  # type: ignore[assignment]
    if found.size and found.max() > MOST_CLASS:
        raise InputError(
            f"{volume.address} holds the label {found.max()}: the numbers of classes end at {MOST_CLASS}"
        )
    if found.size and found.min() < 0:
        _tell_negative(volume.address)
    classes: NDArray[np.integer] = np.maximum(found, 0)
    return classes


@cache
def _tell_negative(address: str) -> None:
    _log.warning("%s holds labels below 0: they count as 0, which is nothing", address)
