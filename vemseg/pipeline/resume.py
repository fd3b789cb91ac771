"""Whether an output is there, was begun, or is another one: what makes ``embed`` and ``segment`` repeatable.

A *state* is what an output depends on, as plain JSON types: two calls with equal states give equal outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vemseg.errors import OutputExistsError
from vemseg.files import DISK_FULL, remove, writing
from vemseg.pipeline.common import log
from vemseg.run import Lock, read_json, write_json

STORE, BEGUN, LOCK = "store", "state.json", ".lock"
"""In the partial directory: what grows, how it was begun, and a file whose lock keeps other processes out."""


@contextlib.contextmanager
def alone_in(partial: Path, out: Path) -> Iterator[None]:
    """Keep other processes out of a partial directory; leave none behind that has nothing to go on with.

    Raises
    ------
    OutputExistsError
        Where another process is at work there.
    """
    held = Lock(partial / LOCK, f"another process writes {out}")
    held.acquire()
    try:
        with writing(out, DISK_FULL):
            yield
    finally:
        if not (partial / STORE).exists():
            remove(partial)
        held.release()


def done_already(out: Path, partial: Path, made: dict[str, Any] | None, state: dict[str, Any]) -> bool:
    """Tell whether an output made with this state is there; refuse one made otherwise.

    Parameters
    ----------
    out, partial : Path
        The output, and the directory it grows in.
    made : dict or None
        The state the output says it was made with.
    state : dict
        The state asked for.

    Raises
    ------
    OutputExistsError
        Naming the settings that differ, or that a replacement of the output was begun.
    """
    if not out.exists():
        return False
    begun = _begun(partial)
    if begun is not None and begun["replaces"] and (partial / STORE).exists():
        raise OutputExistsError(f"{out} exists and is being replaced in {partial}: -f goes on with that")
    if made == state:
        remove(partial / STORE)  # published before a kill that came before the clean-up
        return True
    raise OutputExistsError(
        f"{out} exists and {difference(made, state)}: give another -o, or -f to replace it"
    )


def take_up(out: Path, partial: Path, state: dict[str, Any], overwrite: bool) -> None:
    """Begin in the partial directory, or go on there if it was begun with the same settings.

    Raises
    ------
    OutputExistsError
        Where it was begun with other settings and ``overwrite`` is not set.
    """
    begun = _begun(partial)
    if begun is not None and begun["state"] == state:
        log.info("going on in %s", partial)
        return
    if begun is not None and not overwrite:
        raise OutputExistsError(
            f"{partial} was begun earlier and {difference(begun['state'], state)}: -f starts again"
        )
    remove(partial / BEGUN)  # first: without it nothing goes on with what is left
    for entry in partial.iterdir():
        if entry.name != LOCK:
            remove(entry)
    write_json(partial / BEGUN, {"state": state, "replaces": out.exists()})


def _begun(partial: Path) -> dict[str, Any] | None:
    path = partial / BEGUN
    found: dict[str, Any] | None = read_json(path) if path.exists() else None
    return found


def difference(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """Say in what two states differ, the first few settings by name."""
    if before is None:
        return "does not say how it was made"
    flat = [state | state.get("settings", {}) for state in (before, now)]
    keys = [k for k in flat[1] if k != "settings" and flat[0].get(k) != flat[1][k]]
    shown = "; ".join(f"{k} {_short(flat[0].get(k))} there, {_short(flat[1][k])} now" for k in keys[:3])
    return f"was made otherwise ({shown})"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "…"
