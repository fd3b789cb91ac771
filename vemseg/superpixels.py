"""Superpixels: parts of images divided into small regions of even grey, along clean boundaries."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def divide(
    image: NDArray[np.float32], count: int, compactness: float, spacing: tuple[float, float, float]
) -> NDArray[np.int64]:
    """Divide an image or a stack of images by SLIC (Achanta et al., TPAMI 2012; scikit-image).

    Parameters
    ----------
    image : float32 (z, y, x)
        Intensities; scikit-image brings them to 0..1 by the darkest and the brightest of the image.
    count : int
        About how many regions; at least one.
    compactness : float
        Weight of nearness in space against likeness in grey; SCCS takes 0.2.
    spacing : (float, float, float)
        Edges of a voxel in any unit, z y x. Nearness is measured in pixels of the plane, so the unit does not
        count.

    Returns
    -------
    int64 (z, y, x)
        The number of each voxel's region, 0 to n - 1, each number used.
    """
    from skimage.segmentation import slic

    plane, pixel = len(image) == 1, math.sqrt(spacing[1] * spacing[2])
    edges = [edge / pixel for edge in spacing]
    found = slic(
        image[0] if plane else image,
        n_segments=max(1, min(count, image.size)),
        compactness=compactness,
        spacing=edges[1:] if plane else edges,
        start_label=0,
        channel_axis=None,
    )
    _, numbers = np.unique(found, return_inverse=True)
    dense: NDArray[np.int64] = numbers.reshape(image.shape).astype(np.int64)
    return dense
