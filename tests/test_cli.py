"""The command line: what it prints where, how it ends, how long it takes to say help."""

import io
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from rich.console import Console

from vemseg import __version__, cli, recipe
from vemseg.cli import parsing, shell
from vemseg.cli.progress import Pace, PlainLines, showing, words
from vemseg.cli.segment import placement_settings
from vemseg.cli.words import PlacementName, ProgressStyle
from vemseg.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
VERBS = ["fetch", "train", "embed", "cluster", "segment", "refine", "objects", "evaluate", "render", "report"]
PAGES = [[], *([verb] for verb in VERBS), ["fetch", "phantom"], ["fetch", "list"]]
HEAVY = {"torch", "torchvision", "timm", "zarr", "tifffile", "matplotlib", "sklearn", "skimage", "scipy"}
TINY = {
    "model": {"fov": 20, "dim": 32, "depth": 2, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
    "train": {"log_every": 5, "batch": 4},
    "embed": {"stride": 10},
}
TINY_OPTIONS = [f"--set={table}.{key}={value}" for table, keys in TINY.items() for key, value in keys.items()]


def environment(**more):
    """Return the environment of a batch job: no terminal settings, this source tree."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VEMSEG_", "GITHUB_"))}
    for name in ("FORCE_COLOR", "PY_COLORS", "COLUMNS"):
        kept.pop(name, None)
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def vemseg(*args, cwd=None, **more):
    """Run the program as a process of its own."""
    command = [sys.executable, "-m", "vemseg", *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment(**more), timeout=300
    )


@pytest.fixture
def inside(monkeypatch, capfd, tmp_path):
    """Return a function that runs the program in this process, which has its libraries loaded already."""
    root, package = logging.getLogger(), logging.getLogger("vemseg")
    before = root.handlers[:], root.level, package.level
    monkeypatch.setattr(shell, "_shell", shell.Shell())
    monkeypatch.chdir(tmp_path)
    for name in ("VEMSEG_DEVICE", "VEMSEG_PROGRESS"):
        monkeypatch.delenv(name, raising=False)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["vemseg", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(args, ended.value.code, out, err)

    yield run
    root.handlers[:], root.level = before[:2]
    package.setLevel(before[2])
    logging.captureWarnings(False)


@pytest.fixture
def cell(tmp_path):
    """Return the path of a small volume."""
    path = tmp_path / "cell.tif"
    grey = np.random.default_rng(0).integers(0, 255, (4, 40, 40), dtype=np.uint8)
    tifffile.imwrite(path, grey, imagej=True, metadata={"axes": "ZYX"})
    return path


# Help


@pytest.mark.parametrize("page", PAGES, ids="-".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help(inside, page, flag):
    done = inside(*page, flag)
    assert done.returncode == 0 and not done.stderr
    assert "Usage: vemseg" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids="-".join)
def test_help_fits_a_terminal_of_80_columns(inside, page, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, inside(*page, "-h").stdout.splitlines())) <= 80


def test_help_shows_the_real_defaults(inside):
    assert f"({recipe.DEFAULT_RECIPE})" in inside("train", "-h").stdout
    for style in PlacementName:
        assert style.value in inside("segment", "-h").stdout.replace("\n", " ")
    assert {*PlacementName} == {*recipe.EmbedTable.model_fields["placement"].annotation.__args__}


def test_help_loads_nothing_heavy():
    code = (
        "import sys, vemseg.cli as cli\n"
        "for page in ([], ['segment'], ['fetch', 'phantom']):\n"
        "    try: cli.app([*page, '--help'], prog_name='vemseg')\n"
        "    except SystemExit as end: assert end.code == 0\n"
        f"print('loaded', sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout.splitlines()[-1] == "loaded []", done.stderr


def test_opening_the_default_loads_no_compiler():
    code = (
        "import sys\n"
        "from vemseg.models import open_model\n"
        "open_model('vemseg').load()\n"
        "print('loaded', sorted({'sympy', 'torch._dynamo', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout.splitlines()[-1] == "loaded []", done.stderr


def test_help_is_quick():
    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert vemseg("segment", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert any(seconds() < 1.0 for _ in range(3))  # 0.3 s on most machines; loading torch alone takes longer


def test_commands_are_listed_in_the_order_of_their_use(inside):
    listed = re.findall(r"^│ (\w+) ", inside("-h").stdout, re.MULTILINE)
    assert listed == VERBS


# Small commands


def test_version():
    done = vemseg("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"vemseg {__version__}\n", "")


def test_dump_config_is_a_recipe_and_goes_quietly_into_a_closed_pipe():
    done = vemseg("train", "--dump-config", "--steps", 7, "--lr", "1e-3", "--set", "cluster.k=5")
    dumped = recipe.parse_recipe(done.stdout, "stdout")
    assert (dumped.train.steps, dumped.train.lr, dumped.cluster.k) == (7, 1e-3, 5)
    command = f"'{sys.executable}' -m vemseg train --dump-config | true; exit ${{PIPESTATUS[0]}}"
    piped = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment())
    assert piped.returncode in (0, 141) and piped.stderr == ""


def test_fetch_list(inside):
    entries = json.loads(inside("fetch", "list", "--json").stdout)
    assert {entry["name"] for entry in entries if entry["kind"] == "recipe"} == set(recipe.shipped())
    shown = inside("fetch", "list").stdout
    assert all(entry["name"] in shown for entry in entries)


def test_diagnose(inside):
    done = inside("--diagnose")
    assert done.returncode == 0
    assert {"vemseg", "cores", "memory", "device", "weights", "torch"} <= {
        line.split()[0] for line in done.stdout.splitlines()
    }


# How it ends


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["frobnicate"], "No such command"),
        (["segment", "-k", "4"], "Missing argument"),
        (["segment", "cell.tif", "--clases", "4"], "No such option"),
        (["segment", "cell.tif", "-k", "4", "--clusters", "c.safetensors"], "-k and --clusters do not go"),
        (["segment", "cell.tif", "--k-range", "4:6", "--clusters", "c.safetensors"], "--k-range and --clus"),
        (["segment", "cell.tif", "--classes", "named", "--clusters", "c.safetensors"], "--classes and"),
        (["segment", "cell.tif", "--classes", "named", "-k", "4"], "-k and --classes named do not"),
        (
            ["segment", "cell.tif", "--placement", "whole-slice", "--kept", "4"],
            "--placement cover-and-stride",
        ),
        (["segment", "cell.tif", "-m", "classical", "-k", "300"], "cluster.k must be at most 255, not 300"),
        (["segment", "cell.tif", "-m", "classical", "-k", "1"], "cluster.k must be at least 2, not 1"),
        (["segment", "cell.tif", "-m", "classical", "--names", "nucleus"], "cannot read names"),
        (["segment", "cell.tif", "-m", "classical", "-o", "labels.png"], ".tif or .ome.zarr"),
        (["segment", "cell.tif", "-m", "classical", "-o", "a.tif", "--ngff", "0.4"], "--ngff belongs to"),
        (["segment", "cell.tif", "--name", "mito"], "--name belongs to --into"),
        (["segment", "cell.tif", "-m", "classical", "--scores", "sub/s.h5"], "must lie in the folder"),
        (["fetch", "openorganelle", "jrc_hela-2"], "give --crop"),
        (["train", "cell.tif"], "vemseg train cell.tif -o run"),
        (["train", "cell.tif", "-o", "run", "--max-time", "5"], "not a time"),
        (["train", "cell.tif", "-o", "run", "-c", "maestro"], "did you mean 'maester'"),
        (["train", "cell.tif", "-o", "run", "--set", "train.stepz=5"], "did you mean 'train.steps'"),
        (["evaluate", "cell.tif", "--gt", "cell.tif", "--fail-under", "dice"], "not a threshold"),
        (["fetch", "phantom", "--shape", "1,2"], "not a shape"),
    ],
)
def test_usage_errors_are_2(inside, cell, args, says):
    done = inside(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(re.sub("[│╭╮╰╯─]", " ", done.stderr).split())
    assert "Traceback" not in done.stderr


def refuse(done, code, *says):
    """Check that a command ended with one line."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert re.fullmatch("vemseg: error: [^\n]+\n", done.stderr)
    for text in says:
        assert text in done.stderr


def test_input_errors_are_3(inside, tmp_path):
    refuse(inside("segment", "absent.tif", "-m", "classical"), 3, "absent.tif does not exist")
    (tmp_path / "text.tif").write_text("I am no image.")
    refuse(inside("segment", "text.tif", "-m", "classical"), 3, "text.tif is not a TIFF stack")


def test_places_that_cannot_be_are_4(inside, cell, tmp_path):
    (tmp_path / "text.txt").write_text("mine")
    labels = tmp_path / "labels.tif"
    tifffile.imwrite(labels, np.zeros((4, 40, 40), np.uint8), photometric="minisblack")
    compute = ("segment", cell, "-m", "classical", "--voxel-size", "16")
    for command, option in ((compute, ".tif"), (("evaluate", labels, "--gt", labels), ".json")):
        for out in (f"text.txt/a{option}", "a" * (254 - len(option)) + option):
            done = inside("-q", *command, "-o", out)
            refuse(done, 4)
            assert re.search("Not a directory|File exists|File name too long", done.stderr)
    refuse(inside("-q", "render", cell, "--voxel-size", "16", "-o", "text.txt/a"), 4, "text.txt/a")


def test_scores_of_an_evaluation_go_where_they_should(inside, tmp_path, monkeypatch):
    tifffile.imwrite(
        tmp_path / "labels.tif", np.arange(60, dtype=np.uint8).reshape(2, 5, 6) % 3, photometric="minisblack"
    )
    compare = ("-q", "evaluate", "labels.tif", "--gt", "labels.tif")
    (tmp_path / "s_slices.png").write_text("mine")
    refuse(inside(*compare, "-o", "s.json"), 6, "s_slices.png exists")
    assert (tmp_path / "s_slices.png").read_text() == "mine"
    assert not (tmp_path / "s.json").exists()
    refuse(inside(*compare, "-o", ".", "-f"), 2, "is not the name of a file")
    assert inside(*compare, "-o", "new/er/s.json").returncode == 0
    assert (tmp_path / "new" / "er" / "s_greedy.png").exists()
    from vemseg.comparison import counting

    monkeypatch.setattr(counting, "MOST_COUNTS", 2 * 3 * 3 - 1)
    refuse(inside(*compare), 3, "3 labels in the prediction", "evaluate classes, not instances")


def test_pictures_with_options_out_of_range(inside, cell, tmp_path):
    draw = ("-q", "render", cell, "--voxel-size", "16", "-o", "pictures")
    for option, value in (("--slices", 0), ("--slices", -3), ("--alpha", 7), ("--alpha", -0.1)):
        done = inside(*draw, option, value)
        assert done.returncode == 2 and option in done.stderr
    (tmp_path / "pictures").write_text("mine")
    refuse(inside(*draw), 6, "pictures is a file")


def test_a_device_that_is_not_there_is_4(inside, cell):
    refuse(
        inside("segment", cell, "-m", "classical", "--voxel-size", "8", "-d", "cuda:77"),
        4,
        "cuda:77",
        "-d cpu",
    )


def test_missing_weights_are_5(inside, cell):
    refuse(inside("segment", cell, "-m", "no-such-weights"), 5, "no weights 'no-such-weights'")


def test_an_output_that_exists_is_6_and_stays(inside, tmp_path):
    (tmp_path / "phantom.tif").write_text("mine")
    refuse(inside("fetch", "phantom", "--shape", "2,8,8"), 6, "phantom")
    assert (tmp_path / "phantom.tif").read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "vemseg: interrupted"),
        (MemoryError(), 4, "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 4, "embed.batch"),
        (
            OSError(28, "No space left on device", "/data/out.tif"),
            4,
            "/data/out.tif: No space left on device",
        ),
        (
            ZeroDivisionError("two\nlines"),
            1,
            "internal error: ZeroDivisionError: two lines (the same command",
        ),
    ],
)
def test_what_was_not_foreseen_is_one_line(inside, monkeypatch, error, code, says):
    def strike(*args, **options):
        raise error

    monkeypatch.setattr(recipe, "load_recipe", strike)
    done = inside("train", "--dump-config")
    assert done.returncode == code and says in done.stderr and len(done.stderr.splitlines()) == 1


def test_verbose_shows_where_it_struck(inside, monkeypatch):
    monkeypatch.setattr(recipe, "load_recipe", lambda *args: 1 // 0)
    done = inside("train", "--dump-config", "-v")
    assert done.returncode == 1 and "Traceback" in done.stderr and "-v" not in done.stderr.splitlines()[-1]
    assert "Traceback" in inside("-v", "train", "--dump-config").stderr


def test_warnings_of_libraries_stay_out_of_sight(inside, monkeypatch):
    monkeypatch.setattr(recipe, "load_recipe", lambda *args: warnings.warn("technical", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert "technical" not in inside("train", "--dump-config").stderr
        assert "technical" in inside("train", "--dump-config", "-v").stderr


# From phantom to pictures


def test_segment_evaluate_render(inside, tmp_path):
    made = inside("fetch", "phantom", "--shape", "24,96,96", "-o", "a cell µ.tif")
    assert made.stdout.splitlines() == ["a cell µ.tif", "a cell µ_labels.tif"]
    segmented = inside("segment", "a cell µ.tif", "-m", "classical", "-k", 4, "--set", "cluster.sample=5000")
    assert (segmented.returncode, segmented.stdout) == (0, "a cell µ_seg.tif\n")
    assert "segmenting 100 %  0.2/0.2 Mvoxel, took" in segmented.stderr
    labels = tifffile.imread(tmp_path / "a cell µ_seg.tif")
    assert labels.shape == (24, 96, 96) and set(np.unique(labels)) == {1, 2, 3, 4}

    compare = ("evaluate", "a cell µ_seg.tif", "--gt", "a cell µ_labels.tif", "--ignore", "0")
    scored = inside(*compare, "--names", "1=cytosol,2=nucleus", "--map", "1=2,2=3")
    assert scored.returncode == 0
    for text in ("hungarian", "majority", "greedy", "manual", "2 nucleus", "mean of 6", "use the reference"):
        assert text in scored.stdout
    assert "3 mitochondrion" in scored.stdout and "reference class" in scored.stdout  # named by its file
    found = json.loads(inside(*compare, "--json").stdout)
    dice = found["protocols"][0]["mean"]["dice"]
    stored = inside(*compare, "-o", "scores.json", "--fail-under", f"dice={dice - 0.01:.3f}")
    assert (stored.returncode, stored.stdout) == (0, "scores.json\n")
    failed = inside(*compare, "-q", "--json", "--fail-under", f"dice={dice + 0.01:.3f}")
    assert failed.returncode == 7 and "mean dice" in failed.stderr and json.loads(failed.stdout) == found
    before = (tmp_path / "scores.json").read_bytes()
    again = inside(*compare, "-o", "scores.json", "--fail-under", f"dice={dice + 0.01:.3f}")
    assert (again.returncode, again.stdout) == (7, "scores.json\n")
    assert (tmp_path / "scores.json").read_bytes() == before
    other = (*compare[:-2], "-o", "scores.json")
    refuse(inside(*other), 6, "scores.json exists and was made otherwise (ignore [0] there, [] now)")
    (tmp_path / "mine.json").write_text("[1]")
    refuse(inside(*compare, "-o", "mine.json"), 6, "does not say how it was made")

    drawn = inside(
        "render", "a cell µ.tif", "--labels", "a cell µ_seg.tif", "-o", "pictures", "--at", "3,40,50"
    )
    assert drawn.returncode == 0 and len(drawn.stdout.splitlines()) == 2
    draw = ("render", "a cell µ.tif", "--labels", "a cell µ_seg.tif", "-o", "pictures", "--at")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "pictures").iterdir()}
    again = inside(*draw, "3,40,50")
    assert (again.returncode, again.stdout) == (0, drawn.stdout)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pictures").iterdir()} == times
    refuse(inside(*draw, "3,40,51"), 6, "was made otherwise (at [3, 40, 50] there, [3, 40, 51] now)")
    assert all((tmp_path / line).is_file() for line in drawn.stdout.splitlines())


def test_embed_cluster_segment(inside, tmp_path):
    inside("fetch", "phantom", "--shape", "6,40,40", "-o", "cell.ome.zarr")
    stored = inside("embed", "cell.ome.zarr", "-m", "classical", "-o", "cell.zarr")
    assert (stored.returncode, stored.stdout) == (0, "cell.zarr\n"), stored.stderr
    clusters = inside("cluster", "cell.zarr", "-k", 3, "--sample", 2000, "-o", "three.safetensors")
    assert (clusters.returncode, clusters.stdout) == (0, "three.safetensors\n"), clusters.stderr
    before = (tmp_path / "three.safetensors").read_bytes()
    repeat = ("cluster", "cell.zarr", "-o", "three.safetensors", "--sample", 2000, "-k")
    assert inside(*repeat, 3).returncode == 0
    assert (tmp_path / "three.safetensors").read_bytes() == before
    refuse(inside(*repeat, 4), 6, "was made otherwise (cluster.k 3 there, 4 now)")
    refuse(inside(*repeat, 1), 2, "cluster.k must be at least 2, not 1")
    segmented = inside("segment", "cell.zarr", "--clusters", "three.safetensors")
    assert (segmented.returncode, segmented.stdout) == (0, "cell_seg.ome.zarr\n"), segmented.stderr
    again = inside("segment", "cell.zarr", "--clusters", "three.safetensors")
    assert (again.returncode, again.stdout) == (0, "cell_seg.ome.zarr\n")
    assert "made with the same settings" in again.stderr


@pytest.mark.slow
def test_processes_end_to_end(tmp_path):
    made = vemseg("fetch", "phantom", "-o", "p.tif", "--shape", "24,96,96", cwd=tmp_path)
    assert (made.returncode, made.stdout) == (0, "p.tif\np_labels.tif\n"), made.stderr
    segmented = vemseg("segment", "p.tif", "-m", "classical", "-k", 4, cwd=tmp_path)
    assert (segmented.returncode, segmented.stdout) == (0, "p_seg.tif\n"), segmented.stderr
    scored = vemseg("evaluate", "p_seg.tif", "--gt", "p_labels.tif", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    drawn = vemseg("render", "p.tif", "--labels", "p_seg.tif", "-o", "pictures", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    for done in (made, segmented, scored, drawn):
        assert "\x1b" not in done.stdout + done.stderr and "\r" not in done.stderr
    refuse(
        vemseg("segment", "p.tif", "-m", "classical", "-k", 5, cwd=tmp_path), 6, "cluster.k 4 there, 5 now"
    )


def test_a_training_begins_with_a_model_or_learns_from_one(inside, tmp_path):
    sizes = {"fov": 48, "view": 32, "slices": 4, "widths": [6, 8], "layers": 1, "dim": 5}
    tiny = [f"--set=model.{key}={value}" for key, value in sizes.items()]
    short = ["--steps", 2, "--batch-size", 2]
    assert inside("fetch", "phantom", "--shape", "12,80,90", "-o", "cell.tif").returncode == 0
    assert inside("train", "cell.tif", "-c", "invariance", *tiny, *short, "-o", "first").returncode == 0
    done = inside("train", "cell.tif", "--from", "first", *short, "--seed", 3, "-o", "second")
    assert done.returncode == 0, done.stderr
    first, second = (recipe.load_recipe(tmp_path / run / "recipe.toml") for run in ("first", "second"))
    assert second.model == first.model and (second.train.steps, second.train.seed) == (2, 3)

    done = inside(
        "train", "cell.tif", "-c", "invariance", "--teacher", "./first", *tiny[:-1], *short, "-o", "student"
    )
    assert done.returncode == 0 and "equal labels" in done.stderr
    assert recipe.load_recipe(tmp_path / "student" / "recipe.toml").model.dim == 5
    shown = inside("train", "-c", "invariance", "--teacher", "classical", "--dump-config").stdout
    assert recipe.parse_recipe(shown, "shown").model.dim == 16
    done = inside("segment", "cell.tif", "-k", 3, "--model", "student")
    assert (done.returncode, done.stdout) == (0, "cell_seg.tif\n"), done.stderr

    onto = ["train", "cell.tif", "-o", "other"]
    refuse(inside(*onto, "--from", "first", "-c", "vemseg"), 2, "first is another model", "model.dim")
    refuse(inside(*onto, "--from", "first", "--teacher", "first"), 2, "do not go together")
    refuse(inside(*onto, "--from", "classical"), 2, "needs no training")
    refuse(inside(*onto, "--from", "./absent"), 3, "no directory absent")
    refuse(inside(*onto, "--teacher", "first", "-c", "classical"), 2, "teaches a dense encoder")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_terminated_training_goes_on_with_the_same_command(tmp_path):
    assert vemseg("fetch", "phantom", "--shape", "8,64,64", cwd=tmp_path).returncode == 0
    args = ["train", "phantom.tif", "-c", "maester-quick", "-o", "run", "--steps", "600", *TINY_OPTIONS]
    command = [sys.executable, "-m", "vemseg", *args]
    first = subprocess.Popen(command, cwd=tmp_path, env=environment(), text=True, stderr=subprocess.PIPE)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists() and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 75, said
    stopped = re.search(
        r"^vemseg: stopped at step (\d+), state saved in run: the same command", said, re.MULTILINE
    )
    assert stopped and 0 < int(stopped[1]) < 600
    second = vemseg(*args, cwd=tmp_path)
    assert (second.returncode, second.stdout) == (0, "run\n"), second.stderr
    assert f"going on from step {stopped[1]}" in second.stderr
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 600


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_the_first_process_of_a_container_hears_signals(name):
    program = "import os, time; from vemseg import cli; os.getpid = lambda: 1; "
    program += "cli.app = lambda **_: (print(flush=True), time.sleep(60)); cli.main()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.Signals[name])
        assert process.wait(timeout=50) == 128 + signal.Signals[name]


def test_a_cache_that_cannot_be_made_stops_nobody(tmp_path):
    (tmp_path / "taken").write_text("")
    done = vemseg("--diagnose", cwd=tmp_path, TORCHINDUCTOR_CACHE_DIR="taken/torch")
    assert done.returncode == 0, done.stderr


# The texts of options


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90s", 90), ("20min", 1200), ("20m", 1200), ("1h30", 5400), ("1h30m", 5400), ("1h 30min", 5400)),
        *(("2h", 7200), ("0.5h", 1800), ("1d2h", 93600), ("23:30", 84600), ("0:05", 300), ("1h2m3s", 3723)),
    ],
)
def test_durations(text, seconds):
    assert parsing.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "h", "1.2.3h", "1:75", "-5min", "5 parsecs", "30:1h"])
def test_no_durations(text):
    with pytest.raises(UsageError, match="is not a time"):
        parsing.duration(text)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/cell.tif", "cell_seg.tif"),
        ("cell.ome.tiff", "cell_seg.tif"),
        ("my.cell.TIF", "my.cell_seg.tif"),
        ("cell.zarr", "cell_seg.ome.zarr"),
        ("/data/cell.ome.zarr/", "cell_seg.ome.zarr"),
        ("jrc.zarr/recon-1/em/s2", "jrc-recon-1-em-s2_seg.ome.zarr"),
    ],
)
def test_default_names_of_labels(path, name):
    assert parsing.default_labels(path) == Path(name)


def test_names_maps_ids_shapes(tmp_path):
    assert parsing.names(None) is None and parsing.mapping(None) is None and parsing.ids(None) == []
    assert parsing.names("1=nucleus, 2=rough ER") == {1: "nucleus", 2: "rough ER"}
    (tmp_path / "names.toml").write_text('1 = "nucleus"\n12 = "ER"\n')
    assert parsing.names(str(tmp_path / "names.toml")) == {1: "nucleus", 12: "ER"}
    assert parsing.mapping("1=2,3=2") == {1: 2, 3: 2}
    assert parsing.ids("0, 5") == [0, 5] and parsing.ids("-1") == [-1]
    assert parsing.shape("7") == (7, 7, 7) and parsing.shape("1, 2,3") == (1, 2, 3)
    assert parsing.threshold("IoU=0.25", ["dice", "iou"]) == ("iou", 0.25)
    bad = [(parsing.names, "1=,2=b"), (parsing.names, "a=b"), (parsing.names, str(tmp_path / "absent.toml"))]
    bad += [(parsing.mapping, "1=a"), (parsing.mapping, "1"), (parsing.ids, "--1"), (parsing.ids, "a")]
    bad += [
        (parsing.shape, "0"),
        (parsing.shape, "a,b,c"),
        (lambda t: parsing.threshold(t, ["dice"]), "dice=2"),
    ]
    for read, text in bad:
        with pytest.raises(UsageError):
            read(text)
    (tmp_path / "twice.csv").write_text("1,nucleus\n2,ER\n1,membrane\n")
    (tmp_path / "twice.toml").write_text('1 = "nucleus"\n01 = "ER"\n')
    files = [str(tmp_path / f"twice.{ending}") for ending in ("csv", "toml")]
    for read, text in [
        (parsing.names, "1=a,2=b,1=c"),
        (parsing.mapping, "1=2,1=3"),
        *((parsing.names, f) for f in files),
    ]:
        with pytest.raises(UsageError, match="label 1 twice"):
            read(text)


def test_options_of_a_placement_name_it():
    cover, expand = PlacementName.cover_and_stride, PlacementName.expand_stride
    assert placement_settings(cover, 2, None)["embed.kept"] == 2
    assert parsing.settings(["a.b=c"], placement_settings(None, None, 20)) == [
        "a.b=c",
        "embed.placement=expand-stride",
        "embed.stride=20",
    ]
    assert placement_settings(None, 2, None)["embed.placement"] is cover
    assert not any(placement_settings(None, None, None).values())
    for wrong in [(expand, 2, None), (cover, None, 20), (None, 2, 20)]:
        with pytest.raises(UsageError, match="belongs to"):
            placement_settings(*wrong)


# Progress


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self):
        return self.now


def test_the_time_left_follows_the_pace_of_this_run():
    clock = Clock()
    pace = Pace(clock)
    for done in (0.1, 0.2, 0.4):  # finished by an earlier run, reported within milliseconds
        assert pace.seconds_left(done) is None
        clock.now += 0.001
    clock.now += 60
    assert pace.seconds_left(0.5) == pytest.approx(300, rel=0.01)
    clock.now += 60
    assert pace.seconds_left(0.6) == pytest.approx(240, rel=0.01)
    assert pace.seconds_left(1.0) == 0


def test_plain_lines_are_few():
    clock, lines = Clock(), []
    report = PlainLines(lines.append, clock)
    for i in range(1, 40_001):
        clock.now += 1.0
        report("segmenting", i / 40_000, f"{i / 1000:.1f}/40.0 Mvoxel")
    assert 20 <= len(lines) <= 120
    assert lines[0] == "segmenting   0 %  0.0/40.0 Mvoxel, 11 h 06 min left"
    assert lines[-1] == "segmenting 100 %  40.0/40.0 Mvoxel, took 11 h 07 min"
    report("drawing", 1.0)
    assert lines[-1] == "drawing 100 %  took 1 s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1 s"), (59, "59 s"), (60, "1 min"), (3599, "1 h 00 min"), (200_000, "2 d 8 h")]
)
def test_durations_in_words(seconds, text):
    assert words(seconds) == text


@pytest.mark.parametrize(("terminal", "bars"), [(True, True), (False, False)])
def test_bars_are_for_terminals(terminal, bars):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80, _environ={"TERM": "xterm"})
    with showing(ProgressStyle.auto, console) as report:
        report("training", 0.5, "step 500/1000  loss 0.1234  " + "x" * 100)
        report("training", 1.0)
    text = console.file.getvalue()
    assert ("\x1b" in text) == bars and "100" in text
    assert (
        max(len(re.sub(r"\x1b\[[0-9;?]*\w", "", line)) for line in re.split(r"[\r\n]", text)) <= 80
        or not bars
    )
