r"""How well the number of classes that is chosen without labels predicts Dice, which needs labels.

For each K of a range: what ``-k auto`` measures (stability, and the information kept where the
encoder knows classes of its own) beside the Dice that the classes reach (mean over seeds, both protocols of
``dice_tables.py``). Then Spearman's rank correlation of each measure with Dice over K, and the Dice at the K
that is chosen against the best K and fixed ones.

    python benchmarks/choosing_k.py --volumes epfl_train_15nm --threads 1 --json choosing.json

Models and volumes are given as for ``dice_tables.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from common import add_scoring, machine, show
from counting import PROTOCOLS
from dice_tables import Candidate, scores_of
from pairs import HELP, Pair, open_pair
from scipy.stats import spearmanr

from vemseg.context import Context
from vemseg.dense import lay_over
from vemseg.labelling import Choice, find_classes
from vemseg.models import Model

FIXED = (6, 8)
"""Numbers of classes that one might take without looking; the first is the default of the recipes."""


def main() -> None:
    """Compute, print, write."""
    options = _options()
    candidates = [Candidate.of(given, options.set) for given in options.model or [["vemseg"], ["classical"]]]
    found = []
    for text in options.volumes:
        pair = open_pair(text, options.crop)
        for one in candidates:
            found += _results(pair, one.name, one.open(pair.name), options)
    fixed = [f"K = {k}" for k in FIXED]
    heads = ["volume", "model", "seed", "protocol", "chosen K", "Dice", "best K", "Dice", *fixed, "ranks"]
    show("Dice at the K that is chosen", heads, [_summary(one) for one in found])
    models = {one.name: [one.model, *one.settings] for one in candidates}
    report = {"benchmark": "choosing_k", "models": models, "machine": machine(options.threads)}
    if options.json:
        options.json.write_text(json.dumps(report | {"results": found}, indent=2) + "\n")
    print("\n" + json.dumps(report))


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    volumes = ["epfl_train_15nm", "cdeep3m_mito_train", "drosophila_vnc"]
    made.add_argument("--volumes", nargs="+", default=volumes, metavar="NAME[@Z,Y,X]", help=HELP)
    made.add_argument("--model", nargs="+", action="append", metavar=("[NAME=]MODEL", "TABLE.KEY=VALUE"))
    made.add_argument("--range", nargs=2, type=int, default=[4, 12], help="first and last number of classes")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the clustering for Dice")
    made.add_argument("--choices", nargs="+", type=int, default=[0, 1, 2], help="seeds of the choice")
    made.add_argument("--set", nargs="*", default=[], metavar="TABLE.KEY=VALUE", help="for all models")
    add_scoring(made)
    return made.parse_args()


def _results(pair: Pair, name: str, model: Model, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the choices of one model on one volume beside its Dice, one entry per seed and protocol."""
    first, last = options.range
    options.k = list(range(first, last + 1))
    scores = scores_of(pair, name, model, options)
    context, table = Context(options.device, options.threads), model.recipe.cluster
    source = lay_over(model, pair.wanted, context)
    sample = source.sample(table.sample_of(pair.grey.box.size), table.seed, context)
    found: list[dict[str, Any]] = []
    for seed in options.choices:
        started = time.perf_counter()
        own = table.model_copy(update={"k": last, "k_range": (first, last), "seed": seed})
        choice = Choice.of(find_classes(own, sample, source, context).metadata["choice"])
        seconds = round(time.perf_counter() - started, 1)
        dice = {protocol: _means(scores, protocol, options.k) for protocol in PROTOCOLS}
        _print_curve(f"{pair.name}, {name}, seed {seed}: K = {choice.k} ({seconds} s)", choice, dice)
        base = {"volume": pair.name, "model": name, "seed": seed, "seconds": seconds, "choice": choice.facts}
        found += [base | {"protocol": protocol, "dice": means} for protocol, means in dice.items()]
    return found


def _means(scores: Sequence[Mapping[str, Any]], protocol: str, ks: Sequence[int]) -> list[float]:
    """Return the mean Dice at each K, over seeds and classes."""
    return [
        round(statistics.mean(s["mean"] for s in scores if s["k"] == k and s["protocol"] == protocol), 4)
        for k in ks
    ]


def _print_curve(title: str, choice: Choice, dice: Mapping[str, Sequence[float]]) -> None:
    rows = []
    for i, one in enumerate(choice.curve):
        measures = ["-" if value is None else value for value in one]
        rows.append([*measures, *(means[i] for means in dice.values())])
    show(title, [*choice.curve[0]._fields, *dice], rows)


def _summary(one: Mapping[str, Any]) -> list[str]:
    """Return the row of one choice: Dice at its K, at the best and at fixed ones, and the correlations."""
    curve, dice = one["choice"]["curve"], one["dice"]
    at = {tried["k"]: value for tried, value in zip(curve, dice, strict=True)}
    best = max(at, key=lambda k: at[k])
    ranks = [
        f"{measure} {spearmanr([tried[measure] for tried in curve], dice).statistic:+.2f}"
        for measure in ("stability", "kept")
        if curve[0][measure] is not None
    ]
    chosen = one["choice"]["k"]
    shown = [f"{at[k]:.3f}" if k in at else "-" for k in (chosen, best, *FIXED)]
    names = [one[key] for key in ("volume", "model", "seed", "protocol")]
    return [*map(str, names), str(chosen), shown[0], str(best), *shown[1:], ", ".join(ranks)]


if __name__ == "__main__":
    main()
