"""The hyperbolic variational autoencoder of Hsu et al. (NeurIPS 2021, "CIHS"), Han et al.'s baseline.

Cubes of many sizes are reconstructed from the Poincaré ball, in which a cube (the parent) is to lie nearer to
a smaller one at the same place (its child) than to one elsewhere. Sizes are those of the reference code.

Deviations: Han et al. do not say how they adapted it to volumes of cells, so everything else is as published.
The reference draws children that do not belong to the parent from anywhere in volumes of 50 voxels; here they
lie up to ``reach`` voxels beyond it along every axis. Where the volume ends before, it is mirrored. Vectors
are tangents at the origin instead of points (see ``labelling.hyperbolic``). Both layers of the decoder that
have a single channel begin with a bias above zero: begun at random, their ReLUs let nothing through for half
of all seeds, and such a decoder never learns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from vemseg.batch import Batch
from vemseg.models.cubes import CubeConv, CubeEncoder, Cubes, CubeUpConv, stacked
from vemseg.models.encoder import Spacing
from vemseg.models.hyperbolic import Gyroplanes, WrappedNormal, ball, repeatable
from vemseg.models.objective import Objective, Preview, both_generators, device_generator
from vemseg.ranks import divided
from vemseg.recipe import CihsTable

LEAST = 1e-5
"""Is added to standard deviations, so that none is zero."""

MEAN_GREY = 0.5
"""What every voxel of a reconstruction begins with."""

KERNEL = 5
"""Edge of the kernels of all convolutions."""

PADDING = (2, 1, 1, 0)
"""Points that are added to each side before each convolution of the encoder."""


class CihsEncoder(CubeEncoder):
    """Give the mean of a cube's latent distribution as a tangent at the origin of the Poincaré ball.

    Parameters
    ----------
    table : CihsTable
    spacing : (float, float, float)
        As for :class:`CubeEncoder`.
    """

    def __init__(self, table: CihsTable, spacing: Spacing = (1.0, 1.0, 1.0)) -> None:
        super().__init__(table, spacing)
        self.dim = table.latent
        self.point_bytes = 8 * sum(table.widths[:2])
        layers: list[nn.Module] = []
        for before, after, padding in zip((1, *table.widths[:-1]), table.widths, PADDING, strict=True):
            layers += [CubeConv(before, after, KERNEL, padding=padding), nn.ReLU()]
        self.convolutions = stacked(layers)
        self.hidden = nn.Linear(table.widths[-1] * side_of(table) ** 3, table.hidden)
        self.mean = nn.Linear(table.hidden, table.latent)
        self.deviation = nn.Linear(table.hidden, table.latent)

    def features(self, cubes: Tensor) -> Tensor:
        """Return what mean and deviation are computed from: (b, 1, g, g, g) -> (b, hidden)."""
        maps = self.convolutions(cubes.to(self.mean.weight.dtype))
        features: Tensor = self.hidden(maps.flatten(1)).relu()
        return features

    def vectors(self, cubes: Tensor) -> Tensor:
        """Return the means of cubes as tangents: (b, 1, g, g, g) -> (b, latent)."""
        mean: Tensor = self.mean(self.features(cubes))
        return mean

    def distribution(self, cubes: Tensor) -> WrappedNormal:
        """Return the latent distributions of cubes (b, 1, g, g, g)."""
        return self.latent(self.features(cubes))

    def latent(self, features: Tensor) -> WrappedNormal:
        """Return the latent distributions that features (b, hidden) stand for."""
        deviation = softplus(self.deviation(features).float()) + LEAST
        return WrappedNormal(ball().expmap0(self.mean(features).float()), deviation)


def side_of(table: CihsTable) -> int:
    """Return how many points along each axis the convolutions leave of a cube."""
    return table.grid + sum(2 * padding + 1 - KERNEL for padding in PADDING)


class Decoder(nn.Module):
    """Reconstruct a cube from samples of its latent distribution, which stand on a small grid."""

    def __init__(self, table: CihsTable) -> None:
        super().__init__()
        self.side = side_of(table)
        self.gyroplanes = Gyroplanes(table.latent, table.gyroplanes)
        self.joined = nn.Linear(table.gyroplanes, 1)
        narrow, wide, wider, _ = table.widths
        layers: list[nn.Module] = []
        for before, after, padding in zip(
            (1, wider, wide, narrow), (wider, wide, narrow, 1), PADDING, strict=True
        ):
            layers += [CubeUpConv(before, after, KERNEL, padding=padding), nn.ReLU()]
        self.convolutions = stacked(layers)
        for layer, bias in ((self.joined, 1.0), (layers[-2], MEAN_GREY)):
            assert isinstance(layer.bias, Tensor)
            nn.init.constant_(layer.bias, bias)

    @property
    def samples(self) -> int:
        """How many samples a cube is reconstructed from."""
        return self.side**3

    def forward(self, points: Tensor) -> Tensor:
        """Return the means of all voxels: float32 (samples, b, latent) -> (b, 1, g, g, g)."""
        planes = self.gyroplanes(points.transpose(0, 1)).relu().to(self.joined.weight.dtype)
        cells: Tensor = self.joined(planes).relu()
        maps: Tensor = self.convolutions(cells.view(-1, 1, self.side, self.side, self.side))
        return maps.float()


class HyperbolicAutoencoder(Objective):
    """The evidence lower bound of parents, and a triplet loss that brings their children near them."""

    divides = True

    encoder: CihsEncoder

    def __init__(self, table: CihsTable) -> None:
        super().__init__()
        self.table = table
        edge = 2 * (table.parents[1] // 2) + 1
        self.window = (edge, edge, edge)
        self.encoder = CihsEncoder(table)
        self.decoder = Decoder(table)

    def sizes(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw half the edges of n parents and of their children in whole voxels: float32 (n,) twice."""
        (low, high), (least, most) = self.table.parents, self.table.children
        parent = torch.randint(low, high + 1, (n,), generator=generator, device=generator.device)
        largest = (parent - 2).clamp(least, most)
        u = torch.rand(n, generator=generator, device=generator.device)
        child = least + (u * (largest - least + 1)).long()
        return (parent // 2).float(), (child // 2).float()

    def elsewhere(self, parent: Tensor, generator: torch.Generator) -> Tensor:
        """Draw centres that lie outside a parent along every axis, in voxels from it: int64 (n, 1, 3)."""
        shape, device = (len(parent), 1, 3), generator.device
        beyond = torch.randint(1, self.table.reach + 1, shape, generator=generator, device=device)
        sign = torch.randint(2, shape, generator=generator, device=device) * 2 - 1
        return sign * (parent.long()[:, None, None] + beyond)

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return ``loss`` and its terms for windows around parents, (b, 1, w, w, w).

        Returns
        -------
        dict of str to Tensor ()
            ``loss``; ``reconstruction``, half the squared error of a parent, summed over its voxels, and
            ``divergence``, both means over parents, which the loss takes as sums; ``triplet``, unweighted.
        """
        grid, n = self.table.grid, len(batch)
        device = batch.images.device
        host, rng = both_generators(generator, device)
        parent, child = self.sizes(n, host)
        others = batch.around(self.elsewhere(parent, host))[:, 0]
        parent, child = parent.to(device), child.to(device)
        own = Cubes.upright(torch.stack([parent, child], dim=1)).cut(batch.images, grid)
        other = Cubes.upright(child[:, None]).cut(others, grid)
        cubes = torch.cat([own[:, :1], own[:, 1:], other])
        with repeatable():
            latent = self.encoder.latent(divided(self.encoder.features, cubes))
            means = latent.mean.view(3, n, -1)
            return self.terms(own[:, :1], WrappedNormal(means[0], latent.deviation[:n]), means, rng)

    def terms(
        self, parents: Tensor, latent: WrappedNormal, means: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the loss of parents (b, 1, g, g, g) with means (3, b, d) of them, children and others."""
        table, n = self.table, len(parents)
        noise = torch.randn(
            self.decoder.samples, n, means.shape[-1], generator=generator, device=means.device
        )
        points = latent.sample(noise)
        made = divided(lambda each: self.decoder(each.transpose(0, 1)), points.transpose(0, 1))
        error = 0.5 * (made - parents).square().flatten(1).sum(dim=1).mean()
        prior = WrappedNormal(torch.zeros_like(latent.mean), torch.ones_like(latent.deviation))
        divergence = (latent.log_density(points) - prior.log_density(points)).mean()
        near, far = (ball().dist(means[0], means[i]).square() for i in (1, 2))
        triplet = relu(near - far + table.margin).mean()
        return {
            "loss": n * (error + table.kl * divergence) + table.triplet * triplet,
            "reconstruction": error.detach(),
            "divergence": divergence.detach(),
            "triplet": triplet.detach(),
        }

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> Preview:
        """Return the middle planes of the largest cubes, twice, and reconstructed."""
        grid, n = self.table.grid, len(batch)
        radii = torch.full((n, 1), self.window[0] // 2, device=batch.images.device, dtype=torch.float32)
        cubes = Cubes.upright(radii).cut(batch.images, grid)
        latent = self.encoder.distribution(cubes)
        rng = device_generator(generator, cubes.device)
        noise = torch.randn(self.decoder.samples, n, self.table.latent, generator=rng, device=cubes.device)
        made = self.decoder(latent.sample(noise))
        middle = cubes[:, 0, grid // 2]
        return Preview(middle, middle, made[:, 0, grid // 2])
