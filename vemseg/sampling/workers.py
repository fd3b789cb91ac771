"""Processes that make synthetic tissue while the network trains."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from vemseg.run import led_by_parent


class Workers:
    """Other processes to which work is given; they start when the first piece of work comes.

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
            self._executor = ProcessPoolExecutor(self.count, mp_context=spawn, initializer=led_by_parent)
        future: Future[Any] = self._executor.submit(work, *arguments)
        return future.result

    def close(self) -> None:
        """Stop the processes; work that was not begun is dropped."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
