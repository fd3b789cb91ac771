"""Where training looks: fields of view drawn from volumes, and their augmentation.

A field of view is a square of one plane, or of several neighbouring ones.

The draw is a counter-based stream: everything about step ``t`` follows from (seed, t) alone. So no two
steps or epochs repeat, a resumed run goes on with the very samples it would have seen, and the number of
processes changes nothing: each takes its share of the same batch.

Voxels live on the training device. A volume that fits its share of the pool is held whole; of a larger one
the pool holds random boxes (one, if it must, beyond its share), one of which is replaced every ``REFRESH``
steps, again by (seed, step) alone.
Cutting, zooming and flipping a whole batch is then a gather and two small matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.errors import InputError
from vemseg.geometry import ZYX, Box, is_anisotropic, sharp_axis
from vemseg.recipe import FovTable
from vemseg.tiling import slice_offsets
from vemseg.volume import Intensity, Volume

REFRESH = 50
POOL_BOX: ZYX = (128, 256, 256)
BYTES_PER_VOXEL = 2


@dataclass(frozen=True)
class Source:
    """A volume to train on, at the model's working voxel size, and its intensity range."""

    volume: Volume
    intensity: Intensity


@dataclass
class _Slot:
    """A box of one volume that is resident in the pool, and the pool offset of its first voxel."""

    source: int
    box: Box
    offset: int
    fixed: bool


@dataclass(frozen=True)
class Draw:
    """The choices of one batch, one row per sample (all (b,) arrays unless said otherwise).

    Attributes
    ----------
    slot, axis, plane : int
        The resident box, the axis across the plane, and the plane's index in the box.
    corner : int (b, 2)
        First row and column of the field of view within the plane.
    zoom_start, zoom_size : float (b, 2)
        The part of the field of view that is enlarged to its full size, in pixels.
    flip : bool (b, 2)
        Mirror rows, columns.
    transpose : bool
        Exchange rows and columns.
    """

    slot: NDArray[np.int64]
    axis: NDArray[np.int64]
    plane: NDArray[np.int64]
    corner: NDArray[np.int64]
    zoom_start: NDArray[np.float64]
    zoom_size: NDArray[np.float64]
    flip: NDArray[np.bool_]
    transpose: NDArray[np.bool_]


class FovStream:
    """Batches of square fields of view from all volumes alike.

    Parameters
    ----------
    sources : sequence of Source
        Each is drawn from with equal probability, whatever its size (MAESTER, reference code).
    fov : (int, int, int)
        Slices of a field of view, one or an even number, and its edges, equal, in working voxels.
    settings : FovTable
        Axes, crops, flips, and the memory of the pool.
    seed : int
        Root of the stream.
    device : torch.device
        Where the pool lives and batches are made.

    Raises
    ------
    InputError
        Where no plane of a volume is at least half a field of view wide.
    """

    def __init__(
        self, sources: Sequence[Source], fov: ZYX, settings: FovTable, seed: int, device: torch.device
    ) -> None:
        self.sources = list(sources)
        self.slices, self.fov, _ = fov
        self.settings = settings
        self.seed = seed
        self.device = device
        self._slots = self._plan_slots()
        self._by_source = [
            np.flatnonzero([slot.source == i for slot in self._slots]) for i in range(len(self.sources))
        ]
        self._axes = [self._usable_axes(slot) for slot in self._slots]
        total = sum(slot.box.size for slot in self._slots)
        self._pool = torch.empty(total, dtype=torch.float16, device=device)
        self._filled_for = [-1] * len(self._slots)

    def batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Tensor:
        """Return the fields of view of one step.

        Parameters
        ----------
        step : int
            Counter of the stream.
        size : int
            Samples of the whole step, over all processes; a multiple of ``world``.
        rank, world : int
            This process takes samples ``rank::world``.

        Returns
        -------
        Tensor float32 (size / world, 1, slices, F, F)
            Intensities in [0, 1].
        """
        self._refresh(step)
        draw = self.draw(step, size)
        mine = np.arange(size)[rank::world]
        planes = self._gather(draw, mine)
        return self._augment(planes, draw, mine)[:, None]

    def draw(self, step: int, size: int) -> Draw:
        """Choose the samples of a step; depends on (seed, step) and on nothing else that moves."""
        rng = _generator(self.seed, step, stream=0)
        uniform = rng.random((size, 12))
        source = _pick(uniform[:, 0], len(self.sources))
        slot = np.array(
            [
                self._by_source[s][_pick(u, len(self._by_source[s]))]
                for s, u in zip(source, uniform[:, 1], strict=True)
            ]
        )
        axis = np.array(
            [self._axes[s][_pick(u, len(self._axes[s]))] for s, u in zip(slot, uniform[:, 2], strict=True)]
        )
        shapes = np.array([self._slots[s].box.shape for s in slot])
        plane = _pick(uniform[:, 3], shapes[np.arange(size), axis])
        in_plane = shapes[np.arange(size)[:, None], _plane_axes(axis)]
        corner = _pick(uniform[:, 4:6], np.maximum(in_plane - self.fov, 0) + 1)
        start, extent = self._zoom(uniform[:, 6:10])
        flip = uniform[:, 10:12] < 0.5
        quarter, half = rng.random((2, size)) < 0.5
        if self.settings.flips == "joint":
            flip[:, 1] = flip[:, 0]
        elif self.settings.flips == "off":
            flip[:] = False
        if self.settings.rotate90 and self.settings.flips != "independent":
            # A quarter turn is a mirror and a transposition. Independent mirrors bring both turns already.
            flip ^= half[:, None]
            flip[:, 0] ^= quarter
        return Draw(slot, axis, plane, corner, start, extent, flip, quarter & self.settings.rotate90)

    def _zoom(self, u: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Choose the part (start, size) of the field of view to enlarge, rows and columns."""
        fov, least = float(self.fov), max(1.0, self.settings.crop_min * self.fov)
        match self.settings.crop:
            case "isotropic":
                size = np.repeat(least + (fov - least) * u[:, 2:3], 2, axis=1)
                return u[:, :2] * (fov - size), size
            case "monai12":
                whole = int(least)
                size = whole + np.floor(u[:, 2:4] * (self.fov - whole + 1))
                return np.floor(u[:, :2] * (fov - size + 1)), size
            case "fixed":
                size = np.full((len(u), 2), float(int(least)))
                return np.floor(u[:, :2] * (fov - size + 1)), size
            case _:
                return np.zeros((len(u), 2)), np.full((len(u), 2), fov)

    def _gather(self, draw: Draw, mine: NDArray[np.int64]) -> Tensor:
        """Cut the planes out of the pool: float32 (b, slices, F, F)."""
        shapes = np.array([self._slots[s].box.shape for s in draw.slot[mine]])
        strides = np.stack([shapes[:, 1] * shapes[:, 2], shapes[:, 2], np.ones(len(mine), np.int64)], axis=1)
        offset = np.array([self._slots[s].offset for s in draw.slot[mine]])
        pick = np.arange(len(mine))
        across = draw.axis[mine]
        planes = draw.plane[mine][:, None] + self._offsets(draw, mine)
        planes = _reflect(planes, shapes[pick, across][:, None]) * strides[pick, across][:, None]
        axes = _plane_axes(across)
        steps = np.arange(self.fov)
        index = torch.from_numpy(offset[:, None] + planes)[:, :, None, None]
        for k, view in enumerate([(-1, 1, self.fov, 1), (-1, 1, 1, self.fov)]):
            extent = shapes[pick, axes[:, k]]
            place = _reflect(draw.corner[mine, k][:, None] + steps, extent[:, None])
            index = index + torch.from_numpy(place * strides[pick, axes[:, k]][:, None]).reshape(view)
        return self._pool[index.to(self.device)].float()

    def _offsets(self, draw: Draw, mine: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slices of each sample, relative to its plane: (b, slices)."""
        if self.slices == 1:
            return np.zeros((len(mine), 1), np.int64)
        found = []
        for slot, axis in zip(draw.slot[mine], draw.axis[mine], strict=True):
            size = self.sources[self._slots[slot].source].volume.voxel_size or (1.0, 1.0, 1.0)
            y, x = (size[k] for k in range(3) if k != axis)
            found.append(slice_offsets(self.slices, (size[axis], y, x)))
        return np.array(found)

    def _augment(self, planes: Tensor, draw: Draw, mine: NDArray[np.int64]) -> Tensor:
        """Zoom into, mirror and transpose the planes (b, slices, F, F)."""
        if self.settings.crop != "off":
            rows, columns = (
                _zoom_matrix(draw.zoom_start[mine, k], draw.zoom_size[mine, k], self.fov).to(self.device)
                for k in range(2)
            )
            planes = rows[:, None] @ planes @ columns[:, None].transpose(2, 3)
        for axis in (2, 3):
            flip = torch.from_numpy(draw.flip[mine, axis - 2]).to(self.device)
            planes = torch.where(flip[:, None, None, None], planes.flip(axis), planes)
        turn = torch.from_numpy(draw.transpose[mine]).to(self.device)
        return torch.where(turn[:, None, None, None], planes.transpose(2, 3), planes)

    def _plan_slots(self) -> list[_Slot]:
        """Divide the pool among the volumes; what a small volume leaves unused goes to nobody."""
        share = self.settings.pool_bytes // (BYTES_PER_VOXEL * len(self.sources))
        slots: list[_Slot] = []
        offset = 0
        for i, source in enumerate(self.sources):
            whole = source.volume.box
            boxes = [whole]
            if whole.size > share:
                d, h, w = (min(max(a, self.fov), n) for a, n in zip(POOL_BOX, whole.shape, strict=True))
                boxes = [Box((0, 0, 0), (d, h, w))] * max(1, share // (d * h * w))
            for box in boxes:
                slots.append(_Slot(i, box, offset, fixed=whole.size <= share))
                offset += box.size
        return slots

    def _usable_axes(self, slot: _Slot) -> list[int]:
        """Return the axes across sharp planes that are a field of view wide, or else half of one.

        Narrower planes are mirrored at their borders to fill the field of view, which nature does not do;
        they serve where there is nothing better.
        """
        size = self.sources[slot.source].volume.voxel_size
        axes = [0, 1, 2] if self.settings.axes != "xy" else [sharp_axis(size)]
        if self.settings.axes == "auto" and is_anisotropic(size):
            axes = [sharp_axis(size)]
        extents = {axis: [n for k, n in enumerate(slot.box.shape) if k != axis] for axis in axes}
        whole = [axis for axis in axes if min(extents[axis]) >= self.fov]
        usable = whole or [axis for axis in axes if min(extents[axis]) >= self.fov / 2]
        if not usable:
            name, shape = self.sources[slot.source].volume.name, slot.box.shape
            raise InputError(
                f"{name}: too small to train on: {shape} voxels at the model's voxel size, "
                f"and a field of view is {self.fov} voxels wide"
            )
        return usable

    def _refresh(self, step: int) -> None:
        """Fill the slots as they have to be at this step."""
        moving = [i for i, slot in enumerate(self._slots) if not slot.fixed]
        for i, slot in enumerate(self._slots):
            if slot.fixed:
                generation = 0
            else:
                turn = moving.index(i)
                generation = (step // REFRESH + len(moving) - 1 - turn) // len(moving)
            if self._filled_for[i] != generation:
                self._fill(i, generation)

    def _fill(self, i: int, generation: int) -> None:
        slot, source = self._slots[i], self.sources[self._slots[i].source]
        if not slot.fixed:
            rng = _generator(self.seed, generation, stream=1 + i)
            room = [n - m for n, m in zip(source.volume.shape, slot.box.shape, strict=True)]
            z, y, x = (int(_pick(u, n + 1)) for u, n in zip(rng.random(3), room, strict=True))
            slot.box = Box((0, 0, 0), slot.box.shape).shift((z, y, x))
        resident = self._pool[slot.offset : slot.offset + slot.box.size].view(slot.box.shape)
        for part in slot.box.split(POOL_BOX):
            values = source.volume.read(part)
            if not np.isfinite(values).all():
                raise InputError(f"{source.volume.name}: not-a-number or infinite voxels in box {part}")
            scaled = torch.from_numpy(source.intensity.apply(values).astype(np.float16))
            resident[part.relative_to(slot.box).slices] = scaled.to(self.device)
        self._filled_for[i] = generation


def _generator(seed: int, counter: int, stream: int) -> np.random.Generator:
    """Return the random numbers of one step of one stream."""
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, 0, counter]))


def _pick(uniform: NDArray[np.float64] | float, n: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Turn uniform numbers in [0, 1) into integers in [0, n)."""
    return np.minimum(np.floor(np.multiply(uniform, n)), np.subtract(n, 1)).astype(np.int64)


def _plane_axes(axis: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the two axes of the plane across ``axis``: (b,) -> (b, 2)."""
    return np.array([[1, 2], [0, 2], [0, 1]])[axis]


def _reflect(index: NDArray[np.int64], n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fold indices into [0, n) by mirroring at the borders, without repeating the edge."""
    period = np.maximum(2 * (n - 1), 1)
    folded = np.mod(index, period)
    return np.where(folded < n, folded, period - folded)


def _zoom_matrix(start: NDArray[np.float64], size: NDArray[np.float64], n: int) -> Tensor:
    """Return matrices (b, n, n) that enlarge ``[start, start + size)`` to n pixels, bilinear.

    Sample positions as ``interpolate(align_corners=False)`` on the crop: clamped to its border pixels.
    """
    lowest, highest = start[:, None], (start + size - 1)[:, None]
    position = start[:, None] + (np.arange(n) + 0.5) * (size[:, None] / n) - 0.5
    position = np.clip(position, lowest, highest)
    left = np.clip(np.floor(position), 0, n - 2).astype(np.int64)
    weight = torch.from_numpy((position - left).astype(np.float32))
    matrix = torch.zeros(len(start), n, n)
    index = torch.from_numpy(left)
    matrix.scatter_(2, index[..., None], (1 - weight)[..., None])
    return matrix.scatter_(2, index[..., None] + 1, weight[..., None])
