"""The variational autoencoder with metric learning of Han et al. (CVPR workshops 2022).

Small cubes are reconstructed from a latent distribution. Cubes of the same place, larger or smaller, turned,
deformed and recoloured, get nearly the same mean in the first latent dimensions (the semantic subspace); the
others are free to say how a cube lies. Sizes and weights that the paper does not give are those of its
reference code, which is followed where both differ:

- A reconstruction is judged by a likelihood with a standard deviation of its own for every voxel; the squared
  error of the paper's equation 1 is a setting (``likelihood``).
- Equation 3 has the signs of a similarity, but S is a distance. With these signs, cubes of the same place
  would be driven apart; here they are those of the code (:func:`multi_similarity`).
- The divergence is that of the latent distribution from the prior, not the other way round (equation 2).

Deviations: the middle of an anchor stays 13 voxels away from the border of the volume instead of 11, since it
is cut out of a window that also holds its positives; random numbers are drawn for a whole batch at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import gaussian_nll_loss, mse_loss, softplus

from vemseg.batch import Batch
from vemseg.models.cubes import (
    CubeConv,
    CubeEncoder,
    Cubes,
    CubeUpConv,
    in_ball,
    mirrored,
    quarter_turns,
    rotations,
    stacked,
    uniform,
)
from vemseg.models.encoder import Spacing
from vemseg.models.objective import Objective, Preview, device_generator
from vemseg.ranks import divided
from vemseg.recipe import Han2022Table

LEAST = 1e-5
"""Is added to variances and standard deviations, so that none is zero."""

FAINT = 1 / 64
"""A cube with a smaller standard deviation is not brought to 1, or it would become pure noise."""

SHOWN = 5.0
"""Grey values of standardised cubes between minus and plus half of this are told apart in pictures."""


class Han2022Encoder(CubeEncoder):
    """Give the mean of a cube's latent distribution in the semantic subspace.

    Parameters
    ----------
    table : Han2022Table
    spacing : (float, float, float)
        As for :class:`CubeEncoder`.
    """

    def __init__(self, table: Han2022Table, spacing: Spacing = (1.0, 1.0, 1.0)) -> None:
        super().__init__(table, spacing)
        self.dim = table.semantic
        self.point_bytes = 12 * (table.widths[0] + 1)
        layers: list[nn.Module] = []
        for before, after in zip((1, *table.widths), table.widths, strict=False):
            layers += [CubeConv(before, after, 3, padding=1), nn.MaxPool3d(2), nn.ReLU()]
        self.convolutions = stacked(layers)
        left = (table.grid // 2 ** len(table.widths)) ** 3
        self.hidden = nn.Linear(table.widths[-1] * left, table.hidden)
        self.mean = nn.Linear(table.hidden, table.latent)
        self.variance = nn.Linear(table.hidden, table.latent)

    def features(self, cubes: Tensor) -> Tensor:
        """Return what mean and variance are computed from: standardised (b, 1, g, g, g) -> (b, hidden)."""
        maps = self.convolutions(cubes.to(self.mean.weight.dtype))
        features: Tensor = self.hidden(maps.flatten(1)).relu()
        return features

    def distribution(self, cubes: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and variances of the latent distributions of standardised cubes (b, 1, g, g, g).

        Both are float32 (b, latent).
        """
        return self.latent(self.features(cubes))

    def latent(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means and variances that features (b, hidden) stand for."""
        return self.mean(features).float(), softplus(self.variance(features).float()) + LEAST

    def vectors(self, cubes: Tensor) -> Tensor:
        """Return the leading latent means of cubes (b, 1, g, g, g) of any contrast: (b, semantic)."""
        mean: Tensor = self.mean(self.features(standardised(cubes)))
        return mean[:, : self.dim]


class Decoder(nn.Module):
    """Give mean and standard deviation of every voxel of a cube from a point of the latent space."""

    def __init__(self, table: Han2022Table) -> None:
        super().__init__()
        self.side = table.grid // 2 ** len(table.widths)
        self.hidden = nn.Linear(table.latent, table.hidden)
        self.spread = nn.Linear(table.hidden, table.widths[-1] * self.side**3)
        widths = table.widths[::-1]
        layers: list[nn.Module] = []
        for before, after in zip(widths, (*widths[1:], 2), strict=True):
            layers += [
                nn.Upsample(scale_factor=2),
                CubeUpConv(before, after, 3, padding=1),
                nn.ReLU(),
            ]
        self.convolutions = stacked(layers[:-1])

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations: (b, latent) -> float32 (b, 1, g, g, g) twice."""
        flat = self.spread(self.hidden(latent.to(self.hidden.weight.dtype))).relu()
        maps = self.convolutions(flat.view(len(latent), -1, self.side, self.side, self.side)).float()
        return maps[:, :1], softplus(maps[:, 1:]) + LEAST


class MetricAutoencoder(Objective):
    """The loss of equation 4: reconstruction, divergence and multi-similarity of anchors and positives."""

    charts: Mapping[str, tuple[str, ...]] = {"variance": ("variance_semantic", "variance_other")}

    divides = True

    encoder: Han2022Encoder

    def __init__(self, table: Han2022Table) -> None:
        super().__init__()
        self.table = table
        edge = 2 * (math.ceil(table.ball) + math.ceil(table.radii[1] * math.sqrt(3))) + 1
        self.window = (edge, edge, edge)
        self.encoder = Han2022Encoder(table)
        self.decoder = Decoder(table)

    def draw(self, anchors: int, generator: torch.Generator) -> Cubes:
        """Choose how an anchor, the first, and its positives lie in each window.

        An anchor lies in the middle, its axes along those of the volume. A positive is turned in any way, and
        its centre is up to ``ball`` voxels away, rounded to whole voxels.
        """
        table, n = self.table, self.table.positives
        centres = in_ball((anchors, n), table.ball, generator).round()
        frames = [quarter_turns((anchors, 1), generator), rotations((anchors, n), generator)]
        return Cubes(
            torch.cat([torch.zeros_like(centres[:, :1]), centres], dim=1),
            uniform((anchors, 1 + n), *table.radii, generator),
            mirrored(torch.cat(frames, dim=1), generator),
        )

    def cut(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Cut anchors and positives out of windows, and standardise them.

        (b, 1, w, w, w) -> (b, 1 + positives, g, g, g). The points inside a cube are moved at random; those on
        its sides stay. The code moves them along the axes of the cube; along those of the window it is the
        same, as the moves are normal and alike in all directions.
        """
        g, b, n = self.table.grid, len(images), 1 + self.table.positives
        inner = (3, b, n, g - 2, g - 2, g - 2)
        moved = torch.randn(inner, generator=generator, device=images.device)
        moved *= self.table.elastic / (2 * (g - 1))
        return standardised(self.draw(b, generator).cut(images, g, moved))

    def recolour(self, cubes: Tensor, generator: torch.Generator) -> Tensor:
        """Change contrast and brightness of each standardised cube (..., g, g, g), and add noise."""
        table, each = self.table, (*cubes.shape[:-3], 1, 1, 1)
        contrast = 2 ** uniform(each, -table.contrast, table.contrast, generator)
        shift = uniform(each, -table.brightness, table.brightness, generator)
        noise = torch.randn(cubes.shape, generator=generator, device=cubes.device)
        return noise.mul_(table.noise).add_(shift).addcmul_(cubes, contrast)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss``, its terms, and how invariant two subspaces are, for windows around anchors.

        Returns
        -------
        dict of str to Tensor ()
            ``loss``, the sum of the losses of anchors and of each positive; the unweighted terms
            ``reconstruction``, ``divergence`` and ``similarity``, means over all cubes; ``variance_semantic``
            and ``variance_other``, :func:`variance_ratio` of the semantic subspace and of the next as many
            dimensions.
        """
        table, rng = self.table, device_generator(generator, batch.images.device)
        cubes = self.recolour(self.cut(batch.images, rng), rng)
        each = cubes.flatten(0, 1)[:, None]
        mean, variance = self.encoder.latent(divided(self.encoder.features, each))
        noise = torch.randn(mean.shape, generator=rng, device=mean.device)
        drawn = mean + variance.sqrt() * noise
        made, deviation = divided(lambda x: torch.cat(self.decoder(x), dim=1), drawn).chunk(2, dim=1)
        reconstruction = self.judged(each, made, deviation)
        divergence = gaussian_divergence(mean, variance).mean()
        places = mean.view(len(batch), 1 + table.positives, -1)
        own, other = places[..., : table.semantic], places[..., table.semantic : 2 * table.semantic]
        similarity = multi_similarity(own, table.alpha, table.beta, table.margin)
        cost = (1 + table.positives) * (reconstruction + table.kl * divergence)
        return {
            "loss": cost + table.similarity * similarity,
            "reconstruction": reconstruction.detach(),
            "divergence": divergence.detach(),
            "similarity": similarity.detach(),
            "variance_semantic": variance_ratio(own.detach()),
            "variance_other": variance_ratio(other.detach()),
        }

    def judged(self, cubes: Tensor, made: Tensor, deviation: Tensor) -> Tensor:
        """Return the mean over all voxels of the error of a reconstruction."""
        if self.table.likelihood == "mse":
            return mse_loss(made, cubes)
        return gaussian_nll_loss(made, cubes, deviation.square(), full=True, eps=LEAST**2)

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> Preview:
        """Return the middle planes of anchors: as they are, as the encoder sees them, and reconstructed."""
        rng = device_generator(generator, batch.images.device)
        plain = self.cut(batch.images, rng)[:, :1]
        seen = self.recolour(plain, rng)
        made, _ = self.decoder(self.encoder.distribution(seen)[0])
        middle = self.table.grid // 2
        images, masked, predictions = (x[:, 0, middle] / SHOWN + 0.5 for x in (plain, seen, made))
        return Preview(images, masked, predictions)


def standardised(cubes: Tensor) -> Tensor:
    """Bring each cube (..., g, g, g) to mean 0 and standard deviation 1, or less if it is ``FAINT``."""
    flat = cubes.flatten(-3)
    centred = flat - flat.mean(dim=-1, keepdim=True)
    length = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)  # ten times as fast as torch.std
    deviation = length / math.sqrt(flat.shape[-1] - 1)
    found: Tensor = (centred / deviation.clamp_min(FAINT)).view(cubes.shape)
    return found


def gaussian_divergence(mean: Tensor, variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of N(mean, variance) from N(0, 1): (b, d) -> (b,)."""
    return 0.5 * (mean.square() + variance - 1 - variance.log()).sum(dim=-1)


def multi_similarity(places: Tensor, alpha: float, beta: float, margin: float) -> Tensor:
    """Return the multi-similarity loss on distances: near for cubes of one place, far for those of others.

    It is the mean over all cubes of ``log(1 + sum exp(alpha (d - margin))) / alpha``, the sum over the other
    cubes of the same place, and ``log(1 + sum exp(-beta (d - margin))) / beta``, the sum over all cubes of
    other places; d is the Euclidean distance of their vectors (Han et al., equation 3, with the signs of the
    reference code; Wang et al., CVPR 2019).

    Parameters
    ----------
    places : Tensor float32 (b, r, d)
        Vectors of r cubes of each of b places.
    alpha, beta, margin : float

    Returns
    -------
    Tensor float32 ()
    """
    b, r, _ = places.shape
    flat = places.flatten(0, 1)
    far = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    place = torch.arange(b, device=flat.device).repeat_interleave(r)
    same = place[:, None] == place
    itself = torch.eye(b * r, dtype=torch.bool, device=flat.device)
    near = (alpha * (far - margin)).masked_fill(~same | itself, -torch.inf).logsumexp(dim=1)
    apart = (-beta * (far - margin)).masked_fill(same, -torch.inf).logsumexp(dim=1)
    return (softplus(near) / alpha + softplus(apart) / beta).mean()


def variance_ratio(places: Tensor) -> Tensor:
    """Return how much vectors differ within a place, relative to how much places differ; 0 is invariant.

    Parameters
    ----------
    places : Tensor float (b, r, d)
        Vectors of r cubes of each of b places.

    Returns
    -------
    Tensor float ()
        Total variance within a place over the total variance of the means of places.
    """
    within = places.var(dim=1).sum(dim=-1).mean()
    between = places.mean(dim=1).var(dim=0).sum()
    return within / between
