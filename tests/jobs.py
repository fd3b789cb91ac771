"""Jobs whose blocks know who did them; other processes import this module and little else."""

import errno
import os
import signal
import time

from vemseg.blocks import Job, Stages
from vemseg.errors import InputError
from vemseg.geometry import Box

BOXES = tuple(Box.whole((6, 2, 2)).split((1, 2, 2)))


class Marked(Job):
    """Its blocks know who did them; one of them may be bad, deadly, or slow."""

    bad, deadly, slow = -1, -1, 0.0

    def open(self, context):
        def compute(box, given):
            if box.start[0] == self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            if box.start[0] == self.bad:
                raise InputError(f"block {self.bad} cannot be read")
            time.sleep(self.slow)
            return context.device

        def write(box, made):
            return [os.getpid(), made[-1], box.start[0]]

        return Stages(lambda box: None, compute, write)


class Bad(Marked):
    bad = 3


class Deadly(Marked):
    deadly = 3


class DeadlyOnce(Marked):
    deadly = 3

    def open(self, context):
        stages, told = super().open(context), self.markers.with_name("died")

        def compute(box, given):
            if box.start[0] == self.deadly and told.exists():
                return context.device[-1]
            if box.start[0] == self.deadly:
                told.touch()
            return stages.compute(box, given)

        return Stages(stages.read, compute, stages.write)


class Failing(Marked):
    """One of its blocks meets a disk that fails, some of the times."""

    failing, times = 3, 10

    def open(self, context):
        stages, tries = super().open(context), self.markers.with_name("tries")

        def compute(box, given):
            if box.start[0] == self.failing:
                with tries.open("a") as file:
                    file.write("x")
                if tries.stat().st_size <= self.times:
                    raise OSError(errno.EIO, "the disk fails")
            return stages.compute(box, given)

        return Stages(stages.read, compute, stages.write)


class FailingTwice(Failing):
    times = 2


class Slow(Marked):
    slow = 0.3
