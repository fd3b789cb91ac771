"""The pages of a TIFF that form one image, and which way its axes lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vemseg.errors import InputError
from vemseg.geometry import ZYX
from vemseg.volume.tiff_forms import Form, Page

MOST_CHANNELS = 4
"""The most channels that a plane is taken to have, its detectors; where there are more, they are a stack."""

_DEPTH_AXES = "ZIQR"
"""Letters of axes that are depth: z, pages in a row without a name, "other", and tile."""

_FIJI = "in Fiji: Image > Duplicate, or Image > Color > Split Channels"


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

    def along_z(self, path: Path) -> Stack:
        """Return the stack with one axis for its pages, or refuse channels, times and other axes.

        Raises
        ------
        InputError
            Where pages count more than one thing, or the axes are not z, y and x.
        """
        long = [(axis, n) for axis, n in zip(self.axes, self.lengths, strict=True) if n > 1]
        if self.form.depth > 1:
            long.append(("Z", self.form.depth))
        alone = len(long) == 1 and self.inner == "YX"
        remarks = self.remarks
        for axis, n in long:
            meaning, most = {"C": ("channels", MOST_CHANNELS), "T": ("time points", 1)}.get(axis, ("", 0))
            if meaning and not (alone and n > most):
                raise InputError(f"{path} has {n} {meaning}: extract one as a grey stack ({_FIJI})")
            if meaning:
                remarks = (*remarks, f"its {n} planes are called {meaning}; they are read as a stack along z")
        depth = _DEPTH_AXES + ("CT" if alone else "")
        letters = "".join("Z" if axis in depth else axis for axis, _ in long)
        letters = letters or "".join(sorted(set("ZYX") - set(self.inner)))
        if sorted(letters + self.inner) != ["X", "Y", "Z"]:
            axes, lengths = self.axes + self.inner, (*self.lengths, *self.shape[1:])
            raise InputError(f"{path} is no stack: it has the axes {axes} of lengths {lengths}")
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
