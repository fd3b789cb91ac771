"""An encoder with filters beside it, which add the fine detail that learned vectors lose.

A learned vector describes the surroundings of a place. Grey values, edges and thin membranes are described by
filters in scale space, those of :class:`vemseg.models.classical.ClassicalEncoder`. They are applied to the
mean intensities of patches, so that they cost little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from vemseg.budget import Need
from vemseg.errors import UsageError
from vemseg.geometry import ZYX
from vemseg.models.classical import ClassicalEncoder
from vemseg.models.encoder import WHOLE, Encoder, Kept, Memory, Spacing
from vemseg.recipe import ClassicalTable

LAYERS = 16
"""Number of layers of patches whose means are computed at a time."""


class Filtered(Encoder):
    """Append the responses of filters on patch means to the vectors of an encoder.

    Parameters
    ----------
    encoder : Encoder
        One that takes windows of any size.
    sigmas : sequence of float
        Scales of the filters, in lattice points of the shortest edge.
    spacing : (float, float, float)
        Edges of the working voxels in units of the shortest.

    Raises
    ------
    UsageError
        Where the encoder has fixed fields of view.
    """

    def __init__(self, encoder: Encoder, sigmas: Sequence[float], spacing: Spacing) -> None:
        super().__init__()
        if encoder.fixed_fov:
            raise UsageError("embed.filters works only with encoders of whole windows: leave it empty")
        self.encoder = encoder
        edges = [edge * p for edge, p in zip(spacing, encoder.patch, strict=True)]
        z, y, x = (edge / min(edges) for edge in edges)
        self.filters = ClassicalEncoder(ClassicalTable(sigmas=tuple(sigmas)), (z, y, x))
        self.dim, self.classes = encoder.dim + self.filters.dim, encoder.classes
        self.patch, self.align, self.pads = encoder.patch, encoder.align, encoder.pads
        self.sweeps = encoder.sweeps
        self.workers = encoder.workers
        reach = [h * p for h, p in zip(self.filters.halo, self.patch, strict=True)]
        z, y, x = (max(a, b) for a, b in zip(encoder.halo, reach, strict=True))
        self.halo = (z, y, x)
        self.fov = (2 * z + self.patch[0], 2 * y + self.patch[1], 2 * x + self.patch[2])

    @property
    def margins(self) -> ZYX:
        """Voxels around the wanted patches that the encoder encodes on average; filters take little."""
        return self.encoder.margins

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that windows should have, that of the encoder."""
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
        """Return the memory for the encoder plus that for the means, their filters and all vectors."""
        means = (4.0 * self.filters.dim + 24.0) / math.prod(self.patch)
        besides = Need(window=means, point=2.0 * self.encoder.dim)
        return self.encoder.memory(batch).plus(besides, besides)
