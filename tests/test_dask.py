"""The blocks of one volume on the workers of a Dask cluster, whatever happens: the bytes of one process."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import Bad, Deadly, DeadlyOnce, Marked, Slow
from test_shards import SETTINGS, cell, content
from test_spread import job

from vemseg.blocks import on_dask, run
from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.errors import InputError, Interrupted, MissingError, ResourceError
from vemseg.pipeline.embed import embed
from vemseg.pipeline.segment import segment

__all__ = ["cell"]

HERE = Path(__file__).parent
PLACE = Context(device="cpu", threads=1, memory=2**28, executor="dask", cluster="local", processes=2)


def test_without_dask_it_is_said_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"--dask needs Dask: pip install 'vemseg\[dask\]'"):
        run(job(Marked, tmp_path), PLACE)


@pytest.fixture(scope="module")
def dask():
    """Skip where Dask is not installed."""
    return pytest.importorskip("distributed", reason="Dask is not installed: pip install 'vemseg[dask]'")


@pytest.fixture
def cluster(dask, tmp_path):
    """Start a scheduler and two workers by their own commands; yield its file, and the workers."""
    paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    place = tmp_path / "scheduler.json"

    def begin(*args):
        command = [sys.executable, "-m", "dask", *args, "--scheduler-file", str(place)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=tmp_path)

    scheduler = begin("scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0")
    while not place.exists():
        assert scheduler.poll() is None
        time.sleep(0.1)
    options = ["--nthreads", "2", "--memory-limit", "4GiB", "--no-dashboard", "--no-nanny"]
    workers = [begin("worker", *options) for _ in range(2)]
    yield place, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


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
