"""Libraries that only some formats need, imported when such a file is met."""

from types import ModuleType

from vemseg.foreign import library


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
    return library(module, f"{what} needs {module.split('.')[0]} to be read or written", "formats")
