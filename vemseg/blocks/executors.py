"""Who does the blocks of a job. Another executor is a module beside this one and a line in ``EXECUTORS``."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Protocol

from vemseg.blocks.job import Given, Job, Made, Result, Stages
from vemseg.context import Context


class Executor(Protocol):
    """Does all blocks of a job that have no marker yet, itself or by other processes."""

    def __call__(
        self, job: Job[Given, Made], context: Context, stages: Stages[Given, Made] | None = None
    ) -> list[Result]:
        """Return what writing returned for each block, now or earlier.

        Parameters
        ----------
        job : Job
            Another process opens it for itself and does its part with ``here.run(..., numbers=...)``.
        context : Context
        stages : Stages, optional
            Of the job, where the caller has opened it already; of use in this process only.
        """


EXECUTORS: dict[str, str] = {
    "here": "vemseg.blocks.here:run",
    "gather": "vemseg.blocks.gathering:run",
    "processes": "vemseg.blocks.processes:run",
    "dask": "vemseg.blocks.on_dask:run",
}
"""The executors, as ``module:name``, by the name that ``Context.executor`` gives them."""


def run(job: Job[Given, Made], context: Context, stages: Stages[Given, Made] | None = None) -> list[Result]:
    """Do the blocks of a job by the executor that the context names (see ``Executor``)."""
    executor: Executor = resolve_name(EXECUTORS[context.executor])
    return executor(job, context, stages)
