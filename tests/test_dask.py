"""The blocks of one volume on the workers of a Dask cluster, whatever happens: the bytes of one process."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tifffile
from jobs import Bad, Deadly, DeadlyOnce, Marked, Slow
from test_shards import ABOUT, content, start
from test_spread import job

from vemseg.blocks import on_dask, run
from vemseg.context import Context
from vemseg.errors import InputError, Interrupted, MissingError, ResourceError
from vemseg.geometry import Box
from vemseg.phantom import Phantom

HERE = Path(__file__).parent
PLACE = Context(device="cpu", threads=1, memory=2**28, executor="dask", cluster="local", processes=2)


def test_without_dask_it_is_said_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingError, match=r"--dask needs Dask: pip install 'vemseg\[dask\]'"):
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
    context = Context(
        **{**PLACE.__dict__, "report": lambda stage, fraction, detail="": told.append(fraction)}
    )
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
    stops = Context(**{**PLACE.__dict__, "stopped": lambda: slow.marker(0).exists()})
    with pytest.raises(Interrupted, match=r"stopped after \d of 6 blocks: the same command goes on from"):
        run(slow, stops)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_and_workers_started_by_hand_give_the_bytes_of_one_process(cluster, tmp_path):
    place, workers = cluster
    shape = (48, 256, 256)
    tifffile.imwrite(tmp_path / "cell.tif", Phantom(shape, 3).read(Box.whole(shape)), imagej=True,
                     resolution=(1 / 16, 1 / 16), metadata=ABOUT)  # fmt: skip
    volume, out, one = tmp_path / "cell.tif", tmp_path / "dask.ome.zarr", tmp_path / "one.ome.zarr"
    parent = start(volume, out, "--dask", json.loads(place.read_text())["address"])
    done = out.with_name(f"{out.name}.partial") / "done"
    while not list(done.glob("*.json")):
        assert parent.poll() is None, parent.communicate()
        time.sleep(0.02)
    workers[0].kill()
    _, err = parent.communicate()
    assert parent.returncode == 0, err
    assert "Dask shows how far it is at http" in err
    assert start(volume, one).wait() == 0
    assert content(out) == content(one) and len(content(one)) > 3
    with pytest.raises(
        ResourceError, match="a worker of Dask may occupy 4GiB, and blocks are planned for 8GiB"
    ):
        run(job(Marked, tmp_path), Context(executor="dask", cluster=str(place), memory=2**33))


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
    assert asked == [10] and "#SBATCH --cpus-per-task=3" in script and "#SBATCH --mem=8G" in script
