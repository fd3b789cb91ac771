"""Vectors to class scores: fitted on a sample, applied to a stream.

    clusterer   what is kept and applied: classes as scores of a vector, saved and loaded
    scaling     what is done to vectors before they are compared: standardise, whiten, ... (an affine map)
    methods     from scaled vectors to classes: k-means, a Gaussian mixture, joined k-means, joined codes
    joining     which of many small clusters, or codes, belong together
    fitting     a sample -> scaling -> method -> a clusterer, its classes from dark to bright

Classes are numbered from 1, from dark to bright by the mean intensity of the patches they hold (ties: the
larger first), so that the numbers do not change from one fit to the next. A saved clusterer keeps its
numbers on every volume.
"""

from __future__ import annotations

from vemseg.clustering.clusterer import Clusterer
from vemseg.clustering.fitting import fit, joined_parts

__all__ = ["Clusterer", "fit", "joined_parts"]
