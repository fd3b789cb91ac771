"""Errors of other libraries on damaged input, turned into one line that names the file."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from vemseg.errors import InputError, VemsegError


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
        raise InputError(f"{complaint}: {' '.join(str(error).split())}") from error


def needed(module: str, what: object) -> ModuleType:
    """Import a library that only some formats need.

    Parameters
    ----------
    module : str
    what : object
        What cannot be read without it.

    Raises
    ------
    InputError
        Where it is not installed, naming the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{what} needs {module.split('.')[0]} to be read: pip install 'vemseg[formats]'"
        ) from error
