"""Which pages of a TIFF form the one stack that is read, and whether the file is whole."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import tifffile

from vemseg.errors import InputError
from vemseg.geometry import ZYX

logger = logging.getLogger(__name__)

_DEPTH_AXES = "ZIQR"  # depth; pages in a row without a name; unknown; "other"

Page: TypeAlias = tifffile.TiffPage | tifffile.TiffFrame
"""A page with all its tags, or with only those in which it differs from its keyframe."""


@dataclass(frozen=True)
class Stack:
    """The pages of a file that form one image, as tifffile's series describe them.

    Attributes
    ----------
    kind : str
        "imagej", "ome", "shaped" (tifffile's own), or another.
    axes : str
        One letter for each axis; axes of length 1 may be left out.
    shape : tuple of int
    dtype : numpy.dtype
    keyframe : tifffile.TiffPage
        The page that describes all others.
    pages : list of tifffile.TiffPage, tifffile.TiffFrame or None
    offset : int or None
        Where the voxels start if they lie in the file in one piece, as they are.
    """

    kind: str
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    keyframe: tifffile.TiffPage
    pages: list[Page | None]
    offset: int | None

    @classmethod
    def of(cls, series: tifffile.TiffPageSeries) -> Stack:
        """Return what a series of tifffile says."""
        pages, offset = list(series.pages), series.dataoffset
        return cls(
            series.kind, series.axes, series.shape, np.dtype(series.dtype), series.keyframe, pages, offset
        )

    @classmethod
    def of_planes(cls, planes: list[tifffile.TiffPageSeries]) -> Stack | None:
        """Return the stack of planes that were written as one image each, or None if they differ."""
        first, *others = planes
        if len(first.shape) != 2 or any(other.keyframe.hash != first.keyframe.hash for other in others):
            return None
        pages = [page for plane in planes for page in plane.pages]
        shape = (len(planes), *first.shape)
        return cls(first.kind, "Z" + first.axes, shape, np.dtype(first.dtype), first.keyframe, pages, None)

    def shape_zyx(self, path: Path) -> ZYX:
        """Return the lengths of z, y, x, or refuse colours, channels, times and other axes."""
        axes = self.axes
        long = [(axis, n) for axis, n in zip(axes, self.shape, strict=True) if n > 1]
        sizes = dict(long)  # tifffile may use a letter twice: one voxel has the axes XYX
        for axis, meaning in (("S", "colour samples"), ("C", "channels"), ("T", "time points")):
            if sizes.get(axis, 1) > 1:
                raise InputError(f"{path} has {sizes[axis]} {meaning}: extract one as a grey stack")
        deep = [n for axis, n in sizes.items() if axis in _DEPTH_AXES]
        odd = [axis for axis in sizes if axis not in _DEPTH_AXES + "YXSCT"]
        if len(deep) > 1 or odd or len(sizes) < len(long):
            raise InputError(f"{path} is no stack: it has the axes {axes} of lengths {self.shape}")
        return (deep[0] if deep else 1), sizes.get("Y", 1), sizes.get("X", 1)


def only_stack(path: Path, file: tifffile.TiffFile) -> Stack:
    """Return the stack of a file that is meant to hold one."""
    count = len(file.series)
    if not count:
        raise InputError(f"{path} holds no image")
    _check_chain(path, file)
    series = file.series[0]
    for kind, claimed in (("imagej", file.is_imagej), ("ome", file.is_ome), ("shaped", file.is_shaped)):
        if claimed and series.kind not in (kind, "imagej", "ome"):
            raise InputError(f"{path} is truncated or damaged: its {kind} description does not fit its pages")
    if count > 1 and series.kind == "ome":
        logger.warning("%s holds %d OME images; the first one is read", path, count)
    elif count > 1:
        stack = Stack.of_planes(list(file.series))
        if stack is None:
            raise InputError(f"{path} holds {count} images of different shapes or types: split it")
        return stack
    return Stack.of(series)


def _check_chain(path: Path, file: tifffile.TiffFile) -> None:
    """Refuse a file whose list of pages breaks off: tifffile would hand out the pages that are left."""
    at = file.pages.next_page_offset
    handle = file.filehandle
    handle.seek(at)
    width = 8 if file.is_bigtiff else 4
    data = handle.read(width)
    following = int.from_bytes(data, "little" if file.byteorder == "<" else "big")
    if len(data) < width or following >= handle.size:
        raise truncated(path)


def truncated(path: Path) -> InputError:
    """Return the error of a file that ends too early."""
    return InputError(f"{path} is truncated: part of its data lies beyond the end of the file; copy it again")
