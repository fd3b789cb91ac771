"""Superpixels and SCCS: what a tile costs, and the Dice of every method on the same vectors of regions.

    seconds      of one processor for a tile: encoding, dividing and summing up, the network (the paper names
                 1.997, 1.129 and 0.003 s for 560 x 560 pixels on a GPU)
    Dice         greedy (see dice_tables.py), mean over classes, mean and deviation over seeds
    border       the same, over voxels within 3 voxels of a border between classes of the reference
    consistency  share of voxels that get the same class in whole slices and in tiles

"voxels" is k-means on the vectors of voxels, without regions. SCCS is trained on the very volume, without its
labels. Other programs make no difference to the seconds: those of the processor are counted.

    python benchmarks/superpixels.py epfl_train_15nm --model maester --crop 0:4,0:256,0:256 --steps 300
    python benchmarks/superpixels.py epfl_train_15nm --model maester --set cluster.kappa=0.5
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import show
from numpy.typing import NDArray
from pairs import Pair, open_pair
from scipy.ndimage import distance_transform_cdt

from vemseg import metrics
from vemseg.context import Context
from vemseg.dense import LatticeVectors, RegionVectors, VectorSource, lay_over
from vemseg.graphs import Affinity, SpectralNetwork
from vemseg.labelling import Labeller, fit
from vemseg.models import Model, open_model
from vemseg.pipeline.train import Training, train
from vemseg.recipe import SccsTable, load_recipe, override

METHODS = ("kmeans", "incremental", "spectral", "dsm", "deepcut", "sccs")
NEAR = 3
"""Voxels from a border between classes."""


def main() -> None:
    """Measure and print."""
    options = _options()
    torch.set_num_threads(1)
    recipe = load_recipe("sccs", [f"cluster.k={options.k}", f"train.steps={options.steps}", *options.set])
    encoder = open_model(options.model)
    model = replace(encoder, recipe=recipe.on_vectors_of(encoder.recipe))
    for name in options.volumes:
        pair = open_pair(name, options.crop)
        source = lay_over(model, pair.wanted, Context("cpu", 1))
        header = ("encoding", "regions", "affinity and network", "regions of the tile", "density")
        show(f"{pair.name}: processor seconds of a tile", header, [_stages(source, model)])
        rows = [_row(pair, source, method, options.seeds, model) for method in ("voxels", *METHODS[:-1])]
        rows.append(_row_of(pair, source, "sccs", list(_trained(pair, model, encoder, options.seeds)), model))
        show(f"{pair.name}: {options.k} classes", ("method", "Dice", "border", "consistency"), rows)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("volumes", nargs="+", help="see pairs.py")
    made.add_argument("--model", default="maester", help="the encoder")
    made.add_argument("--crop", help="part of each volume, z0:z1,y0:y1,x0:x1")
    made.add_argument("-k", type=int, default=8, help="number of classes")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    made.add_argument("--steps", type=int, default=1000, help="steps of training SCCS")
    made.add_argument("--set", action="append", default=[], help="settings of the recipe sccs")
    return made.parse_args()


def _stages(source: LatticeVectors, model: Model) -> list[object]:
    """Return the seconds of each stage for the first tile, its regions and the density of their affinity."""
    tiles = RegionVectors(source, model.recipe.regions, whole=False)
    box = tiles.parts.box(0)
    started = time.process_time()
    source.values(source.points_of(box.clip(source.volume.box)))
    encoded = time.process_time()
    graph = tiles.divided(0).graph
    divided = time.process_time()
    table = model.recipe.cluster
    assert isinstance(table, SccsTable)
    vectors = graph.features(torch.float64)
    affinity = Affinity.of(vectors, table)
    network = SpectralNetwork(tiles.dim, table.widths, table.k).double()
    with torch.no_grad():
        network.logits(network.coordinates(vectors, affinity))
    ended = time.process_time()
    encoding = encoded - started
    return [
        f"{encoding:.3f}",
        f"{divided - encoded - encoding:.3f}",
        f"{ended - divided:.3f}",
        len(graph),
        f"{affinity.density:.3f}",
    ]


def _row(pair: Pair, source: LatticeVectors, method: str, seeds: Sequence[int], model: Model) -> list[str]:
    """Return the row of a method that is fitted to the volume."""
    regions = RegionVectors(source, model.recipe.regions)
    taken: VectorSource = source if method == "voxels" else regions
    name = "kmeans" if method == "voxels" else method
    recipe = override(model.recipe, [f"cluster.method={name}", "cluster.sample=50000"])
    sample = taken.sample(recipe.cluster.sample_of(pair.grey.box.size), 0, Context())
    labellers = [fit(recipe.cluster.model_copy(update={"seed": seed}), sample, taken) for seed in seeds]
    return _row_of(pair, source, method, labellers, model)


def _trained(pair: Pair, model: Model, encoder: Model, seeds: Sequence[int]) -> Iterator[Labeller]:
    """Yield the labeller of SCCS, trained on the volume with each seed."""
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            recipe = override(model.recipe, [f"train.seed={seed}", f"cluster.seed={seed}"])
            out = Path(folder) / "run"
            wanted = pair.wanted
            training = Training(
                [wanted.path], out, recipe, encoder=encoder, voxel_size=wanted.voxel_size, crop=wanted.crop
            )
            learned = open_model(str(train(training, Context("cpu", 1))))
            source = RegionVectors(lay_over(learned, wanted, Context("cpu", 1)), recipe.regions)
            yield fit(recipe.cluster, source.sample(0, 0, Context()), source)


def _row_of(
    pair: Pair, source: LatticeVectors, method: str, labellers: Sequence[Labeller], model: Model
) -> list[str]:
    """Return the row of some labellers of one method: mean and spread over them."""
    table = model.recipe.regions
    painted = [source] if method == "voxels" else [RegionVectors(source, table, w) for w in (True, False)]
    reference = pair.reference.read(pair.reference.box)
    near = _near_borders(reference)
    figures = []
    for labeller in labellers:
        labels = [one.labels(pair.grey.box, one.read(pair.grey.box), labeller) for one in painted]
        same = float((labels[0] == labels[-1]).mean())
        figures.append((_dice(labels[0], reference), _dice(labels[0][near], reference[near]), same))
    means, spreads = np.mean(figures, axis=0), np.std(figures, axis=0)
    cells = [f"{mean:.3f} +- {spread:.3f}" for mean, spread in zip(means, spreads, strict=True)]
    return [method, *(cells if method != "voxels" else [*cells[:2], "-"])]


def _dice(labels: NDArray[np.uint8], reference: NDArray[np.generic]) -> float:
    """Return the mean Dice after greedy merging."""
    found = metrics.contingency(
        labels - 1, reference, n_pred=int(labels.max()), n_ref=int(reference.max()) + 1
    )
    return metrics.score(found, metrics.merge_greedy(found)).mean()


def _near_borders(reference: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return which voxels lie within ``NEAR`` voxels, in their slice, of one of another class."""
    near = np.zeros(reference.shape, bool)
    for number in np.unique(reference):
        for plane, out in zip(reference == number, near, strict=True):
            if plane.any() and not plane.all():
                out |= plane & (distance_transform_cdt(plane, "chessboard") <= NEAR)
    return near


if __name__ == "__main__":
    main()
