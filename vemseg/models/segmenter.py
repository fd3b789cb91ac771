"""Segmenter (Strudel, Garcia, Laptev, Schmid, ICCV 2021), as MAESTER compares itself with it.

The mask transformer follows section 3.2 of Segmenter and its released code: learned embeddings of the classes
join the tokens of the patches. The score of a class at a patch is the product of both, after each was
projected and brought to length 1. Scores are normed over the classes and enlarged to pixels. MAESTER's
supplement (S2 to S4) decides what differs from that code: its own encoder, whose positions are fixed, the
same positions added to the tokens of patches in the mask transformer (table S3), and AdamW. A deviation from
the code is that the mask transformer has no dropout, where the code has 0.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from vemseg.models.layers import sincos_positions
from vemseg.models.supervision import Supervision
from vemseg.models.vit import transformer
from vemseg.models.windowed import TokenClassifier
from vemseg.recipe import SupervisedViTTable

SPREAD = 0.02
"""Standard deviation of the embeddings of classes and the weights of linear layers at the beginning."""


class MaskHead(nn.Module):
    """The mask transformer: scores of classes at patches, from tokens and embeddings of classes.

    Parameters
    ----------
    settings : SupervisedViTTable
        Sizes of the decoder, and classes.
    """

    def __init__(self, settings: SupervisedViTTable) -> None:
        super().__init__()
        width, classes = settings.decoder_dim, len(settings.classes)
        self.side, self.edge = settings.grid, settings.fov
        self.embed = nn.Linear(settings.dim, width)
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sincos_positions(width, self.side)[:, 1:])
        self.classes = nn.Parameter(torch.empty(1, classes, width))
        self.blocks = transformer(width, settings.decoder_depth, settings.decoder_heads, settings.mlp_ratio)
        self.norm = nn.LayerNorm(width)
        self.of_patches = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.of_classes = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.mask_norm = nn.LayerNorm(classes)
        self.apply(_short)
        nn.init.trunc_normal_(self.classes, std=SPREAD)

    def scores(self, tokens: Tensor) -> Tensor:
        """Return the normed scores of classes at patches: (b, n, dim) -> (b, n, classes)."""
        n = tokens.shape[1]
        patches = self.embed(tokens) + self.pos_embed
        joined = torch.cat([patches, self.classes.expand(len(tokens), -1, -1)], dim=1)
        joined = self.norm(self.blocks(joined))
        patches = normalize(joined[:, :n] @ self.of_patches, dim=-1)
        classes = normalize(joined[:, n:] @ self.of_classes, dim=-1)
        normed: Tensor = self.mask_norm(patches @ classes.transpose(1, 2))
        return normed

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits, enlarged from patches to pixels: (b, n, dim) -> (b, classes, F, F)."""
        scores = self.scores(tokens).transpose(1, 2)
        grid = scores.reshape(*scores.shape[:2], self.side, self.side)
        return interpolate(grid, size=(self.edge, self.edge), mode="bilinear")


def _short(module: nn.Module) -> None:
    """Initialise linear layers as Segmenter does: truncated normal weights, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=SPREAD)
        nn.init.zeros_(module.bias)


class SegmenterEncoder(TokenClassifier):
    """MAESTER's encoder and the mask transformer of Segmenter."""

    make_head = MaskHead


def supervision(settings: SupervisedViTTable) -> Supervision:
    """Return the objective: cross-entropy of known voxels."""
    return Supervision(SegmenterEncoder(settings))
