"""How a command ends: every exception becomes one line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from vemseg.cli.surroundings import ERRORS
from vemseg.errors import Interrupted, ResourceError, VemsegError
from vemseg.files import UNWRITABLE
from vemseg.resources import is_out_of_memory

MISUSE: type[Exception] = typer.BadParameter.__bases__[0]
"""What Typer raises where a command line cannot be parsed; it has no public name for it."""

INTERNAL, OUT_OF_RESOURCES, KEYBOARD, CLOSED_PIPE = 1, ResourceError.exit_code, 130, 141


@contextmanager
def exit_codes(verbose: bool, speaks: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Turn whatever is raised inside into a line and an exit code.

    Parameters
    ----------
    verbose : bool
        Print the traceback as well.
    speaks : callable
        Asked at the end whether this process says why the command ended, or leaves that to another process.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, MISUSE):
        raise
    except KeyboardInterrupt:
        _end(KEYBOARD, "interrupted")
    except BrokenPipeError:
        # what is left in the buffer goes nowhere, so that flushing it later raises nothing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CLOSED_PIPE) from None
    except Exception as error:
        if verbose:
            traceback.print_exc()
        code, message = _verdict(error, verbose)
        if not speaks():
            raise typer.Exit(code) from None
        _end(code, message)


def _verdict(error: Exception, verbose: bool) -> tuple[int, str]:
    """Return the exit code of an exception, and what to say."""
    if isinstance(error, Interrupted):
        return error.exit_code, str(error)
    if isinstance(error, VemsegError):
        return error.exit_code, f"error: {error}"
    if is_out_of_memory(error):
        hint = (
            "take smaller blocks (--max-memory, below what the system gives), a part of the volume (--crop), "
            "or smaller batches (train --batch-size 8, embed.batch=16)"
        )
        return OUT_OF_RESOURCES, f"error: out of memory: {hint}"
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        where = f"{error.filename}: " if error.filename else ""
        return OUT_OF_RESOURCES, f"error: {where}{error.strerror}"
    what = " ".join(f"{type(error).__name__}: {error}".split())
    hint = "" if verbose else " (the same command with -v shows where; please report it)"
    return INTERNAL, f"internal error: {what[:300]}{hint}"


def visible(text: str) -> str:
    """Return a message in which characters that control a terminal, or end a line, are escapes.

    What files and their authors are called is somebody else's text.
    """
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in text)


def misused(error: Any) -> int:
    """Say in a line what Typer refuses, or show the help that it shows instead; return the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        where = f" ('{error.ctx.command_path} --help' explains)" if error.ctx is not None else ""
        what = error.format_message().rstrip(".").replace("Value error, ", "")
        say(f"error: {what}{where}")
    code: int = error.exit_code
    return code


def say(message: str) -> None:
    """Print the line on which a command ends."""
    typer.echo(f"vemseg: {visible(message)}", file=ERRORS)


def _end(code: int, message: str) -> None:
    say(message)
    raise typer.Exit(code) from None
