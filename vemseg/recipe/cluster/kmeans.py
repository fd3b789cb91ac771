"""The table of k-means."""

from __future__ import annotations

from typing import Literal

from vemseg.recipe.base import Count
from vemseg.recipe.cluster.base import CentroidTable


class KMeansTable(CentroidTable):
    """The class of the nearest of K centroids.

    Attributes
    ----------
    restarts : int
        Starts, of which the best is kept.
    """

    method: Literal["kmeans"] = "kmeans"
    restarts: Count = 10
