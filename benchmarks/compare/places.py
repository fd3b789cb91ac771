"""The volumes of a comparison: what is scored, and what trainings learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from pairs import Pair, open_pair, parts_of

from vemseg.errors import MissingError
from vemseg.files import atomic_path
from vemseg.run import fingerprint

PHANTOM = "phantom"
UNKNOWN = 255
"""The value of voxels whose class is not known, as ``vemseg train --labels`` reads it."""


@dataclass(frozen=True)
class Place:
    """A volume with reference labels, and the volumes that trainings learn from.

    Attributes
    ----------
    text : str
        The volume to score, as ``open_pair`` reads it.
    crop : str or None
        The part of it that is looked at.
    learnt : sequence of str
        The volumes to learn from, likewise; empty where a training learns from the volume itself.
    """

    text: str
    crop: str | None = None
    learnt: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Its name in tables."""
        return parts_of(self.text)[0]

    def raws(self, slices: int | None = None) -> list[str]:
        """Return the grey volumes to learn from; labelled slices are slices of the volume itself."""
        return [parts_of(text)[1] for text in (not slices and self.learnt) or [self.text]]

    @property
    def voxel_size(self) -> str | None:
        """The voxel size to give with the volume, z,y,x in nm."""
        return parts_of(self.text)[4]

    def open(self) -> Pair:
        """Open the volume and its labels."""
        return open_pair(self.text, self.crop)

    def facts(self) -> dict[str, Any]:
        """Return everything that results depend on, as plain JSON types: contents, voxel size."""
        found: dict[str, Any] = {"voxel_size": self.voxel_size}
        for text in (self.text, *self.learnt):
            name, *paths, _ = parts_of(text)
            for path in filter(None, paths):
                if not Path(path).exists():
                    raise MissingError(f"{name}: there is no {path}")
                found[f"{name}/{Path(path).name}"] = fingerprint(Path(path))["content"]
        return found

    def lesson_files(self, slices: int | None, folder: Path) -> tuple[list[str], list[str]]:
        """Return the files of labels to learn from, and of masks.

        Parameters
        ----------
        slices : int or None
            How many slices of the volume are labelled; None takes all labels of all volumes to learn from.
        folder : Path
            Where the labels of a few slices go.
        """
        if slices is not None:
            return [str(folder / f"labels-{slices}.tif")], []
        told = [parts_of(text) for text in self.learnt or [self.text]]
        return [one[2] for one in told], [one[3] for one in told if one[3]]

    def lessons(self, slices: int | None, folder: Path) -> dict[int, str]:
        """Return the names of the classes to learn, and write the labels of a few slices."""
        pair = self.open()
        if slices is None:
            return dict(pair.classes)
        chosen = labelled_slices(pair, slices)
        path = Path(self.lesson_files(slices, folder)[0][0])
        folder.mkdir(parents=True, exist_ok=True)
        labels = only(pair, chosen)
        with atomic_path(path) as temporary:
            tifffile.imwrite(temporary, labels, photometric="minisblack", compression="zlib")
        present = {int(value) for value in np.unique(labels)} - {UNKNOWN}
        return {value: pair.classes[value] for value in sorted(present)}


def place_of(text: str, crop: str | None, folder: Path) -> Place:
    """Return a place of what a user writes; ``phantom`` is the phantom of a folder."""
    if text == PHANTOM:
        path = folder / "phantom.tif"
        text = f"{PHANTOM}={path},{path.with_name('phantom_labels.tif')}@16,16,16"
    return Place(text, crop)


def labelled_slices(pair: Pair, n: int) -> list[int]:
    """Return the slices that somebody would label: the one with most classes in each n-th of the stack.

    Among slices with equally many classes, the one nearest to the middle of its part is taken.
    """
    depth = pair.reference.shape[0]
    found = []
    for i in range(min(n, depth)):
        part = range(i * depth // min(n, depth), (i + 1) * depth // min(n, depth))
        middle = (part[0] + part[-1]) / 2
        found.append(max(part, key=lambda z: (len(np.unique(section(pair, z))), -abs(z - middle))))
    return found


def section(pair: Pair, z: int) -> NDArray[np.generic]:
    """Return a slice of the reference, (y, x)."""
    return pair.reference.read(across(pair, z))[0]


def across(pair: Pair, z: int) -> Any:
    """Return the box of a slice."""
    box = pair.reference.box
    return replace(box, start=(z, *box.start[1:]), stop=(z + 1, *box.stop[1:]))


def only(pair: Pair, slices: Sequence[int]) -> NDArray[np.uint8]:
    """Return the labels of some slices, and ``UNKNOWN`` in all others, uint8 (z, y, x)."""
    labels = np.full(pair.reference.shape, UNKNOWN, np.uint8)
    for z in slices:
        labels[z] = section(pair, z)
        if pair.mask is not None:
            labels[z][pair.mask.read(across(pair, z))[0] == 0] = UNKNOWN
    return labels
