"""Outputs appear whole: they grow in ``<out>.partial/`` and take their name by one rename at the end."""

from __future__ import annotations

from pathlib import Path

from vemseg.errors import OutputExistsError
from vemseg.files import remove
from vemseg.names import is_tiff_output


def partial_directory(out: Path) -> Path:
    """Return the directory in which an output grows: on the same disk, so that a rename finishes it."""
    return out.with_name(out.name + ".partial")


def check_output(out: Path, overwrite: bool = False) -> None:
    """Refuse an output that cannot be written, before work is put into it.

    Raises
    ------
    OutputExistsError
        Where it exists and ``overwrite`` is not set.
    UsageError
        Where its suffix names no format.
    """
    is_tiff_output(out)
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists: choose another name or overwrite it")


def publish(finished: Path, out: Path, overwrite: bool = False) -> None:
    """Give a finished file or directory its name, replacing an older output only now.

    Raises
    ------
    OutputExistsError
        Where ``out`` exists and ``overwrite`` is not set.
    """
    check_output(out, overwrite)
    if not out.exists() or (out.is_file() and finished.is_file()):
        finished.replace(out)
        return
    aside = out.with_name(out.name + ".replaced")
    remove(aside)
    out.replace(aside)
    try:
        finished.replace(out)
    except OSError:
        aside.replace(out)
        raise
    remove(aside)
