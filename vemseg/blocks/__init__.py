"""Work done block by block, by one process or by many.

    job     what is to be done: paths, settings and boxes, open in any process
    here    a job, or a part of its blocks, done in this process: overlapped and resumable

Another executor (shards of a batch array, a Dask cluster) is a module beside ``here`` that calls
``here.run`` with the numbers of the blocks it takes.
"""

from vemseg.blocks.here import map_blocks, run
from vemseg.blocks.job import Job, Stages

__all__ = ["Job", "Stages", "map_blocks", "run"]
