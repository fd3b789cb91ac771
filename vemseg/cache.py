"""Arrays that were made with some effort and may be wanted again; those that were used last are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

CACHE_BYTES = 128 * 2**20
"""The most bytes of decoded strips, tiles or chunks that one open volume keeps in memory."""


class Cache:
    """Arrays by key; where they become too many bytes, the least recently used are dropped first.

    Threads may share a cache. A copy that goes to another process starts empty.

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
        """Keep an array, and drop others where all together exceed the limit."""
        with self._lock:
            if key in self._arrays:
                return
            self._arrays[key] = array
            self._held += array.nbytes
            while self._held > self.limit and len(self._arrays) > 1:
                self._held -= self._arrays.popitem(last=False)[1].nbytes

    def __reduce__(self) -> tuple[type[Cache], tuple[int]]:
        return Cache, (self.limit,)
