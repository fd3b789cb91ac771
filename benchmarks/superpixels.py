r"""Superpixels and SCCS: the Dice of every labeller on the same vectors, and what a tile costs.

    dice      all labellers x volumes x encoders x K x seeds, and the ablations of the paper's Table 1
    seconds   a region of 560 x 560 pixels stage by stage beside the paper's 1.997, 1.129 and 0.003 s, and the
              whole beside exact cover-and-stride

Columns of the tables, mean and deviation over seeds:

    Dice         of all classes, under the protocols of dice_tables.py
    border       the same, over voxels within 3 voxels of a border between classes of the reference
    tiles        share of voxels that get the same class where every tile is labelled alone as in whole slices
    slices       share of voxels that have the class of the same voxel in the next slice; the reference's own
                 is in the title

"voxels" is k-means on the vectors of voxels, without regions; all others work on regions. SCCS is trained on
the very volume, without its labels. "sccs w/o ..." are its ablations: the paper's (numerical spectral
clustering is "spectral"; "NC_hm" is k-means on the coordinates of each graph, matched with the reference
graph by graph; "NC_inc" takes the centres of the incremental k-means as classes) and some of its settings.

A slice of many thousand regions costs spectral clustering and DeepCut time that grows with its square. Then
``--set regions.whole=false --tile 512`` labels tiles of this edge instead, and "tiles" have half of it.

Every result is appended to --json at once, and the same command goes on where it was stopped.

    vemseg fetch phantom -o cell.tif
    python benchmarks/superpixels.py dice epfl_train_15nm drosophila_vnc cdeep3m_mito_train \
        cell=cell.tif,cell_labels.tif --encoder maester --encoder vemseg --json dice.jsonl --jobs 8
    python benchmarks/superpixels.py seconds --encoder maester --device cuda
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import Cell, Over, add_cells, compute, deadline_of, key_of, markdown, read_lines, threads_of
from dice_tables import Candidate, grouped, spread_of
from divided import Divided, Part, across_slices
from numpy.typing import NDArray
from pairs import open_pair
from region_seconds import add_seconds

from vemseg import metrics
from vemseg.context import Context
from vemseg.dense import GraphSampler, label_blocks
from vemseg.graphs import Graph
from vemseg.graphs.incremental import kmeans_labels
from vemseg.labelling import Labeller, Sample, fit
from vemseg.labelling.sccs import SccsLabeller
from vemseg.models import Model, build_labeller
from vemseg.models.sccs import LABELLER, SpectralClustering
from vemseg.pipeline.train import Course, Training, carry_out, details_of
from vemseg.recipe import Recipe, load_recipe, override
from vemseg.run import Run

METHODS: dict[str, Sequence[str]] = {
    "voxels": ["cluster.method=kmeans"],  # scaled as the encoder's recipe says
    "kmeans": ["cluster.method=kmeans"],
    "incremental": ["cluster.method=incremental"],
    "spectral": ["cluster.method=spectral"],
    "dsm": ["cluster.method=dsm"],
    "deepcut ncut": ["cluster.method=deepcut", "cluster.loss=ncut"],
    "deepcut cc": ["cluster.method=deepcut", "cluster.loss=cc"],
    "sccs": [],
}
"""The labellers, and the settings that choose them."""

ABLATIONS: dict[str, Sequence[str]] = {
    "sccs w/o moving centres": ["cluster.every=1000000"],
    "sccs w/o smoothness": ["cluster.smoothness=0.0"],
    "sccs w/o spectral loss": ["cluster.spectral=0.0"],
    "sccs w/o warm-up": ["cluster.warmup=0"],
    "sccs not centred": ["cluster.centred=false"],
    "sccs kappa 2": ["cluster.kappa=2.0"],
    "sccs density 0.03": ["cluster.density=0.03"],
    "sccs density 0.3": ["cluster.density=0.3"],
}
"""SCCS with one thing changed."""


def main() -> None:
    """Measure and print."""
    options = _options()
    options.run(options)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = made.add_subparsers(required=True)
    dice = parts.add_parser("dice", help="Dice, borders and consistency of all labellers")
    dice.add_argument("volumes", nargs="+", help="see pairs.py")
    _add_encoder(dice)
    dice.add_argument("--crop", help="part of each volume, z0:z1,y0:y1,x0:x1")
    dice.add_argument("--k", type=int, nargs="+", default=[6, 8, 10], help="numbers of classes")
    dice.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    dice.add_argument("--steps", type=int, default=2000, help="steps of training SCCS; the paper has 6000")
    dice.add_argument("--tile", type=int, default=256, help="edge of the tiles that SCCS is trained on")
    dice.add_argument("--sample", type=int, default=50_000, help="vectors that classes are fitted on")
    dice.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS], metavar="METHOD")
    dice.add_argument("--ablations", type=int, nargs="*", default=[8], help="the K for which they are made")
    dice.add_argument("--set", action="append", default=[], help="settings of the recipe sccs")
    add_cells(dice, "superpixels-work")
    dice.set_defaults(run=measure_dice)
    seconds = parts.add_parser("seconds", help="what a region of 560 x 560 pixels costs")
    _add_encoder(seconds)
    add_seconds(seconds)
    return made.parse_args()


def _add_encoder(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--encoder",
        nargs="+",
        action="append",
        required=True,
        metavar=("[NAME=]MODEL", "TABLE.KEY=VALUE"),
        help="as 'vemseg segment -m', and settings for it alone; may be given again and again",
    )


# Dice


def measure_dice(options: argparse.Namespace) -> None:
    """Compute all cells, and print the tables of what is there."""
    options.deadline, options.threads = deadline_of(options), threads_of(options)
    options.work.mkdir(parents=True, exist_ok=True)
    pairs = [{"volume": volume, "encoder": given} for volume in options.volumes for given in options.encoder]
    ready = compute(partial(_prepare, options), pairs, None, options.jobs, options.deadline)
    done = ready and compute(
        partial(_cell, options), _cells(options), options.json, options.jobs, options.deadline
    )
    text = _tables(options)
    if options.markdown:
        options.markdown.write_text(text)
    print(text if done else f"{text}\nNot all cells are done: the same command goes on.")


def _cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield all cells, quick methods first."""
    trained = [f"train.steps={options.steps}"]
    wanted = [(name, [*METHODS[name]], k) for name in options.methods if name != "sccs" for k in options.k]
    if "sccs" in options.methods:
        wanted += [("sccs", trained, k) for k in options.k]
        wanted += [(name, [*trained, *ABLATIONS[name]], k) for name in ABLATIONS for k in options.ablations]
    for name, settings, k in wanted:
        for volume in options.volumes:
            for given in options.encoder:
                for seed in options.seeds:
                    yield {
                        "volume": volume,
                        "crop": options.crop,
                        "encoder": given,
                        "method": name,
                        "k": k,
                        "seed": seed,
                        "settings": settings,
                        "set": [f"regions.tile={options.tile}", *options.set],
                        "sample": options.sample,
                    }


def _prepare(options: argparse.Namespace, cell: Cell) -> None:
    """Compute vectors and regions of a volume by an encoder."""
    _opened(options, cell)


def _opened(options: argparse.Namespace, cell: Cell) -> tuple[Divided, Model, Recipe]:
    """Return the divided volume of a cell, the encoder, and the recipe of SCCS for its vectors."""
    encoder = Candidate.of(cell["encoder"], [])
    model = encoder.open("")
    settings = [*encoder.settings, f"regions.tile={options.tile}", *options.set]
    recipe = override(load_recipe("sccs").on_vectors_of(model.recipe), settings)
    context = Context(options.device, options.threads, stopped=Over(options.deadline))
    divided = Divided.open(
        options.work, cell["volume"], options.crop, (encoder.model, *encoder.settings), recipe, context
    )
    return divided, model, recipe


def _cell(options: argparse.Namespace, cell: Cell) -> list[dict[str, Any]]:
    """Return the entries of a cell: one for each method that it measures and each protocol."""
    divided, model, recipe = _opened(options, cell)
    own = [*cell["settings"], f"cluster.k={cell['k']}", f"cluster.seed={cell['seed']}"]
    recipe = override(recipe, [*own, f"train.seed={cell['seed']}"])
    slices, tiles = divided.parts(True), divided.parts(False)
    if cell["method"] == "voxels":
        recipe = override(recipe, [f"cluster.scale={model.recipe.cluster.scale}"])
        return _named("voxels", divided.scores(_voxels(divided, recipe, cell)))
    if recipe.cluster.method != "sccs":
        sample = divided.sample(slices, cell["sample"], cell["seed"])
        labeller = fit(recipe.cluster, sample, divided.regions(True), divided.context)
        return _named(cell["method"], _scored(divided, slices, tiles, _best(labeller)))
    objective, labeller = _trained(divided, model, recipe, options.work / "runs" / key_of(cell))
    found = _named(cell["method"], _scored(divided, slices, tiles, _best(labeller)))
    if cell["method"] == "sccs":
        nearest = _nearest(objective, labeller)
        found += _named("sccs w/o NC_inc", _scored(divided, slices, tiles, nearest))
        matched = _matched(divided, slices, labeller, cell)
        found += _named("sccs w/o NC_hm", divided.scores(matched))
    return found


def _named(method: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"method": method, **entry} for entry in entries]


def _best(labeller: Labeller) -> Callable[[Graph], torch.Tensor]:
    return lambda graph: labeller.graph_scores(graph).argmax(dim=1)


def _scored(
    divided: Divided, slices: list[Part], tiles: list[Part], classes: Callable[[Graph], torch.Tensor]
) -> list[dict[str, Any]]:
    return divided.scores(divided.painted(slices, classes), divided.painted(tiles, classes))


def _voxels(divided: Divided, recipe: Recipe, cell: Cell) -> NDArray[np.uint8]:
    """Return the labels of k-means on the vectors of voxels."""
    source = divided.source
    sample = source.sample(cell["sample"], cell["seed"], divided.context)
    labeller = fit(recipe.cluster, sample, source, divided.context)
    whole = divided.pair.grey.box
    labels = np.empty(whole.shape, np.uint8)
    for box in whole.split(label_blocks(source, labeller.k, divided.context.limit).shape):
        labels[box.slices] = source.labels(box, source.read(box), labeller)
    return labels.transpose(source.order) - 1


def _trained(
    divided: Divided, model: Model, recipe: Recipe, out: Path
) -> tuple[SpectralClustering, SccsLabeller]:
    """Train SCCS on the stored vectors of a volume; where it is stopped, the same call goes on with it."""
    source = divided.source
    sampler = GraphSampler([source], recipe)
    objective = build_labeller(recipe.cluster, recipe.train.seed, model.load(), sampler.dim)
    assert isinstance(objective, SpectralClustering)
    again = (out / "run.json").exists() and Run.open(out).finished  # but its result was not written
    training = Training([divided.pair.wanted.path], out, recipe, encoder=model, overwrite=again)
    details = details_of(training, [divided.pair.grey], [None], source.machine)
    course = Course(objective, sampler, source.machine, [], details)
    carry_out(training, recipe, course, divided.context)
    arrays = {
        name.removeprefix(LABELLER): value.detach().float().cpu().numpy()
        for name, value in objective.tensors().items()
    }
    nothing = np.empty((0, sampler.dim), np.float16), np.empty(0, np.float32)
    labeller = fit(recipe.cluster, Sample(*nothing, learned=arrays))
    assert isinstance(labeller, SccsLabeller)
    shutil.rmtree(out)
    return objective, labeller


def _nearest(objective: SpectralClustering, labeller: SccsLabeller) -> Callable[[Graph], torch.Tensor]:
    """Return what takes the class of the nearest centre of the incremental k-means, dark to bright."""
    centres = objective.means.centres[objective.means.order].double().cpu()
    return lambda graph: torch.cdist(labeller.coordinates(graph), centres).argmin(dim=1)


def _matched(divided: Divided, slices: list[Part], labeller: SccsLabeller, cell: Cell) -> NDArray[np.uint8]:
    """Return labels by k-means on the coordinates of each graph, matched with the reference in that graph."""
    top = max(divided.pair.classes) + 1
    labels = np.full(divided.reference.shape, top, np.uint8)  # one more class: matched with none
    for part in slices:
        z = labeller.coordinates(part.graph).numpy()
        k = min(cell["k"], len(z))
        found = kmeans_labels(z, k, cell["seed"], 20)[part.numbers]
        table = metrics.contingency(found, divided.reference[part.box.slices], n_pred=k, n_ref=top)
        names = metrics.match_hungarian(table).lookup(k, unassigned=top)
        labels[part.box.slices] = names[found]
    return labels


# Tables


def _tables(options: argparse.Namespace) -> str:
    """Return the tables of all results in Markdown, one for each volume and encoder."""
    lines = read_lines(options.json)
    text = ""
    for volume in options.volumes:
        pair = open_pair(volume, options.crop)
        own = across_slices(pair.reference.read(pair.reference.box))
        for given in options.encoder:
            rows = [
                {"k": line["cell"]["k"], **entry}
                for line in lines
                if (line["cell"]["volume"], line["cell"]["encoder"]) == (volume, given)
                for entry in line["result"]
            ]
            title = f"{pair.name}, vectors of {' '.join(given)} (slices of the reference: {own})"
            text += _table(title, rows, list(pair.classes.values())) if rows else ""
    return text


def _table(title: str, rows: list[dict[str, Any]], names: list[str]) -> str:
    """Return a table: the mean Dice at each K, and everything else over all K and seeds."""
    ks = sorted({row["k"] for row in rows})
    header = ["method", "protocol", *(f"K = {k}" for k in ks), "mean", "border", "tiles", "slices", *names]
    body = []
    for (protocol, method), runs in sorted(
        grouped(rows, "protocol", "method").items(), key=lambda g: g[0][0]
    ):
        at = [_mean([run["mean"] for run in runs if run["k"] == k]) for k in ks]
        over = [_mean([run[key] for run in runs]) for key in ("mean", "border", "tiles", "slices")]
        body.append([method, protocol, *at, *over, *(_mean([run["dice"][n] for run in runs]) for n in names)])
    return markdown(title, header, body)


def _mean(values: list[float | None]) -> str:
    """Return mean and deviation of the values that are known."""
    known = [value for value in values if value is not None]
    return spread_of(known) if known else "-"


if __name__ == "__main__":
    main()
