"""Enlarges, mirrors and turns a whole batch in the plane; images bilinear, labels nearest neighbour."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vemseg.sampling.draws import Draw
from vemseg.tiling import Floats


def enlarged(images: Tensor, draw: Draw) -> Tensor:
    """Enlarge a part of each window to its full size, bilinear: float32 (b, d, h, w)."""
    rows, columns = (
        _matrix(draw.zoom_start[:, k], draw.zoom_size[:, k], n).to(images.device)
        for k, n in enumerate(images.shape[2:])
    )
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def enlarged_labels(labels: Tensor, draw: Draw) -> Tensor:
    """Enlarge like :func:`enlarged`, but take the nearest voxel (in a tie the later): uint8 (b, d, h, w)."""
    rows, columns = (
        torch.from_numpy(np.floor(_positions(draw.zoom_start[:, k], draw.zoom_size[:, k], n) + 0.5))
        .long()
        .to(labels.device)
        for k, n in enumerate(labels.shape[2:])
    )
    b, d, h, w = labels.shape
    labels = labels.gather(2, rows[:, None, :, None].expand(b, d, h, w))
    return labels.gather(3, columns[:, None, None].expand(b, d, h, w))


def turned(windows: Tensor, draw: Draw) -> Tensor:
    """Mirror and transpose windows (b, d, h, w); windows that are not square are transposed all or none."""
    for axis in (2, 3):
        if not draw.flip[:, axis - 2].any():
            continue
        flip = torch.from_numpy(draw.flip[:, axis - 2]).to(windows.device)
        windows = torch.where(flip[:, None, None, None], windows.flip(axis), windows)
    if windows.shape[2] != windows.shape[3]:
        return windows.transpose(2, 3) if draw.transpose.all() else windows
    if not draw.transpose.any():
        return windows
    turn = torch.from_numpy(draw.transpose).to(windows.device)
    return torch.where(turn[:, None, None, None], windows.transpose(2, 3), windows)


def _positions(start: Floats, size: Floats, n: int) -> Floats:
    """Return the positions in ``[start, start + size)`` that n output pixels are sampled at: (b, n).

    These are the positions of ``interpolate(align_corners=False)`` on the crop, clamped to its border pixels.
    """
    lowest, highest = start[:, None], (start + size - 1)[:, None]
    position = start[:, None] + (np.arange(n) + 0.5) * (size[:, None] / n) - 0.5
    return np.clip(position, lowest, highest)


def _matrix(start: Floats, size: Floats, n: int) -> Tensor:
    """Return matrices (b, n, n) that enlarge ``[start, start + size)`` to n pixels, bilinear."""
    position = _positions(start, size, n)
    left = np.clip(np.floor(position), 0, n - 2).astype(np.int64)
    weight = torch.from_numpy((position - left).astype(np.float32))
    matrix = torch.zeros(len(start), n, n)
    index = torch.from_numpy(left)
    matrix.scatter_(2, index[..., None], (1 - weight)[..., None])
    return matrix.scatter_(2, index[..., None] + 1, weight[..., None])
