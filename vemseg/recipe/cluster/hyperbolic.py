"""The table of k-means in hyperbolic space."""

from __future__ import annotations

from typing import Literal

from vemseg.recipe.base import Count
from vemseg.recipe.cluster.base import CentroidTable


class HyperbolicTable(CentroidTable):
    """K-means by hyperbolic distance.

    Vectors are tangents at the origin of the Poincaré ball, so they are not scaled.

    Attributes
    ----------
    restarts : int
        Number of random starts; the best one is kept.
    """

    method: Literal["hyperbolic"] = "hyperbolic"
    max_iterations: Count = 100
    restarts: Count = 20
    scale: Literal["none"] = "none"
