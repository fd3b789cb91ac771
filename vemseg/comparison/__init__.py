"""Volumes that are looked at together: brought to one place and one voxel size, and counted.

placing   volumes of one subject -> the part that all of them show, on the same voxels
opening   a volume and its mask; what ``evaluate`` and ``render`` compare, opened and placed
scene     a grey volume with labels and a reference, for pictures
counting  labels and a reference -> contingency tables, slice by slice
"""

from vemseg.comparison.counting import count, merged_greedily, nothing_of, warn_of_instances
from vemseg.comparison.opening import (
    of_same_voxels,
    open_compared,
    open_mask,
    open_on_grid_of,
    open_subject,
    placed,
)
from vemseg.comparison.placing import together
from vemseg.comparison.scene import Scene

__all__ = [
    "Scene",
    "count",
    "merged_greedily",
    "nothing_of",
    "of_same_voxels",
    "open_compared",
    "open_mask",
    "open_on_grid_of",
    "open_subject",
    "placed",
    "together",
    "warn_of_instances",
]
