"""Vectors that are computed where they are wanted: an encoder laid over a volume."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.budget import Budget, Need, Stretch
from vemseg.context import Context
from vemseg.dense.grid import Grid, Layout
from vemseg.dense.holding import hold, holding_bytes
from vemseg.dense.smoothing import gaussian, smoothed
from vemseg.dense.sources import Given, Head, LatticeVectors, Maker
from vemseg.errors import InputError, ResourceError
from vemseg.geometry import ZYX, Box
from vemseg.models import Encoder, Machine, PatchMean
from vemseg.models.devices import gpu_memory
from vemseg.models.encoder import Kept
from vemseg.resources import is_out_of_memory
from vemseg.volume import Intensity, Permuted, Volume

_log = logging.getLogger("vemseg")

RESAMPLING = 5.0
"""Copies that resampling takes of a plane of the finer grid, in the numbers that it computes in."""

SERIAL = 2**15
"""Numbers that PyTorch copies in the calling thread: for more it starts others, which would compete with
those that compute."""


def _ran_out(error: Exception) -> bool:
    """Tell whether the memory of the GPU or the host was not enough."""
    return isinstance(error, torch.OutOfMemoryError) or is_out_of_memory(error)


def _place(error: Exception) -> str:
    return "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"


def _unchanged(vectors: Tensor) -> Tensor:
    return vectors


@dataclass(frozen=True)
class Covering:
    """How an encoder is laid over the working grid of a volume.

    Attributes
    ----------
    encoder : Encoder
        Ready for inference: on its device, in its type of numbers.
    grid : Grid
        The working grid it reads.
    layout : Layout
        Where its vectors lie.
    intensity : Intensity
        What maps voxels to [0, 1].
    device : torch.device
        Where it computes.
    batch : int
        Fields of view per call, where these are fixed.
    smooth : float
        Standard deviation, in working voxels, of a Gaussian that vectors are smoothed with along z, y and x;
        0 for none.
    """

    encoder: Encoder
    grid: Grid
    layout: Layout
    intensity: Intensity
    device: torch.device
    batch: int
    smooth: float = 0.0

    def with_encoder(self, encoder: Encoder) -> Covering:
        """Return the same covering by another encoder of the same fields of view."""
        return dataclasses.replace(self, encoder=encoder)

    def read(self, points: Box) -> Given:
        """Read the voxels that :meth:`compute` needs for a box of lattice points.

        They wait for it in the form that takes less memory: as they are stored, or as the encoder wants them.
        """
        window = self.window(self.grown(points))
        if self.waits_as_stored:
            return self._checked(self.grid.volume.read_reflected(window), window)
        windows, start = torch.empty(window.shape, dtype=self.encoder.dtype), 0
        for slab in self.grid.volume.slabs(window):
            self._normalise(self._checked(slab, window), windows[start : start + len(slab)])
            start += len(slab)
        return windows

    @property
    def waits_as_stored(self) -> bool:
        """Whether voxels are normalised when they are computed with, and not when they are read."""
        return self.grid.volume.dtype.itemsize < self.encoder.dtype.itemsize

    def _checked(self, voxels: NDArray[np.generic], window: Box) -> NDArray[np.generic]:
        """Return voxels of a window, which must be finite."""
        if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
            raise InputError(f"{self.grid.volume.name}: not-a-number voxels in or around box {window}")
        return voxels

    @torch.inference_mode()
    def compute(self, points: Box, given: Given, head: Head = _unchanged) -> Tensor:
        """Return what ``LatticeVectors.compute`` promises."""
        encode = self._fields_of_view if self.encoder.fixed_fov else self._patches
        windows = self._windows(given)
        if not self.smooth:
            return encode(points, windows, lambda vectors: head(vectors.half()))
        grown = self.grown(points)
        vectors = smoothed(encode(grown, windows, Tensor.float), self._kernels)
        return head(vectors[points.relative_to(grown).slices].half())

    def grown(self, points: Box) -> Box:
        """Return a box of lattice points with the neighbours that smoothing looks at."""
        if not self.smooth:
            return points
        z, y, x = (len(kernel) // 2 for kernel in self._kernels)
        (a, b, c), (d, e, f) = points.start, points.stop
        return Box((a - z, b - y, c - x), (d + z, e + y, f + x)).clip(Box.whole(self.layout.shape))

    def window(self, points: Box) -> Box:
        """Return the working voxels that a box of lattice points is computed from."""
        ranges = [self._axis_window(axis, points.start[axis], points.stop[axis]) for axis in range(3)]
        (z, y, x), (z1, y1, x1) = zip(*ranges, strict=True)
        return Box((z, y, x), (z1, y1, x1))

    def _axis_window(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        """Return the working voxels of one axis that lattice points ``start .. stop`` are computed from."""
        lattice, encoder = self.layout.lattices[axis], self.encoder
        if encoder.fixed_fov:
            starts = lattice.starts[lattice.reaching(start, stop)]
            return int(starts[0]), int(starts[-1]) + encoder.fov[axis]
        patch, halo, unit = encoder.patch[axis], encoder.halo[axis], encoder.align[axis]
        low = (start * patch - halo) // unit * unit
        high = -(-(stop * patch + halo) // unit) * unit
        if encoder.pads:
            low, high = max(0, low), min(-(-len(lattice) * patch // unit) * unit, high)
        first = self._first_patch(axis)
        return first + low, first + high

    def lengths(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        """Return how many voxels of an axis are read for some lattice points, and how many are encoded."""
        low, high = self._axis_window(axis, start, stop)
        if self.encoder.fixed_fov:
            return high - low, high - low
        patch, margin, first = self.encoder.patch[axis], self.encoder.margins[axis], self._first_patch(axis)
        from_, to = max(low, first + start * patch - margin), min(high, first + stop * patch + margin)
        return high - low, to - from_

    def _first_patch(self, axis: int) -> int:
        """Return the first voxel of the first patch of an axis, where the field of view is not fixed."""
        return int(self.layout.lattices[axis].starts[0]) + self.encoder.halo[axis]

    def _windows(self, given: Given) -> Tensor:
        """Return what was read as intensities in [0, 1], in the type of numbers that encoders want."""
        if isinstance(given, Tensor):
            return given
        windows = torch.empty(given.shape, dtype=self.encoder.dtype)
        self._normalise(given, windows)
        return windows

    def _normalise(self, voxels: NDArray[np.generic], windows: Tensor) -> None:
        """Fill windows with the intensities of voxels of the same shape."""
        for plane, grey in zip(windows, voxels, strict=True):
            flat, out = torch.from_numpy(self.intensity.apply(grey)).view(-1), plane.view(-1)
            for start in range(0, len(flat), SERIAL):
                out[start : start + SERIAL] = flat[start : start + SERIAL]

    @cached_property
    def _kernels(self) -> list[NDArray[np.float32]]:
        """The taps of the smoothing along z, y and x."""
        pitches = [
            lattice.placement.stride * edge / lattice.per_stride
            for lattice, edge in zip(self.layout.lattices, self.grid.spacing, strict=True)
        ]
        return [gaussian(self.smooth / pitch) for pitch in pitches]

    def _patches(self, points: Box, window: Tensor, head: Head) -> Tensor:
        """Encode one window with its halo: all its vectors at once."""
        start = self.window(points).start
        z, y, x = (
            slice(skipped, skipped + n)
            for skipped, n in zip(
                map(self._skipped, range(3), points.start, start), points.shape, strict=True
            )
        )
        kept: Kept = (z, y, x)
        return head(self.encoder.encode(window[None, None].to(self.device), kept)[0]).cpu()

    def _skipped(self, axis: int, point: int, start: int) -> int:
        """Return how many patches of a window that begins at voxel ``start`` come before a lattice point."""
        return point - (start - self._first_patch(axis)) // self.encoder.patch[axis]

    def _fields_of_view(self, points: Box, voxels: Tensor, head: Head) -> Tensor:
        """Encode the fields of view that keep a token among the points, and scatter these."""
        lattices = self.layout.lattices
        ranges = list(zip(lattices, points.start, points.stop, strict=True))
        fovs = [axis.reaching(start, stop) for axis, start, stop in ranges]
        index = [torch.from_numpy(axis.index[found]) for axis, found in zip(lattices, fovs, strict=True)]
        low = [int(places.min()) for places in index]
        shape = [int(places.max()) + 1 - least for places, least in zip(index, low, strict=True)]
        starts = [axis.starts[found] for axis, found in zip(lattices, fovs, strict=True)]
        first = [torch.from_numpy(s - s[0]) for s in starts]
        fov = self.encoder.fov
        windows = voxels.unfold(0, fov[0], 1).unfold(1, fov[1], 1).unfold(2, fov[2], 1)
        out: Tensor | None = None
        for chosen in _batches(itertools.product(*map(range, map(len, fovs))), self.batch):
            z, y, x = torch.tensor(chosen).T
            batch = windows[first[0][z], first[1][y], first[2][x]].unsqueeze(1)
            values = head(self.encoder.encode(batch.to(self.device), self.layout.kept)).cpu()
            if out is None:
                out = torch.empty((*shape, values.shape[-1]), dtype=values.dtype)
            out[
                (index[0][z] - low[0])[:, :, None, None],
                (index[1][y] - low[1])[:, None, :, None],
                (index[2][x] - low[2])[:, None, None, :],
            ] = values
        assert out is not None
        return out[points.shift((-low[0], -low[1], -low[2])).slices]


class ComputedVectors(LatticeVectors):
    """The vectors of an encoder laid over a volume.

    Parameters
    ----------
    volume : Volume
        As it lies on disk.
    order : (int, int, int)
        Axis ``i`` of the covering is axis ``order[i]`` of the volume.
    covering : Covering
    maker : Maker
    machine : Machine
    """

    def __init__(
        self, volume: Volume, order: ZYX, covering: Covering, maker: Maker, machine: Machine
    ) -> None:
        self.volume, self.order, self.covering = volume, order, covering
        self.maker, self.machine = maker, machine
        self.shown = 1.0 if volume.specimen is None else volume.specimen.share
        self.dim, self.intensity = covering.encoder.dim, covering.intensity
        self.sweeps = tuple(order[axis] for axis in covering.encoder.sweeps)
        layout, self.factors = covering.layout, covering.grid.factors
        self.positions, self.inside, self.cell = layout.positions, layout.inside, layout.cell
        self._means = covering.with_encoder(PatchMean(covering.encoder))
        self.workers = covering.encoder.workers
        self._halved = False

    def read_points(self, points: Box) -> Given:
        """Read the voxels that a box of lattice points is computed from."""
        return self.covering.read(points)

    def compute(self, points: Box, given: Given, head: Head | None = None) -> Tensor:
        """Encode a box of lattice points; once memory runs out, half as much at a time.

        Raises
        ------
        ResourceError
            Where that is too much as well.
        """
        head = head or _unchanged
        if not self._halved:
            try:
                return self.covering.compute(points, given, head)
            except (MemoryError, RuntimeError) as error:
                if not _ran_out(error):
                    raise
                self._halve(_place(error))
        try:
            return self._in_two(points, head)
        except (MemoryError, RuntimeError) as error:
            if not _ran_out(error):
                raise
            raise ResourceError(
                f"{_place(error)} is not enough, even for half of what was planned: {self._way_out(error)}"
            ) from None

    def _way_out(self, error: Exception) -> str:
        """Return what to do where memory ran out twice."""
        if isinstance(error, torch.OutOfMemoryError):
            fewer = max(1, self.covering.batch // 2)
            fields = f"take fewer fields of view (--set embed.batch={fewer})"
            return f"free it of other programs, {fields}, or add -d cpu"
        return "give a smaller --max-memory, or more to the process (ulimit -v), or take a part (--crop)"

    def _halve(self, place: str) -> None:
        """Do half as much at a time from now on."""
        _log.warning("%s ran out: going on with half as much at a time", place)
        self.covering = dataclasses.replace(self.covering, batch=max(1, self.covering.batch // 2))
        self._halved = True
        torch.cuda.empty_cache()

    def _in_two(self, points: Box, head: Head) -> Tensor:
        """Encode a box of lattice points in two parts, along its longest axis."""
        axis = points.shape.index(max(points.shape))
        pieces = [n if i != axis else -(-n // 2) for i, n in enumerate(points.shape)]
        parts = points.split((pieces[0], pieces[1], pieces[2]))
        return torch.cat([self.covering.compute(one, self.covering.read(one), head) for one in parts], axis)

    def intensities(self, points: Box, given: Given) -> NDArray[np.float16]:
        """Return the mean intensity of each patch."""
        means: NDArray[np.float16] = self._means.compute(points, given).numpy()[..., 0]
        shown = self.showing(points)
        return means if shown is None else np.where(shown, means, np.float16(np.nan))

    def showing(self, points: Box) -> NDArray[np.bool_] | None:
        """Return which of some lattice points have a specimen's voxel nearest to them."""
        specimen = self.volume.specimen
        if specimen is None:
            return None
        z, y, x = (
            np.clip(np.rint(along[a:b]).astype(np.intp), 0, self.volume.shape[axis] - 1)
            for along, a, b, axis in zip(self.positions, points.start, points.stop, self.order, strict=True)
        )
        around = Box((z[0], y[0], x[0]), (z[-1] + 1, y[-1] + 1, x[-1] + 1))
        voxels = specimen.voxels if self.order == (0, 1, 2) else Permuted(specimen.voxels, self.order)
        shown: NDArray[np.bool_] = voxels.read(around)[np.ix_(z - z[0], y - y[0], x - x[0])] > 0  # type: ignore[operator]
        return shown

    def point_reach(self, axis: int, start: int, stop: int) -> Stretch:
        """Return what lattice points of an axis take, those that are smoothed over included."""
        low, high = [0, 0, 0], [1, 1, 1]
        low[axis], high[axis] = start, stop
        points = self.covering.grown(Box((low[0], low[1], low[2]), (high[0], high[1], high[2])))
        window, encoded = self.covering.lengths(axis, points.start[axis], points.stop[axis])
        return Stretch(window, points.shape[axis], encoded)

    def budgets(self, k: int, written: float, limit: int) -> list[Budget]:
        """Return what labelling takes of the memory of the machine and, where a GPU computes, of the GPU."""
        return self._memory(4.0 * k, written, limit)

    def point_budgets(self, writing: float, limit: int) -> list[Budget]:
        """Return what computing and storing boxes of lattice points takes."""
        stored = 2.0 * self.dim
        return self._memory(stored, writing * stored, limit)

    def _memory(self, kept: float, written: float, limit: int) -> list[Budget]:
        """Return what blocks take of each memory.

        Parameters
        ----------
        kept : float
            Bytes that are kept of the vector of each lattice point.
        written : float
            Bytes that each voxel (or lattice point) of a block takes while it is written.
        limit : int
            Bytes that this process may occupy.
        """
        reading, grey = self._reading()
        fixed, phases = self._computing(kept)
        beside = reading + Need(voxel=written)
        scores = beside + Need(point=2 * kept)
        if self.machine.device.type == "cpu":
            needs = (*(beside + grey + need for need in phases), scores)
            return [Budget.of_process(limit, fixed, needs)]
        host = Budget.of_process(limit, 0, (beside + grey, scores))
        if self.machine.device.type != "cuda":
            return [host]
        window = Need(window=float(self.covering.encoder.dtype.itemsize))
        gpu = (window + phases[0], window + phases[1])
        return [host, Budget(gpu_memory(self.machine.device), fixed, gpu, "GPU memory")]

    def _reading(self) -> tuple[Need, Need]:
        """Return what it takes to read a window while another one waits, and to give that to the encoder."""
        covering = self.covering
        factors, number = covering.grid.factors, float(covering.encoder.dtype.itemsize)
        share = math.prod(factors)
        stored = share * (2.0 * self.volume.dtype.itemsize + 1)
        if covering.waits_as_stored:
            return Need(window=stored + covering.grid.volume.dtype.itemsize), Need(window=number)
        resampling = RESAMPLING * covering.grid.volume.dtype.itemsize * max(1.0, share)
        slab = 0.0 if factors == (1.0, 1.0, 1.0) else resampling
        return Need(window=stored + 2 * number, pixel=slab), Need()

    def _computing(self, kept: float) -> tuple[int, tuple[Need, Need]]:
        """Return the bytes that every block takes, and what encoding and the head take on their device.

        Vectors come out of an encoder as its own type, are rounded to float16 and given to the head.
        """
        memory = self.covering.encoder.memory(self.covering.batch)
        smoothing = 12.0 * self.dim if self.covering.smooth else 0.0
        if self.covering.encoder.fixed_fov:
            need = Need(point=smoothing + 6.0 * self.dim if smoothing else 2 * kept)
            return memory.fixed, (need, need)
        head = Need(point=2.0 * self.dim + smoothing + 2 * kept)
        return memory.fixed, (memory.encoding, memory.encoded + head)

    def work(self, box: Box) -> float:
        """Return the voxels encoded for a box; of an encoder of planes, the mean over its axes."""
        return self.points_work(self.points_of(box))

    def points_work(self, points: Box) -> float:
        """Return the voxels encoded for a box of lattice points."""
        window = [
            self.point_reach(axis, start, stop).encoded
            for axis, (start, stop) in enumerate(zip(points.start, points.stop, strict=True))
        ]
        encoder = self.covering.encoder
        own = [n * patch for n, patch in zip(points.shape, encoder.patch, strict=True)]
        swept = [math.prod([*window[:i], own[i], *window[i + 1 :]]) for i in encoder.sweeps]
        return sum(swept) / len(swept) if swept else float(math.prod(window))

    def sampling_work(self, n: int, seed: int) -> float:
        """Return the voxels encoded for a sample."""
        return self.shown * sum(self.points_work(cell.cells) for cell in self._cells(n, seed))

    def holding_bytes(self, limit: int) -> int:
        """Return the bytes of all vectors, where they are few; else 0."""
        return holding_bytes(self, limit)

    def held(self, context: Context, keep: Path | None = None) -> LatticeVectors:
        """Compute all vectors and keep them in memory, where they take a small part of it."""
        return hold(self, context, keep) if self.holding_bytes(context.limit) else self


def _batches(items: Iterator[Sequence[int]], size: int) -> Iterator[list[Sequence[int]]]:
    while batch := list(itertools.islice(items, size)):
        yield batch
