"""Applies an encoder of planes across all three axes of an isotropic volume and averages its vectors.

Every axis gives vectors on the same lattice, ``patch`` voxels apart in all directions, so that they are
averaged point by point. If the encoder's patch is one plane thick, only the middle plane of every ``patch``
planes is encoded. With patches of 5, three axes then cost 3/5 of encoding every plane across one axis.

An encoder of slabs may encode fewer layers of patches than there are, with the vectors of the others
interpolated along the axis. What is lost there, the two other axes have in full resolution: with every second
layer, the Dice of mitochondria is .003 lower, at half the cost (``benchmarks/RESULTS.md``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vemseg.budget import Need
from vemseg.errors import UsageError
from vemseg.models.encoder import WHOLE, Encoder, Kept, Memory

AXES = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
"""The orders of the axes with each of them first, which is the one across the planes."""


class ThreePlanes(Encoder):
    """Average an encoder's vectors over planes across z, y and x.

    Parameters
    ----------
    encoder : Encoder
        An encoder with a patch of (1, p, p), or of (p, p, p) and slabs along the first axis.
    every : int
        Encode one of so many layers of patches along each axis, and interpolate the others. Encoders whose
        slabs give other than one layer each, and those that do not stream, encode all.

    Raises
    ------
    UsageError
        Where the patch has another shape.
    """

    def __init__(self, encoder: Encoder, every: int = 1) -> None:
        super().__init__()
        thick, p, _ = encoder.patch
        if thick != p and (thick != 1 or not encoder.fixed_fov):
            raise UsageError(f"patches of {encoder.patch} voxels do not fit together across three axes")
        self.encoder = encoder
        self.thick, self.dim, self.classes = thick, encoder.dim, encoder.classes
        self.patch = (p, p, p)
        self.fixed_fov, self.pads = encoder.fixed_fov, encoder.pads
        self.sweeps = (0, 1, 2) if encoder.streams else ()
        self.every = every if encoder.streams and encoder.align[0] == p else 1
        reach = max(*encoder.halo, encoder.halo[0] + (self.every - 1) * p)
        unit = math.lcm(max(encoder.align), self.every * p)
        edge = max(encoder.fov) if encoder.fixed_fov else p + 2 * reach
        self.halo, self.align, self.fov = (reach,) * 3, (unit,) * 3, (edge,) * 3

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that windows should have, that of the encoder of planes."""
        return self.encoder.dtype

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the vectors of windows: (b, 1, z, y, x) -> (b, gz, gy, gx, dim)."""
        chosen = kept or WHOLE
        if self.encoder.streams:
            return torch.stack([self._streamed(window[None], chosen) for window in windows])
        total: Tensor | None = None
        for order in AXES:
            vectors = self._encode(_turned(windows, order), _ordered(chosen, order)).float()
            back = [order.index(axis) for axis in range(3)]
            vectors = vectors.permute(0, *(1 + axis for axis in back), 4)
            total = vectors if total is None else total.add_(vectors)
        assert total is not None
        return total / len(AXES)

    def memory(self, batch: int) -> Memory:
        """Return the memory that the encoder of planes takes plus that of the sum over the axes.

        If the encoder streams, the sum is as large as its vectors; otherwise float32 arrays are summed.
        """
        if self.fixed_fov:
            return self.encoder.memory(batch * self.fov[0] // self.patch[0])
        inner = self.encoder.memory(batch)
        if self.encoder.streams:
            layers = 0.0 if self.every == 1 else 4.0 * self.dim * (self.every + 2) / self.patch[0] ** 2
            return inner.plus(Need(point=float(self.dtype.itemsize) * self.dim, pixel=layers), Need())
        summed = Need(point=8.0 * self.dim)
        return inner.plus(summed, summed)

    def _streamed(self, window: Tensor, kept: Kept) -> Tensor:
        """Return the vectors of one window (1, 1, z, y, x), added up layer by layer.

        The sum is kept in float16 if the encoder computes in bfloat16, which has fewer digits.
        """
        patches = [range(n // p)[part] for n, p, part in zip(window.shape[2:], self.patch, kept, strict=True)]
        dtype = torch.float16 if self.dtype == torch.bfloat16 else torch.float32
        total = torch.zeros(*map(len, patches), self.dim, dtype=dtype, device=window.device)
        for order in AXES:
            across = total.permute(*order, 3)
            at = 0
            for layers in self._layers(_turned(window, order), _ordered(kept, order)):
                across[at : at + len(layers)].add_(layers.float() / len(AXES))
                at += len(layers)
        return total

    def _layers(self, window: Tensor, kept: Kept) -> Iterator[Tensor]:
        """Yield the layers of vectors across the first axis of a window; encode only some of them."""
        if self.every == 1:
            yield from self.encoder.layers(window, kept)
            return
        n, every = window.shape[2] // self.patch[0], self.every
        start, stop, _ = kept[0].indices(n)
        first, last = start // every * every, min(-(-(stop - 1) // every) * every, (n - 1) // every * every)
        encoded = self.encoder.layers(window, (slice(first, last + 1, every), *kept[1:]))
        skipped, left = start - first, stop - start
        for layers in between(encoded, every):
            wanted = layers[skipped : skipped + left]
            skipped, left = max(0, skipped - len(layers)), left - len(wanted)
            yield wanted

    def _encode(self, windows: Tensor, kept: Kept) -> Tensor:
        """Return the vectors of windows across their first axis."""
        p = self.patch[0]
        if self.thick == p:
            return self.encoder.encode(windows, kept)
        planes = windows[:, :, (p - 1) // 2 :: p][:, :, kept[0]]
        each = planes.transpose(1, 2).flatten(0, 1)[:, None, None]
        tokens = self.encoder.encode(each[:, :, 0], (slice(None), *kept[1:]))
        return tokens.reshape(len(windows), -1, *tokens.shape[2:])


def between(encoded: Iterator[Tensor], every: int) -> Iterator[Tensor]:
    """Yield each layer of vectors with those that follow it before the next one, which are interpolated.

    Parameters
    ----------
    encoded : iterator of Tensor (n, gy, gx, dim)
        Layers that lie ``every`` layers apart, a few at a time.
    every : int

    Yields
    ------
    Tensor float32 (every, gy, gx, dim)
        Linear in between. The last layer has none to go to, and is repeated.
    """
    share = torch.arange(every) / every
    last: Tensor | None = None
    for layer in itertools.chain.from_iterable(encoded):
        if last is not None:
            weight = share.to(layer.device)[:, None, None, None]
            yield torch.lerp(last[None].float(), layer[None].float(), weight)
        last = layer
    if last is not None:
        yield last.float().expand(every, *last.shape)


def _turned(windows: Tensor, order: tuple[int, int, int]) -> Tensor:
    return windows.permute(0, 1, *(2 + axis for axis in order))


def _ordered(slices: Kept, order: tuple[int, int, int]) -> Kept:
    return slices[order[0]], slices[order[1]], slices[order[2]]
