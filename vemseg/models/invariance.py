"""The objective of the dense encoder: two views of a region agree, and hidden squares are reconstructed.

Agreement is measured by VICReg (Bardes, Ponce, LeCun, ICLR 2022, section 4.1) at places that both views show:
by an invariance, a variance and a covariance term. Here they are computed from the vectors themselves, since
these are clustered later. Hidden squares are reconstructed as in masked autoencoders (He et al., CVPR 2022).

Views differ in contrast, brightness, noise, blur and hidden squares, by one of the eight symmetries of a
square, in the order of the slices, and in where they are cut out of the region. The second view may be
shifted by a few slices, so that vectors change slowly in space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, mse_loss, relu

from vemseg.batch import Batch
from vemseg.models.objective import Objective, Preview
from vemseg.models.unet import PATCH, UNetEncoder
from vemseg.recipe import UNetTable

GREY = 0.5
"""The grey value that hidden pixels get."""


class Invariance(Objective):
    """VICReg between two views, and mean squared error over hidden pixels."""

    encoder: UNetEncoder

    def __init__(self, settings: UNetTable) -> None:
        super().__init__()
        self.settings = settings
        self.window = (settings.slices + 2 * settings.drift, settings.fov, settings.fov)
        self.encoder = UNetEncoder(settings)
        self.decoder = nn.Conv2d(settings.widths[0], 2 * PATCH**2, 1)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss`` and its terms for a batch of regions.

        Parameters
        ----------
        batch : Batch
            Regions, (b, 1, slices + 2 drift, F, F).
        generator : torch.Generator
            On the CPU; all random choices are drawn from it.
        """
        settings, images, size = self.settings, batch.images, len(batch)
        corners = self._corners(size, generator)
        turn = Turn.draw(generator)
        clean = torch.cat([self._cut(images, corners[0]), turn.apply(self._cut(images, corners[1]))])
        clean = self._recolour(clean, generator)
        hidden = self._hide(2 * size, generator).to(clean.device)
        seen = torch.where(hidden[:, None], GREY, self._disturb(clean, generator))
        dtype = self.decoder.weight.dtype
        trunk = self.encoder.trunk(seen.to(dtype).contiguous(memory_format=torch.channels_last))
        vectors = self.encoder.head(trunk)
        a, b = self._places(vectors[:size], turn.undo(vectors[size:]), corners, generator)
        terms = vicreg(a.float(), b.float())
        pixels = self.decoder(trunk).float()
        error = (pixels - self._middle(clean)).square().mean(dim=1)
        weight = avg_pool2d(hidden.float()[:, None], PATCH)[:, 0]
        terms["reconstruction"] = (error * weight).sum() / weight.sum().clamp_min(1)
        loss = sum(getattr(settings, name) * term for name, term in terms.items())
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}

    def _corners(self, size: int, generator: torch.Generator) -> Tensor:
        """Draw where the views of each region begin, in slices, rows and columns: int (2, size, 3).

        Two views are cut at different places. Otherwise a vector could encode its distance to the border:
        both views would agree on it, but it means nothing in a volume.
        """
        s = self.settings
        slices = torch.randint(0, 2 * s.drift + 1, (2, size, 1), generator=generator)
        slices[0] = s.drift
        rooms = torch.randint(0, (s.fov - s.view) // PATCH + 1, (2, size, 2), generator=generator) * PATCH
        return torch.cat([slices, rooms], dim=2)

    def _cut(self, images: Tensor, corners: Tensor) -> Tensor:
        """Cut a view out of each region: (b, 1, slices + 2 drift, F, F) -> (b, slices, V, V)."""
        n, edge = self.settings.slices, self.settings.view
        views = [
            image[0, z : z + n, y : y + edge, x : x + edge]
            for image, (z, y, x) in zip(images, corners.tolist(), strict=True)
        ]
        return torch.stack(views)

    def _recolour(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Change contrast and brightness of each view."""
        s = self.settings
        u = torch.rand(2, len(x), 1, 1, 1, generator=generator).to(x.device) * 2 - 1
        return (x - GREY) * torch.exp(s.contrast * u[0]) + GREY + s.brightness * u[1]

    def _disturb(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Blur each view a little and add noise."""
        s = self.settings
        u = torch.rand(2, len(x), 1, 1, 1, generator=generator).to(x.device)
        if s.blur:
            taps = (torch.arange(-2, 3, device=x.device)[None].square() * -0.5) / (
                (s.blur * u[0, :, 0, 0]).square() + 1e-2
            )
            x = _blur(x, torch.softmax(taps, dim=1))
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        return x + noise * (s.noise * u[1])

    def _hide(self, views: int, generator: torch.Generator) -> Tensor:
        """Choose the hidden pixels in whole squares: bool (views, V, V)."""
        side = self.settings.view // self.settings.mask_block
        hidden = torch.rand(views, side, side, generator=generator) < self.settings.mask_ratio
        block = self.settings.mask_block
        return hidden.repeat_interleave(block, 1).repeat_interleave(block, 2)

    def _places(
        self, a: Tensor, b: Tensor, corners: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Take the vectors of places that both views show: (b, d, y, x) twice -> (b * points, d) twice."""
        size, dim, _, width = a.shape
        first = corners[:, :, 1:] // PATCH
        low, high = first.amax(dim=0), first.amin(dim=0) + width
        u = torch.rand(size, self.settings.points, 2, generator=generator)
        places = low[:, None] + (u * (high - low)[:, None]).long()
        picked = []
        for vectors, corner in ((a, first[0]), (b, first[1])):
            y, x = (places - corner[:, None]).unbind(dim=2)
            index = (y * width + x).to(a.device)[:, None].expand(-1, dim, -1)
            picked.append(vectors.flatten(2).gather(2, index).transpose(1, 2).flatten(0, 1))
        return picked[0], picked[1]

    def _middle(self, x: Tensor) -> Tensor:
        """Return the pixels of each patch in the two middle slices: (b, 8, y / 2, x / 2)."""
        middle = self.settings.slices // 2
        return nn.functional.pixel_unshuffle(x[:, middle - 1 : middle + 1], PATCH)

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> Preview:
        """Return the middle slice of regions, with hidden squares, and reconstructed there."""
        x = self._cut(batch.images, torch.zeros(len(batch), 3, dtype=torch.int64))
        hidden = self._hide(len(x), generator).to(x.device)
        seen = torch.where(hidden[:, None], GREY, x)
        made = self.decoder(self.encoder.trunk(seen.to(self.decoder.weight.dtype))).float()
        middle = x[:, self.settings.slices // 2 - 1]
        pixels = nn.functional.pixel_shuffle(made, PATCH)[:, 0]
        return Preview(middle, middle.masked_fill(hidden, torch.nan), torch.where(hidden, pixels, middle))


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


def vicreg(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Return the terms of VICReg (ICLR 2022, equations 1 to 5) for two views' vectors, float32 (n, d).

    Returns
    -------
    dict
        ``invariance``: the mean squared difference. ``variance``: how far standard deviations fall short of
        1. ``covariance``: the sum of squared covariances between components, divided by d. The last two are
        summed over both views.
    """
    variance, covariance = [], []
    for z in (a, b):
        centred = z - z.mean(dim=0)
        products = centred.T @ centred / (len(z) - 1)
        deviation = (products.diagonal() + 1e-4).sqrt()
        variance.append(relu(1 - deviation).mean())
        covariance.append((products.square().sum() - products.diagonal().square().sum()) / z.shape[1])
    return {
        "invariance": mse_loss(a, b),
        "variance": variance[0] + variance[1],
        "covariance": covariance[0] + covariance[1],
    }


def _blur(x: Tensor, taps: Tensor) -> Tensor:
    """Blur each image of (b, c, y, x) with its own kernel (b, 5), along y and x."""
    for axis in (2, 3):
        pad = (0, 0, 2, 2) if axis == 2 else (2, 2, 0, 0)
        padded = nn.functional.pad(x, pad, mode="reflect")
        n = x.shape[axis]
        x = torch.stack([padded.narrow(axis, i, n) * taps[:, i, None, None, None] for i in range(5)]).sum(0)
    return x
