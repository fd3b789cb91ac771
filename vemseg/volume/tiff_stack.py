"""The pages of a TIFF that form one image, and which way its axes lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vemseg.errors import InputError
from vemseg.geometry import ZYX
from vemseg.volume.layout import Choice, entry
from vemseg.volume.tiff_forms import Form, Page

MOST_CHANNELS = 4
"""The most channels that a plane is taken to have, its detectors; where there are more, they are a stack."""

_DEPTH_AXES = "ZIQR"
"""Letters of axes that are depth: z, pages in a row without a name, "other", and tile."""

_CALLED = {"C": ("channels", MOST_CHANNELS), "T": ("time points", 1)}
"""What two axes are called, and how many of them a plane may have without being a stack."""


@dataclass(frozen=True)
class Stack:
    """The pages of a file that form one image.

    Attributes
    ----------
    kind : str
        Who described the file: "ome", "imagej", "shaped" (tifffile) or "plain" (nobody).
    axes : str
        A letter for each axis that pages are counted along, slowest first.
    lengths : tuple of int
        How many pages there are along each of them.
    pages : sequence of Page
        The pages in that order.
    inner : str
        The letters of a page's own rows and columns; only tifffile's description names others than "YX".
    remarks : tuple of str
        What the user should know of how the file was understood.
    """

    kind: str
    axes: str
    lengths: tuple[int, ...]
    pages: Sequence[Page]
    inner: str = "YX"
    remarks: tuple[str, ...] = ()

    @property
    def form(self) -> Form:
        """How the first page stores its voxels."""
        return self.pages[0].form

    @property
    def shape(self) -> ZYX:
        """The lengths of pages, rows and columns, as they lie in the file."""
        return len(self.pages) * self.form.depth, self.form.length, self.form.width

    @property
    def order(self) -> ZYX:
        """Which of pages, rows and columns are z, y and x; for a stack ``along_z``."""
        stored = self.axes + self.inner
        return stored.index("Z"), stored.index("Y"), stored.index("X")

    def along_z(self, path: Path, choice: Choice) -> Stack:
        """Return the stack of one channel and time, or refuse where none was chosen, and other axes.

        Planes that are channels or time points and nothing else are a stack all the same.

        Raises
        ------
        InputError
            Where pages count more than one thing, or the axes are not z, y and x.
        UsageError
            Where a channel or time was chosen that is not there.
        """
        given = {axis: told for axis, told in (("C", choice.channel), ("T", choice.time)) if told is not None}
        if any(axis not in self.axes for axis in given):
            choice.refuse("channel" if "C" in given else "time", where=path)
        stack = self
        for axis, told in given.items():
            stack = stack._one(axis, told, path)
        return stack._stacked(path)

    def _one(self, axis: str, told: str, path: Path) -> Stack:
        """Return the pages of one channel or time, without that axis."""
        at = self.axes.index(axis)
        number = entry(axis.lower(), self.lengths[at], told, path, ())
        places = np.arange(len(self.pages)).reshape(self.lengths).take(number, at)
        pages = [self.pages[place] for place in places.ravel().tolist()]
        lengths = self.lengths[:at] + self.lengths[at + 1 :]
        return replace(self, axes=self.axes[:at] + self.axes[at + 1 :], lengths=lengths, pages=pages)

    def _stacked(self, path: Path) -> Stack:
        """Return the stack with one axis for its pages."""
        long = [(axis, n) for axis, n in zip(self.axes, self.lengths, strict=True) if n > 1]
        if self.form.depth > 1:
            long.append(("Z", self.form.depth))
        alone = len(long) == 1 and self.inner == "YX"
        remarks = self.remarks
        for axis, n in long:
            meaning, most = _CALLED.get(axis, ("", 0))
            if meaning and not (alone and n > most):
                entry(axis.lower(), n, None, path, ())  # raises, because none was chosen
            if meaning:
                remarks = (*remarks, f"its {n} planes are called {meaning}; they are read as a stack along z")
        depth = _DEPTH_AXES + ("CT" if alone else "")
        letters = "".join("Z" if axis in depth else axis for axis, _ in long)
        letters = letters or "".join(sorted(set("ZYX") - set(self.inner)))
        if sorted(letters + self.inner) != ["X", "Y", "Z"]:
            axes, lengths = self.axes + self.inner, (*self.lengths, *self.shape[1:])
            raise InputError(f"{path} is not a stack: it has the axes {axes} of lengths {lengths}")
        return replace(self, axes=letters, lengths=self.shape[:1], remarks=remarks)


def check_alike(path: Path, pages: Sequence[Page]) -> None:
    """Refuse pages that differ in size, type or meaning; how they are compressed may differ.

    Raises
    ------
    InputError
        Naming the first page that differs from the first one.
    """
    first = pages[0]
    odd = next((page for page in pages if page.form.voxels != first.form.voxels), None)
    if odd is not None:
        count = len({page.form.voxels for page in pages})
        same = str(odd.form) == str(first.form)
        has = "another colour table" if same else f"{odd.form}, page {first.number} has {first.form}"
        raise InputError(
            f"{path} holds {count} images of different shapes or types: page {odd.number} has {has}; split it"
        )


def planes_missing(path: Path, held: int, claimed: int) -> InputError:
    """Return the error of a file with more or fewer planes than its description speaks of."""
    few, many = sorted((held, claimed))
    return InputError(
        f"{path} is truncated or damaged: {few} of {many} planes, its description speaks of {claimed} "
        f"and the file holds {held}; copy it again, or write it anew"
    )
