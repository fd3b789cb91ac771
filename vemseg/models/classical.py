"""A training-free encoder: scale-space features in 3-D, the baseline every learned encoder must beat.

The features are those of pixel classification tools (ilastik, Trainable Weka Segmentation): at each scale
the Gaussian, its gradient magnitude, its Laplacian, and the local standard deviation.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from vemseg.budget import Need
from vemseg.models.encoder import Encoder, Kept, Memory, Spacing
from vemseg.recipe import ClassicalTable

FEATURES_PER_SCALE = 4
LEAST_SIGMA = 0.4
"""Along an axis where a scale is shorter than this many voxels, the image is not filtered."""


class ClassicalEncoder(Encoder):
    """Scale-space features of every voxel.

    Parameters
    ----------
    settings : ClassicalTable
        The scales (standard deviations in voxels of the sharp plane), and where the Gaussians are cut off.
    spacing : (float, float, float)
        Voxel edges, z y x, in units of those in the sharp plane. A scale covers the same length along each
        axis. An axis along which it is shorter than ``LEAST_SIGMA`` voxels is not filtered, so thick sections
        are handled plane by plane.

    Notes
    -----
    The features of a voxel do not depend on the size of the window.
    """

    def __init__(self, settings: ClassicalTable, spacing: Spacing = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.truncate = settings.truncate
        scales = [[s / edge for edge in spacing] for s in settings.sigmas]
        self.sigmas = [tuple(s if s >= LEAST_SIGMA else 0.0 for s in scale) for scale in scales]
        self.patch = (1, 1, 1)
        self.dim = FEATURES_PER_SCALE * len(self.sigmas)
        reach = [max(self._radius(sigma[axis]) for sigma in self.sigmas) for axis in range(3)]
        self.halo = (reach[0], reach[1], reach[2])
        self.fov = (1 + 2 * reach[0], 1 + 2 * reach[1], 1 + 2 * reach[2])

    def _radius(self, sigma: float) -> int:
        """Return how many voxels away the Gaussian and its differences still reach."""
        return int(self.truncate * sigma + 0.5) + (1 if sigma else 0)

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the features of each voxel of windows: (b, 1, z, y, x) -> float32 (b, z, y, x, dim).

        For each scale: the Gaussian, the gradient magnitude and the Laplacian of it (times sigma and sigma
        squared, so that scales compare), and the local standard deviation.
        """
        found = [self._features(window[0].float().cpu().numpy()) for window in windows]
        stacked = torch.from_numpy(np.stack(found)).to(windows.device)
        return stacked if kept is None else stacked[:, kept[0], kept[1], kept[2]]

    forward = encode

    def memory(self, batch: int) -> Memory:
        """Return the memory for the features of a whole window and one copy of them."""
        return Memory(
            encoding=Need(window=8.0 * self.dim + 8.0),
            encoded=Need(window=4.0 * self.dim, point=4.0 * self.dim),
        )

    def _features(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        features = np.empty((*image.shape, self.dim), np.float32)
        square = image * image
        for i, sigma in enumerate(self.sigmas):
            at = FEATURES_PER_SCALE * i
            smooth = self._gaussian(image, sigma)
            variance = self._gaussian(square, sigma) - smooth * smooth
            features[..., at] = smooth
            features[..., at + 1], features[..., at + 2] = self._derivatives(smooth, sigma)
            features[..., at + 3] = np.sqrt(np.maximum(variance, 0.0))
        return features

    def _gaussian(self, image: NDArray[np.float32], sigma: tuple[float, ...]) -> NDArray[np.float32]:
        smooth: NDArray[np.float32] = ndimage.gaussian_filter(
            image, sigma, truncate=self.truncate, mode="nearest"
        )
        return smooth

    def _derivatives(
        self, smooth: NDArray[np.float32], sigma: tuple[float, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return gradient magnitude and Laplacian by central differences, in units of the scale."""
        gradient = np.zeros_like(smooth)
        laplacian = np.zeros_like(smooth)
        for axis, s in enumerate(sigma):
            if s:
                slope = ndimage.correlate1d(smooth, [-0.5 * s, 0.0, 0.5 * s], axis=axis, mode="nearest")
                gradient += slope * slope
                laplacian += ndimage.correlate1d(
                    smooth, [s * s, -2 * s * s, s * s], axis=axis, mode="nearest"
                )
        return np.sqrt(gradient), laplacian
