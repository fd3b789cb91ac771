"""Do a job on the workers of a Dask cluster, which Dask starts here, SLURM starts, or somebody has started.

Each block is one task. A worker opens the job with its first task, keeps it open, and does one block after
the other. Dask gives the blocks of a worker that is lost to others, new workers get blocks as they come, and
a block that ends several workers is given up. Workers that may occupy too little memory are refused, also
where they come later. Written blocks leave markers as they do everywhere, so the same command goes on behind
them.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vemseg.blocks import here
from vemseg.blocks.job import Given, Job, Made, Result, Stages
from vemseg.context import Context, Share, never
from vemseg.errors import MissingError, ResourceError, VemsegError
from vemseg.foreign import library, read_text, reading
from vemseg.geometry import Box
from vemseg.resources import SHARE, available_memory, byte_text, usable_cores
from vemseg.run import read_json

if TYPE_CHECKING:
    from distributed import Client, Future
    from distributed.client import as_completed as AsCompleted
    from distributed.deploy import Cluster

AnyJob = Job[Any, Any]
AnyStages = Stages[Any, Any]

_log = logging.getLogger("vemseg")

NEEDED = "--dask needs Dask"
"""The beginning of the message where Dask is not installed."""

PAUSE = 0.5
"""Seconds between two looks at how far the workers are."""

RETRIES = 2
"""How often a block is tried again after an error of the disk or the network."""

PATIENCE = 60
"""Seconds to wait for a scheduler to answer."""

TURN = 5
"""Seconds that a thread of a worker waits for another one to end its block, before it gives its own back."""

_turn = threading.Lock()
_opened: dict[str, AnyStages] = {}
"""On a worker: the stages of the job that is open, by the ``call`` of the command that it belongs to."""


def run(job: Job[Given, Made], context: Context, stages: Stages[Given, Made] | None = None) -> list[Result]:
    """Do the blocks of a job that have no marker yet.

    Raises
    ------
    InputError
        Where Dask is not installed.
    MissingError
        Where no scheduler answers.
    ResourceError
        Where workers have too little memory, cannot do blocks at all, or a block ended several of them.
    Interrupted
        Where the work was stopped before the last block.
    """
    distributed = _distributed()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here
    todo = [number for number in range(len(job.boxes)) if not job.marker(number).exists()]
    if todo:
        with _client(distributed, context, len(todo)) as client:
            _log.info("Dask shows how far it is at %s", client.dashboard_link)
            there = client.scheduler_info(n_workers=-1)["workers"].values()
            _refuse_small_workers([worker["memory_limit"] for worker in there], context)
            _follow(distributed, client, job, context, todo)
    return [read_json(job.marker(number)) for number in range(len(job.boxes))]


@contextmanager
def _client(distributed: ModuleType, context: Context, blocks: int) -> Iterator[Client]:
    """Yield a client of the cluster that the context names; a cluster that is started here ends with it."""
    if context.cluster in ("local", "slurm"):
        start = _local if context.cluster == "local" else _slurm
        with start(distributed, context, blocks) as cluster, distributed.Client(cluster) as client:
            yield client
        return
    place = str(context.cluster)
    address = _address_in(place) if place.endswith(".json") else place
    try:
        client = distributed.Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise MissingError(f"--dask {context.cluster}: no scheduler of Dask answers there") from error
    with client:
        yield client


def _address_in(place: str) -> str:
    """Return the address in the file that a scheduler writes as it begins; Dask would wait for ever for it.

    Raises
    ------
    MissingError
        Where there is no such file after ``PATIENCE`` seconds, or no address in it.
    """
    complaint = f"--dask {place}: no scheduler of Dask has written its address there"
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with reading(complaint, MissingError):
                return str(json.loads(read_text(Path(place), complaint, MissingError))["address"])
        except MissingError:
            if time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)


def _local(distributed: ModuleType, context: Context, blocks: int) -> Cluster:
    """Start workers on this machine: as many as are wanted, or as cores and memory allow."""
    free = available_memory()
    room = usable_cores() if free is None else min(usable_cores(), int(SHARE * free) // context.limit)
    count = min(context.processes or max(1, room), blocks)
    limit = int(context.limit / SHARE)  # twice what blocks are planned for, as batch systems are asked for
    return distributed.LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        memory_limit=limit,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    )


def _slurm(distributed: ModuleType, context: Context, blocks: int) -> Cluster:
    """Have SLURM start workers; queue, account and time are those of the user's settings of dask-jobqueue."""
    cluster = library("dask_jobqueue", NEEDED, "dask").SLURMCluster(
        cores=context.threads or usable_cores(), processes=1, memory=byte_text(context.limit / SHARE)
    )
    cluster.scale(jobs=min(context.processes or 4, blocks))
    return cluster


def _refuse_small_workers(limits: Iterable[int], context: Context) -> None:
    """Refuse workers whose memory, in bytes, is too small for a block: Dask would end them."""
    if small := [limit for limit in limits if 0 < limit < context.limit]:
        raise ResourceError(
            f"a worker of Dask may occupy {byte_text(min(small))}, and blocks are planned for "
            f"{byte_text(context.limit)}: give --max-memory {byte_text(min(small) / 2)}"
        )


def _follow(distributed: ModuleType, client: Client, job: AnyJob, context: Context, todo: list[int]) -> None:
    """Hand out the blocks, and report what is done until all have come back."""
    plain = Context(context.device, context.threads, context.limit, offline=context.offline, share=Share())
    total = sum(box.size for box in job.boxes)
    done = total - sum(job.boxes[number].size for number in todo)
    light, call = replace(job, boxes=()), uuid.uuid4().hex
    blocks = {
        client.submit(
            _block,
            light,
            call,
            number,
            job.boxes[number],
            plain,
            key=f"{job.stage}-{number}-{call}",
            pure=False,
            retries=RETRIES,
        ): number
        for number in todo
    }
    waiting, ended = set(blocks), distributed.as_completed(list(blocks))
    while waiting:
        context.report(job.stage, done / total, job.counted.format(done / 1e6, total / 1e6))
        if context.stopped():
            client.cancel(list(waiting))
            raise here.stopped_after(len(job.boxes) - len(waiting), len(job.boxes))
        for future in _batch(ended):
            _check(distributed, future, blocks[future])
            done += job.boxes[blocks[future]].size
            waiting.discard(future)
    context.report(job.stage, 1.0, job.counted.format(total / 1e6, total / 1e6))


def _batch(ended: AsCompleted) -> list[Future]:
    """Return the futures that have ended since the last look, after ``PAUSE`` seconds where none have."""
    if not ended.has_ready():
        time.sleep(PAUSE)
    found: list[Future] = ended.next_batch(block=False)
    return found


def _check(distributed: ModuleType, future: Future, number: int) -> None:
    """Raise what went wrong with a block."""
    error = future.exception()
    if error is None:
        found = future.result()
        if found is not None:
            raise found
    elif isinstance(error, distributed.scheduler.KilledWorker):
        raise ResourceError(
            f"block {number} ended several workers, perhaps because their memory was full: give a smaller "
            "--max-memory, or workers with more"
        )
    elif isinstance(error, ModuleNotFoundError | ImportError):
        raise ResourceError(f"the workers of Dask cannot do blocks ({error}): install the same vemseg there")
    else:
        raise error


def _distributed() -> ModuleType:
    return library("distributed", NEEDED, "dask")


def _block(light: AnyJob, call: str, number: int, box: Box, context: Context) -> VemsegError | None:
    """Do one block on a worker, unless it has its marker; return an error that the user can mend.

    ``call`` is a name that differs for each time that a command is called.
    """
    if not _turn.acquire(timeout=TURN):  # several threads would take the memory of several workers
        raise _distributed().Reschedule  # to another worker, where one is idle
    try:
        stages = _stages(light, call, context)
        here.map_blocks(stages, {number: box}, light.markers, lambda done, total: None, never)
    except VemsegError as error:
        if error.__cause__ is not None:  # a disk, a network or a codec has failed: it is tried again
            raise
        return error
    finally:
        _turn.release()
    return None


def _stages(light: AnyJob, call: str, context: Context) -> AnyStages:
    """Return the stages of a job, which stay open until another command comes."""
    if call not in _opened:
        limit = _distributed().get_worker().memory_manager.memory_limit
        _refuse_small_workers([limit or 0], context)  # this one may have come when others were at work
        _opened.clear()
        _opened[call] = light.open(context)
    return _opened[call]
