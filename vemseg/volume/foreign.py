"""Errors of other libraries on damaged input, turned into one line that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vemseg.errors import InputError, VemsegError

QUOTED = 200
"""The most characters of a library's own words that a message quotes."""


@contextmanager
def as_input_error(complaint: str) -> Iterator[None]:
    """Turn whatever a reader or codec raises inside the block into an ``InputError``.

    Parameters
    ----------
    complaint : str
        What is wrong and where; the library's own words follow it.
    """
    try:
        yield
    except (VemsegError, MemoryError):
        raise
    except Exception as error:  # every codec and every damaged tag raises its own kind
        words = " ".join(str(error).split())[:QUOTED] or type(error).__name__
        raise InputError(f"{complaint}: {words}") from error
