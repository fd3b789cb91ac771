"""What the benchmarks share: interleaved timing, the machine in words, a table and a line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import vemseg
from vemseg.run.origin import revision


def parser(description: str | None, repetitions: int) -> argparse.ArgumentParser:
    """Return a parser with the options that every timing has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--repetitions", type=int, default=repetitions, help="measurements of each candidate")
    return made


def add_threads(made: argparse.ArgumentParser) -> None:
    """Add ``--threads``, for benchmarks that compute in this process."""
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the computation")


def add_scoring(made: argparse.ArgumentParser) -> None:
    """Add what programs share that score volumes by ``dice_tables.scores_of`` in the memory that is there."""
    made.add_argument("--crop", help="use this part of each volume, z0:z1,y0:y1,x0:x1")
    made.add_argument("--json", type=Path, help="write all figures here")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda")
    add_threads(made)
    made.set_defaults(max_memory=None)


def machine(threads: int | None = None) -> dict[str, Any]:
    """Say what was measured on: processor, threads, versions."""
    import torch

    return {
        "vemseg": vemseg.__version__,
        "revision": revision(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def interleaved(candidates: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Time candidates in turns, so that a change of the machine's load meets all alike.

    Parameters
    ----------
    candidates : mapping of str to callable
        Each is called once to warm up, then ``repetitions`` times.

    Returns
    -------
    dict of str to list of float
        Seconds of wall time of each call.
    """
    for call in candidates.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repetitions):
        for name, call in candidates.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, smallest and largest of some measurements, to four digits."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a small table."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    print(f"\n{title}\n")
    for i, row in enumerate(cells):
        first, *rest = (
            cell.ljust(w) if j == 0 else cell.rjust(w)
            for j, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]))
        if i == 0:
            print("  ".join("-" * w for w in widths))


def conclude(
    benchmark: str, figure: float, unit: str, target: str, met: bool, details: Mapping[str, Any]
) -> None:
    """Print the figure against its target, and everything as one line of JSON."""
    print(f"\n{benchmark}: {figure:.3g} {unit} (target {target}): {'met' if met else 'MISSED'}")
    print(
        json.dumps(
            {
                "benchmark": benchmark,
                "figure": float(f"{figure:.4g}"),
                "unit": unit,
                "target": target,
                "met": met,
                **details,
            }
        )
    )
