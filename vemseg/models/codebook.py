"""A codebook: vectors that tokens are replaced by, and what keeps them all in use."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from vemseg.models.layers import KeepsExact

CODES = "codebook.codes"
"""Name of the codebook beside the weights of the encoder that it was learnt with."""


class Codebook(KeepsExact):
    """K codes, counted as they are used.

    Parameters
    ----------
    size, dim : int
        Codes, and the length of one.

    Attributes
    ----------
    codes : Parameter float32 (K, dim)
        In float32, whatever the tokens are computed in.
    usage : Tensor int64 (K,)
        Tokens that each code was nearest to since the last revival.
    isolated : Tensor int64 ()
        Codes that the last revival found isolated.
    """

    exact = ("codes",)

    usage: Tensor
    isolated: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.zeros(size, dim))
        self.register_buffer("usage", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("isolated", torch.tensor(0))

    @torch.no_grad()
    def begin(self, tokens: Tensor, generator: torch.Generator) -> None:
        """Make the codes a random sample of tokens (n, dim), with repetitions where these are fewer.

        A deliberate deviation from VQ-VAE, whose codes begin within 1 / K of zero: tokens end in a
        LayerNorm and have a length of about the root of ``dim``.
        """
        times = -(-len(self.codes) // len(tokens))
        index = torch.cat([torch.randperm(len(tokens), generator=generator) for _ in range(times)])
        index = index[: len(self.codes)]
        self.codes.copy_(tokens[index.to(tokens.device)])

    @torch.no_grad()
    def nearest(self, tokens: Tensor) -> Tensor:
        """Return the number of the nearest code of tokens float32 (n, dim): int64 (n,)."""
        half = self.codes.square().sum(dim=1) / 2
        return torch.addmm(half, tokens, self.codes.T, alpha=-1).argmin(dim=1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Replace tokens by codes, and count these.

        Parameters
        ----------
        tokens : Tensor float32 (n, dim)

        Returns
        -------
        usage : Tensor int64 (K,)
            Tokens that each code was nearest to.
        chosen : Tensor float32 (n, dim)
            The nearest code of each token; the codebook receives their gradient.
        """
        index = self.nearest(tokens)
        usage = index.bincount(minlength=len(self.codes))
        self.usage += usage
        return usage, embedding(index, self.codes)

    @torch.no_grad()
    def revive(self, pull: float, share: float, generator: torch.Generator) -> None:
        """Move isolated codes towards codes in use (HiS4MAE, equation 6), and count usage afresh.

        Parameters
        ----------
        pull : float
            gamma: how much of the new code is the one in use.
        share : float
            Codes used at most this share of the mean are isolated.
        generator : torch.Generator
            On the CPU; draws the partner of each, the more probably the more a code is used.
        """
        usage = self.usage.cpu().clone()
        alone = (usage <= share * usage.double().mean()).nonzero().flatten()
        self.isolated.fill_(len(alone))
        self.usage.zero_()
        if not 0 < len(alone) < len(usage):
            return
        weight = usage.double()
        weight[alone] = 0
        partner = torch.multinomial(weight, len(alone), replacement=True, generator=generator)
        device = self.codes.device
        alone, partner = alone.to(device), partner.to(device)
        self.codes[alone] = pull * self.codes[partner] + (1 - pull) * self.codes[alone]


def perplexity(usage: Tensor) -> Tensor:
    """Return how many codes, used alike, would be as diverse: exp of the entropy of usage (K,)."""
    share = usage / usage.sum()
    diversity: Tensor = torch.special.entr(share).sum().exp()
    return diversity
