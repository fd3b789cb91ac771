"""Readers of other libraries: their errors in one line (``vemseg.foreign``), and imports on demand."""

import importlib
from types import ModuleType

from vemseg.errors import InputError
from vemseg.foreign import reading as as_input_error

__all__ = ["as_input_error", "needed"]


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
