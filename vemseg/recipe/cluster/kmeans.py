"""The table of k-means."""

from __future__ import annotations

from typing import Literal

from vemseg.recipe.base import Count
from vemseg.recipe.cluster.base import CentroidTable


class KMeansTable(CentroidTable):
    """K-means: every vector belongs to the class of the nearest of K centroids.

    Attributes
    ----------
    restarts : int
        Number of random starts; the best one is kept.
    """

    method: Literal["kmeans"] = "kmeans"
    restarts: Count = 10
