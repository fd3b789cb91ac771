"""Threads that each encode a part of a window by themselves, on CPUs.

PyTorch divides every single operator among its threads, which wait for each other at its end. An encoder of
planes has many parts to do that do not depend on each other: threads that take one part each wait for nobody,
and lose little where another program uses a core.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

MOST = 8
"""Most parts that are encoded at the same time; of more threads, several share a part."""

_here = threading.local()
"""Says of a thread whether it encodes parts for another one."""

Item = TypeVar("Item")
Found = TypeVar("Found")


def workers_on(device: torch.device) -> int:
    """Return how many parts of a window are encoded at the same time: one on a GPU."""
    return min(MOST, torch.get_num_threads()) if device.type == "cpu" else 1


def in_order(work: Callable[[Item], Found], items: Iterable[Item], workers: int) -> Iterator[Found]:
    """Yield ``work(item)`` for each item in turn, done by threads that are at most ``workers`` items ahead.

    The threads of PyTorch are divided among them. Until the last item, the caller computes with as few. Where
    PyTorch has one thread, or the caller is such a thread itself, the caller does all the work.
    """
    threads = torch.get_num_threads()
    workers = min(workers, threads)
    if workers == 1 or getattr(_here, "apart", False):
        yield from map(work, items)
        return

    def apart(item: Item) -> Found:
        _here.apart = True
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work(item)

    gradients = torch.is_grad_enabled()
    inference, each = torch.is_inference_mode_enabled(), max(1, threads // workers)
    waiting: deque[Future[Found]] = deque()
    try:
        torch.set_num_threads(each)  # threads that begin now compute with as many
        with ThreadPoolExecutor(workers, "encode") as pool:
            for item in items:
                waiting.append(pool.submit(apart, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)
