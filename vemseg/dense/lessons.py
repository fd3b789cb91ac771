"""Labels that a model is to learn from: opened, put on the voxels of their volume, and given classes.

255 means that the class of a voxel is not known, and so does every value that the user names. Voxels outside
the mask count as not known too. All other values are classes, numbered from 0 in the order of the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vemseg.batch import UNKNOWN
from vemseg.comparison import of_same_voxels, open_mask
from vemseg.errors import InputError, UsageError
from vemseg.geometry import Box
from vemseg.volume import Overlay, Volume, open_labels, record

BLOCK = (64, 256, 256)
"""Voxels of the labels that are read at once."""

MOST = UNKNOWN
"""Most classes: their numbers are below ``UNKNOWN``."""


@dataclass(frozen=True)
class Lessons:
    """The labels that volumes come with, as a user names them.

    Attributes
    ----------
    labels, masks : sequence of str
        For each volume its labels, and a volume that is above 0 where labels count. There are no masks at
        all, or one for each volume.
    unlabelled : sequence of int
        Values, beside 255, that mean "not known".
    names : mapping of int to str
        Names of classes by their values. Where there are any, only these values are classes.
    """

    labels: Sequence[str]
    masks: Sequence[str] = ()
    unlabelled: Sequence[int] = ()
    names: Mapping[int, str] = field(default_factory=dict)

    def open(self, volumes: Sequence[Volume], crop: str | None, *, offline: bool = False) -> list[Lesson]:
        """Open the labels, and the mask if any, of each volume.

        Parameters
        ----------
        volumes : sequence of Volume
        crop : str or None
            How the volumes were cropped, as a user writes it. Labels of the whole volume are cropped too.
        offline : bool
            Whether addresses on the network are refused.

        Raises
        ------
        UsageError
            Where there are more or fewer labels or masks than volumes.
        InputError
            Where labels or masks cannot be read, or have not the voxels of their volume.
        """
        for option, given in (("--labels", self.labels), ("--mask", self.masks or self.labels)):
            if len(given) != len(volumes):
                raise UsageError(
                    f"{len(given)} {option} for {len(volumes)} volumes: repeat {option} once for each volume"
                )
        found = []
        for i, volume in enumerate(volumes):
            labels = of_same_voxels(open_labels(self.labels[i], offline=offline), volume, crop)
            mask = None
            if self.masks:
                mask = of_same_voxels(open_mask(self.masks[i], offline=offline), volume, crop)
            found.append(Lesson(labels, mask))
        return found

    def values(self, opened: Sequence[Lesson]) -> list[int]:
        """Return the values that stand for classes, in order; each occurs where labels count.

        Raises
        ------
        InputError
            Where a volume has none; where there are fewer than two in all, or too many; where one has no name
            though others have; where a named one does not occur.
        """
        unknown = {UNKNOWN, *self.unlabelled}
        found: set[int] = set()
        for path, lesson in zip(self.labels, opened, strict=True):
            mine = lesson.values(unknown)
            if not mine:
                where = " inside the mask" if self.masks else ""
                blank = ", ".join(map(str, sorted(unknown)))
                raise InputError(
                    f"{path}: no voxel is labelled{where} (not known: {blank}): label some, or leave this "
                    "volume out"
                )
            found |= mine
        where = ", ".join(self.labels)
        if self.names and (odd := sorted(found - self.names.keys())):
            raise InputError(
                f"{where}: the values {odd} have no name: name them too, or --unlabelled leaves them out"
            )
        if missing := sorted(self.names.keys() - found):
            listed = ", ".join(f"{value} ({self.names[value]})" for value in missing)
            raise InputError(f"{where}: no voxel to learn class {listed} from: label some, or leave it out")
        if len(found) < 2:
            raise InputError(
                f"{where}: only one class is labelled ({sorted(found)[0]}): label voxels of a second one"
            )
        return sorted(found)

    def classes(self, values: Sequence[int]) -> tuple[str, ...]:
        """Return the names of classes: the user's, else those that the labels remember, else their values.

        Raises
        ------
        UsageError
            Where two classes have the same name.
        """
        told = self.names or _remembered(self.labels[0])
        names = tuple(told.get(value, f"label {value}") for value in values)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"two classes are called '{twice[0]}': --names gives each a name of its own")
        return names


@dataclass(frozen=True)
class Lesson:
    """The labels of one volume, on its voxels, and where they count; everywhere where there is no mask."""

    labels: Volume
    mask: Volume | None = None

    def values(self, unknown: set[int]) -> set[int]:
        """Return the values of all voxels that count, but for those that mean "not known".

        Raises
        ------
        InputError
            Where there are more than ``MOST``.
        """
        found: set[int] = set()
        for box in self.labels.box.split(BLOCK):
            values = self.labels.read(box)
            counted = values if self.mask is None else values[self.mask.read(box) > 0]  # type: ignore[operator]
            found |= {int(value) for value in np.unique(counted)} - unknown
            if len(found) > MOST:
                raise InputError(
                    f"{self.labels.address}: more than {MOST} values: these are instances or grey values, "
                    "and a model learns classes"
                )
        return found

    def numbered(self, values: Sequence[int]) -> Volume:
        """Return the labels as numbers of classes, given the value of each class in order."""
        return ClassNumbers(self.labels, values, self.mask)


class ClassNumbers(Overlay):
    """Labels as numbers of classes, and ``UNKNOWN`` for all other values and outside the mask.

    Parameters
    ----------
    labels : Volume
        Whole numbers.
    values : sequence of int
        The value of each class, rising.
    mask : Volume or None
        Above 0 where labels count.
    """

    def __init__(self, labels: Volume, values: Sequence[int], mask: Volume | None = None) -> None:
        super().__init__(labels, np.dtype(np.uint8))
        self.mask = mask
        self.values = np.array(values, labels.dtype)

    def _read(self, box: Box) -> NDArray[np.generic]:
        given = self.source.read(box)
        number = np.minimum(np.searchsorted(self.values, given), len(self.values) - 1)
        known = self.values[number] == given
        if self.mask is not None:
            known &= self.mask.read(box) > 0  # type: ignore[operator]
        return np.where(known, number, UNKNOWN).astype(np.uint8)


def _remembered(path: str) -> dict[int, str]:
    """Return the names of classes that a file of labels holds, where vemseg wrote it; else none."""
    names = (record(path) or {}).get("names")
    return {int(value): str(name) for value, name in names.items()} if isinstance(names, dict) else {}
