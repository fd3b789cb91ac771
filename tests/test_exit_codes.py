"""How every command ends, seen from outside: exit code, standard output, standard error, files left.

Each command is a process of its own, as a batch system runs it; ``processes.py`` makes that quick.
"""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from commands import CHATTY, LONG, OUT, SMALL_BLOCKS, VERBS, begun, command, essence, refused
from processes import Ended

READING = ["train", "embed", "segment", "evaluate", "render"]


# What goes where


@pytest.mark.parametrize("verb", VERBS)
def test_standard_output_is_the_paths_of_results(course, verb):
    folder, ended = course
    more = {"fetch": ["cell_labels.tif"], "render": ["cell_planes.png", "cell_montage.png"]}
    expected = [OUT[verb], *more.get(verb, [])]
    if verb == "render":
        expected = [f"pictures/{name}" for name in more[verb]]
    assert ended[verb].code == 0, ended[verb].err
    assert ended[verb].out.splitlines() == expected
    assert all((folder / line).exists() for line in expected)


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_that_is_piped_has_escapes(course, verb):
    ended = course[1][verb]
    assert not re.search("[\x1b\r\x07\x08]", ended.out + ended.err)


@pytest.mark.parametrize(
    ("verb", "stage"), [("train", "training"), ("embed", "embedding"), ("segment", "segmenting")]
)
def test_long_work_says_how_long_it_takes(course, verb, stage):
    err = course[1][verb].err
    assert re.search(rf"^{stage} +\d+ %  .*, \d+ s left$", err, re.MULTILINE), err
    assert re.search(rf"^{stage} 100 %  .*took \d+ s$", err, re.MULTILINE), err


def test_quiet_is_quiet(programs, made, tmp_path):
    for verb in ("embed", "evaluate"):
        ended = programs.run(tmp_path, *command(verb, made), "-q")
        assert (ended.code, ended.out, ended.err) == (0, OUT[verb] + "\n", "")


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_colours_on_a_terminal(programs, made, tmp_path, variables):
    master, slave = os.openpty()
    shown = []

    def read():
        with os.fdopen(master, "rb") as screen, suppress(OSError):  # what a terminal without programs says
            while chunk := screen.read1(1024):
                shown.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    options = {"terminal": os.ttyname(slave), "TERM": "xterm-256color", **variables}
    ended = programs.run(tmp_path, *command("segment", made), **options)
    os.close(slave)
    reader.join(10)
    text = b"".join(shown).decode()
    assert (ended.code, ended.out) == (0, "labels.tif\n"), text
    assert "segmenting" in text
    colours = re.findall(r"\x1b\[(?:\d+;)*(?:3\d|9\d)(?:;\d+)*m", text)
    assert bool(colours) == (not variables)
    assert ("\x1b" in text) == ("TERM" not in variables)


# Refusals


@pytest.mark.parametrize("verb", VERBS)
def test_usage_is_2(programs, made, tmp_path, verb):
    ended = programs.run(tmp_path, *command(verb, made), "--no-such-option")
    assert (ended.code, ended.out) == (2, "") and "No such option" in ended.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", READING)
def test_a_corrupt_tiff_is_3(programs, made, tmp_path, verb):
    whole = (made / "cell.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    ended = programs.run(tmp_path, *command(verb, made, volume=tmp_path / "cut.tif"))
    refused(ended, 3, r"cut\.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.tif"]


@pytest.mark.parametrize("verb", LONG)
def test_a_gpu_that_is_not_there_is_4(programs, made, tmp_path, verb):
    ended = programs.run(tmp_path, *command(verb, made), "-d", "cuda", CUDA_VISIBLE_DEVICES="")
    refused(ended, 4, "cuda", "-d cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_cannot_be_written_is_4(programs, made, tmp_path, verb):
    (tmp_path / "locked").mkdir(mode=0o555)
    ended = programs.run(tmp_path, *command(verb, made, out=f"locked/{OUT[verb]}"), powerless=True)
    refused(ended, 4, "[Pp]ermission denied", "locked")
    assert not list((tmp_path / "locked").iterdir())


@pytest.mark.parametrize("verb", ["train", "segment"])
@pytest.mark.parametrize("name", ["cell.zarr", "cell.zarr/inner.tif"])
def test_a_folder_that_may_not_be_looked_into_is_3(programs, made, tmp_path, verb, name):
    (tmp_path / "cell.zarr").mkdir(mode=0o000)
    volume = tmp_path / name
    ended = programs.run(tmp_path, *command(verb, made, volume=volume), powerless=True)
    refused(ended, 3, f"{name} cannot be read: Permission denied")
    assert [path.name for path in tmp_path.iterdir()] == ["cell.zarr"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["train", "cell.tif", "--from", "absent", "-o", "new"], "no weights 'absent'"),
        (["embed", "cell.tif", "-m", "absent", "-o", "new.zarr"], "no weights 'absent'"),
        (["segment", "cell.tif", "-m", "absent", "-o", "new.tif"], "no weights 'absent'"),
        (["segment", "cell.tif", "-m", "run/absent.safetensors", "-o", "new.tif"], "no weights at run"),
        (["segment", "cell.tif", "--clusters", "absent.safetensors", "-o", "new.tif"], "no clusters at"),
    ],
    ids=lambda value: "-".join(value[:3]) if isinstance(value, list) else None,
)
def test_missing_weights_are_5(programs, made, args, says):
    refused(programs.run(made, *args), 5, says)
    assert not list(made.glob("new*"))


OTHERWISE = {
    "fetch": ["--seed", "1"],
    "train": ["--seed", "1"],
    "embed": ["--crop", "0:8,:,:"],
    "cluster": ["--seed", "1"],
    "segment": ["--crop", "0:8,:,:"],
    "evaluate": ["--names", "1=membrane"],
    "render": ["--slices", "3"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_an_output_made_otherwise_is_6_and_stays(programs, course, made, verb):
    def files():
        found = [path for path in made.rglob("*") if path.is_file() and path.name != ".lock"]
        return {path: path.read_bytes() for path in found}

    before = files()
    refused(programs.run(made, *command(verb, made), *OTHERWISE[verb]), 6, OUT[verb])
    assert files() == before
    again = programs.run(made, *command(verb, made))
    assert (again.code, again.out) == (0, course[1][verb].out)
    assert files() == before


def test_scores_under_the_limit_are_7_and_stored(programs, made, tmp_path):
    ended = programs.run(tmp_path, *command("evaluate", made), "--fail-under", "dice=0.99")
    assert (ended.code, ended.out) == (7, "scores.json\n")
    assert re.fullmatch(r"vemseg: error: mean dice 0\.\d+ .* is under 0\.99", ended.err.splitlines()[-1])
    assert (tmp_path / "scores.json").exists()


# A full disk


@pytest.fixture
def disk(tmp_path):
    """Return a small disk with a file that fills it."""
    place = tmp_path / "disk"
    place.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place]
    if (
        not shutil.which("mount")
        or (done := subprocess.run(small, capture_output=True, text=True)).returncode
    ):
        pytest.skip(f"no small disk without the rights to mount one: {done.stderr.strip()}")
    with suppress(OSError), (place / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize(
    ("verb", "kilobytes"),
    [*((verb, 0) for verb in VERBS), ("train", 28), ("embed", 60), ("segment", 60), ("render", 60)],
)
def test_a_full_disk_is_4_and_with_room_it_goes_on(programs, made, disk, verb, kilobytes):
    os.truncate(disk / "filler", (disk / "filler").stat().st_size - 1024 * kilobytes)
    args = command(verb, made, out=f"disk/{OUT[verb]}")
    changes = SMALL_BLOCKS | {"vemseg.drawing.layout.DPI": 300.0}  # so that pictures do not fit
    ended = programs.run(disk.parent, *args, changes=changes)
    refused(ended, 4, f"cannot write .*disk/.*{OUT[verb].split('.')[0]}.*: No space left on device")
    assert not (disk / OUT[verb]).exists() or verb in ("train", "render")
    assert not list(disk.rglob("*.safetensors")) and not list(disk.rglob("*.png"))

    (disk / "filler").unlink()
    again = programs.run(disk.parent, *args, changes=changes)
    assert again.code == 0, again.err
    assert not list(disk.rglob("*partial*"))


# Stopped


@pytest.mark.parametrize(
    ("number", "verb"),
    [
        *itertools.product((signal.SIGTERM, signal.SIGINT), LONG),
        (signal.SIGUSR1, "segment"),
        *(pytest.param(signal.SIGUSR1, verb, marks=pytest.mark.slow) for verb in ("train", "embed")),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_stopped_in_the_midst_it_goes_on_to_the_same(programs, made, uninterrupted, tmp_path, verb, number):
    args = command(verb, made, steps=60)
    program = programs.start(tmp_path, *args, changes=SMALL_BLOCKS)
    program.until(lambda: begun(verb, tmp_path))
    program.send(number)
    ended = program.wait()
    if number == signal.SIGINT:
        refused(ended, 130, "vemseg: interrupted")
    else:
        refused(ended, 75, "vemseg: stopped (at step|after) .*the same command goes on")
    if verb == "train":
        assert (tmp_path / "run" / "checkpoint.safetensors").exists() == (number != signal.SIGINT)
    else:
        assert not (tmp_path / OUT[verb]).exists()

    again = programs.run(tmp_path, *args, changes=SMALL_BLOCKS)
    assert (again.code, again.out) == (0, OUT[verb] + "\n"), again.err
    assert number == signal.SIGINT or re.search("^going on (from step|in) ", again.err, re.MULTILINE)
    assert essence(verb, tmp_path) == uninterrupted(verb)
    assert not list(tmp_path.glob("*.partial*"))


SHORT = {
    "fetch": (["--shape", "64,256,256"], lambda program, folder: list(folder.glob("*.partial/cell*"))),
    "cluster": (["--restarts", 20_000], lambda program, folder: "sampling 100" in program.err),
    "evaluate": ([], lambda program, folder: "counting 100" in program.err),
    "render": ([], lambda program, folder: "drawing  50" in program.err),
}
"""How to make them slow, and what shows that they are at work."""


@pytest.mark.parametrize("verb", SHORT)
def test_ctrl_c_leaves_nothing_of_short_commands(programs, made, tmp_path, verb):
    slower, at_work = SHORT[verb]
    program = programs.start(tmp_path, *command(verb, made), *slower, changes=CHATTY)
    program.until(lambda: at_work(program, tmp_path))
    program.send(signal.SIGINT)
    refused(program.wait(), 130, "vemseg: interrupted")
    assert not (tmp_path / OUT[verb]).is_file()
    assert not list(tmp_path.rglob("*artial*"))


LATE = """
import os, sys
from importlib.abc import MetaPathFinder

class SignalAtTorch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), NUMBER)

NUMBER = int(sys.argv.pop(1))
sys.meta_path.insert(0, SignalAtTorch())
import vemseg.cli
vemseg.cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "number"), [("train", signal.SIGTERM), ("embed", signal.SIGTERM), ("segment", signal.SIGUSR1)]
)
def test_a_signal_that_comes_while_libraries_load_is_heeded(programs, made, tmp_path, verb, number):
    args = [sys.executable, "-c", LATE, str(int(number)), *map(str, command(verb, made))]
    done = subprocess.run(
        args, cwd=tmp_path, env=programs.environment, capture_output=True, text=True, timeout=300
    )
    refused(Ended(done.returncode, done.stdout, done.stderr), 75, "stopped")
