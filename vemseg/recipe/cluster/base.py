"""What the ``[cluster]`` tables of all methods share."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, CountOrShare, Natural, Positive, Seed, Share, Table, require


class ClusterTable(Table):
    """How vectors become classes.

    Attributes
    ----------
    method : str
        The name of the method in ``recipe.METHODS``.
    k : int
        Classes, 2 to 255.
    sample : int or float
        Vectors that classes are fitted on; below 1: as a share of the volume's voxels.
    seed : int
        Where everything random starts.
    scale : {"none", "standardise", "whiten"}
        What is done to vectors first: nothing, each feature to variance 1, or all directions to variance 1.
        Where it is not given, it follows the kind of model.
    floor : float
        The least variance of a principal direction of standardised features, relative to the largest, that is
        brought to 1 when whitening; weaker directions hold noise and stay below.
    whitened : int
        Leading features that "whiten" whitens; the others are only brought to one deviation each. 0: all.
    others : float
        That deviation, which weighs them against the whitened ones, of deviation 1.
    """

    method: str
    k: Annotated[int, Field(ge=2, le=255)] = 6
    sample: CountOrShare = 500_000
    seed: Seed = 0
    scale: Literal["none", "standardise", "whiten"] = "none"
    floor: Share = 1e-3
    whitened: Natural = 0
    others: Positive = 1.0

    def sample_of(self, voxels: int) -> int:
        """Return how many vectors to fit on, of volumes of so many voxels."""
        return self.sample if isinstance(self.sample, int) else max(self.k, round(self.sample * voxels))

    @property
    def most(self) -> float:
        """How many vectors there are to fit on at most; infinity where that depends on the volume."""
        return self.sample if isinstance(self.sample, int) else math.inf

    @model_validator(mode="after")
    def _check(self) -> Self:
        share = isinstance(self.sample, int) or self.sample < 1
        require(share, f"cluster.sample must be a whole number, or a share below 1, not {self.sample}")
        least = f"cluster.sample must be at least cluster.k ({self.k}), not {self.sample}"
        require(self.k <= self.most, least)
        return self


class CentroidTable(ClusterTable):
    """What methods share that look for the centroids of k-means, as their classes or to begin with.

    Attributes
    ----------
    max_iterations : int
        Most iterations from one start.
    """

    max_iterations: Count = 300
