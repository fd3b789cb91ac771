"""What a microscope makes of tissue: sections, blur, noise, background, gamma, and its artefacts."""

from __future__ import annotations

import math

import numpy as np
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
    """Return noise: Gaussian or Poisson, white or correlated."""
    strength = math.exp(rng.uniform(math.log(0.008), math.log(0.1)))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.5:
        noise = gaussian_filter(noise, (0, *([rng.uniform(0.3, 0.9)] * 2)), mode="wrap", truncate=2.5)
        noise /= noise.std() + 1e-6
    if rng.random() < 0.3:
        noise *= np.sqrt(np.clip(image, 0.05, 1.2))
    noise *= np.float32(strength)
    return noise


def _artefacts(rng: np.random.Generator, image: F32, sections: bool) -> F32:
    """Add curtains, knife marks, scan lines, charging, folds, dirt; mostly none of them."""
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
        y, x = np.mgrid[:h, :w]
        angle, place = rng.uniform(0, math.pi), rng.uniform(-0.5, 0.5) * w
        away = np.abs((x - w / 2) * math.cos(angle) + (y - h / 2) * math.sin(angle) - place)
        fold: F32 = np.clip(1 - away / rng.uniform(1, 5), 0, 1).astype(np.float32)
        image[rng.integers(len(image))] -= np.float32(rng.uniform(0.1, 0.4)) * fold
    if rng.random() < 0.08:
        for _ in range(rng.integers(1, 5)):
            z, y, x = (int(rng.integers(n)) for n in image.shape)
            r = int(rng.integers(2, 9))
            image[z, max(0, y - r) : y + r, max(0, x - r) : x + r] *= np.float32(rng.uniform(0.1, 0.7))
    return image
