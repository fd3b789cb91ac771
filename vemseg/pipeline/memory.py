"""What dense inference on a block takes of memory, and the blocks that a budget allows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.dense import DenseEncoder, StoredVectors
from vemseg.errors import ResourceError
from vemseg.geometry import ZYX, Box
from vemseg.labelling import demands
from vemseg.pipeline.blocking import Blocks, Budget, Cuts, Need, Reach, choose_blocks
from vemseg.recipe import ClusterTable
from vemseg.resources import byte_text, memory_budget, resident_memory, usable_cores
from vemseg.tiling import interpolation

Vectors = DenseEncoder | StoredVectors

RESERVE = 96 * 2**20
"""Bytes beyond what is occupied at the start: strips, chunks, pictures, libraries loaded later."""

WRITING = 3.0
"""Bytes for each voxel of labels that are turned, compressed and put together as a shard."""

FIELD_BYTES = 512
"""For each voxel of the fields of view that are encoded together."""

GPU_SHARE = 0.8
"""Of the memory a GPU has left."""


def set_threads(wanted: int | None) -> int:
    """Let torch compute with that many threads, or with as many as there are cores to use; return them."""
    import torch

    threads = wanted or usable_cores()
    torch.set_num_threads(threads)
    return threads


def label_blocks(vectors: Vectors, shape: ZYX, k: int, limit: int | None) -> Blocks:
    """Choose the blocks in which a volume is segmented.

    Parameters
    ----------
    vectors : DenseEncoder or StoredVectors
    shape : (int, int, int)
        Source voxels, in the orientation of the vectors.
    k : int
        Classes.
    limit : int or None
        Bytes that may be occupied; the machine's choice where left out.

    Raises
    ------
    ResourceError
        Where nothing fits.
    """
    positions = vectors.layout.positions if isinstance(vectors, DenseEncoder) else vectors.features.positions

    def reach(axis: int) -> Reach:
        def of(start: int, stop: int) -> tuple[int, int]:
            rule = interpolation(positions[axis], start, stop)
            return _window(vectors, axis, rule.start, rule.stop)

        return of

    z, y, x = (Cuts.of(n, reach(axis)) for axis, n in enumerate(shape))
    return choose_blocks((z, y, x), _budgets(vectors, 4.0 * k, 1.0 + WRITING, limit), _sweeps(vectors))


def lattice_blocks(dense: DenseEncoder, limit: int | None) -> Blocks:
    """Choose the boxes of lattice points in which vectors are computed and stored."""

    def reach(axis: int) -> Reach:
        return lambda start, stop: _window(dense, axis, start, stop)

    z, y, x = (
        Cuts.of(n, reach(axis), unit)
        for axis, (n, unit) in enumerate(zip(dense.layout.shape, dense.layout.cell, strict=True))
    )
    stored = 2.0 * dense.dim
    return choose_blocks((z, y, x), _budgets(dense, stored, WRITING * stored, limit), _sweeps(dense))


def encoded_voxels(vectors: Vectors, cells: Box) -> float:
    """Return how many voxels are encoded for a box of lattice points, counted as ``Blocks.encoded`` is.

    For stored vectors, how many of these are read.
    """
    if isinstance(vectors, StoredVectors):
        return float(cells.size)
    window = [
        _window(vectors, axis, start, stop)[0]
        for axis, (start, stop) in enumerate(zip(cells.start, cells.stop, strict=True))
    ]
    own = [points * patch for points, patch in zip(cells.shape, vectors.encoder.patch, strict=True)]
    swept = [math.prod([*window[:i], own[i], *window[i + 1 :]]) for i in _sweeps(vectors)]
    return sum(swept) / len(swept) if swept else float(math.prod(window))


def check_sample(
    vectors: Vectors, n: int, table: ClusterTable, codes: NDArray[np.float32] | None, limit: int | None
) -> None:
    """Refuse a budget in which classes cannot be fitted to ``n`` vectors by the method of a table.

    Raises
    ------
    ResourceError
        Naming what works.
    """
    limit = limit or memory_budget()
    steps = demands(table, min(n, math.prod(vectors.shape)), vectors.dim, codes)
    need = resident_memory() + RESERVE + sum(step.bytes for step in steps)
    if need > limit:
        largest = max(steps, key=lambda step: step.bytes)
        raise ResourceError(
            f"{byte_text(limit)} of memory is not enough to {largest.what}: the least that works is "
            f"{byte_text(1.01 * need)}, or take {largest.instead}"
        )


def _window(vectors: Vectors, axis: int, start: int, stop: int) -> tuple[int, int]:
    """Return the length of the window along an axis for lattice points ``start .. stop``, and these."""
    low, high = [0, 0, 0], [1, 1, 1]
    low[axis], high[axis] = start, stop
    cells = Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    if isinstance(vectors, StoredVectors):
        return stop - start, stop - start
    cells = vectors._grown(cells)
    return vectors._window(cells).shape[axis], cells.shape[axis]


def _sweeps(vectors: Vectors) -> tuple[int, ...]:
    """Return the axes across which planes are encoded, where whole windows are not."""
    sweeps: tuple[int, ...] = getattr(getattr(vectors, "encoder", None), "sweeps", ())
    return sweeps


def _budgets(vectors: Vectors, kept: float, written: float, limit: int | None) -> list[Budget]:
    """Return the budgets of the machine and, where it computes, of a GPU.

    Parameters
    ----------
    kept : float
        Bytes for each lattice point that are kept of its vector.
    written : float
        Bytes for each voxel (or lattice point) written, while it is.
    """
    base = resident_memory() + RESERVE
    limit = limit or memory_budget()
    if isinstance(vectors, StoredVectors):
        return [Budget(limit, base, (Need(point=10.0 * vectors.dim + 2 * kept, voxel=written),))]
    reading, given = _reading(vectors)
    beside = Need(window=reading + given, voxel=written)
    dtype = getattr(vectors.encoder, "dtype", None)
    grey = Need(window=float(dtype.itemsize) if dtype else 4.0)
    fields, phases = _computing(vectors, kept)
    scores = beside + Need(point=2 * kept)
    if vectors.device.type == "cpu":
        return [Budget(limit, base + fields, (*(beside + grey + need for need in phases), scores))]
    host = Budget(limit, base, (beside + grey, scores))
    if vectors.device.type != "cuda":
        return [host]
    gpu = Budget(_gpu_memory(vectors.device), fields, tuple(grey + need for need in phases), "GPU memory")
    return [host, gpu]


def _reading(dense: DenseEncoder) -> tuple[float, float]:
    """Return the bytes per voxel of a window while it is read, and once it is."""
    item = float(dense.grid.volume.dtype.itemsize)
    source = math.prod(dense.grid.factors)
    resampling = 0.0 if source == 1.0 else 8.0 * source + 8.0
    return 2 * item + 1.0 + resampling, item


def _computing(dense: DenseEncoder, kept: float) -> tuple[int, tuple[Need, Need]]:
    """Return what a pass of fields of view takes, and what encoding and the head take on their device.

    Vectors come out of an encoder as its own type, are rounded to float16 and given to the head.
    """
    encoder, dim = dense.encoder, dense.dim
    filters = getattr(encoder, "filters", None)
    if filters is not None:
        extra = Need((4.0 * filters.dim + 24.0) / math.prod(encoder.patch), point=2.0 * dim)
        bare = replace(dense, encoder=encoder.encoder)
        fixed, (first, second) = _computing(bare, kept)
        return fixed, (first + extra, second + extra)
    inner: Any = getattr(encoder, "encoder", encoder)
    smoothing = 12.0 * dim if dense.smooth else 0.0
    if encoder.halo is None:
        fields = dense.batch * encoder.fov[0] // encoder.patch[0] * math.prod(inner.fov) * FIELD_BYTES
        need = Need(point=smoothing + 6.0 * dim if smoothing else 2 * kept)
        return int(fields), (need, need)
    head = smoothing + 2 * kept
    if hasattr(inner, "layers"):  # planes, a few at a time
        item = float(inner.dtype.itemsize)
        vectors = item * dim * (1 if inner is not encoder else 2)
        encoding = Need(point=vectors, pixel=inner.bytes_per_pixel)
        return int(inner.pass_bytes), (encoding, Need(point=max(item, 2.0) * dim + head + 2.0 * dim))
    summed = 8.0 * dim if inner is not encoder else 0.0  # features of whole windows, copied once
    return 0, (
        Need(window=8.0 * dim + 8.0, point=summed),
        Need(window=4.0 * dim, point=summed + 6.0 * dim + head),
    )


def _gpu_memory(device: Any) -> int:
    """Return the bytes a GPU may still give."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return int(GPU_SHARE * (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)))
