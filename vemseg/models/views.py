"""Views of a region of tissue: cut out of it, turned, recoloured, disturbed, and with hidden squares.

They differ in contrast, brightness, noise, blur and hidden squares, by one of the eight symmetries of a
square, in the order of the slices, and in where they are cut out of the region.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vemseg.geometry import ZYX
from vemseg.models.objective import device_generator
from vemseg.models.unet import PATCH
from vemseg.recipe import UNetTable

GREY = 0.5
"""The grey value that hidden pixels get."""

COARSE = 17
"""Edge in pixels of the squares over which the mean of an image is taken to find its fine structure; odd."""


class Viewer:
    """Makes views as the settings of a dense encoder ask for."""

    def __init__(self, settings: UNetTable) -> None:
        self.settings = settings

    @property
    def window(self) -> ZYX:
        """Planes, rows and columns of the regions that views are cut out of."""
        s = self.settings
        return (s.slices + 2 * s.drift, s.fov, s.fov)

    def seen(
        self, images: Tensor, labels: Tensor, generator: torch.Generator, others: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return one view of each region as an encoder sees it, and its labels.

        Parameters
        ----------
        images : Tensor float32 (b, slices + 2 drift, F, F)
        labels : Tensor (b, slices + 2 drift, F, F)
        generator : torch.Generator
        others : Tensor float32 (n, slices + 2 drift, F, F), optional
            Regions of volumes without labels, whose fine structure is laid over the views.

        Returns
        -------
        seen : Tensor float32 (b, slices, V, V)
        labels : Tensor (b, slices, V, V)
        """
        corners, turn = self.corners(len(images), generator)[0], Turn.draw(generator)
        clean, labels = (turn.apply(self.cut(x, corners)) for x in (images, labels))
        if self.settings.restain:
            clean = self.restain(clean, labels, generator)
        if self.settings.texture and others is not None and len(others):
            places = self.corners(len(others), generator)[0]
            clean = self.lay_over(clean, self.cut(others, places), generator)
        return self.shown(clean, generator), labels

    def shown(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Return views as an encoder sees them: recoloured, disturbed, and with hidden squares."""
        hidden = self.hide(len(clean), generator).to(clean.device)
        seen = self.disturb(self.recolour(clean, generator), generator)
        return torch.where(hidden[:, None], GREY, seen)

    def corners(self, size: int, generator: torch.Generator) -> Tensor:
        """Draw where two views of each region begin, in slices, rows and columns: int (2, size, 3).

        Two views are cut at different places. Otherwise a vector could encode its distance to the border:
        both views would agree on it, but it means nothing in a volume.
        """
        s = self.settings
        slices = torch.randint(0, 2 * s.drift + 1, (2, size, 1), generator=generator)
        slices[0] = s.drift
        rooms = torch.randint(0, (s.fov - s.view) // PATCH + 1, (2, size, 2), generator=generator) * PATCH
        return torch.cat([slices, rooms], dim=2)

    def cut(self, images: Tensor, corners: Tensor) -> Tensor:
        """Cut a view out of each region: (b, slices + 2 drift, F, F) -> (b, slices, V, V)."""
        n, edge = self.settings.slices, self.settings.view
        views = [
            image[z : z + n, y : y + edge, x : x + edge]
            for image, (z, y, x) in zip(images, corners.tolist(), strict=True)
        ]
        return torch.stack(views)

    def recolour(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Change contrast and brightness of each view."""
        s = self.settings
        u = torch.rand(2, len(x), 1, 1, 1, generator=generator).to(x.device) * 2 - 1
        return (x - GREY) * torch.exp(s.contrast * u[0]) + GREY + s.brightness * u[1]

    def disturb(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Blur each view a little and add noise."""
        s = self.settings
        u = torch.rand(2, len(x), 1, 1, 1, generator=generator).to(x.device)
        if s.blur:
            taps = (torch.arange(-2, 3, device=x.device)[None].square() * -0.5) / (
                (s.blur * u[0, :, 0, 0]).square() + 1e-2
            )
            x = _blur(x, torch.softmax(taps, dim=1))
        if x.is_cuda:  # so many numbers are drawn faster where they are needed
            generator = device_generator(generator, x.device)
        noise = torch.randn(x.shape, generator=generator, device=generator.device)
        return x + noise * (s.noise * u[1])

    def hide(self, views: int, generator: torch.Generator) -> Tensor:
        """Choose the hidden pixels in whole squares: bool (views, V, V)."""
        side = self.settings.view // self.settings.mask_block
        hidden = torch.rand(views, side, side, generator=generator) < self.settings.mask_ratio
        block = self.settings.mask_block
        return hidden.repeat_interleave(block, 1).repeat_interleave(block, 2)

    def restain(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Make each class darker or brighter at random, in half of the views (b, slices, V, V).

        What is learned then depends less on grey values and more on shapes (as in SynthSeg: Billot et al.,
        Medical Image Analysis 86, 2023). The changes are blurred a little, so that they make no new edges.
        """
        classes = len(self.settings.classes)
        half = torch.rand(len(x), 1, generator=generator) < 0.5
        change = self.settings.restain * torch.randn(len(x), classes + 1, generator=generator) * half
        change[:, classes] = 0  # of unknown voxels
        index = labels.long().clamp_max(classes)
        added = change.to(x.device).gather(1, index.flatten(1)).view_as(x)
        return x + nn.functional.avg_pool2d(added, 3, stride=1, padding=1)

    def lay_over(self, x: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
        """Lay the fine structure of other views (n, slices, V, V) over half of these, (b, slices, V, V).

        Fine structure is what is left when a view's mean over ``COARSE`` pixels is taken away.
        """
        chosen = torch.randint(len(others), (len(x),), generator=generator)
        u = torch.rand(2, len(x), 1, 1, 1, generator=generator)
        strength = self.settings.texture * u[0] * (u[1] < 0.5)
        over = others[chosen.to(x.device)]
        coarse = nn.functional.avg_pool2d(over, COARSE, 1, COARSE // 2, count_include_pad=False)
        return x + strength.to(x.device) * (over - coarse)

    def middle(self, x: Tensor) -> Tensor:
        """Return the two middle slices of views: (b, slices, V, V) -> (b, 2, V, V)."""
        middle = self.settings.slices // 2
        return x[:, middle - 1 : middle + 1]


class Turn:
    """A symmetry of a slab: a turn, a mirror in the plane, and the order of its slices."""

    def __init__(self, quarters: int, mirrored: bool, reversed_: bool) -> None:
        self.quarters, self.mirrored, self.reversed = quarters, mirrored, reversed_

    @classmethod
    def draw(cls, generator: torch.Generator) -> Turn:
        """Draw one of the sixteen symmetries."""
        chosen = torch.randint(0, 4, (3,), generator=generator).tolist()
        return cls(chosen[0], chosen[1] % 2 == 1, chosen[2] % 2 == 1)

    def apply(self, slabs: Tensor) -> Tensor:
        """Apply the symmetry to slabs (b, slices, y, x)."""
        slabs = slabs.flip(1) if self.reversed else slabs
        turned = slabs.rot90(self.quarters, (2, 3))
        return turned.flip(3) if self.mirrored else turned

    def undo(self, maps: Tensor) -> Tensor:
        """Undo turn and mirror on maps of vectors (b, d, y, x)."""
        maps = maps.flip(3) if self.mirrored else maps
        return maps.rot90(-self.quarters, (2, 3))


def _blur(x: Tensor, taps: Tensor) -> Tensor:
    """Blur each image of (b, c, y, x) with its own kernel (b, 5), along y and x."""
    for axis in (2, 3):
        pad = (0, 0, 2, 2) if axis == 2 else (2, 2, 0, 0)
        padded = nn.functional.pad(x, pad, mode="reflect")
        n = x.shape[axis]
        x = torch.stack([padded.narrow(axis, i, n) * taps[:, i, None, None, None] for i in range(5)]).sum(0)
    return x
