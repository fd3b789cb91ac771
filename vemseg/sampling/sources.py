"""Volumes to train on, and the part of them that is held on the training device.

A volume that fits its share of the memory is held whole. Of a larger one, random boxes are held, which are
replaced as training goes on; there is at least one, even if it takes more than the share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vemseg.batch import UNKNOWN
from vemseg.errors import InputError
from vemseg.geometry import ZYX, Box, is_anisotropic, sharp_axis
from vemseg.sampling.draws import Draw, pick
from vemseg.sampling.held import BYTES_PER_LABEL, BYTES_PER_VOXEL, HeldBoxes, Index
from vemseg.sampling.stocks import Needs, Stock
from vemseg.tiling import Floats, Ints
from vemseg.volume import Cropped, Intensity, Volume

POOL_BOX: ZYX = (128, 256, 256)
"""Shape of the boxes of a volume that is too large to be held whole, and of what is read at once."""
HELD_OUT = 8
"""If sections of a volume are held out, they are one in this many."""


@dataclass(frozen=True)
class Source:
    """A volume to train on, at the model's working voxel size.

    Attributes
    ----------
    volume : Volume
        Grey values.
    intensity : Intensity
        The map from grey values to [0, 1].
    labels : Volume, optional
        The class of each voxel, whole numbers from 0 to 254, or 255 where it is not known.
    places : int64 (m, 3), optional
        Voxels, z y x, that windows are drawn around; None for windows anywhere. At least one.

    Raises
    ------
    InputError
        Where the labels are not whole numbers, or have another shape than the volume.
    """

    volume: Volume
    intensity: Intensity
    labels: Volume | None = None
    places: Ints | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.labels is None:
            return
        if self.labels.shape != self.volume.shape:
            raise InputError(
                f"{self.labels.name}: labels of shape {self.labels.shape} do not fit {self.volume.name} "
                f"of shape {self.volume.shape} (z, y, x): give labels of the same voxels"
            )
        if self.labels.dtype.kind not in "biu":
            raise InputError(
                f"{self.labels.name}: holds {self.labels.dtype}, and labels are whole numbers 0 .. {UNKNOWN}"
            )

    def stock(self, needs: Needs) -> Stock:
        """Return the stock that samples are cut from."""
        return VolumeStock(self, needs)

    def part(self, box: Box) -> Source:
        """Return the part of the volume and its labels inside a box."""
        labels = None if self.labels is None else Cropped(self.labels, box)
        places = None if self.places is None else inside(self.places, box)
        return Source(Cropped(self.volume, box), self.intensity, labels, places)


def inside(places: Ints, box: Box) -> Ints:
    """Return those of some places (m, 3) that lie in a box, counted from its first voxel."""
    within = ((places >= box.start) & (places < box.stop)).all(axis=1)
    found: Ints = places[within] - np.array(box.start)
    return found


def hold_out(sources: Sequence[Source], slices: int, edge: int) -> tuple[list[Source], list[Source]]:
    """Divide volumes into a part that a model learns from and their last sections, which are held out.

    Nothing of a volume is held out if that would be fewer than ``slices`` sections, if its sections are
    narrower than half a window of ``edge`` voxels, or if one of the parts would have no place for a window.

    Returns
    -------
    learnt, held : list of Source
    """
    learnt: list[Source] = []
    held: list[Source] = []
    for source in sources:
        depth, *plane = source.volume.shape
        kept = depth // HELD_OUT
        if kept < slices or min(plane) < edge / 2:
            learnt.append(source)
            continue
        first, last = (
            source.part(Box((start, 0, 0), (stop, plane[0], plane[1])))
            for start, stop in ((0, depth - kept), (depth - kept, depth))
        )
        if any(part.places is not None and not len(part.places) for part in (first, last)):
            learnt.append(source)
            continue
        learnt.append(first)
        held.append(last)
    return learnt, held


class VolumeStock(Stock):
    """The boxes of a volume that are held in memory, for samples to be cut from.

    Raises
    ------
    InputError
        Where no plane of the volume is at least half a window wide.
    """

    def __init__(self, source: Source, needs: Needs) -> None:
        self.source, self.needs = source, needs
        self.labelled = source.labels is not None
        self.voxel_size = source.volume.voxel_size or (1.0, 1.0, 1.0)
        whole = source.volume.box
        room = needs.share // (BYTES_PER_VOXEL + (BYTES_PER_LABEL if self.labelled else 0))
        self.moving = whole.size > room
        self.boxes = [whole]
        if self.moving:
            side = max(needs.reach)
            d, h, w = (min(max(a, side), n) for a, n in zip(POOL_BOX, whole.shape, strict=True))
            self.boxes = [Box((0, 0, 0), (d, h, w))] * max(1, room // (d * h * w))
        self.axes = [self._usable_axes(self.boxes[0].shape)] * len(self.boxes)
        self._anchors = [source.places] * len(self.boxes)
        self._held = HeldBoxes(len(self.boxes), self.boxes[0].shape, self.labelled, needs.device)

    def _usable_axes(self, shape: ZYX) -> list[int]:
        """Return the axes across which the planes of a box are sharp and large enough for a window.

        If there are none, planes at least half as wide will do. They are mirrored at their borders to fill
        the window, which nature does not do, so they are used only where there is nothing better.
        """
        size, wanted = self.source.volume.voxel_size, self.needs.settings.axes
        axes = [0, 1, 2] if wanted != "xy" else [sharp_axis(size)]
        if wanted == "auto" and is_anisotropic(size):
            axes = [sharp_axis(size)]
        extents = {axis: np.delete(shape, axis) for axis in axes}
        whole = [axis for axis in axes if (extents[axis] >= self.needs.reach).all()]
        usable = whole or [axis for axis in axes if (2 * extents[axis] >= self.needs.reach).all()]
        if not usable:
            name, (_, h, w) = self.source.volume.name, self.needs.window
            raise InputError(
                f"{name}: too small to train on: {shape} voxels at the model's voxel size, "
                f"and a field of view is {h if h == w else f'{h} x {w}'} voxels wide"
            )
        return usable

    def anchors(self, box: int) -> Ints | None:
        """Return the places of the source that lie in a box; None where windows may lie anywhere."""
        return self._anchors[box]

    def _move(self, box: int, rng: np.random.Generator) -> None:
        """Put a box in a random place; around one of the places that windows are drawn around, if any."""
        volume, shape, places = self.source.volume, self.boxes[box].shape, self.source.places
        room = [n - m for n, m in zip(volume.shape, shape, strict=True)]
        if places is None:
            start = [int(pick(u, n + 1)) for u, n in zip(rng.random(3), room, strict=True)]
        else:
            middle = places[int(pick(rng.random(), len(places)))]
            start = [
                int(np.clip(at - pick(u, n), 0, most))
                for at, u, n, most in zip(middle, rng.random(3), shape, room, strict=True)
            ]
        self.boxes[box] = Box((0, 0, 0), shape).shift((start[0], start[1], start[2]))
        self._anchors[box] = None if places is None else inside(places, self.boxes[box])

    def fill(self, box: int, rng: np.random.Generator) -> None:
        """Read a box, from a random place if the volume is not held whole.

        Raises
        ------
        InputError
            Where voxels are not finite, or labels lie beyond 0 .. 255.
        """
        volume = self.source.volume
        if self.moving:
            self._move(box, rng)
        for part in self.boxes[box].split(POOL_BOX):
            place = part.relative_to(self.boxes[box]).slices
            values = volume.read(part)
            if not np.isfinite(values).all():
                raise InputError(f"{volume.name}: not-a-number or infinite voxels in box {part}")
            scaled = torch.from_numpy(self.source.intensity.apply(values).astype(np.float16))
            self._held.image(box)[place].copy_(scaled)
            if self.labelled:
                self._held.labels(box)[place].copy_(self._read_labels(part))

    def _read_labels(self, part: Box) -> Tensor:
        assert self.source.labels is not None
        values = self.source.labels.read(part)
        if values.min() < 0 or values.max() > UNKNOWN:
            raise InputError(
                f"{self.source.labels.name}: labels from {values.min()} to {values.max()} in box {part}, and "
                f"classes are numbered 0 .. {UNKNOWN - 1}, or {UNKNOWN} where not known"
            )
        return torch.from_numpy(values.astype(np.uint8))

    def cut(self, draw: Draw, index: Index) -> tuple[Tensor, Tensor | None]:
        """Cut windows, and their labels if the volume has labels; a mirrored voxel keeps its label."""
        return self._held.cut(draw, index)

    def positions(self, boxes: Ints, middles: Floats) -> Floats:
        """Return places in nm from the middle of the volume's first voxel."""
        starts = np.array([self.boxes[box].start for box in boxes])
        return (starts + middles) * self.voxel_size
