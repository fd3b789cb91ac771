"""Where fetched files are kept."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pooch

from vemseg.errors import ResourceError
from vemseg.files import writing
from vemseg.resources import byte_text

VARIABLE = "VEMSEG_CACHE_DIR"
"""The environment variable that names the directory of fetched files."""
RESERVE = 2**26
"""Bytes that stay free on a disk when files are fetched or unpacked."""


def in_cache(name: str) -> Path | None:
    """Return the path of a file if the cache holds it, else None; nothing is written."""
    given = os.environ.get(VARIABLE)
    for folder in [Path(given).expanduser()] if given else [Path(pooch.os_cache("vemseg")), _temporary()]:
        if (folder / name).is_file():
            return folder / name
    return None


def cache_directory() -> Path:
    """Return the directory of fetched files; it is made if need be, and can be written.

    This is ``$VEMSEG_CACHE_DIR`` where it is set, and else the platform's place for caches. Where that cannot
    be written, because there is no home directory or it is read-only, this user gets one under the temporary
    directory.

    Raises
    ------
    ResourceError
        Where ``$VEMSEG_CACHE_DIR``, or the last resort, cannot be written or belongs to somebody else.
    """
    if given := os.environ.get(VARIABLE):
        path = Path(given).expanduser()
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise ResourceError(f"cannot write {path} (${VARIABLE}): name another directory")
        return path
    usual = Path(pooch.os_cache("vemseg"))
    try:
        usual.mkdir(parents=True, exist_ok=True)
        if os.access(usual, os.W_OK | os.X_OK):
            return usual
    except OSError:
        pass
    path = _temporary()
    with writing(path):
        path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        raise ResourceError(f"{path} belongs to somebody else: set ${VARIABLE} to a directory of your own")
    return path


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"vemseg-{os.getuid()}"


def check_space(folder: Path, size: int, mend: str) -> None:
    """Raise ResourceError where something would fill a disk.

    Parameters
    ----------
    folder : Path
        A directory on that disk.
    size : int
        Bytes that are to be written.
    mend : str
        What a user can do instead of making room, as the end of a sentence.

    Raises
    ------
    ResourceError
        Where the bytes do not fit.
    """
    free = shutil.disk_usage(folder).free
    if size + RESERVE > free:
        raise ResourceError(
            f"{folder} has {byte_text(free)} free, and {byte_text(size)} are to be written, with "
            f"{byte_text(RESERVE)} to spare: make room, or {mend}"
        )
