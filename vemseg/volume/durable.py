"""A Zarr store whose chunks are on the disk before they have their names."""

from __future__ import annotations

import asyncio
import uuid

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from vemseg.files import flush


class Durable(LocalStore):  # type: ignore[misc]
    """A folder of chunks that survive a power failure once they are written.

    Zarr leaves it to the system when the bytes of a chunk go to the disk. Markers, the small files that say
    that a block is written, go there at once, and of coarser levels the chunk itself is the marker. So after
    a power failure there could be a marker without its block, or an empty chunk that counts as written.
    """

    async def set(self, key: str, value: Buffer) -> None:
        """Write a chunk or a description; it appears whole, and not before it is on the disk."""
        if not self._is_open:
            await self._open()
        await asyncio.to_thread(self._put, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """As ``set``, for versions of Zarr that call this where nobody waits."""
        self._ensure_open_sync()
        self._put(key, value)

    def _put(self, key: str, value: Buffer) -> None:
        """Write under a temporary name, which is such as Zarr gives (see ``files.sweep_stores``)."""
        self._check_writable()
        path = self.root / key
        temporary = path.with_suffix(f".{uuid.uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(value.as_numpy_array().data)
            flush(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
