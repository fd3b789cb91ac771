"""Which axes of a stored array are z, y and x, and which entry of all others is read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vemseg.errors import InputError, UsageError
from vemseg.foreign import quoted
from vemseg.geometry import ZYX
from vemseg.volume.frame import UNNAMED, axis_name

_log = logging.getLogger("vemseg")

_WORDS = {"c": ("channel", "channels", "--channel"), "t": ("time point", "time points", "--time")}


@dataclass(frozen=True)
class Choice:
    """What a user says of an array with more to choose from than one volume, as texts.

    Attributes
    ----------
    channel : str or None
        The number of a channel from 0, or its name.
    time : str or None
        The number of a time point from 0.
    level : str or None
        A level of a pyramid: its number, 0 for the finest, or its name.
    axes : str or None
        What the axes of the array are, a letter each: ``czyx``.
    """

    channel: str | None = None
    time: str | None = None
    level: str | None = None
    axes: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """What was said, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def refuse(self, *names: str, where: object) -> None:
        """Refuse choices where there is nothing to choose.

        Raises
        ------
        UsageError
            Where one of ``names`` was given.
        """
        if given := [name for name in names if name in self.given]:
            raise UsageError(f"{where} has no choice of {given[0]}: leave --{given[0]} out")


@dataclass(frozen=True)
class Layout:
    """How a volume lies in an array.

    Attributes
    ----------
    names : tuple of str
        The axes of the array: z, y, x, c, t, or others of length 1.
    fixed : mapping of int to int
        The entry that is read along each axis other than z, y, x.
    """

    names: tuple[str, ...]
    fixed: Mapping[int, int] = field(default_factory=dict)

    @property
    def zyx(self) -> ZYX:
        """Which axes of the array are z, y, x; -1 where there is none (a single plane)."""
        z, y, x = (self.names.index(axis) if axis in self.names else -1 for axis in "zyx")
        return z, y, x


def lay_out(
    shape: Sequence[int],
    candidates: Sequence[tuple[str, ...]],
    choice: Choice,
    where: object,
    channels: Sequence[str] = (),
) -> Layout:
    """Return how a volume lies in an array.

    Parameters
    ----------
    shape : sequence of int
        Of the array.
    candidates : sequence of tuples of str
        The names of the axes as different metadata give them, the most trusted first, () where one gives
        none; names as ``axis_name`` returns them.
    choice : Choice
        Its axes overrule all metadata.
    where : object
        What messages call the array.
    channels : sequence of str
        Names of the channels, for messages and for ``choice.channel``.

    Raises
    ------
    InputError
        Where the axes are not understood, or there are several channels or time points and none was chosen.
    UsageError
        Where something was chosen that is not there.
    """
    names = _names(shape, candidates, choice, where)
    fixed = {}
    for i, (name, n) in enumerate(zip(names, shape, strict=True)):
        if name in ("c", "t"):
            told = choice.channel if name == "c" else choice.time
            fixed[i] = entry(name, n, told, where, channels if name == "c" else ())
        elif name not in ("z", "y", "x"):
            fixed[i] = 0
    missing = [option for axis, option in (("c", "channel"), ("t", "time")) if axis not in names]
    choice.refuse(*missing, where=where)
    return Layout(names, fixed)


def _names(
    shape: Sequence[int], candidates: Sequence[tuple[str, ...]], choice: Choice, where: object
) -> tuple[str, ...]:
    """Return the name of each axis, from what the user says or from the metadata."""
    if choice.axes is not None:
        return _told(choice.axes, len(shape), where)
    named = [names for names in candidates if names]
    fitting = [names for names in named if len(names) == len(shape)]
    if named and not fitting:
        raise InputError(
            f"{where} has {len(shape)} axes, but its metadata name {quoted(', '.join(named[0]))}: "
            f"say what they are, such as {_example(len(shape))}"
        )
    if not fitting:
        if not 2 <= len(shape) <= len(UNNAMED):
            raise InputError(f"{where} has {len(shape)} axes: a volume has z, y, x")
        return UNNAMED[-len(shape) :]
    names = next((names for names in fitting if _understood(names, shape)), fitting[0])
    if _understood(names, shape):
        return names
    if len(shape) <= 3 and not set(names) & set(UNNAMED):
        default = UNNAMED[-len(shape) :]
        _log.warning(
            "%s calls its axes %s: taken as %s (--axes says otherwise)",
            where, ", ".join(names), ", ".join(default),
        )  # fmt: skip
        return default
    raise InputError(
        f"{where} calls its axes {quoted(', '.join(names))}, which do not tell z, y, x: "
        f"say what they are, such as {_example(len(shape))}"
    )


def _told(text: str, n: int, where: object) -> tuple[str, ...]:
    letters = tuple(axis_name(letter) for letter in (text.split(",") if "," in text else text.strip()))
    if len(letters) != n:
        raise UsageError(f"--axes {text} names {len(letters)} axes, but {where} has {n}")
    if not set(letters) <= set(UNNAMED) or len(set(letters)) != n or not {"y", "x"} <= set(letters):
        raise UsageError(f"--axes {text} does not tell the axes: use each of z, y, x, c, t once at most")
    return letters


def _understood(names: tuple[str, ...], shape: Sequence[int]) -> bool:
    """Tell whether names are clear: y and x are among them, each once, and all long axes are known."""
    long = [name for name, n in zip(names, shape, strict=True) if n > 1]
    return {"y", "x"} <= set(names) and len(set(names)) == len(names) and set(long) <= set(UNNAMED)


def entry(axis: str, n: int, told: str | None, where: object, channels: Sequence[str]) -> int:
    """Return which entry is read along an axis of channels or time points.

    Parameters
    ----------
    axis : str
        "c" or "t".
    n : int
        Its length.
    told : str or None
        What the user says: a number from 0, or the name of a channel.
    where : object
        What messages call the array.
    channels : sequence of str
        Names of the channels.

    Raises
    ------
    InputError
        Where there are several and none was chosen, or none at all.
    UsageError
        Where one was chosen that is not there.
    """
    one, many, option = _WORDS[axis]
    if n == 0:
        raise InputError(f"{where} holds no voxels: it has 0 {many}")
    known = [f"{i} {channels[i]}" if i < len(channels) else str(i) for i in range(min(n, 8))]
    listed = quoted(", ".join(known)) + (" ..." if n > 8 else "")
    if told is None and n > 1:
        raise InputError(f"{where} has {n} {many} ({listed}): choose one with {option} 0")
    if told is None:
        return 0
    if told in channels:
        return list(channels).index(told)
    if not told.isdecimal() or int(told) >= n:
        there = "the only one is" if n == 1 else "there are"
        raise UsageError(f"{option} {told}: {where} has no such {one}; {there} {listed}")
    return int(told)


def _example(n: int) -> str:
    return (
        f"--axes {''.join(UNNAMED[-n:])}" if n <= len(UNNAMED) else "--axes zyx of an array with three axes"
    )
