"""Whether an output is there already, was begun, or is another one: what makes ``segment`` repeatable.

A *state* is what labels depend on, as plain JSON types: two calls with equal states give equal labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vemseg.errors import OutputExistsError
from vemseg.pipeline.common import log
from vemseg.run import read_json, sidecar, write_json
from vemseg.volume.publish import remove


def done_already(out: Path, state: dict[str, Any]) -> bool:
    """Tell whether an output made with this state is there; refuse one made otherwise.

    Raises
    ------
    OutputExistsError
        Naming the settings that differ.
    """
    if not out.exists():
        return False
    before = read_json(sidecar(out)).get("state") if sidecar(out).exists() else None
    if before == state:
        return True
    raise OutputExistsError(
        f"{out} exists and {_difference(before, state)}: give another -o, or -f to replace it"
    )


def take_up(partial: Path, state: dict[str, Any], overwrite: bool) -> None:
    """Begin in the partial directory, or go on there if it was begun with the same settings."""
    marker = partial / "state.json"
    if overwrite or not marker.exists():
        remove(partial)
        write_json(marker, state)
    elif (before := read_json(marker)) != state:
        raise OutputExistsError(
            f"{partial} was begun earlier and {_difference(before, state)}: -f starts again"
        )
    else:
        log.info("going on in %s", partial)


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
