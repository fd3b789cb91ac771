"""What a microscope makes of tissue: sections, blur, noise, background, gamma, and its artefacts.

Lengths here are in pixels, not nm: blur, correlated noise, uneven illumination and artefacts come from the
microscope's beam, detector and stage, and a volume that is resampled brings its own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

from vemseg.phantom.tissue.canvas import F32
from vemseg.phantom.tissue.classes import MEMBRANE, OUTSIDE


def sectioned(image: F32, labels: np.ndarray, thick: int) -> tuple[F32, np.ndarray]:
    """Average ``thick`` planes to one section.

    A section has the classes of its middle plane, but membrane wherever a membrane passes through it: cut at
    a slant, it darkens all of that.
    """
    if thick == 1:
        return image, labels
    n = len(image) // thick
    parts = image[: n * thick].reshape(n, thick, *image.shape[1:])
    classes = np.ascontiguousarray(labels[thick // 2 : n * thick : thick])
    crossed = (labels[: n * thick] == MEMBRANE).reshape(parts.shape).any(axis=1)
    classes[crossed & (classes != OUTSIDE)] = MEMBRANE
    return parts.mean(axis=1), classes


def shifted(rng: np.random.Generator, image: F32, labels: np.ndarray) -> None:
    """Move each section a little, in place, as badly aligned stacks are."""
    size = rng.uniform(0, 2.5)
    for plane, classes in zip(image, labels, strict=True):
        step = rng.normal(0, size, 2)
        plane[...] = shift(plane, step, order=1, mode="nearest")
        classes[...] = shift(classes, step, order=0, mode="nearest")


def lost(rng: np.random.Generator, image: F32, labels: np.ndarray) -> None:
    """Put the section before in the place of a missing one, with its classes, or leave it blank, in place."""
    missing = int(rng.integers(1, len(image)))
    if rng.random() < 0.5:
        image[missing], labels[missing] = image[missing - 1], labels[missing - 1]
    else:
        image[missing], labels[missing] = rng.choice([0, 0.5, 1]), OUTSIDE


def padded(rng: np.random.Generator, image: F32, labels: np.ndarray) -> None:
    """Leave a border or a corner without image, black or white and ``OUTSIDE``, in place."""
    angle = rng.integers(4) * math.pi / 2 + (rng.random() < 0.5) * rng.uniform(-0.8, 0.8)
    away = _across(angle, *image.shape[1:])
    blank = away > rng.uniform(0.15, 0.45) * min(away.shape)
    image[:, blank], labels[:, blank] = float(rng.integers(2)), OUTSIDE


def imaged(rng: np.random.Generator, image: F32, sections: bool) -> F32:
    """Return a block as a microscope shows it, intensities about 0 to 1.

    Parameters
    ----------
    image : float32 (z, y, x)
    sections : bool
        Whether planes are separate sections, which differ in brightness and have no common blur.
    """
    within, across = rng.uniform(0.2, 1.2), 0.0 if sections else rng.uniform(0.1, 1.2)
    image = gaussian_filter(image, (across, within, within), mode="nearest", truncate=2.5)
    image = image + _background(rng, image.shape, sections)
    image = image + _noise(rng, image)
    image = _artefacts(rng, image, sections)
    low, high = np.quantile(image.ravel()[::37], [0.005, 0.995])
    image = (image - low) / max(high - low, 1e-3)
    gamma = math.exp(rng.uniform(-0.45, 0.45))
    found: F32 = np.clip(image, 0, 1.1).astype(np.float32) ** np.float32(gamma)
    return found


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], grain: float) -> F32:
    """Return smooth noise over a plane, unit variance."""
    small = rng.standard_normal([max(2, int(n / grain) + 2) for n in shape], dtype=np.float32)
    rows, columns = (_hat(n, m) for n, m in zip(shape, small.shape, strict=True))
    found: F32 = (rows @ small @ columns.T).astype(np.float32)
    return found


def _hat(n: int, m: int) -> F32:
    """Return the weights (n, m) of linear interpolation from m to n points."""
    place = np.linspace(0, m - 1, n)
    found: F32 = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(m))).astype(np.float32)
    return found


def _background(rng: np.random.Generator, shape: tuple[int, ...], sections: bool) -> F32:
    """Return uneven illumination, and the brightness of each plane."""
    field = rng.uniform(0, 0.06) * _smooth(rng, shape[1:], rng.uniform(40, 160))
    each = rng.normal(0, rng.uniform(0, 0.04 if sections else 0.01), (shape[0], 1, 1))
    found: F32 = (field[None] + each).astype(np.float32)
    return found


def _noise(rng: np.random.Generator, image: F32) -> F32:
    """Return noise: counted electrons, or Gaussian noise, equal everywhere or stronger where it is bright."""
    strength = math.exp(rng.uniform(math.log(0.008), math.log(0.1)))
    if rng.random() < 0.08:
        clean, electrons = np.clip(image, 0.05, 1.2), strength**-2
        counted: F32 = (rng.poisson(clean * electrons) / electrons - clean).astype(np.float32)
        return counted
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.5:
        noise = gaussian_filter(noise, (0, *([rng.uniform(0.3, 0.9)] * 2)), mode="wrap", truncate=2.5)
        noise /= noise.std() + 1e-6
    if rng.random() < 0.3:
        noise *= np.sqrt(np.clip(image, 0.05, 1.2))
    noise *= np.float32(strength)
    return noise


def _artefacts(rng: np.random.Generator, image: F32, sections: bool) -> F32:
    """Add curtains, scan lines, charging, folds, knife marks, dirt; mostly none of them."""
    _, h, w = image.shape
    if rng.random() < 0.12:
        lines: F32 = gaussian_filter(rng.standard_normal(w, dtype=np.float32), rng.uniform(0.6, 4))
        image = image + np.float32(rng.uniform(0.01, 0.06)) * lines / (lines.std() + 1e-6)
    if rng.random() < 0.08:
        rows = rng.standard_normal((image.shape[0], h, 1)).astype(np.float32)
        image = image + np.float32(rng.uniform(0.005, 0.03)) * rows
    if rng.random() < 0.06:
        glow = np.clip(_smooth(rng, (h, w), rng.uniform(30, 90)) - 1, 0, None)
        image = image + np.float32(rng.choice([-1, 1]) * rng.uniform(0.1, 0.4)) * glow[None]
    if sections and rng.random() < 0.12:
        away = np.abs(_across(rng.uniform(0, math.pi), h, w) - rng.uniform(-0.5, 0.5) * w)
        fold: F32 = np.clip(1 - away / rng.uniform(1, 5), 0, 1).astype(np.float32)
        image[rng.integers(len(image))] -= np.float32(rng.uniform(0.1, 0.4)) * fold
    if sections and rng.random() < 0.05:
        _knife(rng, image[rng.integers(len(image))])
    if rng.random() < 0.08:
        for _ in range(rng.integers(1, 5)):
            _dirt(rng, image[rng.integers(len(image))])
    return image


def _across(angle: float, h: int, w: int) -> NDArray[np.float64]:
    """Return how far every pixel of a plane lies from its middle along a direction, in pixels."""
    y, x = np.mgrid[:h, :w]
    found: NDArray[np.float64] = (x - w / 2) * math.cos(angle) + (y - h / 2) * math.sin(angle)
    return found


def _knife(rng: np.random.Generator, plane: F32) -> None:
    """Add a few parallel scratches of a knife at an angle, dark or bright, to one section, in place."""
    away = _across(rng.uniform(0, math.pi), *plane.shape)
    for place in rng.uniform(-0.5, 0.5, rng.integers(1, 6)) * max(plane.shape):
        scratch = np.clip(1 - np.abs(away - place) / rng.uniform(0.7, 2.5), 0, 1)
        plane += np.float32(rng.choice([-1, 1]) * rng.uniform(0.05, 0.25)) * scratch.astype(np.float32)


def _dirt(rng: np.random.Generator, plane: F32) -> None:
    """Darken a blob with a ragged outline and a soft edge in one plane, in place."""
    (h, w), r = plane.shape, rng.uniform(1.5, 8)
    y, x = np.ogrid[:h, :w]
    y, x = y - rng.uniform(0, h), x - rng.uniform(0, w)
    turn, outline = np.arctan2(y, x), np.ones((h, w))
    for waves in range(2, 6):
        outline += rng.normal(0, 0.5 / waves) * np.cos(waves * turn + rng.uniform(0, 2 * math.pi))
    cover = np.clip((r * np.maximum(outline, 0.3) - np.hypot(y, x)) / rng.uniform(1, 2.5) + 0.5, 0, 1)
    plane *= (1 - cover * (1 - rng.uniform(0.1, 0.7))).astype(np.float32)
