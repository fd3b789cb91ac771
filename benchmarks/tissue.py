"""How fast synthetic tissue is made, beside the training step that it feeds; and what it looks like.

    python benchmarks/tissue.py --threads 1
    python benchmarks/tissue.py --picture tissue.png --blocks 100

The figure is how many steps of the default recipe one process makes blocks for in the time of one step.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from common import add_threads, conclude, machine, parser, show

from vemseg.models import build_objective
from vemseg.models.objective import step_generator
from vemseg.phantom.tissue import CLASSES, KINDS, Tissue
from vemseg.recipe import load_recipe
from vemseg.sampling import Sampler, Synthetic
from vemseg.training import MasterAdamW

PALETTE = ((0, 0, 0), (40, 60, 255), (255, 0, 0), (255, 255, 0), (255, 0, 255), (0, 255, 255), (0, 255, 0),
           (255, 128, 0), (140, 70, 200), (255, 255, 255), (90, 90, 90))  # fmt: skip


def main() -> None:
    """Measure, print, draw."""
    made = parser(__doc__, 3)
    add_threads(made)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--blocks", type=int, default=40, help="number of blocks")
    made.add_argument(
        "--picture", type=Path, help="draw the middle plane of every block here, and its classes"
    )
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    recipe = load_recipe("vemseg")
    shape = (None, recipe.model.fov + Synthetic.margin, recipe.model.fov + Synthetic.margin)
    rows, blocks, seconds = [], [], []
    for ratio in sorted(set(recipe.tissue.ratios)):
        maker = Tissue(ratio, recipe.tissue.pixels(ratio), tuple(KINDS))
        started = time.perf_counter()
        mine = [
            maker.make(np.random.default_rng(i), (maker.planes, *shape[1:])) for i in range(options.blocks)
        ]
        each = (time.perf_counter() - started) / options.blocks
        rows.append([f"{ratio:g}", maker.planes, f"{each:.2f}"])
        seconds.append(each)
        blocks += mine
    step = _step(recipe, options.repetitions)
    show("Blocks", ["thickness of a section in pixels", "planes", "seconds"], rows)
    if options.picture:
        _draw(blocks, options.picture)
    needed = len(recipe.tissue.ratios) / recipe.tissue.pace
    figure = step / (needed * float(np.mean(seconds)))
    details = {"seconds_per_block": seconds, "seconds_per_step": step, "blocks_per_step": needed}
    conclude("tissue", figure, "steps", ">= 1", figure >= 1, details | {"machine": machine(options.threads)})


def _step(recipe, repetitions: int) -> float:  # type: ignore[no-untyped-def]
    """Return the seconds of a training step whose blocks are there."""
    objective = build_objective(recipe.model, 0).train()
    source = Synthetic(Tissue(1.0, recipe.tissue.pixel, recipe.tissue.kinds), held=2, pace=10**6)
    sampler = Sampler([source], objective.window, recipe.fov, 0, torch.device("cpu"))
    optimiser = MasterAdamW(objective, recipe.train)
    times = []
    for i in range(repetitions + 1):
        started = time.perf_counter()
        objective(sampler.batch(i, recipe.train.batch), step_generator(0, i))["loss"].backward()
        optimiser.step(1e-4)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def _draw(blocks: list[tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Draw the middle plane of every block, half of it with its classes in colour."""
    from matplotlib.image import imsave

    assert len(PALETTE) == len(CLASSES)
    tiles = []
    for image, labels in blocks:
        grey, classes = image[len(image) // 2], labels[len(labels) // 2]
        plain = np.repeat(grey[..., None], 3, axis=2)
        mixed = np.where((classes > 0)[..., None], 0.5 * plain + np.array(PALETTE)[classes] / 510, plain)
        half = grey.shape[1] // 2
        tiles.append(np.concatenate([plain[:, :half], mixed[:, half:]], axis=1))
    across = int(np.ceil(np.sqrt(len(tiles) * 1.5)))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % across)
    rows = [np.concatenate(tiles[i : i + across], axis=1) for i in range(0, len(tiles), across)]
    imsave(path, np.clip(np.concatenate(rows, axis=0), 0, 1))


if __name__ == "__main__":
    main()
