"""Locks on files, by ``filelock``: the file says who holds the lock, which ends when that process ends."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from vemseg.errors import Interrupted, OutputExistsError

_log = logging.getLogger(__name__)

PAUSE = 0.1
"""Seconds between two attempts to get a lock that another process holds."""

_NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK})
"""Error numbers by which a file system says that it has no locks."""


class Lock:
    """An exclusive lock on a file; the system releases it when the process ends, however it ends.

    On file systems without locks nothing is locked, and a warning says so.

    Parameters
    ----------
    path : Path
        The file, which says who holds the lock. It is made, with its directories, where it is missing.
    busy : str
        What another process does while it holds the lock, such as "another process trains in runs/a".
    """

    def __init__(self, path: Path, busy: str) -> None:
        self.path, self.busy = path, busy
        self._lock = FileLock(path, thread_local=False, on_acquired=_sign)

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        OutputExistsError
            Where another process holds it.
        OSError
            Where the file cannot be made or opened.
        """
        holder = self._try()
        if holder is not None:
            raise OutputExistsError(f"{self.busy} ({holder}): wait for it, or give another -o")

    def wait(self, stopped: Callable[[], bool]) -> None:
        """Take the lock as soon as no other process holds it.

        Raises
        ------
        Interrupted
            Where ``stopped`` returns True before the lock is free.
        """
        waiting = False
        while (holder := self._try()) is not None:
            if not waiting:
                _log.info("%s (%s); waiting for it", self.busy, holder)
            waiting = True
            if stopped():
                raise Interrupted(f"stopped while waiting: {self.busy}")
            time.sleep(PAUSE)

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back, so that others can take it.

        Parameters
        ----------
        remove : bool
            Remove the file first. A process that has opened it meanwhile notices that it is gone, and makes
            another.
        """
        try:
            if remove:
                self.path.unlink(missing_ok=True)
        finally:
            self._lock.release()

    def _try(self) -> str | None:
        """Take the lock if it is free; return who holds it if it is not."""
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(blocking=False)
                return None
            except Timeout:
                with contextlib.suppress(FileNotFoundError):  # its holder has just removed it: try again
                    return self.path.read_text(encoding="utf-8").strip() or "process unknown"
            except FileNotFoundError:  # another process has just removed the directory
                continue
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                reason = os.strerror(error.errno)
                _log.warning("cannot lock %s (%s): let only one process use it", self.path.parent, reason)
                return None


@contextlib.contextmanager
def alone(path: Path, busy: str, stopped: Callable[[], bool]) -> Iterator[None]:
    """Hold the lock of a file; where another process holds it, wait. The file is removed in the end.

    Parameters
    ----------
    path, busy
        As for :class:`Lock`.
    stopped : callable
        Asked while waiting.

    Raises
    ------
    Interrupted
        Where ``stopped`` returns True while this waits.
    """
    lock = Lock(path, busy)
    lock.wait(stopped)
    try:
        yield
    finally:
        lock.release(remove=True)


def _sign(descriptor: int) -> None:
    """Write into a lock's file who holds it."""
    with contextlib.suppress(OSError):  # on a full disk, whatever is written next fails and names its file
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {platform.node()}\n".encode(), 0)
