"""Outputs that would destroy what they are made from, or what somebody else keeps: they are refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vemseg.errors import OutputExistsError, UsageError
from vemseg.names import is_pattern
from vemseg.run.fingerprint import LABELS, METADATA

STORES = (*METADATA, "info")
"""Names of files of which a store of Zarr, N5 or neuroglancer has one at its top."""


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that are inputs, hold one, or lie in one.

    Labels of an OME-Zarr image may lie in it.

    Raises
    ------
    UsageError
        Names the first.
    """
    known = [(path, path.resolve()) for path in inputs]
    for out in outputs:
        place = out.resolve()
        for path, given in known:
            if place == given:
                raise UsageError(f"{out} is an input: name another output")
            if place in given.parents:
                raise UsageError(f"{out} is a folder that the input {path} lies in: name another output")
            pattern = is_pattern(given.name) and not given.exists()
            if pattern and given.parent == place.parent and place.match(given.name):
                raise UsageError(f"{out} would be one of the slices {path}: name an output elsewhere")
            if given in place.parents and place.relative_to(given).parts[0] != LABELS:
                raise UsageError(f"{out} lies in the input {path}: name an output elsewhere")


def refuse_other_kinds(main: Path, *, folder: bool) -> None:
    """Refuse to put a result where something of another kind lies, which ``-f`` may not replace either.

    Parameters
    ----------
    main : Path
        Of the result.
    folder : bool
        Whether the result is a folder.

    Raises
    ------
    OutputExistsError
        Where there is a folder instead of a file, a folder that is no store, or a device.
    """
    if main.is_dir() and not folder:
        raise OutputExistsError(f"{main} is a folder: give a file with -o")
    if main.is_dir() and not _is_store(main):
        raise OutputExistsError(f"{main} is a folder of something else: give another -o")
    if main.exists() and not main.is_dir() and not main.is_file():
        raise OutputExistsError(f"{main} is no regular file: give another -o")


def _is_store(folder: Path) -> bool:
    """Tell whether a folder holds a volume, or nothing at all."""
    return any((folder / name).is_file() for name in STORES) or not any(folder.iterdir())
