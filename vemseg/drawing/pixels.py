"""Arrays to RGB arrays: grey values, labels laid over them, errors."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from scipy import ndimage

from vemseg.drawing.colours import RGB, table
from vemseg.errors import InputError

Style = Literal["fill", "contour"]

STRETCH = (0.5, 99.5)
"""Percentiles that become black and white in images that are not uint8."""

ERROR_COLOURS: dict[str, RGB] = {
    "correct, background": (232, 232, 232),
    "correct, class": (165, 165, 165),
    "false positive": (220, 38, 127),
    "false negative": (100, 143, 255),
    "wrong class": (60, 20, 90),
}
"""The colours of ``error_map``, by what each of them means."""


def limits(raw: NDArray[np.generic]) -> tuple[float, float]:
    """Return the values to show as black and white: 0 and 255 for uint8, else the ``STRETCH`` percentiles."""
    if raw.dtype == np.uint8:
        return 0.0, 255.0
    finite = raw[np.isfinite(raw)]
    low, high = np.percentile(finite, STRETCH) if finite.size else (0.0, 1.0)
    return float(low), float(high)


def grey(raw: NDArray[np.generic], between: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Return an image as uint8 of the same shape, stretched so that ``between`` becomes 0..255.

    ``between`` is found by ``limits`` where it is not given; NaN becomes black.
    """
    low, high = between or limits(raw)
    if raw.dtype == np.uint8 and (low, high) == (0, 255):
        return raw.astype(np.uint8, copy=False)
    wide = raw.dtype.itemsize > 2 and raw.dtype != np.float32  # an offset may be larger than the contrast
    share = np.subtract(raw.astype(np.float64 if wide else np.float32), low) / ((high - low) or 1.0)
    return np.asarray(np.nan_to_num(255 * share.clip(0, 1)).round().astype(np.uint8))


def jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """Return an image as JPEG.

    Parameters
    ----------
    image : uint8 (h, w)
        Grey values.
    quality : int
        1..95, as JPEG counts it.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def gif(frames: Sequence[NDArray[np.uint8]], milliseconds: int) -> bytes:
    """Return pictures that follow each other, again and again, as a GIF.

    Parameters
    ----------
    frames : sequence of uint8 (h, w, 3)
        At least one; all have the colours of the first.
    milliseconds : int
        How long each is shown.
    """
    from PIL import Image

    file, first = io.BytesIO(), Image.fromarray(frames[0]).quantize(255)
    pages = [Image.fromarray(frame).quantize(palette=first, dither=Image.Dither.NONE) for frame in frames]
    pages[0].save(file, "GIF", save_all=True, append_images=pages[1:], duration=milliseconds, loop=0)
    return file.getvalue()


def overlay(
    raw: NDArray[np.generic],
    labels: NDArray[np.generic],
    style: Style = "fill",
    alpha: float = 0.5,
    colours: Mapping[int, RGB] = MappingProxyType({}),
) -> NDArray[np.uint8]:
    """Lay label colours over a slice.

    Parameters
    ----------
    raw : array, (h, w)
        uint8 is shown as it is, other types are stretched (``grey``).
    labels : integer array, (h, w)
        Ids from 0; 0 leaves the raw pixel.
    style : {"fill", "contour"}
        Whole regions in their colour of ``palette``, or only their rim: inside the region, and 1 pixel wide
        for each 300 pixels of the image.
    alpha : float, 0..1
        Share of the label's colour.
    colours : mapping of int to (int, int, int)
        Colours of some labels that take the place of those of ``palette``.

    Returns
    -------
    uint8 array, (h, w, 3)

    Raises
    ------
    InputError
        Where shapes differ or a label has no colour.
    """
    same_shape(raw=raw, labels=labels)
    lut = table(colours)
    if labels.size and (labels.min() < 0 or labels.max() >= len(lut)):
        raise InputError(f"labels {labels.min()}..{labels.max()} do not fit {len(lut) - 1} colours and 0")
    shown: NDArray[np.bool_] = np.greater(labels, 0)
    if style == "contour":
        shown &= _rim(labels, max(1, round(max(labels.shape) / 300)))
    image = np.repeat(grey(raw)[..., None], 3, axis=-1)
    mixed = (1 - alpha) * image[shown] + alpha * lut[labels[shown]]
    image[shown] = mixed.round().astype(np.uint8)
    return image


def error_map(labels: NDArray[np.generic], reference: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return an RGB image, (h, w, 3), of where two label images differ.

    ``ERROR_COLOURS`` says what each colour means. A false positive is a class where the
    reference has background (0), a false negative the reverse.
    """
    same_shape(labels=labels, reference=reference)
    agree = labels == reference
    cases = [agree & (labels == 0), agree, reference == 0, labels == 0]
    kind = np.select(cases, range(4), default=4)
    return np.asarray(np.array(list(ERROR_COLOURS.values()), dtype=np.uint8)[kind])


def heat(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return shares 0..1, (h, w), as an RGB image, (h, w, 3), from dark blue by green to yellow (viridis)."""
    return np.asarray(255 * colormaps["viridis"](values)[..., :3]).round().astype(np.uint8)


def same_shape(**arrays: NDArray[np.generic]) -> None:
    """Raise an InputError that names the arrays unless they have one shape."""
    if len({a.shape for a in arrays.values()}) > 1:
        raise InputError(f"{', '.join(f'{name} {a.shape}' for name, a in arrays.items())}: shapes differ")


def _rim(labels: NDArray[np.generic], width: int) -> NDArray[np.bool_]:
    """Mark pixels with another label within ``width`` pixels; the image's edge is not a border."""
    size = 2 * width + 1
    low = ndimage.minimum_filter(labels, size, mode="nearest")
    high = ndimage.maximum_filter(labels, size, mode="nearest")
    return np.asarray(low != high)
