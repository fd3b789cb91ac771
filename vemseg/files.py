"""Files that appear whole or not at all, and what the system says against writing them.

A file is written under a temporary name beside its final one, which it gets by one rename. All temporary
names match ``TEMPORARY``, so whatever a killed process leaves can be told from finished files. A temporary
name follows from the final one, so the same command writes over what it left when it was killed. Nobody else
may write the same file meanwhile: outputs, runs and downloads have locks. Only tasks that share the blocks of
one output have none; what they write for a block gets temporary names that no two writers share.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from vemseg.errors import InputError, ResourceError

FAILING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Error numbers of a full disk or quota, of a file that becomes larger than it may be, or of a broken disk.
Reading an input has its own error."""

UNWRITABLE = FAILING | {
    *(errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
}
"""Error numbers of a path that cannot be written: a failing disk, no permission, or a name that is taken."""

TEMPORARY = ".partial-*"
"""Glob pattern of the names that files have while they are written."""

_CHUNK = re.compile(r"\.[0-9a-f]{32}\.partial$")
"""Matches the names that zarr gives the files of a store while they are written."""

_SHORT = re.compile(r"\d+ requested and \d+ written")
"""Matches what numpy says when the disk becomes full while an array is written."""

_NUMBERED = re.compile(r"(?:file write failed: .*\berrno = |writing.*\[os_error_code=')(\d+)", re.DOTALL)
"""Matches the error number in what HDF5 and tensorstore say when they cannot write."""


@contextlib.contextmanager
def writing(path: Path, errors: Collection[int] = UNWRITABLE) -> Iterator[None]:
    """Turn the system's refusal to write ``path`` into a ``ResourceError``.

    Parameters
    ----------
    path : Path
        The file or directory to name in the message.
    errors : collection of int
        Error numbers that concern ``path``; give ``FAILING`` where the block also reads other files.

    Raises
    ------
    ResourceError
        For an ``OSError``, or an error of HDF5 or tensorstore, with one of these numbers, and where numpy
        reports a short write.
    """
    try:
        yield
    except OSError as error:
        if error.errno in errors:
            raise ResourceError(f"cannot write {path}: {error.strerror}") from error
        if error.errno is None and _SHORT.search(str(error)):
            raise ResourceError(f"cannot write {path}: no space left on its disk") from error
        raise
    except (RuntimeError, ValueError) as error:
        found = _NUMBERED.search(str(error))
        if found and int(found[1]) in errors:
            raise ResourceError(f"cannot write {path}: {os.strerror(int(found[1]))}") from error
        raise


@contextlib.contextmanager
def atomic_path(path: Path, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary file name beside ``path``; what was written there becomes ``path`` on success.

    The name ends like ``path``, so writers that look at the suffix find what they expect. Missing parent
    directories are made. On failure the temporary file is removed and an older ``path`` stays as it was.

    Parameters
    ----------
    path : Path
    shared : bool
        Whether other processes may write the same file, with the same content, at the same time.

    Raises
    ------
    ResourceError
        Where the file cannot be written: the disk is full or broken, or there is no permission.
    """
    temporary = path.with_name(f".partial-{uuid.uuid4().hex if shared else ''}{path.name}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            yield temporary
            flush(temporary)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sweep_stores(folder: Path) -> None:
    """Remove the temporary files that killed writers of chunks left below a folder; nobody may be writing."""
    for left in folder.rglob("*.partial"):
        if _CHUNK.search(left.name) and left.is_file():
            left.unlink(missing_ok=True)


def write_text(path: Path, text: str, shared: bool = False) -> None:
    r"""Write UTF-8 text; the file appears whole or not at all.

    Where the locale is not UTF-8, or the name of a file is not, Python keeps the odd bytes as half
    characters. They are written as escapes (``\udcc3``), which JSON reads back as they were. For ``shared``
    see ``atomic_path``.
    """
    with atomic_path(path, shared) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a table, such as that of the classes, as CSV; a value that is None becomes an empty cell."""
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())


def matching(pattern: Path) -> list[Path]:
    """Return the files and folders whose name matches that of a path, such as ``slices/*.png``, by name.

    Raises
    ------
    InputError
        Where it is not a pattern of names.
    """
    try:
        return sorted(pattern.parent.glob(pattern.name))
    except ValueError as error:
        raise InputError(f"{pattern} is not a pattern of names: {error}") from None


def flush(path: Path) -> None:
    """Bring a file to the disk, so that a crash after it is renamed cannot leave it empty."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, or a directory with all that is in it; a path that is not there is left alone."""
    with writing(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
