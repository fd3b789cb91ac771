"""Slices of an image and its labels, small enough for a page."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.context import Context
from vemseg.drawing.pixels import grey, jpeg, limits
from vemseg.errors import Interrupted
from vemseg.report.counting import Counts
from vemseg.volume import Thinned, Volume, sections

MOST_SLICES = 48
"""Most slices of a page."""

EDGE = 768
"""Most pixels of the edge of a slice."""

BYTES = 9_000_000
"""Most bytes of all slices together; base64 makes them a third larger."""

QUALITY = 72
"""The quality of slices of the image, as JPEG counts it."""


@dataclass(frozen=True)
class Slice:
    """One slice of a page.

    Attributes
    ----------
    z : int
        Its number in the volume.
    shape : (int, int)
        Pixels along y and x.
    grey : bytes
        The image, JPEG.
    labels : bytes
        For each pixel a byte, row by row: 0 for nothing, else the place of its class in the list of classes,
        from 1; compressed (RFC 1950).
    """

    z: int
    shape: tuple[int, int]
    grey: bytes
    labels: bytes

    def entry(self) -> dict[str, object]:
        """Return the slice as JSON keeps it."""
        texts = {
            name: b64encode(data).decode() for name, data in (("grey", self.grey), ("labels", self.labels))
        }
        return {"z": self.z, "shape": list(self.shape), **texts}


def slices_of(image: Volume, labels: Volume, counts: Counts, context: Context) -> Iterator[Slice]:
    """Yield slices across z, evenly spread, of an image and its labels.

    Their pixels are those of every so many voxels. A slice that would take more than its share of ``BYTES``
    is made coarser until it does not.

    Parameters
    ----------
    image, labels : Volume
        Of the same voxels.
    counts : Counts
        The classes of the labels.
    context : Context

    Raises
    ------
    Interrupted
        Where the work was stopped.
    """
    seen, painted = Thinned(image, EDGE), Thinned(labels, EDGE)
    places, between = _evenly(seen.shape[0], MOST_SLICES), contrast(image)
    for i, z in enumerate(places):
        if context.stopped():
            raise Interrupted("stopped while slices were read: the same command starts again")
        raw = grey(sections(seen, [z])[0], between)
        classes = counts.places(sections(painted, [z])[0])
        yield _small(z * seen.steps[0], raw, classes, BYTES // len(places))
        context.report("slices", (i + 1) / len(places), f"{i + 1}/{len(places)}")


def contrast(image: Volume) -> tuple[float, float]:
    """Return the grey values that a page shows as black and white, from three slices of the image."""
    seen = Thinned(image, EDGE)
    return limits(sections(seen, _evenly(seen.shape[0], 3)))


def _evenly(depth: int, most: int) -> list[int]:
    """Return the numbers of at most so many planes out of ``depth``, evenly spread."""
    found: list[int] = np.unique(np.linspace(0, depth - 1, min(depth, most)).round().astype(int)).tolist()
    return found


def _small(z: int, raw: NDArray[np.uint8], classes: NDArray[np.uint8], most: int) -> Slice:
    """Return a slice that takes at most so many bytes."""
    while True:
        found = Slice(z, classes.shape[:2], jpeg(raw, QUALITY), zlib.compress(classes.tobytes(), 9))
        if len(found.grey) + len(found.labels) <= most or max(classes.shape) < 2:
            return found
        raw, classes = raw[::2, ::2], classes[::2, ::2]
