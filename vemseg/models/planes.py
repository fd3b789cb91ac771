"""Applies an encoder of planes across all three axes of an isotropic volume and averages its vectors.

Every axis gives vectors on the same lattice, ``patch`` voxels apart in all directions, so that they are
averaged point by point. If the encoder's patch is one plane thick, only the middle plane of every ``patch``
planes is encoded, or both middle planes of an even number. With patches of 5, three axes then cost 3/5 of
encoding every plane across one axis.

A dense encoder may look at one layer of patches of every few across each axis; the vectors between are
interpolated linearly. Along each axis, two of the three directions still see every voxel, so that halving the
layers halves the work and takes little away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vemseg.budget import Need
from vemseg.errors import UsageError
from vemseg.geometry import ZYX
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
        Across each axis, one layer of patches of every so many is encoded. An encoder that does not stream,
        or gives several layers at once, encodes all of them.

    Raises
    ------
    UsageError
        Where the patch has another shape, or ``every`` layers do not divide the windows.
    """

    def __init__(self, encoder: Encoder, every: int = 1) -> None:
        super().__init__()
        thick, p, _ = encoder.patch
        if thick != p and (thick != 1 or not encoder.fixed_fov):
            raise UsageError(f"patches of {encoder.patch} voxels do not fit together across three axes")
        alone = encoder.streams and encoder.align[0] == thick
        if alone and max(encoder.align) % (p * every):
            raise UsageError(f"embed.every={every} does not go with this model: set it to 1")
        self.encoder, self.every = encoder, every if alone else 1
        self.thick, self.dim, self.classes = thick, encoder.dim, encoder.classes
        self.patch = (p, p, p)
        self.fixed_fov, self.pads = encoder.fixed_fov, encoder.pads
        self.sweeps = (0, 1, 2) if encoder.streams else ()
        self.workers = encoder.workers
        reach, unit = max(encoder.halo), max(encoder.align)
        edge = max(encoder.fov) if encoder.fixed_fov else p + 2 * reach
        self.halo, self.align, self.fov = (reach,) * 3, (unit,) * 3, (edge,) * 3

    @property
    def margins(self) -> ZYX:
        """Voxels around the wanted patches that are encoded on average, along each axis."""
        return (max(self.encoder.margins),) * 3

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that windows should have, that of the encoder of planes."""
        return self.encoder.dtype

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the vectors of windows: (b, 1, z, y, x) -> (b, gz, gy, gx, dim)."""
        chosen = kept or WHOLE
        if self.encoder.streams:
            found = [self._streamed(window[None], chosen) for window in windows]
            return found[0][None] if len(found) == 1 else torch.stack(found)
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
            return inner.plus(Need(point=float(self.dtype.itemsize) * self.dim), Need())
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
            axis, across = order[0], total.permute(*order, 3)
            spread = _Spread(
                across, patches[axis].start, window.shape[2 + axis] // self.patch[axis], self.every
            )
            _, rows, columns = _ordered(kept, order)
            for layers in self.encoder.layers(_turned(window, order), (spread.encoded, rows, columns)):
                spread.add((layers.float() / len(AXES)).to(dtype))
        return total

    def _encode(self, windows: Tensor, kept: Kept) -> Tensor:
        """Return the vectors of windows across their first axis."""
        p = self.patch[0]
        if self.thick == p:
            return self.encoder.encode(windows, kept)
        middles = [self._of_planes(windows[:, :, first::p], kept) for first in {(p - 1) // 2, p // 2}]
        return middles[0] if len(middles) == 1 else torch.stack(middles).float().mean(dim=0)

    def _of_planes(self, planes: Tensor, kept: Kept) -> Tensor:
        """Encode planes, one for each layer of patches: (b, 1, g, y, x) -> (b, g, gy, gx, d)."""
        each = planes[:, :, kept[0]].transpose(1, 2).flatten(0, 1)[:, None, None]
        tokens = self.encoder.encode(each[:, :, 0], (slice(None), *kept[1:]))
        return tokens.reshape(len(planes), -1, *tokens.shape[2:])


class _Spread:
    """Adds layers of vectors across one axis to a sum, and what is interpolated between them.

    Parameters
    ----------
    total : Tensor (n, ..., dim)
        The sum, for the layers from ``start`` on.
    start, length : int
        The first layer that is wanted, and the layers of the window.
    every : int
        One of so many layers is encoded, from layer 0 of the window on; behind the last one there is nothing
        to interpolate with, and it counts alone.
    """

    def __init__(self, total: Tensor, start: int, length: int, every: int) -> None:
        self.total, self.start, self.length, self.every = total, start, length, every
        self.at = start - start % every
        last = -(-(start + len(total) - 1) // every) * every
        self.encoded = slice(self.at, min(last + 1, length), every)

    def add(self, layers: Tensor) -> None:
        """Add the next layers (m, ..., dim)."""
        for layer in layers:
            alone = self.at + self.every >= self.length
            for step in range(1 - self.every, self.every):
                place = self.at + step - self.start
                weight = 1.0 if alone and step > 0 else 1 - abs(step) / self.every
                if 0 <= place < len(self.total):
                    self.total[place].add_(layer, alpha=weight)
            self.at += self.every


def _turned(windows: Tensor, order: tuple[int, int, int]) -> Tensor:
    return windows.permute(0, 1, *(2 + axis for axis in order))


def _ordered(slices: Kept, order: tuple[int, int, int]) -> Kept:
    return slices[order[0]], slices[order[1]], slices[order[2]]
