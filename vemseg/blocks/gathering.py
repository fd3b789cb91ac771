"""The end of a job whose blocks other processes did: nothing is computed, their results are put together."""

from __future__ import annotations

from pathlib import Path

from vemseg.blocks.job import Given, Job, Made, Result, Stages
from vemseg.context import Context
from vemseg.errors import MissingError
from vemseg.run import read_json


def must_be_begun(there: Path, context: Context) -> None:
    """Refuse to gather an output that no task has begun; otherwise gathering would begin it.

    Parameters
    ----------
    there : Path
        What the task that comes first makes in the folder of the output.
    context : Context

    Raises
    ------
    MissingError
        Where the context gathers, and ``there`` does not exist.
    """
    if context.gathers and not there.exists():
        raise MissingError(f"nothing is begun in {there.parent}: run the tasks with --shard first")


def run(job: Job[Given, Made], context: Context, stages: Stages[Given, Made] | None = None) -> list[Result]:
    """Return what writing returned for each block.

    Raises
    ------
    MissingError
        Where a block is not written yet.
    """
    paths = [job.marker(number) for number in range(len(job.boxes))]
    if missing := [number for number, path in enumerate(paths) if not path.exists()]:
        raise MissingError(
            f"{len(missing)} of {len(paths)} blocks are not done yet, the first is block {missing[0]}: run "
            "the tasks again that did not end, or leave out --finalize to do the rest here"
        )
    return [read_json(path) for path in paths]
