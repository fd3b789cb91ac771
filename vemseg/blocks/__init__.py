"""Work done block by block, by one process or by many.

job        what is to be done: paths, settings and boxes, open in any process
executors  who does it: the registry, and the way in
here       a job, or a part of its blocks, done in this process: overlapped and resumable
gathering  the results of blocks that other processes did
processes  a job in several processes of this machine
on_dask    a job on the workers of a Dask cluster
"""

from vemseg.blocks.executors import EXECUTORS, Executor, run
from vemseg.blocks.gathering import must_be_begun
from vemseg.blocks.here import map_blocks
from vemseg.blocks.job import Job, Stages

__all__ = ["EXECUTORS", "Executor", "Job", "Stages", "map_blocks", "must_be_begun", "run"]
