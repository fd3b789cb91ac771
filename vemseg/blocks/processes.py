"""Do a job in several processes of this machine, one for each device: as a rule one for each GPU.

Every process opens the job for itself and does its share of the blocks as :mod:`vemseg.blocks.here` does.
This one counts the markers, so progress is that of all. A process that is killed ends the others, and what
they have written stays.
"""

from __future__ import annotations

import logging
import multiprocessing
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

from vemseg.blocks import here
from vemseg.blocks.job import Given, Job, Made, Result, Stages
from vemseg.context import Context, Share, never, silent
from vemseg.errors import Interrupted, ResourceError
from vemseg.run import led_by_parent, read_json

PAUSE = 0.2
"""Seconds between two looks at how far the others are."""

_stop: Event | None = None
"""Set in the processes that do the blocks; it says whether they are to stop."""


def run(job: Job[Given, Made], context: Context, stages: Stages[Given, Made] | None = None) -> list[Result]:
    """Do the blocks of a job that have no marker yet, each on one of the devices of the context.

    Raises
    ------
    Interrupted
        Where the work was stopped before the last block.
    ResourceError
        Where one of the processes was killed.
    """
    chosen = context.share.numbers(len(job.boxes))
    todo = [number for number in chosen if not job.marker(number).exists()]
    devices = context.devices[: len(todo)]
    if len(devices) < 2:
        return here.run(job, context, stages)
    spawn = multiprocessing.get_context("spawn")  # a process with threads must not be forked
    stop = spawn.Event()
    with ProcessPoolExecutor(len(devices), spawn, initializer=_begin, initargs=(stop,)) as pool:
        given = replace(context, report=silent, stopped=never, share=Share())
        futures = [
            pool.submit(_share, job, replace(given, device=device), todo[index :: len(devices)])
            for index, device in enumerate(devices)
        ]
        try:
            _watch(job, context, futures, chosen, stop)
        except BrokenProcessPool:
            raise ResourceError(
                "a process that did blocks was killed, perhaps because the memory was full: the same command "
                "goes on, with fewer --processes if it happens again"
            ) from None
        finally:
            stop.set()
    return [read_json(job.marker(number)) for number in chosen]


def _watch(
    job: Job[Given, Made], context: Context, futures: list[Future[None]], chosen: Sequence[int], stop: Event
) -> None:
    """Report what is done until all processes have ended; stop them where this one is to stop."""
    total, waiting = sum(job.boxes[number].size for number in chosen), set(futures)
    left = {job.marker(number): job.boxes[number].size for number in chosen}
    while waiting:
        ended, waiting = wait(waiting, PAUSE)
        if context.stopped():
            stop.set()
        for future in ended:
            future.result()
        done = total - _drop_written(left)
        context.report(job.stage, done / total, job.counted.format(done / 1e6, total / 1e6))
    if left:
        raise here.stopped_after(len(chosen) - len(left), len(chosen))


def _drop_written(left: dict[Path, int]) -> int:
    """Forget the blocks that are written; return how many voxels are left."""
    for path in [path for path in left if path.exists()]:
        del left[path]
    return sum(left.values())


def _begin(stop: Event) -> None:
    global _stop
    _stop = stop
    led_by_parent()
    logging.disable()  # the process that watches has said what there is to say of the inputs
    warnings.simplefilter("ignore")


def _share(job: Job[Given, Made], context: Context, numbers: Sequence[int]) -> None:
    """Do some blocks in a process of its own, until the first one says to stop."""
    assert _stop is not None
    try:
        here.run(job, replace(context, stopped=_stop.is_set), numbers=numbers)
    except Interrupted:  # the process that watches says so
        return
