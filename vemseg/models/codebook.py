"""A codebook: vectors that tokens are replaced by, and how unused ones are brought back into use."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from vemseg.modules import Keeps

CODES = "codebook.codes"
"""The name under which a codebook is saved beside the weights of its encoder."""


class Codebook(Keeps):
    """K codes, and counts of how often each is used.

    Parameters
    ----------
    size, dim : int
        Number of codes, and length of a code.

    Attributes
    ----------
    codes : Parameter float32 (K, dim)
        They stay in float32, whatever type the tokens have.
    usage : Tensor int64 (K,)
        Number of tokens that each code was nearest to since the last revival.
    isolated : Tensor int64 ()
        Number of codes that the last revival found isolated.
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
        """Set the codes to a random sample of tokens (n, dim), with repetitions if there are too few tokens.

        This deviates deliberately from VQ-VAE, where codes begin within 1 / K of zero: tokens come out of a
        LayerNorm, so they are about as long as the square root of ``dim``.
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
        """Replace tokens by their nearest codes, and count how often each code is used.

        Parameters
        ----------
        tokens : Tensor float32 (n, dim)

        Returns
        -------
        usage : Tensor int64 (K,)
            Number of these tokens that each code was nearest to.
        chosen : Tensor float32 (n, dim)
            The nearest code of each token; gradients flow from here to the codes.
        """
        index = self.nearest(tokens)
        usage = torch.zeros_like(self.usage).index_add_(0, index, torch.ones_like(index))
        self.usage += usage
        return usage, embedding(index, self.codes)

    @torch.no_grad()
    def revive(self, pull: float, share: float, generator: torch.Generator) -> None:
        """Move isolated codes towards codes in use (HiS4MAE, equation 6), and start counting again.

        Parameters
        ----------
        pull : float
            The weight gamma of the code in use; 1 - gamma is that of the isolated code.
        share : float
            A code is isolated if its usage is at most this share of the mean usage.
        generator : torch.Generator
            On the CPU. It draws the code that each isolated one moves to, with probabilities in proportion to
            usage.
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
    """Return how many equally used codes would be as diverse: exp of the entropy of usage (K,)."""
    share = usage / usage.sum()
    diversity: Tensor = torch.special.entr(share).sum().exp()
    return diversity
