"""Processes that make synthetic tissue while the network trains."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any


class Workers:
    """Other processes to which work is given; they start with the first of it.

    Parameters
    ----------
    count : int
        Number of processes; with 0, work is done in this one, when its result is asked for.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, work: Callable[..., Any], *arguments: object) -> Callable[[], Any]:
        """Have a function called; the callable that is returned waits for its result and returns it."""
        if not self.count:
            return lambda: work(*arguments)
        if self._executor is None:
            spawn = multiprocessing.get_context("spawn")  # a process with threads must not be forked
            self._executor = ProcessPoolExecutor(self.count, mp_context=spawn, initializer=_begin)
        future: Future[Any] = self._executor.submit(work, *arguments)
        return future.result

    def close(self) -> None:
        """Stop the processes; work that was not begun is dropped."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


def _begin() -> None:
    """Leave signals to the process that trains, and end with it, even if it is killed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)
