r"""What a volume of 1 TB or 100 TB would take: extrapolated from measured stages, and checked on a real run.

Each stage of ``vemseg segment`` is measured in one thread, in processor seconds, on the first blocks of a
volume: opening and hashing the input, fitting classes, and per block reading, encoding, scoring,
interpolating, writing, and the shards of coarser levels above it. What comes last, once for the whole volume,
looks at every marker and at every shard of the coarser levels. The volume is a painted tile, mirrored over
and over, in a Zarr array.

    python benchmarks/scale.py --scratch D --shape 1000,1000,1024 --nm 4 --tasks 4 --model classical \
        --set model.sigmas=[1.0] --set cluster.k=2 --max-memory 2GiB --check

``--check`` then runs the tasks of a batch array (``--shard I/N``) and ``--finalize`` on that volume, each a
process of its own with one thread, one after the other, and compares what they take with what was foretold.
The tables for 1 TB and 100 TB say what one process on each core of N nodes takes, how many files there are,
and which part of the work takes longest.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zarr
from common import conclude, machine, show
from memory import MAXRSS_UNIT, waited

from vemseg.budget import Blocks
from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.dense.planning import check_sample, label_blocks
from vemseg.dense.scores import argmax_interpolated, in_parts
from vemseg.dense.sources import LatticeVectors
from vemseg.files import remove
from vemseg.geometry import ZYX, Box
from vemseg.labelling import Labeller, find_classes
from vemseg.phantom import Phantom
from vemseg.resources import parse_bytes
from vemseg.run import fingerprint, read_json, write_json
from vemseg.run.fingerprint import MOST_HASHED
from vemseg.volume import LabelInfo, LabelStore, Plan, finish_labels, grow
from vemseg.volume.growing import level_of
from vemseg.volume.pyramid import BLOCK_SHAPE, coarser_shape, level_factors, majority

TILE: ZYX = (128, 128, 128)
"""The part of the volume that is painted."""

SIZES = {"1 TB": 10**12, "100 TB": 10**14}
"""Voxels, one byte each, of the volumes that are extrapolated to."""

NODES = (1, 16, 256)
TARGET = 1.5
"""How far what is foretold may be from what is measured, as a ratio."""

PER_BLOCK = ("read", "encode", "score", "interpolate", "write", "pyramid")


def main() -> None:
    """Measure, extrapolate, and compare with a real run."""
    options = _options()
    options.scratch.mkdir(parents=True, exist_ok=True)
    volume = _tiled(options.scratch.resolve(), options.shape)
    wanted = Wanted(str(volume), options.model, tuple(options.set), str(options.nm))
    measured = Measured.of(wanted, options)
    show(
        f"processor time of {options.model}, one thread, on {measured.voxels / 1e6:.0f} Mvoxel in "
        f"{measured.count} blocks",
        ["stage", "ns/voxel", "share"],
        [
            [name, f"{1e9 * rate:.1f}", f"{rate / sum(measured.rates.values()):.0%}"]
            for name, rate in measured.rates.items()
        ],
    )
    for size, voxels in SIZES.items():
        _extrapolate(size, voxels, measured, options)
    details = {"rates": measured.rates, "fixed": measured.fixed, "machine": machine(1)}
    if options.check:
        _check(volume, wanted, measured, options, details)
    else:
        print(details)


@dataclass
class Measured:
    """What the stages take, in processor seconds of one thread.

    Attributes
    ----------
    blocks : Blocks
        The blocks of the whole volume.
    voxels, count : int
        How many voxels, and blocks, were measured.
    rates : dict of str to float
        Seconds per voxel of the volume for each stage, context included.
    fixed : dict of str to float
        Seconds that do not grow with the volume; for "marker" and "shard", those of a look at one of them.
    hashing : float
        Seconds per byte of the input.
    """

    blocks: Blocks
    voxels: int
    count: int
    rates: dict[str, float] = field(default_factory=dict)
    fixed: dict[str, float] = field(default_factory=dict)
    hashing: float = 0.0

    @classmethod
    def of(cls, wanted: Wanted, options: argparse.Namespace) -> Measured:
        """Measure the first blocks of a volume, as many as ``--measured`` voxels take."""
        context = Context(device="cpu", threads=1, memory=parse_bytes(options.max_memory))
        fixed: dict[str, float] = {}
        source: LatticeVectors
        with _timed(fixed, "open"):
            source = wanted.vectors(context)
        table = source.maker.recipe.cluster
        with _timed(fixed, "fit"):
            sample = source.sample(check_sample(table, [source], context.limit), table.seed, context)
            labeller = find_classes(table, sample, source, context)
        blocks = label_blocks(source, labeller.k, context.limit)
        chosen = list(source.volume.box.split(blocks.shape))
        chosen = chosen[: max(1, min(len(chosen), options.measured // math.prod(blocks.shape)))]
        found = cls(blocks, sum(box.size for box in chosen), len(chosen), fixed=fixed)
        found._walk(source, labeller, chosen, options.scratch)
        path = Path(wanted.path)
        spent: dict[str, float] = {}
        with _timed(spent, "hash"):
            size = fingerprint(path)["bytes"]
        found.hashing = spent["hash"] / max(1, int(size or 1))
        fixed["start"] = _started()
        return found

    def _walk(self, source: LatticeVectors, labeller: Labeller, boxes: list[Box], scratch: Path) -> None:
        """Do the blocks and their pyramid, stage by stage."""
        spent = dict.fromkeys(PER_BLOCK, 0.0)
        with TemporaryDirectory(dir=scratch) as folder:
            around = Box(boxes[0].start, boxes[-1].stop)
            plan = Plan(tuple(level_factors(around.shape, source.volume.voxel_size)), majority)
            path, shape = Path(folder) / "labels", self.blocks.shape
            size = source.volume.voxel_size
            store = LabelStore.create(path, around.shape, shape, voxel_size=size, plan=plan)
            for number, box in enumerate(store.box.split(shape)):
                labels = _labelled(source, labeller, box.shift(around.start), spent)
                with _timed(spent, "write"):
                    store.write(box, labels)
                with _timed(spent, "pyramid"):
                    grow(store, box, range(number + 1).__contains__)
            with _timed(self.fixed, "finish"):
                info = LabelInfo(**source.volume.placed, description={})
                finish_labels(store, Path(folder) / "done.ome.zarr", info)
            self._look(Path(folder))
        self.voxels = around.size
        self.rates = {name: seconds / self.voxels for name, seconds in spent.items()}

    def block_seconds(self, voxels: int) -> float:
        """Return what the blocks of a volume take in all."""
        return voxels * sum(self.rates[name] for name in PER_BLOCK)

    def task_seconds(self, size: int) -> float:
        """Return what a task takes beside its blocks, for an input of that many bytes."""
        hashed = size if size <= MOST_HASHED else 0
        return self.fixed["start"] + self.fixed["open"] + self.hashing * hashed

    def _look(self, folder: Path) -> None:
        """Measure what it takes to look at a marker, and whether a shard is there."""
        marker, often = folder / "000000.json", 2000
        write_json(marker, [0, 1000000, 1000000])
        with _timed(self.fixed, "marker"):
            for _ in range(often):
                read_json(marker)
        level = level_of(zarr.open_group(str(folder / "done.ome.zarr"), mode="r"), 1)
        box = next(level.cells(Box.whole(level.block_shape)))
        with _timed(self.fixed, "shard"):
            for _ in range(often):
                level.written(box)
        for name in ("marker", "shard"):
            self.fixed[name] /= often

    def finalize_seconds(self, files: dict[str, int], size: int) -> float:
        """Return what the task takes that comes last."""
        looks = files["markers"] * self.fixed["marker"] + files["coarser"] * self.fixed["shard"]
        return self.task_seconds(size) + self.fixed["finish"] + looks


@contextmanager
def _timed(spent: dict[str, float], name: str) -> Iterator[None]:
    """Add the processor seconds of a block of code to an entry."""
    started = time.process_time()
    yield
    spent[name] = spent.get(name, 0.0) + time.process_time() - started


def _labelled(source: LatticeVectors, labeller: Labeller, box: Box, spent: dict[str, float]) -> np.ndarray:
    """Do what ``LatticeVectors.labels`` does, one stage after the other."""
    with _timed(spent, "read"):
        given = source.read(box)
    with _timed(spent, "encode"):
        vectors = source.compute(source.points_of(box), given)
    with _timed(spent, "score"):
        scores = in_parts(labeller.scores)(vectors)
    with _timed(spent, "interpolate"):
        turned = argmax_interpolated(scores, source.interpolations(box))
        return np.ascontiguousarray(turned.transpose(source.back))


def _started() -> float:
    """Return what starting vemseg takes, its libraries included."""
    code = "import vemseg.pipeline.segment, vemseg.dense, sklearn.cluster, zarr"
    return _run([sys.executable, "-c", code])["processor"]


def _run(command: list[str], cwd: Path | None = None) -> dict[str, float]:
    """Run a process; return its processor seconds, its seconds and its peak memory in GiB."""
    started = time.perf_counter()
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    _, usage = waited(subprocess.Popen(command, env=environment, cwd=cwd), None)
    return {
        "processor": usage.ru_utime + usage.ru_stime,
        "seconds": time.perf_counter() - started,
        "peak_gib": usage.ru_maxrss * MAXRSS_UNIT / 2**30,
    }


def _extrapolate(size: str, voxels: int, measured: Measured, options: argparse.Namespace) -> None:
    """Print what a volume of one byte per voxel takes on N nodes, and in how many files."""
    edge = round(voxels ** (1 / 3))
    each = math.prod(measured.blocks.shape)
    blocks, bytes_ = math.ceil(voxels / each), measured.blocks.bytes
    files = _files((edge, edge, edge), measured.blocks.shape)
    rows = []
    for nodes in NODES:
        tasks = nodes * options.cores
        array = measured.block_seconds(voxels) / tasks + measured.task_seconds(voxels)
        parts = {
            "array": array,
            "fit": measured.fixed["fit"],
            "finalize": measured.finalize_seconds(files, voxels),
        }
        worst = max(parts, key=lambda name: parts[name])
        if worst == "array":
            worst = max(PER_BLOCK, key=lambda name: measured.rates[name])
        hours = [f"{seconds / 3600:.2g}" for seconds in (array, parts["finalize"], sum(parts.values()))]
        rows.append([nodes, tasks, *hours, worst, f"{options.cores * bytes_ / 2**30:.0f} GiB"])
    header = ["nodes", "tasks", "array, h", "finalize, h", "in all, h", "bottleneck", "memory of a node"]
    show(f"{size} ({edge} voxels an edge), {options.cores} cores a node", header, rows)
    shape = " x ".join(map(str, measured.blocks.shape))
    print(f"{blocks:,} blocks of {shape} voxels, {bytes_ / 2**30:.2f} GiB a process at most")
    print(
        f"files: {files['shards']:,} shards of labels ({files['chunks']:,} chunks in them), "
        f"{files['coarser']:,} shards of coarser levels, {files['markers']:,} markers in one folder while "
        f"tasks work; at most {files['inodes']:,} inodes"
    )


def _files(shape: ZYX, block: ZYX) -> dict[str, int]:
    """Return how many files a segmentation is made of, and how many folders lie around them."""

    def cut(whole: ZYX, edges: ZYX) -> list[int]:
        return [-(-n // e) for n, e in zip(whole, edges, strict=True)]

    counts = cut(shape, block)
    folders = counts[0] * (1 + counts[1])
    shards, coarser = math.prod(counts), 0
    for factors in list(level_factors(shape, None))[1:]:
        level = cut(coarser_shape(shape, factors), BLOCK_SHAPE)
        coarser += math.prod(level)
        folders += level[0] * (1 + level[1])
    chunks = math.prod(cut(shape, (64, 64, 64)))
    return {
        "shards": shards,
        "coarser": coarser,
        "chunks": chunks,
        "markers": shards,
        "inodes": 2 * shards + coarser + folders,
    }


def _check(
    volume: Path, wanted: Wanted, measured: Measured, options: argparse.Namespace, details: dict[str, Any]
) -> None:
    """Run the tasks and the end of a batch array; compare with what was foretold."""
    voxels, size = math.prod(options.shape), int(fingerprint(volume)["bytes"] or 0)
    out = volume.with_name("labels.ome.zarr")
    for path in (out, out.with_name(f"{out.name}.partial")):
        remove(path)
    command = [
        sys.executable,
        "-m",
        "vemseg",
        "segment",
        str(volume),
        "-m",
        options.model,
        "-o",
        str(out),
        "-q",
    ]
    command += [*(part for each in options.set for part in ("--set", each)), "-d", "cpu", "--threads", "1"]
    command += ["--max-memory", options.max_memory, "--voxel-size", str(options.nm)]
    runs = [_run([*command, "--shard", f"{i}/{options.tasks}"]) for i in range(1, options.tasks + 1)]
    last = _run([*command, "--finalize"])
    foretold = [
        measured.block_seconds(voxels) + options.tasks * measured.task_seconds(size) + measured.fixed["fit"],
        measured.finalize_seconds(_files(options.shape, measured.blocks.shape), size),
    ]
    found = [sum(run["processor"] for run in runs), last["processor"]]
    rows = [
        [
            *(name, f"{told:.1f}", f"{took:.1f}", f"{told / took:.2f}"),
            f"{sum(one['seconds'] for one in ones):.0f}",
            f"{max(one['peak_gib'] for one in ones):.2f} GiB",
        ]
        for name, told, took, ones in zip(("tasks", "finalize"), foretold, found, (runs, [last]), strict=True)
    ]
    show(
        f"{voxels / 1e9:.2f} Gvoxel in {measured.blocks.count} blocks by {options.tasks} tasks",
        ["part", "foretold, processor s", "measured", "ratio", "seconds", "peak"],
        rows,
    )
    details |= {"tasks": runs, "finalize": last, "foretold": foretold, "voxels": voxels}
    details["files"] = sum(1 for path in out.rglob("*") if path.is_file())
    ratio = sum(foretold) / sum(found)
    met = max(ratio, 1 / ratio) <= TARGET and voxels >= 10**9
    conclude(
        "scale",
        ratio,
        "of the processor time that a run took was foretold",
        f"within {TARGET:g} times, on 10^9 voxels",
        met,
        details,
    )


def _tiled(scratch: Path, shape: ZYX) -> Path:
    """Return a Zarr array of a tile, mirrored over and over; written if it is not there yet."""
    path = scratch / f"tiled-{'x'.join(map(str, shape))}.zarr"
    if path.exists():
        return path
    tile = Phantom(TILE, 3).read(Box.whole(TILE))
    twice = np.concatenate([tile, tile[::-1]])
    twice = np.concatenate([twice, twice[:, ::-1]], axis=1)
    twice = np.concatenate([twice, twice[:, :, ::-1]], axis=2)
    growing = scratch / f"{path.name}.store"
    remove(growing)
    edges = (2 * TILE[0], 2 * TILE[1], 2 * TILE[2])
    store = LabelStore.create(growing, shape, edges)
    for box in store.box.split(edges):
        z, y, x = box.shape
        store.write(box, twice[:z, :y, :x])
    (growing / "0").replace(path)
    remove(growing)
    return path


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--scratch", type=Path, required=True, help="directory for the volume and its labels")
    made.add_argument("--shape", type=_shape, default=(512, 512, 512), metavar="Z,Y,X", help="of the volume")
    made.add_argument("--nm", type=float, default=16.0, help="edge of its voxels")
    made.add_argument("--model", default="classical", help="as in vemseg segment -m")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings")
    made.add_argument("--max-memory", default="2GiB", help="of each process")
    made.add_argument("--measured", type=int, default=2**26, help="voxels that stages are measured on")
    made.add_argument("--cores", type=int, default=32, help="cores of a node in the tables")
    made.add_argument("--tasks", type=int, default=4, help="tasks of the run that is checked")
    made.add_argument("--check", action="store_true", help="run the tasks on the whole volume, too")
    return made.parse_args()


def _shape(text: str) -> ZYX:
    z, y, x = (int(part) for part in text.split(","))
    return z, y, x


if __name__ == "__main__":
    main()
