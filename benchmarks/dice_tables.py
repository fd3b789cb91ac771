"""Dice of unsupervised classes against reference labels: models x volumes x K x seeds, under two protocols.

    hungarian   clusters and classes matched one to one, the other clusters left out (Han et al., CVPRW 2022)
    greedy      the match, and then every further cluster that raises the mean Dice is merged into a class

Both look at the reference, so they are upper bounds. Vectors are computed once per model, volume and block,
whatever the number of K and seeds. Volumes are the folders of $VEMSEG_TEST_DATA, or of ../shared/data beside
the repository, each with raw.tif and labels.tif; or any pair given as NAME=RAW,LABELS.

    python benchmarks/dice_tables.py --models maester classical --k 4 6 8 --json dice.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine
from torch import Tensor

from vemseg import metrics
from vemseg.clustering import Clusterer, fit
from vemseg.dense import DenseEncoder, Head, Interpolations, labels
from vemseg.errors import InputError
from vemseg.geometry import Box
from vemseg.pipeline.common import open_input, open_model, sharp_plane_first
from vemseg.pipeline.dense_input import draw_sample, lay_model
from vemseg.pipeline.segment import block_shape
from vemseg.volume import Permuted, Volume, open_volume

DATA = Path(os.environ.get("VEMSEG_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CLASSES = {
    "epfl_train_15nm": {0: "rest", 1: "mitochondrion"},
    "epfl_train_10nm": {0: "rest", 1: "mitochondrion"},
    "cdeep3m_mito_train": {0: "rest", 1: "mitochondrion"},
    "drosophila_vnc": {1: "membrane", 2: "glia", 3: "mitochondrion", 4: "synapse", 5: "cytoplasm"},
}
BLOCK_VOXELS = 2**21
PROTOCOLS = {"hungarian": metrics.match_hungarian, "greedy": metrics.merge_greedy}


@dataclass(frozen=True)
class Pair:
    """A grey volume and its labels, the sharp plane as (y, x)."""

    name: str
    grey: Volume
    reference: Volume

    @property
    def classes(self) -> dict[int, str]:
        """Names of the reference's classes."""
        found = np.unique(self.reference.read(self.reference.box)).tolist()
        return {g: CLASSES.get(self.name, {}).get(g, f"class {g}") for g in found}


class Block:
    """Vectors of one block of voxels, computed once and scored by many clusterers."""

    def __init__(self, dense: DenseEncoder, box: Box) -> None:
        z, y, x = dense.interpolations(box)
        self._dense = dense
        self._vectors = dense.values(Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))).float()

    def values(self, cells: Box, head: Head) -> Tensor:
        """Return what a head makes of the vectors; ``cells`` are those of the block."""
        assert cells.shape == self._vectors.shape[:3]
        return head(self._vectors)

    def interpolations(self, box: Box) -> Interpolations:
        """Return how each axis is interpolated from the lattice."""
        return self._dense.interpolations(box)


def main() -> None:
    """Compute, print, write."""
    options = _options()
    torch.set_num_threads(options.threads)
    pairs = [_open(name, options.crop) for name in options.volumes]
    results = [one for pair in pairs for model in options.models for one in _run(pair, model, options)]
    for pair in pairs:
        _print_table(pair, [one for one in results if one["volume"] == pair.name])
    report = {"benchmark": "dice_tables", "settings": options.set, "machine": machine(options.threads)}
    report["results"] = results
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    print("\n" + json.dumps(report | {"results": _short(results)}))


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    volumes = ["epfl_train_15nm", "cdeep3m_mito_train", "drosophila_vnc"]
    made.add_argument(
        "--volumes",
        nargs="+",
        default=volumes,
        metavar="NAME[@Z,Y,X]",
        help="folders of the data directory, or NAME=RAW,LABELS; @ gives a voxel size in nm",
    )
    made.add_argument("--models", nargs="+", default=["maester", "classical"], help="as 'vemseg segment -m'")
    made.add_argument("--k", nargs="+", type=int, default=[4, 6, 8, 10], help="numbers of classes")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of k-means")
    made.add_argument(
        "--set", nargs="*", default=[], metavar="TABLE.KEY=VALUE", help="settings of the models"
    )
    made.add_argument("--crop", help="use this part of each volume, z0:z1,y0:y1,x0:x1")
    made.add_argument("--json", type=Path, help="write all scores here")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the computation")
    return made.parse_args()


def _open(text: str, crop: str | None) -> Pair:
    """Open a pair, turned so that its sharp plane is (y, x)."""
    text, _, size = text.partition("@")
    name, _, paths = text.partition("=")
    raw, _, reference = (
        paths.partition(",") if paths else (str(DATA / name / "raw.tif"), "", str(DATA / name / "labels.tif"))
    )
    grey, order = sharp_plane_first(open_input(raw, size or None, crop))
    found = open_volume(reference, crop=crop)
    turned = found if order == (0, 1, 2) else Permuted(found, order)
    if turned.shape != grey.shape:
        raise InputError(f"{name}: the volume has {grey.shape} voxels, its labels have {turned.shape}")
    return Pair(name, grey, turned)


def _run(pair: Pair, name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the scores of one model on one volume, one entry per K, seed and protocol."""
    started = time.perf_counter()
    model = open_model(name, options.set)
    dense = lay_model(model, pair.grey, options.device)
    table = model.recipe.cluster
    vectors, grey = draw_sample(dense, table.sample, table.seed, _say_nothing)
    clusterers = {
        (k, seed): fit(vectors, grey, table.model_copy(update={"k": k, "seed": seed}))
        for k in options.k
        for seed in options.seeds
    }
    tables = _count(pair, dense, clusterers)
    print(f"{pair.name}, {name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    found = []
    for (k, seed), counted in tables.items():
        for protocol, assign in PROTOCOLS.items():
            scores = metrics.score(counted, assign(counted))
            dice = {pair.classes[g]: round(float(scores.dice[g]), 4) for g in scores.present}
            entry = {"volume": pair.name, "model": name, "k": k, "seed": seed, "protocol": protocol}
            found.append(entry | {"dice": dice, "mean": round(scores.mean(), 4)})
    return found


def _count(
    pair: Pair, dense: DenseEncoder, clusterers: dict[tuple[int, int], Clusterer]
) -> dict[tuple[int, int], metrics.Table]:
    """Return the contingency table of each clusterer, clusters 0..K-1 by reference labels, block by block."""
    top = max(pair.classes) + 1
    tables = {key: np.zeros((one.k, top), np.int64) for key, one in clusterers.items()}
    for box in pair.grey.box.split(block_shape(pair.grey.shape, (0, 1, 2), dense.in_cubes, BLOCK_VOXELS)):
        block, reference = Block(dense, box), pair.reference.read(box)
        for key, clusterer in clusterers.items():
            found = labels(block, box, clusterer.scores) - 1
            tables[key] += metrics.contingency(found, reference, n_pred=clusterer.k, n_ref=top)
    return tables


def _print_table(pair: Pair, results: list[dict[str, Any]]) -> None:
    """Print one Markdown table: median and range over seeds do not fit, so mean and standard deviation do."""
    names = list(pair.classes.values())
    print(f"\n### {pair.name}\n\nDice, mean over seeds ± standard deviation\n")
    print("| model | K | protocol | " + " | ".join(names) + " | mean |")
    print("|---|---|---|" + "---|" * (len(names) + 1))
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for one in results:
        groups.setdefault((one["model"], one["k"], one["protocol"]), []).append(one)
    for (model, k, protocol), runs in sorted(groups.items(), key=lambda g: (g[0][0], g[0][2], g[0][1])):
        cells = [_cell([run["dice"][name] for run in runs]) for name in names]
        print(
            f"| {model} | {k} | {protocol} | {' | '.join(cells)} | {_cell([run['mean'] for run in runs])} |"
        )


def _short(results: list[dict[str, Any]]) -> list[list[Any]]:
    """Return volume, model, K, protocol and the mean Dice over seeds."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for one in results:
        groups.setdefault((one["volume"], one["model"], one["k"], one["protocol"]), []).append(one["mean"])
    return [[*key, round(statistics.mean(values), 4)] for key, values in groups.items()]


def _cell(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def _say_nothing(stage: str, fraction: float, detail: str = "") -> None:
    """Report progress to nobody."""


if __name__ == "__main__":
    main()
