"""How far a command is: a bar on a terminal, a line now and then elsewhere.

Both are told ``(stage, fraction, detail)`` by the pipeline, at whatever pace it works.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vemseg.cli.words import ProgressStyle
from vemseg.context import Report, silent

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 30.0
"""The longest time without a plain line in the first ten minutes; later, a twentieth of the time so far."""

LINE_FRACTION = 0.05
"""The share of a stage that is worth another plain line."""

SHORTEST_SECONDS = 2.0
"""The shortest time between two plain lines of one stage."""

RUSH_SECONDS = 0.05
"""Reports that follow each other faster than this at the start of a stage tell of work that an earlier run
has done."""


class Pace:
    """Estimate the time a stage still needs from the pace of its reports.

    What was done before, by an earlier run that is being resumed, comes in a rush at the start and does not
    count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reference: tuple[float, float] | None = None
        self._last = 0.0
        self._rushing = True

    def seconds_left(self, fraction: float) -> float | None:
        """Take note of a report; return the seconds left, None as long as nothing can be said."""
        now = self._clock()
        self._rushing = self._rushing and (self._reference is None or now - self._last < RUSH_SECONDS)
        self._last = now
        if self._rushing or self._reference is None:
            self._reference = now, fraction
            return None
        began, before = self._reference
        return None if fraction <= before else (now - began) / (fraction - before) * (1.0 - fraction)


class PlainLines:
    """One flushed line per step of progress; for logs.

    Parameters
    ----------
    write : callable
        Takes a line.
    clock : callable
        Returns seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._stage, self._pace = "", Pace(clock)
        self._finished = clock()
        self._began, self._shown = self._finished, (self._finished, 0.0)

    def __call__(self, stage: str, fraction: float, detail: str = "") -> None:
        """Write a line if there is enough to say."""
        now = self._clock()
        if stage != self._stage:
            self._stage, self._pace = stage, Pace(self._clock)
            self._began, self._shown = self._finished, (self._finished, 0.0)
        left = self._pace.seconds_left(fraction)
        since, gained = now - self._shown[0], fraction - self._shown[1]
        silence = max(LINE_SECONDS, (now - self._began) / 20)
        if fraction >= 1.0:
            self._finished = now
            self._say(stage, fraction, detail, f"took {words(now - self._began)}")
        elif since >= silence or (since >= SHORTEST_SECONDS and gained >= LINE_FRACTION):
            self._shown = now, fraction
            self._say(stage, fraction, detail, "" if left is None else f"{words(left)} left")

    def _say(self, stage: str, fraction: float, *rest: str) -> None:
        self._write(
            f"{stage} {int(fraction * 100):3d} %  {', '.join(part for part in rest if part)}".rstrip()
        )


@contextmanager
def showing(style: ProgressStyle, console: Console) -> Iterator[Report]:
    """Yield what the pipeline reports to.

    Parameters
    ----------
    style : ProgressStyle
        ``auto`` is a bar where ``console`` is a terminal.
    console : Console
        The console of standard error.
    """
    if style is ProgressStyle.auto:
        style = (
            ProgressStyle.rich
            if console.is_terminal and not console.is_dumb_terminal
            else ProgressStyle.plain
        )
    if style is ProgressStyle.none:
        yield silent
    elif style is ProgressStyle.plain:
        yield PlainLines(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
    else:
        with _bars(console) as report:
            yield report


@contextmanager
def _bars(console: Console) -> Iterator[Report]:
    """Yield a report that draws a bar per stage; finished ones stay."""
    from rich import progress
    from rich.table import Column
    from rich.text import Text

    class Detail(progress.ProgressColumn):
        """The rest of the line; the only part that is cut where the terminal is narrow."""

        def render(self, task: progress.Task) -> Text:
            """Return what the stage says."""
            return Text(task.fields["detail"], no_wrap=True, overflow="ellipsis")

    rigid = Column(no_wrap=True)
    tasks: dict[str, tuple[progress.TaskID, Pace]] = {}
    with progress.Progress(
        progress.TextColumn("{task.description:<10}", table_column=rigid),
        progress.BarColumn(bar_width=16, table_column=rigid),
        progress.TaskProgressColumn(table_column=rigid),
        progress.TimeElapsedColumn(table_column=rigid),
        Detail(),
        console=console,
    ) as bars:
        starting = bars.add_task("starting", total=None, detail="")

        def report(stage: str, fraction: float, detail: str = "") -> None:
            bars.update(starting, visible=False)
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1.0, detail=""), Pace()
            task, pace = tasks[stage]
            left = pace.seconds_left(fraction)
            rest = "" if left is None or fraction >= 1.0 else f"{words(left)} left"
            bars.update(task, completed=fraction, detail="  ".join(part for part in (rest, detail) if part))

        try:
            yield report
        finally:
            bars.update(starting, visible=False)


def words(seconds: float) -> str:
    """Return a duration as people say it: ``45 s``, ``12 min``, ``2 h 05 min``, ``3 d 4 h``."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"
