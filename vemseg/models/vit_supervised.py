"""The "vanilla ViT" that MAESTER is compared with (Xie et al., CVPR 2023, supplement S2 to S4).

The encoder of MAESTER is followed by a decoder of the same sizes as MAESTER's, which predicts the logits of
all pixels of a patch instead of their intensities. It adds positions of its own (table S4). The supplement
leaves open whether there is a norm before its last layer; here there is, as in MAESTER's decoder.
"""

from __future__ import annotations

from torch import Tensor, nn

from vemseg.models.layers import sincos_positions, unpatchify, xavier_linear
from vemseg.models.supervision import Supervision
from vemseg.models.vit import LayerNorm, transformer
from vemseg.models.windowed import TokenClassifier
from vemseg.recipe import SupervisedViTTable


class PixelHead(nn.Module):
    """Turns the tokens of patches into the logits of their pixels.

    Parameters
    ----------
    settings : SupervisedViTTable
        Sizes of the decoder, and classes.
    """

    def __init__(self, settings: SupervisedViTTable) -> None:
        super().__init__()
        self.patch, self.side, self.classes = settings.patch, settings.grid, len(settings.classes)
        width = settings.decoder_dim
        self.embed = nn.Linear(settings.dim, width)
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", sincos_positions(width, self.side)[:, 1:])
        self.blocks = transformer(width, settings.decoder_depth, settings.decoder_heads, settings.mlp_ratio)
        self.norm = LayerNorm(width)
        self.pred = nn.Linear(width, self.patch**2 * self.classes)
        self.apply(xavier_linear)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map the tokens of all patches (b, n, dim) to logits (b, classes, F, F).

        The numbers of a token are ordered by row, column and class.
        """
        tokens = self.blocks(self.embed(tokens) + self.pos_embed)
        b, n, _ = tokens.shape
        each = self.pred(self.norm(tokens)).reshape(b, n, self.patch**2, self.classes).permute(0, 3, 1, 2)
        logits = unpatchify(each.flatten(0, 1), self.patch, self.side)
        return logits.reshape(b, self.classes, *logits.shape[1:])


class VitSupervisedEncoder(TokenClassifier):
    """MAESTER's encoder and a decoder of logits."""

    make_head = PixelHead


def supervision(settings: SupervisedViTTable) -> Supervision:
    """Return the objective: cross-entropy of known voxels."""
    return Supervision(VitSupervisedEncoder(settings))
