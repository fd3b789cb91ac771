"""The masked autoencoder of MAESTER (Xie et al., CVPR 2023, section 3.2): it predicts masked patches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vemseg.batch import Batch
from vemseg.models.layers import (
    patchify,
    random_order,
    sincos_positions,
    take_tokens,
    unpatchify,
    xavier_linear,
)
from vemseg.models.objective import Objective, Preview
from vemseg.models.vit import LayerNorm, ViTEncoder, transformer
from vemseg.ranks import divided
from vemseg.recipe import ViTTable


class Masking(NamedTuple):
    """Which patches of each field of view are hidden; see :func:`vemseg.models.layers.random_order`.

    Attributes
    ----------
    visible : Tensor int64 (b, v)
        Patches that stay visible, in shuffled order.
    restore : Tensor int64 (b, n)
        Place of each patch in the shuffled order, visible ones first.
    mask : Tensor float32 (b, n)
        1 where a patch is masked.
    """

    visible: Tensor
    restore: Tensor
    mask: Tensor

    @property
    def hidden(self) -> Tensor:
        """Masked patches, in shuffled order: int64 (b, n - v)."""
        return self.restore.argsort(dim=1)[:, self.visible.shape[1] :]


class Decoder(nn.Module):
    """A light transformer that predicts some numbers for every patch from the visible tokens.

    Parameters
    ----------
    settings : ViTTable
        Sizes.
    length : int
        How many numbers are predicted for a patch.
    """

    def __init__(self, settings: ViTTable, length: int) -> None:
        super().__init__()
        dim, side = settings.decoder_dim, settings.fov // settings.patch
        self.embed = nn.Linear(settings.dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sincos_positions(dim, side))
        self.blocks = transformer(dim, settings.decoder_depth, settings.decoder_heads, settings.mlp_ratio)
        self.norm = LayerNorm(dim)
        self.pred = nn.Linear(dim, length)
        self.apply(xavier_linear)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Tensor, restore: Tensor) -> Tensor:
        """Predict the numbers of all patches.

        Parameters
        ----------
        latent : Tensor (b, 1 + v, dim)
            Output of the encoder: the class token, then the visible tokens in shuffled order.
        restore : Tensor int64 (b, n)
            Place of each token in the shuffled order.

        Returns
        -------
        Tensor (b, n, length)
        """
        tokens = self.embed(latent)
        b, seen = tokens.shape[0], tokens.shape[1] - 1
        masked = self.mask_token.expand(b, restore.shape[1] - seen, -1)
        grid = take_tokens(torch.cat([tokens[:, 1:], masked], dim=1), restore)
        tokens = torch.cat([tokens[:, :1], grid], dim=1) + self.pos_embed
        predicted: Tensor = self.pred(self.norm(self.blocks(tokens)))
        return predicted[:, 1:]


class MaskedAutoencoder(Objective):
    """The mean squared error of the pixels of masked patches, without pixel normalisation.

    Parameters
    ----------
    settings : ViTTable
        Sizes and mask ratio.
    drop_path : float
        Share of the samples that skip the encoder's last block.
    """

    divides = True

    encoder: ViTEncoder

    def __init__(self, settings: ViTTable, drop_path: float = 0.0) -> None:
        super().__init__()
        self.window = (1, settings.fov, settings.fov)
        self.patch = settings.patch
        self.mask_ratio = settings.mask_ratio
        self.encoder = ViTEncoder(settings, drop_path=drop_path)
        self.decoder = Decoder(settings, settings.patch**2)

    def hide(self, images: Tensor, generator: torch.Generator) -> Masking:
        """Choose the hidden patches of images (b, 1, F, F)."""
        noise = torch.rand(len(images), self.encoder.side**2, generator=generator)
        return Masking(*random_order(noise.to(images.device), self.mask_ratio))

    def reconstruct(self, images: Tensor, masking: Masking) -> Tensor:
        """Predict all pixels of images (b, 1, F, F) from the visible ones: float32 (b, n, patch * patch)."""
        return self.pixels(self.encoder.latent(images, masking.visible), masking)

    def pixels(self, latent: Tensor, masking: Masking) -> Tensor:
        """Predict the pixels of all patches, float32 (b, n, patch * patch), from tokens (b, 1 + v, dim)."""
        predicted: Tensor = self.decoder(latent, masking.restore)
        return predicted.float()

    def pixel_error(self, images: Tensor, pixels: Tensor, where: Tensor) -> Tensor:
        """Return the mean squared error of pixels over patches, with weights ``where`` (b, n)."""
        error = (pixels - patchify(images[:, 0], self.patch).float()).square().mean(dim=-1)
        return (error * where).sum() / where.sum()

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss`` for a batch of fields of view, (b, 1, 1, F, F)."""
        images = batch.images[:, :, 0]
        masking = self.hide(images, generator)
        pixels = divided(lambda x, *hidden: self.reconstruct(x, Masking(*hidden)), images, *masking)
        return {"loss": self.pixel_error(images, pixels, masking.mask)}

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> Preview | None:
        """Return masked inputs and reconstructions of fields of view (b, 1, 1, F, F).

        Visible patches are shown as they are, since the loss does not contain them.
        """
        images = batch.images[:, :, 0]
        masking = self.hide(images, generator)
        pixels = self.reconstruct(images, masking)
        patches = patchify(images[:, 0], self.patch).float()
        hidden = masking.mask.bool().unsqueeze(-1)
        side = self.encoder.side
        masked = unpatchify(patches.masked_fill(hidden, torch.nan), self.patch, side)
        predicted = unpatchify(torch.where(hidden, pixels, patches), self.patch, side)
        return Preview(images[:, 0].float(), masked, predicted)
