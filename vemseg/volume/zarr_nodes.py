"""Groups and arrays of a Zarr hierarchy on this machine: in folders, or in a ZIP file of such folders.

A path may lead into a hierarchy: ``cell.zarr/em/s2``, ``cell.ome.zarr.zip/0``.
"""

from __future__ import annotations

import errno
import functools
import logging
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, ZipStore

from vemseg.errors import InputError
from vemseg.foreign import check_regular, reading
from vemseg.names import is_zipped
from vemseg.volume.conventions import Attributes
from vemseg.volume.ngff import multiscale_of

_log = logging.getLogger("vemseg")

Node: TypeAlias = zarr.Array | zarr.Group
"""What a path in a hierarchy leads to."""

MARKERS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
"""The files that make a folder a Zarr array or group."""

_DEEPEST = 4
"""How many groups below a path are looked through for images."""


class StrictStore(LocalStore):  # type: ignore[misc]
    """A folder of Zarr in which an empty file is damage.

    zarr takes a shard of no bytes, as a download that broke off leaves it, for one that was never written.
    """

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the bytes of a file, None where there is none."""
        found = await super().get(key, prototype, byte_range)
        if found is not None and not len(found):
            raise OSError(errno.EIO, f"{self.root / key} is empty: copy it again")
        return found


def is_zarr(path: Path) -> bool:
    """Tell whether a path leads to a Zarr array or group, in folders or in a ZIP file."""
    zipped = Zipped.of(path)
    if zipped is not None:
        return any(zipped.holds(marker) for marker in MARKERS)
    if not path.is_dir():
        return False
    for marker in MARKERS:
        check_regular(path / marker)
    return any((path / marker).is_file() for marker in MARKERS)


def open_node(path: Path) -> Node:
    """Open a Zarr array or group.

    Where metadata of both formats lie side by side, as after a migration, format 3 counts, unless it
    describes nothing and format 2 does.

    Raises
    ------
    InputError
        Where there is none, or it is damaged.
    """
    if not is_zarr(path):
        raise InputError(f"{path} is not a Zarr array or group")
    zipped = Zipped.of(path)
    with reading(f"{path} is not a readable Zarr"):
        if zipped is not None:
            archive = ZipStore(str(zipped.file), mode="r")
            found: Node = zarr.open(archive, path=zipped.inner, mode="r")
            return found
        both = _is_old(path)
        store = StrictStore(path, read_only=True)
        node: Node = zarr.open(store, mode="r", zarr_format=3 if both else None)
        if isinstance(node, zarr.Array) or multiscale_of(node.attrs, path) or not both:
            return node
        older: Node = zarr.open(store, mode="r", zarr_format=2)
    if isinstance(older, zarr.Array) or multiscale_of(older.attrs, path):
        _log.warning("%s holds metadata of Zarr formats 2 and 3: those of format 2 are read", path)
        return older
    return node


def groups_around(path: Path) -> Iterator[tuple[Path, zarr.Group]]:
    """Yield the groups that a path lies in, the innermost first, to the top of the hierarchy."""
    for outer in path.absolute().parents:
        if not is_zarr(outer):
            return
        node = open_node(outer)
        if isinstance(node, zarr.Group):
            yield outer, node


def inside(group: zarr.Group, path: Path) -> list[str]:
    """Return images in a group, or arrays where there are none, as paths that can be opened."""
    with reading(f"{path} is not a readable Zarr"):
        members = sorted(group.members(max_depth=_DEEPEST))
    groups = [(name, node) for name, node in members if isinstance(node, zarr.Group)]
    images = [name for name, node in groups if multiscale_of(node.attrs, path / name)]
    arrays = [name for name, node in members if isinstance(node, zarr.Array)]
    return [f"{path}/{name}" for name in (images or arrays) if is_zarr(path / name)]


def attributes(node: Node) -> Attributes:
    """Return the attributes of a group or array."""
    found: dict[str, Any] = dict(node.attrs)
    return found


def _is_old(path: Path) -> bool:
    """Tell whether metadata of format 2 lie beside those of format 3."""
    return (path / "zarr.json").is_file() and any((path / name).is_file() for name in (".zgroup", ".zarray"))


@dataclass(frozen=True)
class Zipped:
    """A place in a ZIP file.

    Attributes
    ----------
    file : Path
    inner : str
        The folder in it, without slashes at its ends.
    """

    file: Path
    inner: str

    @classmethod
    def of(cls, path: Path) -> Zipped | None:
        """Return the place that a path leads to, None where no part of it is a ZIP file.

        Where the file holds nothing but one folder, as some programs zip, the top of it is that folder, or
        the one folder in that. What macOS adds is passed over.
        """
        file = next((part for part in (path, *path.parents) if is_zipped(part) and part.is_file()), None)
        if file is None or not zipfile.is_zipfile(file):
            return None
        inner = path.relative_to(file).as_posix().removeprefix(".")
        return cls(file, _inside(file, file.stat().st_mtime_ns, inner))

    def holds(self, name: str) -> bool:
        """Tell whether a file of that name lies at this place."""
        return f"{self.inner}/{name}".lstrip("/") in _names(self.file, self.file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _inside(file: Path, changed: int, inner: str) -> str:
    """Return the folder of a ZIP file that a path in it means, from the innermost top or one around that."""
    top = PurePosixPath(_top(file, changed))
    places = [str(outer / inner).removeprefix(".") for outer in (top, *top.parents)]
    held = (place for place in places if any(name.startswith(f"{place}/") for name in _names(file, changed)))
    return places[0] if not inner else next(held, places[0])


@functools.lru_cache(maxsize=8)
def _top(file: Path, changed: int) -> str:
    """Return the innermost folder that holds all files of a ZIP file, above anything of Zarr."""
    names = [PurePosixPath(name).parts for name in _names(file, changed)]
    names = [parts for parts in names if parts and parts[0] != "__MACOSX" and parts[-1] != ".DS_Store"]
    top: list[str] = []
    while len(tops := {parts[len(top)] for parts in names if len(parts) > len(top)}) == 1:
        inner = tops.pop()
        if inner in MARKERS or any((*top, marker) in set(names) for marker in MARKERS):
            break
        top.append(inner)
    return "/".join(top)


@functools.lru_cache(maxsize=8)
def _names(file: Path, changed: int) -> frozenset[str]:
    """Return the names of all files in a ZIP file that was changed last at that time."""
    with reading(f"{file} is not a readable ZIP file"), zipfile.ZipFile(file) as archive:
        return frozenset(archive.namelist())
