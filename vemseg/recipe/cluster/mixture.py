"""The table of a Gaussian mixture."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, require
from vemseg.recipe.cluster.base import CentroidTable


class MixtureTable(CentroidTable):
    """A mixture of normal distributions, each with its own covariance; a vector gets the likeliest class.

    Attributes
    ----------
    restarts : int
        Number of random starts of the k-means from which the mixture begins; the best one is kept.
    components : int
        Number of normal distributions, 0 for K. If there are more than K, they are joined into K classes,
        those first that are hardest to tell apart.
    mixture_sample : int
        Number of vectors of the sample that the mixture is fitted on, after k-means on the whole sample.
    """

    method: Literal["gmm"] = "gmm"
    restarts: Count = 10
    components: Annotated[int, Field(ge=0, le=255)] = 0
    mixture_sample: Count = 100_000

    @model_validator(mode="after")
    def _check_components(self) -> Self:
        if self.components:
            least = f"cluster.components must be 0 or at least cluster.k ({self.k}), not {self.components}"
            require(self.k <= self.components, least)
            most = f"cluster.components must be at most cluster.sample ({self.sample}), not {self.components}"
            require(self.components <= self.most, most)
        return self
