"""What containers and batch systems do to a process, put right before anything else begins."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, cast


def settle() -> None:
    """Prepare this process and its environment for the libraries to come."""
    _open_streams()
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: large arrays in large pages, a tenth faster
    _heed_signals()
    _settle_cache()


class _Errors:
    """Standard error; what cannot be written to it is lost, and no work with it.

    It is a log on a full disk now and then. Once writing has failed, the rest goes nowhere.
    """

    def write(self, text: str) -> int:
        """Write as far as that goes."""
        self._trying(lambda: sys.stderr.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush as far as that goes."""
        self._trying(lambda: sys.stderr.flush())

    def __getattr__(self, name: str) -> object:
        return getattr(sys.stderr, name)

    @staticmethod
    def _trying(act: Callable[[], object]) -> None:
        try:
            act()
        except BlockingIOError:
            pass
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


ERRORS = cast(TextIO, _Errors())
"""Where everything goes that is not a result."""


def gone_folder() -> str | None:
    """Return what to say where the working folder was removed, which libraries do not survive; else None."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the working folder was removed: change to another one"
    return None


def _open_streams() -> None:
    """Open the standard streams that the caller has closed, so that no file takes their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")


def _heed_signals() -> None:
    """Let SIGTERM and SIGUSR1 end the first process of a container, which gets only signals that it handles.

    Commands that can save their state handle them otherwise, see ``vemseg.cli.shell.stoppable``.
    """
    if os.getpid() == 1:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda number, frame: sys.exit(128 + number))


def _settle_cache() -> None:
    """Name another folder for torch's compiled code where the one that is named cannot be made.

    On a read-only disk, or below another user's folder, torch would fail when it is imported. Nothing here
    compiles, so any folder will do that exists.
    """
    name = "TORCHINDUCTOR_CACHE_DIR"
    try:
        Path(os.environ.get(name, sys.prefix)).mkdir(parents=True, exist_ok=True)
    except OSError:
        os.environ[name] = sys.prefix
