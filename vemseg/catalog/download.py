"""A file from its host into the cache: whole and with the right SHA-256, or not at all.

pooch keeps the registry, checks the hash and gives the file its name. It would start over where a connection
breaks, so the bytes are transferred here: they are kept in ``<file>.part``, and after a break only the rest
is asked for (HTTP Range), within a call and from one call to the next. They stay there until pooch has
checked the file.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pooch

from vemseg.catalog.cache import cache_directory, check_space, in_cache
from vemseg.context import Stopped
from vemseg.errors import Interrupted, MissingError
from vemseg.files import writing
from vemseg.resources import byte_text
from vemseg.run import Json, alone, read_json, write_json

if TYPE_CHECKING:
    from requests import Response

log = logging.getLogger("vemseg")

TIMEOUT = (15.0, 60.0)
"""The longest waits in seconds: for a connection, and for the next bytes of an answer."""
ATTEMPTS = 5
"""How many attempts in a row may bring nothing before a download is given up."""
PAUSE = 1.0
"""Seconds to wait before the second attempt; twice as many before each further one."""
CHUNK = 2**18
"""Bytes that are asked of a connection at once."""
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""Status codes of HTTP after which another attempt may succeed."""

Tell = Callable[[str, int, int | None], None]
"""Called with what happens ("downloading", "checking"), the bytes done so far, and all of them if known."""
Value = TypeVar("Value")


def download(url: str, sha256: str, name: str, *, offline: bool, tell: Tell, stopped: Stopped) -> Path:
    """Return a file of the cache, downloaded if it is not there.

    Parameters
    ----------
    url : str
        http or https; redirects are followed.
    sha256 : str
        The SHA-256 of the whole file, in hexadecimal.
    name : str
        The name of the file in the cache, to which the beginning of the hash is added.
    offline : bool
        Download nothing; a file that is not in the cache is then missing.
    tell : callable
        Told how far the download is.
    stopped : callable
        Asked now and then whether to stop.

    Raises
    ------
    MissingError
        Where there is no network, the server does not give the file, or gives another one.
    ResourceError
        Where the disk is too small, or cannot be written.
    Interrupted
        Where it was stopped; the same call goes on.
    """
    name = named(name, sha256)
    if (there := in_cache(name)) and _checked(there, sha256):
        return there
    folder = cache_directory()
    path = folder / name
    if offline and not path.exists():
        raise MissingError(f"{name} is not in the cache ({folder}) and nothing may be downloaded (--offline)")
    with alone(path.with_name(f".{name}.lock"), f"another process downloads {path}", stopped):
        if _checked(path, sha256):
            return path
        transfer = Transfer(path, sha256, offline, tell, stopped)
        keeper = pooch.create(folder, base_url="", registry={name: f"sha256:{sha256}"}, urls={name: url})
        pooch.get_logger().setLevel(logging.ERROR)
        if path.exists():
            log.info("checking the SHA-256 of %s", path)
        with writing(path):
            keeper.fetch(name, downloader=transfer)
        _write_note(path, sha256)
        transfer.forget()
    return path


def named(name: str, sha256: str) -> str:
    """Return the name in the cache of a file with that hash."""
    path = Path(name)
    return f"{path.stem}-{sha256[:12]}{path.suffix}"


def file_sha256(path: Path, tell: Tell, stopped: Stopped) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises
    ------
    Interrupted
        Where it was stopped.
    """
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while data := file.read(2**22):
            digest.update(data)
            done += len(data)
            tell("checking", done, total)
            if stopped():
                raise Interrupted(
                    f"stopped while the SHA-256 of {path} was checked: the same command goes on"
                )
    return digest.hexdigest()


def _note(path: Path) -> Path:
    """Return the path of the note that a file was checked."""
    return path.with_name(f"{path.name}.json")


def _write_note(path: Path, sha256: str) -> None:
    write_json(_note(path), {"sha256": sha256, **_identity(path)})


def _identity(path: Path) -> dict[str, int]:
    state = path.stat()
    return {"size": state.st_size, "modified_ns": state.st_mtime_ns}


def _checked(path: Path, sha256: str) -> bool:
    """Tell whether a file was checked before and is as it was then: hashing 30 GB takes minutes."""
    if not path.is_file() or not _note(path).is_file():
        return False
    return bool(read_json(_note(path)) == {"sha256": sha256, **_identity(path)})


@dataclass
class Transfer:
    """What pooch calls to get the bytes of a file.

    Attributes
    ----------
    path : Path
        Where the whole file goes. Until then ``<path>.part`` grows, and ``<path>.part.json`` says of which
        file it is a part.
    sha256 : str
        The SHA-256 of the whole file.
    """

    path: Path
    sha256: str
    offline: bool
    tell: Tell
    stopped: Stopped

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool = False) -> None:
        """Bring the file to ``output_file``, going on with what is there.

        Raises
        ------
        MissingError, ResourceError, Interrupted
            As for ``download``.
        """
        if self.offline:
            raise MissingError(
                f"{self.path} is not the expected file, and nothing may be downloaded (--offline)"
            )
        self._bring(url)
        found = file_sha256(self.part, self.tell, self.stopped)
        if found != self.sha256:
            raise MissingError(self._set_aside(url, found))
        self._hand_over(Path(output_file))

    def forget(self) -> None:
        """Remove the files that only the transfer needed."""
        self.part.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    @property
    def part(self) -> Path:
        """The file that holds what is there so far."""
        return self.path.with_name(f"{self.path.name}.part")

    def _hand_over(self, to: Path) -> None:
        """Give the file a second name, so that it is still there if pooch's check is interrupted."""
        for left in self.path.parent.glob("tmp*"):  # of a check that was killed
            if left != to and left.samefile(self.part):
                left.unlink()
        to.unlink()
        try:
            os.link(self.part, to)
        except OSError:  # a file system without hard links
            self.part.replace(to)

    def _set_aside(self, url: str, found: str) -> str:
        """Keep a file that is not the expected one under another name; return what to tell the user."""
        name = self.path.name.replace(self.sha256[:12], found[:12])
        kept = self.part.replace(self.path.with_name(name))
        _write_note(kept, found)
        self.forget()
        return (
            f"{url} is not the file that was expected: its SHA-256 is {found}, not {self.sha256}. If it was "
            f"damaged on the way, delete {kept} and run the same command again; if it was changed at its "
            f"host and you trust it, --sha256 {found} takes it as it is"
        )

    def _bring(self, url: str) -> None:
        """Transfer the missing bytes; give up after ``ATTEMPTS`` attempts in a row that bring nothing."""
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

    def _patiently(self, call: Callable[[], Value]) -> Value:
        """Return what a call to the server returns; a request to stop is heeded while it waits."""
        answers: list[Value] = []
        errors: list[Exception] = []

        def ask() -> None:
            try:
                answers.append(call())
            except Exception as error:  # raised again in the thread that waits
                errors.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.2)
            if thread.is_alive():
                self._stop_if_asked()
        if errors:
            raise errors[0]
        return answers[0]

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
            asked = functools.partial(requests.get, url, headers=headers, stream=True, timeout=TIMEOUT)
            with _closing(self._patiently(asked)) as answer:
                if answer.status_code == 416 and answer.headers.get("Content-Range") == f"bytes */{have}":
                    return  # all of it was there
                have, total = self._begin(url, answer, have)
                if total is not None:
                    check_space(self.part.parent, total - have, "set $VEMSEG_CACHE_DIR to a larger disk")
                with self.part.open("r+b" if have else "wb") as file:
                    file.seek(have)
                    pieces = answer.iter_content(CHUNK)
                    while data := self._patiently(functools.partial(next, pieces, b"")):
                        file.write(data)
                        have += len(data)
                        self.tell("downloading", have, total)
                        self._stop_if_asked()
        except requests.exceptions.RequestException as error:
            raise _Broken(_reason(error), _is_transient(error)) from None
        if total is not None and have != total:
            raise _Broken(f"the connection broke after {byte_text(have)} of {byte_text(total)}")

    def _known(self, url: str) -> tuple[int, dict[str, str]]:
        """Return how many bytes of this very file are there, and the headers that ask for the rest."""
        headers = {"Accept-Encoding": "identity"}
        have = self._size()
        about: Json = read_json(self._about) if self._about.exists() else {}
        if not have or about.get("url") != url:
            return 0, headers
        headers["Range"] = f"bytes={have}-"
        if validator := about.get("validator"):
            headers["If-Range"] = validator
        return have, headers

    def _begin(self, url: str, answer: Response, have: int) -> tuple[int, int | None]:
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


@contextmanager
def _closing(answer: Response) -> Iterator[Response]:
    """Close an answer, unless a thread may still be reading it: closing would wait for that thread."""
    try:
        yield answer
    except (Interrupted, KeyboardInterrupt):
        raise
    except Exception:
        answer.close()
        raise
    answer.close()


class _Broken(Exception):
    """An attempt that did not bring the whole file."""

    def __init__(self, reason: str, transient: bool = True) -> None:
        super().__init__(reason)
        self.transient = transient


def _is_transient(error: Exception) -> bool:
    """Tell whether another attempt may help, which it cannot where the URL itself is wrong."""
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
