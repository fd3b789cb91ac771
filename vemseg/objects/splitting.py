"""Objects of one class that touch, split at their necks, in volumes of any size.

Each object is cut within the box around it (see ``necks``), so neither the size of blocks nor memory changes
where. Then a pass over the blocks counts and writes whole objects and pieces alike. Both are numbered as
objects are: by class, and within a class in the order of their first voxels. Memory holds the box around one
object, or one block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import run
from vemseg.blocks.job import Marked
from vemseg.context import Context
from vemseg.errors import ResourceError
from vemseg.geometry import Box, VoxelSize
from vemseg.objects.blockwise import (
    Pass,
    grown,
    markers_of,
    passing,
    read_around,
    read_classes,
)
from vemseg.objects.components import Finding, Found, Objects, check_count, paint
from vemseg.objects.counting import Bodies, Contacts, packed, unpacked
from vemseg.objects.necks import VOXEL_BYTES, can_be_cut, cut
from vemseg.resources import byte_text, resident_memory
from vemseg.run import load_tensors, save_tensors
from vemseg.run.files import Tensors
from vemseg.volume import LabelStore, Volume, grow


def numbered(finding: Finding, target: LabelStore, neck: float | None, context: Context) -> Objects | None:
    """Find the objects of a volume, split them where that is asked for, and write their numbers.

    Parameters
    ----------
    finding : Finding
        The first pass.
    target : LabelStore
        uint32, in the blocks of the first pass.
    neck : float, optional
        Where objects are split (see ``necks``).
    context : Context
        Where it is for a share of the blocks, other processes do the rest.

    Returns
    -------
    Objects or None
        None where this process has done all of its share that it could do without the other processes.

    Raises
    ------
    InputError
        Where there are more objects than uint32 can number.
    ResourceError
        Where an object that is to be split does not fit into memory.
    Interrupted
        Where the work was stopped.
    """
    context = context.on_cores
    run(finding, context)
    if not finding.complete:
        return None
    found, context = finding.united(), context.afterwards
    if neck is None:
        paint(found, target, context)
        return found if context.share.whole else None
    splitting = _Splitting.begin(found, target.directory.parent, finding.labels.voxel_size, neck, context)
    if splitting.boxes:
        run(splitting, context)
    if not splitting.complete:
        return None
    made = run(splitting, Context(executor="gather"))
    dividing = _Dividing.begin(finding.labels, Pieces.of(found, made, splitting.folder), target)
    run(dividing, context)
    return dividing.objects() if context.share.whole else None


@dataclass(frozen=True)
class _Splitting(Pass[NDArray[np.uint32], Mapping[int, tuple[NDArray[np.uint32], int]]]):
    """Cut each object that is thick enough; its blocks are the boxes around these, with one voxel more.

    Attributes
    ----------
    found : Found
    edges : (float, float, float)
        Of a voxel, z y x.
    neck : float
    folder : Path
        Of the files that hold the pieces of an object.
    members : mapping of Box to tuple of int
        The objects that lie in each box.
    """

    found: Found
    edges: VoxelSize
    neck: float
    folder: Path
    members: Mapping[Box, tuple[int, ...]]

    @classmethod
    def begin(
        cls, found: Found, folder: Path, voxel_size: VoxelSize | None, neck: float, context: Context
    ) -> _Splitting:
        """Return the pass over all objects that are thick enough.

        Raises
        ------
        ResourceError
            Where an object, with the box around it, does not fit into memory.
        """
        edges, bodies = voxel_size or (1.0, 1.0, 1.0), found.bodies
        members: dict[Box, tuple[int, ...]] = {}
        for i in np.flatnonzero(can_be_cut(bodies.low, bodies.high, found.shape, edges, neck)).tolist():
            box = _box_around(found, i + 1)
            _refuse_large(box, i + 1, int(found.classes[i]), context.limit)
            members[box] = (*members.get(box, ()), i + 1)
        folder = folder.absolute() / "pieces"
        folder.mkdir(exist_ok=True)
        _, markers, stage, counted = passing(found.blocks, markers_of(folder), "splitting objects")
        return cls(tuple(members), markers, stage, counted, found, edges, neck, folder, members)

    def read(self, box: Box) -> NDArray[np.uint32]:
        return self.found.read(box)

    def compute(self, box: Box, given: NDArray[np.uint32]) -> Mapping[int, tuple[NDArray[np.uint32], int]]:
        return {number: cut(given == number, self.edges, self.neck) for number in self.members[box]}

    def write(self, box: Box, made: Mapping[int, tuple[NDArray[np.uint32], int]]) -> list[int]:
        """Keep the pieces; return for each the number of its object and its first voxel, all in one row."""
        found = []
        for number, (parts, n) in made.items():
            if n > 1:
                pieces = parts.astype(np.min_scalar_type(n))
                save_tensors(piece_file(self.folder, number), {"pieces": pieces}, {}, shared=True)
                found += [each for first in _firsts(parts, box, self.found) for each in (number, first)]
        return found


def _refuse_large(box: Box, number: int, label: int, limit: int) -> None:
    need = resident_memory() + VOXEL_BYTES * box.size
    if need > limit:
        z, y, x = box.shape
        raise ResourceError(
            f"--split takes {byte_text(need)} of memory for object {number}, which is of class {label} and "
            f"spans {z} x {y} x {x} voxels: give --max-memory, or --class for the classes to be split"
        )


def piece_file(folder: Path, number: int) -> Path:
    """Return the file of the pieces of an object."""
    return folder / f"{number:06d}.safetensors"


def _firsts(parts: NDArray[np.uint32], box: Box, found: Found) -> list[int]:
    """Return the first voxel of each part, as its index in the flattened volume."""
    names, first = np.unique(parts, return_index=True)
    at = np.unravel_index(first[names > 0], parts.shape)
    place = [axis + start for axis, start in zip(at, box.start, strict=True)]
    voxels: list[int] = np.ravel_multi_index(place, found.shape).tolist()
    return voxels


@dataclass(frozen=True)
class Pieces:
    """The objects after cutting: those that stayed whole, and the pieces of the others.

    Attributes
    ----------
    found : Found
        The objects before they were cut.
    classes : int64 (n,)
        The classes of all whole objects and pieces, in the order of their new numbers.
    whole : uint32 (m + 1,)
        The new number of each object, by the number that it had; 0 where it was cut.
    cuts : mapping of int to uint32 (k + 1,)
        For each object that was cut, the new number of each of its pieces; entry 0 is 0.
    folder : Path
        Where the pieces of each object are, in a file of their own.
    """

    found: Found
    classes: NDArray[np.int64]
    whole: NDArray[np.uint32]
    cuts: Mapping[int, NDArray[np.uint32]]
    folder: Path

    @classmethod
    def of(cls, found: Found, made: Sequence[Sequence[int] | None], folder: Path) -> Pieces:
        """Give whole objects and pieces their numbers: by class, then by their first voxels.

        Parameters
        ----------
        found : Found
        made : sequence of sequence of int
            What :meth:`_Splitting.write` has returned for each box.
        folder : Path

        Raises
        ------
        InputError
            Where they are more than uint32 can number.
        """
        # Entries in a row: first the objects that stayed whole, then the pieces, object by object.
        cut, first = np.array([each for part in made for each in part or ()], np.int64).reshape(-1, 2).T
        owner = np.setdiff1d(np.arange(1, len(found.classes) + 1), cut)
        classes = found.classes[np.append(owner, cut) - 1]
        check_count(len(classes))
        order = np.lexsort((np.append(found.bodies.first[owner - 1], first), classes))
        number = np.empty(len(order), np.uint32)
        number[order] = np.arange(1, len(order) + 1)
        whole = np.zeros(len(found.classes) + 1, np.uint32)
        whole[owner], pieces = number[: len(owner)], number[len(owner) :]
        starts = np.flatnonzero(np.diff(cut, prepend=0))
        cuts = {
            int(cut[start]): np.append(np.uint32(0), part)
            for start, part in zip(starts, np.split(pieces, starts[1:]), strict=False)
        }
        return cls(found, classes[order], whole, cuts, folder)

    @cached_property
    def _cut(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The objects that were cut, and where the boxes around them start and stop."""
        numbers = np.array(list(self.cuts), np.int64)
        return numbers, self.found.bodies.low[numbers - 1], self.found.bodies.high[numbers - 1]

    def read(self, box: Box) -> NDArray[np.uint32]:
        """Return the number of the object or piece at every voxel of a box."""
        read: NDArray[np.uint32] = self.whole[self.found.read(box)]
        numbers, low, high = self._cut
        meets = (low < box.stop).all(axis=1) & (high > box.start).all(axis=1)
        for number in numbers[meets].tolist():
            around = _box_around(self.found, number)
            common = around.clip(box)
            stored = load_tensors(piece_file(self.folder, number))[0]["pieces"]
            pieces = stored[common.relative_to(around).slices]
            there = read[common.relative_to(box).slices]
            np.copyto(there, self.cuts[number][pieces], where=pieces > 0)
        return read


def _box_around(found: Found, number: int) -> Box:
    """Return the box around an object, with one voxel more on each side that is not the border."""
    (z, y, x), (zz, yy, xx) = (bound[number - 1].tolist() for bound in (found.bodies.low, found.bodies.high))
    return grown(Box((z, y, x), (zz, yy, xx)), 1).clip(found.parts.box)


@dataclass(frozen=True)
class _ReadBlock:
    """A block as it was read, with the voxels around it: classes, and the numbers of objects and pieces."""

    classes: NDArray[np.signedinteger]
    numbers: NDArray[np.uint32]


@dataclass(frozen=True)
class _Dividing(Pass[_ReadBlock, tuple[Tensors, NDArray[np.uint32]]]):
    """The last pass: write the number of the object or piece at every voxel, and count these.

    Attributes
    ----------
    labels : Volume
    pieces : Pieces
    target : LabelStore
    folder : Path
        Of the files that hold what was counted in each block.
    """

    labels: Volume
    pieces: Pieces
    target: LabelStore
    folder: Path

    @classmethod
    def begin(cls, labels: Volume, pieces: Pieces, target: LabelStore) -> _Dividing:
        """Begin the pass, or take up what was begun."""
        folder = pieces.folder.with_name("divided")
        folder.mkdir(exist_ok=True)
        first = passing(pieces.found.blocks, markers_of(target.directory), "numbering objects")
        return cls(*first, labels, pieces, target, folder)

    def read(self, box: Box) -> _ReadBlock:
        wide = grown(box, 1)
        inner = wide.clip(self.labels.box)
        numbers = np.zeros(wide.shape, np.uint32)
        numbers[inner.relative_to(wide).slices] = self.pieces.read(inner)
        return _ReadBlock(read_around(self.labels, box, read_classes), numbers)

    def compute(self, box: Box, given: _ReadBlock) -> tuple[Tensors, NDArray[np.uint32]]:
        own = np.ascontiguousarray(given.numbers[1:-1, 1:-1, 1:-1])
        present = np.zeros(len(self.pieces.classes) + 1, bool)
        present[own] = True
        present[0] = False
        numbers = np.flatnonzero(present)
        index = np.zeros(len(present), np.uint32)
        index[numbers] = np.arange(1, len(numbers) + 1)
        ids = index[own]
        bodies = Bodies.of(ids, len(numbers), box, self.labels.shape)
        contacts = Contacts.of(given.classes, ids, given.numbers)
        return {"numbers": numbers, **packed(bodies, contacts)}, own

    def write(self, box: Box, made: tuple[Tensors, NDArray[np.uint32]]) -> None:
        counted, numbers = made
        self.target.write(box, numbers)
        save_tensors(self._file(self.pieces.found.blocks.number(box)), counted, {}, shared=True)

    def then(self, box: Box, marked: Marked) -> None:
        grow(self.target, box, marked)

    def objects(self) -> Objects:
        """Return all objects and pieces, once every block is done."""
        classes = self.pieces.classes
        bodies, contacts = Bodies.empty(len(classes)), []
        for i in range(len(self.boxes)):
            tensors, _ = load_tensors(self._file(i))
            part, met = unpacked(tensors)
            bodies.add(part, tensors["numbers"] - 1)
            contacts.append(met.under(np.append(0, tensors["numbers"])))
        return Objects(classes, bodies, Contacts.total(contacts), self.labels.shape)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"
