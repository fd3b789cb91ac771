"""Dense inference: encoder x placement x volume -> vectors or scores on a lattice, block by block.

The field of view of an encoder is laid over the working grid (the volume at the model's voxel size) as its
placement says (``tiling``). What comes back lies on a lattice whose points have positions in the *source*
volume's voxels, so that interpolating scores from it gives labels on the source's own grid, whatever the
working voxel size.

Scores, not vectors, are interpolated. A clusterer's scores are affine in the vector, so interpolating K score
channels gives exactly the labels of interpolating the vectors (``tests/test_dense.py`` proves it).

Vectors are rounded to float16 wherever they leave the encoder, so stored and streamed features are the same
numbers and give the same labels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.features import Features
from vemseg.geometry import ZYX, Box, add, is_anisotropic
from vemseg.tiling import Floats, Interpolation, Lattice, Placement, interpolation, rescaled
from vemseg.volume import Intensity, Resampled, Volume

Head = Callable[[Tensor], Tensor]
"""Turns float32 vectors (..., d) into the channels that are kept of them (..., c)."""

Interpolations = tuple[Interpolation, Interpolation, Interpolation]
"""Interpolation along z, y and x."""

SAME_VOXEL_SIZE = 0.1
"""A volume within this fraction of the model's voxel size is not resampled."""

STRIP_BYTES = 2**26
CELLS_AT_LEAST = 64
DENSE_CELL: ZYX = (16, 32, 32)
BOX_BYTES = 2**27


@dataclass(frozen=True)
class Grid:
    """A volume at the model's voxel size.

    Attributes
    ----------
    volume : Volume
        The working grid; the source itself where voxel sizes agree.
    factors : (float, float, float)
        Edge of a working voxel in source voxels.
    spacing : (float, float, float)
        Edges of a working voxel in units of the shortest.
    """

    volume: Volume
    factors: tuple[float, float, float]
    spacing: tuple[float, float, float]


def working_grid(volume: Volume, voxel_size: float) -> Grid:
    """Bring a volume to a model's voxel size.

    An isotropic volume is resampled along all axes, an anisotropic one in its sharp plane alone. A volume
    of unknown voxel size, or one within ``SAME_VOXEL_SIZE`` of the model's, is taken as it is.

    Parameters
    ----------
    volume : Volume
        Its sharp plane is (y, x).
    voxel_size : float
        The model's voxel edge in nm.
    """
    size = volume.voxel_size
    if size is None:
        return Grid(volume, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    wanted = (size[0] if is_anisotropic(size) else voxel_size, voxel_size, voxel_size)
    ratios = (wanted[0] / size[0], wanted[1] / size[1], wanted[2] / size[2])
    z, y, x = (1.0 if abs(ratio - 1.0) <= SAME_VOXEL_SIZE else ratio for ratio in ratios)
    edges = (size[0] * z, size[1] * y, size[2] * x)
    spacing = (edges[0] / min(edges), edges[1] / min(edges), edges[2] / min(edges))
    return Grid(volume if (z, y, x) == (1.0, 1.0, 1.0) else Resampled(volume, (z, y, x)), (z, y, x), spacing)


@dataclass(frozen=True)
class Layout:
    """The lattice of an encoder's vectors in a volume.

    Attributes
    ----------
    lattices : three Lattice
        On the working grid, z y x.
    positions : three float64 arrays
        Where the lattice points lie, in source voxels.
    """

    lattices: tuple[Lattice, Lattice, Lattice]
    positions: tuple[Floats, Floats, Floats]

    @property
    def shape(self) -> ZYX:
        """Number of lattice points along each axis."""
        z, y, x = (len(lattice) for lattice in self.lattices)
        return z, y, x

    @property
    def inside(self) -> Box:
        """The lattice points that lie within the volume."""
        (z0, z1), (y0, y1), (x0, x1) = (lattice.inside() for lattice in self.lattices)
        return Box((z0, y0, x0), (z1, y1, x1))

    @property
    def cell(self) -> ZYX:
        """Lattice points that come out of neighbouring fields of view together."""
        if all(lattice.placement.stride == lattice.placement.patch == 1 for lattice in self.lattices):
            return DENSE_CELL
        z, y, x = (lattice.per_stride for lattice in self.lattices)
        return z, y, x

    @property
    def kept(self) -> tuple[slice, slice, slice]:
        """The tokens kept of each field of view."""
        z, y, x = (lattice.placement.kept for lattice in self.lattices)
        return z, y, x


def interpolations(positions: tuple[Floats, Floats, Floats], box: Box) -> Interpolations:
    """Return how each axis of a box of source voxels is interpolated from lattice positions."""
    z, y, x = (
        interpolation(places, start, stop)
        for places, start, stop in zip(positions, box.start, box.stop, strict=True)
    )
    return z, y, x


def lay_out(placements: tuple[Placement, Placement, Placement], grid: Grid) -> Layout:
    """Lay placements, z y x, over the working grid of a volume."""
    z, y, x = (placement.lattice(n) for placement, n in zip(placements, grid.volume.shape, strict=True))
    places = [rescaled(axis.positions, factor) for axis, factor in zip((z, y, x), grid.factors, strict=True)]
    return Layout((z, y, x), (places[0], places[1], places[2]))


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
        return torch.from_numpy(self.intensity.apply(self.grid.volume.read_reflected(box)))

    def interpolations(self, box: Box) -> Interpolations:
        """Return how each axis of a box of source voxels is interpolated from the lattice."""
        return interpolations(self.layout.positions, box)


def interpolated(values: Tensor, axes: Interpolations) -> Iterator[tuple[int, slice, Tensor]]:
    """Interpolate from lattice points to voxels, strip by strip.

    Parameters
    ----------
    values : Tensor float (z, y, x, c)
        At the lattice points that ``axes`` need.
    axes : three Interpolation
        From lattice points to voxels, z y x.

    Yields
    ------
    plane : int
        Index of the strip along z.
    rows : slice
        Its rows, as an index along y.
    strip : Tensor (rows, x', c)
        About ``STRIP_BYTES`` of values.
    """
    z, y, x = axes
    rows = max(1, STRIP_BYTES // (values.element_size() * values.shape[-1] * len(x.left)))
    for i, (left, right, weight) in enumerate(zip(z.left, z.right, z.weight, strict=True)):
        plane = values[left] if weight == 0 else torch.lerp(values[left], values[right], float(weight))
        for j in range(0, len(y.left), rows):
            part = slice(j, min(j + rows, len(y.left)))
            yield i, part, _interpolate(_interpolate(plane, y, axis=0, part=part), x, axis=1)


def argmax_interpolated(scores: Tensor, axes: Interpolations) -> NDArray[np.uint8]:
    """Interpolate scores as :func:`interpolated` does and take the best class.

    Returns
    -------
    uint8 (z', y', x')
        1 + argmax; the lower class where scores are equal.
    """
    z, y, x = axes
    labels = np.empty((len(z.left), len(y.left), len(x.left)), np.uint8)
    for plane, rows, strip in interpolated(scores, axes):
        labels[plane, rows] = (strip.argmax(dim=-1) + 1).to(torch.uint8).numpy()
    return labels


def _interpolate(values: Tensor, axis_rule: Interpolation, axis: int, part: slice = slice(None)) -> Tensor:
    """Interpolate one axis of (y, x, K) values at some of its voxels."""
    left = torch.from_numpy(axis_rule.left[part])
    if not axis_rule.weight.any():
        return values.index_select(axis, left)
    right = torch.from_numpy(axis_rule.right[part])
    shape = [1, 1, 1]
    shape[axis] = len(left)
    weight = torch.from_numpy(axis_rule.weight[part]).to(values.dtype).reshape(shape)
    return torch.lerp(values.index_select(axis, left), values.index_select(axis, right), weight)


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


@dataclass(frozen=True)
class SampleCell:
    """A box of lattice points, and which of its points belong to a sample (indices into the raveled box)."""

    cells: Box
    points: NDArray[np.int64]


def sample_cells(inside: Box, cell: ZYX, n: int, seed: int) -> list[SampleCell]:
    """Choose lattice points for fitting a clusterer; the choice depends on the arguments alone.

    Points that come out of one field of view are cheap to sample together, so the lattice is cut into cells,
    random cells are taken, at least ``CELLS_AT_LEAST`` where there are as many, and from all their points
    ``n`` are drawn.

    Parameters
    ----------
    inside : Box
        The lattice points within the volume.
    cell : (int, int, int)
        Lattice points per cell.
    n : int
        Vectors wanted; all where there are no more.
    seed : int
        Seed of the choice.

    Returns
    -------
    list of SampleCell
        In z, y, x order; together they have min(n, ``inside.size``) points.
    """
    if n >= inside.size:
        return [SampleCell(c, np.arange(c.size)) for c in inside.split(cell)]
    rng = np.random.default_rng([seed, 0xCE11])
    grid = [-(-edge // c) for edge, c in zip(inside.shape, cell, strict=True)]
    total, count = math.prod(grid), max(-(-n // math.prod(cell)), CELLS_AT_LEAST)
    while True:  # cells at the far border may be smaller than the others
        count = min(count, total)
        chosen = np.sort(rng.choice(total, count, replace=False))
        cells = [_nth_cell(inside, cell, grid, int(i)) for i in chosen]
        missing = n - sum(c.size for c in cells)
        if missing <= 0:
            break
        count += -(-missing // math.prod(cell))
    each = rng.multivariate_hypergeometric([c.size for c in cells], n, method="marginals")
    drawn = [np.sort(rng.choice(c.size, m, replace=False)) for c, m in zip(cells, each, strict=True)]
    return [SampleCell(c, points) for c, points in zip(cells, drawn, strict=True) if len(points)]


def _nth_cell(inside: Box, cell: ZYX, grid: list[int], n: int) -> Box:
    """Return the box that ``inside.split(cell)`` yields as its ``n``-th; ``grid`` cells along each axis."""
    z, y, x = (int(i) * c for i, c in zip(np.unravel_index(n, grid), cell, strict=True))
    start = add(inside.start, (z, y, x))
    return Box(start, add(start, cell)).clip(inside)


def lattice_boxes(shape: ZYX, cell: ZYX, dim: int) -> ZYX:
    """Return the lattice points to compute and store at a time: about ``BOX_BYTES`` of whole cells."""
    box = [min(n, c) for n, c in zip(shape, cell, strict=True)]
    for axis in (2, 1, 0):
        room = max(1, BOX_BYTES // (2 * dim * int(np.prod(box))))
        cells = min(room, -(-shape[axis] // cell[axis]))
        box[axis] = min(shape[axis], cell[axis] * cells)
    return box[0], box[1], box[2]
