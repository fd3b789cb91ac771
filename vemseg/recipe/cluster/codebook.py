"""The table of codes that are joined."""

from __future__ import annotations

from typing import Literal

from vemseg.recipe.cluster.base import ClusterTable


class CodebookTable(ClusterTable):
    """The codes that a model learned of its vectors, joined into K classes.

    Attributes
    ----------
    linkage : {"ward", "overlap"}
        What is joined first: what adds least to the variance within the classes, or the codes with the most
        vectors between them.
    """

    method: Literal["codebook"] = "codebook"
    linkage: Literal["ward", "overlap"] = "ward"
