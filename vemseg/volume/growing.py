"""Coarser levels that grow while blocks of the finest one are written, in any order and by many processes.

A shard of a level is written by whoever writes the last block below it. Processes that share the blocks of a
volume so share its pyramid, too. Where two of them come to the same shard, both write the same bytes. What is
left in the end, such as the shards above a block whose process was killed just then, is written by
``finish_labels``. Levels are the same whoever writes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from vemseg.geometry import ZYX, Box
from vemseg.volume.durable import Durable
from vemseg.volume.pyramid import Level, steps
from vemseg.volume.store import LabelStore, create_level


@dataclass(frozen=True)
class ShardedLevel(Level):
    """A level in Zarr format 3, whose shards are files that appear whole."""

    array: zarr.Array

    def written(self, box: Box) -> bool:
        """Tell whether the shards of a box are there; a shard of zeros is never written as a file."""
        z, y, x = (at // edge for at, edge in zip(box.start, self.block_shape, strict=True))
        channels = [()] if self.array.ndim == 3 else [(channel,) for channel in range(self.array.shape[0])]
        keys = [self.array.metadata.encode_chunk_key((*channel, z, y, x)) for channel in channels]
        return all((self._folder / key).is_file() for key in keys)

    @property
    def _folder(self) -> Path:
        """Where its files lie."""
        return Path(self.array.store.root, self.array.path)


def level_of(group: zarr.Group, number: int) -> ShardedLevel:
    """Return a level that is begun."""
    array = group[str(number)]
    return ShardedLevel(array, array.shards[-3:])


def begun(
    group: zarr.Group, number: int, shape: ZYX, dtype: np.dtype[np.generic], channels: int | None
) -> ShardedLevel:
    """Return a level of a group in Zarr format 3; begin it where it is not there."""
    found = group.get(str(number))
    wanted = (*(() if channels is None else (channels,)), *shape)
    if not isinstance(found, zarr.Array) or found.shape != wanted or found.dtype != dtype:
        create_level(group, number, shape, dtype, channels)
    return level_of(group, number)


def grow(store: LabelStore, box: Box, marked: Callable[[int], bool]) -> None:
    """Write the shards of coarser levels below which the last block was just written.

    Parameters
    ----------
    store : LabelStore
        With a plan of its levels; one without stays as it is.
    box : Box
        The block.
    marked : callable
        Takes the number of a block, counted in the order z, y, x, and tells whether it is written.
    """
    if store.plan is None:
        return
    group = zarr.open_group(Durable(store.directory), mode="r+", zarr_format=3)
    finest = Level(store.array, store.block_shape)
    levels = [finest, *(level_of(group, number) for number in range(1, len(store.plan.factors)))]
    counts = [-(-n // edge) for n, edge in zip(store.shape, store.block_shape, strict=True)]

    def done(cell: Box) -> bool:
        at = [i // edge for i, edge in zip(cell.start, store.block_shape, strict=True)]
        return marked(int(np.ravel_multi_index(at, counts)))

    fresh: Collection[Box] = {box}
    known: Callable[[Box], bool] = done
    for (fine, level), step in zip(itertools.pairwise(levels), steps(store.plan.factors), strict=True):
        above = {upper for each in fresh for upper in level.cells(each.divided(step))}
        fresh = {
            upper
            for upper in sorted(above)
            if all(cell in fresh or known(cell) for cell in fine.cells(upper.scaled(step)))
            and not level.written(upper)
        }
        for upper in fresh:
            level.coarsen(upper, fine.channels, step, store.plan.reduce)
        known = level.written
