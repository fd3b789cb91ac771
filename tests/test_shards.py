"""Tasks of a batch array share the blocks of one volume: the same bytes as one process, whatever happens."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tifffile

from vemseg.blocks import Job, run
from vemseg.context import Context, Share
from vemseg.dense import Wanted
from vemseg.errors import MissingError, OutputExistsError, UsageError
from vemseg.geometry import Box
from vemseg.phantom import Phantom
from vemseg.pipeline.embed import embed
from vemseg.pipeline.segment import segment
from vemseg.resources import task_of

SHAPE = (12, 40, 96)
ABOUT = {"axes": "ZYX", "spacing": 16, "unit": "nm"}
SETTINGS = ("model.sigmas=[1.0]", "cluster.k=3", "cluster.sample=2000")


@pytest.fixture
def cell(tmp_path, monkeypatch):
    """Write a phantom that is cut into blocks of 32 voxels along its longest axis."""
    grey = Phantom(SHAPE, 3).read(Box.whole(SHAPE))
    tifffile.imwrite(tmp_path / "cell.tif", grey, imagej=True, resolution=(1 / 16, 1 / 16), metadata=ABOUT)
    monkeypatch.setattr("vemseg.budget.MOST_VOXELS", 12 * 40 * 32)
    return tmp_path / "cell.tif"


def content(out):
    """Return the hashes of all files of a result but those that tell when and where it was made."""
    paths = sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else [out]
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.name != "zarr.json" and path.suffix != ".json"
    }


def labelled(cell, out, share=None, executor="here", settings=SETTINGS):
    context = Context(device="cpu", threads=1, share=share or Share(), executor=executor)
    return segment(Wanted(str(cell), "classical", settings), out, context=context)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif"])
def test_shards_in_any_order_and_twice_give_the_bytes_of_one_process(cell, tmp_path, suffix):
    one = labelled(cell, tmp_path / f"one{suffix}")
    out = tmp_path / f"shared{suffix}"
    with pytest.raises(MissingError, match=r"nothing is begun in .*: run the tasks with --shard first"):
        labelled(cell, out, executor="gather")
    assert not out.with_name(f"{out.name}.partial").exists()
    for index in (2, 0, 2):
        labelled(cell, out, Share(index, 3))
        assert not out.exists()
    with pytest.raises(MissingError, match=r"1 of 3 blocks are not done yet, the first is block 1: run the"):
        labelled(cell, out, executor="gather")
    labelled(cell, out, Share(1, 3))
    labelled(cell, out, Share(3, 4))  # a fourth task has nothing to do, and says so
    labelled(cell, out, executor="gather")
    plain = content(one)
    if suffix == ".ome.zarr":
        assert content(out) == plain and len(plain) > 3
    else:
        assert (tifffile.imread(one) == tifffile.imread(out)).all()
    clusters = [
        path.with_name(f"{name}_clusters.safetensors") for path, name in ((one, "one"), (out, "shared"))
    ]
    assert clusters[0].read_bytes() == clusters[1].read_bytes()
    before = out.stat().st_mtime_ns
    labelled(cell, out, executor="gather")  # again, and a task that comes late
    labelled(cell, out, Share(0, 3))
    assert out.stat().st_mtime_ns == before and not out.with_name(f"{out.name}.partial").exists()


def test_a_task_with_other_settings_or_another_input_is_refused(cell, tmp_path):
    out = tmp_path / "shared.tif"
    labelled(cell, out, Share(0, 2))
    with pytest.raises(OutputExistsError, match=r"made otherwise \(cluster\.k 3 there, 4 now\)"):
        labelled(cell, out, Share(1, 2), settings=(*SETTINGS, "cluster.k=4"))
    tifffile.imwrite(cell, tifffile.imread(cell)[::-1].copy(), imagej=True,
                     resolution=(1 / 16, 1 / 16), metadata=ABOUT)  # fmt: skip
    with pytest.raises(OutputExistsError, match=r"cell\.tif had another content"):
        labelled(cell, out, Share(1, 2))


def test_features_are_shared_too(cell, tmp_path):
    wanted = Wanted(str(cell), "classical", SETTINGS[:1])
    one = embed(wanted, tmp_path / "one.zarr", context=Context(device="cpu", threads=1))
    for index in (1, 0):
        context = Context(device="cpu", threads=1, share=Share(index, 2))
        embed(wanted, tmp_path / "shared.zarr", context=context)
    gather = Context(device="cpu", threads=1, executor="gather")
    assert content(embed(wanted, tmp_path / "shared.zarr", context=gather)) == content(one)


class Counted(Job):
    def open(self, context):
        raise AssertionError("nothing is computed where results are gathered")


def test_every_block_has_one_process(tmp_path):
    numbers = [number for index in range(5) for number in Share(index, 5).numbers(13)]
    assert sorted(numbers) == list(range(13)) and Share().whole and not Share(1, 2).whole
    job = Counted(tuple(Box.whole((4, 4, 4)).split((1, 4, 4))), tmp_path, "counting", "{}/{}")
    for number in range(4):
        job.marker(number).write_text(f"[{number}]")
    assert run(job, Context(executor="gather")) == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        ("3/16", {}, (2, 16)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "4",
                  "SLURM_ARRAY_TASK_STEP": "1"}, (3, 4)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "6",
                  "SLURM_ARRAY_TASK_STEP": "2"}, (2, 4)),
        ("auto", {"SGE_TASK_ID": "2", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "8",
                  "SGE_TASK_STEPSIZE": "1"}, (1, 8)),
        ("auto", {"LSB_JOBINDEX": "8", "LSB_JOBINDEX_END": "8", "LSB_JOBINDEX_STEP": "1"}, (7, 8)),
        ("auto/4", {"PBS_ARRAY_INDEX": "4"}, (3, 4)),
        ("auto/4", {"PBS_ARRAYID": "0"}, (3, 4)),
    ],
)  # fmt: skip
def test_a_task_knows_its_part(text, environment, part):
    assert task_of(text, environment) == part


@pytest.mark.parametrize(
    ("text", "environment", "says"),
    [
        ("0/4", {}, "write I/N"),
        ("5/4", {}, "write I/N"),
        ("2", {}, "write I/N"),
        ("auto", {}, "no task of an array job"),
        ("auto", {"SGE_TASK_ID": "undefined"}, "no task of an array job"),
        ("auto", {"PBS_ARRAY_INDEX": "4"}, "write auto/N"),
    ],
)
def test_a_part_that_cannot_be_known_is_refused(text, environment, says):
    with pytest.raises(UsageError, match=says):
        task_of(text, environment)


def start(cell, out, *shard):
    """Start a task as its own process."""
    command = [sys.executable, "-m", "vemseg", "segment", str(cell), "-m", "classical", "-o", str(out)]
    command += ["-d", "cpu", "--threads", "1", "--max-memory", "1GiB", *shard]
    for setting in ("model.sigmas=[1.0,2.0,4.0]", "cluster.k=3", "cluster.sample=20000"):
        command += ["--set", setting]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE, text=True)


def end(task):
    """Wait for a task, and return its exit code and what it said."""
    said = task.communicate()[1]
    return task.returncode, said


@pytest.mark.slow
def test_processes_share_a_volume_though_one_is_killed_and_one_comes_twice(tmp_path):
    shape = (96, 256, 256)
    tifffile.imwrite(tmp_path / "cell.tif", Phantom(shape, 3).read(Box.whole(shape)), imagej=True,
                     resolution=(1 / 16, 1 / 16), metadata=ABOUT)  # fmt: skip
    cell, out, one = tmp_path / "cell.tif", tmp_path / "shared.ome.zarr", tmp_path / "one.ome.zarr"
    tasks = [start(cell, out, "--shard", f"{i}/3") for i in (1, 2, 3, 1)]
    done = out.with_name(f"{out.name}.partial") / "done"
    while not list(done.glob("*.json")) and tasks[1].poll() is None:
        time.sleep(0.05)
    tasks[1].send_signal(signal.SIGKILL)
    ended = [end(task) for task in tasks]
    assert [ended[i][0] for i in (0, 2, 3)] == [0, 0, 0], ended
    assert end(start(cell, out, "--shard", "2/3"))[0] == 0 and not out.exists()
    for _ in range(2):
        assert end(start(cell, out, "--finalize"))[0] == 0
    assert end(start(cell, one))[0] == 0
    assert content(out) == content(one)
