"""Parts that several models share: positions, patches, indices of kept tokens, attention kernels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from vemseg.models.devices import cpu_has


def sincos_positions(dim: int, side: int) -> Tensor:
    """Return the fixed 2-D sine-cosine position code of a square token grid.

    Parameters
    ----------
    dim : int
        Channels; a multiple of 4. The first half encodes the column, the second the row. Each half holds
        first the sines, then the cosines, of frequencies ``10000 ** (-j / (dim / 4))``.
    side : int
        Tokens per side.

    Returns
    -------
    Tensor, float32 (1, side * side + 1, dim)
        Row 0, for the class token, is zero; the rest is in row-major order.

    Notes
    -----
    As in MAE (He et al. 2022) and MAESTER (Xie et al., CVPR 2023, section 3.4), computed in float64.
    """
    if dim % 4:
        raise ValueError(f"positions need a multiple of 4 channels, not {dim}")
    frequencies = 10000.0 ** (-np.arange(dim // 4) / (dim / 4))
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")

    def code(positions: np.ndarray) -> np.ndarray:
        angles = positions.reshape(-1, 1) * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    grid = np.concatenate([code(columns), code(rows)], axis=1)
    table = np.concatenate([np.zeros((1, dim)), grid])
    return torch.from_numpy(table).float().unsqueeze(0)


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images into patches.

    Parameters
    ----------
    images : Tensor (b, h, w)
        ``h`` and ``w`` are multiples of ``patch``.

    Returns
    -------
    Tensor (b, n, patch * patch)
        Patches in row-major order, pixels in row-major order.
    """
    b, h, w = images.shape
    cut = images.reshape(b, h // patch, patch, w // patch, patch)
    return cut.permute(0, 1, 3, 2, 4).reshape(b, -1, patch * patch)


def unpatchify(patches: Tensor, patch: int, side: int) -> Tensor:
    """Put the patches of a square image together again; the inverse of :func:`patchify`."""
    b = patches.shape[0]
    cut = patches.reshape(b, side, side, patch, patch)
    return cut.permute(0, 1, 3, 2, 4).reshape(b, side * patch, side * patch)


def random_order(noise: Tensor, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the visible tokens of each sample: those with the least noise.

    Parameters
    ----------
    noise : Tensor (b, n)
        Uniform noise, whose order decides.
    ratio : float
        Fraction of tokens to mask; ``int(n * (1 - ratio))`` stay visible.

    Returns
    -------
    visible : Tensor int64 (b, v)
        Indices of the visible tokens, in shuffled order.
    restore : Tensor int64 (b, n)
        Place of each token in the shuffled order.
    mask : Tensor float32 (b, n)
        1 where a token is masked.
    """
    order = noise.argsort(dim=1)
    restore = order.argsort(dim=1)
    keep = int(noise.shape[1] * (1 - ratio))
    return order[:, :keep], restore, (restore >= keep).float()


def take_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Gather tokens (b, n, d) at indices (b, v): (b, v, d)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def xavier_linear(module: nn.Module) -> None:
    """Initialise linear layers as MAE does: Xavier-uniform weights, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Blocks(nn.ModuleList):
    """The blocks of a transformer, one after the other, each with an ``attn`` of timm's."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Pass tokens (b, n, d) through all blocks."""
        for block in self:
            tokens = block(tokens)
        return tokens

    def fuse_attention(self, fused: bool) -> None:
        """Compute attention by torch's fused kernel, or step by step."""
        for block in self:
            block.attn.fused_attn = fused  # type: ignore[union-attr, assignment]


def choose_attention(model: nn.Module, device: torch.device, training: bool) -> None:
    """Set the faster attention kernel of every block.

    The fused kernel is faster for inference on GPUs, and on CPUs with matrix tiles (AMX). For inference on
    other CPUs, and for training, attention is computed step by step: on a CPU the backward pass of the fused
    kernel would take more than half of a step, and on a GPU it adds up in another order every time
    (``benchmarks/training_step.py``, ``benchmarks/cover_and_stride.py``, ``benchmarks/gpu.py``).
    The choice depends only on the processor and on whether the model is trained, so that results repeat.
    """
    fused = not training and (device.type == "cuda" or cpu_has("amx_bf16"))
    for module in model.modules():
        if isinstance(module, Blocks):
            module.fuse_attention(fused)
