r"""Dice against the number of clicked voxels: what a few points are worth, on vectors that need no labels.

    naming    each cluster of k-means takes the class that most of its points have (refine --points)
    read-out  logistic regression on the same vectors (cluster --points)

Voxels are drawn at random from each class of the reference, as many of each. They are scored, too: 256 are
some ten thousandths of a volume. Clusters in which no point lies stand for no class.

    python benchmarks/clicks.py --volumes epfl_train_15nm@15,15,15 drosophila_vnc@50,4.6,4.6 --json c.json
    python benchmarks/clicks.py --model vemseg --model own=runs/{volume} --figure clicks.png
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import add_scoring, machine, show
from counting import Key, count, labelled, lay
from dice_tables import Candidate
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pairs import HELP, Pair, open_pair

from vemseg import metrics
from vemseg.context import Context
from vemseg.dense import LatticeVectors
from vemseg.drawing import save
from vemseg.labelling import Examples, Labeller, Sample, fit
from vemseg.objects import Votes
from vemseg.points import Points
from vemseg.recipe import override

SEED = 0xC11C
"""With the number of a draw, the seed of its voxels."""


def main() -> None:
    """Compute, print, draw, write."""
    options = _options()
    candidates = [
        Candidate.of(given, options.set)
        for given in options.model or [["vemseg"], ["maester"], ["classical"]]
    ]
    results = []
    for text in options.volumes:
        pair = open_pair(text, options.crop)
        for one in candidates:
            started = time.perf_counter()
            results += _results(pair, one, options)
            print(f"{pair.name}, {one.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        _print(pair, [one for one in results if one["volume"] == pair.name])
    report = {"benchmark": "clicks", "machine": machine(options.threads), "results": results}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.figure:
        save(_curves(results), options.figure, dpi=150)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    volumes = ["epfl_train_15nm@15,15,15"]
    made.add_argument("--volumes", nargs="+", default=volumes, metavar="NAME[@Z,Y,X]", help=HELP)
    made.add_argument("--model", nargs="+", action="append", metavar=("[NAME=]MODEL", "TABLE.KEY=VALUE"))
    made.add_argument(
        "--clicks", nargs="+", type=int, default=[1, 4, 16, 64, 256], help="voxels of each class"
    )
    made.add_argument("--draws", type=int, default=10, help="of the voxels, for each number")
    made.add_argument("--k", type=int, default=10, help="clusters that are named")
    default = ["cluster.sample=100000"]
    made.add_argument("--set", nargs="*", default=default, metavar="TABLE.KEY=VALUE", help="for all models")
    made.add_argument("--figure", type=Path, help="draw the curves here, .png")
    add_scoring(made)
    return made.parse_args()


def _results(pair: Pair, one: Candidate, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the Dice of a model for each number of clicks and draw, named clusters and read-out."""
    context = Context(options.device, options.threads)
    source, _ = lay(one.open(pair.name), pair, context)
    source = source.held(context)
    table = source.maker.recipe.cluster
    sample = source.sample(table.sample_of(pair.grey.box.size), table.seed, context)
    clusters = fit(table.of(options.k), sample, source, context)
    draws = list(itertools.product(options.clicks, range(options.draws)))
    drawn = [_draw(pair, n, draw) for n, draw in draws]
    labellers: dict[Key, Labeller] = {(clusters.k, -1): clusters}
    votes = []
    for number, points in enumerate(drawn):
        vectors = source.at(points.voxels)
        labellers[len(points.names), number] = _readout(source, sample, vectors, points)
        votes.append(_votes(clusters, vectors, points))
    counts = count(pair, labelled(source, None, labellers, context))
    found = []
    for number, ((n, draw), points) in enumerate(zip(draws, drawn, strict=True)):
        base = {"volume": pair.name, "model": one.name, "clicks": n, "draw": draw}
        taught = counts[len(points.names), number].sum(axis=0)
        by_name = {i: _class_of(pair, name) for i, name in enumerate(points.names)}
        named = {k - 1: _class_of(pair, points.names[c]) for k, c in votes[number].winners.items()}
        ways = {"read-out": (taught, by_name), "naming": (counts[clusters.k, -1].sum(axis=0), named)}
        found += [base | {"way": way} | _dice(pair, *both) for way, both in ways.items()]
    return found


def _draw(pair: Pair, n: int, draw: int) -> Points:
    """Draw ``n`` voxels of each class of the reference; all of a class that has fewer."""
    rng = np.random.default_rng([SEED, n, draw])
    reference = pair.reference.read(pair.reference.box)
    voxels, classes = [], []
    for i, g in enumerate(pair.classes):
        places = np.flatnonzero(reference == g)
        chosen = rng.choice(places, min(n, len(places)), replace=False)
        voxels.append(np.stack(np.unravel_index(chosen, reference.shape), axis=1))
        classes.append(np.full(len(chosen), i))
    return Points(np.concatenate(voxels), np.concatenate(classes), tuple(pair.classes.values()))


def _readout(
    source: LatticeVectors, sample: Sample, vectors: NDArray[np.float32], points: Points
) -> Labeller:
    table = override(source.maker.recipe, ["cluster.method=points"]).cluster
    given = Examples(vectors, points.classes, points.names)
    return fit(table, Sample(sample.vectors, sample.intensities, examples=given), source)


def _votes(clusters: Labeller, vectors: NDArray[np.float32], points: Points) -> Votes:
    """Return how many points of each class lie in each cluster, 1..K."""
    found = 1 + clusters.scores(torch.from_numpy(vectors)).argmax(dim=-1).numpy()
    return Votes.of(found, points)


def _class_of(pair: Pair, name: str) -> int:
    return next(g for g, known in pair.classes.items() if known == name)


def _dice(pair: Pair, table: NDArray[np.int64], mapping: Mapping[int, int]) -> dict[str, Any]:
    scores = metrics.score(table, metrics.merge_manual(table, dict(mapping)))
    dice = {pair.classes[g]: round(float(scores.dice[g]), 4) for g in scores.present}
    return {"dice": dice, "mean": round(scores.mean(), 4)}


def _print(pair: Pair, results: Sequence[Mapping[str, Any]]) -> None:
    """Print mean and standard deviation over the draws, of the mean over classes and of each class."""
    header = ["model", "way", "clicks", "mean", *pair.classes.values()]
    rows = []
    for key in dict.fromkeys((one["model"], one["way"], one["clicks"]) for one in results):
        mine = [one for one in results if (one["model"], one["way"], one["clicks"]) == key]
        values = [[one["mean"] for one in mine]]
        values += [[one["dice"][name] for one in mine] for name in pair.classes.values()]
        rows.append([*key, *map(_spread, values)])
    show(f"{pair.name}: Dice against clicked voxels of each class", header, sorted(rows, key=lambda r: r[:2]))


def _spread(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ({deviation:.3f})"


def _curves(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the mean Dice against the clicks, a panel for each volume."""
    volumes, models = (list(dict.fromkeys(one[key] for one in results)) for key in ("volume", "model"))
    figure = Figure(figsize=(3.5 * len(volumes) + 2, 3.4), layout="constrained")
    lines: dict[str, Any] = {}
    for axes, volume in zip(figure.subplots(1, len(volumes), squeeze=False)[0], volumes, strict=True):
        here = [one for one in results if one["volume"] == volume]
        for model, way in dict.fromkeys((one["model"], one["way"]) for one in here):
            mine = [one for one in here if (one["model"], one["way"]) == (model, way)]
            clicks = sorted({one["clicks"] for one in mine})
            values = [[one["mean"] for one in mine if one["clicks"] == n] for n in clicks]
            means = [statistics.mean(part) for part in values]
            spread = [statistics.stdev(part) if len(part) > 1 else 0.0 for part in values]
            style = {"linestyle": "-" if way == "read-out" else "--", "color": f"C{models.index(model)}"}
            lines[f"{model}, {way}"] = axes.errorbar(clicks, means, spread, marker="o", markersize=3, **style)
        axes.set(xscale="log", xlabel="clicked voxels of each class", ylabel="mean Dice", title=volume)
        axes.set_xticks(clicks, [str(n) for n in clicks], minor=False)
        axes.minorticks_off()
        axes.grid(color="0.92")
    figure.legend(lines.values(), lines, loc="outside right center", fontsize=8, frameon=False)
    return figure


if __name__ == "__main__":
    main()
