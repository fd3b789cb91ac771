"""The texts of options, turned into values.

A text that cannot be parsed raises ``UsageError``, whose message shows how to write one.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category

from vemseg.cli.words import BackgroundKind
from vemseg.context import Share
from vemseg.errors import UsageError
from vemseg.foreign import quoted, read_text, reading
from vemseg.geometry import ZYX
from vemseg.names import is_tiff_name, volume_name
from vemseg.resources import parse_bytes, task_of

if TYPE_CHECKING:
    from vemseg.cli.shell import ContextOptions
    from vemseg.volume import Background, Choice
    from vemseg.volume.about import RGB

_log = logging.getLogger("vemseg")

Merged = tuple[tuple[int, ...], str | None]
"""Classes that become one, and its name; None where it keeps the name of one of them."""

MOST_DIGITS = 19
"""Most digits of a label: it has at most 64 bits."""


@dataclass(frozen=True)
class Legend:
    """What a user says of classes: their names, their colours, and which of them are one."""

    names: dict[int, str] = field(default_factory=dict)
    colours: dict[int, RGB] = field(default_factory=dict)
    merges: list[Merged] = field(default_factory=list)


def settings(given: Sequence[str] | None, shortcuts: Mapping[str, object]) -> list[str]:
    """Return settings as ``table.key=value``: those of ``--set``, then those of options of their own."""
    return [*(given or ()), *(f"{key}={value}" for key, value in shortcuts.items() if value is not None)]


def memory(text: str | None) -> int | None:
    """Read ``2GiB`` as bytes (see ``parse_bytes``); None where the option is left out."""
    return None if text is None else parse_bytes(text)


def computing(
    device: str,
    threads: int | None,
    max_memory: str | None,
    offline: bool,
    shard: str | None,
    finalize: bool,
) -> ContextOptions:
    """Return the device, threads, memory and share of the blocks that a command computes with.

    Raises
    ------
    UsageError
        As :func:`sharing`.
    """
    return {"device": device, "threads": threads, **sharing(max_memory, offline, shard, finalize)}


def sharing(max_memory: str | None, offline: bool, shard: str | None, finalize: bool) -> ContextOptions:
    """Return the memory and share of the blocks of a command that has no choice of device and threads.

    Raises
    ------
    UsageError
        Where the text of ``--shard`` names no part (see ``task_of``), or both are asked for.
    """
    if shard is not None and finalize:
        raise UsageError("--shard and --finalize do not go together: finalize once all shards are done")
    return {
        "memory": memory(max_memory),
        "offline": offline,
        "executor": "gather" if finalize else "here",
        "share": Share() if shard is None else Share(*task_of(shard)),
    }


def spread(given: ContextOptions, processes: int | None, cluster: str | None) -> ContextOptions:
    """Return what a command computes with, its blocks shared among processes or done by a Dask cluster.

    Raises
    ------
    UsageError
        Where somebody else is to do the blocks already, or has done them.
    """
    if given["executor"] != "here" and (processes or cluster):
        raise UsageError("--finalize computes nothing: leave out --processes and --dask")
    if cluster is None:
        return {**given, "processes": processes}
    if not given["share"].whole:
        raise UsageError("--shard and --dask do not go together: Dask divides the blocks itself")
    return {**given, "processes": processes, "executor": "dask", "cluster": cluster}


def duration(text: str) -> float:
    """Read ``90s``, ``20min``, ``1h30``, ``2d`` or ``23:30`` (hours:minutes) as seconds."""
    clock = re.fullmatch(r"(\d+):([0-5]\d)", text.strip())
    units = re.fullmatch(
        r"(?:(?P<d>[\d.]+)d)?(?:(?P<h>[\d.]+)h(?:(?P<rest>\d+)$)?)?(?:(?P<m>[\d.]+)m(?:in)?)?(?:(?P<s>[\d.]+)s)?",
        re.sub(r"\s", "", text.lower()),
    )
    try:
        if clock:
            seconds = int(clock[1]) * 3600.0 + int(clock[2]) * 60.0
        else:
            parts = {} if units is None else {unit: float(n) for unit, n in units.groupdict("0").items()}
            weights = {"d": 86400.0, "h": 3600.0, "m": 60.0, "rest": 60.0, "s": 1.0}
            seconds = sum(n * weights[unit] for unit, n in parts.items())
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise UsageError(f"'{text}' is not a time: write 90s, 20min, 1h30, 2d or 23:30 (hours:minutes)")
    return seconds


def shape(text: str) -> ZYX:
    """Read ``z,y,x``, or one number for a cube."""
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"'{text}' is not a shape: write z,y,x in voxels, such as 64,256,256, or one number")
    z, y, x = (int(part) for part in (parts if len(parts) == 3 else parts * 3))
    return z, y, x


def choice(channel: str | None, time: str | None, level: str | None, axes: str | None) -> Choice:
    """Return which channel, time and level to read of a file that holds several, and its order of axes."""
    from vemseg.volume import Choice

    return Choice(channel, time, level, axes)


def background(kind: BackgroundKind, mask: str | None) -> Background:
    """Return which voxels show nothing."""
    from vemseg.volume import Background

    return Background(kind is BackgroundKind.auto, mask)


def ids(text: str | None) -> list[int]:
    """Read ``0,-1`` as label values."""
    return [_label(part.strip(), text or "") for part in text.split(",")] if text else []


def words(text: str) -> list[str]:
    """Read ``a,b`` as its words, each once."""
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise UsageError(f"'{text}' is not a list of names: write a,b")
    return found


def classes(k: str | None, k_range: str | None) -> dict[str, object]:
    """Read ``-k 6``, ``-k auto`` or ``--k-range 4:12`` as settings of a recipe.

    Raises
    ------
    UsageError
        Also where both options are given.
    """
    if k is not None and k_range is not None:
        raise UsageError("-k and --k-range do not go together: give a number of classes, or a range of them")
    ends = k_range.split(":") if k_range else []
    if k_range is not None and not (len(ends) == 2 and all(end.strip().isdecimal() for end in ends)):
        raise UsageError(f"'{k_range}' is not a range: write 4:12, the smaller number first")
    return {"cluster.k": k, "cluster.k_range": [int(end) for end in ends] or None}


def names(text: str | None) -> dict[int, str] | None:
    """Read ``1=nucleus,2=mitochondria``, or a file of them: TOML, JSON or CSV.

    Of a file that also says which classes are one, only the names count, and this is said.
    """
    found = legend(text)
    if found is not None and found.merges:
        _log.info("%s: names are taken; 'vemseg refine LABELS --names %s' merges classes", text, text)
    return None if found is None else found.names


def legend(text: str | None) -> Legend | None:
    """Read what :func:`names` reads, and the colours and merges that a file of names may hold."""
    if text is None:
        return None
    if "=" not in text:
        return _legend_in(Path(text))
    return Legend(_by_label(_pairs(text, "1=nucleus,2=mitochondria"), text))


def mapping(text: str | None) -> dict[int, int] | None:
    """Read ``1=2,3=2``: labels 1 and 3 are class 2."""
    if text is None:
        return None
    pairs = _by_label(_pairs(text, "1=2,3=2"), text)
    return {label: _label(value, text) for label, value in pairs.items()}


def merges(given: Sequence[str] | None) -> list[Merged]:
    """Read ``2,5=mitochondrion`` as classes that become one, and its name; the name may be left out."""
    found = []
    for text in given or ():
        members, named, name = text.partition("=")
        numbers = tuple(dict.fromkeys(ids(members)))
        if len(numbers) < 2 or (named and not name.strip()):
            raise UsageError(f"'{quoted(text)}' is not a merge: write 2,5=mitochondrion, or 2,5")
        found.append((numbers, name.strip() or None))
    return found


def least(text: str | None) -> tuple[float, bool] | None:
    """Read ``500`` as voxels, or ``0.01um3`` as a volume in µm³: the number, and whether it is a volume."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(voxels?|[uµ]m(?:\^?3|³))?\s*", text)
    cubic = found is not None and found[2] is not None and not found[2].startswith("voxel")
    if found is None or float(found[1]) <= 0 or not (cubic or float(found[1]).is_integer()):
        raise UsageError(f"'{quoted(text)}' is not a size: write 500 (voxels) or 0.01um3")
    return float(found[1]), cubic


def threshold(text: str, measures: Sequence[str]) -> tuple[str, float]:
    """Read ``dice=0.6`` as a measure and a value between 0 and 1."""
    measure, _, value = (part.strip().lower() for part in text.partition("="))
    try:
        limit = float(value)
    except ValueError:
        limit = -1.0
    if measure not in measures or not 0 <= limit <= 1:
        raise UsageError(f"'{text}' is not a threshold: write dice=0.6, with one of {', '.join(measures)}")
    return measure, limit


def default_labels(path: str) -> Path:
    """Return where labels go if ``-o`` is left out: the current folder, under a name that the input gives.

    TIFF stays TIFF; all else becomes OME-Zarr. The place inside a Zarr hierarchy is part of the name:
    ``cell.zarr/em/s2`` becomes ``cell-em-s2_seg.ome.zarr``. Dashes before the name are left out: the next
    command would take such a name for an option.
    """
    suffix = ".tif" if is_tiff_name(Path(path)) else ".ome.zarr"
    return Path(f"{volume_name(Path(path)).lstrip('-') or 'volume'}_seg{suffix}")


def _pairs(text: str, example: str) -> list[tuple[str, str]]:
    found = []
    for part in text.split(","):
        key, separator, value = (piece.strip() for piece in part.partition("="))
        if not (separator and key and value):
            raise UsageError(f"'{text}' is not a list of pairs: write {example}")
        found.append((key, value))
    return found


def _label(text: str, whole: str) -> int:
    if re.fullmatch(rf"-?[0-9]{{1,{MOST_DIGITS}}}", text) is None:
        raise UsageError(
            f"'{quoted(text)}' in '{quoted(whole)}' is not a label: labels are whole numbers, such as 5 or -1"
        )
    return int(text)


def _by_label(pairs: Iterable[tuple[str, str]], whole: str) -> dict[int, str]:
    """Return what each label is given, which is one thing."""
    found: dict[int, str] = {}
    for key, value in pairs:
        label = _label(key, whole)
        if label in found:
            raise UsageError(f"'{quoted(whole)}' has label {label} twice: leave one of them out")
        if not value.strip() or any(category(sign) == "Cc" for sign in value):
            raise UsageError(f"'{quoted(whole)}': {value!r} is no name for label {label}")
        found[label] = value
    return found


def _legend_in(path: Path) -> Legend:
    """Read the names of labels in a file, as its ending says: TOML, JSON, or a table of two columns."""
    complaint = (
        f'cannot read names from {path} (write TOML, 1 = "nucleus", JSON, {{"1": "nucleus"}}, '
        "or CSV, 1,nucleus)"
    )
    text = read_text(path, complaint, UsageError).removeprefix("\ufeff")
    with reading(complaint, UsageError):
        table = _NAME_FILES.get(path.suffix.lower(), tomllib.loads)(text)
    if not isinstance(table, dict):
        raise UsageError(f'{path}: each line gives a label its name, such as 1 = "nucleus"')
    merges, colours = table.pop("merge", []), table.pop("colours", {})
    if not all(isinstance(value, str) for value in table.values()):
        raise UsageError(f'{path}: each line gives a label its name, such as 1 = "nucleus"')
    named = _by_label(table.items(), str(path))
    return Legend(named, _colours(colours, path), _groups(merges, path))


def _colours(table: object, path: Path) -> dict[int, RGB]:
    """Read ``[colours]`` of a file of names."""
    found: dict[int, RGB] = {}
    for key, value in table.items() if isinstance(table, dict) else [("colours", None)]:
        if not isinstance(value, str) or re.fullmatch("#[0-9a-fA-F]{6}", value) is None:
            raise UsageError(f'{path}: [colours] gives a label its colour, such as 1 = "#e69f00"')
        red, green, blue = bytes.fromhex(value[1:])
        found[_label(str(key), str(path))] = red, green, blue
    return found


def _groups(lists: object, path: Path) -> list[Merged]:
    """Read ``merge`` of a file of names."""
    found: list[Merged] = []
    for group in lists if isinstance(lists, list) else [lists]:
        numbers = group if isinstance(group, list) else []
        if len(set(map(repr, numbers))) < 2 or not all(type(number) is int for number in numbers):
            raise UsageError(f"{path}: merge lists the labels that are one, such as merge = [[2, 5], [3, 4]]")
        found.append((tuple(dict.fromkeys(numbers)), None))
    return found


def _named_columns(text: str) -> dict[str, str]:
    """Read a table of two columns, the label and its name, with or without a line of heads.

    Raises
    ------
    ValueError
        Where a line has no label.
    """
    dialect = csv.Sniffer().sniff(text, delimiters=",;\t")
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), dialect) if any(row)]
    if rows and not re.fullmatch(r"-?\d+", rows[0][0]):
        rows = rows[1:]
    if short := [row for row in rows if len(row) < 2]:
        raise ValueError(f"the line '{short[0][0]}' has no second column")
    if twice := [row[0] for i, row in enumerate(rows) if row[0] in {other[0] for other in rows[:i]}]:
        raise ValueError(f"it has label {twice[0]} twice")
    return {row[0]: row[1] for row in rows}


_NAME_FILES: Mapping[str, Callable[[str], object]] = {
    ".json": json.loads,
    ".csv": _named_columns,
    ".tsv": _named_columns,
    ".txt": _named_columns,
}
"""How files of names are read, by their endings; any other is TOML."""
