"""An encoder of planes, applied across all three axes of an isotropic volume: the mean of its vectors.

Every axis gives vectors on the same lattice, ``patch`` voxels apart in all directions, so that they are
averaged point by point. Where a patch is one plane thick, only its middle plane is looked at, so three axes
of a patch of 5 cost 3/5 of the one that looks at every plane.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vemseg.errors import UsageError
from vemseg.geometry import ZYX

Slices = tuple[slice, slice, slice]

AXES = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
"""Orders of the axes, the one across the planes first."""


class ThreePlanes:
    """Average an encoder's vectors over planes across z, y and x.

    Parameters
    ----------
    encoder : encoder
        Its patch is (1, p, p), or (p, p, p) with its slab along the first axis.

    Raises
    ------
    UsageError
        Where the patch is none of these.
    """

    def __init__(self, encoder: Any) -> None:
        thick, p, _ = encoder.patch
        if thick != p and (thick != 1 or encoder.halo is not None):
            raise UsageError(f"patches of {encoder.patch} voxels do not fit together across three axes")
        self.encoder = encoder
        self.thick = thick
        self.dim = encoder.dim
        self.streams = hasattr(encoder, "layers")
        self.sweeps: tuple[int, ...] = (0, 1, 2) if self.streams else ()
        self.patch: ZYX = (p, p, p)
        self.halo: ZYX | None = None
        self.align: ZYX | None = None
        widest = max(encoder.fov)
        self.fov: ZYX = (widest, widest, widest)
        if encoder.halo is not None:
            reach = max(encoder.halo)
            self.halo = (reach, reach, reach)
            self.fov = (p + 2 * reach, p + 2 * reach, p + 2 * reach)
        if encoder.align is not None:
            unit = max(encoder.align)
            self.align = (unit, unit, unit)

    def encode(self, x: Tensor, kept: tuple[slice, slice, slice] | None = None) -> Tensor:
        """Return the vectors of windows: (b, 1, z, y, x) -> (b, gz, gy, gx, dim)."""
        chosen = kept or (slice(None), slice(None), slice(None))
        if self.streams:
            return torch.stack([self._streamed(window[None], chosen) for window in x])
        total: Tensor | None = None
        for order in AXES:
            vectors = self._encode(_turned(x, order), _ordered(chosen, order)).float()
            back = [order.index(axis) for axis in range(3)]
            vectors = vectors.permute(0, *(1 + axis for axis in back), 4)
            total = vectors if total is None else total.add_(vectors)
        assert total is not None
        return total / len(AXES)

    @property
    def dtype(self) -> torch.dtype:
        """The precision windows are wanted in."""
        dtype: torch.dtype = getattr(self.encoder, "dtype", torch.float32)
        return dtype

    def _streamed(self, x: Tensor, kept: Slices) -> Tensor:
        """Return the vectors of one window (1, 1, z, y, x), summed up as they come.

        The sum is kept in float16 where the encoder computes in bfloat16, whose vectors have fewer digits.
        """
        shape = [len(range(n // p)[part]) for n, p, part in zip(x.shape[2:], self.patch, kept, strict=True)]
        half = self.encoder.dtype == torch.bfloat16
        total = torch.zeros(*shape, self.dim, dtype=torch.float16 if half else torch.float32, device=x.device)
        for order in AXES:
            across = total.permute(*order, 3)
            at = 0
            for layers in self.encoder.layers(_turned(x, order), _ordered(kept, order)):
                across[at : at + len(layers)].add_(layers.float() / len(AXES))
                at += len(layers)
        return total

    def _encode(self, x: Tensor, kept: Slices) -> Tensor:
        """Encode across the first axis."""
        p = self.patch[0]
        if self.thick == p:
            vectors: Tensor = self.encoder.encode(x, kept)
            return vectors
        planes = x[:, :, (p - 1) // 2 :: p][:, :, kept[0]]
        each = planes.transpose(1, 2).flatten(0, 1)[:, None, None]
        tokens: Tensor = self.encoder.encode(each[:, :, 0], (slice(None), *kept[1:]))
        return tokens.reshape(len(x), -1, *tokens.shape[2:])


def _turned(x: Tensor, order: ZYX) -> Tensor:
    return x.permute(0, 1, *(2 + axis for axis in order))


def _ordered(slices: Slices, order: ZYX) -> Slices:
    return slices[order[0]], slices[order[1]], slices[order[2]]
