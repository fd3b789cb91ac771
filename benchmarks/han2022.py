r"""Han et al. (CVPRW 2022): how fast cubes are drawn and encoded; how invariant the semantic subspace is.

    speed       anchors per second of the sampler alone, and voxels per second of the encoder, against the
                reference's schedule in the same run: cubes are cut, standardised and recoloured one by one
    subspaces   how much vectors differ between cubes of one place (turned, larger or smaller, shifted), over
                how much places differ: in the semantic subspace and in the next dimensions; with a picture

    python benchmarks/han2022.py speed
    vemseg train cell.tif -c han2022-quick -o run
    python benchmarks/han2022.py subspaces --model run --volume cell=cell.tif,cell_labels.tif \
        --picture subspaces.png

Rates are per second of processor time, so that a busy machine changes them little. The reference's schedule
is restated here from its paper and code, without its DataLoader. As published it takes 4 hours for a million
anchors, 70 in a second. Dice of trained models is measured by ``dice_tables.py``.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import add_threads, conclude, machine, parser, show, spread
from pairs import open_pair
from torch.nn.functional import grid_sample

from vemseg.geometry import Box
from vemseg.models import build_encoder, build_objective, open_model
from vemseg.models.cubes import Cubes, in_ball, lattice, rotations, uniform
from vemseg.models.han2022 import Han2022Encoder, MetricAutoencoder, standardised, variance_ratio
from vemseg.models.objective import device_generator, step_generator
from vemseg.phantom import Phantom
from vemseg.recipe import load_recipe
from vemseg.sampling import Sampler, Source
from vemseg.tiling import reflect
from vemseg.volume import ArrayVolume, Intensity, intensity_of

TARGET = 10.0
"""How many times as many anchors per second the sampler has to draw as the reference's schedule."""

COPIES = 8
"""Cubes of each place, the plain one included."""


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(options.threads)
    options.run(options)


def _options() -> argparse.Namespace:
    made = parser(__doc__, 3)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add_threads(made)
    parts = made.add_subparsers(required=True)
    speed = parts.add_parser("speed", help="anchors and voxels per second")
    speed.add_argument("--recipe", default="han2022", help="whose cubes are drawn and whose encoder is timed")
    speed.add_argument("--anchors", type=int, default=128, help="anchors of a batch")
    speed.add_argument("--cubes", type=int, default=32, help="cubes that are encoded")
    speed.set_defaults(run=measure_speed)
    subspaces = parts.add_parser("subspaces", help="invariance of latent subspaces")
    subspaces.add_argument("--model", required=True, help="a finished run of han2022 or han2022-quick")
    subspaces.add_argument("--volume", required=True, help="as dice_tables.py")
    subspaces.add_argument("--places", type=int, default=1000)
    subspaces.add_argument("--picture", type=Path)
    subspaces.set_defaults(run=measure_subspaces)
    return made.parse_args()


# Speed


def measure_speed(options: argparse.Namespace) -> None:
    """Time sampler and encoder against the reference's schedule."""
    recipe = load_recipe(options.recipe)
    objective = build_objective(recipe.model, 0)
    assert isinstance(objective, MetricAutoencoder)
    grey = Phantom((96, 128, 128), 3).read(Box.whole((96, 128, 128)))
    source = Source(ArrayVolume(grey), Intensity(0.0, 255.0))
    sampler = Sampler([source], objective.window, recipe.fov, 0, torch.device("cpu"))
    volume = torch.from_numpy(grey / np.float32(256))
    steps = iter(range(10**9))

    def ours() -> None:
        step = next(steps)
        batch = sampler.batch(step, options.anchors)
        rng = device_generator(step_generator(0, step), batch.images.device)
        objective.recolour(objective.cut(batch.images, rng), rng)

    few = max(1, options.anchors // 16)
    seconds = _processor_seconds(
        {"vemseg": ours, "reference": lambda: _one_by_one(objective, volume, few)}, options.repetitions
    )
    drawn = {"vemseg": options.anchors, "reference": few}
    rates = {name: [drawn[name] / s for s in values] for name, values in seconds.items()}
    encoder = build_encoder(recipe.model).prepare(torch.device("cpu"), torch.float32)
    encoded = _encoding_rates(encoder, volume, options)
    _show_rates("anchors with their positives per second, sampler alone", rates)
    _show_rates(
        "cubes per second, encoder and cutting; a stride of s voxels makes s^3 voxels of a cube", encoded
    )
    ratio = spread(rates["vemseg"])["median"] / spread(rates["reference"])["median"]
    details = {"anchors": rates, "cubes": encoded, "machine": machine(options.threads)}
    conclude("han2022 sampler", ratio, "times the reference's", f">= {TARGET:g}", ratio >= TARGET, details)


def _processor_seconds(candidates: dict[str, Callable[[], None]], repetitions: int) -> dict[str, list[float]]:
    """Return the processor time of each call, all threads together; candidates take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(1 + repetitions):
        for name, call in candidates.items():
            started = time.process_time()
            call()
            if repetition:  # the first call warms up
                seconds[name].append(time.process_time() - started)
    return seconds


def _show_rates(title: str, rates: dict[str, list[float]]) -> None:
    rows = [[name, *(f"{x:.4g}" for x in spread(values).values())] for name, values in rates.items()]
    show(title, ["schedule", "median", "min", "max"], rows)


def _one_by_one(objective: MetricAutoencoder, volume: torch.Tensor, anchors: int) -> None:
    """Draw anchors and positives as the reference does: each cube from a block of its own."""
    table, rng = objective.table, torch.Generator().manual_seed(0)
    grid, margin = table.grid, math.ceil(table.radii[1] * math.sqrt(3))
    for _ in range(anchors):
        cubes = objective.draw(1, rng)
        room = torch.tensor([n - 1 - 2 * margin for n in volume.shape])
        middle = margin + (torch.rand(3, generator=rng) * room).round()
        for i in range(1 + table.positives):
            moved = torch.randn(grid, grid, grid, 3, generator=rng) * table.elastic / (2 * (grid - 1))
            for axis in range(3):
                moved.select(axis, 0).zero_()
                moved.select(axis, grid - 1).zero_()
            inside = (lattice(grid, volume.device) + moved) @ cubes.frames[0, i] * cubes.radii[0, i]
            places = middle + cubes.centres[0, i] + inside
            low, high = places.flatten(0, 2).amin(0).floor().int(), places.flatten(0, 2).amax(0).ceil().int()
            low, high = low.clamp_min(0), torch.minimum(high, torch.tensor(volume.shape) - 1)
            (z, y, x), (z1, y1, x1) = low.tolist(), high.tolist()
            block = volume[z : z1 + 1, y : y1 + 1, x : x1 + 1]
            unit = 2 * (places - low) / (high - low) - 1
            cube = grid_sample(block[None, None], unit.flip(-1)[None], align_corners=True)[0]
            objective.recolour(standardised(cube), rng)


def _encoding_rates(
    encoder: Any, volume: torch.Tensor, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Return cubes per second: all in one batch, and cut and resampled one by one as the reference does."""
    n, (edge, _, _) = options.cubes, encoder.fov
    starts = np.random.default_rng(0).integers(0, np.array(volume.shape) - edge, (n, 3)).tolist()
    windows = volume.unfold(0, edge, 1).unfold(1, edge, 1).unfold(2, edge, 1)
    z, y, x = torch.tensor(starts).T

    @torch.inference_mode()
    def ours() -> None:
        encoder.encode(windows[z, y, x][:, None])

    @torch.inference_mode()
    def reference() -> None:
        unit = lattice(encoder.grid, volume.device)[None].flip(-1)
        cubes = []
        for a, b, c in starts:
            block = volume[a : a + edge, b : b + edge, c : c + edge][None, None]
            cubes.append(standardised(grid_sample(block, unit, align_corners=True)[0]))
        encoder.distribution(torch.stack(cubes))

    seconds = _processor_seconds({"vemseg": ours, "reference": reference}, options.repetitions)
    return {name: [n / s for s in values] for name, values in seconds.items()}


# Subspaces


@torch.inference_mode()
def measure_subspaces(options: argparse.Namespace) -> None:
    """Compare how invariant two subspaces are to turning, scaling and shifting, alone and together."""
    model = open_model(options.model)
    table, encoder = model.recipe.model, model.load()
    assert isinstance(encoder, Han2022Encoder)
    objective = build_objective(table, 0)
    pair = open_pair(options.volume)
    grey, reference = (volume.read(volume.box) for volume in (pair.grey, pair.reference))
    scaled = torch.from_numpy(intensity_of(pair.grey, model.recipe.volume).apply(grey))
    places = np.random.default_rng(0).integers(0, grey.shape, (options.places, 3))
    windows = _windows(scaled, places, objective.window[0])
    rng = torch.Generator().manual_seed(0)
    means = {
        kind: _means(encoder, windows, kind, table, rng) for kind in ("turned", "scaled", "shifted", "all")
    }
    semantic, other = slice(0, table.semantic), slice(table.semantic, 2 * table.semantic)
    ratios = {
        kind: [float(variance_ratio(found[..., part])) for part in (semantic, other)]
        for kind, found in means.items()
    }
    rows = [[kind, f"{a:.3f}", f"{b:.3f}", f"{b / a:.2f}"] for kind, (a, b) in ratios.items()]
    title = f"variance within places over variance between them, {options.places} places of {pair.name}"
    show(title, ["cubes are", "semantic", "other", "other / semantic"], rows)
    if options.picture:
        classes = reference[tuple(places.T)]
        _draw(means["all"][..., semantic], means["all"][..., other], classes, pair.classes, options.picture)
    figure = ratios["all"][1] / ratios["all"][0]
    conclude("han2022 subspaces", figure, "times as invariant", "> 1", figure > 1, {"ratios": ratios})


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
    centres, frames = torch.zeros(*changed, 3), torch.eye(3).expand(*changed, 3, 3)
    radii = torch.full(changed, plain)
    if kind in ("turned", "all"):
        frames = rotations(changed, rng)
    if kind in ("scaled", "all"):
        radii = uniform(changed, *table.radii, rng)
    if kind in ("shifted", "all"):
        centres = in_ball(changed, table.ball, rng).round()
    upright = Cubes.upright(torch.full((n, 1), plain))
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


if __name__ == "__main__":
    main()
