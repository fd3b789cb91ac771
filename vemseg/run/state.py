"""The state of a result: what it depends on. The same state gives the same result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vemseg.run.files import Json
from vemseg.run.fingerprint import Record, fingerprint, is_there, same

State = Json
"""Settings as plain JSON types, and, under ``INPUTS``, what was read."""

INPUTS = "inputs"
"""Key of a state: the fingerprints of the inputs, in order."""

_NOTHING = object()
"""Stands for a setting that a state does not have."""


def state_of(settings: State, inputs: Sequence[Path]) -> State:
    """Return the state of a result that is made now.

    Raises
    ------
    InputError
        Where an input is not there, or cannot be read.
    """
    return settings | {INPUTS: [fingerprint(path) for path in inputs]}


def is_made_of(made: State, settings: State, inputs: Sequence[Path]) -> bool:
    """Tell whether a state has these settings, and inputs of the content that these have now."""
    known = _known(made)
    return (
        {key: value for key, value in made.items() if key != INPUTS} == settings
        and len(known) == len(inputs)
        and all(map(same, known, inputs))
    )


def changed(made: State, inputs: Sequence[Path]) -> Iterator[Path]:
    """Yield the inputs of a state that have another content by now, or are gone."""
    for known, path in zip(made[INPUTS], inputs, strict=True):
        if not is_there(path) or not same(known, path):
            yield path


def difference(before: State | None, now: State, inputs: Sequence[Path]) -> str:
    """Say in what two states differ: the first few settings by name, or the inputs that have changed.

    Parameters
    ----------
    before : mapping or None
        The state of what is there.
    now : mapping
        The state that is asked for, without its inputs.
    inputs : sequence of Path
        Its inputs.
    """
    if before is None:
        return "does not say how it was made"
    was, wanted = (dict(_entries(state)) for state in (before, now))
    keys = [key for key in {**wanted, **was} if was.get(key, _NOTHING) != wanted.get(key, _NOTHING)]
    shown = [
        f"{key} {_short(was.get(key, _NOTHING))} there, {_short(wanted.get(key, _NOTHING))} now"
        for key in keys[:3]
    ]
    known = _known(before)
    if len(known) != len(inputs):
        names = {Path(str(old.get("path"))).name for old in known}
        added = [path.name for path in inputs if path.name not in names]
        counts = f"{len(known)} inputs there, {len(inputs)} now"
        shown.append(f"without {', '.join(added[:3])}" if known and added else counts)
    elif changed := [path.name for old, path in zip(known, inputs, strict=True) if not same(old, path)]:
        shown.append(f"{', '.join(changed[:3])} had another content")
    return f"was made otherwise ({'; '.join(shown)})"


def _known(made: State) -> list[Record]:
    """Return the fingerprints in a state that was read from a file; what is none counts as one of nothing."""
    found = made.get(INPUTS)
    return [one if isinstance(one, dict) else {} for one in found] if isinstance(found, list) else []


def _entries(state: Mapping[str, object], table: str = "") -> Iterator[tuple[str, object]]:
    """Yield the settings of a state, those of a table within it as ``table.name``; inputs are none."""
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from _entries(value, table if name == "settings" else f"{table}{name}.")
        elif name != INPUTS:
            yield f"{table}{name}", value


def _short(value: object) -> str:
    text = "nothing" if value is _NOTHING else str(value)
    return text if len(text) <= 24 else text[:12] + "…"
