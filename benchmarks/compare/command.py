r"""Compare systems on volumes, with equal budgets, several seeds and both protocols; see ``systems.toml``.

    python benchmarks/compare FOLDER --setting smoke
    python benchmarks/compare FOLDER --setting cpu --jobs 8 --max-time 3h
    python benchmarks/compare FOLDER --systems classical vemseg maester-quick --minutes 5 --k 4 6 8 \
        --volumes cell=RAW,LABELS@16,16,16
    python benchmarks/compare FOLDER --experiment maester-2 --betaseg betaseg --device cuda
    python benchmarks/compare FOLDER --experiment maester-2 --plan

The folder keeps every training and every finished cell. After a stop or a kill the same command goes on,
and repeats no finished cell; systems, volumes and training seeds may be added. Other settings need another
folder.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pairs import HELP

from compare import experiments
from compare.places import place_of
from compare.plan import Common, Plan, has_phantom
from compare.systems import HERE, chosen, known_systems
from vemseg.cli.parsing import duration
from vemseg.context import Context
from vemseg.errors import Interrupted, UsageError, VemsegError

LISTS = ("volumes", "systems", "k", "seeds", "training_seeds", "slices")
DEFAULTS: dict[str, Any] = {
    "k": [6, 7, 8, 9, 10],
    "seeds": [0, 1, 2, 3, 4],
    "training_seeds": [0],
    "slices": [1, 3, 10],
    "crop": None,
    "minutes": None,
    "samples": None,
}


def main() -> int:
    """Parse, carry out, and return the exit code."""
    options = _parser().parse_args()
    try:
        return _compare(options)
    except VemsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("folder", type=Path, help="of the comparison")
    made.add_argument("--setting", help="lists and budgets by name (settings.toml): smoke, cpu, gpu")
    made.add_argument("--experiment", help="a table of a paper by name (experiments.toml)")
    made.add_argument(
        "--betaseg", type=Path, default=Path("betaseg"), help="where 'vemseg fetch betaseg' put it"
    )
    made.add_argument("--systems", nargs="+", help="names (systems.toml)")
    made.add_argument("--volumes", nargs="+", metavar="NAME[@Z,Y,X]", help=f"{HELP}; or phantom")
    made.add_argument("--crop", help="use this part of each volume, z0:z1,y0:y1,x0:x1")
    budget = made.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="of each training; its schedule ends with them")
    budget.add_argument("--samples", type=int, help="that each training sees, instead")
    made.add_argument("--k", nargs="+", type=int, help="numbers of classes")
    made.add_argument("--seeds", nargs="+", type=int, help="of the clustering")
    made.add_argument("--training-seeds", nargs="+", type=int, help="of the trainings")
    made.add_argument(
        "--slices", nargs="+", type=int, help="numbers of labelled slices for what learns from labels"
    )
    made.add_argument(
        "--set",
        nargs="*",
        default=["cluster.sample=100000"],
        metavar="TABLE.KEY=VALUE",
        help="settings that everything is scored with",
    )
    made.add_argument("--device", default="cpu", help="of trainings and encoders: cpu, cuda")
    made.add_argument("--jobs", type=int, default=1, help="processes side by side")
    made.add_argument("--threads", type=int, help="of each process; left out, the cores are shared out")
    made.add_argument(
        "--max-time", type=duration, metavar="TIME", help="begin nothing new after it, such as 3h"
    )
    made.add_argument("--plan", action="store_true", help="say what would be done, and do nothing")
    made.add_argument("--task", help=argparse.SUPPRESS)
    return made


def _compare(options: argparse.Namespace) -> int:
    plan, heading = _plan(options)
    plan.check()
    if options.plan:
        return _show(plan, heading)
    if options.task:
        from compare.work import do

        task = next(task for task in plan.tasks if task.key == options.task)
        return do(plan, task, Context(plan.common.device, int(os.environ["OMP_NUM_THREADS"])))
    return _carry_out(plan, heading, options)


def _carry_out(plan: Plan, heading: Sequence[str], options: argparse.Namespace) -> int:
    """Do what is not done, write tables and pictures, and return the exit code."""
    from compare import pictures, schedule, tables
    from compare.details import write_details
    from compare.work import make_phantom
    from vemseg.run import StopSignal
    from vemseg.run.locks import Lock

    deadline = None if options.max_time is None else time.monotonic() + options.max_time
    lock = Lock(plan.folder / "locks" / "comparison.lock", f"another process compares in {plan.folder}")
    with StopSignal() as signal:
        lock.acquire()
        if has_phantom(plan.places):
            make_phantom(plan.folder)
        plan.settle()
        threads = options.threads or max(1, (os.cpu_count() or 1) // options.jobs)
        outcome = schedule.carry_out(plan, options.jobs, threads, deadline, lambda: signal.requested)
    print(tables.write(plan, outcome, heading))
    write_details(plan)
    pictures.draw(plan)
    lock.release()
    if outcome.stopped:
        raise Interrupted("stopped: the same command goes on")
    return 1 if outcome.failed else 0


def _plan(options: argparse.Namespace) -> tuple[Plan, list[str]]:
    """Return what is to be done, and what stands above its tables."""
    keys = (*LISTS, "crop", "minutes", "samples")
    given = {key: value for key, value in vars(options).items() if key in keys and value is not None}
    if "minutes" in given or "samples" in given:
        given = {"minutes": None, "samples": None} | given
    if options.experiment:
        return _experiment(options, given)
    table = DEFAULTS | _setting(options.setting) | given
    if missing := [key for key in ("volumes", "systems") if not table.get(key)]:
        raise UsageError(f"name the {missing[0]} (--{missing[0]}), or a --setting that has them")
    if table["minutes"] is None and table["samples"] is None:
        raise UsageError("say how long trainings are: --minutes or --samples")
    systems = chosen(table["systems"], table["slices"], known_systems())
    places = [place_of(text, table["crop"], options.folder) for text in table["volumes"]]
    return Plan(options.folder, _common(table, options), systems, places, table["training_seeds"]), []


def _experiment(options: argparse.Namespace, given: dict[str, Any]) -> tuple[Plan, list[str]]:
    """Return the plan of a table of a paper, and what is said of it."""
    one = experiments.read(options.experiment)
    table = DEFAULTS | {"k": one.k, "seeds": one.seeds} | given
    systems = one.systems if "systems" not in given else chosen(given["systems"], [0], one.known)
    places = [one.place(options.betaseg, table["crop"])]
    return Plan(
        options.folder, _common(table, options), systems, places, table["training_seeds"]
    ), one.heading


def _common(table: dict[str, Any], options: argparse.Namespace) -> Common:
    shared = {key: table[key] for key in ("minutes", "samples", "k", "seeds", "crop")}
    return Common(**shared, device=options.device, set=options.set if not options.experiment else [])


def _setting(name: str | None) -> dict[str, Any]:
    settings = tomllib.loads((HERE / "settings.toml").read_text())
    if name is not None and name not in settings:
        raise UsageError(f"there is no setting '{name}': there are {', '.join(settings)}")
    return settings[name] if name else {}


def _show(plan: Plan, heading: Sequence[str]) -> int:
    """Print what would be done."""
    from compare.work import words_of

    print("\n\n".join([*heading, f"{plan.common.budget}, on {plan.common.device}"]))
    trainings = [task for task in plan.tasks if task.kind == "train"]
    each = len(plan.common.k) * len(plan.common.seeds)
    print(f"{len(trainings)} trainings, {len(plan.cells)} cells, up to {each} clusterings of each")
    if plan.common.minutes is not None:
        print(f"about {len(trainings) * plan.common.minutes:.0f} minutes of training, if one by one")
    for task in plan.tasks:
        settings = [*task.system.score, *plan.common.set]
        told = f"vemseg {shlex.join(words_of(plan, task))}" if task.kind == "train" else " ".join(settings)
        print(f"\n{task.key}{' (done)' if task.done else ''}\n  {told or 'as the recipe says'}")
    return 0
