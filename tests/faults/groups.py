"""A control group whose memory runs out, so that the system kills what is in it."""

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath
from subprocess import PIPE

import pytest

ROOT = Path("/sys/fs/cgroup")
SECONDS = 60
"""Longest that the memory of a process is squeezed before it is killed."""

SPARE = 2**22
"""Bytes above what is used that the limit allows when the squeezing begins."""

FILLER = """
import sys
held = []
for _ in sys.stdin:
    held.append(bytearray(b"x" * 2**18))
    print(flush=True)
"""
"""A program that occupies a quarter of a MiB more for each line it is given, and answers."""


class Group:
    """A control group below that of this process, with its own limit of memory; of version 1 or 2.

    A test that asks for one is skipped, with the reason, where none may be made.
    """

    def __init__(self):
        places = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
        self._old = "memory" in places and (ROOT / "memory").is_dir()
        top = ROOT / "memory" if self._old else ROOT
        inside = PurePosixPath(places.get("memory" if self._old else "", "/")).relative_to("/")
        self._place = top / inside / f"vemseg-{os.getpid()}"
        self._limit = self._place / ("memory.limit_in_bytes" if self._old else "memory.max")
        self._used = self._place / ("memory.usage_in_bytes" if self._old else "memory.current")
        try:
            if not (top / inside).is_dir():
                raise FileNotFoundError(errno.ENOENT, "no such group", str(top / inside))
            self._place.mkdir()
        except OSError as error:
            pytest.skip(f"no control group may be made here: {error}")
        if not self._limit.exists():
            self.close()
            pytest.skip("control groups made here have no limit of memory: its controller is not handed down")

    def close(self):
        """Take the group away; the processes in it have ended."""
        self._place.rmdir()

    def take(self, pid):
        """Let a process belong to this group. What it occupies already counts elsewhere."""
        (self._place / "cgroup.procs").write_text(str(pid))

    def allow(self, size):
        """Set the limit, in bytes."""
        self._limit.write_text(str(size))

    @property
    def kills(self):
        """How many processes the system killed here because memory ran out."""
        events = self._place / ("memory.oom_control" if self._old else "memory.events")
        return int(re.search(r"^oom_kill (\d+)$", events.read_text(), re.MULTILINE)[1])

    def squeeze(self, program):
        """Fill the rest of the limit from beside a program until the system kills it; return how it ended.

        The program itself may need no new memory: what its arrays free is kept for the next ones. The
        system kills it first, and what fills the limit, too, where that does not free enough at once.
        """
        os.kill(program.pid, signal.SIGSTOP)  # it may need no more than it has, and would end meanwhile
        Path(f"/proc/{program.pid}/oom_score_adj").write_text("1000")
        deadline = time.monotonic() + SECONDS
        with subprocess.Popen([sys.executable, "-c", FILLER], stdin=PIPE, stdout=PIPE, bufsize=0) as filler:
            self.take(filler.pid)
            self.allow(int(self._used.read_text()) + SPARE)
            while program.running and filler.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(BrokenPipeError):
                    filler.stdin.write(b"\n")
                filler.stdout.readline()
            filler.kill()
        if program.running:
            os.kill(program.pid, signal.SIGCONT)
        return program.wait()
