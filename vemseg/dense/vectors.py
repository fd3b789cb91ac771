"""Where vectors come from: an encoder laid over a volume, or a store; and labels from either."""

from __future__ import annotations

import dataclasses
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
from vemseg.dense.smoothing import gaussian, smoothed
from vemseg.errors import InputError
from vemseg.features import Features, HeldFeatures
from vemseg.geometry import ZYX, Box
from vemseg.volume import Intensity

Head = Callable[[Tensor], Tensor]
"""Turns float16 vectors (..., d) into the channels that are kept of them (..., c), float32."""


class PatchMean:
    """The simplest encoder: the mean intensity of each patch. Orders clusters from dark to bright."""

    dim = 1

    def __init__(self, like: Any) -> None:
        self.fov, self.patch, self.halo, self.align = like.fov, like.patch, like.halo, like.align

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
    smooth : float
        Standard deviation, in working voxels, of a Gaussian that vectors are smoothed with along z, y and x;
        0 for none.
    """

    encoder: Any
    grid: Grid
    layout: Layout
    intensity: Intensity
    device: torch.device
    batch: int
    smooth: float = 0.0

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.encoder.dim)

    @property
    def shape(self) -> ZYX:
        """Number of lattice points along each axis."""
        return self.layout.shape

    def with_encoder(self, encoder: Any) -> DenseEncoder:
        """Return the same placement with another encoder of the same fields of view."""
        return dataclasses.replace(self, encoder=encoder)

    def values(self, cells: Box, head: Head | None = None) -> Tensor:
        """Compute the vectors of a box of lattice points, or what a head makes of them.

        Parameters
        ----------
        cells : Box
            Lattice points, z y x.
        head : callable, optional
            Applied to the vectors, batch by batch.

        Returns
        -------
        Tensor (z, y, x, c), on the CPU
            float16 vectors, or what the head returns.
        """
        return self.compute(cells, self.read(cells), head)

    def read(self, cells: Box) -> NDArray[Any]:
        """Read the voxels that :meth:`compute` needs for a box of lattice points."""
        window = self._window(self._grown(cells))
        voxels = self.grid.volume.read_reflected(window)
        if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
            raise InputError(f"{self.grid.volume.name}: not-a-number voxels in or around box {window}")
        return voxels

    @torch.inference_mode()
    def compute(self, cells: Box, voxels: NDArray[Any], head: Head | None = None) -> Tensor:
        """Compute what :meth:`values` returns from the voxels that :meth:`read` read."""
        apply = head or (lambda vectors: vectors)
        grown = self._grown(cells)
        encode = self._fields_of_view if self.encoder.halo is None else self._patches
        x = self._normalised(voxels)
        if not self.smooth:
            return encode(cells, x, lambda vectors: apply(vectors.half()))
        vectors = smoothed(encode(grown, x, Tensor.float), self._kernels())
        part = cells.shift((-grown.start[0], -grown.start[1], -grown.start[2]))
        return apply(vectors[part.slices].half())

    def _normalised(self, voxels: NDArray[Any]) -> Tensor:
        """Return intensities in [0, 1], in the precision that the encoder wants its windows in."""
        dtype = getattr(self.encoder, "dtype", torch.float32)
        if dtype == torch.float32:
            return torch.from_numpy(self.intensity.apply(voxels))
        x = torch.empty(voxels.shape, dtype=dtype)
        for plane, grey in zip(x, voxels, strict=True):
            plane.copy_(torch.from_numpy(self.intensity.apply(grey)))
        return x

    def _kernels(self) -> list[NDArray[np.float32]]:
        """Return the taps of the smoothing along z, y and x."""
        pitches = [
            lattice.placement.stride * edge / lattice.per_stride
            for lattice, edge in zip(self.layout.lattices, self.grid.spacing, strict=True)
        ]
        return [gaussian(self.smooth / pitch) for pitch in pitches]

    def _grown(self, cells: Box) -> Box:
        """Return the lattice points that are smoothed over."""
        if not self.smooth:
            return cells
        z, y, x = (len(kernel) // 2 for kernel in self._kernels())
        (a, b, c), (d, e, f) = cells.start, cells.stop
        return Box((a - z, b - y, c - x), (d + z, e + y, f + x)).clip(Box.whole(self.shape))

    def _window(self, cells: Box) -> Box:
        """Return the working voxels that a box of lattice points is computed from."""
        if self.encoder.halo is None:
            return self._reach(
                [
                    axis.starts[axis.reaching(start, stop)]
                    for axis, start, stop in zip(self.layout.lattices, cells.start, cells.stop, strict=True)
                ]
            )
        ranges = [self._axis_window(axis, cells) for axis in range(3)]
        z, y, x = (first for first, _ in ranges)
        z1, y1, x1 = (stop for _, stop in ranges)
        return Box((z, y, x), (z1, y1, x1))

    def _axis_window(self, axis: int, cells: Box) -> tuple[int, int]:
        """Return the working voxels of one axis of a window with its halo.

        An encoder with ``align`` pads at the volume's border itself; for others the volume is mirrored there.
        """
        lattice = self.layout.lattices[axis]
        patch, halo = self.encoder.patch[axis], self.encoder.halo[axis]
        first = int(lattice.starts[0]) + halo  # the first voxel of the first patch
        start = (cells.start[axis]) * patch - halo
        stop = cells.stop[axis] * patch + halo
        if self.encoder.align is not None:
            unit = self.encoder.align[axis]
            end = -(-len(lattice) * patch // unit) * unit
            start = max(0, start // unit * unit)
            stop = min(end, -(-stop // unit) * unit)
        return first + start, first + stop

    def _patches(self, cells: Box, x: Tensor, head: Head) -> Tensor:
        """Encode one window with its halo: all its tokens at once."""
        window = self._window(cells)
        kept = []
        for axis in range(3):
            lattice, patch = self.layout.lattices[axis], self.encoder.patch[axis]
            first = int(lattice.starts[0]) + self.encoder.halo[axis]
            skipped = cells.start[axis] - (window.start[axis] - first) // patch
            kept.append(slice(skipped, skipped + cells.shape[axis]))
        vectors = self.encoder.encode(x[None, None].to(self.device), tuple(kept))[0]
        return head(vectors).cpu()

    def _fields_of_view(self, cells: Box, x: Tensor, head: Head) -> Tensor:
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
        fov = self.encoder.fov
        windows = x.unfold(0, fov[0], 1).unfold(1, fov[1], 1).unfold(2, fov[2], 1)
        first = [torch.from_numpy(s - s[0]) for s in starts]
        out: Tensor | None = None
        combinations = itertools.product(*(range(len(found)) for found in fovs))
        for chosen in _batches(combinations, self.batch):
            z, y, x = torch.tensor(chosen).T
            batch = windows[first[0][z], first[1][y], first[2][x]].unsqueeze(1)
            vectors = self.encoder.encode(batch.to(self.device), self.layout.kept)
            values = head(vectors).cpu()
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

    def _reach(self, starts: list[NDArray[np.int64]]) -> Box:
        """Return the working voxels from the first field of view to the last, given where these start."""
        z, y, x = (int(s[0]) for s in starts)
        z1, y1, x1 = (int(s[-1]) + fov for s, fov in zip(starts, self.encoder.fov, strict=True))
        return Box((z, y, x), (z1, y1, x1))

    def interpolations(self, box: Box) -> Interpolations:
        """Return how each axis of a box of source voxels is interpolated from the lattice."""
        return interpolations(self.layout.positions, box)


def _batches(items: Iterator[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


@dataclass(frozen=True)
class StoredVectors:
    """Vectors kept instead of computed; labels from them are those of the encoder that made them."""

    features: Features | HeldFeatures

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.features.dim

    @property
    def shape(self) -> ZYX:
        """Number of lattice points along each axis."""
        return self.features.shape

    def read(self, cells: Box) -> NDArray[Any]:
        """Read the vectors of a box of lattice points."""
        return self.features.vectors(cells)

    def compute(self, cells: Box, stored: NDArray[Any], head: Head) -> Tensor:
        """Return what a head makes of the vectors that :meth:`read` read."""
        return head(torch.from_numpy(stored))

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
        Scores of vectors: (..., d) -> (..., K).

    Returns
    -------
    uint8 (z, y, x)
        1 + the class of the highest interpolated score, K <= 255.
    """
    return block_labels(vectors, box, block_input(vectors, box), head)


def block_input(vectors: DenseEncoder | StoredVectors, box: Box) -> NDArray[Any]:
    """Read what :func:`block_labels` needs for a box of source voxels."""
    return vectors.read(_cells(vectors.interpolations(box)))


def block_labels(
    vectors: DenseEncoder | StoredVectors, box: Box, given: NDArray[Any], head: Head
) -> NDArray[np.uint8]:
    """Compute what :func:`labels` returns from what :func:`block_input` read."""
    axes = vectors.interpolations(box)
    return argmax_interpolated(vectors.compute(_cells(axes), given, head), axes)


def _cells(axes: Interpolations) -> Box:
    z, y, x = axes
    return Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
