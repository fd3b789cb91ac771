"""Work on a volume that any process can do block by block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from vemseg.context import Context
from vemseg.geometry import Box

Given = TypeVar("Given")
Made = TypeVar("Made")

Result = list[int] | None
"""What writing a block returns: plain JSON, which its marker keeps."""


Marked = Callable[[int], bool]
"""Takes the number of a block and tells whether that block is written."""


def nothing_more(box: Box, marked: Marked) -> None:
    """Do nothing."""


def marker(folder: Path, number: int) -> Path:
    """Return the file of a folder that says that a block is written."""
    return folder / f"{number:06d}.json"


@dataclass(frozen=True)
class Stages(Generic[Given, Made]):
    """What is done to a block.

    Attributes
    ----------
    read : callable
        Returns what is needed to compute a block; called in a thread of its own, one block ahead.
    compute : callable
        Turns it into what is to be written; called in the thread of the caller.
    write : callable
        Stores it and returns plain JSON types; called in a third thread, one block behind.
    then : callable
        Does what can be done once a block is written and marked; called in the third thread too. Nothing may
        rely on it: where a process was killed before the call, the work is made good at the end.
    """

    read: Callable[[Box], Given]
    compute: Callable[[Box, Given], Made]
    write: Callable[[Box, Made], Result]
    then: Callable[[Box, Marked], None] = nothing_more


@dataclass(frozen=True)
class Job(ABC, Generic[Given, Made]):
    """Paths and settings of work that any process can do block by block.

    A job holds no open file and no model, so it can be pickled. Every block is written to files of its own
    (whole shards), so processes that share the blocks of a job do not meet.

    Attributes
    ----------
    boxes : tuple of Box
        The blocks; their numbers name the markers.
    markers : Path
        Directory in which each block that is written leaves a marker.
    stage : str
        What reports call the work, such as "segmenting".
    counted : str
        Format of the progress text, for the millions done and the millions in all, such as
        "{:.1f}/{:.1f} Mvoxel".
    """

    boxes: tuple[Box, ...]
    markers: Path
    stage: str
    counted: str

    def marker(self, number: int) -> Path:
        """Return where a block leaves its marker."""
        return marker(self.markers, number)

    @abstractmethod
    def open(self, context: Context) -> Stages[Given, Made]:
        """Open volume, model and output, and return how a block is read, computed and written."""
