"""Connected voxels of one class, within a block and across blocks, for volumes of any size.

1. Each block is labelled by itself, together with one plane of voxels beyond its end along each axis. Any two
   voxels that touch lie together in one such box: the one of the block that holds the smaller z, y and x of
   both.
2. In the planes beyond its end, what a block calls its components is united with what the blocks there call
   them. What was counted of the parts is added up.
3. The blocks are painted once more, with the final numbers: by class, and within a class in the order in
   which their first voxels come in the volume. Neither blocks nor memory change them.

Memory holds one block and one row for each part of an object.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

from vemseg.blocks import run
from vemseg.blocks.job import Marked
from vemseg.context import Context
from vemseg.errors import InputError
from vemseg.geometry import Box
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
from vemseg.objects.counting import Bodies, Contacts, Ids
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
        Whether connected voxels of label 0 are objects too, of class 0. Those hang together by faces alone,
        since around them a wall may hang together by edges and corners.
    contacts : bool
        Whether contacts with other classes are counted.
    """

    classes: tuple[int, ...] = ()
    holes: bool = False
    contacts: bool = True


@dataclass(frozen=True)
class Found:
    """The objects of a volume; entry ``i`` is object ``i + 1``.

    Attributes
    ----------
    classes : int64 (n,)
    bodies : Bodies
    contacts : Contacts
        By the number of the object.
    parts : Volume
        What each block calls its components.
    blocks : Blocks
    numbers : list of uint32 (m + 1,)
        For each block, the object that each of its components belongs to.
    """

    classes: NDArray[np.int64]
    bodies: Bodies
    contacts: Contacts
    parts: LabelStore
    blocks: Blocks
    numbers: list[NDArray[np.uint32]]


@dataclass(frozen=True)
class _Part:
    """What one block found: class of each component, and its components on the planes at start and end."""

    classes: NDArray[np.int64]
    bodies: Bodies
    contacts: Contacts
    faces: tuple[Ids, Ids, Ids]
    shells: tuple[Ids, Ids, Ids]

    def save(self, path: Path) -> None:
        tensors: Tensors = {"classes": self.classes}
        for name, values in (("bodies", self.bodies), ("contacts", self.contacts)):
            tensors |= {f"{name}.{f.name}": getattr(values, f.name) for f in fields(values)}
        for axis in range(3):
            tensors |= {f"face.{axis}": self.faces[axis], f"shell.{axis}": self.shells[axis]}
        save_tensors(path, tensors, {}, shared=True)

    @classmethod
    def load(cls, path: Path) -> _Part:
        tensors, _ = load_tensors(path)
        bodies = Bodies(*(tensors[f"bodies.{f.name}"] for f in fields(Bodies)))
        contacts = Contacts(*(tensors[f"contacts.{f.name}"] for f in fields(Contacts)))
        z, y, x = ((tensors[f"face.{axis}"], tensors[f"shell.{axis}"]) for axis in range(3))
        return cls(tensors["classes"], bodies, contacts, (z[0], y[0], x[0]), (z[1], y[1], x[1]))


@dataclass(frozen=True)
class Finding(Pass[NDArray[np.int64], tuple[_Part, NDArray[np.uint32]]]):
    """The first pass: what each block calls its components, and what is counted of them.

    Attributes
    ----------
    labels : Volume
    wish : Wish
    parts : LabelStore
        What each block calls its components.
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

    @property
    def complete(self) -> bool:
        """Whether every block is done, by whichever process."""
        return all(self.marker(number).exists() for number in range(len(self.boxes)))

    def read(self, box: Box) -> NDArray[np.int64]:
        """Read the classes of a block and the voxels around it."""
        return read_around(self.labels, box, read_classes)

    def compute(self, box: Box, given: NDArray[np.int64]) -> tuple[_Part, NDArray[np.uint32]]:
        """Label a block by itself, and count."""
        return _label(given, box, self.wish, self.labels)

    def write(self, box: Box, made: tuple[_Part, NDArray[np.uint32]]) -> None:
        """Keep both."""
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


def _label(seen: NDArray[np.int64], box: Box, wish: Wish, labels: Volume) -> tuple[_Part, NDArray[np.uint32]]:
    """Label a block and the planes beyond its end, and count."""
    ids, classes = _connected(seen[1:, 1:, 1:], wish)
    own, n = ids[:-1, :-1, :-1], len(classes)
    bodies = Bodies.of(own, n, box, labels.shape)
    contacts = Contacts.of(seen, own, n) if wish.contacts else Contacts.none()
    faces = own[0], own[:, 0], own[:, :, 0]
    shells = ids[-1], ids[:, -1], ids[:, :, -1]
    return _Part(classes, bodies, contacts, faces, shells), own.astype(np.uint32)


def _connected(classes: NDArray[np.int64], wish: Wish) -> tuple[Ids, NDArray[np.int64]]:
    """Return the components of an array of classes, numbered from 1, and the class of each."""
    wanted = np.isin(classes, wish.classes) if wish.classes else classes > 0
    ids: Ids = label(np.where(wanted, classes, 0), background=0, connectivity=3).astype(np.int64)
    if wish.holes:
        empty: Ids = label(classes == 0, background=0, connectivity=1).astype(np.int64)
        ids += np.where(empty > 0, empty + ids.max(), 0)
    owner = np.zeros(int(ids.max()) + 1, np.int64)
    owner[ids.reshape(-1)] = classes.reshape(-1)
    return ids, owner[1:]


def _unite(parts: LabelStore, blocks: Blocks, files: list[Path]) -> Found:
    """Add up what was found in blocks, and number the objects."""
    found = [_Part.load(file) for file in files]
    offsets = np.cumsum([0, *(len(part.classes) for part in found)])
    owner = _owners(found, blocks, offsets)
    n = int(owner.max(initial=-1)) + 1
    if n > MOST_OBJECTS:
        raise InputError(f"{n} objects are more than uint32 can number: 'refine --min-size' removes specks")
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
    return Found(classes[order], bodies.ordered(order), contacts, parts, blocks, numbers)


def _owners(found: list[_Part], blocks: Blocks, offsets: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return which object each component belongs to, those of all blocks in a row."""
    pairs = [_same(found, blocks, offsets, number) for number in range(len(found))]
    joined = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    n = int(offsets[-1])
    graph = coo_array((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), shape=(n, n))
    owner: NDArray[np.intp] = connected_components(graph, directed=False)[1].astype(np.intp)
    return owner


def _same(found: list[_Part], blocks: Blocks, offsets: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Return pairs of components that are one, (p, 2): of a block, and of those beyond its end."""
    box, pairs = blocks.boxes[number], [np.zeros((0, 2), np.int64)]
    reached = Box(box.start, (box.stop[0] + 1, box.stop[1] + 1, box.stop[2] + 1))
    for other, axis in blocks.after(number):
        there = blocks.boxes[other]
        common = reached.clip(there)
        a = found[number].shells[axis][_across(common.relative_to(reached), axis)].reshape(-1)
        b = found[other].faces[axis][_across(common.relative_to(there), axis)].reshape(-1)
        some = a > 0
        same = np.stack([a[some] - 1 + offsets[number], b[some] - 1 + offsets[other]], axis=1)
        pairs.append(np.unique(same, axis=0))
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
