"""Voxels per second of ``vemseg segment`` as it comes, whole processes, against the published schedule.

The reference is MAESTER's exact cover-and-stride (CVPR 2023, section 3.3) in float32: a field of view of 256
patches for every 16 pixels, its encoder alone, without reading, clustering or writing. It is timed before and
after, and the faster time counts. vemseg's side is the whole process, from starting Python to labels on disk.

    python benchmarks/throughput.py --scratch /tmp/phantoms
    python benchmarks/throughput.py --scratch /tmp/phantoms --shapes 1021,545,1082 -- --max-memory 2GiB
    python benchmarks/throughput.py --scratch /tmp/phantoms --shapes 216,216,216 1000,1000,1000
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
from pathlib import Path

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
    found = [segmented(volume, options.segment) for volume in volumes]
    reference = max(before, _reference(options.threads))
    voxels = [math.prod(shape) for shape in shapes]
    rates = [n / one["seconds"] for n, one in zip(voxels, found, strict=True)]
    show(
        f"vemseg segment {' '.join(options.segment)} (reference: {reference:.0f} pixels/s)",
        ["shape", "Mvoxel", "seconds", "Mvoxel/s", "ns/voxel", "peak", "ratio"],
        [
            [
                text,
                f"{n / 1e6:.1f}",
                one["seconds"],
                f"{rate / 1e6:.2f}",
                f"{1e9 / rate:.0f}",
                f"{one['peak_gib']:.2f} GiB",
                f"{rate / reference:.0f}",
            ]
            for text, n, one, rate in zip(options.shapes, voxels, found, rates, strict=True)
        ],
    )
    ratio = rates[-1] / reference
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


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--scratch", type=Path, required=True, help="directory for phantoms and labels")
    made.add_argument("--shapes", nargs="+", default=["480,480,480"], metavar="Z,Y,X", help="of the phantoms")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the reference")
    made.add_argument("segment", nargs="*", help="after --: options for 'vemseg segment'")
    return made.parse_args()


def _reference(threads: int) -> float:
    """Time the reference in a process of its own, so that its memory is not ours."""
    command = [sys.executable, "-c", REFERENCE.format(threads=threads)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
    return float(found.stdout)


if __name__ == "__main__":
    main()
