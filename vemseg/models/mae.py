"""The masked autoencoder of MAESTER (Xie et al., CVPR 2023, section 3.2): pixels of masked patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vemseg.models.layers import (
    patchify,
    random_order,
    sincos_positions,
    take_tokens,
    unpatchify,
    xavier_linear,
)
from vemseg.models.vit import LayerNorm, ViTEncoder, transformer
from vemseg.recipe import MaesterTable


@dataclass(frozen=True)
class Preview:
    """What a reconstruction picture shows: images, what the encoder saw of them, what came out.

    Attributes
    ----------
    images, masked, predictions : Tensor float32 (b, h, w)
        Intensities in [0, 1]; masked pixels are NaN in ``masked``.
    """

    images: Tensor
    masked: Tensor
    predictions: Tensor


class Decoder(nn.Module):
    """A light transformer that predicts the pixels of every patch from the visible tokens."""

    def __init__(self, settings: MaesterTable) -> None:
        super().__init__()
        dim, side = settings.decoder_dim, settings.fov // settings.patch
        self.embed = nn.Linear(settings.dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sincos_positions(dim, side))
        self.blocks = transformer(dim, settings.decoder_depth, settings.decoder_heads, settings.mlp_ratio)
        self.norm = LayerNorm(dim)
        self.pred = nn.Linear(dim, settings.patch**2)
        self.apply(xavier_linear)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Tensor, restore: Tensor) -> Tensor:
        """Predict pixels.

        Parameters
        ----------
        latent : Tensor (b, 1 + v, dim)
            Encoder output, class token first, visible tokens in shuffled order.
        restore : Tensor int64 (b, n)
            Place of each token in the shuffled order.

        Returns
        -------
        Tensor (b, n, patch * patch)
        """
        tokens = self.embed(latent)
        b, seen = tokens.shape[0], tokens.shape[1] - 1
        masked = self.mask_token.expand(b, restore.shape[1] - seen, -1)
        grid = take_tokens(torch.cat([tokens[:, 1:], masked], dim=1), restore)
        tokens = torch.cat([tokens[:, :1], grid], dim=1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        pixels: Tensor = self.pred(self.norm(tokens))
        return pixels[:, 1:]


class MaskedAutoencoder(nn.Module):
    """Objective: mean squared error over the pixels of masked patches, without pixel normalisation."""

    def __init__(self, settings: MaesterTable) -> None:
        super().__init__()
        self.fov = (1, settings.fov, settings.fov)
        self.patch = settings.patch
        self.mask_ratio = settings.mask_ratio
        self.encoder = ViTEncoder(settings)
        self.decoder = Decoder(settings)

    def reconstruct(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mask, encode and decode images.

        Parameters
        ----------
        images : Tensor (b, 1, F, F)
            Intensities in [0, 1].
        noise : Tensor (b, n)
            Uniform noise whose order decides what is masked.

        Returns
        -------
        pixels : Tensor float32 (b, n, patch * patch)
            Predicted pixels of all patches.
        mask : Tensor float32 (b, n)
            1 where a patch was masked.
        """
        visible, restore, mask = random_order(noise, self.mask_ratio)
        pixels = self.decoder(self.encoder.latent(images, visible), restore)
        return pixels.float(), mask

    def forward(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss`` for a batch of fields of view, float32 (b, 1, 1, F, F) in [0, 1]."""
        images = images[:, :, 0]
        pixels, mask = self.reconstruct(images, self._noise(images, generator))
        error = (pixels - patchify(images[:, 0], self.patch).float()).square().mean(dim=-1)
        return {"loss": (error * mask).sum() / mask.sum()}

    @torch.no_grad()
    def preview(self, images: Tensor, generator: torch.Generator) -> Preview:
        """Return masked inputs and reconstructions of fields of view (b, 1, 1, F, F).

        Visible patches are shown as they are, since the loss never asks for them.
        """
        images = images[:, :, 0]
        pixels, mask = self.reconstruct(images, self._noise(images, generator))
        patches = patchify(images[:, 0], self.patch).float()
        hidden = mask.bool().unsqueeze(-1)
        side = self.encoder.side
        masked = unpatchify(patches.masked_fill(hidden, torch.nan), self.patch, side)
        predicted = unpatchify(torch.where(hidden, pixels, patches), self.patch, side)
        return Preview(images[:, 0].float(), masked, predicted)

    def _noise(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return torch.rand(len(images), self.encoder.side**2, generator=generator).to(images.device)

    def after_step(self, step: int) -> None:
        """Nothing moves outside the optimiser."""
