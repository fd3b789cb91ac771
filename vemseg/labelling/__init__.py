"""Vectors to class scores: fitted on a sample, applied to a stream.

    base        the labeller: classes as scores of a vector, saved and loaded
    fitting     what all methods share: checks, classes from dark to bright, what a labeller says of itself
    scaling     what is done to vectors before they are compared: standardise, whiten, ... (an affine map)
    centroids   k-means, and which centroids are nearest
    joining     which of many small clusters, codes or components belong together
    columns     labellers whose scores follow from an affine map of the vector
    affine, mixture, linkage, codebook
                one method each: how it is fitted, and its labeller

Classes are numbered from 1, from dark to bright by the mean intensity of the patches they hold (ties: the
larger first), so that the numbers do not change from one fit to the next. A saved labeller keeps its numbers
on every volume.

A new method is a module here, a table under ``recipe/cluster`` and a line in ``recipe.METHODS``.
"""

from __future__ import annotations

from vemseg.labelling.affine import AffineLabeller
from vemseg.labelling.base import Demand, Graph, Labeller, Sample, Source
from vemseg.labelling.fitting import check, demands, fit, load

__all__ = [
    "AffineLabeller",
    "Demand",
    "Graph",
    "Labeller",
    "Sample",
    "Source",
    "check",
    "demands",
    "fit",
    "load",
]
