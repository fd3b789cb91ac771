"""Labellers: fitted on a sample of vectors, they give every vector its class scores.

    base        the contract of all labellers, and how they are saved
    fitting     what all methods share: checks, order of the classes, metadata, loading
    scaling     how vectors are scaled before they are compared: standardise, whiten
    choosing    how many classes: fits each K of a range and takes one, without labels
    criteria    what is measured of classes for that: agreement, variance, information
    centroids   k-means, and which centroids are nearest to a vector
    joining     which of many small clusters, codes or components belong together
    columns     labellers whose scores follow from an affine map of the vector
    centres     classes made of cluster centres that others have found
    saved       whether a labeller that was read from a file can be used
    describing  what fitted classes are like: the encoder's suggestions, how far apart they are
    telling     classes for people: their table and captions, and how their number was chosen
    steadying   one thread for what sums over a sample
    affine, mixture, linkage, codebook, hyperbolic, named, readout, incremental, cuts, sccs
                one method each: its labeller, and how that is fitted; the last three look at graphs

Classes are numbered from 1, from dark to bright by the mean intensity of the patches they hold (ties: the
larger first), so that the numbers do not change from one fit to the next. A saved labeller keeps its numbers
on every volume. The classes of ``named`` keep the order of the encoder, whose own they are.

A new method needs a module here, a table under ``recipe/cluster`` and a line in ``recipe.METHODS``.
"""

from __future__ import annotations

from vemseg.labelling.affine import AffineLabeller
from vemseg.labelling.base import Demand, Examples, Labeller, Sample, Source, check_names, legend
from vemseg.labelling.centres import keep_centres, read_centres
from vemseg.labelling.choosing import Choice, find_classes
from vemseg.labelling.describing import suggestion_text
from vemseg.labelling.fitting import check, count, demands, fit, load
from vemseg.labelling.steadying import one_thread

__all__ = [
    "AffineLabeller",
    "Choice",
    "Demand",
    "Examples",
    "Labeller",
    "Sample",
    "Source",
    "check",
    "check_names",
    "count",
    "demands",
    "find_classes",
    "fit",
    "keep_centres",
    "legend",
    "load",
    "one_thread",
    "read_centres",
    "suggestion_text",
]
