"""Labels and speed of two checkouts of vemseg: a change that only moves code must not change a label.

Every case segments a small volume with ``segment`` alone and with the stages apart (``embed``, ``cluster``,
``segment``), into TIFF and into OME-Zarr. The label arrays are decoded and compared byte for byte. Processes
run with PYTHONPATH set to their checkout and with one thread; their seconds are the processor's, which other
programs stretch least. The exit code is 1 where any labels differ.

    git worktree add /tmp/before main
    python benchmarks/same_labels.py /tmp/before . --scratch /tmp/labels --volumes ../shared/data

What a checkout gave is kept in the scratch directory under a hash of its source, so a checkout that has not
changed is not run again. With one checkout alone its labels are made and kept for later.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import zarr
from common import show

PHANTOM = ["fetch", "phantom", "--shape", "64,256,256", "--seed", "0"]
EPFL = "epfl_train_15nm/raw.tif"


@dataclass(frozen=True)
class Case:
    """One volume segmented by one method.

    Attributes
    ----------
    name : str
    volume : str
        ``phantom``, or a file in the directory of volumes.
    crop : str
        Part of the volume, small enough for seconds of one core.
    model : tuple of str
        Options that choose the encoder and how it is placed.
    limits : tuple of str
        Options of the commands that compute vectors.
    """

    name: str
    volume: str
    crop: str
    model: tuple[str, ...]
    limits: tuple[str, ...] = ()


CLASSICAL = ("-m", "classical")
COVER = ("-m", "maester", "--placement", "cover-and-stride")
EXPAND = ("-m", "maester", "--placement", "expand-stride")
CASES = (
    Case("phantom-vemseg", "phantom", ":,:,:", (), ("--max-memory", "1.2GiB")),
    Case("phantom-classical", "phantom", "16:40,:,:", CLASSICAL),
    Case("phantom-cover", "phantom", "30:31,40:136,60:156", COVER),
    Case("phantom-expand", "phantom", "28:32,:,:", EXPAND),
    Case("epfl-vemseg", EPFL, "8:32,:,:", ()),
    Case("epfl-classical", EPFL, "16:32,:192,:256", CLASSICAL),
    Case("epfl-cover", EPFL, "27:28,:96,:96", COVER),
    Case("epfl-expand", EPFL, "26:30,:,:", EXPAND),
)


@dataclass(frozen=True)
class Step:
    """One process.

    Attributes
    ----------
    name : str
    words : tuple of str
        Arguments of vemseg.
    out : str
        What it writes, relative to the folder that it runs in.
    labels : bool
        Whether that is an array to compare.
    """

    name: str
    words: tuple[str, ...]
    out: str
    labels: bool = True

    @property
    def command(self) -> tuple[str, ...]:
        """Return everything that vemseg is given; a step whose command is known is not run again."""
        return (*self.words, "-o", self.out)


class Checkout:
    """A checkout of vemseg and the folder that holds what it gave."""

    def __init__(self, source: Path, scratch: Path):
        self.source = source.resolve()
        self.folder = scratch.resolve() / _digest(self.source)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check()

    def run(self, step: Step) -> float:
        """Run a step unless it was done before; return its processor seconds."""
        notes = self.folder / "seconds.json"
        done = json.loads(notes.read_text()) if notes.exists() else {}
        words = " ".join(step.command)
        if words not in done:
            done[words] = round(self._timed(step), 2)
            notes.write_text(json.dumps(done, indent=1))
            print(f"{self.source.name}: {step.name}, {done[words]} s", file=sys.stderr)
        return done[words]

    def labels(self, step: Step) -> np.ndarray:
        """Read the array that a step wrote, (z, y, x)."""
        path = self.folder / step.out
        if path.suffix == ".tif":
            return tifffile.imread(path)
        return zarr.open_group(path, mode="r")["0"][:]

    def _timed(self, step: Step) -> float:
        started = _spent()
        ended = self._python("-m", "vemseg", *step.command, "-f", "--quiet")
        if ended.returncode:
            told = f"'vemseg {' '.join(step.command)}' ended with exit code {ended.returncode}"
            sys.exit(f"{self.source}: {told}\n{ended.stderr[-2000:]}")
        return _spent() - started

    def _check(self) -> None:
        found = self._python("-c", "import vemseg; print(vemseg.__file__)").stdout.strip()
        if not Path(found).is_relative_to(self.source):
            sys.exit(f"{self.source}: Python imports {found} instead of this checkout's vemseg")

    def _python(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(self.source), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )


def main() -> None:
    """Run the checkouts and compare them."""
    options = _options()
    checkouts = [Checkout(path, options.scratch) for path in options.checkouts]
    steps = [*_phantoms(), *(step for case in options.cases for step in _steps(case, options.volumes))]
    seconds = [[checkout.run(step) for step in steps] for checkout in checkouts]
    if len(checkouts) < 2:
        return
    verdicts = [_verdict(step, *checkouts) for step in steps]
    _show([step.name for step in steps], *seconds, verdicts)
    differing = sum(verdict.startswith("DIFFER") for verdict in verdicts)
    print(f"\n{differing} of {sum(step.labels for step in steps)} arrays differ")
    sys.exit(differing > 0)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("checkouts", type=Path, nargs="+", metavar="CHECKOUT", help="before, then after")
    made.add_argument("--scratch", type=Path, required=True, help="directory for phantoms and labels, kept")
    made.add_argument("--volumes", type=Path, required=True, help=f"directory that holds {EPFL}")
    everything = [case.name for case in CASES]
    made.add_argument("--cases", nargs="+", default=everything, metavar="NAME", help="only these")
    options = made.parse_args()
    if len(options.checkouts) > 2:
        made.error("give one checkout or two")
    by_name = {case.name: case for case in CASES}
    if unknown := [name for name in options.cases if name not in by_name]:
        made.error(f"no case {', '.join(unknown)}: the cases are {', '.join(by_name)}")
    options.cases = [by_name[name] for name in options.cases]
    return options


def _digest(source: Path) -> str:
    """Return a hash of everything that can change what a checkout computes."""
    found = hashlib.sha256()
    files = (path for room in ("vemseg", "recipes") for path in (source / room).rglob("*"))
    for path in sorted(path for path in files if path.is_file() and "__pycache__" not in path.parts):
        found.update(f"{path.relative_to(source)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:12]


def _spent() -> float:
    """Return the processor seconds of all processes that this one started and that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _phantoms() -> list[Step]:
    return [Step(f"phantom{suffix}", tuple(PHANTOM), f"phantom{suffix}") for suffix in (".tif", ".ome.zarr")]


def _steps(case: Case, volumes: Path) -> list[Step]:
    """Return the processes of a case, in the order that they must run."""
    phantom = case.volume == "phantom"
    tiff = "phantom.tif" if phantom else str(volumes.resolve() / case.volume)
    store = "phantom.ome.zarr" if phantom else tiff
    options = ("--crop", case.crop, *case.model, "--threads", "1", *case.limits)
    vectors, classes = f"{case.name}.zarr", f"{case.name}.safetensors"
    label = ("segment", vectors, "--clusters", classes, "--threads", "1")
    return [
        Step(f"{case.name} tif", ("segment", tiff, "-k", "6", *options), f"{case.name}.tif"),
        Step(f"{case.name} zarr", ("segment", store, "-k", "6", *options), f"{case.name}.ome.zarr"),
        Step(f"{case.name} embed", ("embed", tiff, *options), vectors, labels=False),
        Step(f"{case.name} cluster", ("cluster", vectors, "-k", "6"), classes, labels=False),
        Step(f"{case.name} apart tif", label, f"{case.name}-apart.tif"),
        Step(f"{case.name} apart zarr", label, f"{case.name}-apart.ome.zarr"),
    ]


def _verdict(step: Step, before: Checkout, after: Checkout) -> str:
    """Say whether two checkouts gave the same array."""
    if not step.labels:
        return "-"
    a, b = before.labels(step), after.labels(step)
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"DIFFER: {a.dtype}{list(a.shape)} became {b.dtype}{list(b.shape)}"
    differing = np.count_nonzero(a != b)
    return f"DIFFER in {differing} of {a.size} voxels" if differing else "same"


def _show(
    names: Sequence[str], before: Sequence[float], after: Sequence[float], verdicts: Sequence[str]
) -> None:
    rows = [
        [*row[:3], f"{row[2] / row[1]:.2f}", row[3]]
        for row in zip(names, before, after, verdicts, strict=True)
    ]
    totals = sum(before), sum(after)
    rows.append(["all", *(f"{total:.1f}" for total in totals), f"{totals[1] / totals[0]:.2f}", ""])
    show("labels of two checkouts", ["step", "before (s)", "after (s)", "ratio", "array"], rows)


if __name__ == "__main__":
    main()
