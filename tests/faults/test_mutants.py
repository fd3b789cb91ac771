"""Mutants of files: a quick campaign for each reader, and that a campaign finds what it should find."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mutation
import numpy as np
import pytest
from readers import READERS

from vemseg.errors import InputError

SEED = bytes(200)


def sound(path):
    if not path.read_bytes():
        raise InputError(f"{path} is empty")


def raises(path):
    if any(path.read_bytes()):
        raise KeyError("a byte that is not 0")


def speaks_in_two_lines(path):
    raise InputError(f"{path} is\nbad")


def hangs(path):
    if any(path.read_bytes()):
        time.sleep(60)


def swallows(path):
    if any(path.read_bytes()):
        np.ones(2**30)


def crashes(path):
    if any(path.read_bytes()):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_sound_reader_has_no_failures():
    assert mutation.campaign("v.bin", SEED, sound, 100) == []


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (raises, "KeyError"),
        (speaks_in_two_lines, "message"),
        (hangs, "took more than 0.5 seconds"),
        (swallows, "MemoryError"),
        (crashes, "status"),
    ],
)
def test_what_a_campaign_finds(read, what, monkeypatch):
    if read is hangs:  # the others have their time, however busy the machine is
        monkeypatch.setattr(mutation, "SECONDS", 0.5)
    monkeypatch.setattr(mutation, "AT_ONCE", 3)
    monkeypatch.setattr(mutation, "shrunk", lambda seed, data, fails: data)
    failures = mutation.campaign("v.bin", SEED, read, 3)
    assert failures and all(what in failure.what for failure in failures)


def test_a_failure_is_shrunk_to_what_fails():
    failures = mutation.campaign("v.bin", SEED, raises, 4)
    assert failures
    for failure in failures:
        assert mutation.mutant(SEED, failure.number) != SEED
        assert sum(byte != 0 for byte in failure.data) == 1


@pytest.mark.parametrize(
    "path", sorted((Path(mutation.__file__).parent / "found").glob("*/*")), ids=lambda path: path.name
)
def test_what_campaigns_found_is_mended(path, tmp_path):
    assert mutation.outcome([path.read_bytes()], READERS[path.parent.name].read, tmp_path / path.name) is None


@pytest.mark.parametrize(
    "reader", ["tiff", *(pytest.param(name, marks=pytest.mark.slow) for name in READERS if name != "tiff")]
)
def test_mutants_are_read_or_refused_in_one_line(reader):
    script = Path(mutation.__file__)
    command = [sys.executable, str(script), reader, "--count", "280"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " 0 failures" in done.stdout
