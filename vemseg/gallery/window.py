"""A view in napari, where that is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.foreign import check_library, library
from vemseg.gallery.view import View
from vemseg.geometry import Box
from vemseg.volume import Volume

NEEDED = "--view opens napari, which is missing"
"""The beginning of the message where napari is not installed."""


class Lazy:
    """A volume as an array of which napari reads what it shows.

    Parameters
    ----------
    volume : Volume
    """

    ndim = 3

    def __init__(self, volume: Volume) -> None:
        self.volume, self.shape, self.dtype = volume, volume.shape, volume.dtype

    def __getitem__(self, index: Any) -> NDArray[np.generic]:
        given = index if isinstance(index, tuple) else (index,)
        parts = [*given, *[slice(None)] * (3 - len(given))]
        spans = [
            part.indices(n)[:2] if isinstance(part, slice) else (int(part) % n, int(part) % n + 1)
            for part, n in zip(parts, self.shape, strict=True)
        ]
        (z0, z1), (y0, y1), (x0, x1) = spans
        found = self.volume.read(Box((z0, y0, x0), (z1, y1, x1)))
        inner = tuple(slice(None, None, part.step) if isinstance(part, slice) else 0 for part in parts)
        return found[inner]


def check_window() -> None:
    """Refuse to begin where napari is not installed.

    Raises
    ------
    InputError
        Where it is not.
    """
    check_library("napari", NEEDED, "viewer")


def show(view: View) -> None:
    """Open napari with the volume, its labels and the reference, and wait until its window is closed.

    Raises
    ------
    InputError
        Where napari is not installed.
    """
    napari = library("napari", NEEDED, "viewer")
    size = view.grey.voxel_size or (1.0, 1.0, 1.0)
    place = {"scale": size, "translate": view.grey.origin or (0.0, 0.0, 0.0)}
    viewer = napari.Viewer(title=view.grey.name)
    viewer.add_image(Lazy(view.grey), name=view.grey.name, multiscale=False, **place)
    for name, labels in (("labels", view.painted), ("reference", view.truth)):
        if labels is not None:
            viewer.add_labels(Lazy(labels), name=name, multiscale=False, **place)
    napari.run()
