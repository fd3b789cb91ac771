r"""The tables of docs/results.md, made anew: what trains on a volume is trained, then everything is scored.

On each volume ``maester-quick``, ``his4mae-quick`` and ``invariance`` (the default before ``vemseg``) are
trained for the same minutes, and ``vemseg`` is adapted to it for at most as many. What is in the folder
already is used as it is. Then ``dice_tables.py`` scores them all beside ``classical`` and the bundled
weights, and ``named_classes.py`` scores the classes that ``vemseg`` has without clustering.

    python benchmarks/tables.py tables --minutes 10 --json tables/tables.json

The phantom needs nothing but vemseg. The other volumes are the folders of $VEMSEG_TEST_DATA.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from common import add_scoring, machine, show
from dice_tables import Candidate, print_table, scores_of
from named_classes import named_dice
from pairs import HELP, Pair, open_pair

from vemseg.run import Run

TRAINED = ("maester-quick", "his4mae-quick", "invariance")
"""Recipes of encoders that are trained on the volume they segment."""

VOLUMES = (
    "epfl_train_15nm@15,15,15",
    "epfl_train_10nm@10,10,10",
    "drosophila_vnc@50,4.6,4.6",
    "cdeep3m_mito_train",
    "phantom",
)


def main() -> None:
    """Train, score, print, write."""
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    results, named = [], []
    for text in options.volumes:
        pair = open_pair(_phantom(options.folder) if text == "phantom" else text, options.crop)
        models = {"classical": "classical", "vemseg": "vemseg"} | _runs(pair, options)
        scores = [
            score
            for name, model in models.items()
            for score in scores_of(
                pair, name, Candidate(name, model, tuple(options.set)).open(pair.name), options
            )
        ]
        print_table(pair, scores)
        results += scores
        for name in ("vemseg", "vemseg, adapted"):
            if name in models:
                dice = named_dice(pair, models[name], options)
                named += [[pair.name, name, found, f"{value:.3f}"] for found, value in dice.items()]
    show("Dice of the encoder's own classes", ["volume", "model", "class", "Dice"], named)
    report = {"benchmark": "tables", "machine": machine(options.threads), "results": results, "named": named}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="of the trainings and the phantom")
    made.add_argument(
        "--volumes", nargs="+", default=list(VOLUMES), metavar="NAME[@Z,Y,X]", help=f"{HELP}; or phantom"
    )
    made.add_argument("--minutes", type=float, default=10.0, help="of each training; 0: train nothing")
    made.add_argument("--k", nargs="+", type=int, default=[6, 7, 8, 9, 10], help="numbers of classes")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of the clustering")
    made.add_argument("--training-seed", type=int, default=0, help="of the trainings")
    made.add_argument(
        "--set",
        nargs="*",
        default=["cluster.sample=100000"],
        metavar="TABLE.KEY=VALUE",
        help="settings of all models when they are scored",
    )
    add_scoring(made)
    return made.parse_args()


def _phantom(folder: Path) -> str:
    """Make the phantom unless it is there, and return it as a pair."""
    path = folder / "phantom.tif"
    if not path.exists():
        _vemseg("fetch", "phantom", "-o", str(path))
    return f"phantom={path},{path.with_name('phantom_labels.tif')}@16,16,16"


def _runs(pair: Pair, options: argparse.Namespace) -> dict[str, str]:
    """Train what is trained on this volume, unless it is there, and return the runs by name."""
    if not options.minutes:
        return {}
    home = options.folder / f"seed-{options.training_seed}" / pair.name
    home.mkdir(parents=True, exist_ok=True)
    where = [pair.wanted.path]
    if pair.wanted.voxel_size:
        where += ["--voxel-size", pair.wanted.voxel_size]
    seed = ["--set", f"train.seed={options.training_seed}"]
    most = f"{60 * options.minutes:g}s"
    found = {}
    for recipe in TRAINED:
        run = home / recipe
        if not _finished(run):
            _vemseg("train", "-c", recipe, *where, *seed, "-o", str(run), "--max-time", most)
        found[recipe] = str(run)
    run = home / "adapted.run"
    if not _finished(run):
        _vemseg("segment", *where, *seed, "-k", "6", "--adapt", most, "-f", "-o", str(home / "adapted.tif"))
    return found | {"vemseg, adapted": str(run)}


def _finished(run: Path) -> bool:
    return run.exists() and Run.open(run).finished


def _vemseg(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "vemseg", *words], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
