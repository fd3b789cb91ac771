"""Filters beside an encoder: what is lost of fine grey values on the way to a learned vector is put back.

A learned vector tells what surrounds a place; grey value, edges and thin membranes themselves are told by
filters in scale space, those of :class:`vemseg.models.classical.ClassicalEncoder`, here on the mean
intensities of patches, so that they cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from vemseg.errors import UsageError
from vemseg.geometry import ZYX
from vemseg.models.classical import ClassicalEncoder
from vemseg.recipe import ClassicalTable

LAYERS = 16
"""Of patches whose means are taken together."""


class Filtered:
    """Append filters of patch means to an encoder's vectors.

    Parameters
    ----------
    encoder : encoder
        Of whole windows: one with a halo.
    sigmas : sequence of float
        Scales of the filters, in lattice points of the shortest edge.
    spacing : (float, float, float)
        Edges of the working voxels in units of the shortest.

    Raises
    ------
    UsageError
        Where vectors depend on where in a field of view they lie.
    """

    def __init__(self, encoder: Any, sigmas: Sequence[float], spacing: tuple[float, float, float]) -> None:
        if encoder.halo is None:
            raise UsageError("embed.filters goes with encoders of whole windows only: leave it empty")
        self.encoder = encoder
        edges = [edge * p for edge, p in zip(spacing, encoder.patch, strict=True)]
        z, y, x = (edge / min(edges) for edge in edges)
        self.filters = ClassicalEncoder(ClassicalTable(sigmas=tuple(sigmas)), (z, y, x))
        self.dim = encoder.dim + self.filters.dim
        self.patch: ZYX = encoder.patch
        self.align: ZYX | None = encoder.align
        self.sweeps: tuple[int, ...] = getattr(encoder, "sweeps", ())
        reach = [h * p for h, p in zip(self.filters.halo, self.patch, strict=True)]
        z, y, x = (max(a, b) for a, b in zip(encoder.halo, reach, strict=True))
        self.halo: ZYX = (z, y, x)
        self.fov: ZYX = (2 * z + self.patch[0], 2 * y + self.patch[1], 2 * x + self.patch[2])

    @property
    def dtype(self) -> torch.dtype:
        """The precision windows are wanted in."""
        dtype: torch.dtype = getattr(self.encoder, "dtype", torch.float32)
        return dtype

    def encode(self, x: Tensor, kept: tuple[slice, slice, slice] | None = None) -> Tensor:
        """Return the vectors of windows: (b, 1, z, y, x) -> float16 (b, gz, gy, gx, dim)."""
        chosen = kept or (slice(None), slice(None), slice(None))
        learned = self.encoder.encode(x, kept)
        found = torch.empty(*learned.shape[:-1], self.dim, dtype=torch.float16, device=x.device)
        found[..., : self.encoder.dim] = learned
        del learned
        parts = torch.split(x, LAYERS * self.patch[0], dim=2)
        means = torch.cat([avg_pool3d(part.float(), self.patch) for part in parts], dim=2)
        for one, out in zip(means, found, strict=True):
            out[..., self.encoder.dim :] = self.filters.encode(one[None], chosen)[0]
        return found
