"""Processes that train together: the loss of one process, one that writes, one line where something ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from tiny import RECIPES, TRANSFORMER

from vemseg import ranks
from vemseg.context import Share
from vemseg.errors import ResourceError, UsageError
from vemseg.geometry import Box
from vemseg.models.mae import MaskedAutoencoder
from vemseg.models.sccs import SpectralClustering
from vemseg.phantom import Phantom
from vemseg.resources import launched
from vemseg.run import load_tensors
from vemseg.training import refuse_undivided

HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VEMSEG_")}
    paths = [str(HERE.parent), str(HERE), kept.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4", "MASTER_PORT": "29500"}, (3, 4)),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "29500"}, (0, 1)),
        ({"RANK": "4", "WORLD_SIZE": "4", "MASTER_PORT": "29500"}, (0, 1)),
        ({"WORLD_SIZE": "4"}, (0, 1)),
    ],
)
def test_a_process_knows_whether_it_was_started_with_others(variables, place):
    assert launched(variables) == place


def test_what_cannot_be_divided_is_refused(monkeypatch):
    refuse_undivided(SpectralClustering, 1)
    monkeypatch.setattr(ranks, "here", lambda: Share(1, 3))
    refuse_undivided(MaskedAutoencoder, 6)
    with pytest.raises(UsageError, match="3 processes cannot share a batch of 8: give a --batch-size"):
        refuse_undivided(MaskedAutoencoder, 8)
    with pytest.raises(UsageError, match="trained by one process, not by 3: start it without torchrun"):
        refuse_undivided(SpectralClustering, 6)


def test_each_process_of_a_node_takes_a_gpu_of_its_own(monkeypatch):
    taken = []
    assert ranks._own_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="-d cuda:1 is one GPU for all processes: leave it out"):
        ranks._own_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert ranks._own_device("auto") == ranks._own_device("cuda") == "cuda:1" and taken == [1, 1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ResourceError, match="more processes on this node than its 2 GPUs: give --nproc-per"):
        ranks._own_device("auto")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # the batch system shows one to each
    assert ranks._own_device("auto") == "cuda:0"


def test_a_process_alone_gets_back_what_it_gives():
    x = torch.rand(3, 2)
    assert ranks.gathered(x) is x and ranks.summed(x) is x and ranks.divided(lambda y: y, x) is x
    assert ranks.largest(1.0, 2.0) == [1.0, 2.0] and ranks.leads()
    assert ranks.first(lambda: "made", lambda: "found") == "made"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train all small recipes by one process, and by two."""
    folder, script = tmp_path_factory.mktemp("together"), str(HERE / "together.py")
    for name, start in (("one", [sys.executable]), ("two", TORCHRUN)):
        subprocess.run([*start, script, str(folder / name)], env=environment(), check=True, timeout=600)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_learn_what_one_learns_from_the_same_batches(name, trained):
    one, two = (read_metrics(trained / count / name) for count in ("one", "two"))
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2, 3, 4, 5]
    for key in one[0].keys() - {"seconds", "samples_per_second"}:
        there = [(a[key], b[key]) for a, b in zip(one, two, strict=True) if a.get(key) is not None]
        assert np.allclose(*zip(*there, strict=True), rtol=1e-4, atol=1e-6), key
    first, second = (load_tensors(trained / c / name / "checkpoint.safetensors")[0] for c in ("one", "two"))
    assert first.keys() == second.keys()
    # Adam turns gradients that are zero up to rounding into steps of the learning rate
    assert all(np.allclose(first[key], second[key], rtol=1e-3, atol=1e-2) for key in first)
    files = [sorted(path.name for path in (trained / c / name).iterdir()) for c in ("one", "two")]
    assert files[0] == files[1] and "curve.png" in files[0]


def read_metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    path = tmp_path_factory.mktemp("cell") / "cell.tif"
    grey = Phantom((16, 64, 64), 3).read(Box.whole((16, 64, 64)))
    about = {"axes": "ZYX", "spacing": 16, "unit": "nm"}
    tifffile.imwrite(path, grey, imagej=True, resolution=(1 / 16, 1 / 16), metadata=about)
    return path


def command(cell, run, steps):
    settings = [*TRANSFORMER, "model.heads=2", "embed.stride=10", "train.log_every=5", "train.lr=1e-3"]
    settings.append("train.checkpoint_minutes=0.001")
    given = [part for setting in settings for part in ("--set", setting)]
    places = ["train", str(cell), "--config", "maester", "-d", "cpu", "-o", str(run)]
    return ["-m", "vemseg", *places, "--steps", str(steps), "--batch-size", "8", *given]


def losses(run):
    return [line["loss"] for line in read_metrics(run)]


def start(*args):
    """Start two processes in a session of their own."""
    return subprocess.Popen(
        [*TORCHRUN, *args], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def lines(text):
    """Return what the program said, without what torchrun says of its processes."""
    return [line for line in text.splitlines() if line.startswith("vemseg: ")]


def workers(parent):
    """Return the processes that torchrun started, by their numbers."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = [value for value in variables if value.startswith(b"RANK=")]
        if parents == parent and rank:
            found[int(rank[0][5:])] = int(folder.name)
    return found


def until(happened, process):
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(cell, tmp_path):
    one = [sys.executable, *command(cell, tmp_path / "one", 40)]
    subprocess.run(one, env=environment(), check=True)
    together = start(*command(cell, tmp_path / "run", 40))
    metrics = tmp_path / "run" / "metrics.jsonl"
    until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 2, together)
    for worker in workers(together.pid).values():
        os.kill(worker, signal.SIGUSR1)
    out, err = together.communicate()
    assert not out and len(lines(err)) == 1, err
    assert "state saved in" in err and "the same command goes on" in err
    between = load_tensors(tmp_path / "run" / "checkpoint.safetensors")[1]["step"]
    assert 10 <= between < 40
    alone = [sys.executable, *command(cell, tmp_path / "run", 40)]
    child = subprocess.Popen(alone, env=environment(), stderr=subprocess.DEVNULL)
    until(lambda: load_tensors(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] > between, child)
    child.send_signal(signal.SIGTERM)
    if child.wait() == 75:
        again = start(*command(cell, tmp_path / "run", 40))
        out, err = again.communicate()
        assert again.returncode == 0 and out == f"{tmp_path / 'run'}\n" and "going on from step" in err, err
    assert np.allclose(losses(tmp_path / "run"), losses(tmp_path / "one"), rtol=1e-4)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["finished"] and len(info["resumed"]) in (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_is_killed_ends_all_with_one_line(dies, cell, tmp_path):
    together = start(*command(cell, tmp_path / "run", 100_000))
    until((tmp_path / "run" / "checkpoint.safetensors").exists, together)
    os.kill(workers(together.pid)[dies], signal.SIGKILL)
    out, err = together.communicate(timeout=120)
    assert lines(err) == [
        "vemseg: error: another process of this training ended: the same command goes on from the last "
        "checkpoint"
    ]
    assert not out and together.returncode == 1
    assert load_tensors(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] > 0


@pytest.mark.slow
def test_what_is_wrong_is_said_once(cell, tmp_path):
    done = start(*command(cell, tmp_path / "run", 10), "--batch-size", "7")
    out, err = done.communicate()
    assert lines(err) == [
        "vemseg: error: 2 processes cannot share a batch of 7: give a --batch-size that is a multiple"
    ]
    assert not out and not (tmp_path / "run").exists()
