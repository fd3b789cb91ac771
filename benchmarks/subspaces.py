"""How invariant subspaces of the latent vectors of han2022 are: by numbers, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
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

JOINED = 14
"""Places that are joined to their changed cubes in the picture, as many of each class."""

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
        titles = {"turned": "turned", "all": "turned, scaled and shifted"}
        rows = {titles[k]: (means[k][..., semantic], means[k][..., other]) for k in titles}
        _draw(rows, reference[tuple(at.T)], pair.classes, picture)
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


def _draw(
    rows: Mapping[str, tuple[torch.Tensor, torch.Tensor]], classes: np.ndarray, names: Any, path: Path
) -> None:
    """Draw both subspaces by t-SNE, a row for each way to change cubes.

    All places are dots with the colour of their class, and some are joined to their changed cubes.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    found = np.unique(classes)
    each = max(1, JOINED // len(found))
    chosen = np.concatenate([np.flatnonzero(classes == k)[:each] for k in found])
    colours = np.array([f"C{int(k) % 10}" for k in classes])
    figure = Figure(figsize=(9, 4.4 * len(rows) + 0.5), layout="constrained")
    for line, (title, parts) in zip(figure.subplots(len(rows), 2, squeeze=False), rows.items(), strict=True):
        for axes, vectors, name in zip(line, parts, ("semantic subspace", "other dimensions"), strict=True):
            _scatter(axes, vectors, chosen, colours)
            axes.set_title(f"{name}; cubes {title}", fontsize=10)
    for k in found:
        axes.scatter([], [], s=20, color=f"C{int(k) % 10}", label=names.get(int(k), str(k)))
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=90)
    if path.suffix == ".png":
        Image.open(path).convert("RGB").quantize(160).save(path, optimize=True)


def _scatter(axes: Any, vectors: torch.Tensor, chosen: np.ndarray, colours: np.ndarray) -> None:
    """Draw the places of a subspace, (n, COPIES, d), and join the chosen ones to their changed cubes."""
    from sklearn.manifold import TSNE

    every = torch.cat([vectors[:, 0], vectors[chosen, 1:].flatten(0, 1)]).numpy()
    flat = TSNE(random_state=0, init="pca", perplexity=30).fit_transform(every)
    changed = flat[len(vectors) :].reshape(len(chosen), -1, 2)
    axes.scatter(*flat[: len(vectors)].T, s=9, alpha=0.35, color=colours, linewidths=0)
    for place, around, colour in zip(flat[chosen], changed, colours[chosen], strict=True):
        lines = np.stack([np.broadcast_to(place, around.shape), around], axis=1)
        axes.plot(*lines.T, color=colour, lw=0.8)
        axes.scatter(*around.T, s=8, color=colour, zorder=3)
        axes.scatter(*place, s=40, color=colour, edgecolors="black", linewidths=0.8, zorder=4)
    axes.set(xticks=[], yticks=[])
