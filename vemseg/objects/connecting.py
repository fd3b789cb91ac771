"""Connected voxels of one class within an array, by a compiled library."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint32]
"""Ids of components: 0 is none, and they count from 1."""


def connected(classes: NDArray[np.integer], *, corners: bool) -> tuple[Ids, int]:
    """Return the components of an array, and how many they are.

    connected-components-3d does it where that is installed (the extra ``fast``), else scikit-image, which
    takes about ten times as long. Both find the same components; the order of their numbers may differ.

    Parameters
    ----------
    classes : integers (z, y, x)
        0 is nothing; nothing is below it.
    corners : bool
        Whether voxels hang together that share an edge or a corner alone.
    """
    return _library()(classes, corners)


@cache
def _library() -> Callable[[NDArray[np.integer], bool], tuple[Ids, int]]:
    """Return the function of the fastest library that is installed."""
    try:
        import_module("cc3d")
    except ImportError:
        return _by_skimage
    return _by_cc3d


def _by_cc3d(classes: NDArray[np.integer], corners: bool) -> tuple[Ids, int]:
    import cc3d

    ids, n = cc3d.connected_components(classes, connectivity=26 if corners else 6, return_N=True)
    return ids.astype(np.uint32, copy=False), n


def _by_skimage(classes: NDArray[np.integer], corners: bool) -> tuple[Ids, int]:
    from skimage.measure import label

    ids, n = label(classes, background=0, connectivity=3 if corners else 1, return_num=True)
    return ids.astype(np.uint32), n
