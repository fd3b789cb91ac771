"""The table of a Gaussian mixture."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, require
from vemseg.recipe.cluster.base import CentroidTable


class MixtureTable(CentroidTable):
    """The class of the likeliest of K normal distributions, each with a covariance of its own.

    Attributes
    ----------
    restarts : int
        Starts of the k-means that the mixture begins with.
    components : int
        Normal distributions; where they are more than K, those that leave most doubt between them are joined
        into K classes. 0 takes K.
    mixture_sample : int
        Vectors of the sample that the mixture is fitted on, after k-means on all of them.
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
