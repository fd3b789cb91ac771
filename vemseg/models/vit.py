"""The vision transformer encoder of MAESTER and its descendants, on timm's blocks."""

from __future__ import annotations

from functools import partial

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from vemseg.models.encoder import WHOLE, Encoder, Kept, Memory, Spacing
from vemseg.models.layers import Blocks, sincos_positions, take_tokens, xavier_linear
from vemseg.recipe import TransformerTable

LayerNorm = partial(nn.LayerNorm, eps=1e-6)

FIELD_BYTES = 512
"""Bytes of activations for each voxel of the fields of view that are encoded together."""


def transformer(dim: int, depth: int, heads: int, mlp_ratio: float, drop_path: float = 0.0) -> Blocks:
    """Return pre-norm blocks without dropout or layer scale.

    ``drop_path`` is the share of samples that skip the last block in training; it rises linearly from 0 at
    the first block. This stochastic depth draws from torch's global random numbers.
    """
    return Blocks(
        Block(dim, heads, mlp_ratio, qkv_bias=True, norm_layer=LayerNorm, drop_path=skipped)
        for skipped in torch.linspace(0, drop_path, depth, device="cpu").tolist()
    )


class ViTEncoder(Encoder):
    """Encode fields of view into one vector per patch.

    The order of layers, the weight of the positions, the final norm, and the class token, which takes part in
    attention and is dropped from the output, follow MAESTER (CVPR 2023, Table 1 and section 3.4). Parameter
    names are those of its reference code.

    Attributes
    ----------
    fov, patch : (int, int, int)
        Field of view and patch in voxels: (1, F, F) and (1, P, P).
    """

    fixed_fov = True

    def __init__(
        self, settings: TransformerTable, spacing: Spacing = (1.0, 1.0, 1.0), *, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.fov = (1, settings.fov, settings.fov)
        self.patch = (1, settings.patch, settings.patch)
        self.dim = settings.dim
        self.side = settings.fov // settings.patch
        self.pos_weight = settings.pos_weight
        self.patch_embed = PatchEmbed(settings.fov, settings.patch, in_chans=1, embed_dim=settings.dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, settings.dim))
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sincos_positions(settings.dim, self.side))
        self.blocks = transformer(settings.dim, settings.depth, settings.heads, settings.mlp_ratio, drop_path)
        self.norm = LayerNorm(settings.dim)
        self.apply(xavier_linear)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(settings.dim, -1))
        nn.init.normal_(self.cls_token, std=0.02)

    def embed(self, images: Tensor) -> Tensor:
        """Return patch tokens with weighted positions: (b, 1, F, F) -> (b, n, dim)."""
        tokens: Tensor = self.patch_embed(images.to(self.cls_token.dtype))
        return tokens + self.pos_weight * self.pos_embed[:, 1:]

    def with_class_token(self, tokens: Tensor) -> Tensor:
        """Prepend the class token (whose position is zero)."""
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)

    def latent(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the normed tokens of the last block, class token first.

        Parameters
        ----------
        images : Tensor (b, 1, F, F)
            Intensities in [0, 1].
        visible : Tensor int64 (b, v), optional
            Indices of the tokens to keep before the class token is added; by default all.

        Returns
        -------
        Tensor (b, 1 + v, dim)
        """
        tokens = self.embed(images)
        if visible is not None:
            tokens = take_tokens(tokens, visible)
        normed: Tensor = self.norm(self.blocks(self.with_class_token(tokens)))
        return normed

    def encode(self, windows: Tensor, kept: Kept | None = None) -> Tensor:
        """Return the vectors of fields of view (b, 1, 1, F, F).

        The last block computes only the tokens that are kept; this does not change them.
        """
        _, rows, columns = kept or WHOLE
        grid = torch.arange(self.side**2, device=windows.device).reshape(self.side, self.side)[rows, columns]
        tokens = self.with_class_token(self.embed(windows[:, :, 0]))
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        wanted = _block_at(self.blocks[-1], tokens, 1 + grid.flatten())
        normed: Tensor = self.norm(wanted)
        return normed.reshape(len(windows), 1, *grid.shape, self.dim)

    forward = encode

    def memory(self, batch: int) -> Memory:
        """Return the memory that a batch of fields of view takes."""
        return Memory(fixed=batch * self.fov[1] * self.fov[2] * FIELD_BYTES)


def _block_at(block: Block, tokens: Tensor, index: Tensor) -> Tensor:
    """Compute a block's output at some tokens, from the queries of these and keys and values of all."""
    b, _, dim = tokens.shape
    attention = block.attn
    heads = attention.num_heads
    normed = block.norm1(tokens)
    weight, bias = attention.qkv.weight, attention.qkv.bias

    def split(part: Tensor) -> Tensor:
        return part.reshape(b, -1, heads, dim // heads).transpose(1, 2)

    query = split(nn.functional.linear(normed[:, index], weight[:dim], bias[:dim]))
    key_value = nn.functional.linear(normed, weight[dim:], bias[dim:])
    key, value = (split(part) for part in key_value.chunk(2, dim=-1))
    if attention.fused_attn:
        mixed = scaled_dot_product_attention(query, key, value)
    else:
        mixed = (query * attention.scale @ key.transpose(-2, -1)).softmax(dim=-1) @ value
    mixed = mixed.transpose(1, 2).reshape(b, -1, dim)
    kept = tokens[:, index] + attention.proj(mixed)
    output: Tensor = kept + block.mlp(block.norm2(kept))
    return output
