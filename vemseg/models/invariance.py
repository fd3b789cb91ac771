"""The objective of the dense encoder: two views of a region agree, and hidden squares are reconstructed.

Agreement is measured by VICReg (Bardes, Ponce, LeCun, ICLR 2022, section 4.1) at places that both views show:
by an invariance, a variance and a covariance term. Here they are computed from the vectors themselves, since
these are clustered later. Hidden squares are reconstructed as in masked autoencoders (He et al., CVPR 2022).

:mod:`vemseg.models.views` makes the views. The second may be shifted by a few slices, so that vectors change
slowly in space.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, mse_loss, relu

from vemseg.batch import Batch
from vemseg.models.objective import Objective, Preview
from vemseg.models.unet import PATCH, UNetEncoder
from vemseg.models.views import GREY, Turn, Viewer
from vemseg.ranks import divided
from vemseg.recipe import UNetTable


class Invariance(Objective):
    """VICReg between two views, and mean squared error over hidden pixels."""

    divides = True

    encoder: UNetEncoder

    def __init__(self, settings: UNetTable) -> None:
        super().__init__()
        self.settings, self.views = settings, Viewer(settings)
        self.window = self.views.window
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
        settings, images, size = self.settings, batch.images[:, 0], len(batch)
        corners = self.views.corners(size, generator)
        turn = Turn.draw(generator)
        clean = torch.cat(
            [self.views.cut(images, corners[0]), turn.apply(self.views.cut(images, corners[1]))]
        )
        clean = self.views.recolour(clean, generator)
        hidden = self.views.hide(2 * size, generator).to(clean.device)
        seen = torch.where(hidden[:, None], GREY, self.views.disturb(clean, generator))
        dtype = self.decoder.weight.dtype
        laid_out = seen.to(dtype).contiguous(memory_format=torch.channels_last)
        trunk = divided(self.encoder.trunk, laid_out)
        vectors = self.encoder.spread(self.encoder.head(trunk)).mean(dim=1)
        a, b = self._places(vectors[:size], turn.undo(vectors[size:]), corners, generator)
        terms = vicreg(a.float(), b.float())
        pixels = self.decoder(trunk).float()
        error = (pixels - self._pixels(clean)).square().mean(dim=1)
        weight = avg_pool2d(hidden.float()[:, None], PATCH)[:, 0]
        terms["reconstruction"] = (error * weight).sum() / weight.sum().clamp_min(1)
        loss = sum(getattr(settings, name) * term for name, term in terms.items())
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}

    def _places(
        self, a: Tensor, b: Tensor, corners: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Take the vectors of places that both views show: (b, d, y, x) twice -> (b * points, d) twice."""
        size, dim, _, width = a.shape
        first = corners[:, :, 1:] * self.encoder.pieces // PATCH
        low, high = first.amax(dim=0), first.amin(dim=0) + width
        u = torch.rand(size, self.settings.points, 2, generator=generator)
        places = low[:, None] + (u * (high - low)[:, None]).long()
        picked = []
        for vectors, corner in ((a, first[0]), (b, first[1])):
            y, x = (places - corner[:, None]).unbind(dim=2)
            index = (y * width + x).to(a.device)[:, None].expand(-1, dim, -1)
            picked.append(vectors.flatten(2).gather(2, index).transpose(1, 2).flatten(0, 1))
        return picked[0], picked[1]

    def _pixels(self, x: Tensor) -> Tensor:
        """Return the pixels of each patch in the two middle slices: (b, 8, y / 2, x / 2)."""
        return nn.functional.pixel_unshuffle(self.views.middle(x), PATCH)

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> Preview:
        """Return the middle slice of regions, with hidden squares, and reconstructed there."""
        x = self.views.cut(batch.images[:, 0], torch.zeros(len(batch), 3, dtype=torch.int64))
        hidden = self.views.hide(len(x), generator).to(x.device)
        seen = torch.where(hidden[:, None], GREY, x)
        made = self.decoder(self.encoder.trunk(seen.to(self.decoder.weight.dtype))).float()
        middle = self.views.middle(x)[:, 0]
        pixels = nn.functional.pixel_shuffle(made, PATCH)[:, 0]
        return Preview(middle, middle.masked_fill(hidden, torch.nan), torch.where(hidden, pixels, middle))


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
