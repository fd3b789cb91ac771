"""The voxels of a source whose class is known: where they are, how many, and how they are divided in two.

Labels may be few: some slices, scribbles, points. Windows are drawn around known voxels, so that hardly
any is spent on a place that teaches nothing; and what is held out is a share of the known voxels, not of the
volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vemseg.batch import UNKNOWN
from vemseg.errors import InputError
from vemseg.geometry import Box
from vemseg.sampling.sources import HELD_OUT, Source, inside
from vemseg.tiling import Ints
from vemseg.volume import Intensity, Overlay, Volume

PLACES = 2**16
"""Largest number of known voxels whose places are remembered."""

BLOCK = (32, 256, 256)
"""Voxels of the labels that are read at once."""


@dataclass(frozen=True)
class Known:
    """The known voxels of a volume of labels.

    Attributes
    ----------
    profiles : three int64 arrays (n, 255)
        For each plane across z, y and x: how many of its voxels are of each class.
    places : int64 (m, 3)
        The places, z y x, of all known voxels, or of ``PLACES`` of them, each as likely as the others.
    """

    profiles: tuple[Ints, Ints, Ints]
    places: Ints

    @property
    def counts(self) -> Ints:
        """Number of voxels of each class, int64 (255,)."""
        total: Ints = self.profiles[0].sum(axis=0)
        return total


def survey(labels: Volume) -> Known:
    """Count the known voxels of labels, classes 0 to 254 and 255 where unknown, and remember their places.

    The labels are read once, block by block; the memory does not grow with them.
    """
    rng = np.random.default_rng(0)
    profiles = tuple(np.zeros((n, UNKNOWN), np.int64) for n in labels.shape)
    places, keys = np.empty((0, 3), np.int64), np.empty(0)
    for box in labels.box.split(BLOCK):
        values = labels.read(box)
        found = np.flatnonzero(values != UNKNOWN)
        if not found.size:
            continue
        at = np.stack(np.unravel_index(found, box.shape), axis=1)
        _count(profiles, box, at, values.ravel()[found])
        drawn = rng.random(found.size)
        mine = np.flatnonzero(drawn <= keys.max()) if len(keys) == PLACES else np.arange(found.size)
        places = np.concatenate([places, at[mine] + box.start])
        keys = np.concatenate([keys, drawn[mine]])
        least = np.sort(np.argsort(keys, kind="stable")[:PLACES])
        places, keys = places[least], keys[least]
    z, y, x = profiles
    return Known((z, y, x), places)


def _count(profiles: tuple[Ints, ...], box: Box, at: Ints, classes: NDArray[np.generic]) -> None:
    """Add the voxels of a box, whose places in it are given, to the profiles of the whole."""
    for axis, profile in enumerate(profiles):
        index = at[:, axis] * UNKNOWN + classes.astype(np.int64)
        n = box.shape[axis]
        counted = np.bincount(index, minlength=n * UNKNOWN).reshape(n, UNKNOWN)
        profile[box.start[axis] : box.stop[axis]] += counted


class KnownWithin(Overlay):
    """Labels of which only those inside a box are known.

    Parameters
    ----------
    labels : Volume
        Classes 0 to 254, and 255 where not known.
    box : Box
    """

    def __init__(self, labels: Volume, box: Box) -> None:
        super().__init__(labels, np.dtype(np.uint8))
        self.within = box

    def _read(self, box: Box) -> NDArray[np.generic]:
        values = np.full(box.shape, UNKNOWN, np.uint8)
        part = box.clip(self.within)
        if part.size:
            values[part.relative_to(box).slices] = self.source.read(part)
        return values


class _Shown(Overlay):
    """The voxels of a specimen as labels of one class; the others are not known."""

    def __init__(self, voxels: Volume) -> None:
        super().__init__(voxels, np.dtype(np.uint8))

    def _read(self, box: Box) -> NDArray[np.generic]:
        return np.where(self.source.read(box) > 0, 0, UNKNOWN).astype(np.uint8)  # type: ignore[operator]


def shown_source(volume: Volume, intensity: Intensity) -> Source:
    """Return a volume without labels to draw windows from: each around a voxel that shows the specimen.

    Where all voxels of the volume show the specimen, windows lie anywhere.

    Raises
    ------
    InputError
        Where no voxel shows the specimen at this voxel size.
    """
    if volume.specimen is None:
        return Source(volume, intensity)
    places = survey(_Shown(volume.specimen.voxels)).places
    if not len(places):
        raise InputError(f"{volume.name}: no voxel shows the specimen: give a mask that marks more")
    return Source(volume, intensity, places=places)


def hold_out_known(source: Source, known: Known) -> tuple[Source, Source | None]:
    """Divide the labels of a source into those that a model learns from and those that are held out.

    One in ``HELD_OUT`` of the known voxels is held out, but at least those of one section: those of the last
    sections, or of the first where the last would take all voxels of a class. Where a single section is
    labelled, its last or first rows are taken. Both parts show the whole volume, so that context at their
    border is as it will be in use; only labels are kept apart.

    Parameters
    ----------
    source : Source
        With labels.
    known : Known
        The survey of its labels.

    Returns
    -------
    learnt : Source
    held : Source or None
        None where every division would take all voxels of a class away.
    """
    single = np.count_nonzero(known.profiles[0].sum(axis=1)) == 1
    axis = 1 if single else 0
    profile = known.profiles[axis]
    for learnt, held in _divisions(source.volume.box, profile, axis):
        seen = all(len(inside(known.places, part)) for part in (learnt, held))
        if seen and _keeps_classes(profile, learnt, axis):
            return _only(source, known, learnt), _only(source, known, held)
    return replace(source, places=known.places), None


def _only(source: Source, known: Known, box: Box) -> Source:
    """Return a source of which only the labels inside a box are known."""
    assert source.labels is not None
    places = inside(known.places, box) + np.array(box.start)
    return replace(source, labels=KnownWithin(source.labels, box), places=places)


def _divisions(whole: Box, profile: Ints, axis: int) -> Iterator[tuple[Box, Box]]:
    """Yield the ways to divide a box across an axis: what is learned from, and what is held out."""
    amount = profile.sum(axis=1)
    for reverse in (False, True):
        along = amount[::-1] if reverse else amount
        behind = np.cumsum(along[::-1])[::-1]  # known voxels from each plane to the end
        enough = max(behind[0] / HELD_OUT, along[np.flatnonzero(along)[-1]])
        cut = int(np.flatnonzero((behind <= enough) & (along > 0))[0])
        low, high = _divided(whole, axis, len(along) - cut if reverse else cut)
        yield (high, low) if reverse else (low, high)


def _divided(whole: Box, axis: int, cut: int) -> tuple[Box, Box]:
    """Divide a box at a plane across an axis; a part may be empty."""
    stop, start = list(whole.stop), list(whole.start)
    stop[axis] = start[axis] = cut
    return Box(whole.start, (stop[0], stop[1], stop[2])), Box((start[0], start[1], start[2]), whole.stop)


def _keeps_classes(profile: Ints, learnt: Box, axis: int) -> bool:
    """Tell whether every class that occurs has voxels in a part."""
    left = profile[learnt.start[axis] : learnt.stop[axis]].sum(axis=0)
    return not ((profile.sum(axis=0) > 0) & (left == 0)).any()
