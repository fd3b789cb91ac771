"""What every volume can do: say its shape, dtype and voxel size, and read boxes of voxels.

Subclasses read boxes that lie inside; reading across the border, by reflection, is written once, here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.geometry import ZYX, Box, Position, VoxelSize, moved
from vemseg.tiling import reflect

Shares = tuple[float, float, float]
"""A place in a volume as parts of its edges, each from 0 to 1."""


class Described(TypedDict, total=False):
    """What is known of a volume beside its shape and dtype; see the attributes of ``Volume``."""

    voxel_size: VoxelSize | None
    voxel_size_from: str
    name: str
    path: Path | None
    address: str | None


class Placed(TypedDict):
    """Where the voxels of a volume lie; see the attributes of ``Volume``."""

    voxel_size: VoxelSize | None
    origin: Position | None
    start: ZYX


@dataclass(frozen=True)
class Specimen:
    """The voxels of a volume that show the specimen; at least one, and not all.

    Attributes
    ----------
    voxels : Volume
        uint8, of the shape of the volume: 1 where it shows the specimen, else 0.
    share : float
        Their part of all voxels, between 0 and 1.
    middle : (float, float, float)
        Where they lie on average, in parts of the edges of the volume.
    facts : mapping
        What provenance says of the background.
    files : tuple of Path
        Files that decide on it beside the volume's own.
    """

    voxels: Volume
    share: float
    middle: Shares
    facts: Mapping[str, object] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def seen(self, view: Callable[[Volume], Volume]) -> Specimen:
        """Return the specimen as a view of the volume shows it, which keeps the order of the axes."""
        return replace(self, voxels=view(self.voxels))

    def permuted(self, view: Callable[[Volume], Volume], order: ZYX) -> Specimen:
        """Return the specimen with axes in another order; axis ``i`` was axis ``order[i]``."""
        z, y, x = (self.middle[axis] for axis in order)
        return replace(self.seen(view), middle=(z, y, x))


class Volume:
    """Voxels in (z, y, x) order, read box by box.

    Attributes
    ----------
    shape : (int, int, int)
        Voxels along z, y, x.
    dtype : numpy.dtype
        What ``read`` returns.
    voxel_size : (float, float, float) or None
        Edge lengths of a voxel in nm, z y x; None where nothing trustworthy states them.
    voxel_size_from : str
        ``"file"``, ``"option"`` or ``"unknown"``.
    name : str
        Short name for logs and figures.
    path : Path or None
        The file or folder in which the voxels lie; None where they are in memory or on another machine.
    address : str
        What opens the volume again: its path, a place inside a file (``/data/cell.h5:/raw``), or a URL.
    choice : mapping of str to str
        What of the file was chosen to be read: ``{"channel": "1"}``; empty where nothing was said.
    hint : str or None
        What the file states of the voxel size though it is not known, with the option that settles it.
    origin : (float, float, float) or None
        Where the centre of the first voxel lies in space, in nm, z y x; None where nothing states it.
    start : (int, int, int)
        Which voxel of the file that the volume was cropped from is its first one, z y x; (0, 0, 0) for
        volumes that are whole.
    labelled : str or None
        What in the file says that the voxels are labels; None where nothing does.
    pictured : str or None
        What in the file says that the voxels are a picture and no labels; None where nothing does.
    remarks : tuple of str
        What a user should know of how the file was understood, one sentence each.
    specimen : Specimen or None
        Which voxels show the specimen; None where all do, or nobody looked.
    coarser : tuple of str
        Levels of the same volume that are stored beside it, the finest first, as ``Choice.level`` opens them;
        empty where there are none, and for views of a volume.
    """

    coarser: tuple[str, ...] = ()
    origin: Position | None = None
    start: ZYX = (0, 0, 0)
    labelled: str | None = None
    hint: str | None = None
    choice: Mapping[str, str] = MappingProxyType({})
    pictured: str | None = None
    remarks: tuple[str, ...] = ()
    specimen: Specimen | None = None
    shape: ZYX
    dtype: np.dtype[np.generic]
    voxel_size: VoxelSize | None
    voxel_size_from: str
    name: str
    path: Path | None
    address: str

    def __init__(
        self,
        shape: ZYX,
        dtype: np.dtype[np.generic],
        *,
        voxel_size: VoxelSize | None = None,
        voxel_size_from: str = "unknown",
        name: str = "volume",
        path: Path | None = None,
        address: str | None = None,
    ) -> None:
        if min(shape) < 1:
            raise InputError(f"{path or name} holds no voxels: its shape is {shape} (z, y, x)")
        self.shape = shape
        self.dtype = dtype
        self.voxel_size = voxel_size
        self.voxel_size_from = voxel_size_from if voxel_size is not None else "unknown"
        self.name = name
        self.path = path
        self.address = address or str(path or name)

    @property
    def box(self) -> Box:
        """The box of all voxels."""
        return Box.whole(self.shape)

    @property
    def corner(self) -> Position:
        """Where the first voxel's centre lies: ``origin``, or where ``start`` puts it; in nm, else voxels."""
        if self.voxel_size is None:
            return self.start
        return self.origin or moved(None, self.start, self.voxel_size) or (0.0, 0.0, 0.0)

    @property
    def placed(self) -> Placed:
        """Where the voxels lie, as outputs of the same place are told it."""
        return {"voxel_size": self.voxel_size, "origin": self.origin, "start": self.start}

    @property
    def channels(self) -> tuple[Volume, ...]:
        """The volumes of its channels, all at the same place: itself alone, unless it has several."""
        return (self,)

    @property
    def sources(self) -> tuple[Path, ...]:
        """Files and folders that are read: the volume's own, then what says where its specimen is."""
        own = () if self.path is None else (self.path,)
        return own if self.specimen is None else own + self.specimen.files

    def stored(self) -> Volume:
        """Return the volume of the values as they are stored: itself, unless a file shows them otherwise."""
        return self

    def read(self, box: Box) -> NDArray[np.generic]:
        """Read a box that lies inside the volume.

        Parameters
        ----------
        box : Box
            Voxels, z y x.

        Returns
        -------
        array of ``box.shape`` and the volume's ``dtype``, writable and the caller's own.

        Raises
        ------
        InputError
            Where the data of the box are damaged.
        ValueError
            Where the box reaches outside.
        """
        if not self.box.contains(box):
            raise ValueError(f"box {box} reaches outside {self.name} of shape {self.shape}")
        return self._read(box)

    def _read(self, box: Box) -> NDArray[np.generic]:
        raise NotImplementedError

    def read_each(self, boxes: Sequence[Box]) -> Iterator[NDArray[np.generic]]:
        """Read boxes one after the other; a volume of no more voxels than they have together is read once.

        Floats are read box by box all the same: where they are computed, the last bit may depend on the box.

        Parameters
        ----------
        boxes : sequence of Box
            They lie inside the volume and may overlap.

        Yields
        ------
        array of each box's shape and the volume's ``dtype``, to be looked at and not changed.
        """
        if self.dtype.kind == "f" or self.box.size > sum(box.size for box in boxes):
            yield from map(self.read, boxes)
        else:
            whole = self.read(self.box)
            yield from (whole[box.slices] for box in boxes)

    def read_reflected(self, box: Box) -> NDArray[np.generic]:
        """Read a box that may reach outside, where the volume is mirrored at its borders.

        As ``numpy.pad(mode="reflect")``: the border voxel is not repeated, and the mirroring goes on as often
        as needed. An axis of one voxel repeats it.

        Returns
        -------
        array of ``box.shape`` and the volume's ``dtype``.
        """
        if self.box.contains(box):
            return self.read(box)
        if not box.size:
            return np.zeros(box.shape, self.dtype)
        limits = zip(box.start, box.stop, self.shape, strict=True)
        folded = [reflect(np.arange(start, stop), n) for start, stop, n in limits]
        z, y, x = ((int(index.min()), int(index.max()) + 1) for index in folded)
        inner = self.read(Box((z[0], y[0], x[0]), (z[1], y[1], x[1])))
        return inner[np.ix_(folded[0] - z[0], folded[1] - y[0], folded[2] - x[0])]

    def slabs(self, box: Box) -> Iterator[NDArray[np.generic]]:
        """Yield what :meth:`read_reflected` reads, in parts along z that are made one after the other.

        ``Resampled`` makes a few planes at a time; others yield all at once.
        """
        yield self.read_reflected(box)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, shape={self.shape}, dtype={self.dtype})"


class ArrayVolume(Volume):
    """A volume in memory.

    Parameters
    ----------
    array : array (z, y, x), or (y, x) taken as one plane
    voxel_size : (float, float, float), optional
        nm, z y x.
    """

    def __init__(
        self, array: NDArray[np.generic], voxel_size: VoxelSize | None = None, name: str = "array"
    ) -> None:
        array = array[np.newaxis] if array.ndim == 2 else array
        if array.ndim != 3:
            raise InputError(f"{name} has {array.ndim} axes: a volume has z, y, x")
        nz, ny, nx = array.shape
        super().__init__(
            (nz, ny, nx), array.dtype, voxel_size=voxel_size, voxel_size_from="option", name=name
        )
        self._array = array

    def _read(self, box: Box) -> NDArray[np.generic]:
        return self._array[box.slices].copy()
