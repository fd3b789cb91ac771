"""Peak memory of ``vemseg segment`` on a small and on a large volume: it must not grow with the volume.

Phantoms are written as OME-Zarr into a scratch directory, and kept there for the next time. Each is segmented
by a process of its own, whose peak resident memory the system reports at its end. ``--max-minutes`` cuts a
segmentation off: memory reaches its peak within the first blocks, but only a whole run proves it.
``--checkout`` measures another checkout of vemseg than the installed one. ``--formats`` measures the same
volume in every format that ``benchmarks/readers.py`` writes.

    python benchmarks/memory.py --scratch /tmp/phantoms --edges 128 256 -- -m classical
    python benchmarks/memory.py --scratch /tmp/x --edges 96 192 --formats -- -m classical --voxel-size 8,8,8
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import conclude, machine, show

SPREAD = 0.10
LIMIT = 3.0
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Measure and print."""
    options = _options()
    options.scratch.mkdir(parents=True, exist_ok=True)
    found = []
    for edge in options.edges:
        for kind, volume in volumes(options.scratch, edge, options.formats).items():
            measured = segmented(volume, options.segment, options.max_minutes, options.checkout)
            found.append({"edge": edge, "format": kind} | measured)
            print(f"{kind} of edge {edge}: {measured['peak_gib']:.2f} GiB", file=sys.stderr, flush=True)
    show(
        "peak resident memory of vemseg segment " + " ".join(options.segment),
        ["edge", "format", "voxels", "as float32", "peak", "time", "Mvoxel/s", "whole"],
        [
            [
                one["edge"],
                one["format"],
                f"{one['edge'] ** 3 / 1e6:.0f} M",
                f"{4 * one['edge'] ** 3 / 2**30:.2f} GiB",
                f"{one['peak_gib']:.2f} GiB",
                f"{one['seconds']:.0f} s",
                f"{one['edge'] ** 3 / 1e6 / one['seconds']:.2f}" if one["whole"] else "-",
                "yes" if one["whole"] else "cut off",
            ]
            for one in found
        ],
    )
    groups = options.edges if options.formats else [None]  # formats are compared at each size
    peaks = [[one["peak_gib"] for one in found if edge in (None, one["edge"])] for edge in groups]
    ratio = max(max(some) / min(some) for some in peaks)
    met = ratio <= 1 + SPREAD and max(map(max, peaks)) < LIMIT
    target = f"<= {1 + SPREAD:.2f} times, < {LIMIT:g} GiB"
    details = {"options": options.segment, "runs": found, "machine": machine()}
    conclude("memory", ratio, "times the least peak", target, met, details)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--scratch", type=Path, required=True, help="directory for phantoms and labels")
    made.add_argument("--edges", type=int, nargs="+", default=[512, 1024], help="edges of the volumes")
    made.add_argument("--formats", action="store_true", help="measure every format, not OME-Zarr alone")
    made.add_argument("--max-minutes", type=float, help="cut each segmentation off after this time")
    made.add_argument("--checkout", type=Path, help="folder with another vemseg/ than the installed one")
    made.add_argument("segment", nargs="*", help="after --: options for 'vemseg segment'")
    return made.parse_args()


def volumes(scratch: Path, edge: int, every_format: bool) -> dict[str, Path]:
    """Return volumes of one size by their format, made by a process of its own if they are not there yet."""
    if not every_format:
        return {"OME-Zarr": phantom(scratch, (edge, edge, edge))}
    folder = scratch.resolve() / f"formats-{edge}"
    if not folder.exists():
        script = Path(__file__).with_name("readers.py")
        command = [sys.executable, str(script), "--edge", str(edge), "--write", str(folder)]
        subprocess.run(command, check=True)
    return {each.name: next(each.iterdir()) for each in sorted(folder.iterdir())}


def phantom(scratch: Path, shape: tuple[int, int, int]) -> Path:
    """Return a phantom, made by a process of its own if it is not there yet."""
    path = scratch.resolve() / f"phantom-{'x'.join(map(str, shape))}.ome.zarr"
    if not path.exists():
        command = ["fetch", "phantom", "--shape", ",".join(map(str, shape)), "-o", str(path), "-f", "-q"]
        subprocess.run([sys.executable, "-m", "vemseg", *command], check=True)
    return path


def segmented(
    volume: Path, settings: Sequence[str], minutes: float | None = None, checkout: Path | None = None
) -> dict[str, Any]:
    """Segment a volume from the beginning; return the time and memory of the whole process.

    Parameters
    ----------
    volume : Path
        Absolute; the labels lie beside it for as long as this takes.
    settings : sequence of str
        Options of ``vemseg segment``.
    minutes : float, optional
        When to cut it off.
    checkout : Path, optional
        Folder with the ``vemseg/`` to run instead of the installed one.
    """
    out = volume.with_name(f"labels-of-{volume.stem.partition('.')[0]}.ome.zarr")
    command = [sys.executable, "-m", "vemseg", "segment", str(volume), "-o", str(out), "-f", *settings]
    environment = os.environ | ({"PYTHONPATH": str(checkout.resolve())} if checkout else {})
    started = time.perf_counter()
    # Python looks for modules in the current folder first: it must be one without a vemseg
    process = subprocess.Popen([*command, "--progress", "none"], env=environment, cwd=volume.parent)
    whole, usage = waited(process, minutes)
    seconds = time.perf_counter() - started
    for path in volume.parent.glob(f"{out.name.removesuffix('.ome.zarr')}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {
        "peak_gib": round(usage.ru_maxrss * MAXRSS_UNIT / 2**30, 3),
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "whole": whole,
    }


def waited(process: subprocess.Popen[bytes], minutes: float | None) -> tuple[bool, resource.struct_rusage]:
    """Return whether a process came to its end by itself, and what it used.

    The peak memory that the system reports is at least the size of this process when it started the other:
    nothing heavy is imported here before the last measurement.
    """
    deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
    asked = False
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode and not asked:
                sys.exit(f"vemseg segment failed with exit code {process.returncode}")
            return not asked, usage
        if not asked and time.monotonic() > deadline:
            process.send_signal(signal.SIGTERM)  # it stops at the next block and keeps what it has
            asked = True
        time.sleep(0.1)


if __name__ == "__main__":
    main()
