"""What others wrote, read without trust: size, kind and form are checked, and every error is one line.

Files come from colleagues, from strangers and from disks that fail. Every library that decodes them raises
errors of its own kind, so all of these pass through ``reading``, which turns them into an error of this
package. Texts are read by ``read_text``, which opens regular files only and knows a largest size. What JSON
and TOML hold is checked by a ``Form``, one for each kind of document.
"""

from __future__ import annotations

import importlib
import json
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vemseg.errors import InputError, VemsegError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MOST_QUOTED = 200
"""Most characters that a message repeats of what was read, or of what a library says about it."""

MOST_TEXT = 2**26
"""Most bytes of a text that is read whole: recipes, names, descriptions, cluster centres."""

Kind = Any
"""A type, or a mapping of names to these: see ``Form``."""


def library(module: str, complaint: object, extra: str) -> ModuleType:
    """Import a library that only some users need, when it is needed.

    Parameters
    ----------
    module : str
    complaint : object
        The beginning of the message where it is not installed; how to install it follows (``how_to_add``).
    extra : str
        The extra of the package that brings it.

    Raises
    ------
    InputError
        Where it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{complaint}; {how_to_add(extra)}") from error


def check_library(module: str, complaint: object, extra: str) -> None:
    """Refuse early, without importing it, where a library that is needed later is not installed.

    Parameters
    ----------
    module, complaint, extra
        As for :func:`library`.

    Raises
    ------
    InputError
        Where it is not installed.
    """
    if find_spec(module) is None:
        raise InputError(f"{complaint}; {how_to_add(extra)}")


def how_to_add(extra: str) -> str:
    """Say how to install an extra; the package of this name on the package index is not this one."""
    return f"install the extra {extra}: pip install '.[{extra}]' in vemseg's source folder"


def quoted(words: object) -> str:
    """Return a text for a message: one line of at most ``MOST_QUOTED`` printable characters."""
    text = " ".join(str(words)[: 4 * MOST_QUOTED].split())
    text = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return text if len(text) <= MOST_QUOTED else text[: MOST_QUOTED - 1] + "…"


@contextmanager
def reading(complaint: str, kind: type[VemsegError] = InputError) -> Iterator[None]:
    """Turn whatever a reader or codec raises inside the block into an error of this package.

    Parameters
    ----------
    complaint : str
        What is wrong and where; the library's own words follow it.
    kind : type
        Class of the error, which decides the exit code.

    Raises
    ------
    VemsegError
        For every exception but those of this package, and a lack of memory, which pass as they are.
    """
    try:
        yield
    except (VemsegError, MemoryError):
        raise
    except RecursionError:
        raise kind(f"{complaint}: it is nested too deeply") from None
    except Exception as error:  # every codec and every damaged tag raises its own kind
        words = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise kind(f"{complaint}: {quoted(words) or type(error).__name__}") from error


def check_regular(path: Path, kind: type[VemsegError] = InputError) -> None:
    """Refuse a pipe, a device or a socket, which might never come to an end; what is not there passes.

    Raises
    ------
    VemsegError
        Of the given kind.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # a name with a zero byte is not a path at all
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise kind(f"{path} is a pipe, a device or a socket: give a regular file")


def read_text(path: Path, complaint: str, kind: type[VemsegError] = InputError) -> str:
    """Read a text in UTF-8 from a regular file of at most ``MOST_TEXT`` bytes.

    Parameters
    ----------
    path : Path
    complaint, kind
        As for :func:`reading`.

    Raises
    ------
    VemsegError
        Of the given kind, where that is not possible.
    """
    with reading(complaint, kind):
        check_regular(path, kind)
        with path.open("rb") as file:
            data = file.read(MOST_TEXT + 1)
        if len(data) > MOST_TEXT:
            raise kind(f"{complaint}: it is larger than {MOST_TEXT // 2**20} MiB")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise kind(f"{complaint}: it is not UTF-8 text; save it as UTF-8 (of Excel: CSV UTF-8)") from None


class Form:
    """What a kind of document must hold: the names of its entries and the types of their values.

    Values are checked strictly: a text is not a number. Entries that the form does not name are left alone.

    Parameters
    ----------
    kind : type, or mapping of str to type or mapping
        The type of the whole document, or of each of its entries; a mapping within a mapping is a table. An
        entry whose name ends in ``?`` may be missing; null is not such an entry, unless its type says so.

    Examples
    --------
    >>> Form({"shape": tuple[int, int, int], "name?": str}).check({"shape": [1, 2, 3]}, "a document")
    {'shape': [1, 2, 3]}
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        from pydantic import TypeAdapter  # it takes half of the time in which the command line starts

        return TypeAdapter(_model(self._kind))

    def check(self, data: Any, complaint: str) -> Any:
        """Return the data if they are of this form.

        Parameters
        ----------
        data : object
            What JSON gives: tables, lists, numbers, texts.
        complaint : str
            What is wrong and where; the first place that is wrong follows it.

        Raises
        ------
        InputError
            Where they are not.
        """
        from pydantic import ValidationError

        with reading(complaint):
            text = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")  # half characters are fine
            try:
                self._adapter.validate_json(text, strict=True)
            except ValidationError as error:
                raise InputError(f"{complaint}: {_first_of(error.errors(include_url=False)[0])}") from None
        return data


def _model(kind: Kind) -> Any:
    """Return a type that pydantic knows."""
    from pydantic import create_model

    if not isinstance(kind, Mapping):
        return kind
    fields: dict[str, Any] = {}
    for name, inner in kind.items():
        optional = name.endswith("?")
        fields[name.removesuffix("?")] = (_model(inner), None) if optional else (_model(inner), ...)
    return create_model("Document", **fields)


def _first_of(found: Any) -> str:
    """Say where pydantic found something wrong, and what."""
    where = ".".join(str(part) for part in found["loc"]) or "it"
    return quoted(f"{where}: {found['msg'][0].lower()}{found['msg'][1:]}")
