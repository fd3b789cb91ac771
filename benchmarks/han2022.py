r"""Han et al. (CVPRW 2022): how fast cubes are drawn and encoded; how invariant the semantic subspace is.

    speed       anchors per second of the sampler alone, and cubes per second of the encoder, against the
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
the clock, in which the reference's schedule uses one core and vemseg all. The reference's schedule is
restated here from its paper and code, without its DataLoader; places, sizes and directions are drawn before
the clock starts, as there. The published 4 hours for a million anchors are those of the whole training.
Anchors of han2022 and parents of CIHS count as samples.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
from vemseg.models.devices import wants_bf16
from vemseg.models.han2022 import FAINT, MetricAutoencoder, standardised
from vemseg.models.objective import device_generator, step_generator
from vemseg.phantom import Phantom
from vemseg.recipe import load_recipe
from vemseg.sampling import Sampler, Source
from vemseg.volume import ArrayVolume, Intensity

TARGET = 10.0
"""How many times as many anchors per second the sampler has to draw as the reference's schedule."""


def main() -> None:
    """Measure and print."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.run(options)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = made.add_subparsers(required=True)
    speed = parts.add_parser("speed", help="anchors and cubes per second")
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

    schedule = _Schedule.of(objective, volume, options.anchors)
    seconds = _seconds({"vemseg": ours, "reference": schedule.cut}, options)
    rates = {name: [options.anchors / s for s in values] for name, values in seconds.items()}
    encoded = _encoding_rates(recipe.model, volume, options)
    _show_rates("anchors with their positives per second, sampler alone", rates)
    _show_rates(
        "cubes per second, encoder and cutting; a stride of s voxels makes s^3 voxels of a cube", encoded
    )
    ratio = spread(rates["vemseg"])["median"] / spread(rates["reference"])["median"]
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


@dataclass
class _Schedule:
    """What the reference draws before its training: how anchors and their positives lie in a volume.

    Attributes
    ----------
    objective : MetricAutoencoder
    volume : Tensor float32 (d, h, w)
    middles : list of (int, int, int)
        Centres of all cubes, of one anchor after the other.
    radii : list of float
    frames : list of 3 lists of 3 floats
    """

    objective: MetricAutoencoder
    volume: torch.Tensor
    middles: list[list[int]]
    radii: list[float]
    frames: list[list[list[float]]]

    @classmethod
    def of(cls, objective: MetricAutoencoder, volume: torch.Tensor, anchors: int) -> _Schedule:
        """Draw anchors in a volume."""
        rng = torch.Generator().manual_seed(0)
        cubes = objective.draw(anchors, rng)
        margin = objective.window[0] // 2
        room = torch.tensor(volume.shape) - 1 - 2 * margin
        at = margin + (torch.rand(anchors, 1, 3, generator=rng) * room).round()
        middles = (at + cubes.centres).flatten(0, 1).int()
        radii, frames = (each.flatten(0, 1).tolist() for each in (cubes.radii, cubes.frames))
        return cls(objective, volume, middles.tolist(), radii, frames)

    def cut(self) -> None:
        """Cut, standardise and recolour all cubes, each from a block of its own that just holds it."""
        grid, rng = self.objective.table.grid, torch.Generator().manual_seed(0)
        points = lattice(grid, self.volume.device)
        size = self.objective.table.elastic / (2 * (grid - 1))
        for middle, radius, frame in zip(self.middles, self.radii, self.frames, strict=True):
            moved = torch.randn(points.shape, generator=rng) * size
            for axis in range(3):
                moved.select(axis, 0).zero_()
                moved.select(axis, grid - 1).zero_()
            reach = [math.ceil(radius * sum(abs(row[k]) for row in frame)) for k in range(3)]
            block = self.volume[tuple(slice(m - n, m + n + 1) for m, n in zip(middle, reach, strict=True))]
            turned = [[row[k] * radius / reach[k] for k in (2, 1, 0)] for row in frame]
            places = (points + moved) @ torch.tensor(turned)
            cube = grid_sample(block[None, None], places[None], align_corners=True)[0]
            plain = (cube - cube.mean()) / max(float(cube.std()), FAINT)
            self.objective.recolour(plain, rng)


def _encoding_rates(table: Any, volume: torch.Tensor, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return cubes per second: all in one batch, and cut and resampled one by one as the reference does.

    In bfloat16, too, where the processor multiplies it.
    """
    place = torch.device("cpu")
    encoder = build_encoder(table).prepare(place, torch.float32)
    shorter = build_encoder(table).prepare(place, torch.bfloat16)
    n, (edge, _, _) = options.cubes, encoder.fov
    starts = np.random.default_rng(0).integers(0, np.array(volume.shape) - edge, (n, 3)).tolist()
    windows = volume.unfold(0, edge, 1).unfold(1, edge, 1).unfold(2, edge, 1)
    z, y, x = torch.tensor(starts).T

    @torch.inference_mode()
    def ours(encoder: Any) -> None:
        encoder.encode(windows[z, y, x][:, None])

    @torch.inference_mode()
    def reference() -> None:
        unit = lattice(encoder.grid, volume.device)[None].flip(-1)
        cubes = []
        for a, b, c in starts:
            block = volume[a : a + edge, b : b + edge, c : c + edge][None, None]
            cubes.append(standardised(grid_sample(block, unit, align_corners=True)[0]))
        encoder.distribution(torch.stack(cubes))

    candidates = {"vemseg": partial(ours, encoder), "reference": reference}
    if wants_bf16("auto", place):
        candidates["vemseg in bfloat16"] = partial(ours, shorter)
    seconds = _seconds(candidates, options)
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
