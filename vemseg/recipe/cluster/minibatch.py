"""The table of k-means by mini-batches."""

from __future__ import annotations

from typing import Literal

from vemseg.recipe.base import Count
from vemseg.recipe.cluster.base import CentroidTable


class MiniBatchTable(CentroidTable):
    """K-means that looks at a few vectors at a time; the defaults are those of scikit-learn 0.23.

    Attributes
    ----------
    restarts : int
        Number of random starts, of which the best one is gone on with.
    batch : int
        Number of vectors in a mini-batch.
    """

    method: Literal["minibatch"] = "minibatch"
    max_iterations: Count = 100
    restarts: Count = 3
    batch: Count = 100
