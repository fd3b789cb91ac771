"""The methods of clustering: one line for each, with its settings and the labeller that is fitted by them.

A new method is its module under ``labelling``, its table under ``recipe/cluster`` and its line here.
"""

from __future__ import annotations

from dataclasses import dataclass

from vemseg.recipe.cluster.base import ClusterTable
from vemseg.recipe.cluster.codebook import CodebookTable
from vemseg.recipe.cluster.kmeans import KMeansTable
from vemseg.recipe.cluster.linkage import LinkageTable
from vemseg.recipe.cluster.mixture import MixtureTable


@dataclass(frozen=True)
class Method:
    """What belongs to one value of ``cluster.method``.

    Attributes
    ----------
    table : type of ClusterTable
        The settings.
    labeller : str
        The subclass of ``labelling.Labeller`` as ``module:name``, imported where it is needed.
    """

    table: type[ClusterTable]
    labeller: str


METHODS: dict[str, Method] = {
    "kmeans": Method(KMeansTable, "vemseg.labelling.affine:AffineLabeller"),
    "gmm": Method(MixtureTable, "vemseg.labelling.mixture:MixtureLabeller"),
    "linkage": Method(LinkageTable, "vemseg.labelling.linkage:LinkageLabeller"),
    "codebook": Method(CodebookTable, "vemseg.labelling.codebook:CodebookLabeller"),
}
"""The methods of clustering by the name that ``cluster.method`` gives them."""
