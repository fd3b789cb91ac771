r"""Dice of unsupervised classes against reference labels: models x volumes x K x seeds, under two protocols.

    hungarian   clusters and classes matched one to one, the other clusters left out (Han et al., CVPRW 2022)
    greedy      the match, and then every further cluster that raises the mean Dice is merged into a class

Both look at the reference, so on new data expect less. Vectors are computed once per model, volume and block,
whatever the number of K and seeds. Volumes are the folders of $VEMSEG_TEST_DATA, or of ../shared/data beside
the repository, each with raw.tif and labels.tif; or any pair given as NAME=RAW,LABELS.

Models are given one by one, each with settings of its own; {volume} in a path is the name of the volume:

    python benchmarks/dice_tables.py --model classical --model vemseg --model maester \
        --model smoother=vemseg embed.smooth=3 cluster.scale=standardise --model own=runs/{volume} \
        --set cluster.sample=100000 --seeds 0 1 2 --json dice.json
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

from common import machine
from counting import PROTOCOLS, count, fit_all, labelled, lay, scored
from pairs import HELP, Pair, open_pair

from vemseg.context import Context
from vemseg.models import Model, open_model
from vemseg.resources import parse_bytes


@dataclass(frozen=True)
class Candidate:
    """A model as it is asked for: its name in the table, where it is, and its own settings."""

    name: str
    model: str
    settings: tuple[str, ...]

    @classmethod
    def of(cls, given: list[str], common: list[str]) -> Candidate:
        """Read ``[NAME=]MODEL [TABLE.KEY=VALUE ...]``."""
        name, named, model = given[0].partition("=")
        title = name if named else " ".join(given)
        return cls(title, model if named else name, (*common, *given[1:]))

    def open(self, volume: str) -> Model:
        """Open the model meant for a volume."""
        return open_model(self.model.replace("{volume}", volume), self.settings)


def main() -> None:
    """Compute, print, write."""
    options = _options()
    candidates = [Candidate.of(given, options.set) for given in options.model or [["vemseg"], ["classical"]]]
    pairs = [open_pair(text, options.crop) for text in options.volumes]
    opened = [(pair, one.name, one.open(pair.name)) for pair in pairs for one in candidates]
    results = [score for pair, name, model in opened for score in scores_of(pair, name, model, options)]
    report = {
        "benchmark": "dice_tables",
        "models": {one.name: [one.model, *one.settings] for one in candidates},
        "machine": machine(options.threads),
    }
    if options.json:
        options.json.write_text(json.dumps(report | {"results": results}, indent=2) + "\n")
    for pair in pairs:
        print_table(pair, [one for one in results if one["volume"] == pair.name])
    print("\n" + json.dumps(report | {"means": _short(results)}))


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    volumes = ["epfl_train_15nm", "cdeep3m_mito_train", "drosophila_vnc"]
    made.add_argument("--volumes", nargs="+", default=volumes, metavar="NAME[@Z,Y,X]", help=HELP)
    made.add_argument(
        "--model",
        nargs="+",
        action="append",
        metavar=("[NAME=]MODEL", "TABLE.KEY=VALUE"),
        help="as 'vemseg segment -m', and settings for it alone; may be given again and again",
    )
    made.add_argument("--k", nargs="+", type=int, default=[6, 7, 8, 9, 10], help="numbers of classes")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of the clustering")
    made.add_argument(
        "--set", nargs="*", default=[], metavar="TABLE.KEY=VALUE", help="settings of all models"
    )
    made.add_argument("--crop", help="use this part of each volume, z0:z1,y0:y1,x0:x1")
    made.add_argument("--json", type=Path, help="write all scores here")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda")
    made.add_argument("--max-memory", type=parse_bytes, help="such as 2GiB; left out, as 'vemseg segment'")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the computation")
    return made.parse_args()


def scores_of(pair: Pair, name: str, model: Model, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the scores of one model on one volume, one entry per K, seed and protocol.

    ``options`` holds ``k``, ``seeds``, ``device``, ``threads`` and ``max_memory``.
    """
    started = time.perf_counter()
    context = Context(options.device, options.threads, options.max_memory)
    source, regions = lay(model, pair, context)
    labellers, refused = fit_all(regions or source, options.k, options.seeds, context)
    for key, reason in refused.items():
        print(f"{pair.name}, {name}, K and seed {key}: {reason}", file=sys.stderr)
    counts = count(pair, labelled(source, regions, labellers, context))
    print(f"{pair.name}, {name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    found = []
    for (k, seed), tables in counts.items():
        entry = {"volume": pair.name, "model": name, "k": k, "seed": seed}
        found += [entry | scored(pair, tables.sum(axis=0), protocol) for protocol in PROTOCOLS]
    return found


def print_table(pair: Pair, results: list[dict[str, Any]]) -> None:
    """Print one Markdown table: the mean Dice at each K, over all K, and of each class over all K."""
    names, ks = list(pair.classes.values()), sorted({one["k"] for one in results})
    header = ["model", "protocol", *(f"K = {k}" for k in ks), "mean", *names]
    print(f"\n### {pair.name}\n\nDice, mean ± standard deviation; from 'mean' on over all K and seeds\n")
    print(f"| {' | '.join(header)} |\n|---|---|{'---:|' * (len(header) - 2)}")
    groups = grouped(results, "protocol", "model")
    for (protocol, model), runs in sorted(groups.items(), key=lambda group: group[0][0]):
        at = [spread_of([run["mean"] for run in runs if run["k"] == k]) for k in ks]
        over = [spread_of([run["mean"] for run in runs])]
        over += [spread_of([run["dice"][name] for run in runs]) for name in names]
        print(f"| {model} | {protocol} | {' | '.join([*at, *over])} |")


def _short(results: list[dict[str, Any]]) -> list[list[Any]]:
    """Return volume, model, protocol and the mean Dice over all K and seeds."""
    groups = grouped(results, "volume", "model", "protocol")
    return [[*key, round(statistics.mean(run["mean"] for run in runs), 4)] for key, runs in groups.items()]


def grouped(results: list[dict[str, Any]], *keys: str) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Return the results with equal values of some keys together, in the order of their first."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in results:
        groups.setdefault(tuple(one[key] for key in keys), []).append(one)
    return groups


def spread_of(values: list[float]) -> str:
    """Return mean and standard deviation in words, the mean alone where there is one value, else nothing."""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


if __name__ == "__main__":
    main()
