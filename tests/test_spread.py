"""The blocks of one volume, done by several processes of this machine: the bytes of one process."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tifffile
import torch
from jobs import BOXES, Bad, Deadly, Marked, Slow
from test_shards import ABOUT, SEGMENT, SETTINGS, cell, content, end, start

from vemseg.blocks import run
from vemseg.cli import parsing
from vemseg.context import Context, Share
from vemseg.dense import Wanted
from vemseg.errors import InputError, Interrupted, ResourceError, UsageError
from vemseg.geometry import Box
from vemseg.models import Machine, devices, spread
from vemseg.phantom import Phantom
from vemseg.pipeline.embed import embed
from vemseg.pipeline.segment import segment

__all__ = ["cell"]


def job(kind, folder):
    return kind(BOXES, folder / "done", "counting", "{}/{}")


PLACES = Context(executor="processes", devices=("cuda:0", "cuda:1"), threads=1)


def test_every_device_does_its_share_of_what_is_left(tmp_path):
    told = []
    first = job(Marked, tmp_path)
    first.markers.mkdir()
    first.marker(0).write_text(f"[{os.getpid()}, 7, 0]")
    context = Context(
        executor="processes", devices=PLACES.devices, threads=1, report=lambda *say: told.append(say)
    )
    found = run(first, context)
    assert [block for _, _, block in found] == [0, 1, 2, 3, 4, 5]
    assert [device for _, device, _ in found] == [7, "0", "1", "0", "1", "0"]
    assert [process == os.getpid() for process, _, _ in found] == [True] + 5 * [False]
    assert told[-1][:2] == ("counting", 1.0) and [say[1] for say in told] == sorted(say[1] for say in told)


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        (Bad, InputError, "block 3 cannot be read"),
        (Deadly, ResourceError, "a process that did blocks was killed, .* the same command goes on"),
    ],
)
def test_a_process_that_fails_ends_the_work_and_the_rest_is_done_later(kind, error, says, tmp_path):
    with pytest.raises(error, match=says):
        run(job(kind, tmp_path), PLACES)
    before = {path.name for path in (tmp_path / "done").glob("*.json")}
    assert "000003.json" not in before
    assert [block for _, _, block in run(job(Marked, tmp_path), PLACES)] == [0, 1, 2, 3, 4, 5]


def test_processes_that_are_to_stop_finish_their_blocks(tmp_path):
    done = tmp_path / "done"

    def stopped():
        return bool(list(done.glob("*.json")))

    context = Context(executor="processes", devices=PLACES.devices, stopped=stopped)
    with pytest.raises(Interrupted, match=r"stopped after \d of 6 blocks: the same command goes on from"):
        run(job(Slow, tmp_path), context)
    assert 1 <= len(list(done.glob("*.json"))) < 6


def test_there_is_one_process_for_each_gpu_or_as_many_as_are_wanted(monkeypatch):
    cpu = Machine(torch.device("cpu"), torch.float32, 2, None)
    gpu = Machine(torch.device("cuda"), torch.float32, 2, "a GPU")
    monkeypatch.setattr(devices, "available_memory", lambda: 6 * 2**30)
    monkeypatch.setattr(devices, "usable_cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    plain = Context(memory=2**31)
    assert spread(plain, cpu) is plain
    both = spread(plain, gpu)
    assert (both.executor, both.devices, both.threads, both.memory) == (
        "processes", ("cuda:0", "cuda:1"), 4, 2**30,
    )  # fmt: skip
    assert spread(Context(device="cuda:1", memory=2**31), gpu).executor == "here"
    three = spread(Context(processes=3, threads=2, memory=2**28), cpu)
    assert (three.devices, three.threads, three.memory) == (("cpu",) * 3, 2, 2**28)
    assert spread(Context(processes=3), gpu).devices == ("cuda:0", "cuda:1", "cuda:0")
    gathers = Context(executor="gather", processes=3)
    assert spread(gathers, cpu) is gathers


@pytest.mark.parametrize(
    ("shard", "finalize", "processes", "cluster", "says"),
    [
        (None, True, 2, None, "--finalize computes nothing: leave out --processes and --dask"),
        (None, True, None, "local", "--finalize computes nothing"),
        ("1/2", False, None, "local", "--shard and --dask do not go together"),
    ],
)
def test_what_does_not_go_together_is_refused(shard, finalize, processes, cluster, says):
    given = parsing.computing("cpu", 1, "1GiB", False, shard, finalize)
    with pytest.raises(UsageError, match=says):
        parsing.spread(given, processes, cluster)


@pytest.mark.slow
def test_processes_give_the_bytes_of_one(cell, tmp_path):
    wanted, outs = Wanted(str(cell), "classical", SETTINGS), []
    for processes in (None, 2):
        for share in (Share(), Share(0, 2), Share(1, 2)):
            context = Context(device="cpu", threads=1, memory=2**31, processes=processes, share=share)
            name = "whole" if share.whole else "shared"
            out = tmp_path / f"{processes}" / f"{name}.ome.zarr"
            assert segment(wanted, out, context=context) == (out if share.whole else None)
            outs.append(out)
    for name in ("None", "2"):
        segment(
            wanted,
            tmp_path / name / "shared.ome.zarr",
            context=Context(device="cpu", threads=1, memory=2**31),
        )
    expected = content(outs[0])
    assert len(expected) > 3 and all(content(out) == expected for out in outs)


@pytest.mark.slow
def test_vectors_of_processes_and_of_tasks_of_processes_are_those_of_one(cell, tmp_path):
    wanted = Wanted(str(cell), "classical", SETTINGS[:1])
    plain = Context(device="cpu", threads=1, memory=2**31)
    one, two = (
        embed(wanted, tmp_path / f"{processes}.zarr", context=replace(plain, processes=processes))
        for processes in (1, 2)
    )
    for index in (1, 0):
        task = replace(plain, processes=2, share=Share(index, 2))
        assert embed(wanted, tmp_path / "shared.zarr", context=task) is None
    for _ in range(2):  # --finalize, and once more
        shared = embed(wanted, tmp_path / "shared.zarr", context=replace(plain, executor="gather"))
    expected = content(one)
    assert len(expected) > 3 and content(two) == expected == content(shared)


@pytest.mark.slow
def test_a_killed_process_is_said_in_one_line_and_the_rerun_goes_on(tmp_path):
    shape = (48, 256, 256)
    tifffile.imwrite(tmp_path / "cell.tif", Phantom(shape, 3).read(Box.whole(shape)), imagej=True,
                     resolution=(1 / 16, 1 / 16), metadata=ABOUT)  # fmt: skip
    volume, out, one = tmp_path / "cell.tif", tmp_path / "two.ome.zarr", tmp_path / "one.ome.zarr"
    parent = start(SEGMENT, volume, out, "--processes", "2")
    done = out.with_name(f"{out.name}.partial") / "done"
    while not list(done.glob("*.json")):
        assert parent.poll() is None, parent.communicate()
        time.sleep(0.02)
    children = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if is_child(folder, parent.pid)]
    os.kill(max(children), signal.SIGKILL)
    _, err = parent.communicate()
    said = [line for line in err.splitlines() if line.startswith("vemseg: ")]
    assert parent.returncode == 4 and len(said) == 1 and "a process that did blocks was killed" in said[0]
    for task in ((out, "--processes", "2"), (one,)):
        assert end(start(SEGMENT, volume, *task))[0] == 0
    assert content(out) == content(one)


def is_child(folder, parent):
    """Tell whether a process does blocks for another one."""
    try:
        stat, line = (folder / "stat").read_text(), (folder / "cmdline").read_text()
    except OSError:
        return False
    return int(stat.rpartition(")")[2].split()[1]) == parent and "spawn_main" in line
