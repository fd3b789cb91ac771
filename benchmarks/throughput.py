"""Voxels per second of ``vemseg segment`` as it comes, whole processes, against the published schedule.

The reference is MAESTER's exact cover-and-stride (CVPR 2023, section 3.3) in float32: a field of view of 256
patches for every 16 pixels, its encoder alone, without reading, clustering or writing. It is timed before and
after, and the faster time counts. vemseg's side is the whole process, from starting Python to labels on disk.

    python benchmarks/throughput.py --scratch /tmp/phantoms
    python benchmarks/throughput.py --scratch /tmp/phantoms --shapes 1021,545,1082 -- --max-memory 2GiB
    python benchmarks/throughput.py --scratch /tmp/phantoms --shapes 216,216,216 1000,1000,1000

Several checkouts of vemseg are compared in turns, ``--rounds`` times; the median of each counts:

    python benchmarks/throughput.py --scratch /tmp/phantoms --checkouts /tmp/before . --rounds 3
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import conclude, machine, show
from memory import phantom, segmented

TARGET = 2000.0
REFERENCE = "from cover_and_stride import reference_rate; print(reference_rate({threads}))"


def main() -> None:
    """Measure and print."""
    options = _options()
    options.scratch.mkdir(parents=True, exist_ok=True)
    shapes = [tuple(int(n) for n in text.split(",")) for text in options.shapes]
    volumes = [phantom(options.scratch, (z, y, x)) for z, y, x in shapes]
    before = _reference(options.threads)
    found = [
        {"shape": text, "voxels": math.prod(shape)} | one
        for text, shape, volume in zip(options.shapes, shapes, volumes, strict=True)
        for one in _in_turns(volume, options)
    ]
    reference = max(before, _reference(options.threads))
    show(
        f"vemseg segment {' '.join(options.segment)} (reference: {reference:.0f} pixels/s)",
        ["shape", "checkout", "Mvoxel", "seconds", "of processors", "Mvoxel/s", "ns/voxel", "peak", "ratio"],
        [_row(one, reference) for one in found],
    )
    ratio = found[-1]["voxels"] / found[-1]["seconds"] / reference
    details = {"reference": reference, "shapes": options.shapes, "runs": found}
    details |= {"options": options.segment, "machine": machine(options.threads)}
    conclude(
        "throughput",
        ratio,
        "times the reference's pixels per second",
        f">= {TARGET:g}",
        ratio >= TARGET,
        details,
    )


def _in_turns(volume: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Segment a volume with each checkout in turns; return the medians of each."""
    checkouts = options.checkouts or [None]
    rounds = [
        [segmented(volume, options.segment, None, checkout) for checkout in checkouts]
        for _ in range(options.rounds)
    ]
    measured = ("seconds", "processor_seconds", "peak_gib")
    return [
        {"checkout": str(checkout or "installed")}
        | {name: statistics.median(one[name] for one in ones) for name in measured}
        for checkout, ones in zip(checkouts, zip(*rounds, strict=True), strict=True)
    ]


def _row(one: dict[str, Any], reference: float) -> list[Any]:
    rate = one["voxels"] / one["seconds"]
    return [
        one["shape"],
        one["checkout"],
        f"{one['voxels'] / 1e6:.1f}",
        one["seconds"],
        one["processor_seconds"],
        f"{rate / 1e6:.2f}",
        f"{1e9 / rate:.0f}",
        f"{one['peak_gib']:.2f} GiB",
        f"{rate / reference:.0f}",
    ]


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--scratch", type=Path, required=True, help="directory for phantoms and labels")
    made.add_argument("--shapes", nargs="+", default=["480,480,480"], metavar="Z,Y,X", help="of the phantoms")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the reference")
    made.add_argument("--checkouts", type=Path, nargs="+", help="folders with a vemseg/ each to compare")
    made.add_argument("--rounds", type=int, default=1, help="how often each is measured")
    made.add_argument("segment", nargs="*", help="after --: options for 'vemseg segment'")
    return made.parse_args()


def _reference(threads: int) -> float:
    """Time the reference in a process of its own, so that its memory is not ours."""
    command = [sys.executable, "-c", REFERENCE.format(threads=threads)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
    return float(found.stdout)


if __name__ == "__main__":
    main()
