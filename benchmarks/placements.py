"""Placements of a masked autoencoder's fields of view: what each costs, how near it comes to the exact one.

Exact is MAESTER's cover-and-stride (CVPR 2023, section 3.3): each pixel has the vector of the patch centred
on it, one of the central 4 x 4 patches of a field of view. The others keep fewer or more patches of each, or
take one vector per patch and interpolate (expand-stride; whole-slice is a stride of the field of view).

    vectors/px    on the lattice, for each pixel of the crop
    FOV/kpx       fields of view encoded for 1000 pixels; those that overhang the crop count whole
    seconds       to vectors, and from these to one set of labels; the fastest of some repetitions, the exact
                  one timed before and after all others. Of the processor: two threads count twice, waiting
                  for other programs does not (on another device: of the clock)
    cosine        of interpolated vectors with the exact ones, the mean exact vector taken off both
    agreement     share of pixels with the exact label, under one labeller, fitted to exact vectors
    ARI           adjusted Rand index between labels where each placement has a labeller of its own
    Dice          greedy (see dice_tables.py), with the placement's own labeller

The last four are means, the last three over K and seeds. Labellers differ from seed to seed, whatever the
placement: the ARI between seeds says how much. The crop has to fit into memory with its vectors.

    python benchmarks/placements.py --model maester --threads 1 --json placements.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
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
from numpy.typing import NDArray
from pairs import HELP, Pair, open_pair
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from vemseg import metrics
from vemseg.context import Context
from vemseg.dense import ComputedVectors, Interpolations, argmax_interpolated, interpolated, lay_over
from vemseg.errors import UsageError
from vemseg.geometry import Box
from vemseg.labelling import AffineLabeller, Labeller, Sample, fit
from vemseg.models import open_model
from vemseg.recipe import ClusterTable, MaesterTable

EXACT = 4
BRIEF = 20.0
"""Seconds: what takes less is timed again."""

HEADER = (
    *("placement", "vectors/px", "FOV/kpx", "seconds", "pixels/s", "times exact"),
    *("cosine", "agreement", "ARI", "Dice"),
)

Key = tuple[int, int]
"""K and seed."""

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Way:
    """A placement: its name and its settings."""

    name: str
    settings: tuple[str, ...]

    @classmethod
    def cover(cls, kept: int) -> Way:
        """Return cover-and-stride that keeps ``kept`` x ``kept`` patches."""
        name = f"cover-and-stride m = {kept}" + (" (exact)" if kept == EXACT else "")
        return cls(name, ("embed.placement=cover-and-stride", f"embed.kept={kept}"))

    @classmethod
    def expand(cls, stride: int, fov: int) -> Way:
        """Return expand-stride that keeps ``stride`` x ``stride`` pixels."""
        name = f"expand-stride S = {stride}" + (" (whole-slice)" if stride == fov else "")
        return cls(name, ("embed.placement=expand-stride", f"embed.stride={stride}"))


@dataclass
class Laid:
    """A placement laid over the crop, and the vectors that came of it."""

    source: ComputedVectors
    box: Box
    axes: Interpolations
    points: Box
    vectors: Tensor

    @classmethod
    def over(cls, source: ComputedVectors, box: Box) -> Laid:
        """Compute all vectors of a crop."""
        points = source.points_of(box)
        return cls(source, box, source.interpolations(box), points, source.values(points))

    @property
    def size(self) -> dict[str, float]:
        """How many vectors and fields of view there are."""
        fields = math.prod(len(axis.starts) for axis in self.source.covering.layout.lattices)
        return {
            "vectors_per_pixel": round(self.points.size / self.box.size, 3),
            "fields_per_kilopixel": round(1000 * fields / self.box.size, 3),
        }

    def labels(self, labeller: Labeller) -> Labels:
        """Return 1 + the class of each pixel, as ``vemseg segment`` does, axes as the lattice has them."""
        return argmax_interpolated(labeller.scores(self.vectors.float()), self.axes)

    def labellers(self, n: int, table: ClusterTable, keys: list[Key]) -> dict[Key, Labeller]:
        """Fit labellers to ``n`` of the vectors within the crop."""
        inside = self.source.inside.clip(self.points).relative_to(self.points)
        flat = self.vectors[inside.slices].reshape(-1, self.vectors.shape[-1])
        chosen = np.random.default_rng(0).permutation(len(flat))[:n]
        sample, order = flat[torch.from_numpy(chosen)].numpy(), np.zeros(len(chosen), np.float32)
        tables = {(k, seed): table.model_copy(update={"k": k, "seed": seed}) for k, seed in keys}
        return {key: fit(one, Sample(sample, order)) for key, one in tables.items()}


def main() -> None:
    """Measure, print, write."""
    options = _options()
    context = Context(options.device, options.threads)
    pair = open_pair(options.volume, options.crop)
    recipe = open_model(options.model, options.set).recipe
    if not isinstance(recipe.model, MaesterTable):
        raise UsageError(f"'{options.model}' is no masked autoencoder: it has no fields of view to place")
    keys = list(itertools.product(options.k, options.seeds))
    reference = pair.reference.read(pair.reference.box)
    comparison: Comparison | None = None
    rows: list[dict[str, Any]] = []
    for way in _ways(recipe.model.fov, options):
        model = open_model(options.model, [*options.set, *way.settings])
        source = lay_over(model, pair.wanted, context)
        laid, seconds = _timed(source, pair.grey.box, options.repetitions)
        own = laid.labellers(options.sample, recipe.cluster, keys)
        comparison = comparison or Comparison(laid, own, reference.transpose(source.order))
        rows.append({"placement": way.name} | laid.size | {"timings": seconds} | comparison.of(laid, own))
        print(f"{way.name}: {json.dumps(rows[-1])}", file=sys.stderr, flush=True)
    assert comparison is not None
    rows[0]["timings"] += _timed(comparison.exact.source, pair.grey.box, 1)[1]
    _report(pair, rows, comparison.between_seeds(), options)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--volume", default="epfl_train_15nm", metavar="NAME[@Z,Y,X]", help=HELP)
    made.add_argument("--crop", default="27:29,:,:", help="z0:z1,y0:y1,x0:x1 (default: %(default)s)")
    made.add_argument("--model", default="maester", help="as 'vemseg segment -m' (default: %(default)s)")
    made.add_argument(
        "--kept", nargs="*", type=int, default=[2, 8, 16], help="of cover-and-stride, besides 4"
    )
    made.add_argument(
        "--strides", nargs="*", type=int, default=[20, 30, 40, 50, 60, 70, 80], help="of expand-stride"
    )
    made.add_argument("--k", nargs="+", type=int, default=[6, 8, 10], help="numbers of classes")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of the clustering")
    made.add_argument("--sample", type=int, default=30_000, help="vectors that a labeller is fitted on")
    made.add_argument("--set", nargs="*", default=[], metavar="TABLE.KEY=VALUE", help="settings of the model")
    made.add_argument("--repetitions", type=int, default=3, help="timings of what takes no more than 20 s")
    made.add_argument("--json", type=Path, help="write the report here")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the computation")
    return made.parse_args()


def _ways(fov: int, options: argparse.Namespace) -> list[Way]:
    """Return the placements, the exact one first."""
    covers = [Way.cover(kept) for kept in (EXACT, *(m for m in options.kept if m != EXACT))]
    return [*covers, *(Way.expand(stride, fov) for stride in options.strides)]


def _timed(source: ComputedVectors, box: Box, repetitions: int) -> tuple[Laid, list[float]]:
    """Lay a placement over a crop; return it and the seconds that took, each time it was done."""
    clock = time.process_time if source.machine.device.type == "cpu" else time.perf_counter
    any_labeller = AffineLabeller(np.ones((source.dim, 6), np.float32), np.zeros(6, np.float32))
    seconds: list[float] = []
    while not seconds or (len(seconds) < repetitions and max(seconds) <= BRIEF):
        started = clock()
        laid = Laid.over(source, box)
        laid.labels(any_labeller)
        seconds.append(round(clock() - started, 4))
    return laid, seconds


class Comparison:
    """What placements are compared with: the exact one, its labellers and their labels, the reference."""

    def __init__(self, exact: Laid, labellers: dict[Key, Labeller], reference: NDArray[Any]) -> None:
        self.exact = exact
        self.mean = exact.vectors.reshape(-1, exact.vectors.shape[-1]).float().mean(dim=0)
        self.labellers = labellers
        self.labels = {key: exact.labels(one) for key, one in labellers.items()}
        self.reference = reference

    def of(self, laid: Laid, own: dict[Key, Labeller]) -> dict[str, float]:
        """Compare a placement, given its own labellers."""
        agreement, rand, dice = [], [], []
        for key, exact in self.labels.items():
            agreement.append(float((laid.labels(self.labellers[key]) == exact).mean()))
            found = laid.labels(own[key])
            rand.append(_rand(found, exact))
            table = metrics.contingency(
                found - 1, self.reference, n_pred=key[0], n_ref=int(self.reference.max()) + 1
            )
            dice.append(metrics.score(table, metrics.merge_greedy(table)).mean())
        means = {"agreement": agreement, "ari": rand, "dice": dice}
        return {"cosine": round(self._cosine(laid), 4)} | {
            name: round(statistics.mean(values), 4) for name, values in means.items()
        }

    def _cosine(self, laid: Laid) -> float:
        """Return the mean cosine between interpolated vectors and the exact ones."""
        total, count = 0.0, 0
        strips = (interpolated(one.vectors.float(), one.axes) for one in (laid, self.exact))
        for (_, _, ours), (_, _, exact) in zip(*strips, strict=True):
            cosine = torch.nn.functional.cosine_similarity(ours - self.mean, exact - self.mean, dim=-1)
            total, count = total + float(cosine.sum()), count + cosine.numel()
        return total / count

    def between_seeds(self) -> float | None:
        """Return the mean adjusted Rand index between seeds of the exact placement."""
        pairs = itertools.combinations(self.labels.items(), 2)
        found = [_rand(a, b) for ((k, _), a), ((other, _), b) in pairs if k == other]
        return round(statistics.mean(found), 4) if found else None


def _rand(a: Labels, b: Labels) -> float:
    return float(adjusted_rand_score(a.ravel(), b.ravel()))


def _report(
    pair: Pair, rows: list[dict[str, Any]], between_seeds: float | None, options: argparse.Namespace
) -> None:
    """Print the table and everything as JSON."""
    for row in rows:
        row["seconds"] = min(row["timings"])
        row["pixels_per_second"] = round(pair.grey.box.size / row["seconds"])
        row["times_exact"] = float(f"{rows[0]['seconds'] / row['seconds']:.3g}")
    shape = " x ".join(map(str, pair.grey.shape))
    print(f"\n{options.model} on {pair.name}, {shape} pixels; K = {options.k}, seeds {options.seeds}")
    print(f"ARI between seeds, exact placement: {between_seeds}\n")
    print(f"| {' | '.join(HEADER)} |\n|---|{'---:|' * (len(HEADER) - 1)}")
    for row in rows:
        print(
            f"| {row['placement']} | {row['vectors_per_pixel']:.2f} | {row['fields_per_kilopixel']:.3g} "
            f"| {row['seconds']:.3g} | {row['pixels_per_second']:,} | {row['times_exact']:g} "
            f"| {row['cosine']:.3f} | {row['agreement']:.3f} | {row['ari']:.3f} | {row['dice']:.3f} |"
        )
    report = {"benchmark": "placements", "model": options.model, "settings": options.set, "volume": pair.name}
    report |= {"crop": options.crop, "shape": list(pair.grey.shape), "k": options.k, "seeds": options.seeds}
    report |= {"sample": options.sample, "ari_between_seeds": between_seeds, "placements": rows}
    report["machine"] = machine(options.threads)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    print("\n" + json.dumps(report))


if __name__ == "__main__":
    main()
