"""The table of the method that joins many small clusters."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import require
from vemseg.recipe.cluster.base import CentroidTable


class LinkageTable(CentroidTable):
    """Many small clusters of k-means, joined into K classes.

    Attributes
    ----------
    parts : int
        Number of small clusters.
    linkage : {"ward", "overlap"}
        Which clusters are joined first: those whose join adds least to the variance within the classes, or
        those with the most vectors between them.
    """

    method: Literal["linkage"] = "linkage"
    parts: Annotated[int, Field(ge=1, le=4096)] = 64
    linkage: Literal["ward", "overlap"] = "ward"

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        require(
            self.k <= self.parts, f"cluster.parts must be at least cluster.k ({self.k}), not {self.parts}"
        )
        most = f"cluster.parts must be at most cluster.sample ({self.sample}), not {self.parts}"
        require(self.parts <= self.most, most)
        return self
