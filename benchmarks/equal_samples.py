"""Methods trained on the very volume that they label: for equal samples, and others for as much time."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cells import Cell, Over, add_cells, compute, deadline_of, key_of, markdown, read_lines, threads_of
from dice_tables import Candidate, grouped, scores_of, spread_of
from pairs import HELP, open_pair
from subspaces import subspace_ratios

from vemseg.context import Context
from vemseg.models import Model, open_model
from vemseg.pipeline.train import Training, train
from vemseg.recipe import load_recipe
from vemseg.run import Run

ENDLESS = 10**8
"""Steps of a training that the time ends."""


def add_dice(made: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    made.add_argument("volumes", nargs="+", metavar="NAME[@Z,Y,X]", help=HELP)
    recipes = {"nargs": "+", "action": "append", "metavar": ("[NAME=]RECIPE", "TABLE.KEY=VALUE")}
    made.add_argument("--method", **recipes, help="trained for --samples; han2022 and cihs if left out")
    made.add_argument("--beside", **recipes, default=[], help="trained as long as the first method")
    made.add_argument("--ready", **recipes, default=[], help="models that need no training, such as vemseg")
    made.add_argument("--crop", help="use this part of each volume, z0:z1,y0:y1,x0:x1")
    made.add_argument("--samples", type=int, default=1_000_000, help="anchors (parents) of each training")
    made.add_argument("--stride", type=int, default=2, help="voxels between vectors of cubes; 1 is published")
    made.add_argument("--k", type=int, nargs="+", default=[4, 6, 8, 10], help="numbers of classes")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the clustering")
    made.add_argument("--places", type=int, default=1000, help="where subspaces are compared")
    add_cells(made, "han2022-work")
    made.set_defaults(run=measure_dice, max_memory=None)


def measure_dice(options: argparse.Namespace) -> None:
    """Train and score what is not there yet, and print the tables of what is."""
    options.deadline, options.threads = deadline_of(options), threads_of(options)
    options.method = options.method or [["han2022"], ["cihs"]]
    options.work.mkdir(parents=True, exist_ok=True)
    work = partial(_cell, options)
    first = [*_cells(options, options.method, "samples"), *_cells(options, options.ready, "ready")]
    done = compute(work, first, options.json, options.jobs, options.deadline)
    last = list(_cells(options, options.beside, "time"))
    done &= compute(work, last, options.json, options.jobs, options.deadline)
    text = _tables(options)
    if options.markdown:
        options.markdown.write_text(text)
    print(text if done else f"{text}\nNot all cells are done: the same command goes on.")


def _cells(options: argparse.Namespace, given: list[list[str]], role: str) -> Iterator[Cell]:
    """Yield a cell for each method and volume; those that are trained for a time only where it is known."""
    for volume in options.volumes:
        limit = _seconds_of_first(options, volume) if role == "time" else None
        if role == "time" and limit is None:
            continue
        for method in given:
            cell = {"volume": volume, "crop": options.crop, "method": method, "role": role}
            cell |= {"samples": options.samples, "stride": options.stride, "k": options.k}
            yield cell | {"seeds": options.seeds, "seconds": limit}


def _seconds_of_first(options: argparse.Namespace, volume: str) -> float | None:
    """Return how long the first method was trained on a volume; None where it is not trained yet."""
    for line in read_lines(options.json):
        cell = line["cell"]
        same = (cell["volume"], cell["crop"], cell["samples"]) == (volume, options.crop, options.samples)
        if same and cell["role"] == "samples" and cell["method"] == options.method[0]:
            return float(line["result"]["trained"])
    return None


def _cell(options: argparse.Namespace, cell: Cell) -> dict[str, Any]:
    """Train a method on a volume, if it is trained at all, and score its labels."""
    pair = open_pair(cell["volume"], cell["crop"])
    candidate = Candidate.of(cell["method"], [])
    if cell["role"] == "ready":
        model, seconds = candidate.open(pair.name), 0.0
    else:
        out = options.work / f"{pair.name}-{candidate.name}-{key_of(cell)}"
        model, seconds = _trained(options, cell, candidate, out)
    print(f"{pair.name}, {candidate.name}: trained in {seconds:.0f} s", flush=True)
    strided = model.recipe.model.kind in ("han2022", "cihs") and cell["stride"] > 1
    sparse = ["embed.placement=expand-stride", f"embed.stride={cell['stride']}"]
    if strided:
        model = open_model(str(model.weights.parent if model.weights else candidate.model), sparse)
    scores = scores_of(pair, candidate.name, model, options)
    result = {"trained": seconds, "run": str(model.weights or ""), "scores": scores}
    if model.recipe.model.kind == "han2022":
        picture = options.work / f"{pair.name}-{candidate.name}.png"
        result["subspaces"] = subspace_ratios(model, pair, options.places, options.device, picture)
    return result


def _trained(options: argparse.Namespace, cell: Cell, candidate: Candidate, out: Path) -> tuple[Model, float]:
    """Return a trained model, and the seconds of its training; go on where that was stopped."""
    recipe = load_recipe(candidate.model, list(candidate.settings))
    equal = cell["role"] == "samples"
    steps = max(1, cell["samples"] // recipe.train.batch) if equal else ENDLESS
    recipe = load_recipe(candidate.model, [*candidate.settings, f"train.steps={steps}"])
    wanted = open_pair(cell["volume"], cell["crop"]).wanted
    context = Context(options.device, options.threads, stopped=Over(options.deadline))
    training = Training(
        [wanted.path],
        out,
        recipe,
        voxel_size=wanted.voxel_size,
        crop=wanted.crop,
        max_seconds=cell["seconds"],
    )
    train(training, context)
    return open_model(str(out)), round(float(Run.open(out).info["seconds"]), 1)


def _tables(options: argparse.Namespace) -> str:
    """Return a table of each volume in Markdown."""
    lines, text = read_lines(options.json), ""
    for volume in options.volumes:
        chosen = [line for line in lines if line["cell"]["volume"] == volume]
        rows = [score for line in chosen for score in line["result"]["scores"]]
        trained = {line["result"]["scores"][0]["model"]: line["result"]["trained"] for line in chosen}
        text += _table(rows, trained) if rows else ""
        text += _subspaces(chosen)
    return text


def _subspaces(lines: list[dict[str, Any]]) -> str:
    """Return a table of how invariant the subspaces of every model of han2022 are."""
    found = [line for line in lines if "subspaces" in line["result"]]
    if not found:
        return ""
    header = ["variance within places over between", "semantic", "other", "other / semantic"]
    body = [
        [f"{' '.join(line['cell']['method'])}, cubes {kind}", f"{a:.3f}", f"{b:.3f}", f"{b / a:.2f}"]
        for line in found
        for kind, (a, b) in line["result"]["subspaces"].items()
    ]
    return markdown(f"{found[0]['cell']['volume']}, subspaces", header, body)


def _table(rows: list[dict[str, Any]], trained: dict[str, float]) -> str:
    """Return a table: the mean Dice at each K, and the Dice of each class over all K and seeds."""
    ks, names = sorted({row["k"] for row in rows}), list(rows[0]["dice"])
    header = ["method", "protocol", "trained, s", *(f"K = {k}" for k in ks), "mean", *names]
    body = []
    groups = grouped(rows, "protocol", "model")
    for (protocol, method), runs in sorted(groups.items(), key=lambda group: group[0][0]):
        at = [spread_of([run["mean"] for run in runs if run["k"] == k]) for k in ks]
        mean = f"{statistics.mean(run['mean'] for run in runs):.3f}"
        over = [spread_of([run["dice"][name] for run in runs]) for name in names]
        body.append([method, protocol, f"{trained[method]:.0f}", *at, mean, *over])
    return markdown(f"{rows[0]['volume']}, Dice", header, body)
