"""Makes batches of windows, in the same way from all sources.

Voxels are held on the training device. Volumes that do not fit there are held in part, as boxes, and so is
synthetic tissue. From time to time one of these boxes is replaced, again by (seed, step) alone. Cutting,
enlarging and mirroring a whole batch is then a gather and two small matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vemseg.batch import UNKNOWN, Batch
from vemseg.context import Context
from vemseg.geometry import ZYX, VoxelSize
from vemseg.recipe import FovTable
from vemseg.sampling.draws import Draw, pick, plane_axes, random_numbers, symmetry, zoom
from vemseg.sampling.held import Index
from vemseg.sampling.sources import HELD_OUT, Source
from vemseg.sampling.stocks import Needs, Stock
from vemseg.sampling.synthetic import Synthetic
from vemseg.sampling.warping import enlarged, enlarged_labels, turned
from vemseg.sampling.workers import Workers
from vemseg.tiling import Floats, Ints, reflect, slice_offsets

PLAIN_BYTES = 2**27
"""Bytes of the boxes that plain windows are cut from."""

AHEAD = 6
"""So many replacements of boxes are announced in advance."""


class Sampler:
    """Makes batches of windows of any shape, from volumes with or without labels and from synthetic tissue.

    The place of a window, the axis across its planes, its enlargement, mirrors and turns are drawn once and
    applied to image and labels alike. Where a window reaches beyond the voxels that are held, voxels and
    labels are mirrored.

    Parameters
    ----------
    sources : sequence of Source or Synthetic
        Each is drawn from with equal probability, whatever its size (MAESTER, reference code).
    window : (int, int, int)
        Planes, rows and columns of a window, in working voxels.
    settings : FovTable
        Axes, crops, flips, and the memory for voxels.
    seed : int
        Seed of the stream of random numbers.
    device : torch.device
        Where voxels are held and batches are made.
    workers : int
        Number of other processes that make synthetic tissue in advance. Batches do not depend on it.

    Raises
    ------
    InputError
        Where no plane of a volume is at least half a window wide.
    """

    def __init__(
        self,
        sources: Sequence[Source | Synthetic],
        window: ZYX,
        settings: FovTable,
        seed: int,
        device: torch.device,
        workers: int = 0,
    ) -> None:
        self.window, self.settings, self.seed, self.device = window, settings, seed, device
        self._workers = Workers(workers)
        needs = Needs(window, settings, settings.pool_bytes // len(sources), device, self._workers)
        self.stocks = [source.stock(needs) for source in sources]
        self._labelled = np.array([stock.labelled for stock in self.stocks])
        self.labelled = bool(self._labelled.any())
        self._offsets = np.array([_offsets(window[0], stock.voxel_size) for stock in self.stocks])
        self._boxes = [(i, k) for i, stock in enumerate(self.stocks) for k in range(len(stock.boxes))]
        self._filled_for = [-1] * len(self._boxes)
        self._expected_for = [-1] * len(self._boxes)
        self._turns = _turns([self.stocks[i] for i, _ in self._boxes])

    def batch(self, step: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the samples of one step.

        Parameters
        ----------
        step : int
            Number of the step, which counts the stream on.
        size : int
            Number of samples in the step, over all processes; a multiple of ``world``.
        rank, world : int
            This process takes samples ``rank::world``.

        Returns
        -------
        Batch
            The ``size / world`` samples of this process.
        """
        self._refresh(step)
        draw = self.draw(step, size).take(np.arange(size)[rank::world])
        images, labels = self._windows(draw)
        return Batch(
            images[:, None],
            labels,
            torch.from_numpy(self._positions(draw)).float().to(self.device),
            torch.from_numpy(draw.source),
            lambda offsets: self._around(draw, offsets, step),
            labelled=torch.from_numpy(self._labelled[draw.source]),
        )

    def prepare(self, context: Context) -> None:
        """Do nothing: voxels are read when a batch needs them."""

    def draw(self, step: int, size: int) -> Draw:
        """Choose the samples of a step; the choice depends on nothing that changes but (seed, step)."""
        rng = random_numbers(self.seed, step, stream=0)
        uniform = rng.random((size, 12))
        quarter, half = rng.random((2, size)) < 0.5
        flip, transpose = symmetry(uniform[:, 10:12], quarter, half, self.settings)
        _, h, w = self.window
        extent = np.where(transpose[:, None], (w, h), (h, w))
        source = pick(uniform[:, 0], len(self.stocks))
        stocks = [self.stocks[i] for i in source]
        box = pick(uniform[:, 1], np.array([len(stock.boxes) for stock in stocks]))
        axes = [stock.axes[k] for stock, k in zip(stocks, box, strict=True)]
        axis = _one_of(axes, uniform[:, 2])
        middles = [stock.middles(k, a) for stock, k, a in zip(stocks, box, axis, strict=True)]
        plane = _one_of(middles, uniform[:, 3])
        shapes = np.array([stock.boxes[k].shape for stock, k in zip(stocks, box, strict=True)])
        room = np.take_along_axis(shapes, plane_axes(axis), axis=1) - extent
        corner = pick(uniform[:, 4:6], np.maximum(room, 0) + 1)
        start, part = zoom(uniform[:, 6:10], extent, self.settings)
        drawn = Draw(np.arange(size), source, box, axis, plane, corner, start, part, flip, transpose)
        return self._sought(drawn, uniform[:, 3:6], extent, np.maximum(room, 0))

    def _sought(self, draw: Draw, uniform: Floats, extent: Ints, room: Ints) -> Draw:
        """Move each window whose box has anchors, so that its middle plane shows one of them.

        It is seen in the part that is enlarged; at the border of a box this part is moved, too.
        """
        anchors = [self.stocks[i].anchors(k) for i, k in zip(draw.source, draw.box, strict=True)]
        plane, corner, within = draw.plane.copy(), draw.corner.copy(), plane_axes(draw.axis)
        start, size = draw.zoom_start.copy(), draw.zoom_size
        for n, places in enumerate(anchors):
            if places is not None:
                place = places[pick(uniform[n, 0], len(places))]
                plane[n] = place[draw.axis[n]]
                wanted = np.floor(start[n] + uniform[n, 1:] * size[n]).astype(np.int64)
                corner[n] = np.clip(place[within[n]] - wanted, 0, room[n])
                seat = place[within[n]] - corner[n]
                start[n] = np.clip(np.clip(start[n], seat + 1 - size[n], seat), 0, extent[n] - size[n])
        return replace(draw, plane=plane, corner=corner, zoom_start=start)

    def _windows(self, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Return the windows of these samples, and their labels if any source has labels."""
        _, h, w = self.window
        if h == w:
            return self._varied(draw, (h, w))
        parts = (draw.transpose, (w, h)), (~draw.transpose, (h, w))
        groups = [(np.flatnonzero(which), extent) for which, extent in parts if which.any()]
        found = [self._varied(draw.take(rows), extent) for rows, extent in groups]
        return _joined([rows for rows, _ in groups], found)

    def _varied(self, draw: Draw, extent: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Cut windows with ``extent`` rows and columns; enlarge, mirror and turn them."""
        images, labels = self._cut(draw, extent)
        if self.settings.crop != "off":
            images = enlarged(images, draw)
            labels = labels if labels is None else enlarged_labels(labels, draw)
        return turned(images, draw), labels if labels is None else turned(labels, draw)

    def _cut(self, draw: Draw, extent: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Cut windows with ``extent`` rows and columns out of boxes: float32 and uint8 (b, d, h, w)."""
        groups, found = [], []
        for i in np.unique(draw.source):
            rows = np.flatnonzero(draw.source == i)
            mine = draw.take(rows)
            images, labels = self.stocks[i].cut(mine, self._index(mine, extent))
            if labels is None and self.labelled:
                labels = torch.full(images.shape, UNKNOWN, dtype=torch.uint8, device=self.device)
            groups.append(rows)
            found.append((images, labels))
        images, labels = _joined(groups, found)
        return images.float(), labels

    def _index(self, draw: Draw, extent: tuple[int, int]) -> Index:
        """Return which voxels of their boxes make up windows of one source, mirrored at the borders."""
        shapes = self.stocks[draw.source[0]].shapes[draw.box]
        across = np.take_along_axis(shapes, draw.axis[:, None], axis=1)
        within = np.take_along_axis(shapes, plane_axes(draw.axis), axis=1)
        planes = reflect(draw.plane[:, None] + self._offsets[draw.source, draw.axis], across)
        rows, columns = (
            reflect(draw.corner[:, k, None] + np.arange(extent[k]), within[:, k, None]) for k in range(2)
        )
        return planes, rows, columns

    def _positions(self, draw: Draw) -> Floats:
        """Return the middle of the part of the volume that each window shows: (b, 3) nm."""
        middle = np.empty((len(draw.number), 3))
        across = draw.plane + self._offsets[draw.source, draw.axis].mean(axis=1)
        np.put_along_axis(middle, draw.axis[:, None], across[:, None], axis=1)
        within = draw.corner + draw.zoom_start + (draw.zoom_size - 1) / 2
        np.put_along_axis(middle, plane_axes(draw.axis), within, axis=1)
        found = np.empty_like(middle)
        for i in np.unique(draw.source):
            rows = draw.source == i
            found[rows] = self.stocks[i].positions(draw.box[rows], middle[rows])
        return found

    def _around(self, draw: Draw, offsets: Tensor, step: int) -> Tensor:
        """Cut windows shifted by (b, p, 3) from the places of the first b samples: (b, p, 1, d, h, w)."""
        self._refresh(step)
        _, h, w = self.window
        b, p, _ = offsets.shape
        shift = offsets.detach().cpu().numpy().astype(np.int64).reshape(-1, 3)
        near = draw.take(np.repeat(np.arange(b), p))
        centring = np.where(near.transpose[:, None], (w - h, h - w), (0, 0)) // 2
        near = replace(near, plane=near.plane + shift[:, 0], corner=near.corner + centring + shift[:, 1:])
        images, _ = self._cut(near, (h, w))
        return images.view(b, p, 1, *self.window)

    def close(self) -> None:
        """Stop the other processes."""
        self._workers.close()

    def _refresh(self, step: int) -> None:
        """Fill the boxes with the voxels that belong in them at this step, and announce the next ones."""
        due = [n for n in range(len(self._boxes)) if self._filled_for[n] != self._generation(n, step)]
        for number in due:
            self._expect(number, self._generation(number, step))
        for number in due:
            (i, box), generation = self._boxes[number], self._generation(number, step)
            self.stocks[i].fill(box, random_numbers(self.seed, generation, stream=1 + number))
            self._filled_for[number] = generation
        for number, (pace, _, _) in enumerate(self._turns):
            if (generation := self._generation(number, step + AHEAD * pace)) > self._filled_for[number]:
                self._expect(number, generation)

    def _expect(self, number: int, generation: int) -> None:
        """Announce once what a box is going to be filled with."""
        if self._expected_for[number] != generation:
            i, box = self._boxes[number]
            self.stocks[i].expect(box, random_numbers(self.seed, generation, stream=1 + number))
            self._expected_for[number] = generation

    def _generation(self, number: int, step: int) -> int:
        """Return how often a box has been replaced before a step."""
        pace, turn, count = self._turns[number]
        return (step // pace + count - 1 - turn) // count if count else 0


def examining_sampler(
    sources: Sequence[Source], window: ZYX, settings: FovTable, seed: int, device: torch.device
) -> Sampler | None:
    """Return what draws unchanged windows of held-out sources, in a part of the memory; None without any."""
    if not sources:
        return None
    plain = {"crop": "off", "flips": "off", "rotate90": False, "pool_bytes": settings.pool_bytes // HELD_OUT}
    return Sampler(sources, window, settings.model_copy(update=plain), seed, device)


def plain_windows(source: Source, window: ZYX, count: int, axes: Literal["auto", "xy"]) -> Tensor:
    """Return windows of a volume from random places, as they are: the same ones every time.

    Parameters
    ----------
    source : Source
    window : (int, int, int)
        Planes, rows and columns.
    count : int
        Number of windows.
    axes : {"auto", "xy"}
        As ``FovTable.axes``.

    Returns
    -------
    Tensor float32 (count, 1, d, h, w), on the CPU
    """
    table = FovTable(axes=axes, crop="off", flips="off", rotate90=False, pool_bytes=PLAIN_BYTES)
    return Sampler([source], window, table, seed=0, device=torch.device("cpu")).batch(0, count).images


def _turns(stocks: Sequence[Stock]) -> list[tuple[int, int, int]]:
    """Return for the stock of each box: its pace, its turn, and how many boxes take turns; 0 if it stays."""
    paces = [stock.pace if stock.moving else 0 for stock in stocks]
    return [
        (pace, paces[:number].count(pace), paces.count(pace)) if pace else (1, 0, 0)
        for number, pace in enumerate(paces)
    ]


def _offsets(planes: int, voxel_size: VoxelSize) -> list[list[int]]:
    """Return the planes of a window relative to its middle one, for each axis across them."""
    z, y, x = voxel_size
    return [slice_offsets(planes, spacing) for spacing in ((z, y, x), (y, z, x), (x, z, y))]


def _one_of(choices: Sequence[Sequence[int]], uniform: Floats) -> Ints:
    """Take one of the choices of each sample, given uniform numbers (b,) in [0, 1)."""
    places = pick(uniform, np.array([len(each) for each in choices]))
    return np.array([each[place] for each, place in zip(choices, places, strict=True)])


def _joined(
    groups: Sequence[Ints], parts: Sequence[tuple[Tensor, Tensor | None]]
) -> tuple[Tensor, Tensor | None]:
    """Put the windows and labels of groups of samples together, in the order of the samples."""
    if len(parts) == 1:
        return parts[0]
    order = torch.from_numpy(np.argsort(np.concatenate(groups)))
    images = torch.cat([images for images, _ in parts])
    labels = [labels for _, labels in parts if labels is not None]
    order = order.to(images.device)
    return images[order], torch.cat(labels)[order] if labels else None
