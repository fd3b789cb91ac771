"""Files that are there whole or not at all: text, JSON, named arrays."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import logging
import os
import platform
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vemseg.errors import InputError, Interrupted, MissingError, OutputExistsError, ResourceError

_log = logging.getLogger(__name__)

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors that only writing can have."""

_UNWRITABLE = DISK_FULL | {
    *(errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}
_SHORT = re.compile(r"\d+ requested and \d+ written")
"""What numpy says where a file ends in the midst of an array."""
_METADATA_KEY = "vemseg"


@contextlib.contextmanager
def writing(path: Path, errors: Collection[int] = _UNWRITABLE) -> Iterator[None]:
    """Turn what the system says against writing ``path`` into a ``ResourceError``.

    Where something else is read meanwhile, ``DISK_FULL`` are the errors that can be about ``path`` alone.
    """
    try:
        yield
    except OSError as error:
        if error.errno in errors:
            raise ResourceError(f"cannot write {path}: {error.strerror}") from error
        if error.errno is None and _SHORT.search(str(error)):
            raise ResourceError(f"cannot write {path}: no space left on its disk") from error
        raise


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary file name beside ``path``; what was written there becomes ``path`` on success.

    The name ends like ``path``, so writers that look at the suffix find what they expect. Missing parent
    directories are made. On failure the temporary file is removed and an older ``path`` stays as it was.

    Raises
    ------
    ResourceError
        Where the file cannot be written: disk or quota full, no permission.
    """
    temporary = path.with_name(f".partial-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Remove what killed writers left of ``path``; the caller sees to it that none is at work."""
    for left in path.parent.glob(f".partial-????????-{glob.escape(path.name)}"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path, busy: str, stopped: Callable[[], bool]) -> Iterator[None]:
    """Hold the lock of a file; where another process holds it, wait.

    Parameters
    ----------
    path : Path
        As for :func:`lock`; it is removed in the end.
    busy : str
        What the other process does.
    stopped : callable
        Asked while waiting.

    Raises
    ------
    Interrupted
        Where it was stopped.
    """
    waiting = False
    while True:
        try:
            held = lock(path, busy)
            if _is(held, path):
                break
            unlock(held)  # it was removed by the process that had it
        except OutputExistsError as error:
            if not waiting:
                _log.info("%s; waiting for it", str(error).partition(": wait")[0])
            waiting = True
            if stopped():
                raise Interrupted(f"stopped while waiting: {busy}") from None
            time.sleep(0.2)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        unlock(held)


def _is(descriptor: int, path: Path) -> bool:
    """Tell whether an open file is the one that has the name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def lock(path: Path, busy: str) -> int:
    """Lock a file against other processes; the system releases the lock when the process ends, however.

    Parameters
    ----------
    path : Path
        Made if it is not there; it holds who locked it.
    busy : str
        What to say where another process holds the lock.

    Returns
    -------
    int
        The open descriptor, for ``unlock``. On file systems without locks nothing is locked.

    Raises
    ------
    OutputExistsError
        Where another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = path.read_text(encoding="utf-8").strip() or "process unknown"
        os.close(descriptor)
        raise OutputExistsError(f"{busy} ({holder}): wait for it, or give another -o") from None
    except OSError as error:
        _log.warning("cannot lock %s (%s): do not use it twice at a time", path.parent, error.strerror)
    with contextlib.suppress(OSError):  # a full disk: what is written next says so, with its name
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {platform.node()}\n".encode(), 0)
    return descriptor


def unlock(descriptor: int) -> None:
    """Release a lock; forked workers may still hold the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON that every reader understands, whole or not at all.

    Paths become strings, numpy's numbers and arrays become numbers and lists.

    Raises
    ------
    ValueError
        For NaN and infinities, which JSON does not have.
    """
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=plain) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        Where it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def save_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write named arrays as safetensors, whole or not at all.

    Parameters
    ----------
    path : Path
        Usually ``*.safetensors``.
    tensors : mapping of str to array
        Numbers and booleans of any shape. numpy has no bfloat16: convert before.
    metadata : mapping
        Anything JSON has; it goes into the header of the file.
    """
    header = {_METADATA_KEY: json.dumps(metadata, allow_nan=False, default=plain)}
    # order="C" and not ascontiguousarray: that would give an array without axes one
    data = save({name: np.asarray(array, order="C") for name, array in tensors.items()}, header)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)  # safetensors' own writer makes files that only their owner may read


def load_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what ``save_tensors`` wrote.

    Returns
    -------
    dict of arrays, dict
        The arrays by name and the metadata; the latter is empty for files that others wrote.

    Raises
    ------
    MissingError
        Where there is no such file.
    InputError
        Where it is not safetensors, is cut off, or holds a type that numpy does not have.
    """
    if not path.is_file():
        raise MissingError(f"no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"cannot read {path} as safetensors: {error}") from error


def _flush(path: Path) -> None:
    """Bring a file to the disk, so that a crash after renaming cannot leave it empty."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def plain(value: Any) -> Any:
    """Turn what JSON does not know into what it does."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
