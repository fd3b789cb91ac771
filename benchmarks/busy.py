"""What is lost when another process holds one of the cores: threads against processes of one thread each.

``vemseg segment`` runs as one process with many threads, and as many processes with one thread each
(``--processes``), in turns, alone and beside a process that computes on the first core without a pause. The
medians of the rounds count; the factor is time beside it over time alone.

    python benchmarks/busy.py --scratch /tmp/phantoms --shape 96,256,256 -- --model vemseg -k 6
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import conclude, machine, parser, show
from memory import phantom, segmented

TARGET = 1.5
SPINNER = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"


def main() -> None:
    """Measure and print."""
    options = _options()
    options.scratch.mkdir(parents=True, exist_ok=True)
    z, y, x = (int(n) for n in options.shape.split(","))
    volume, cores = phantom(options.scratch, (z, y, x)), len(os.sched_getaffinity(0))
    ways = {
        f"1 process, {cores} threads": ["--threads", str(cores)],
        f"{cores} processes, 1 thread": ["--processes", str(cores), "--threads", "1"],
    }
    times: dict[tuple[str, bool], list[float]] = {(way, busy): [] for way in ways for busy in (False, True)}
    for _ in range(options.repetitions):
        for way, busy in times:
            with _neighbour(busy):
                found = segmented(volume, [*options.segment, "-d", "cpu", *ways[way]])
            times[way, busy].append(found["seconds"])
    median = {key: statistics.median(seconds) for key, seconds in times.items()}
    factors = {way: median[way, True] / median[way, False] for way in ways}
    rows = [[way, median[way, False], median[way, True], f"{factors[way]:.2f}"] for way in ways]
    show(
        f"vemseg segment {' '.join(options.segment)}", ["", "alone (s)", "beside another (s)", "factor"], rows
    )
    lost = factors[f"{cores} processes, 1 thread"]
    details = {"shape": options.shape, "seconds": rows, "options": options.segment, "machine": machine()}
    conclude("busy", lost, "times as long", f"<= {TARGET:g}", lost <= TARGET, details)


@contextmanager
def _neighbour(there: bool) -> Iterator[None]:
    """Let a process compute on the first core meanwhile."""
    spinner = subprocess.Popen([sys.executable, "-c", SPINNER]) if there else None
    try:
        yield
    finally:
        if spinner is not None:
            spinner.kill()
            spinner.wait()


def _options() -> argparse.Namespace:
    made = parser(__doc__, 3)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--scratch", type=Path, required=True, help="folder for the phantom and its labels")
    made.add_argument("--shape", default="96,256,256", help="voxels of the phantom")
    made.add_argument("segment", nargs="*", help="options of vemseg segment, after --")
    return made.parse_args()


if __name__ == "__main__":
    main()
