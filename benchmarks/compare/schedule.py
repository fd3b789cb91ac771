"""Several tasks at a time, each in a process of its own, until all are done, a limit of time or a signal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from compare.plan import Plan, Task
from vemseg.files import writing

PAUSE = 0.05
"""Seconds between two looks at the processes."""


@dataclass
class Outcome:
    """What became of the tasks: which failed, with the last line of each, and which were not begun."""

    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    stopped: bool = False


def carry_out(
    plan: Plan, jobs: int, threads: int, deadline: float | None, stopped: Callable[[], bool]
) -> Outcome:
    """Do all tasks that are not done.

    Parameters
    ----------
    plan : Plan
    jobs : int
        Processes side by side.
    threads : int
        Of each process.
    deadline : float or None
        When no further task is begun, by ``time.monotonic``.
    stopped : callable
        Whether to stop: running tasks are asked to save their state.
    """
    outcome, running = Outcome(), {}
    waiting = {task.key: task for task in plan.tasks if not task.done}
    try:
        while waiting or running:
            late = stopped() or (deadline is not None and time.monotonic() >= deadline)
            if late and not running:
                break
            _collect(running, outcome, stopped())
            for task in [] if late else _ready(plan, waiting, running, outcome):
                if len(running) < jobs:
                    running[task.key] = (task, _begin(plan.folder, waiting.pop(task.key), threads))
            if stopped():
                _end(running)
            time.sleep(PAUSE)
    finally:
        _end(running)
    outcome.left, outcome.stopped = sorted(waiting), stopped()
    return outcome


def _ready(plan: Plan, waiting: dict[str, Task], running: dict, outcome: Outcome) -> list[Task]:
    """Return the tasks that can begin, and give up those that need one that failed."""
    ready = []
    for task in list(waiting.values()):
        needs = plan.needs(task)
        if broken := [one.key for one in needs if one.key in outcome.failed]:
            outcome.failed[waiting.pop(task.key).key] = f"needs {broken[0]}"
        elif all(one.key not in waiting and one.key not in running for one in needs):
            ready.append(task)
    return ready


def _begin(folder: Path, task: Task, threads: int) -> Popen:
    """Start the process of a task; what it says goes into its log."""
    print(f"begins: {task.key}", file=sys.stderr, flush=True)
    with writing(task.log):
        task.log.parent.mkdir(parents=True, exist_ok=True)
        log = task.log.open("ab")
    words = [sys.executable, str(Path(__file__).parent), *sys.argv[1:], "--task", task.key]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "VEMSEG_PROGRESS": "none"}
    with log:  # a session of its own: only this process is told of Ctrl-C, and tells the others
        return Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)


def _collect(running: dict[str, tuple[Task, Popen]], outcome: Outcome, stopping: bool) -> None:
    """Take out the processes that have ended."""
    for key, (task, process) in list(running.items()):
        code = process.poll()
        if code is None:
            continue
        del running[key]
        if code == 0 and task.done:
            print(f"done: {key}", file=sys.stderr, flush=True)
        elif not stopping:
            outcome.failed[key] = f"exit code {code}: {_last_line(task.log)}"
            print(f"failed: {key}: {outcome.failed[key]}", file=sys.stderr, flush=True)


def _end(running: dict[str, tuple[Task, Popen]]) -> None:
    """Ask processes to stop, and wait for them."""
    for _, process in running.values():
        if process.poll() is None:
            process.terminate()
    for _, process in running.values():
        process.wait()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
