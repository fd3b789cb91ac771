"""Work done block by block: read, compute, write, each while its neighbours' other stages go on.

While one block is computed in the calling thread, the next one is read in a second thread and the one
before is written in a third; each stage has one block at most. A written block leaves a marker: a small JSON
file with what writing it returned. Blocks that have one are not computed again, so that a killed run goes on
where it was. Markers appear by renaming, so one that is there is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

from vemseg.errors import Interrupted
from vemseg.geometry import Box
from vemseg.run import read_json, write_json

Given = TypeVar("Given")
Made = TypeVar("Made")


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
    """

    read: Callable[[Box], Given]
    compute: Callable[[Box, Given], Made]
    write: Callable[[Box, Made], Any]


def map_blocks(
    stages: Stages[Given, Made],
    blocks: Sequence[Box],
    markers: Path | None,
    report: Callable[[int, int], None],
    stopped: Callable[[], bool],
) -> list[Any]:
    """Read, compute and write each block that has no marker yet.

    When a stage fails or the run is stopped, what is being read is dropped, what is being written is finished
    and marked, and both threads end before this returns.

    Parameters
    ----------
    stages : Stages
        What is done to a block.
    blocks : sequence of Box
        In the order to take them; their numbers name the markers.
    markers : Path or None
        Directory of the markers; made if it is not there. None keeps none: all blocks are computed.
    report : callable
        Told how many of how many voxels are done, in the thread of the caller.
    stopped : callable
        Asked before each block whether to stop.

    Returns
    -------
    list
        What writing returned for every block, now or in an earlier run.

    Raises
    ------
    Interrupted
        Where it was stopped before the last block.
    """
    if markers is None:
        with TemporaryDirectory() as folder:
            try:
                return map_blocks(stages, blocks, Path(folder), report, stopped)
            except Interrupted as stop:
                raise Interrupted(f"{str(stop).partition(':')[0]}: the same command starts again") from None
    markers.mkdir(parents=True, exist_ok=True)
    paths = [markers / f"{i:06d}.json" for i in range(len(blocks))]
    todo = [(block, path) for block, path in zip(blocks, paths, strict=True) if not path.exists()]
    total = sum(block.size for block in blocks)
    done = total - sum(block.size for block, _ in todo)
    report(done, total)
    with closing(_finished(stages, todo, stopped)) as finished:
        for size in finished:
            done += size
            report(done, total)
    if left := sum(not path.exists() for path in paths):
        raise Interrupted(
            f"stopped after {len(blocks) - left} of {len(blocks)} blocks: the same command goes on from there"
        )
    return [read_json(path) for path in paths]


def _finished(
    stages: Stages[Given, Made], todo: Sequence[tuple[Box, Path]], stopped: Callable[[], bool]
) -> Generator[int]:
    """Yield the sizes of blocks as they are written and marked; end early where it is to stop."""

    def store(block: Box, made: Made, marker: Path) -> int:
        write_json(marker, stages.write(block, made))
        return block.size

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        reading: Future[Given] | None = None
        writing: Future[int] | None = None
        for i, (block, marker) in enumerate(todo):
            if stopped():
                break
            given = (reading or reader.submit(stages.read, block)).result()
            reading = reader.submit(stages.read, todo[i + 1][0]) if i + 1 < len(todo) else None
            made = stages.compute(block, given)
            del given
            if writing is not None:
                yield writing.result()
            writing = writer.submit(store, block, made, marker)
            del made
        if writing is not None:
            yield writing.result()
