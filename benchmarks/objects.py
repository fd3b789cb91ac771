"""Voxels per second and peak memory of ``vemseg objects`` and ``vemseg refine``, each called as a user does.

The labels are a smooth random field in a few classes, with specks, written as OME-Zarr into a scratch
directory. Names alone are timed too.

    python benchmarks/objects.py --scratch /tmp/objects --edge 256
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import conclude, machine, show
from scipy import ndimage

from vemseg.volume import LabelInfo, LabelStore, finish_labels

CLASSES, SPECKS, GRAIN = 6, 1e-4, 6.0
"""Classes of the field, share of voxels that are specks, and how smooth it is, in voxels."""

TILE = 128
"""Edge of the field that is made once and repeated."""

WANTED_SPEED, WANTED_GIB = 10.0, 2.0
PAUSE, UNIT = 0.05, 1 if sys.platform == "darwin" else 1024
COMMANDS = {
    "objects": ["objects"],
    "objects, two processes": ["objects", "--processes", "2", "--max-memory", "900MiB"],
    "refine, all": ["refine", "--merge", "2,5=merged", "--smooth", "1", "--fill-holes", "--min-size", "50"],
    "refine, names": ["refine", "--names", "1=dark"],
}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--scratch", type=Path, required=True, help="directory for labels and results")
    options.add_argument("--edge", type=int, default=512, help="edge of the volume, in voxels")
    given = options.parse_args()
    given.scratch.mkdir(parents=True, exist_ok=True)
    labels = made(given.scratch / f"labels-{given.edge}.ome.zarr", given.edge)
    found = {name: measured(command, labels, given.scratch) for name, command in COMMANDS.items()}
    voxels = given.edge**3 / 1e6
    show(
        f"{voxels:.0f} million voxels in {CLASSES} classes",
        ["command", "wall", "Mvoxel/s", "processor", "Mvoxel/s of processor", "peak"],
        [
            [
                name,
                f"{one['seconds']:.1f} s",
                f"{voxels / one['seconds']:.2f}",
                f"{one['processor']:.1f} s",
                f"{voxels / one['processor']:.2f}",
                f"{one['peak_gib']:.2f} GiB",
            ]
            for name, one in found.items()
        ],
    )
    best = found["objects, two processes"]
    speed, peak = voxels / best["seconds"], best["peak_gib"]
    met = speed >= WANTED_SPEED and peak < WANTED_GIB
    target = f">= {WANTED_SPEED:g}, < {WANTED_GIB:g} GiB"
    conclude("objects", speed, "million voxels a second", target, met, {"runs": found, "machine": machine()})


def made(path: Path, edge: int) -> Path:
    """Return labels, made if they are not there yet."""
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.standard_normal((TILE,) * 3), GRAIN, mode="wrap")
    tile = 1 + np.digitize(field, np.quantile(field, np.arange(1, CLASSES) / CLASSES)).astype(np.uint8)
    tile[rng.random(tile.shape) < SPECKS] = CLASSES
    store = LabelStore.create(path.with_name(f"{path.name}.new"), (edge,) * 3, (TILE,) * 3)
    for box in store.box.split(store.block_shape):
        z, y, x = box.shape
        store.write(box, tile[:z, :y, :x])
    names = {k: f"class {k}" for k in range(1, CLASSES + 1)}
    info = LabelInfo(voxel_size=(8.0, 8.0, 8.0), names=names, colours=dict.fromkeys(names, (128, 128, 128)))
    finish_labels(store, path, info)
    return path


def measured(command: list[str], labels: Path, scratch: Path, out: Path | None = None) -> dict[str, Any]:
    """Return seconds of wall and processor, and the peak memory in GiB, of a command and its processes."""
    out = out or scratch / "out.ome.zarr"
    for old in scratch.glob("out*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    words = [sys.executable, "-m", "vemseg", "-q", *command, str(labels), "-o", str(out)]
    started = time.perf_counter()
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    peak, ended = 0, 0
    while not ended:
        peak = max(peak, occupied(child.pid))
        ended, status, used = os.wait4(child.pid, os.WNOHANG)
        time.sleep(PAUSE)
    if status:
        sys.exit(f"{' '.join(words)} failed")
    return {
        "seconds": time.perf_counter() - started,
        "processor": used.ru_utime + used.ru_stime,
        "peak_gib": max(peak, used.ru_maxrss * UNIT) / 2**30,
    }


def occupied(number: int) -> int:
    """Return the bytes that a process and those that it started occupy; what they share counts for each."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(number)
        for one in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total


if __name__ == "__main__":
    main()
