"""Decoded pieces of a file that were used last, within a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

CACHE_BYTES = 128 * 2**20
"""What one open volume keeps of decoded strips, tiles or chunks."""


class Cache:
    """Arrays by key, the least recently used given up first; safe between threads, empty in a new process.

    Parameters
    ----------
    limit : int
        Bytes. One array is kept even where it alone is larger.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self._held = 0
        self._arrays: OrderedDict[Hashable, NDArray[np.generic]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> NDArray[np.generic] | None:
        """Return the array of a key, or None."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
            return self._arrays.get(key)

    def put(self, key: Hashable, array: NDArray[np.generic]) -> None:
        """Keep an array, giving up others where they exceed the limit together."""
        with self._lock:
            if key in self._arrays:
                return
            self._arrays[key] = array
            self._held += array.nbytes
            while self._held > self.limit and len(self._arrays) > 1:
                self._held -= self._arrays.popitem(last=False)[1].nbytes

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self.limit,)
