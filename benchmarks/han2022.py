r"""Han et al. (CVPRW 2022): how fast cubes are drawn and encoded; how invariant the semantic subspace is.

    speed       anchors per second of the sampler alone, and voxels per second of the encoder, against the
                reference's schedule in the same run: cubes are cut, standardised and recoloured one by one
    subspaces   how much vectors differ between cubes of one place (turned, larger or smaller, shifted), over
                how much places differ: in the semantic subspace and in the next dimensions; with a picture

    dice        methods trained on the very volume for equal samples (han2022 and cihs), others for as long as
                the first took (--beside), and models that need no training (--ready): Dice with several seeds
                of the clustering under both protocols; the subspaces of every han2022

    python benchmarks/han2022.py speed
    vemseg train cell.tif -c han2022-quick -o run
    python benchmarks/han2022.py subspaces --model run --volume cell=cell.tif,cell_labels.tif \
        --picture subspaces.png
    python benchmarks/han2022.py dice epfl_train_15nm cell=cell.tif,cell_labels.tif --samples 1000000 \
        --beside maester-quick --ready vemseg --json han2022.jsonl --device cuda

Rates are per second of processor time, so that a busy machine changes them little; with ``speed --clock``, of
the clock, in which the reference's schedule uses one core and vemseg all. The reference's schedule
is restated here from its paper and code, without its DataLoader. As published it takes 4 hours for a million
anchors, 70 in a second. Anchors of han2022 and parents of CIHS count as samples.
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
from common import add_threads, conclude, machine, show, spread
from equal_samples import add_dice
from pairs import open_pair
from subspaces import subspace_ratios
from torch.nn.functional import grid_sample

from vemseg.geometry import Box
from vemseg.models import build_encoder, build_objective, open_model
from vemseg.models.cubes import lattice
from vemseg.models.han2022 import MetricAutoencoder, standardised
from vemseg.models.objective import device_generator, step_generator
from vemseg.phantom import Phantom
from vemseg.recipe import load_recipe
from vemseg.sampling import Sampler, Source
from vemseg.volume import ArrayVolume, Intensity

TARGET = 10.0
"""How many times as many anchors per second the sampler has to draw as the reference's schedule."""

PUBLISHED = 70
"""Anchors per second of the paper: a million in 4 hours."""


def main() -> None:
    """Measure and print."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.run(options)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = made.add_subparsers(required=True)
    speed = parts.add_parser("speed", help="anchors and voxels per second")
    speed.add_argument("--recipe", default="han2022", help="whose cubes are drawn and whose encoder is timed")
    speed.add_argument("--anchors", type=int, default=128, help="anchors of a batch")
    speed.add_argument("--cubes", type=int, default=32, help="cubes that are encoded")
    speed.add_argument("--clock", action="store_true", help="count the clock's seconds: for idle cores")
    speed.add_argument("--repetitions", type=int, default=3, help="measurements of each candidate")
    add_threads(speed)
    speed.set_defaults(run=measure_speed)
    subspaces = parts.add_parser("subspaces", help="invariance of latent subspaces")
    subspaces.add_argument("--model", required=True, help="a finished run of han2022 or han2022-quick")
    subspaces.add_argument("--volume", required=True, help="as dice_tables.py")
    subspaces.add_argument("--places", type=int, default=1000)
    subspaces.add_argument("--picture", type=Path)
    subspaces.add_argument("--device", default="auto", help="auto, cpu, cuda")
    add_threads(subspaces)
    subspaces.set_defaults(run=measure_subspaces)
    dice = parts.add_parser("dice", help="Dice of methods trained on the volume, for equal samples")
    add_dice(dice)
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
    seconds = _seconds({"vemseg": ours, "reference": lambda: _one_by_one(objective, volume, few)}, options)
    drawn = {"vemseg": options.anchors, "reference": few}
    rates = {name: [drawn[name] / s for s in values] for name, values in seconds.items()}
    encoder = build_encoder(recipe.model).prepare(torch.device("cpu"), torch.float32)
    encoded = _encoding_rates(encoder, volume, options)
    _show_rates("anchors with their positives per second, sampler alone", rates)
    _show_rates(
        "cubes per second, encoder and cutting; a stride of s voxels makes s^3 voxels of a cube", encoded
    )
    ratio = spread(rates["vemseg"])["median"] / spread(rates["reference"])["median"]
    times = spread(rates["vemseg"])["median"] / PUBLISHED
    print(f"\npublished: {PUBLISHED} anchors per second; vemseg draws {times:.1f} times as many")
    details = {"anchors": rates, "cubes": encoded, "machine": machine(options.threads)}
    conclude("han2022 sampler", ratio, "times the reference's", f">= {TARGET:g}", ratio >= TARGET, details)


def _seconds(
    candidates: dict[str, Callable[[], None]], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the seconds of each call, of the processors or of the clock; candidates take turns."""
    clock = time.perf_counter if options.clock else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(1 + options.repetitions):
        for name, call in candidates.items():
            started = clock()
            call()
            if repetition:  # the first call warms up
                seconds[name].append(clock() - started)
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

    seconds = _seconds({"vemseg": ours, "reference": reference}, options)
    return {name: [n / s for s in values] for name, values in seconds.items()}


def measure_subspaces(options: argparse.Namespace) -> None:
    """Compare how invariant two subspaces are to turning, scaling and shifting, alone and together."""
    pair = open_pair(options.volume)
    ratios = subspace_ratios(open_model(options.model), pair, options.places, options.device, options.picture)
    rows = [[kind, f"{a:.3f}", f"{b:.3f}", f"{b / a:.2f}"] for kind, (a, b) in ratios.items()]
    title = f"variance within places over variance between them, {options.places} places of {pair.name}"
    show(title, ["cubes are", "semantic", "other", "other / semantic"], rows)
    figure = ratios["all"][1] / ratios["all"][0]
    conclude("han2022 subspaces", figure, "times as invariant", "> 1", figure > 1, {"ratios": ratios})


if __name__ == "__main__":
    main()
