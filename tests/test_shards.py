"""Tasks of a batch array share the blocks of one volume: the same bytes as one process, whatever happens."""

import hashlib
import itertools
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from vemseg.blocks import Job, Stages, here, map_blocks, run
from vemseg.cli import app
from vemseg.context import Context, Share
from vemseg.dense import Wanted
from vemseg.errors import Interrupted, MissingError, OutputExistsError, UsageError
from vemseg.geometry import Box
from vemseg.objects import Finding, Wish, begin, blockwise, paint
from vemseg.phantom import Phantom
from vemseg.pipeline.embed import embed
from vemseg.pipeline.objects import objects
from vemseg.pipeline.segment import segment
from vemseg.resources import task_of
from vemseg.volume import open_labels

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


def embedded(cell, out, share=None, executor="here"):
    context = Context(device="cpu", threads=1, share=share or Share(), executor=executor)
    return embed(Wanted(str(cell), "classical", SETTINGS[:1]), out, context=context)


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
    one = embedded(cell, tmp_path / "one.zarr")
    for index in (1, 0):
        embedded(cell, tmp_path / "shared.zarr", Share(index, 2))
    assert content(embedded(cell, tmp_path / "shared.zarr", executor="gather")) == content(one)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to tell which file is flushed")
@pytest.mark.parametrize("verb", [labelled, embedded])
def test_a_power_failure_cannot_take_a_block_and_leave_its_marker(cell, tmp_path, monkeypatch, verb):
    flushed, fsync = [], os.fsync

    def note(descriptor):
        fsync(descriptor)
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", note)
    verb(cell, tmp_path / "out.ome.zarr")
    marked = 0
    for place, path in enumerate(flushed):
        if found := re.search(r"/done/.*0000(\d\d)\.json$", path):
            chunk = f"/0/c/0/0/{int(found[1])}" if verb is labelled else f"/vectors/c/0/0/{int(found[1])}/0"
            before = [re.sub(r"\.[0-9a-f]{32}\.partial$", "", earlier) for earlier in flushed[:place]]
            assert any(earlier.endswith(chunk) for earlier in before), (path, flushed)
            marked += 1
    assert marked == 3
    assert all(".partial" in path for path in flushed if "/c/0/" in path)  # before it has its name


def test_a_store_of_features_that_no_task_began_is_not_finished(cell, tmp_path):
    with pytest.raises(MissingError, match=r"nothing is begun in .*: run the tasks with --shard first"):
        embedded(cell, tmp_path / "none.zarr", executor="gather")
    assert not (tmp_path / "none.zarr.partial").exists()


@pytest.fixture
def speckled(tmp_path, monkeypatch):
    """Write labels whose objects reach across blocks of 16 x 32 x 32 voxels."""
    monkeypatch.setattr(blockwise, "SHAPES", ((16, 32, 32),))
    noise = np.random.default_rng(5).random((20, 40, 56))
    array = np.digitize(ndimage.gaussian_filter(noise, 2), [0.47, 0.5, 0.53]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "cell_seg.tif", array, imagej=True,
                     resolution=(1 / 16, 1 / 16), metadata=ABOUT)  # fmt: skip
    return tmp_path / "cell_seg.tif"


def found_in(labels, out, share=None, executor="here", stopped=lambda: False):
    context = Context(share=share or Share(), executor=executor, stopped=stopped)
    return objects(open_labels(labels), out, context=context)


def stopping_after(blocks):
    """Return a function that asks to stop once it was asked for some blocks."""
    calls = itertools.count()
    return lambda: next(calls) >= blocks


@pytest.mark.parametrize(("suffix", "rounds"), [(".tif", 1), (".ome.zarr", 2)])
def test_objects_across_blocks_of_many_tasks_are_those_of_one_process(speckled, tmp_path, suffix, rounds):
    one = found_in(speckled, tmp_path / f"one{suffix}")
    out = tmp_path / f"shared{suffix}"
    with pytest.raises(MissingError, match=r"nothing is begun in .*: run the tasks with --shard first"):
        found_in(speckled, out, executor="gather")
    assert not out.with_name(f"{out.name}.partial").exists()
    with pytest.raises(Interrupted):
        found_in(speckled, out, Share(2, 4), stopped=stopping_after(1))
    for index in (3, 0, 3, 2):
        found_in(speckled, out, Share(index, 4))
    with pytest.raises(MissingError, match=r"2 of 8 blocks are not done yet, the first is block 1: run the"):
        found_in(speckled, out, executor="gather")
    found_in(speckled, out, Share(1, 4))
    painted = out.with_name(f"{out.name}.partial") / "objects.done"
    assert len(list(painted.iterdir())) == 2  # the task that comes last can paint its own blocks
    if rounds == 2:
        for index in (2, 1, 0):
            found_in(speckled, out, Share(index, 4))
        assert len(list(painted.iterdir())) == 6
    found_in(speckled, out, executor="gather")
    if suffix == ".ome.zarr":
        assert content(out) == content(one) and len(content(one)) > 3
    else:
        assert (tifffile.imread(one) == tifffile.imread(out)).all()
    tables = [path.with_name(f"{name}.csv").read_bytes() for path, name in ((one, "one"), (out, "shared"))]
    assert tables[0] == tables[1] and tables[0].count(b"\n") > 20
    found_in(speckled, out, Share(0, 4))
    assert not out.with_name(f"{out.name}.partial").exists()


def test_the_command_says_a_path_only_where_the_result_is_there(speckled, tmp_path, capfd):
    def said(*words):
        with pytest.raises(SystemExit) as ended:
            app(["objects", str(speckled), "-o", str(tmp_path / "found.tif"), *words], prog_name="vemseg")
        return ended.value.code or 0, capfd.readouterr().out

    assert said("--finalize") == (5, "")
    assert said("--shard", "1/2") == (0, "") and said("--shard", "2/2") == (0, "")
    assert said("--shard", "1/2", "--finalize") == (2, "")
    assert said("--finalize") == (0, f"{tmp_path / 'found.tif'}\n")
    assert said("--shard", "2/2") == (0, f"{tmp_path / 'found.tif'}\n")
    assert said("--shard", "1/2", "-f") == (0, "")  # the older result is still there
    assert said("--shard", "2/2", "-f") == (0, "")
    assert said("--finalize", "-f") == (0, f"{tmp_path / 'found.tif'}\n")


def test_a_pass_over_labels_can_be_done_by_another_process(speckled, tmp_path):
    finding = Finding.begin(open_labels(speckled), tmp_path, Wish(), Context())
    here.run(pickle.loads(pickle.dumps(finding)), Context())
    assert finding.complete
    whole = found_in(speckled, tmp_path / "whole.tif")
    store = begin(tmp_path / "objects", open_labels(speckled), "uint32", finding.blocks.shape)
    paint(finding.united(), store, Context())
    np.testing.assert_array_equal(store.read(store.box), tifffile.imread(whole))


def test_two_tasks_may_write_the_same_blocks_at_the_same_moment(tmp_path):
    both = threading.Barrier(2, timeout=60)

    def write(box, made):
        both.wait()
        return [box.start[0]]

    def task():
        boxes = dict(enumerate(Box.whole((300, 1, 1)).split((1, 1, 1))))
        stages = Stages(lambda box: None, lambda box, given: None, write)
        return map_blocks(stages, boxes, tmp_path / "done", lambda done, total: None, lambda: False)

    with ThreadPoolExecutor(2) as tasks:
        found = [future.result() for future in [tasks.submit(task), tasks.submit(task)]]
    assert found == [[[number] for number in range(300)]] * 2
    assert len(list((tmp_path / "done").iterdir())) == 300  # no temporary file is left


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
        ("auto", {}, "not a task of an array job"),
        ("auto", {"SGE_TASK_ID": "undefined"}, "not a task of an array job"),
        ("auto", {"PBS_ARRAY_INDEX": "4"}, "write auto/N"),
    ],
)
def test_a_part_that_cannot_be_known_is_refused(text, environment, says):
    with pytest.raises(UsageError, match=says):
        task_of(text, environment)


SEGMENT = ["segment", "-m", "classical", "-d", "cpu", "--threads", "1", "--set", "cluster.k=3",
           "--set", "model.sigmas=[1.0,2.0,4.0]", "--set", "cluster.sample=20000",
           "--max-memory", "1GiB"]  # fmt: skip
OBJECTS = ["objects", "--max-memory", "1GiB"]


def start(verb, volume, out, *shard):
    """Start a task as its own process."""
    command = [sys.executable, "-m", "vemseg", *verb, str(volume), "-o", str(out), *shard]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE, text=True)


def end(task):
    """Wait for a task, and return its exit code and what it said."""
    said = task.communicate()[1]
    return task.returncode, said


def shared_by_processes(verb, volume, out, markers):
    """Let three tasks share a volume; one of them comes twice, another is killed and comes again."""
    tasks = [start(verb, volume, out, "--shard", f"{i}/3") for i in (1, 2, 3, 1)]
    done = out.with_name(f"{out.name}.partial") / markers
    while not list(done.glob("*.json")) and tasks[1].poll() is None:
        time.sleep(0.02)
    tasks[1].send_signal(signal.SIGKILL)
    ended = [end(task) for task in tasks]
    assert [ended[i][0] for i in (0, 2, 3)] == [0, 0, 0], ended
    assert end(start(verb, volume, out, "--shard", "2/3"))[0] == 0 and not out.exists()
    for _ in range(2):
        assert end(start(verb, volume, out, "--finalize"))[0] == 0
    return out


@pytest.mark.slow
def test_processes_share_a_volume_though_one_is_killed_and_one_comes_twice(tmp_path):
    shape = (80, 256, 256)
    tifffile.imwrite(tmp_path / "cell.tif", Phantom(shape, 3).read(Box.whole(shape)), imagej=True,
                     resolution=(1 / 16, 1 / 16), metadata=ABOUT)  # fmt: skip
    cell, one, counted = (tmp_path / name for name in ("cell.tif", "one.ome.zarr", "counted.ome.zarr"))
    assert end(start(SEGMENT, cell, one))[0] == 0
    out = shared_by_processes(SEGMENT, cell, tmp_path / "shared.ome.zarr", "done")
    assert content(out) == content(one)
    assert end(start(OBJECTS, one, counted))[0] == 0
    found = shared_by_processes(OBJECTS, one, tmp_path / "found.ome.zarr", "parts.done")
    assert content(found) == content(counted)
    assert (tmp_path / "found.csv").read_bytes() == (tmp_path / "counted.csv").read_bytes()
