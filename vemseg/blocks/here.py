"""Do a job in this process: read, compute and write its blocks, the three stages at the same time.

While one block is computed in the calling thread, the next one is read in a second thread and the one
before is written in a third; each stage has one block at most. A written block leaves a marker: a small JSON
file with what writing it returned. A block with a marker is not computed again, so a killed run goes on
where it was. Markers appear by renaming, so none is ever incomplete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from vemseg.blocks.job import Given, Job, Made, Result, Stages, marker
from vemseg.context import Context
from vemseg.errors import Interrupted
from vemseg.geometry import Box
from vemseg.run import read_json, write_json

_log = logging.getLogger("vemseg")


def run(
    job: Job[Given, Made],
    context: Context,
    stages: Stages[Given, Made] | None = None,
    numbers: Sequence[int] | None = None,
) -> list[Result]:
    """Do the blocks of a job that have no marker yet.

    Parameters
    ----------
    job : Job
    context : Context
    stages : Stages, optional
        The stages of the job, if the caller has opened it already.
    numbers : sequence of int, optional
        Numbers of the blocks to do here; by default those of the context's share.

    Returns
    -------
    list
        What writing returned for each of these blocks, now or earlier.

    Raises
    ------
    Interrupted
        Where the work was stopped before the last block.
    """

    def progress(done: int, total: int) -> None:
        context.report(job.stage, done / total, job.counted.format(done / 1e6, total / 1e6))

    chosen = context.share.numbers(len(job.boxes)) if numbers is None else numbers
    blocks = {number: job.boxes[number] for number in chosen}
    if not blocks:
        _log.info("there are fewer blocks than tasks: nothing is left to do for this one")
        return []
    return map_blocks(stages or job.open(context), blocks, job.markers, progress, context.stopped)


def map_blocks(
    stages: Stages[Given, Made],
    blocks: Mapping[int, Box],
    markers: Path | None,
    report: Callable[[int, int], None],
    stopped: Callable[[], bool],
) -> list[Result]:
    """Read, compute and write each block that has no marker yet.

    When a stage fails or the run is stopped, what is being read is dropped, what is being written is finished
    and marked, and both threads end before this returns.

    Parameters
    ----------
    stages : Stages
        What is done to a block.
    blocks : mapping of int to Box
        The blocks by number, in the order in which to do them; the numbers name the markers.
    markers : Path or None
        Directory of the markers; made if it is not there. With None, all blocks are computed and no marker
        stays.
    report : callable
        Called in the caller's thread with the number of voxels that are done, and of all voxels.
    stopped : callable
        Called before each block; returns whether to stop.

    Returns
    -------
    list
        What writing returned for every block, now or in an earlier run.

    Raises
    ------
    Interrupted
        Where the work was stopped before the last block.
    """
    with TemporaryDirectory() if markers is None else nullcontext(markers) as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        paths = {number: marker(Path(folder), number) for number in blocks}
        todo = [(blocks[number], path) for number, path in paths.items() if not path.exists()]
        total = sum(block.size for block in blocks.values())
        done = total - sum(block.size for block, _ in todo)
        report(done, total)
        with closing(_finished(stages, todo, stopped)) as finished:
            for size in finished:
                done += size
                report(done, total)
        if left := sum(not path.exists() for path in paths.values()):
            then = "starts again" if markers is None else "goes on from there"
            raise stopped_after(len(blocks) - left, len(blocks), then)
        return [read_json(path) for path in paths.values()]


def stopped_after(done: int, total: int, then: str = "goes on from there") -> Interrupted:
    """Return the error of work that was stopped after some of its blocks; ``then`` is what comes next."""
    return Interrupted(f"stopped after {done} of {total} blocks: the same command {then}")


def _finished(
    stages: Stages[Given, Made], todo: Sequence[tuple[Box, Path]], stopped: Callable[[], bool]
) -> Generator[int]:
    """Yield the sizes of blocks as they are written and marked; end early when the work is to stop."""

    def store(block: Box, made: Made, path: Path) -> int:
        write_json(path, stages.write(block, made), shared=True)
        stages.then(block, lambda number: marker(path.parent, number).exists())
        return block.size

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        reading: Future[Given] | None = None
        writing: Future[int] | None = None
        for i, (block, path) in enumerate(todo):
            if stopped():
                break
            given = (reading or reader.submit(stages.read, block)).result()
            reading = reader.submit(stages.read, todo[i + 1][0]) if i + 1 < len(todo) else None
            made = stages.compute(block, given)
            del given
            if writing is not None:
                yield writing.result()
            writing = writer.submit(store, block, made, path)
            del made
        if writing is not None:
            yield writing.result()
