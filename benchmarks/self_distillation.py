r"""HiS4MAE against SdAE-recon and MAESTER, trained on the volume they segment: Dice over the training.

Every candidate is trained with ``vemseg train`` for the same time (``--minutes``, one core each: pin the
script) or the same number of steps (``--steps``), and its encoders are kept as it goes. All are of the sizes,
batches and learning rate of ``maester-quick``; what else they differ in stands in ``CANDIDATES``. A training
that is there already is used as it is. Then every kept encoder is scored as by ``dice_tables.py``.

    taskset -c 0 python benchmarks/self_distillation.py runs --minutes 20 --json dice.json
    python benchmarks/self_distillation.py runs --steps 3000 --volumes epfl_train_15nm \
        --candidates his4mae visible all ema-epoch --every 3000
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from common import machine, show
from dice_tables import scores_of
from pairs import DATA, HELP, open_pair

from vemseg.models import open_model
from vemseg.run import Run

CANDIDATES: dict[str, tuple[str, str]] = {
    "his4mae": ("his4mae-quick", ""),
    "sdae_recon": ("sdae_recon-quick", ""),
    "maester": ("maester-quick", ""),
    "visible": ("his4mae-quick", "model.teacher_sees=visible"),
    "all": ("his4mae-quick", "model.loss_on=all"),
    "ema-epoch": ("his4mae-quick", "model.ema=epoch model.momentum=[0.96,0.99]"),
    "often": ("his4mae-quick", "model.epoch=160"),
    "fov40": ("his4mae-quick", "model.fov=40 train.batch=64 embed.stride=40 model.epoch=5056"),
    "eps": ("his4mae-quick", "train.eps=1e-12"),
    "sdae_recon-as-mae": (
        "sdae_recon-quick",
        "model.epoch=1264 model.mask_ratio=0.5 model.folds=1 model.drop_path=0.0 model.ema=step "
        "model.momentum=[0.996,1.0]",
    ),
}
"""Recipe and settings by name; from ``visible`` on, HiS4MAE with one thing changed."""
AXES = (("seconds", "minutes of training", 60.0), ("samples", "thousand samples", 1000.0))
HEADER = ["candidate", "step", "samples", "minutes", "reconstruction", "Dice", "over seeds"]


def main() -> None:
    """Train, score, print, write."""
    options = _options()
    results: list[dict[str, Any]] = []
    for volume in options.volumes:
        rows = []
        for name, seed in itertools.product(options.candidates, options.training_seeds):
            title = f"{name}-{seed}" if seed else name
            run = options.runs / volume / title
            if not options.score_only:
                _train(volume, name, seed, run, options)
            found = _score(volume, title, run, options)
            results += found
            rows += [_row(entry) for entry in found]
        show(f"{volume}: greedy Dice without 'rest', mean over K = {options.k}", HEADER, rows)
    report = {"benchmark": "self_distillation", "machine": machine(options.threads), "results": results}
    if options.figure:
        _draw(results, options.figure)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("runs", type=Path, help="folder of the trainings, as VOLUME/CANDIDATE")
    made.add_argument("--volumes", nargs="+", default=["epfl_train_15nm", "drosophila_vnc"], help=HELP)
    first = list(CANDIDATES)[:3]
    made.add_argument("--candidates", nargs="+", choices=list(CANDIDATES), default=first)
    made.add_argument("--training-seeds", nargs="+", type=int, default=[0], help="one training for each")
    made.add_argument("--minutes", type=float, help="of each training")
    made.add_argument("--steps", type=int, help="of each training, instead")
    made.add_argument("--snapshots", type=int, default=500, help="steps between two encoders that are kept")
    made.add_argument(
        "--every", type=int, default=1000, help="steps between two that are scored; the last is"
    )
    made.add_argument("--score-only", action="store_true", help="train nothing")
    made.add_argument("--k", nargs="+", type=int, default=[4, 6, 8, 10], help="numbers of classes")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of the clustering")
    made.add_argument("--set", nargs="*", default=[], metavar="TABLE.KEY=VALUE", help="for the scoring")
    made.add_argument("--json", type=Path, help="write all scores here")
    made.add_argument("--figure", type=Path, help="draw Dice over the training here, .png")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the scoring")
    made.set_defaults(max_memory=None)
    return made.parse_args()


def _train(volume: str, name: str, seed: int, run: Path, options: argparse.Namespace) -> None:
    """Train a candidate, unless it is there."""
    if run.exists() and Run.open(run).finished:
        return
    recipe, settings = CANDIDATES[name]
    chosen = [*settings.split(), f"train.snapshot_every={options.snapshots}", f"train.seed={seed}"]
    if options.steps:
        chosen.append(f"train.steps={options.steps}")
    command = ["-m", "vemseg", "train", "-c", recipe, str(DATA / volume / "raw.tif"), "-o", str(run)]
    command += [word for text in chosen for word in ("--set", text)]
    if options.minutes:
        command += ["--max-time", f"{60 * options.minutes:g}s"]
    subprocess.run([sys.executable, *command], check=True, stdout=sys.stderr)


def _score(volume: str, name: str, run: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the scores of the kept encoders of a training, with where these stood."""
    opened = Run.open(run)
    course = {line["step"]: line for line in opened.read_metrics()}
    last = max(course)
    kept = sorted(path for path in run.glob("model-*.safetensors"))
    steps = {int(path.stem.partition("-")[2]): path for path in kept}
    chosen = {step: path for step, path in steps.items() if step % options.every == 0 and step < last}
    pair = open_pair(volume)
    found = []
    for step, path in [*chosen.items(), (last, run)]:
        scores = scores_of(pair, name, open_model(str(path), options.set), options)
        line = course.get(step, {})
        entry = {key: line.get(key) for key in ("samples", "seconds", "loss", "reconstruction")}
        found.append({"volume": volume, "candidate": name, "step": step, **entry, "scores": scores})
    return found


def _dice(entry: dict[str, Any]) -> tuple[float, float]:
    """Return the Dice of all classes but "rest", over K and seeds; its deviation over seeds, mean over K."""
    at: dict[int, list[float]] = {}
    for one in entry["scores"]:
        if one["protocol"] == "greedy":
            named = [value for name, value in one["dice"].items() if name != "rest"]
            at.setdefault(one["k"], []).append(statistics.mean(named))
    spread = statistics.mean(statistics.stdev(values) if len(values) > 1 else 0.0 for values in at.values())
    return statistics.mean(value for values in at.values() for value in values), spread


def _row(entry: dict[str, Any]) -> list[Any]:
    """Return a line of the table."""
    pixels = entry["reconstruction"] if entry["reconstruction"] is not None else entry["loss"]
    minutes = round((entry["seconds"] or 0) / 60, 1)
    shown = "" if pixels is None else f"{pixels:.4f}"
    dice, spread = _dice(entry)
    return [
        entry["candidate"],
        entry["step"],
        entry["samples"],
        minutes,
        shown,
        f"{dice:.3f}",
        f"{spread:.3f}",
    ]


def _draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw Dice over minutes and over samples, a row of panels for each volume."""
    volumes = list(dict.fromkeys(entry["volume"] for entry in results))
    figure, axes = plt.subplots(len(volumes), 2, figsize=(8, 2.6 * len(volumes)), squeeze=False, sharey="row")
    for row, volume in zip(axes, volumes, strict=True):
        for panel, (key, unit, scale) in zip(row, AXES, strict=True):
            for name in dict.fromkeys(e["candidate"] for e in results if e["volume"] == volume):
                mine = [e for e in results if e["volume"] == volume and e["candidate"] == name]
                dice, spread = zip(*(_dice(entry) for entry in mine), strict=True)
                where = [(entry[key] or 0) / scale for entry in mine]
                panel.errorbar(where, dice, spread, marker="o", markersize=3, capsize=2, label=name)
            panel.set(xlabel=unit, title=volume)
            panel.grid(color="0.92")
        row[0].set_ylabel("Dice")
        row[0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
