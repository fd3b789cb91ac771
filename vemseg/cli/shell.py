"""What all commands share: verbosity, messages, progress, stopping by signal, exit codes, results."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from vemseg.cli import options, words
from vemseg.cli.failures import exit_codes, visible
from vemseg.cli.progress import showing
from vemseg.cli.surroundings import ERRORS, gone_folder
from vemseg.context import Context, Share
from vemseg.errors import ResourceError, UsageError
from vemseg.resources import launched

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@dataclass
class Shell:
    """How this process speaks to its user; set from the options that all commands have."""

    verbose: bool = False
    quiet: bool = False
    progress: words.ProgressStyle = words.ProgressStyle.auto
    speaks: bool = True
    """False in all processes but the first where several do the work of one command together."""

    @functools.cached_property
    def errors(self) -> Console:
        """The console of standard error, where everything goes that is not a result."""
        from rich.console import Console

        return Console(file=ERRORS)


_shell = Shell()

READ = frozenset(
    ("clusters", "features", "labels", "mask", "names", "points", "prediction", "reference", "volume")
)
"""Parameters of commands that name files to be read."""


class ContextOptions(TypedDict, total=False):
    """The attributes of a command's ``Context`` that its options decide."""

    device: str
    threads: int | None
    memory: int | None
    offline: bool
    executor: str
    share: Share
    processes: int | None
    cluster: str | None


def set_up(
    *,
    verbose: options.Verbose = False,
    quiet: options.Quiet = False,
    progress: options.Progress = words.ProgressStyle.auto,
) -> None:
    """Apply the options that may stand before a command as well as after it."""
    _shell.verbose |= verbose
    _shell.quiet |= quiet
    if progress is not words.ProgressStyle.auto:
        _shell.progress = progress
    _log(logging.DEBUG if _shell.verbose else logging.WARNING if _shell.quiet else logging.INFO)


def as_command(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function as a command: with the options of ``set_up``, ending in an exit code.

    The command line reads the options from the signature.
    """
    own, common = (inspect.signature(f, eval_str=True).parameters.values() for f in (function, set_up))
    shared = [parameter.name for parameter in common]

    @functools.wraps(function)
    def command(*args: object, **given: Any) -> None:
        set_up(**{name: given.pop(name) for name in shared if name in given})
        with exit_codes(_shell.verbose, lambda: _shell.speaks):
            _refuse(given)
            function(*args, **given)

    command.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    return command


def _refuse(given: Mapping[str, object]) -> None:
    """Refuse options that say nothing, an output that is one of ``READ``, and a folder that is gone."""
    if reason := gone_folder():
        raise ResourceError(reason)
    out = given.get("out")
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            if one == "":
                raise UsageError(f"{name.rstrip('_')}: the text is empty")
            if name in READ and _same(out, one):
                raise UsageError(f"{out} is an input ({name}): name another output")


def _same(out: object, other: object) -> bool:
    """Tell whether two options name the same file."""
    if not isinstance(out, str | Path) or not isinstance(other, str | Path):
        return False
    with contextlib.suppress(OSError, ValueError):  # not every text is a path
        return Path(out).samefile(other)
    return False


@contextmanager
def working(**given: Unpack[ContextOptions]) -> Iterator[Context]:
    """Yield the context of a command that does not save its state when it is stopped.

    Parameters
    ----------
    **given
        Attributes of the ``Context``.
    """
    style = words.ProgressStyle.none if _shell.quiet else _shell.progress
    with showing(style, _shell.errors) as report:
        context = Context(report=report, **given)
        yield replace(context, memory=context.limit)  # what is free changes while the command works


@contextmanager
def stoppable(**given: Unpack[ContextOptions]) -> Iterator[Context]:
    """Yield the context of a command that heeds SIGTERM and SIGUSR1: it saves its state and ends.

    Import the pipeline inside: a signal that comes while its libraries load ends the command with the same
    exit code, since the same command goes on.

    Parameters
    ----------
    **given
        Attributes of the ``Context``.
    """
    from vemseg.run import StopSignal

    with StopSignal() as signal, working(**given) as context:
        yield replace(context, stopped=lambda: signal.requested)


@contextmanager
def together(**given: Unpack[ContextOptions]) -> Iterator[Context]:
    """Yield what :func:`stoppable` does; where ``torchrun`` started the command, its processes meet first.

    One process speaks for all: the first one, or the one that ends the work by an error.

    Parameters
    ----------
    **given
        Attributes of the ``Context``.
    """
    index, count = launched()
    if index:
        _shell.speaks, _shell.quiet = False, True
        logging.getLogger("vemseg").setLevel(logging.ERROR)
    given["share"] = Share(index, count)
    with stoppable(**given) as context:
        if count == 1:
            yield context
            return
        from vemseg.ranks import meeting

        with meeting(context) as group:
            try:
                yield group.context
            except Exception:
                _shell.speaks = group.claims()
                raise


def result(*lines: str | Path) -> None:
    """Print results, one per line, to standard output: paths as they are, whatever bytes they hold."""
    if not _shell.speaks:
        return
    text = "".join(f"{line}\n" for line in lines)
    sys.stdout.buffer.write(text.encode(sys.stdout.encoding, "surrogateescape"))
    sys.stdout.buffer.flush()


def show(renderable: RenderableType, *, as_result: bool) -> None:
    """Print a table: to standard output where it is what was asked for, else to standard error."""
    from rich.console import Console

    if as_result:
        console = Console()
        with console.capture() as shown:
            console.print(renderable)
        result(shown.get().rstrip("\n"))
    elif not _shell.quiet:
        _shell.errors.print(renderable)


class _Messages(logging.Handler):
    """Log messages as plain lines, above the progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        text = visible(f"{prefix}{record.getMessage()}")
        _shell.errors.print(text, markup=False, highlight=False, soft_wrap=True)


def _log(level: int) -> None:
    """Show this package's messages from a level on, and other packages' where they matter."""
    logging.captureWarnings(True)
    root = logging.getLogger()
    if not any(isinstance(handler, _Messages) for handler in root.handlers):
        root.addHandler(_Messages())
    root.setLevel(logging.WARNING if _shell.verbose else logging.ERROR)
    logging.getLogger("vemseg").setLevel(level)
    # tifffile logs what it finds wrong with a file; the error that ends the command says it in words
    logging.getLogger("tifffile").setLevel(logging.WARNING if _shell.verbose else logging.CRITICAL)
