"""A file from its host into the cache: whole and with the right SHA-256, or not at all.

pooch keeps the registry, checks the hash and gives the file its name. It begins again where a connection
breaks, so what transfers the bytes is ours: they are kept in ``<file>.part`` and asked for from there on
(HTTP Range), within a call and from one call to the next.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch

from vemseg.catalog.cache import cache_directory, check_space
from vemseg.errors import Interrupted, MissingError, OutputExistsError
from vemseg.resources import byte_text
from vemseg.run.files import lock, read_json, unlock, write_json, writing

log = logging.getLogger("vemseg")

TIMEOUT = (15.0, 60.0)
"""Seconds to connect, and of silence."""
ATTEMPTS = 5
"""In a row that bring nothing, before giving up."""
PAUSE = 1.0
"""Seconds before the second attempt; twice as long before each further one."""
CHUNK = 2**18
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""Answers that another attempt may change."""

Transferred = Callable[[int, int | None], None]
"""Told the bytes that are there, and all of them where the server says so."""
Stopped = Callable[[], bool]


def download(
    url: str, sha256: str, name: str, *, offline: bool, transferred: Transferred, stopped: Stopped
) -> Path:
    """Return a file of the cache, downloaded if it is not there.

    Parameters
    ----------
    url : str
        http or https; redirects are followed.
    sha256 : str
        Of the whole file, in hexadecimal.
    name : str
        In the cache.
    offline : bool
        Ask no host: what is not in the cache is missing.
    transferred, stopped : callable

    Raises
    ------
    MissingError
        Where there is no network, the server does not give the file, or gives another one.
    ResourceError
        Where the disk is too small, or cannot be written.
    Interrupted
        Where it was stopped; the same call goes on.
    """
    folder = cache_directory()
    path = folder / name
    if _checked(path, sha256):
        return path
    if offline and not path.exists():
        raise MissingError(f"{name} is not in the cache ({folder}) and nothing may be downloaded (--offline)")
    with _alone(path, stopped):
        if _checked(path, sha256):
            return path
        transfer = Transfer(path.with_name(f"{name}.part"), offline, transferred, stopped)
        keeper = pooch.create(folder, base_url="", registry={name: f"sha256:{sha256}"}, urls={name: url})
        pooch.get_logger().setLevel(logging.ERROR)
        if path.exists():
            log.info("checking the SHA-256 of %s", path)
        try:
            with writing(path):
                keeper.fetch(name, downloader=transfer)
        except ValueError as error:
            raise MissingError(_other_file(url, sha256, error)) from None
        write_json(_note(path), {"sha256": sha256, **_identity(path)})
    return path


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    log.info("checking the SHA-256 of %s", path)
    return str(pooch.file_hash(str(path), "sha256"))


def _other_file(url: str, sha256: str, error: ValueError) -> str:
    """Say that a hash is wrong, and what to do."""
    found = [word for word in re.findall(r"[0-9a-f]{64}", str(error)) if word != sha256]
    what = f"its SHA-256 is {found[0][:16]}..., not {sha256[:16]}..." if found else "its SHA-256 is wrong"
    return (
        f"{url} is not the file that was expected: {what}, and it was deleted. If it was damaged on the "
        f"way, the same command brings it again; if it was changed at its host, --sha256 takes the new one"
    )


def _note(path: Path) -> Path:
    """Return where it is kept that a file was checked."""
    return path.with_name(f"{path.name}.json")


def _identity(path: Path) -> dict[str, int]:
    state = path.stat()
    return {"size": state.st_size, "modified_ns": state.st_mtime_ns}


def _checked(path: Path, sha256: str) -> bool:
    """Tell whether a file was checked before and is as it was then: hashing 30 GB takes minutes."""
    if not path.is_file() or not _note(path).is_file():
        return False
    known: Any = read_json(_note(path))
    return bool(known == {"sha256": sha256, **_identity(path)})


@contextmanager
def _alone(path: Path, stopped: Stopped) -> Iterator[None]:
    """Wait until no other process downloads the file."""
    waited = False
    while True:
        try:
            held = lock(path.with_name(f".{path.name}.lock"), f"another process downloads {path}")
            break
        except OutputExistsError as busy:
            if not waited:
                log.info("%s; waiting for it", str(busy).partition(": wait")[0])
            waited = True
            if stopped():
                raise Interrupted(f"stopped while waiting for {path}") from None
            time.sleep(0.5)
    try:
        yield
    finally:
        unlock(held)


@dataclass
class Transfer:
    """What pooch calls to get the bytes of a file.

    Attributes
    ----------
    part : Path
        Grows; beside it ``<part>.json`` says of which file it is.
    """

    part: Path
    offline: bool
    transferred: Transferred
    stopped: Stopped

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Bring the file to ``output_file``, going on with what is there.

        Raises
        ------
        MissingError, ResourceError, Interrupted
            As ``download``.
        """
        if self.offline:
            name = self.part.with_suffix("")
            raise MissingError(f"{name} is another file, and nothing may be downloaded (--offline)")
        idle, last = 0, self._size()
        while True:
            try:
                self._attempt(url)
                break
            except _Broken as broken:
                idle = idle + 1 if self._size() <= last else 1
                last = self._size()
                if not broken.transient or idle >= ATTEMPTS:
                    kept = (
                        f"; {byte_text(last)} are kept: the same command goes on from there" if last else ""
                    )
                    raise MissingError(f"cannot download {url}: {broken}{kept}") from None
                log.info("%s; attempt %d of %d", broken, idle + 1, ATTEMPTS)
                self._wait(PAUSE * 2 ** (idle - 1))
        log.info("checking the SHA-256 of %s", byte_text(self._size()))
        self.part.replace(output_file)
        self._about.unlink(missing_ok=True)

    @property
    def _about(self) -> Path:
        return self.part.with_name(f"{self.part.name}.json")

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._stop_if_asked()
            time.sleep(min(0.1, seconds))

    def _stop_if_asked(self) -> None:
        if self.stopped():
            raise Interrupted(
                f"stopped with {byte_text(self._size())} in {self.part}: the same command goes on"
            )

    def _attempt(self, url: str) -> None:
        """Ask for what is missing, and append it.

        Raises
        ------
        _Broken
            Where the connection, or the server, does not give all of it.
        """
        import requests

        have, headers = self._known(url)
        try:
            with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
                if answer.status_code == 416 and answer.headers.get("Content-Range") == f"bytes */{have}":
                    return  # all of it was there
                have, total = self._begin(url, answer, have)
                if total is not None:
                    check_space(self.part.parent, total - have, "set $VEMSEG_CACHE_DIR to a larger disk")
                with self.part.open("r+b" if have else "wb") as file:
                    file.seek(have)
                    for data in answer.iter_content(CHUNK):
                        file.write(data)
                        have += len(data)
                        self.transferred(have, total)
                        self._stop_if_asked()
        except requests.exceptions.RequestException as error:
            raise _Broken(_reason(error), _is_transient(error)) from None
        if total is not None and have != total:
            raise _Broken(f"the connection broke after {byte_text(have)} of {byte_text(total)}")

    def _known(self, url: str) -> tuple[int, dict[str, str]]:
        """Return the bytes that are there of this very file, and what to ask the server for."""
        headers = {"Accept-Encoding": "identity"}
        have = self._size()
        about: Any = read_json(self._about) if self._about.exists() else {}
        if not have or about.get("url") != url:
            return 0, headers
        headers["Range"] = f"bytes={have}-"
        if validator := about.get("validator"):
            headers["If-Range"] = validator
        return have, headers

    def _begin(self, url: str, answer: Any, have: int) -> tuple[int, int | None]:
        """Look at the head of an answer; return from where it goes on, and the bytes of the whole file."""
        if answer.status_code == 416:
            self.part.unlink(missing_ok=True)
            raise _Broken("the server has no such part of the file: beginning again")
        if answer.status_code not in (200, 206):
            raise _Broken(
                f"the server says {answer.status_code} {answer.reason}", answer.status_code in TRANSIENT
            )
        if answer.status_code == 206:
            start, _, whole = answer.headers.get("Content-Range", "").partition("/")
            if not start.startswith(f"bytes {have}-"):
                raise _Broken(f"the server answered with another part of the file ({start})", False)
            return have, int(whole) if whole.isdigit() else None
        length = answer.headers.get("Content-Length", "")
        tag = answer.headers.get("ETag", "")
        validator = "" if tag.startswith("W/") else tag
        validator = validator or answer.headers.get("Last-Modified", "")
        write_json(self._about, {"url": url, "validator": validator})
        return 0, int(length) if length.isdigit() else None


class _Broken(Exception):
    """An attempt that did not bring the whole file."""

    def __init__(self, reason: str, transient: bool = True) -> None:
        super().__init__(reason)
        self.transient = transient


def _is_transient(error: Exception) -> bool:
    """Tell whether another attempt may help: not where the URL itself is no good."""
    import requests

    wrong = (
        requests.exceptions.InvalidURL,
        requests.exceptions.MissingSchema,
        requests.exceptions.InvalidSchema,
        requests.exceptions.TooManyRedirects,
    )
    return not isinstance(error, wrong)


def _reason(error: Exception) -> str:
    """Return what went wrong in a few words, without the addresses of objects."""
    text = str(error)
    for known, words in (
        ("NameResolution", "the host's name cannot be resolved (is there a network?)"),
        ("Connection refused", "the host refuses the connection"),
        ("Network is unreachable", "the network is unreachable"),
        ("timed out", "the server does not answer"),
        ("certificate", "the server's certificate is not trusted"),
    ):
        if known in text:
            return words
    if any(word in text for word in ("IncompleteRead", "Connection aborted", "Connection broken", "reset")):
        return "the connection broke"
    return f"{type(error).__name__}: {' '.join(text.split())[:160]}"
