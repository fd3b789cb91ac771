"""Chosen members of an archive (ZIP or TAR) become files, safely and resumably.

The caller names the file of every member it wants, so nothing in an archive decides where anything is
written. An archive with absolute or climbing names, links or devices in it is refused all the same; no member
grows beyond the size it declares, and all must fit the disk before the first is written.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from vemseg.catalog.cache import check_space
from vemseg.errors import InputError, Interrupted, MissingError
from vemseg.files import atomic_path, writing
from vemseg.foreign import quoted, reading
from vemseg.resources import byte_text

CHUNK = 2**20
"""Bytes that are copied at once."""
MOST_HEADER = 2**20
"""Most bytes of a header of a TAR archive: a long name, or what POSIX calls extended attributes."""

Archive = zipfile.ZipFile | tarfile.TarFile
Entry = zipfile.ZipInfo | tarfile.TarInfo

Unpacked = Callable[[int, int], None]
"""Called with the number of bytes written so far, and the number of all that are to be written."""


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes
    ----------
    path : PurePosixPath
        Its name in the archive.
    size : int
        Its bytes, as the archive declares them.
    """

    path: PurePosixPath
    size: int


def members(archive: Path) -> list[Member]:
    """Return the files of an archive; folders are left out.

    Raises
    ------
    MissingError, InputError
        Where there is no such file, or it is neither ZIP nor TAR, is damaged, or has entries that no
        trustworthy archive has (see the head of this module).
    """
    with _opened(archive) as opened:
        return [member for member, _ in _entries(opened, archive)]


def unpack(
    archive: Path,
    wanted: Mapping[PurePosixPath, Path],
    *,
    unpacked: Unpacked,
    stopped: Callable[[], bool],
) -> None:
    """Write members of an archive; a file that is there with the right size is left as it is.

    What killed calls left is removed, so nobody else may unpack the same files at the same time.

    Parameters
    ----------
    archive : Path
    wanted : mapping of PurePosixPath to Path
        The file that each of these members becomes; it appears whole or not at all.
    unpacked : callable
        Called after each chunk.
    stopped : callable
        Asked after each chunk whether to stop.

    Raises
    ------
    InputError
        As for ``members``, and where a member is missing or larger than it declares.
    ResourceError
        Where the disk is too small.
    Interrupted
        Where it was stopped; the same call goes on.
    """
    with _opened(archive) as opened:
        found = {member.path: (member, entry) for member, entry in _entries(opened, archive)}
        if missing := [str(path) for path in wanted if path not in found]:
            raise InputError(f"{archive}: no {missing[0]} in it")
        todo = [
            (*found[path], target)
            for path, target in wanted.items()
            if not (target.is_file() and target.stat().st_size == found[path][0].size)
        ]
        total = sum(member.size for member, _, _ in todo)
        if todo:
            folder = todo[0][2].parent
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            check_space(folder, total, "name a larger disk with -o")
        done = 0
        for member, entry, target in todo:
            with atomic_path(target) as growing:
                for written in _copied(opened, entry, growing, member, archive):
                    unpacked(done + written, total)
                    if stopped():
                        raise Interrupted(f"stopped before {target} was whole: the same command goes on")
            done += member.size


def _copied(opened: Archive, entry: Entry, growing: Path, member: Member, archive: Path) -> Iterator[int]:
    """Copy a member, chunk by chunk; yield the bytes so far."""
    written = 0
    damaged = _undamaged(f"{archive}: {member.path} is damaged")
    with damaged, _reading(opened, entry) as source, growing.open("wb") as file:
        while data := source.read(CHUNK):
            written += len(data)
            if written > member.size:
                raise InputError(f"{archive}: {member.path} is larger than it declares: not unpacked")
            file.write(data)
            yield written
    if written != member.size:
        raise InputError(f"{archive}: {member.path} is cut off after {byte_text(written)}")


@contextmanager
def _opened(archive: Path) -> Iterator[Archive]:
    if not archive.is_file():
        raise MissingError(f"no archive {archive}")
    with _undamaged(f"{archive}: a damaged archive"):
        if zipfile.is_zipfile(archive):
            opened: Archive = zipfile.ZipFile(archive)
        elif tarfile.is_tarfile(archive):
            opened = tarfile.TarFile.open(archive, tarinfo=_Header)
        else:
            raise InputError(f"{archive}: neither a ZIP nor a TAR archive, or one that is cut off")
    with opened:
        yield opened


@contextmanager
def _undamaged(what: str) -> Iterator[None]:
    """Turn the errors of a damaged archive into one line; errors of the system, which have a number, pass."""
    try:
        with reading(what):
            yield
    except InputError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
            raise error.__cause__ from None
        raise


def _entries(opened: Archive, archive: Path) -> Iterator[tuple[Member, Entry]]:
    """Yield the files of an archive, and check every entry of it.

    Raises
    ------
    InputError
        For names that lead outside, links, devices, and names that come twice.
    """
    seen: set[PurePosixPath] = set()
    entries: Sequence[Entry]
    with _undamaged(f"{archive}: a damaged archive"):
        entries = opened.infolist() if isinstance(opened, zipfile.ZipFile) else opened.getmembers()
    for entry in entries:
        if isinstance(entry, zipfile.ZipInfo):
            name, size, folder = entry.filename, entry.file_size, entry.filename.endswith("/")
            kind = stat.S_IFMT(entry.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
        else:
            name, size, folder = entry.name, entry.size, entry.isdir()
            plain = folder or entry.isreg()
        path, shown = PurePosixPath(name), quoted(repr(name))
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise InputError(f"{archive}: not a trustworthy archive: it holds {shown}, which leads outside")
        if not path.parts:
            raise InputError(f"{archive}: not a trustworthy archive: it holds {shown}, which is not a name")
        if not plain:
            raise InputError(f"{archive}: not a trustworthy archive: {shown} is neither file nor folder")
        if folder:
            continue
        if path in seen:
            raise InputError(f"{archive}: not a trustworthy archive: it holds {shown} twice")
        seen.add(path)
        yield Member(path, size), entry


class _Header(tarfile.TarInfo):
    """An entry of a TAR archive whose headers may not be larger than any honest one."""

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        about_others = (
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
        )
        if self.type in about_others and self.size > MOST_HEADER:
            raise InputError(f"not a trustworthy archive: it has a header of {byte_text(self.size)}")
        found: tarfile.TarInfo = super()._proc_member(tarfile_)  # type: ignore[misc]
        return found


def _reading(opened: Archive, entry: Entry) -> IO[bytes]:
    if isinstance(opened, zipfile.ZipFile):
        assert isinstance(entry, zipfile.ZipInfo)
        return opened.open(entry)
    assert isinstance(entry, tarfile.TarInfo)
    source = opened.extractfile(entry)
    assert source is not None  # it is a regular file
    return source
