"""A growing volume on disk: a sharded Zarr array, written block by block, later a level of an OME-Zarr.

A store of class scores has an axis of channels before z, y, x; as a volume it is its first channel then.

Two writers in one shard lose data without an error, so a block is always a whole number of shards.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from vemseg.errors import InputError, OutputExistsError
from vemseg.files import remove
from vemseg.foreign import reading
from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.volume import pyramid
from vemseg.volume.base import Volume
from vemseg.volume.durable import Durable
from vemseg.volume.layout import Layout
from vemseg.volume.pyramid import Plan, coarser_shape
from vemseg.volume.stored import StoredVolume, channels_of

PLAN = "levels"
"""The attribute of a store that says which levels are begun in it; it goes when the store is finished."""

CHUNK_EDGE = 64
"""The edge in voxels that chunks of a store should have; a viewer reads one chunk at a time."""


class LabelStore(StoredVolume):
    """Labels (or grey values) written block by block, by one or many writers, and readable.

    On disk it is a Zarr group (format 3) whose array ``0`` is the finest level of the OME-Zarr it becomes.
    Voxels that were not written read as 0.

    Attributes
    ----------
    directory : Path
    plan : Plan or None
        The coarser levels that are begun in it already (see ``growing.grow``).
    block_shape : (int, int, int)
        A box that is written must start at a multiple of it along each axis, and end at a multiple or at the
        volume's end. Along an axis that one block covers it may differ from what was asked for.
    """

    def __init__(self, directory: Path, array: zarr.Array) -> None:
        nm = array.attrs.get("voxel_size_nm")
        super().__init__(
            array,
            np.dtype(array.dtype),
            layout=Layout(("c", "z", "y", "x")[-array.ndim :]),
            voxel_size=None if nm is None else (float(nm[0]), float(nm[1]), float(nm[2])),
            voxel_size_from="file",
            name=directory.name,
            path=directory,
        )
        self.array = array
        self.directory = directory
        self.block_shape: ZYX = array.shards[-3:]
        planned = array.attrs.get(PLAN)
        self.plan = None if planned is None else Plan.read(planned)

    @property
    def channels(self) -> tuple[Volume, ...]:
        """The volumes of its channels; itself alone where it has no axis of channels."""
        return (self,) if self.array.ndim == 3 else channels_of(self.array, self.dtype, path=self.directory)

    @classmethod
    def create(
        cls,
        directory: Path,
        shape: ZYX,
        block_shape: ZYX,
        dtype: str | np.dtype[np.generic] = "uint8",
        voxel_size: VoxelSize | None = None,
        channels: int | None = None,
        plan: Plan | None = None,
    ) -> LabelStore:
        """Create an empty store; with a number of channels it has an axis of them.

        With a plan, its coarser levels are begun too.

        Raises
        ------
        OutputExistsError
            Where ``directory`` exists.
        """
        if directory.exists():
            raise OutputExistsError(f"{directory} exists: remove it, or go on with it")
        growing = directory.with_name(f"{directory.name}.new")
        remove(growing)
        growing.mkdir(parents=True)
        group = zarr.create_group(Durable(growing), zarr_format=3)
        array = create_array(group, "0", shape, block_shape, dtype, channels)
        if voxel_size is not None:
            array.attrs["voxel_size_nm"] = list(voxel_size)
        if plan is not None:
            array.attrs[PLAN] = plan.plain()
            for number, factors in enumerate(plan.factors[1:], start=1):
                create_level(group, number, coarser_shape(shape, factors), array.dtype, channels)
        growing.replace(directory)
        return cls.open(directory)

    @classmethod
    def open(cls, directory: Path) -> LabelStore:
        """Open a store to go on writing or to read.

        Raises
        ------
        InputError
            Where ``directory`` is not a store.
        """
        if not (directory / "0").is_dir():  # Zarr would make it
            raise InputError(f"{directory} is not a label store")
        with reading(f"{directory} is not a label store"):
            array = zarr.open_array(Durable(directory / "0"), mode="r+", zarr_format=3)
        if array.ndim not in (3, 4) or array.shards is None:
            raise InputError(f"{directory} is not a label store: its array has other axes or no shards")
        return cls(directory, array)

    def write(self, box: Box, array: NDArray[np.generic]) -> None:
        """Write one or several whole blocks.

        Parameters
        ----------
        box : Box
            Aligned to ``block_shape``.
        array : array of ``box.shape``, with the channels before it where the store has any
            Its type must fit into the store's without loss.

        Raises
        ------
        ValueError
            Where the box is not aligned, or the array does not fit.
        """
        for a, b, edge, n in zip(box.start, box.stop, self.block_shape, self.shape, strict=True):
            if a < 0 or b > n or a % edge or (b % edge and b != n):
                raise ValueError(
                    f"box {box} is not aligned to blocks of {self.block_shape} in a volume of {self.shape}"
                )
        wanted = (*self.array.shape[:-3], *box.shape)
        if array.shape != wanted or not np.can_cast(array.dtype, self.dtype):
            raise ValueError(
                f"a block of {array.shape} {array.dtype} does not fit {wanted} voxels of {self.dtype}"
            )
        if self.array.ndim == 3:
            self.array[box.slices] = array
        else:
            for channel, part in enumerate(array):
                self.array[(channel, *box.slices)] = part


def create_array(
    group: zarr.Group,
    name: str,
    shape: ZYX,
    block_shape: ZYX,
    dtype: str | np.dtype[np.generic],
    channels: int | None = None,
) -> zarr.Array:
    """Create a sharded, compressed array (z, y, x) in a group, replacing one of that name.

    Every block of ``block_shape`` is one shard; every shard a whole number of chunks of about 64 voxels an
    edge. With a number of channels the array is (c, z, y, x), and a shard belongs to one channel.
    """
    z, y, x = (_shard_edge(n, block) for n, block in zip(shape, block_shape, strict=True))
    one = () if channels is None else (1,)
    return group.create_array(
        name,
        shape=(*(() if channels is None else (channels,)), *shape),
        shards=(*one, z, y, x),
        chunks=(*one, *(_chunk_edge(edge) for edge in (z, y, x))),
        dtype=dtype,
        fill_value=0,
        compressors=zarr.codecs.ZstdCodec(level=3),
        dimension_names=("c", "z", "y", "x")[-3 - len(one) :],
        config={"write_empty_chunks": False},
        overwrite=True,
    )


def create_level(
    group: zarr.Group, number: int, shape: ZYX, dtype: np.dtype[np.generic], channels: int | None
) -> zarr.Array:
    """Create a coarser level in a group, replacing one of that number."""
    return create_array(group, str(number), shape, pyramid.BLOCK_SHAPE, dtype, channels)


def _shard_edge(n: int, block: int) -> int:
    """Return the edge of a shard: the block's, or one that covers an axis of a single block well."""
    if block < n:
        return block
    return n if n <= CHUNK_EDGE else -(-n // CHUNK_EDGE) * CHUNK_EDGE


def _chunk_edge(shard: int) -> int:
    """Return the divisor of a shard's edge that is nearest to the wanted one, as a ratio."""
    divisors = [d for d in range(1, shard + 1) if shard % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d / CHUNK_EDGE)))
