"""Where vectors come from: an encoder laid over a volume, or a store; and labels from either."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.dense.grid import Grid, Layout
from vemseg.dense.scores import Interpolations, argmax_interpolated, interpolations
from vemseg.errors import InputError
from vemseg.features import Features
from vemseg.geometry import ZYX, Box
from vemseg.volume import Intensity

Head = Callable[[Tensor], Tensor]
"""Turns float32 vectors (..., d) into the channels that are kept of them (..., c)."""


class PatchMean:
    """The simplest encoder: the mean intensity of each patch. Orders clusters from dark to bright."""

    dim = 1

    def __init__(self, like: Any) -> None:
        self.fov, self.patch, self.halo = like.fov, like.patch, like.halo

    def encode(self, x: Tensor, kept: tuple[slice, slice, slice] | None = None) -> Tensor:
        """Average over patches: (b, 1, z, y, x) -> (b, gz, gy, gx, 1)."""
        means = torch.nn.functional.avg_pool3d(x, self.patch)[:, 0, ..., None]
        return means if kept is None else means[:, kept[0], kept[1], kept[2]]


@dataclass(frozen=True)
class DenseEncoder:
    """An encoder laid over a volume.

    Attributes
    ----------
    encoder : module with ``fov``, ``patch``, ``dim``, ``halo`` and ``encode``
        Ready for inference: on its device, in its precision.
    grid : Grid
        The working grid it reads.
    layout : Layout
        Where its vectors lie.
    intensity : Intensity
        What maps voxels to [0, 1].
    device : torch.device
        Where it computes.
    batch : int
        Fields of view per call.
    """

    encoder: Any
    grid: Grid
    layout: Layout
    intensity: Intensity
    device: torch.device
    batch: int

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.encoder.dim)

    @property
    def shape(self) -> ZYX:
        """Number of lattice points along each axis."""
        return self.layout.shape

    @property
    def in_cubes(self) -> bool:
        """Whether boxes should be near-cubes, because their context reaches across planes too."""
        return self.encoder.halo is not None and self.encoder.halo[0] > 0

    def with_encoder(self, encoder: Any) -> DenseEncoder:
        """Return the same placement with another encoder of the same fields of view."""
        return DenseEncoder(encoder, self.grid, self.layout, self.intensity, self.device, self.batch)

    @torch.inference_mode()
    def values(self, cells: Box, head: Head | None = None) -> Tensor:
        """Compute the vectors of a box of lattice points, or what a head makes of them.

        Parameters
        ----------
        cells : Box
            Lattice points, z y x.
        head : callable, optional
            Applied to the float16-rounded vectors as float32, batch by batch.

        Returns
        -------
        Tensor (z, y, x, c), on the CPU
            float16 vectors, or what the head returns.
        """
        apply = head or (lambda vectors: vectors.half())
        if self.encoder.halo is not None:
            return self._window(cells, apply)
        return self._fields_of_view(cells, apply)

    def _window(self, cells: Box, head: Head) -> Tensor:
        """Encode one window with its halo: all its tokens at once."""
        covered = [
            axis.starts[first:stop]
            for axis, first, stop in zip(self.layout.lattices, cells.start, cells.stop, strict=True)
        ]
        margin = [h // p for h, p in zip(self.encoder.halo, self.encoder.patch, strict=True)]
        z, y, x = (slice(m, m + n) for m, n in zip(margin, cells.shape, strict=True))
        window = self._read(self._reach(covered))[None, None].to(self.device)
        vectors = self.encoder.encode(window, (z, y, x))[0]
        return head(vectors.half().float()).cpu()

    def _fields_of_view(self, cells: Box, head: Head) -> Tensor:
        """Encode the fields of view that keep a token among the cells, and scatter these."""
        lattices = self.layout.lattices
        fovs = [
            axis.reaching(start, stop)
            for axis, start, stop in zip(lattices, cells.start, cells.stop, strict=True)
        ]
        index = [torch.from_numpy(axis.index[found]) for axis, found in zip(lattices, fovs, strict=True)]
        low = [int(places.min()) for places in index]
        shape = [int(places.max()) + 1 - least for places, least in zip(index, low, strict=True)]
        starts = [axis.starts[found] for axis, found in zip(lattices, fovs, strict=True)]
        windows = self._read_windows(starts)
        first = [torch.from_numpy(s - s[0]) for s in starts]
        out: Tensor | None = None
        combinations = itertools.product(*(range(len(found)) for found in fovs))
        for chosen in _batches(combinations, self.batch):
            z, y, x = torch.tensor(chosen).T
            batch = windows[first[0][z], first[1][y], first[2][x]].unsqueeze(1)
            vectors = self.encoder.encode(batch.to(self.device), self.layout.kept)
            values = head(vectors.half().float()).cpu()
            if out is None:
                out = torch.empty((*shape, values.shape[-1]), dtype=values.dtype)
            out[
                (index[0][z] - low[0])[:, :, None, None],
                (index[1][y] - low[1])[:, None, :, None],
                (index[2][x] - low[2])[:, None, None, :],
            ] = values
        assert out is not None
        part = cells.shift((-low[0], -low[1], -low[2]))
        return out[part.slices]

    def _read_windows(self, starts: list[NDArray[np.int64]]) -> Tensor:
        """Read what the fields of view cover; return a view (z, y, x, fz, fy, fx) of all windows."""
        fov = self.encoder.fov
        x = self._read(self._reach(starts))
        return x.unfold(0, fov[0], 1).unfold(1, fov[1], 1).unfold(2, fov[2], 1)

    def _reach(self, starts: list[NDArray[np.int64]]) -> Box:
        """Return the working voxels from the first field of view to the last, given where these start."""
        z, y, x = (int(s[0]) for s in starts)
        z1, y1, x1 = (int(s[-1]) + fov for s, fov in zip(starts, self.encoder.fov, strict=True))
        return Box((z, y, x), (z1, y1, x1))

    def _read(self, box: Box) -> Tensor:
        values = torch.from_numpy(self.intensity.apply(self.grid.volume.read_reflected(box)))
        if values.isnan().any():
            raise InputError(f"{self.grid.volume.name}: not-a-number voxels in or around box {box}")
        return values

    def interpolations(self, box: Box) -> Interpolations:
        """Return how each axis of a box of source voxels is interpolated from the lattice."""
        return interpolations(self.layout.positions, box)


def _batches(items: Iterator[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


@dataclass(frozen=True)
class StoredVectors:
    """Vectors read back instead of computed; labels from them are those of the encoder that made them."""

    features: Features
    in_cubes = False

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.features.dim

    @property
    def shape(self) -> ZYX:
        """Number of lattice points along each axis."""
        return self.features.shape

    def values(self, cells: Box, head: Head) -> Tensor:
        """Return what a head makes of the vectors of a box of lattice points."""
        return head(torch.from_numpy(self.features.vectors(cells)).float())

    def interpolations(self, box: Box) -> Interpolations:
        """Return how each axis of a box of source voxels is interpolated from the lattice."""
        return interpolations(self.features.positions, box)


def labels(vectors: DenseEncoder | StoredVectors, box: Box, head: Head) -> NDArray[np.uint8]:
    """Segment a box of source voxels.

    Parameters
    ----------
    vectors : DenseEncoder or StoredVectors
        Where vectors come from.
    box : Box
        Source voxels.
    head : callable
        Scores of vectors, affine in them: (..., d) -> (..., K).

    Returns
    -------
    uint8 (z, y, x)
        1 + the class of the highest interpolated score, K <= 255.
    """
    z, y, x = vectors.interpolations(box)
    scores = vectors.values(Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop)), head)
    return argmax_interpolated(scores, (z, y, x))
