"""One HTML file that shows labels, and in which classes get names, colours and are merged.

    subject    labels, the image that they belong to, and what a user says of them
    counting   the voxels of each class
    slices     slices of the image and the labels, small enough for a page
    points     a sample of vectors in a plane, and the patches that they stand for
    shapes     how large the objects of each class are, and how round
    page       all of it -> one file; the scripts and the style of the page lie beside it

The page loads nothing: what it shows is in it, and its policy forbids the rest. It is written piece by piece,
so that no more than one slice is in memory. Whatever the size of a volume, a page is smaller than 15 MB.
"""

from vemseg.report.counting import Counts, count_classes
from vemseg.report.page import Page, write_page
from vemseg.report.points import scatter
from vemseg.report.shapes import distributions
from vemseg.report.slices import slices_of
from vemseg.report.subject import Beside, Subject

__all__ = [
    "Beside",
    "Counts",
    "Page",
    "Subject",
    "count_classes",
    "distributions",
    "scatter",
    "slices_of",
    "write_page",
]
