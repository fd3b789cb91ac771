"""How invariant subspaces of the latent vectors of han2022 are: by numbers, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import Pair

from vemseg.models import Model, build_objective, pick_device
from vemseg.models.cubes import Cubes, in_ball, rotations, uniform
from vemseg.models.han2022 import Han2022Encoder, standardised, variance_ratio
from vemseg.tiling import reflect
from vemseg.volume import intensity_of

COPIES = 8
"""Cubes of each place, the plain one included."""

KINDS = ("turned", "scaled", "shifted", "all")
"""What is done to cubes of a place, each alone and all together."""


@torch.inference_mode()
def subspace_ratios(
    model: Model, pair: Pair, places: int, device: str, picture: Path | None
) -> dict[str, list[float]]:
    """Return how much vectors differ within places over how much places differ (``variance_ratio``).

    Parameters
    ----------
    model : Model
        A finished run of han2022 or han2022-quick.
    pair : Pair
    places : int
        Number of random places.
    device : str
        auto, cpu, cuda.
    picture : Path or None
        Where both subspaces are drawn.

    Returns
    -------
    dict of str to [float, float]
        For each of ``KINDS`` the semantic subspace, and the next as many dimensions.
    """
    table, place = model.recipe.model, pick_device(device)
    encoder = model.load().to(place)
    assert isinstance(encoder, Han2022Encoder)
    grey, reference = (volume.read(volume.box) for volume in (pair.grey, pair.reference))
    scaled = torch.from_numpy(intensity_of(pair.grey, model.recipe.volume).apply(grey))
    at = np.random.default_rng(0).integers(0, grey.shape, (places, 3))
    windows = _windows(scaled, at, build_objective(table, 0).window[0]).to(place)
    rng = torch.Generator(place).manual_seed(0)
    means = {kind: _means(encoder, windows, kind, table, rng).cpu() for kind in KINDS}
    semantic, other = slice(0, table.semantic), slice(table.semantic, 2 * table.semantic)
    if picture:
        classes = reference[tuple(at.T)]
        _draw(means["all"][..., semantic], means["all"][..., other], classes, pair.classes, picture)
    return {
        kind: [float(variance_ratio(found[..., part])) for part in (semantic, other)]
        for kind, found in means.items()
    }


def _windows(volume: torch.Tensor, places: np.ndarray, edge: int) -> torch.Tensor:
    """Cut windows around places, mirrored at the border: (n, 1, w, w, w)."""
    z, y, x = (
        torch.from_numpy(reflect(along[:, None] + np.arange(edge) - edge // 2, n))
        for along, n in zip(places.T, volume.shape, strict=True)
    )
    return volume[z[:, :, None, None], y[:, None, :, None], x[:, None, None]][:, None]


def _means(
    encoder: Han2022Encoder, windows: torch.Tensor, kind: str, table: Any, rng: torch.Generator
) -> torch.Tensor:
    """Return the latent means of places, the plain cube first, then changed ones: (n, COPIES, latent)."""
    n, plain = len(windows), (table.edge - 1) / 2
    changed = (n, COPIES - 1)
    centres, frames = (
        torch.zeros(*changed, 3, device=rng.device),
        torch.eye(3, device=rng.device).expand(*changed, 3, 3),
    )
    radii = torch.full(changed, plain, device=rng.device)
    if kind in ("turned", "all"):
        frames = rotations(changed, rng)
    if kind in ("scaled", "all"):
        radii = uniform(changed, *table.radii, rng)
    if kind in ("shifted", "all"):
        centres = in_ball(changed, table.ball, rng).round()
    upright = Cubes.upright(torch.full((n, 1), plain, device=rng.device))
    every = (torch.cat(pair, dim=1) for pair in zip(upright, (centres, radii, frames), strict=True))
    parts = [
        encoder.distribution(standardised(cubes.cut(some, table.grid)).flatten(0, 1)[:, None])[0]
        for some, cubes in _in_parts(windows, Cubes(*every))
    ]
    return torch.cat(parts).view(n, COPIES, -1)


def _in_parts(windows: torch.Tensor, cubes: Cubes, size: int = 100) -> list[tuple[torch.Tensor, Cubes]]:
    split = [part.split(size) for part in cubes]
    return [(some, Cubes(*parts)) for some, *parts in zip(windows.split(size), *split, strict=True)]


def _draw(a: torch.Tensor, b: torch.Tensor, classes: np.ndarray, names: Any, path: Path) -> None:
    """Draw both subspaces by t-SNE: all places by class, and four of each joined to their changed cubes."""
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    figure = Figure(figsize=(11, 5.2), layout="constrained")
    chosen = np.concatenate([np.flatnonzero(classes == k)[:4] for k in np.unique(classes)])
    for axes, vectors, title in zip(figure.subplots(1, 2), (a, b), ("semantic", "other"), strict=True):
        every = torch.cat([vectors[:, 0], vectors[chosen, 1:].flatten(0, 1)]).numpy()
        flat = TSNE(random_state=0, init="pca", perplexity=30).fit_transform(every)
        changed = flat[len(vectors) :].reshape(len(chosen), -1, 2)
        for k in np.unique(classes):
            colour = f"C{int(k) % 10}"
            own, some = flat[: len(vectors)][classes == k], np.isin(chosen, np.flatnonzero(classes == k))
            axes.scatter(*own.T, s=6, alpha=0.35, color=colour, label=names.get(int(k), str(k)))
            for middle, around in zip(flat[chosen[some]], changed[some], strict=True):
                axes.plot(
                    *np.stack([np.broadcast_to(middle, around.shape), around], axis=1).T, color=colour, lw=0.7
                )
        axes.set(title=f"{title} subspace", xticks=[], yticks=[])
        axes.legend(frameon=False, markerscale=2)
    figure.savefig(path, dpi=130)
