"""Mapping grey values to [0, 1], by the percentiles of a random sample of bounded size."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.geometry import ZYX, Box, add
from vemseg.volume.base import Volume
from vemseg.volume.dtypes import grey_dtype
from vemseg.volume.specimen import Filled

log = logging.getLogger("vemseg")

SAMPLE_SHAPE: ZYX = (8, 64, 64)
"""The shape of the largest box that is read at once for a sample of a volume's voxels, z y x."""

BOXES = 64
"""How many boxes are read for a sample, which bounds time and memory."""

MOST_BOXES = 1024
"""Most boxes that are read of a volume which shows the specimen in a part of its voxels only."""

FEW_VALUES = 16
"""A sample of integers with no more different values than this may hold labels."""


LEAST_LEVELS = 64
"""Grey values that must be left between the darkest and the brightest where integers become 64-bit floats."""


@dataclass(frozen=True)
class Intensity:
    """The grey values that become 0 and 1.

    Attributes
    ----------
    low, high : float
        In the volume's own unit; ``low < high``.
    """

    low: float
    high: float

    def apply(self, array: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return ``(array - low) / (high - low)`` clipped to [0, 1], float32, of the same shape."""
        if grey_dtype(array.dtype) == np.float64:
            return self._apply_wide(array)
        scaled = array.astype(np.float32)
        scaled -= np.float32(self.low)
        scaled /= np.float32(self.high - self.low)
        return np.clip(scaled, 0, 1, out=scaled)

    def _apply_wide(self, array: NDArray[np.generic]) -> NDArray[np.float32]:
        """Do the same in float64, part by part: what is subtracted may be much larger than the contrast."""
        scaled = np.empty(array.shape, np.float32)
        for part, out in zip(np.atleast_2d(array), np.atleast_2d(scaled), strict=True):
            out[...] = np.clip((part.astype(np.float64) - self.low) / (self.high - self.low), 0, 1)
        return scaled


def filled(volume: Volume, intensity: Intensity) -> Volume:
    """Return a volume with its middle grey outside the specimen, or itself where no specimen is known."""
    return volume if volume.specimen is None else Filled(volume, (intensity.low + intensity.high) / 2)


def measure_intensity(volume: Volume, percentiles: tuple[float, float] = (0.5, 99.5)) -> Intensity:
    """Measure the grey values between which the volume's contrast lies, in the same boxes every time.

    Parameters
    ----------
    volume : Volume
    percentiles : (float, float)
        Percentiles of the sample, in [0, 100]. Where both fall on the same value, the smallest and the
        largest value of the sample are taken instead.

    Raises
    ------
    InputError
        Where the sample holds NaN or infinity, one value only, or values too close for 64-bit floats.
    """
    where = volume.path or volume.name
    stored = _sample(volume)
    sample = stored.astype(grey_dtype(stored.dtype), copy=False)
    if not np.isfinite(sample).all():
        raise InputError(f"{where} holds NaN or infinite values: replace them by numbers first")
    low, high = (float(value) for value in np.percentile(sample, percentiles))
    if low >= high:
        low, high = float(sample.min()), float(sample.max())
    if stored.min() < stored.max() and high - low < LEAST_LEVELS * _lost(stored.dtype, max(-low, high)):
        raise InputError(f"{where} holds values near {low:g} too close to tell apart: subtract that from all")
    if low >= high:
        raise InputError(f"{where} is constant: every sampled voxel is {low:g}; check the file and the crop")
    _warn_of_few_values(volume, sample)
    return Intensity(low, high)


def _lost(dtype: np.dtype[np.generic], largest: float) -> float:
    """Return how far apart floats are near the largest value where integers lie closer; else 0."""
    apart = float(np.spacing(largest)) if dtype.kind in "iu" and dtype.itemsize == 8 else 0.0
    return apart if apart > 1 else 0.0


def _sample(volume: Volume) -> NDArray[np.generic]:
    """Return the voxels of random boxes that show the specimen; more boxes where few voxels do.

    Raises
    ------
    InputError
        Where the boxes show nothing of it.
    """
    shown = volume.specimen
    if shown is None:
        boxes = list(sample_boxes(volume))
        return np.concatenate([part.ravel() for part in volume.read_each(boxes)])
    boxes = list(sample_boxes(volume, min(MOST_BOXES, math.ceil(BOXES / shown.share))))
    seen = [(box, shown.voxels.read(box) > 0) for box in boxes]  # type: ignore[operator]
    parts = [volume.read(box)[mask] for box, mask in seen if mask.any()]
    if not parts:
        raise InputError(
            f"{volume.path or volume.name}: hardly a voxel shows the specimen ({shown.share:.2g} of all): "
            "crop the volume to it, or check the mask"
        )
    return np.concatenate(parts)


def sample_boxes(volume: Volume, count: int = BOXES) -> Iterator[Box]:
    """Yield boxes of at most ``SAMPLE_SHAPE`` voxels at random places, the same ones every time."""
    rng = np.random.default_rng(0)
    z, y, x = (min(a, b) for a, b in zip(volume.shape, SAMPLE_SHAPE, strict=True))
    edges: ZYX = (z, y, x)
    for _ in range(count):
        z, y, x = (int(rng.integers(n - e + 1)) for n, e in zip(volume.shape, edges, strict=True))
        yield Box((z, y, x), add((z, y, x), edges))


def _warn_of_few_values(volume: Volume, sample: NDArray[np.generic]) -> None:
    if volume.dtype.kind not in "iu" or np.unique(sample[::64]).size > FEW_VALUES:
        return  # decided by a part of the sample: sorting all of it takes a while
    if (found := np.unique(sample).size) <= FEW_VALUES:
        where = volume.path or volume.name
        log.warning("%s holds only %d different values, like labels: they count as grey values", where, found)
