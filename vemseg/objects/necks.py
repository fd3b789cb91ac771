"""Where an object is cut: at necks that are thin beside what lies on both sides of them.

The distance of each voxel of an object from its surface has a peak in the middle of each bulge, and between
two peaks a saddle, in the middle of the neck between them. Each peak gets a basin (a watershed of the
distance: Beucher and Meyer, in Mathematical Morphology in Image Processing, 1993, 433-481). Basins are
joined from the highest saddle down, as in a hierarchy of watersheds by dynamics (Grimaud, SPIE 1769 (1992),
292-305), unless the saddle lies low beside the lower one of the two peaks. "Low" is a ratio here, where
dynamics are a difference, so that one setting serves small and large organelles: with saddle s, peak p and
the longest edge of a voxel e, there is a cut where ``s + e <= neck * (p + e)``. The edge is there because
distances in voxels are uncertain by that much: what is a few voxels thick is not cut for a ragged surface.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vemseg.geometry import ZYX, VoxelSize
from vemseg.objects.connecting import connected
from vemseg.objects.crofton import STEPS

VOXEL_BYTES = 128
"""Bytes that cutting takes for a voxel of the box around an object."""

Parts = NDArray[np.uint32]
"""The part that each voxel belongs to: 0 is none, and they count from 1."""


def can_be_cut(
    low: NDArray[np.int64], high: NDArray[np.int64], shape: ZYX, edges: VoxelSize, neck: float
) -> NDArray[np.bool_]:
    """Tell which objects are thick enough to be cut, whatever their form.

    Parameters
    ----------
    low, high : int64 (n, 3)
        The boxes around objects, half-open, z y x.
    shape : (int, int, int)
        Of the volume. An object that reaches both its ends along an axis may be thicker than the volume.
    edges : (float, float, float)
        Of a voxel, z y x.
    neck : float
    """
    through = (low == 0) & (high == shape)
    thickest: NDArray[np.float64] = np.where(through, np.inf, (high - low) * np.array(edges)).min(axis=1)
    thick: NDArray[np.bool_] = min(edges) + max(edges) <= neck * (thickest + max(edges))
    return thick


def cut(inside: NDArray[np.bool_], edges: VoxelSize, neck: float) -> tuple[Parts, int]:
    """Cut an object at its necks.

    Parameters
    ----------
    inside : bool (z, y, x)
        The object. Beyond the array nothing is known, so its border is not a surface.
    edges : (float, float, float)
        Of a voxel, z y x.
    neck : float
        The share of the formula in the head of this module, above 0 and below 1.

    Returns
    -------
    uint32 (z, y, x), int
        The parts, in the order of their first voxels, and how many there are.
    """
    if inside.all():
        return inside.astype(np.uint32), 1
    from scipy.ndimage import distance_transform_edt
    from skimage.morphology import local_maxima
    from skimage.segmentation import watershed

    depth = distance_transform_edt(inside, sampling=edges)
    peaks, n = connected((local_maxima(depth, connectivity=3) & inside).view(np.uint8), corners=True)
    if n == 1:
        return inside.astype(np.uint32), 1
    heights = np.zeros(n + 1)
    np.maximum.at(heights, peaks.reshape(-1), depth.reshape(-1))
    basins = watershed(-depth, peaks.astype(np.int32), connectivity=3, mask=inside)
    groups = _joined(heights, _saddles(basins, depth), max(edges), neck)
    return _numbered(groups[basins])


def _saddles(basins: NDArray[np.int32], depth: NDArray[np.float64]) -> list[tuple[float, int, int]]:
    """Return the highest saddle between each two basins that touch: its depth, and both; highest first."""
    n = int(basins.max()) + 1
    keys, heights = [np.zeros(0, np.int64)], [np.zeros(0)]
    for step in STEPS:
        here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, basins.shape, strict=True))
        there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, basins.shape, strict=True))
        a, b = basins[here], basins[there]
        meet = (a != b) & (a > 0) & (b > 0)
        one, other = a[meet].astype(np.int64), b[meet].astype(np.int64)
        keys.append(np.minimum(one, other) * n + np.maximum(one, other))
        heights.append(np.minimum(depth[here][meet], depth[there][meet]))
    pairs, owner = np.unique(np.concatenate(keys), return_inverse=True)
    highest = np.zeros(len(pairs))
    np.maximum.at(highest, owner, np.concatenate(heights))
    found = zip(highest.tolist(), (pairs // n).tolist(), (pairs % n).tolist(), strict=True)
    return sorted(found, key=lambda saddle: (-saddle[0], *saddle[1:]))


def _joined(
    heights: NDArray[np.float64], saddles: list[tuple[float, int, int]], edge: float, neck: float
) -> NDArray[np.int64]:
    """Return the part of each basin, by one of its basins.

    Saddles come from the highest to the lowest. What they have connected so far is a hill with one highest
    peak; the hill whose peak is lower is cut off where the saddle is a neck, and else goes to the part on the
    other side of the saddle. A hill within which there was a cut has always a peak that is high enough for
    the next one, so a hill that is not cut off is one part.
    """
    hills, parts = _Sets(len(heights)), _Sets(len(heights))
    for depth, a, b in saddles:
        one, other = hills.find(a), hills.find(b)
        if one == other:
            continue
        low, high = sorted((one, other), key=lambda hill: (heights[hill], -hill))
        if depth + edge > neck * (heights[low] + edge):
            parts.join(parts.find(a), parts.find(b))
        hills.join(low, high)
    return np.array([parts.find(i) for i in range(len(heights))])


class _Sets:
    """Sets of the numbers 0..n - 1 that are joined one after the other; each is called by one of its own."""

    def __init__(self, n: int) -> None:
        self._up = list(range(n))

    def find(self, i: int) -> int:
        """Return what the set of a number is called."""
        while self._up[i] != i:
            self._up[i] = i = self._up[self._up[i]]
        return i

    def join(self, one: int, other: int) -> None:
        """Join the sets ``one`` and ``other``; the result is called ``other``."""
        self._up[one] = other


def _numbered(parts: NDArray[np.int64]) -> tuple[Parts, int]:
    """Return parts, 0 for none, numbered from 1 in the order of their first voxels."""
    names, first = np.unique(parts, return_index=True)
    names, first = names[names > 0], first[names > 0]
    number = np.zeros(int(parts.max()) + 1, np.uint32)
    number[names[np.argsort(first)]] = np.arange(1, len(names) + 1)
    return number[parts], len(names)
