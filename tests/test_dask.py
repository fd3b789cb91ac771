"""The blocks of one volume on the workers of a Dask cluster, whatever happens: the bytes of one process."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import Bad, Deadly, DeadlyOnce, Failing, FailingTwice, Marked, Slow
from test_shards import SETTINGS, cell, content
from test_spread import job

from vemseg.blocks import Stages, on_dask, run
from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.errors import InputError, Interrupted, MissingError, ResourceError
from vemseg.geometry import Box
from vemseg.pipeline.embed import embed
from vemseg.pipeline.segment import segment

__all__ = ["cell"]

HERE = Path(__file__).parent
OPTIONS = {
    "scheduler": ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0"],
    "worker": ["--nthreads", "2", "--memory-limit", "4GiB", "--no-dashboard", "--no-nanny"],
}
PLACE = Context(device="cpu", threads=1, memory=2**28, executor="dask", cluster="local", processes=2)


def test_without_dask_it_is_said_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        InputError, match=r"--dask needs Dask; install the extra dask: pip install '\.\[dask\]'"
    ):
        run(job(Marked, tmp_path), PLACE)


@pytest.fixture(scope="module")
def dask():
    """Skip where Dask is not installed."""
    return pytest.importorskip("distributed", reason="Dask is not installed: pip install '.[dask]'")


@pytest.fixture
def begin(dask, tmp_path):
    """Start a scheduler by its own command; yield a function that starts workers, with further options."""
    paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    place, started = tmp_path / "scheduler.json", []

    def begin(part, *options):
        command = [
            sys.executable,
            "-m",
            "dask",
            part,
            "--scheduler-file",
            str(place),
            *OPTIONS[part],
            *options,
        ]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=tmp_path)
        started.append(process)
        return process

    scheduler = begin("scheduler")
    while not place.exists():
        assert scheduler.poll() is None
        time.sleep(0.1)
    yield begin
    for process in reversed(started):
        process.kill()
        process.wait()


@pytest.fixture
def cluster(begin, tmp_path):
    """Start a scheduler and two workers; yield its file, and the workers."""
    return tmp_path / "scheduler.json", [begin("worker") for _ in range(2)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_is_killed_changes_nothing_but_one_that_always_dies_ends_the_work(dask, tmp_path):
    told = []
    context = replace(PLACE, report=lambda stage, fraction, detail="": told.append(fraction))
    found = run(job(DeadlyOnce, tmp_path), context)
    assert [block for _, _, block in found] == [0, 1, 2, 3, 4, 5] and (tmp_path / "died").exists()
    assert told[-1] == 1.0 and told == sorted(told)
    assert run(job(Marked, tmp_path), context) == found  # nothing is left to do
    with pytest.raises(ResourceError, match="block 3 ended several workers, perhaps because their memory"):
        run(job(Deadly, tmp_path / "deadly"), PLACE)
    with pytest.raises(InputError, match="block 3 cannot be read"):
        run(job(Bad, tmp_path / "bad"), PLACE)
    assert not (tmp_path / "bad" / "done" / "000003.json").exists()
    slow = job(Slow, tmp_path / "slow")
    stops = replace(PLACE, stopped=lambda: slow.marker(0).exists())
    with pytest.raises(Interrupted, match=r"stopped after \d of 6 blocks: the same command goes on from"):
        run(slow, stops)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_and_workers_started_by_hand_give_the_bytes_of_one_process(cluster, cell, tmp_path):
    place, workers = cluster
    address = json.loads(place.read_text())["address"]
    here = Context(device="cpu", threads=1, memory=2**31)
    there = replace(here, executor="dask", cluster=address)
    wanted = Wanted(str(cell), "classical", SETTINGS)
    one, out = (segment(wanted, tmp_path / f"{name}.ome.zarr", context=context)
                for name, context in (("one", here), ("dask", there)))  # fmt: skip
    assert content(out) == content(one) and len(content(one)) > 3
    with pytest.raises(ResourceError, match="a worker of Dask may occupy 4GiB, and blocks are planned for 8"):
        run(job(Marked, tmp_path), replace(there, cluster=str(place), memory=2**33))
    workers[0].kill()  # the other one does the rest
    vectors = Wanted(str(cell), "classical", SETTINGS[:1])
    elsewhere = replace(there, cluster=str(place))
    one, out = (embed(vectors, tmp_path / f"{name}.zarr", context=context)
                for name, context in (("one", here), ("dask", elsewhere)))  # fmt: skip
    assert content(out) == content(one)


BOTH = """
import os, time
from pathlib import Path
from vemseg.blocks import here

def when_both_are_there(*given):  # but for the very first block
    first = not list(Path("seen").iterdir())
    Path("seen", str(os.getpid())).touch()
    while not first and len(list(Path("seen").iterdir())) < 2:
        time.sleep(0.05)
    return do(*given)
if here.map_blocks.__name__ == "map_blocks":  # Dask reads this file twice
    do, here.map_blocks = here.map_blocks, when_both_are_there
"""
"""What a worker of Dask is given before all else: from the second block on, it waits for another worker."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_comes_when_blocks_are_done_takes_part(begin, cell, tmp_path):
    (tmp_path / "both.py").write_text(BOTH)
    (tmp_path / "seen").mkdir()
    here, stop = Context(device="cpu", threads=1, memory=2**31), threading.Event()
    there = replace(here, executor="dask", cluster=str(tmp_path / "scheduler.json"), stopped=stop.is_set)
    wanted, out = Wanted(str(cell), "classical", SETTINGS), tmp_path / "dask.ome.zarr"
    done = tmp_path / "dask.ome.zarr.partial" / "done"
    workers = [begin("worker", "--preload", "both.py")]
    with ThreadPoolExecutor(1) as thread:
        work = thread.submit(segment, wanted, out, context=there)
        try:
            while not list(done.glob("*.json")):
                assert not work.done(), work.result()
                time.sleep(0.05)
            workers.append(begin("worker", "--preload", "both.py"))
            work.result()
        finally:
            stop.set()
    assert {path.name for path in (tmp_path / "seen").iterdir()} == {str(each.pid) for each in workers}
    assert content(out) == content(segment(wanted, tmp_path / "one.ome.zarr", context=here))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_may_occupy_too_little_is_refused_when_it_comes_late_too(begin, tmp_path):
    context = replace(PLACE, cluster=str(tmp_path / "scheduler.json"), memory=2**31)
    with ThreadPoolExecutor(1) as thread:
        work = thread.submit(run, job(Marked, tmp_path), context)
        time.sleep(1)
        assert not work.done()  # nobody is there yet
        begin("worker", "--memory-limit", "1GiB")
        with pytest.raises(
            ResourceError, match=r"may occupy 1GiB, and .* for 2GiB: give --max-memory 512MiB"
        ):
            work.result()


@pytest.mark.parametrize("text", [None, "", "[]", "{}", "\xff"], ids=repr)
def test_a_file_of_a_scheduler_that_does_not_come_is_not_waited_for_for_ever(tmp_path, monkeypatch, text):
    place = tmp_path / "scheduler.json"
    if text is not None:
        place.write_text(text, encoding="latin-1")
    monkeypatch.setattr(on_dask, "PATIENCE", -1)
    with pytest.raises(MissingError, match=r"scheduler\.json: no scheduler of Dask has written its address"):
        on_dask._address_in(str(place))
    place.write_text('{"address": "tcp://head:8786"}')
    assert on_dask._address_in(str(place)) == "tcp://head:8786"


@pytest.mark.parametrize("cause", [None, OSError(errno.EIO, "the disk fails")], ids=str)
def test_what_would_be_the_same_is_not_tried_again(tmp_path, monkeypatch, cause):
    """Dask tries again what is raised, and takes what is returned as it is."""
    wrong = InputError("the volume cannot be read")
    wrong.__cause__ = cause

    def read(box):
        raise wrong

    monkeypatch.setattr(on_dask, "_stages", lambda *_: Stages(read, lambda *_: None, lambda *_: None))
    again = nullcontext() if cause is None else pytest.raises(InputError)
    with again:
        assert on_dask._block(job(Marked, tmp_path), "course", 0, Box.whole((1, 1, 1)), Context()) is wrong


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_block_whose_disk_fails_is_tried_again_but_not_for_ever(dask, tmp_path):
    expected = run(job(Marked, tmp_path / "sound"), PLACE)
    found = run(job(FailingTwice, tmp_path / "twice"), PLACE)
    assert [block for *_, block in found] == [block for *_, block in expected]
    assert (tmp_path / "twice" / "tries").read_text() == "xxx"
    with pytest.raises(OSError, match="the disk fails"):
        run(job(Failing, tmp_path / "failing"), PLACE)
    assert (tmp_path / "failing" / "tries").read_text() == "x" * (1 + on_dask.RETRIES)


@pytest.mark.slow
def test_where_no_scheduler_is_it_is_said(dask, monkeypatch, tmp_path):
    monkeypatch.setattr("vemseg.blocks.on_dask.PATIENCE", 1)
    with pytest.raises(MissingError, match="no scheduler of Dask answers there"):
        run(job(Marked, tmp_path), Context(executor="dask", cluster="tcp://127.0.0.1:9"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_slurm_is_asked_for_what_a_block_takes(dask, monkeypatch):
    jobqueue, asked = pytest.importorskip("dask_jobqueue"), []
    monkeypatch.setattr(jobqueue.SLURMCluster, "scale", lambda self, jobs: asked.append(jobs))
    context = Context(threads=3, memory=2**32, cluster="slurm", processes=16)
    with on_dask._slurm(dask, context, 10) as cluster:
        script = cluster.job_script()
    assert asked[0] == 10 and "#SBATCH --cpus-per-task=3" in script and "#SBATCH --mem=8G" in script
