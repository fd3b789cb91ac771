"""Random tissue with the class of every voxel, to teach an encoder what organelles are.

Nothing here imitates one volume. Kinds of tissue, sizes, stains, sections, blur and noise are drawn from
ranges so wide that real tissue is one more variation (domain randomisation: Tobin et al., IROS 2017; Billot
et al., SynthSeg, Medical Image Analysis 86, 2023). All lengths are in nm, so that one generator serves every
voxel size.

    kinds        the kinds of tissue, and the order in which one is painted
    classes      the classes of its voxels
    canvas       the block that is painted on
    style        how dark everything is
    cells, membranes, organelles, cytoplasm
                 what is painted
    imaging      what a microscope makes of it

>>> rng = np.random.default_rng(0)
>>> image, labels = tissue(rng, (16, 64, 64), (12.0, 12.0, 12.0))
>>> image.shape, image.dtype, labels.dtype
((16, 64, 64), dtype('float32'), dtype('uint8'))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import UsageError
from vemseg.geometry import ZYX, VoxelSize
from vemseg.phantom.tissue.canvas import F32, Canvas
from vemseg.phantom.tissue.classes import CLASSES
from vemseg.phantom.tissue.imaging import imaged, lost, padded, sectioned, shifted
from vemseg.phantom.tissue.kinds import KINDS, paint

__all__ = ["CLASSES", "KINDS", "Tissue", "tissue"]

DRAFTS, DULL = 3, 0.85
"""A block with more than this share of one class is painted anew, at most so often in all."""

LOST, PADDED = 0.03, 0.03
"""Probability that a section is missing, and that a border or corner of a block has no image."""

PLANE = 12.0
"""Planes that are averaged to a section lie at most this many nm apart."""


def tissue(
    rng: np.random.Generator, shape: ZYX, voxel_size: VoxelSize, kind: str | None = None
) -> tuple[F32, NDArray[np.uint8]]:
    """Make up a block of tissue.

    Parameters
    ----------
    rng : numpy.random.Generator
        The only source of random numbers.
    shape : (int, int, int)
        Voxels, z y x.
    voxel_size : (float, float, float)
        Voxel edges in nm. Where the first is much longer than the others, planes are separate sections.
    kind : str, optional
        One of ``KINDS``; drawn where left out.

    Returns
    -------
    image : float32 (z, y, x)
        Intensities, about 0 to 1.
    labels : uint8 (z, y, x)
        Indices into ``CLASSES``.
    """
    name = kind or str(rng.choice(list(KINDS)))
    deep, pixel = voxel_size[0], voxel_size[2]
    thick = max(1, round(deep / max(PLANE, pixel)))
    sections = deep > 1.5 * pixel
    for _ in range(DRAFTS):
        canvas = Canvas(rng, (shape[0] * thick, shape[1], shape[2]), (deep / thick, pixel, pixel))
        paint(canvas, KINDS[name])
        if np.bincount(canvas.labels.ravel()).max() < DULL * canvas.labels.size:
            break
    image, labels = sectioned(canvas.image, canvas.labels, thick)
    if sections and rng.random() < 0.3:
        shifted(rng, image, labels)
    image = imaged(rng, image, sections)
    if sections and len(image) > 1 and rng.random() < LOST:
        lost(rng, image, labels)
    if rng.random() < PADDED:
        padded(rng, image, labels)
    return image, labels


@dataclass(frozen=True)
class Tissue:
    """Makes blocks of tissue of random kinds and voxel sizes, whose sections have one relative thickness.

    Attributes
    ----------
    ratio : float
        Thickness of a section in pixels; 1 for isotropic voxels.
    pixel : (float, float)
        Smallest and largest edge of a pixel in nm.
    kinds : tuple of str
        Names of ``KINDS``.

    Raises
    ------
    UsageError
        Where there is no such kind.
    """

    ratio: float
    pixel: tuple[float, float]
    kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise UsageError(f"no tissue '{unknown[0]}': name some of {', '.join(KINDS)}")

    @property
    def voxel_size(self) -> VoxelSize:
        """Edges of its voxels in units of a pixel, z y x."""
        return (self.ratio, 1.0, 1.0)

    @property
    def planes(self) -> int:
        """Number of planes of a block: about as thick as a few organelles."""
        return max(4, round(18 / self.ratio))

    def make(self, rng: np.random.Generator, shape: ZYX) -> tuple[F32, NDArray[np.uint8]]:
        """Make a block; see :func:`tissue`."""
        low, high = (math.log(edge) for edge in self.pixel)
        pixel = math.exp(rng.uniform(low, high))
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        image, labels = tissue(rng, shape, (self.ratio * pixel, pixel, pixel), kind)
        return np.clip(image, 0, 1), labels
