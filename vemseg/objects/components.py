"""Connected voxels of one class, within a block and across blocks, for volumes of any size.

1. The components of each block are found and numbered by themselves, together with one plane of voxels beyond
   its end along each axis. Any two voxels that touch lie together in one such box: the one of the block that
   holds the smaller z, y and x of both.
2. The planes beyond the end of a block have been numbered twice, by it and by the block that they belong to.
   Two components that share a voxel there are one object. What was counted of each is added up.
3. The final numbers are written, block by block: ordered by class, and within a class by the first voxel of
   the object. So neither the size of blocks nor memory changes them.

Memory holds one block, and what was counted of each component of each block.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import run
from vemseg.blocks.job import Marked
from vemseg.context import Context
from vemseg.errors import InputError
from vemseg.geometry import ZYX, Box
from vemseg.objects.blockwise import (
    Blocks,
    Pass,
    begin,
    block_shape,
    markers_of,
    passing,
    read_around,
    read_classes,
)
from vemseg.objects.connecting import Ids, connected
from vemseg.objects.counting import Bodies, Contacts, packed, unpacked
from vemseg.run import load_tensors, save_tensors
from vemseg.run.files import Tensors
from vemseg.volume import LabelStore, Volume, grow

MOST_OBJECTS = 2**32 - 1
"""The most objects that a volume of uint32 can tell apart."""


@dataclass(frozen=True)
class Wish:
    """Which objects are looked for, and what is counted of them.

    Attributes
    ----------
    classes : tuple of int
        Only these classes; empty for all. Labels of 0 and below are nothing.
    holes : bool
        Whether connected voxels of label 0 are objects too, of class 0. Such voxels hang together by faces
        alone, because the wall around a hole may hang together by edges and corners.
    contacts : bool
        Whether contacts with other classes are counted.
    """

    classes: tuple[int, ...] = ()
    holes: bool = False
    contacts: bool = True


@dataclass(frozen=True)
class Objects:
    """The objects of a volume; entry ``i`` is object ``i + 1``.

    Attributes
    ----------
    classes : int64 (n,)
    bodies : Bodies
    contacts : Contacts
        By the number of the object.
    shape : (int, int, int)
        Of the volume.
    """

    classes: NDArray[np.int64]
    bodies: Bodies
    contacts: Contacts
    shape: ZYX


@dataclass(frozen=True)
class Found(Objects):
    """The objects of a volume, and where they lie.

    Attributes
    ----------
    parts : LabelStore
        The components, as each block numbers them.
    blocks : Blocks
    numbers : list of uint32 (m + 1,)
        For each block, the number of the object that each of its components belongs to; 0 for none.
    """

    parts: LabelStore
    blocks: Blocks
    numbers: list[NDArray[np.uint32]]

    def read(self, box: Box) -> NDArray[np.uint32]:
        """Return the number of the object at every voxel of a box; 0 where there is none."""
        found = np.zeros(box.shape, np.uint32)
        for number in self.blocks.meeting(box):
            common = box.clip(self.blocks.boxes[number])
            found[common.relative_to(box).slices] = self.numbers[number][self.parts.read(common)]
        return found


@dataclass(frozen=True)
class _BlockParts:
    """What was found in one block; entry ``i`` is its component ``i + 1``.

    Attributes
    ----------
    classes : int64 (n,)
    bodies : Bodies
    contacts : Contacts
    faces : three arrays of uint32
        The components in the first plane of the block along z, y and x.
    shells : three arrays of uint32
        The components in the plane beyond its end along z, y and x, as this block numbers them.
    """

    classes: NDArray[np.int64]
    bodies: Bodies
    contacts: Contacts
    faces: tuple[Ids, Ids, Ids]
    shells: tuple[Ids, Ids, Ids]

    def save(self, path: Path) -> None:
        tensors: Tensors = {"classes": self.classes, **packed(self.bodies, self.contacts)}
        for axis in range(3):
            tensors |= {f"face.{axis}": self.faces[axis], f"shell.{axis}": self.shells[axis]}
        save_tensors(path, tensors, {}, shared=True)

    @classmethod
    def load(cls, path: Path) -> _BlockParts:
        tensors, _ = load_tensors(path)
        z, y, x = ((tensors[f"face.{axis}"], tensors[f"shell.{axis}"]) for axis in range(3))
        faces, shells = (z[0], y[0], x[0]), (z[1], y[1], x[1])
        return cls(tensors["classes"], *unpacked(tensors), faces, shells)


@dataclass(frozen=True)
class _ReadBlock:
    """A block as it was read: its classes and those around it, the components in it and just beyond its end.

    Attributes
    ----------
    classes : signed integers (z + 2, y + 2, x + 2)
    ids : uint32 (z + 1, y + 1, x + 1)
    n : int
        How many components there are.
    """

    classes: NDArray[np.signedinteger]
    ids: Ids
    n: int


@dataclass(frozen=True)
class Finding(Pass[_ReadBlock, tuple[_BlockParts, Ids]]):
    """The first pass: it numbers the components of each block by themselves, and counts what they consist of.

    Attributes
    ----------
    labels : Volume
    wish : Wish
    parts : LabelStore
        The components, as each block numbers them.
    found : Path
        Folder of the files that hold what was counted in each block.
    """

    labels: Volume
    wish: Wish
    parts: LabelStore
    found: Path

    @classmethod
    def begin(cls, labels: Volume, folder: Path, wish: Wish, context: Context) -> Finding:
        """Begin in a folder what :func:`find_objects` does there, or take up what was begun.

        Raises
        ------
        ResourceError
            Where the memory is not enough for the smallest block.
        """
        folder = folder.absolute()
        parts = begin(folder / "parts", labels, "uint32", block_shape(context.limit))
        (folder / "found").mkdir(exist_ok=True)
        blocks = Blocks(labels.box, parts.block_shape)
        first = passing(blocks, markers_of(parts.directory), "finding objects")
        return cls(*first, labels, wish, parts, folder / "found")

    @property
    def blocks(self) -> Blocks:
        """The blocks of the volume."""
        return Blocks(self.parts.box, self.parts.block_shape)

    def read(self, box: Box) -> _ReadBlock:
        """Read the classes of a block and the voxels around it, and label it by itself."""
        classes = read_around(self.labels, box, read_classes)
        return _ReadBlock(classes, *_connected(classes[1:, 1:, 1:], self.wish))

    def compute(self, box: Box, given: _ReadBlock) -> tuple[_BlockParts, Ids]:
        """Count the components of a block."""
        return _counted(given, box, self.wish, self.labels)

    def write(self, box: Box, made: tuple[_BlockParts, Ids]) -> None:
        """Store the components of a block, and what was counted of them."""
        part, ids = made
        self.parts.write(box, ids)
        part.save(self._file(self.blocks.number(box)))

    def finished(self, context: Context) -> Found:
        """Do all blocks, and return the objects of the whole volume."""
        run(self, context)
        return self.united()

    def united(self) -> Found:
        """Return the objects of the whole volume, once every block is done.

        Raises
        ------
        InputError
            Where there are more than ``MOST_OBJECTS`` objects.
        """
        return _unite(self.parts, self.blocks, [self._file(number) for number in range(len(self.boxes))])

    def _file(self, number: int) -> Path:
        return self.found / f"{number:06d}.safetensors"


def find_objects(labels: Volume, folder: Path, wish: Wish, context: Context) -> Found:
    """Find the objects of a volume of labels.

    Parameters
    ----------
    labels : Volume
        Integers.
    folder : Path
        For what is found in each block, so that work which was stopped goes on.
    wish : Wish
    context : Context

    Raises
    ------
    InputError
        Where a class has a number above ``MOST_CLASS``, or there are more than ``MOST_OBJECTS`` objects.
    ResourceError
        Where the memory is not enough for the smallest block.
    Interrupted
        Where the work was stopped.
    """
    return Finding.begin(labels, folder, wish, context).finished(context)


def _counted(seen: _ReadBlock, box: Box, wish: Wish, labels: Volume) -> tuple[_BlockParts, Ids]:
    """Count the components of a block; return them without those beyond its end."""
    ids, n = seen.ids, seen.n
    own = np.ascontiguousarray(ids[:-1, :-1, :-1])
    classes = np.zeros(n + 1, np.int64)
    for numbers, plane in zip(ids, seen.classes[1:, 1:, 1:], strict=True):
        classes[numbers] = plane
    bodies = Bodies.of(own, n, box, labels.shape)
    contacts = Contacts.of(seen.classes, own) if wish.contacts else Contacts.none()
    faces = own[0], own[:, 0], own[:, :, 0]
    shells = ids[-1], ids[:, -1], ids[:, :, -1]
    return _BlockParts(classes[1:], bodies, contacts, faces, shells), own


def _connected(classes: NDArray[np.signedinteger], wish: Wish) -> tuple[Ids, int]:
    """Return the components of an array of classes, numbered from 1, and how many they are."""
    wanted = np.where(np.isin(classes, wish.classes), classes, 0) if wish.classes else np.maximum(classes, 0)
    ids, n = connected(wanted, corners=True)
    if wish.holes:
        empty, holes = connected((classes == 0).view(np.uint8), corners=False)
        ids += np.where(empty > 0, empty + np.uint32(n), np.uint32(0))
        n += holes
    return ids, n


def _unite(parts: LabelStore, blocks: Blocks, files: list[Path]) -> Found:
    """Join the components of all blocks into objects, add up what was counted, and number the objects."""
    found = [_BlockParts.load(file) for file in files]
    offsets = np.cumsum([0, *(len(part.classes) for part in found)])
    owner = _owners(found, blocks, offsets)
    n = int(owner.max(initial=-1)) + 1
    check_count(n)
    classes, bodies = np.zeros(n, np.int64), Bodies.empty(n)
    for part, offset in zip(found, offsets[:-1], strict=True):
        mine = owner[offset : offset + len(part.classes)]
        classes[mine] = part.classes
        bodies.add(part.bodies, mine)
    order = np.lexsort((bodies.first, classes))
    number = np.empty(n + 1, np.uint32)
    number[0], number[order + 1] = 0, np.arange(1, n + 1)
    numbers = [number[np.append(0, owner[a:b] + 1)] for a, b in pairwise(offsets)]
    contacts = Contacts.total([part.contacts.under(mine) for part, mine in zip(found, numbers, strict=True)])
    return Found(classes[order], bodies.ordered(order), contacts, parts.shape, parts, blocks, numbers)


def check_count(n: int) -> None:
    """Refuse more objects than uint32 can number.

    Raises
    ------
    InputError
        Where there are more than ``MOST_OBJECTS``.
    """
    if n > MOST_OBJECTS:
        raise InputError(f"{n} objects are more than uint32 can number: 'refine --min-size' removes specks")


def _owners(found: list[_BlockParts], blocks: Blocks, offsets: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return which object, from 0, each component belongs to: the components of all blocks in a row."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = [_pairs(found, blocks, offsets, number) for number in range(len(found))]
    joined = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    n = int(offsets[-1])
    graph = coo_array((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), shape=(n, n))
    owner: NDArray[np.intp] = connected_components(graph, directed=False)[1].astype(np.intp)
    return owner


def _pairs(
    found: list[_BlockParts], blocks: Blocks, offsets: NDArray[np.int64], number: int
) -> NDArray[np.int64]:
    """Return which components of a block are one with which of the blocks beyond its end, (p, 2).

    Components count from 0, in the row of those of all blocks; ``offsets`` says where each block begins.
    """
    box, pairs = blocks.boxes[number], [np.zeros((0, 2), np.int64)]
    reached = Box(box.start, (box.stop[0] + 1, box.stop[1] + 1, box.stop[2] + 1))
    for other, axis in blocks.after(number):
        there = blocks.boxes[other]
        common = reached.clip(there)
        a = found[number].shells[axis][_across(common.relative_to(reached), axis)].reshape(-1)
        b = found[other].faces[axis][_across(common.relative_to(there), axis)].reshape(-1)
        some = a > 0
        width = len(found[other].classes) + 1
        both = np.unique(a[some].astype(np.int64) * width + b[some])  # each pair once, as one integer
        pairs.append(
            np.stack([both // width - 1 + offsets[number], both % width - 1 + offsets[other]], axis=1)
        )
    return np.concatenate(pairs)


def _across(box: Box, axis: int) -> tuple[slice, ...]:
    """Return the index of a box in a plane across an axis."""
    return tuple(part for i, part in enumerate(box.slices) if i != axis)


def paint(found: Found, target: LabelStore, context: Context) -> None:
    """Write the number of the object at every voxel; 0 where there is none.

    Parameters
    ----------
    found : Found
    target : LabelStore
        uint32, in the blocks of ``found.parts``.
    context : Context
    """
    first = passing(found.blocks, markers_of(target.directory), "numbering objects")
    run(_Numbering(*first, found, target), context)


@dataclass(frozen=True)
class _Numbering(Pass[NDArray[np.generic], NDArray[np.uint32]]):
    """The second pass: the number of the object at every voxel."""

    objects: Found
    target: LabelStore

    def read(self, box: Box) -> NDArray[np.generic]:
        return self.objects.parts.read(box)

    def compute(self, box: Box, given: NDArray[np.generic]) -> NDArray[np.uint32]:
        numbers: NDArray[np.uint32] = self.objects.numbers[self.objects.blocks.number(box)][given]
        return numbers

    def write(self, box: Box, made: NDArray[np.uint32]) -> None:
        self.target.write(box, made)

    def then(self, box: Box, marked: Marked) -> None:
        grow(self.target, box, marked)
