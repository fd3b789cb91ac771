"""A Zarr store whose chunks are on the disk when the call that writes them returns."""

from __future__ import annotations

import asyncio
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from vemseg.files import flush


class Durable(LocalStore):  # type: ignore[misc]
    """A folder of chunks that survive a power failure once they are written.

    Zarr leaves it to the system when the bytes of a chunk go to the disk. Markers, the small files that say
    that a block is written, go there at once. So after a power failure there could be a marker without its
    block, and the block would stay empty.

    Parameters
    ----------
    root : Path
        The folder.
    read_only : bool
    """

    def __init__(self, root: Path, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a chunk or a description, and flush it."""
        await super().set(key, value)
        await asyncio.to_thread(flush, self.root / key)

    def set_sync(self, key: str, value: Buffer) -> None:
        """As ``set``, for versions of Zarr that call this where nobody waits."""
        super().set_sync(key, value)
        flush(self.root / key)
