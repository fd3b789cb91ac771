"""Libraries that only some formats need, imported when such a file is met."""

import importlib
from types import ModuleType

from vemseg.errors import InputError


def needed(module: str, what: object) -> ModuleType:
    """Import a library that only some formats need.

    Parameters
    ----------
    module : str
    what : object
        What cannot be read or written without it.

    Raises
    ------
    InputError
        Where it is not installed, naming the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{what} needs {module.split('.')[0]} to be read or written: pip install 'vemseg[formats]'"
        ) from error
