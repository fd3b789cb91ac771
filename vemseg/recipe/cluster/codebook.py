"""The table of the method that joins the codes of a model."""

from __future__ import annotations

from typing import Literal

from vemseg.recipe.cluster.base import ClusterTable


class CodebookTable(ClusterTable):
    """The codes that a model learned of its vectors, joined into K classes.

    Attributes
    ----------
    linkage : {"ward", "overlap"}
        Which codes are joined first: those whose join adds least to the variance within the classes, or those
        with the most vectors between them.
    """

    method: Literal["codebook"] = "codebook"
    linkage: Literal["ward", "overlap"] = "ward"
