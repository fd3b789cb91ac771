"""Errors a user can mend, each with the exit code the command line gives it.

The message is one line: what is wrong, where, and how to mend it. Anything else that is raised is a bug
(exit code 1).
"""


class VemsegError(Exception):
    """Base of every error that is reported as one line instead of a traceback."""

    exit_code = 1


class UsageError(VemsegError):
    """Options that do not go together, an unknown recipe key, a value out of range."""

    exit_code = 2


class InputError(VemsegError):
    """Input that cannot be read, or has the wrong shape, axes, type or content."""

    exit_code = 3


class ResourceError(VemsegError):
    """No usable device, not enough memory, disk full."""

    exit_code = 4


class MissingError(VemsegError):
    """Weights or data that are not there, or whose hash is wrong."""

    exit_code = 5


class OutputExistsError(VemsegError):
    """An output that is already there and was made with other settings."""

    exit_code = 6


class ThresholdError(VemsegError):
    """``evaluate --fail-under`` was not met."""

    exit_code = 7


class Interrupted(VemsegError):
    """Stopped by a signal with the state saved: the same command goes on."""

    exit_code = 75
