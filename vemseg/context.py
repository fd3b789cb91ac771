"""What the work on one command needs to know of its caller and its machine, made once and handed down whole.

A context says where to compute, how much of the machine may be used, whom to tell how far the work is, and
whom to ask whether to stop. It holds no setting that changes a result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from vemseg.resources import memory_budget


class Report(Protocol):
    """A callable that is told how far a stage is: its name, the fraction done (0..1), and a word on it."""

    def __call__(self, stage: str, fraction: float, detail: str = "") -> None:
        """Show it."""


Stopped = Callable[[], bool]
"""A callable that is asked now and then whether to stop."""


def silent(stage: str, fraction: float, detail: str = "") -> None:
    """Show nothing."""


def never() -> bool:
    """Ask for no stop."""
    return False


@dataclass(frozen=True)
class Share:
    """Which blocks of a job a process does: every ``count``-th one from ``index`` on.

    Attributes
    ----------
    index, count : int
        0 .. count - 1, and how many processes share the job; other processes do the rest, now or later.
    """

    index: int = 0
    count: int = 1

    @property
    def whole(self) -> bool:
        """Whether this process does all blocks."""
        return self.count == 1

    def numbers(self, total: int) -> range:
        """Return the numbers of the blocks, of ``total``."""
        return range(self.index, total, self.count)


@dataclass(frozen=True)
class Context:
    """Device, threads and memory to use, and how progress and stopping are passed on.

    Attributes
    ----------
    device : str
        "auto", "cpu", "cuda", "cuda:1" or "mps"; "auto" takes the first GPU that can be used.
    threads : int or None
        Threads to compute with; None takes as many as there are usable cores.
    memory : int or None
        Bytes this process may occupy; None takes a share of what is free.
    report : Report
        Told how far the work is.
    stopped : callable
        Asked now and then whether to stop.
    offline : bool
        Whether the network must not be touched.
    executor : str
        Who does the blocks of a volume (see ``blocks.EXECUTORS``).
    share : Share
        The part of the blocks that this process does.
    processes : int or None
        How many processes do the blocks; None for one process for each GPU that can be used.
    devices : tuple of str
        The device of each of these processes, once that is settled.
    cluster : str or None
        The Dask cluster that does the blocks: "local", "slurm", the address of a scheduler, or the JSON file
        in which the scheduler says where it is.
    """

    device: str = "auto"
    threads: int | None = None
    memory: int | None = None
    report: Report = silent
    stopped: Stopped = never
    offline: bool = False
    executor: str = "here"
    share: Share = Share()
    processes: int | None = None
    devices: tuple[str, ...] = ()
    cluster: str | None = None

    @property
    def limit(self) -> int:
        """The bytes this process may occupy."""
        return self.memory or memory_budget()

    @property
    def gathers(self) -> bool:
        """Whether nothing is computed, and only what other processes did is put together."""
        return self.executor == "gather"

    @property
    def alone(self) -> bool:
        """Whether this process does every block."""
        return self.share.whole and self.executor == "here"

    @property
    def afterwards(self) -> Context:
        """The context for what is left to compute once all blocks are gathered: here, where this gathers."""
        return replace(self, executor="here") if self.gathers else self

    @property
    def on_cores(self) -> Context:
        """The context for work on the CPU that ``processes`` of this machine share, if any."""
        if self.processes in (None, 1) or self.executor != "here":
            return self
        return replace(self, executor="processes", devices=("cpu",) * (self.processes or 1))

    def part(self, index: int, count: int) -> Context:
        """Return the context for the work on one of ``count`` things: its progress is a part of the whole."""

        def report(stage: str, fraction: float, detail: str = "") -> None:
            self.report(stage, (index + fraction) / count, detail)

        return replace(self, report=report)
