"""Fingerprints tell one content of a file or store from another, whatever its name and place.

A fingerprint holds what the file system knows at once (sizes, names, times, inode numbers) and a hash of the
whole content. A comparison looks at the cheap facts first: where sizes or names differ, the content differs;
where these and all times agree, it is the same. Only where nothing but times differ is the content hashed
again, so a ``touch``, a copy or a rename is seen to change nothing, and a change of content is always seen.

The hash of a file of up to ``SEGMENT`` bytes is its SHA-256. Longer ones are hashed by several threads: the
hash is the SHA-256 of the digests of their segments, in order.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vemseg.errors import InputError
from vemseg.files import matching
from vemseg.foreign import check_regular
from vemseg.names import is_pattern

Record = dict[str, str | int | None]
"""A fingerprint, in types that JSON can hold."""

SEGMENT = 2**26
"""Bytes that one thread hashes at a time."""

MOST_HASHED = 2**36
"""The most bytes of a file or store whose content is hashed, which takes about a minute. Anything larger is
known by names, sizes and times alone, if these can be trusted: a ``touch`` or a copy counts as a change."""

SETTLED = 2 * 10**9
"""Nanoseconds after which the time of a file can be trusted. File systems count in steps of up to two
seconds, so a file that was written just now can change once more without getting another time."""

THREADS = 8
"""How many threads hash: enough to keep several cores, or the queue of a disk, busy."""

TIMES = frozenset({"modified", "mtime_ns", "ctime_ns", "inode", "listing"})
"""Keys of a fingerprint, or of ``checksum``, that a copy of the same content has otherwise."""

DESCRIPTION = "provenance.json"
"""The name of the file in a store that says when and where it was made; it does not count as content."""

_FILES = 256
"""Most files that one thread hashes at a time."""
_BUFFER = 2**22
METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray", "attributes.json")
"""Names of the files that describe a group or array of Zarr or N5."""
_COLLECTED = ".zmetadata"
"""The name of a file that repeats the descriptions of a group and of all that is in it."""
LABELS = "labels"
"""The group in an OME-Zarr image in which labels of it lie: results, which do not change the image."""
_Segment = tuple[str, int, int]
"""A file, the byte of it at which the segment begins, and the bytes of the segment."""


def fingerprint(path: Path) -> Record:
    """Return the fingerprint of a file, or of a directory with all files below it.

    Parameters
    ----------
    path : Path
        A file or directory, or a pattern (``slices/*.png``), which stands for the files that match it. For an
        array inside a Zarr hierarchy (``cell.zarr/em/s2``), the metadata of the
        groups above it count too, since they may hold its voxel size. Labels in an OME-Zarr image do not
        count, so that an image is the same after labels of it were added, nor does ``DESCRIPTION``.

    Returns
    -------
    dict
        ``path``, ``modified`` (UTC, ISO 8601), ``bytes`` and ``content``, the hash (mostly None above
        ``MOST_HASHED`` bytes). A file also has ``mtime_ns``, ``ctime_ns`` and ``inode``; files together have
        ``files``, ``names`` (a hash of names and sizes) and ``listing`` (a hash of times and inode numbers as
        well). Where a file was written less than ``SETTLED`` nanoseconds ago, all that holds times is None.

    Raises
    ------
    InputError
        Where there is no such path, or a part of it cannot be read.
    """
    with _readable(path):
        now = time.time_ns()
        facts = _facts(path)
        settled = facts.latest <= now - SETTLED
        return {
            "path": str(path.resolve()),
            "modified": _iso(facts.modified),
            **facts.sizes,
            **{key: value if settled else None for key, value in facts.times.items()},
            "content": _content(path, facts.size) if facts.size <= MOST_HASHED or not settled else None,
        }


def same(recorded: Mapping[str, object], path: Path) -> bool:
    """Tell whether a file or directory has the content of a recorded fingerprint.

    Parameters
    ----------
    recorded : mapping
        What ``fingerprint`` returned, of this or another path.
    path : Path
        A file or directory that is there now.

    Raises
    ------
    InputError
        Where there is no such path, or a part of it cannot be read.
    """
    with _readable(path):
        facts = _facts(path)
        if any(recorded.get(key) != value for key, value in facts.sizes.items()):
            return False
        if all(recorded.get(key) == value for key, value in facts.times.items()):
            return True
        known = recorded.get("content")
        return known is not None and known == _content(path, facts.size)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as ``sha256sum`` prints it.

    Raises
    ------
    InputError
        Where there is no such file, or it cannot be read.
    """
    with _readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(path: Path) -> Record:
    """Return ``path``, ``modified``, ``bytes`` and ``sha256`` of a file, as provenance names it.

    Raises
    ------
    InputError
        Where there is no such file, or it cannot be read.
    """
    found = sha256(path)
    status = path.stat()
    when = _iso(status.st_mtime)
    return {"path": str(path.resolve()), "modified": when, "bytes": status.st_size, "sha256": found}


def is_there(path: Path) -> bool:
    """Tell whether there is such a file or directory, or a file that matches the pattern."""
    return path.exists() or (is_pattern(path.name) and bool(matching(path)))


@dataclass(frozen=True)
class _Facts:
    """What the file system knows.

    Attributes
    ----------
    sizes, times : dict
        Parts of a fingerprint: sizes and names; times and inode numbers.
    size : int
        Bytes in all.
    latest : int
        The latest of all times, ns.
    modified : float
        When the file, the directory, or the last of the files that match a pattern was written, s.
    """

    sizes: Record
    times: Record
    size: int
    latest: int
    modified: float


@dataclass(frozen=True)
class _File:
    name: str
    path: str
    status: os.stat_result


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read a path into an ``InputError``."""
    if not is_there(path):
        raise InputError(f"no such file or directory: {path}")
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror}") from error


def _facts(path: Path) -> _Facts:
    status = path.stat() if path.exists() else None
    if status is not None and not stat.S_ISDIR(status.st_mode):
        times: Record = {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
        times["inode"] = status.st_ino
        latest = max(status.st_mtime_ns, status.st_ctime_ns)
        return _Facts({"bytes": status.st_size}, times, status.st_size, latest, status.st_mtime)
    names, listing = hashlib.sha256(), hashlib.sha256()
    size = count = latest = 0
    modified = 0.0 if status is None else status.st_mtime
    for file in _files(path):
        found = file.status
        named = f"{file.name}\0{found.st_size}\0".encode("utf-8", "surrogateescape")
        names.update(named)
        listing.update(named + b"%d %d %d\0" % (found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
        size, count = size + found.st_size, count + 1
        latest = max(latest, found.st_mtime_ns, found.st_ctime_ns)
        modified = modified if status is not None else max(modified, found.st_mtime)
    sizes: Record = {"bytes": size, "files": count, "names": names.hexdigest()}
    return _Facts(sizes, {"listing": listing.hexdigest()}, size, latest, modified)


def _files(path: Path) -> Iterator[_File]:
    """Yield the files below a directory, in the order of their names, and the metadata of groups above it.

    Of a pattern, yield the files that match it.
    """
    if not path.exists():
        found = filter(Path.is_file, matching(path))
        yield from (_File(file.name, str(file), file.stat()) for file in found)
        return
    above, prefix = path.resolve().parent, "../"
    while metadata := [above / name for name in METADATA if (above / name).is_file()]:
        if above.name != LABELS:  # the metadata of that group only list the labels in it
            yield from (_File(prefix + file.name, str(file), file.stat()) for file in metadata)
        above, prefix = above.parent, prefix + "../"
    left_out = {_COLLECTED, DESCRIPTION}
    if any((path / LABELS / name).is_file() for name in METADATA):
        left_out.add(LABELS)
    yield from _below(str(path), "", frozenset(), left_out)


def _below(
    folder: str, prefix: str, above: frozenset[tuple[int, int]], left_out: Set[str] = frozenset()
) -> Iterator[_File]:
    status = Path(folder).stat()
    if (here := (status.st_dev, status.st_ino)) in above:
        return  # a link to a directory that this one lies in
    with os.scandir(folder) as found:
        entries = sorted((e for e in found if e.name not in left_out), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _below(entry.path, f"{prefix}{entry.name}/", above | {here})
        elif entry.is_file():
            yield _File(prefix + entry.name, entry.path, entry.stat())
        else:
            check_regular(Path(entry.path))


def _content(path: Path, size: int) -> str:
    """Return the hash of the content of a file, whose bytes are ``size``, or of all files of a directory."""
    if path.is_file():
        return _hashes([(str(path), size)])[0].hex()
    files = list(_files(path))
    digest = hashlib.sha256()
    found = _hashes([(file.path, file.status.st_size) for file in files])
    for file, hashed in zip(files, found, strict=True):
        named = f"{file.name}\0{file.status.st_size}\0".encode("utf-8", "surrogateescape")
        digest.update(named + hashed)
    return digest.hexdigest()


def _hashes(files: Sequence[tuple[str, int]]) -> list[bytes]:
    """Return the hash of each file; a file is given by its path and its size in bytes."""
    starts = [range(0, max(size, 1), SEGMENT) for _, size in files]
    segments = [
        (path, at, min(SEGMENT, size - at))
        for (path, size), places in zip(files, starts, strict=True)
        for at in places
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        digests = itertools.chain.from_iterable(pool.map(_hash_segments, _batches(segments)))
        found = [list(itertools.islice(digests, len(places))) for places in starts]
    return [parts[0] if len(parts) == 1 else hashlib.sha256(b"".join(parts)).digest() for parts in found]


def _batches(segments: Iterable[_Segment]) -> Iterator[list[_Segment]]:
    """Yield segments in groups that are worth a thread's while: one long one, or many short ones."""
    batch: list[_Segment] = []
    size = 0
    for segment in segments:
        batch.append(segment)
        size += segment[2]
        if size >= SEGMENT or len(batch) == _FILES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _hash_segments(segments: Iterable[_Segment]) -> list[bytes]:
    """Return the SHA-256 of each segment."""
    buffer = memoryview(bytearray(_BUFFER))
    digests = []
    for path, start, left in segments:
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (a Path for each of 100,000 chunks is slow)
            file.seek(start)
            while left and (count := file.readinto(buffer[: min(left, _BUFFER)])):
                digest.update(buffer[:count])
                left -= count
        digests.append(digest.digest())
    return digests


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
