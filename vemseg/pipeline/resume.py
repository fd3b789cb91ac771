"""Whether an output is there already, was begun, or is another one: what makes ``segment`` repeatable.

A *state* is what labels depend on, as plain JSON types: two calls with equal states give equal labels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vemseg.errors import OutputExistsError
from vemseg.pipeline.common import log
from vemseg.run import lock, read_json, sidecar, unlock, write_json
from vemseg.volume.publish import remove

LABELS, LOCK = "labels", ".lock"
"""In the partial directory: the store that grows, and the file whose lock keeps other processes out."""


@contextlib.contextmanager
def alone_in(partial: Path, out: Path) -> Iterator[None]:
    """Keep other processes out of a partial directory; leave none behind where nothing was achieved.

    Raises
    ------
    OutputExistsError
        Where another process is at work there.
    """
    held = lock(partial / LOCK, f"another process writes {out}")
    try:
        yield
    except BaseException:
        if not (partial / LABELS).exists():
            remove(partial)
        raise
    finally:
        unlock(held)


def done_already(out: Path, partial: Path, state: dict[str, Any]) -> bool:
    """Tell whether an output made with this state is there; refuse one made otherwise.

    Raises
    ------
    OutputExistsError
        Naming the settings that differ, or that a replacement of the output was begun.
    """
    if not out.exists():
        return False
    if (partial / LABELS).exists():
        raise OutputExistsError(f"{out} exists and is being replaced in {partial}: -f goes on with that")
    before = read_json(sidecar(out)).get("state") if sidecar(out).exists() else None
    if before == state:
        return True
    raise OutputExistsError(
        f"{out} exists and {_difference(before, state)}: give another -o, or -f to replace it"
    )


def take_up(partial: Path, state: dict[str, Any], overwrite: bool) -> None:
    """Begin in the partial directory, or go on there if it was begun with the same settings.

    Raises
    ------
    OutputExistsError
        Where it was begun with other settings and ``overwrite`` is not set.
    """
    marker = partial / "state.json"
    before = read_json(marker) if marker.exists() else None
    if before == state:
        log.info("going on in %s", partial)
        return
    if before is not None and not overwrite:
        raise OutputExistsError(
            f"{partial} was begun earlier and {_difference(before, state)}: -f starts again"
        )
    for entry in partial.iterdir() if partial.exists() else ():
        if entry.name != LOCK:
            remove(entry)
    write_json(marker, state)


def _difference(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
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
