"""Which voxels of a volume show the specimen, where not all do, as a mask or the volume itself says it.

What they leave out counts nowhere: not for the range of grey values, nor for classes, nor for training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.geometry import ZYX, Box
from vemseg.volume.base import Shares, Specimen, Volume
from vemseg.volume.views import Overlay

BLOCK: ZYX = (64, 256, 256)
"""Voxels that are read at once where a whole volume is looked through."""


@dataclass(frozen=True)
class Background:
    """What a user says of voxels that show nothing.

    Attributes
    ----------
    find : bool
        Whether a constant background is looked for. A mask is enough where there is one.
    mask : str or None
        A volume that is above 0 where the specimen is.
    """

    find: bool = True
    mask: str | None = None

    def pinned(self, absolute: Callable[[str], str]) -> Background:
        """Return the same with a path that any process finds, given what makes paths absolute."""
        return self if self.mask is None else replace(self, mask=absolute(self.mask))


class Filled(Overlay):
    """A volume as encoders see it: medium grey outside the specimen, so that its border is no hard edge.

    Parameters
    ----------
    volume : Volume
        With a specimen.
    grey : float
        What voxels outside show; rounded where voxels are integers.
    """

    def __init__(self, volume: Volume, grey: float) -> None:
        super().__init__(volume, volume.dtype)
        self.specimen = volume.specimen
        self.grey = round(grey) if volume.dtype.kind in "iu" else grey

    def _read(self, box: Box) -> NDArray[np.generic]:
        values = self.source.read(box)
        if self.specimen is not None:
            values[self.specimen.voxels.read(box) == 0] = self.grey
        return values


class Marked(Overlay):
    """A mask as 1 where it is above 0, else 0."""

    def __init__(self, mask: Volume) -> None:
        super().__init__(mask, np.dtype(np.uint8))

    def _read(self, box: Box) -> NDArray[np.generic]:
        marked: NDArray[np.uint8] = np.greater(self.source.read(box), 0).astype(np.uint8)
        return marked


def marked_specimen(mask: Volume) -> Specimen | None:
    """Return the specimen that a mask marks; None where it marks every voxel.

    The mask is read once, block by block.

    Raises
    ------
    InputError
        Where it marks none.
    """
    marked = Marked(mask)
    profiles = [np.zeros(n) for n in mask.shape]
    for box in mask.box.split(BLOCK):
        values = marked.read(box)
        for axis, profile in enumerate(profiles):
            across = tuple(other for other in range(3) if other != axis)
            profile[box.slices[axis]] += values.sum(axis=across, dtype=np.int64)
    count = int(profiles[0].sum())
    if not count:
        raise InputError(f"{mask.address}: the mask is nowhere above 0: it marks no voxel of the volume")
    if count == mask.box.size:
        return None
    files = (mask.path,) if mask.path else ()
    return Specimen(marked, count / mask.box.size, middle_of(profiles), {"mask": True}, files)


def middle_of(profiles: list[NDArray[np.float64]]) -> Shares:
    """Return the mean place of voxels that are counted for each plane across z, y and x."""
    z, y, x = (
        float(((np.arange(len(along)) + 0.5) * along).sum() / along.sum() / len(along)) for along in profiles
    )
    return z, y, x
