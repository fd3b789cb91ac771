"""One thread for what sums over a sample, so that the same classes are found on every machine.

Sums that several threads share are rounded in another order than those of one. In k-means the order even
changes from run to run, and a last digit can decide which centroids are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Let NumPy, scikit-learn and PyTorch compute with one thread of the CPU inside."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
