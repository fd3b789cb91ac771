"""Labels of classes, looked at as objects: found across blocks, measured, and cleaned.

    blockwise    the blocks of this room: how large, and what a pass over them is
    connecting   connected voxels of one class, within an array
    components   connected voxels of one class, across blocks
    necks        where an object is thin beside what lies on both sides, and is cut
    splitting    touching objects of one class, cut at their necks
    counting     what is counted of each component in a block: exact, and added up over blocks
    crofton      surfaces and contacts from counts of neighbours
    measures     the table of objects: volumes, surfaces, shapes, places
    majority     smoother borders of classes
    absorbing    specks and holes, and what they become
    refinement   what is to be done to finished labels
    naming       classes named by points that somebody clicked
    cleaning     carries out a refinement, block by block

Axes are z, y, x in all of it. Two voxels of a class belong to one object where they share a face, an edge or
a corner.
"""

from vemseg.objects.blockwise import begin, block_shape, borders
from vemseg.objects.cleaning import Labels, clean
from vemseg.objects.components import Finding, Found, Wish, find_objects, paint
from vemseg.objects.measures import Asked, Measures, chosen, write_measures, write_parquet
from vemseg.objects.naming import Votes, named_by_points
from vemseg.objects.refinement import Class, Least, Refinement, known_classes, renamed, shown, tabulated
from vemseg.objects.splitting import numbered

__all__ = [
    "Asked",
    "Class",
    "Finding",
    "Found",
    "Labels",
    "Least",
    "Measures",
    "Refinement",
    "Votes",
    "Wish",
    "begin",
    "block_shape",
    "borders",
    "chosen",
    "clean",
    "find_objects",
    "known_classes",
    "named_by_points",
    "numbered",
    "paint",
    "renamed",
    "shown",
    "tabulated",
    "write_measures",
    "write_parquet",
]
