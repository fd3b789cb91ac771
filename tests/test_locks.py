"""Locks: one holder at a time, whoever removes the file meanwhile, and none after its holder has ended."""

import fcntl
import os
import threading
from pathlib import Path

import pytest
from interpreter import start

from vemseg.errors import Interrupted, OutputExistsError
from vemseg.run import Lock, alone

HOLD = """
import sys, time, pathlib
from vemseg.run import Lock
lock = Lock(pathlib.Path(sys.argv[1]), "another process is in")
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_lock_says_who_holds_it_and_ends_with_its_process(tmp_path):
    path = tmp_path / "new" / ".lock"
    process = start(HOLD, path)
    try:
        assert process.stdout.readline() == "held\n"
        before = descriptors()
        for _ in range(3):
            with pytest.raises(OutputExistsError) as caught:
                Lock(path, "another process is in").acquire()
        assert descriptors() == before
        holder = f"pid {process.pid} on {os.uname().nodename}"
        assert str(caught.value) == f"another process is in ({holder}): wait for it, or give another -o"
    finally:
        process.kill()
        process.communicate()
    lock = Lock(path, "another process is in")
    lock.acquire()
    assert path.read_text() == f"pid {os.getpid()} on {os.uname().nodename}\n"
    lock.release()
    assert path.exists()


def test_only_one_is_alone_at_a_time(tmp_path, monkeypatch):
    """Nobody else is inside, whenever the others look; the file is gone when the last has left."""
    monkeypatch.setattr("vemseg.run.locks.PAUSE", 0.001)
    inside, turns, failures = [], [], []

    def enter(number):
        try:
            for turn in range(5):
                with alone(tmp_path / ".lock", "somebody is in", lambda: False):
                    inside.append(number)
                    assert inside == [number]
                    assert inside.pop() == number
                turns.append((number, turn))
        except BaseException as error:  # seen in the main thread
            failures.append(error)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(turns) == 20
    assert not list(tmp_path.iterdir())


def test_a_holder_may_leave_before_it_is_read_who_it_is(tmp_path, monkeypatch):
    """The lock's file is gone when it is read, since its holder has removed it: the lock is free then."""
    path = tmp_path / ".lock"
    first, second = (Lock(path, "somebody is in") for _ in range(2))
    first.acquire()
    before = descriptors()
    read = Path.read_text

    def leave_then_read(self, *args, **kwargs):
        first.release(remove=True)
        return read(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", leave_then_read)
        second.acquire()
    assert descriptors() == before
    with pytest.raises(OutputExistsError, match=rf"somebody is in \(pid {os.getpid()} on "):
        first.acquire()
    second.release()


def test_a_file_that_has_lost_its_name_is_no_lock(tmp_path, monkeypatch):
    """The holder removes the file, and releases it, after another has opened it and before that locks it."""
    path = tmp_path / ".lock"
    first, second = (Lock(path, "somebody is in") for _ in range(2))
    first.acquire()
    flock = fcntl.flock

    def leave_then_lock(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        first.release(remove=True)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", leave_then_lock)
    second.acquire()
    with pytest.raises(OutputExistsError, match="somebody is in"):
        first.acquire()
    second.release()


def test_the_directory_may_go_before_the_lock_is_made(tmp_path, monkeypatch):
    path = tmp_path / "partial" / ".lock"
    make, made = Path.mkdir, []

    def make_and_lose(self, *args, **kwargs):
        make(self, *args, **kwargs)
        if not made:
            made.append(self)
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", make_and_lose)
    lock = Lock(path, "somebody is in")
    lock.acquire()
    assert made == [path.parent] and path.exists()
    lock.release()


def test_waiting_can_be_stopped(tmp_path):
    lock, stopped = (
        tmp_path / ".lock",
        pytest.raises(Interrupted, match="stopped while waiting: somebody is in"),
    )
    with alone(lock, "somebody is in", lambda: False), stopped, alone(lock, "somebody is in", lambda: True):
        raise AssertionError("two are in")


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(descriptor, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone(tmp_path / ".lock", "somebody is in", lambda: False):
        assert caplog.messages == [
            f"cannot lock {tmp_path} (No locks available): let only one process use it"
        ]
    assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Lock(tmp_path / "file" / "partial" / ".lock", "somebody is in").acquire()
