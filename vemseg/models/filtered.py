"""Filters beside an encoder: what is lost of fine grey values on the way to a learned vector is put back.

A learned vector tells what surrounds a place; grey value, edges and thin membranes themselves are told by
filters in scale space, those of :class:`vemseg.models.classical.ClassicalEncoder`, here on the mean
intensities of patches, so that they cost little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from vemseg.budget import Need
from vemseg.errors import UsageError
from vemseg.models.classical import ClassicalEncoder
from vemseg.models.encoder import WHOLE, Encoder, Kept, Memory, Spacing
from vemseg.recipe import ClassicalTable

LAYERS = 16
"""Layers of patches whose means are taken together."""


class Filtered(Encoder):
    """Append filters of patch means to an encoder's vectors.

    Parameters
    ----------
    encoder : Encoder
        Of windows of any size.
    sigmas : sequence of float
        Scales of the filters, in lattice points of the shortest edge.
    spacing : (float, float, float)
        Edges of the working voxels in units of the shortest.

    Raises
    ------
    UsageError
        Where vectors depend on where in a field of view they lie.
    """

    def __init__(self, encoder: Encoder, sigmas: Sequence[float], spacing: Spacing) -> None:
        super().__init__()
        if encoder.fixed_fov:
            raise UsageError("embed.filters goes with encoders of whole windows only: leave it empty")
        self.encoder = encoder
        edges = [edge * p for edge, p in zip(spacing, encoder.patch, strict=True)]
        z, y, x = (edge / min(edges) for edge in edges)
        self.filters = ClassicalEncoder(ClassicalTable(sigmas=tuple(sigmas)), (z, y, x))
        self.dim = encoder.dim + self.filters.dim
        self.patch, self.align, self.pads = encoder.patch, encoder.align, encoder.pads
        self.sweeps = encoder.sweeps
        reach = [h * p for h, p in zip(self.filters.halo, self.patch, strict=True)]
        z, y, x = (max(a, b) for a, b in zip(encoder.halo, reach, strict=True))
        self.halo = (z, y, x)
        self.fov = (2 * z + self.patch[0], 2 * y + self.patch[1], 2 * x + self.patch[2])

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the encoder wants its windows."""
        return self.encoder.dtype

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the vectors of windows: (b, 1, z, y, x) -> float16 (b, gz, gy, gx, dim)."""
        chosen = kept or WHOLE
        learned = self.encoder.encode(windows, kept)
        found = torch.empty(*learned.shape[:-1], self.dim, dtype=torch.float16, device=windows.device)
        found[..., : self.encoder.dim] = learned
        del learned
        parts = torch.split(windows, LAYERS * self.patch[0], dim=2)
        means = torch.cat([avg_pool3d(part.float(), self.patch) for part in parts], dim=2)
        for one, out in zip(means, found, strict=True):
            out[..., self.encoder.dim :] = self.filters.encode(one[None], chosen)[0]
        return found

    def memory(self, batch: int) -> Memory:
        """Return what the encoder takes, and the means, their filters and all vectors besides."""
        means = (4.0 * self.filters.dim + 24.0) / math.prod(self.patch)
        besides = Need(window=means, point=2.0 * self.encoder.dim)
        return self.encoder.memory(batch).plus(besides, besides)
