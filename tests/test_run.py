"""Directories that explain themselves, what is written beside outputs, and stopping in good order."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from interpreter import start

from vemseg.errors import InputError, MissingError, OutputExistsError
from vemseg.recipe import load_recipe, parse_recipe
from vemseg.run import (
    Run,
    StopSignal,
    fingerprint,
    load_tensors,
    provenance,
    save_tensors,
    sha256,
    sidecar,
    write_json,
)


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "cell.tif"
    path.write_bytes(np.random.default_rng(0).bytes(3 * 2**20 + 5))
    return path


# JSON and tensors


def test_json_takes_numpy_and_paths_but_no_nan(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"µ": np.float32(0.5), "n": np.int64(3), "a": np.arange(3), "p": Path("x"), "t": (1, 2)})
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "µ": 0.5,
        "n": 3,
        "a": [0, 1, 2],
        "p": "x",
        "t": [1, 2],
    }
    for bad in (float("nan"), float("inf"), np.float32("nan"), np.array([1.0, np.nan])):
        with pytest.raises(ValueError):
            write_json(path, {"bad": bad})
    assert json.loads(path.read_text(encoding="utf-8"))["n"] == 3
    with pytest.raises(TypeError):
        write_json(path, {"bad": object()})


def test_tensors_round_trip_with_their_metadata(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "turned": rng.normal(size=(4, 3)).astype(np.float32).T,
        "scalar": np.asarray(3.5),
        "empty": np.zeros((0, 2), np.int64),
        "half": rng.normal(size=5).astype(np.float16),
        "flags": np.array([True, False]),
        "every other": np.arange(10, dtype=np.uint8)[::2],
    }
    metadata = {"step": 12, "nested": {"µ": [1.5, None, "x"]}, "size": np.int64(4)}
    path = tmp_path / "a.safetensors"
    save_tensors(path, tensors, metadata)
    found, described = load_tensors(path)
    assert described == {"step": 12, "nested": {"µ": [1.5, None, "x"]}, "size": 4}
    assert set(found) == set(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_tensors_of_others_have_no_metadata(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones(2)}, tmp_path / "a.safetensors")
    assert load_tensors(tmp_path / "a.safetensors")[1] == {}


def test_broken_or_absent_tensors_are_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(MissingError, match=r"no file .*a\.safetensors"):
        load_tensors(path)
    save_tensors(path, {"a": np.ones(100)}, {})
    whole = path.read_bytes()
    for broken in (b"", b"abc", whole[:-8], b"\x00" * 64):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"cannot read .*a\.safetensors as safetensors"):
            load_tensors(path)


# Origin


@pytest.mark.parametrize(
    ("output", "beside"),
    [
        ("cell4_seg.tif", "cell4_seg.json"),
        ("cell4_seg.ome.zarr", "cell4_seg.json"),
        ("cell4_seg.OME.TIF", "cell4_seg.json"),
        ("cell.v2.zarr", "cell.v2.json"),
        ("metrics.json", "metrics.provenance.json"),
        ("plain", "plain.json"),
    ],
)
def test_the_sidecar_lies_beside_its_output(output, beside):
    assert sidecar(Path("some.dir") / output) == Path("some.dir") / beside


def test_provenance_says_what_when_where_and_from_what(tmp_path, volume, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vemseg", "segment", "my cell.tif"])
    weights = tmp_path / "model.safetensors"
    save_tensors(weights, {"a": np.ones(3)}, {})
    recipe = load_recipe("maester")
    data = provenance(
        "segmentation",
        recipe=recipe,
        seed=3,
        parents=[weights],
        inputs=[fingerprint(volume)],
        extra={"device": "cpu"},
    )
    write_json(tmp_path / "a.json", data)
    read = json.loads((tmp_path / "a.json").read_text())
    assert read == data
    assert (read["kind"], read["recipe"], read["seed"], read["device"]) == (
        "segmentation",
        recipe.hash,
        3,
        "cpu",
    )
    assert read["command"] == "vemseg segment 'my cell.tif'"
    assert read["parents"][0]["sha256"] == sha256(weights)
    assert read["inputs"][0]["bytes"] == volume.stat().st_size
    assert {"torch", "numpy", "zarr", "scikit-learn", "timm"} <= set(read["libraries"])
    assert read["started"] <= read["finished"]
    assert read["finished"].endswith("+00:00")


def test_provenance_does_not_import_what_it_names():
    code = """
import sys
from vemseg.run import provenance
provenance("nothing")
print(sorted({"torch", "timm", "zarr", "sklearn", "skimage", "matplotlib"} & set(sys.modules)))
"""
    out, err = start(code).communicate()
    assert (out, err) == ("[]\n", "")


def test_peak_memory_counts_what_was_held_and_is_gone():
    code = """
import numpy as np
from vemseg.run import peak_memory
before = peak_memory()
np.ones(200_000_000, np.uint8)
print(before, peak_memory())
"""
    before, after = map(int, start(code).communicate()[0].split())
    assert 10_000_000 < before < 1_000_000_000
    assert 195_000_000 < after - before < 300_000_000


# Runs


def test_a_run_explains_itself(tmp_path, volume):
    recipe = load_recipe("maester", ["train.seed=5"])
    with Run.create(
        tmp_path / "runs" / "a", recipe, inputs=[volume], details={"voxel_sizes": [[16, 16, 16]]}
    ) as run:
        assert not run.finished
        save_tensors(run.model, {"a": np.ones(2)}, {})
        run.finish(samples=3)
    found = Run.open(run.path)
    assert found.recipe == recipe
    assert found.finished
    info = found.info
    assert (info["kind"], info["seed"], info["recipe"]) == ("run", 5, recipe.hash)
    assert (info["voxel_sizes"], info["samples"]) == ([[16, 16, 16]], 3)
    card = yaml.safe_load((run.path / "rdf.yaml").read_text())
    assert (card["type"], card["format_version"]) == ("model", "0.5.4")
    assert card["weights"]["safetensors"] == {
        "source": "model.safetensors", "sha256": sha256(run.model), "opened_by": "vemseg",
    }  # fmt: skip
    assert [axis.get("id") for axis in card["inputs"][0]["axes"]] == [None, None, "z", "y", "x"]
    assert card["training_data"] == [{"source": volume.name, "content": fingerprint(volume)["content"]}]
    assert parse_recipe(card["config"]["vemseg"]["recipe"], "card") == recipe
    assert info["inputs"][0]["path"] == str(volume.resolve())
    assert found.model == run.path / "model.safetensors"


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"not a vemseg run: no recipe\.toml in"):
        Run.open(tmp_path)
    with pytest.raises(InputError, match=r"not a vemseg run: no directory"):
        Run.open(tmp_path / "absent")
    (tmp_path / "recipe.toml").write_text("[train]\nbatch = 0\n")
    with pytest.raises(InputError, match=r"cannot read run .*train\.batch must be at least 1"):
        Run.open(tmp_path)


def test_the_same_settings_take_a_run_up_again(tmp_path, volume):
    recipe = load_recipe()
    with Run.create(tmp_path / "a", recipe, inputs=[volume]) as run:
        first = run.info
    moved = volume.rename(tmp_path / "moved.tif")
    with Run.create(tmp_path / "a", recipe, inputs=[moved]) as run:
        info = run.info
    assert info["started"] == first["started"]
    assert info["inputs"] == first["inputs"]
    assert len(info["resumed"]) == 1


def test_a_finished_run_is_left_as_it_is(tmp_path):
    with Run.create(tmp_path / "a", load_recipe()) as run:
        run.append_metrics({"step": 1, "loss": 0.5})
        run.finish()
    before = {file.name: file.read_bytes() for file in run.path.iterdir() if file.name != ".lock"}
    with Run.create(tmp_path / "a", load_recipe()) as run:
        assert run.finished
    assert before == {file.name: file.read_bytes() for file in run.path.iterdir() if file.name != ".lock"}


def test_other_settings_are_refused_by_name(tmp_path, volume):
    Run.create(tmp_path / "a", load_recipe(), inputs=[volume]).close()
    with pytest.raises(OutputExistsError) as caught:
        Run.create(tmp_path / "a", load_recipe(overrides=["train.batch=4", "cluster.k=7"]), inputs=[volume])
    assert str(caught.value) == (
        f"{tmp_path / 'a'} was made with other settings "
        "(train.batch 8 there, 4 now; cluster.k 6 there, 7 now): give another -o, or -f to start again"
    )
    with pytest.raises(OutputExistsError, match=r"made from other volumes \(cell\.tif\)"):
        Run.create(tmp_path / "a", load_recipe(), inputs=[])
    with pytest.raises(OutputExistsError, match=r"model\.sigmas absent there, \[1.0, 2.0, 4.0, 8.0\] now"):
        Run.create(tmp_path / "a", load_recipe(overrides=["model.kind=classical"]), inputs=[volume])
    Run.create(tmp_path / "a", load_recipe(), inputs=[volume]).close()  # a refusal leaves no lock


def test_overwriting_starts_again_and_spares_what_is_not_the_runs(tmp_path):
    with Run.create(tmp_path / "a", load_recipe()) as run:
        run.append_metrics({"step": 1})
        save_tensors(run.checkpoint, {}, {"step": 1})
        run.finish()
    (run.path / "notes.txt").write_text("mine")
    (run.path / "curve.png").touch()
    other = load_recipe(overrides=["train.batch=8"])
    with Run.create(tmp_path / "a", other, overwrite=True) as run:
        assert not run.finished
        assert run.read_metrics() == []
    assert Run.open(run.path).recipe == other
    assert {file.name for file in run.path.iterdir()} == {".lock", "notes.txt", "recipe.toml", "run.json"}


def test_the_same_volumes_seen_otherwise_are_refused_by_name(tmp_path, volume):
    facts = {
        "path": str(volume), "shape": [4, 5, 6], "voxel_size_nm": [8.0, 8.0, 8.0], "crop": "0:4,0:5,0:6",
        "intensity": {"low": np.float64(1 / 3), "high": 200.0}, "voxel_size_from": "option",
    }  # fmt: skip

    def create(**changes):
        details = {"volumes": [facts | changes]}
        Run.create(tmp_path / "a", load_recipe(), inputs=[volume], details=details).close()

    create()
    create(path="/moved/cell.tif", voxel_size_from="file")
    for key, value in [("shape", [4, 5, 7]), ("voxel_size_nm", None), ("intensity", {"low": 0, "high": 1})]:
        with pytest.raises(
            OutputExistsError, match=rf"read its volumes in another way \({key} of cell\.tif "
        ):
            create(**{key: value})
    with pytest.raises(OutputExistsError) as caught:
        create(crop=None)
    assert str(caught.value) == (
        f"{tmp_path / 'a'} read its volumes in another way "
        '(crop of cell.tif "0:4,0:5,0:6" there, absent now): '
        "give another -o, or -f to start again"
    )


@pytest.mark.parametrize("overwrite", [False, True])
def test_starting_again_survives_being_killed_anywhere(tmp_path, monkeypatch, overwrite):
    class Killed(BaseException):
        pass

    def dying(method, step, last):
        def act(*args, **kwargs):
            if next(step) >= last:
                raise Killed
            return method(*args, **kwargs)

        return act

    def start_again_until(last):
        """Start the run again; whatever changes the directory fails from a step on."""
        step = itertools.count()
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            for method in ("unlink", "replace"):
                patch.setattr(Path, method, dying(getattr(Path, method), step, last))
            Run.create(tmp_path / "a", load_recipe(), overwrite=True).close()
        return next(step)

    for last in range(14):
        with Run.create(tmp_path / "a", load_recipe(), overwrite=True) as run:
            run.append_metrics({"step": 1})
            save_tensors(run.checkpoint, {}, {"step": 1})
            run.finish()
        for name in ("notes.txt", "mine.png", "mine.json"):
            (run.path / name).write_text("mine")
        taken = start_again_until(last)
        with Run.create(tmp_path / "a", load_recipe(), overwrite=overwrite) as run:
            untouched = last <= 1 and not overwrite  # the first step removes what is not there
            assert bool(run.read_metrics()) == run.checkpoint.exists() == run.finished == untouched
        kept = {".lock", "recipe.toml", "run.json", "notes.txt", "mine.png", "mine.json"}
        course = {"metrics.jsonl", "checkpoint.safetensors"}  # untouched, or begun anew
        assert {file.name for file in run.path.iterdir()} - course == kept
    assert taken < last  # the last time it was not killed


def test_taking_up_sweeps_what_a_killed_process_left(tmp_path):
    Run.create(tmp_path / "a", load_recipe()).close()
    for name in (
        ".partial-1234-model.safetensors",
        ".partial-0123abcd-curve.png",
        ".partial-89abcdef-reconstruction-0000001.png",
    ):
        (tmp_path / "a" / name).touch()
    Run.create(tmp_path / "a", load_recipe()).close()
    left = {file.name for file in (tmp_path / "a").iterdir()}
    assert left == {".lock", "recipe.toml", "run.json"}


def test_a_directory_of_something_else_is_never_touched(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "results.json").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match=r"not a vemseg run, and not empty \(results\.json\)"):
            Run.create(tmp_path / "a", load_recipe(), overwrite=overwrite)
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["results.json"]
    with pytest.raises(OutputExistsError, match=r"is a file"):
        Run.create(tmp_path / "a" / "results.json", load_recipe())
    (tmp_path / "empty").mkdir()
    Run.create(tmp_path / "empty", load_recipe()).close()


def test_an_interrupted_creation_is_begun_again(tmp_path):
    with Run.create(tmp_path / "a", load_recipe()) as run:
        pass
    (run.path / "recipe.toml").unlink()
    (run.path / ".partial-recipe.toml").touch()
    with Run.create(tmp_path / "a", load_recipe()):
        assert Run.open(run.path).recipe == load_recipe()


def test_metrics_are_lines_that_survive_a_crash(tmp_path):
    with Run.create(tmp_path / "a", load_recipe()) as run:
        assert run.read_metrics() == []
        for step in (1, 2, 3):
            run.append_metrics({"step": step, "loss": np.float32(0.5), "lr": 1e-4})
        run.append_metrics({"step": 4, "loss": float("nan"), "lr": np.float32("inf")})
        assert [line["step"] for line in run.read_metrics()] == [1, 2, 3, 4]
        assert run.read_metrics()[-1] == {"step": 4, "loss": None, "lr": None}
        with run.metrics.open("a") as file:
            file.write('{"step": 5, "lo')
        assert [line["step"] for line in run.read_metrics()] == [1, 2, 3, 4]
        run.truncate_metrics(2)
        run.append_metrics({"step": 3})
        assert [line["step"] for line in run.read_metrics()] == [1, 2, 3]
        run.metrics.write_text("{]\n")
        with pytest.raises(InputError, match=r"cannot read .*metrics\.jsonl"):
            run.read_metrics()


def test_without_a_checkpoint_the_course_begins_anew(tmp_path):
    with Run.create(tmp_path / "a", load_recipe()) as run:
        run.append_metrics({"step": 1})
    with Run.create(tmp_path / "a", load_recipe()) as run:
        assert run.read_metrics() == []
        run.append_metrics({"step": 1})
        save_tensors(run.checkpoint, {}, {"step": 1})
    with Run.create(tmp_path / "a", load_recipe()) as run:
        assert run.read_metrics() == [{"step": 1}]


HOLD = """
import sys, time, pathlib
from vemseg.recipe import load_recipe
from vemseg.run import Run
with Run.create(pathlib.Path(sys.argv[1]), load_recipe()):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_do_not_train_in_one_run(tmp_path):
    process = start(HOLD, tmp_path / "a")
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(OutputExistsError, match=rf"another process trains in .*\(pid {process.pid} on "):
            Run.create(tmp_path / "a", load_recipe(), overwrite=True)
        assert Run.open(tmp_path / "a").recipe == load_recipe()  # reading is free
    finally:
        process.kill()
        process.communicate()
    Run.create(tmp_path / "a", load_recipe()).close()  # a killed process holds nothing


# Signals


LOOP = """
import time
from vemseg.run import StopSignal
with StopSignal() as stop:
    for turn in range(6000):
        if stop.requested:
            break
        if not turn:
            print("ready", flush=True)
        time.sleep(0.01)
print("left in good order:", stop.received, flush=True)
print("again", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_is_a_request_inside_and_the_end_outside(name):
    process = start(LOOP)
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.Signals[name])
        assert process.stdout.readline() == f"left in good order: {name}\n"
        assert process.stdout.readline() == "again\n"
        process.send_signal(signal.Signals[name])
        assert process.wait(timeout=30) == -signal.Signals[name]
    finally:
        process.kill()
        process.communicate()


BLOCKED = """
import sys, threading
from vemseg.run import StopSignal
with StopSignal() as stop:
    if sys.argv[1] == "saving":
        assert not stop.requested
    print("ready", flush=True)
    while True:
        try:
            open(sys.argv[2]).read()  # a pipe that nobody writes to: neither library nor disk gives in
        except BaseException:
            pass
"""


@pytest.mark.parametrize(
    ("state", "signals", "code", "said"),
    [
        ("nothing", ["SIGTERM"], 75, "stopped by SIGTERM before there was anything to save"),
        ("nothing", ["SIGUSR1"], 75, "stopped by SIGUSR1 before there was anything to save"),
        ("saving", ["SIGUSR1", "SIGTERM"], 143, "ended at once by SIGTERM, the second signal"),
    ],
)
def test_work_that_is_blocked_ends_at_once(tmp_path, state, signals, code, said):
    os.mkfifo(tmp_path / "pipe")
    process = start(BLOCKED, state, tmp_path / "pipe")
    try:
        assert process.stdout.readline() == "ready\n"
        for earlier in signals[:-1]:
            process.send_signal(signal.Signals[earlier])
            with pytest.raises(subprocess.TimeoutExpired):  # the first one is a request
                process.wait(timeout=0.3)
        process.send_signal(signal.Signals[signals[-1]])
        assert process.wait(timeout=30) == code
        assert said in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_handlers_are_put_back_even_after_an_error():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with pytest.raises(KeyError), StopSignal():
        raise KeyError
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_another_thread_has_no_signals_to_wait_for():
    seen = []

    def work():
        with StopSignal() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_nothing_was_asked_for_before_a_signal_came():
    with StopSignal() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(100):
            if stop.requested:
                break
            time.sleep(0.01)
        assert stop.received == "SIGUSR1"
