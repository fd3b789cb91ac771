"""Cells of a table: computed in several processes, written line by line, and not computed twice."""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vemseg.errors import Interrupted

Cell = dict[str, Any]
"""What is to be computed, as plain JSON; it is its own name in the file of results."""

GRACE = 60.0
"""Seconds that a cell may take to stop by itself once the time is over."""

LONGEST = 10.0**6
"""Seconds; the longest that the system can wait for."""


def add_cells(made: argparse.ArgumentParser, work: str) -> None:
    """Add the options of a program that computes cells; ``work`` is where it keeps what cells share."""
    made.add_argument("--jobs", type=int, default=1, help="processes that compute at the same time")
    made.add_argument("--threads", type=int, help="of each process; left out, all cores divided by --jobs")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda")
    made.add_argument("--max-time", type=float, help="minutes; the next call does the rest")
    made.add_argument("--work", type=Path, default=Path(work), help="folder of vectors and unfinished runs")
    made.add_argument(
        "--json", type=Path, required=True, help="lines of results; what is there is not repeated"
    )
    made.add_argument("--markdown", type=Path, help="write the tables here; they are printed too")


def deadline_of(options: argparse.Namespace) -> float:
    """Return when the time of a program is over, in seconds of the clock."""
    return time.time() + 60 * options.max_time if options.max_time else float("inf")


def threads_of(options: argparse.Namespace) -> int:
    """Return the threads of each process."""
    return options.threads or max(1, (os.cpu_count() or 1) // options.jobs)


@dataclass(frozen=True)
class Over:
    """Tells whether a time is over; unlike a function within a function, it can be sent to a process."""

    deadline: float

    def __call__(self) -> bool:
        """Tell it."""
        return time.time() >= self.deadline


def key_of(cell: Any) -> str:
    """Return a short name for a cell, or for anything else that is plain JSON."""
    return hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:12]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the results in a file, without cells that failed; an incomplete last line does not count."""
    if not path.exists():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [found for line in whole if "error" not in (found := json.loads(line))]


def compute(
    work: Callable[[Cell], Any], cells: Iterable[Cell], path: Path | None, jobs: int, deadline: float
) -> bool:
    """Compute cells, each in one of several processes, and append every result to a file at once.

    Parameters
    ----------
    work : callable
        Computes a cell; a function of a module. What it returns is plain JSON.
    cells : iterable of dict
    path : Path or None
        The file; cells whose results it holds are passed over. Where it is None, nothing is kept.
    jobs : int
        Number of processes; 1 computes here.
    deadline : float
        No cell begins after this time, and what still runs some time later is ended.

    Returns
    -------
    bool
        Whether all cells are done.
    """
    known = [line["cell"] for line in read_lines(path)] if path else []
    left = [cell for cell in cells if cell not in known]
    calls = [(work, cell, deadline) for cell in left]
    ended = 0
    if jobs == 1:
        for call in calls:
            ended += _written(_tried(call), path, len(left))
        return ended == len(left)
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    with multiprocessing.get_context("spawn").Pool(min(jobs, max(1, len(left)))) as pool:
        results = pool.imap_unordered(_tried, calls)
        for _ in calls:
            try:
                rest = min(deadline + GRACE - time.time(), LONGEST)
                ended += _written(results.next(max(0.0, rest)), path, len(left))
            except multiprocessing.TimeoutError:
                print("the time is over", file=sys.stderr)
                break
    return ended == len(left)


def _tried(call: tuple[Callable[[Cell], Any], Cell, float]) -> dict[str, Any] | None:
    """Compute a cell; say what went wrong instead of ending the others. None where there is no time."""
    work, cell, deadline = call
    if time.time() >= deadline:
        return None
    started = time.perf_counter()
    try:
        result = work(cell)
    except Interrupted:
        return None
    except Exception as error:  # a cell that fails must not take the others with it
        traceback.print_exc()
        return {"cell": cell, "error": f"{type(error).__name__}: {error}"}
    return {"cell": cell, "seconds": round(time.perf_counter() - started, 1), "result": result}


def _written(line: dict[str, Any] | None, path: Path | None, total: int) -> bool:
    """Append a result to a file and say so; tell whether it is one."""
    if line is None:
        return False
    words = line.get("error") or f"{line['seconds']} s"
    print(f"{' '.join(map(str, line['cell'].values()))}: {words}", file=sys.stderr, flush=True)
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return "error" not in line


def markdown(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table, its first column to the left and the others to the right."""
    lines = ["", f"### {title}", "", f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)]) + "\n"
