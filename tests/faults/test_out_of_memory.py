"""A control group whose memory runs out: what the system kills goes on, and defaults keep to the limit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import LONG, OUT, SMALL_BLOCKS, begun, command, essence, refused
from groups import Group

from vemseg.resources import GIB, SHARE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def group():
    mine = Group()
    yield mine
    mine.close()


@pytest.mark.parametrize("verb", [pytest.param(verb, marks=pytest.mark.slow) for verb in LONG])
def test_what_is_killed_for_memory_goes_on_to_the_same(
    programs,
    made,
    uninterrupted,
    group,
    tmp_path,
    verb,
):
    args = command(verb, made, steps=60)
    program = programs.start(tmp_path, *args, changes=SMALL_BLOCKS)
    group.take(program.pid)
    program.until(lambda: begun(verb, tmp_path))
    ended = group.squeeze(program)
    assert ended.code == -signal.SIGKILL and group.kills, ended
    assert verb == "train" or not (tmp_path / OUT[verb]).exists()

    again = programs.run(tmp_path, *args, changes=SMALL_BLOCKS)
    assert again.code == 0, again.err
    assert essence(verb, tmp_path) == uninterrupted(verb)
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.slow
@pytest.mark.parametrize("more", [2**24, 2**27], ids=["as it loads", "as it computes"])
def test_a_limit_of_the_address_space_is_one_line(programs, made, tmp_path, more):
    """What ``ulimit -v`` sets. Nothing under the output's name is left, and without the limit it goes on."""
    args = command("segment", made)
    programs.run(tmp_path, "--version")  # the server has answered, so it has loaded what it loads
    ended = programs.run(tmp_path, *args, limits={"RLIMIT_AS": programs.address_space + more})
    refused(ended, 4, "memory.*--max-memory")
    assert not (tmp_path / OUT["segment"]).exists()
    again = programs.run(tmp_path, *args)
    assert again.code == 0, again.err


def test_the_default_of_max_memory_keeps_to_the_group(group):
    group.allow(GIB)
    program = "import sys; sys.stdin.readline(); from vemseg.resources import *; print(memory_budget())"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    group.take(process.pid)
    said, _ = process.communicate("go\n")
    assert 0.4 * GIB < int(said) <= SHARE * GIB
