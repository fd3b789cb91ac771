"""The methods of clustering: for each its settings and the labeller that is fitted with them.

A new method needs a module under ``labelling``, a table under ``recipe/cluster``, and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass

from vemseg.recipe.cluster.base import ClusterTable
from vemseg.recipe.cluster.codebook import CodebookTable
from vemseg.recipe.cluster.hyperbolic import HyperbolicTable
from vemseg.recipe.cluster.kmeans import KMeansTable
from vemseg.recipe.cluster.linkage import LinkageTable
from vemseg.recipe.cluster.minibatch import MiniBatchTable
from vemseg.recipe.cluster.mixture import MixtureTable
from vemseg.recipe.cluster.named import NamedTable


@dataclass(frozen=True)
class Method:
    """The settings and the labeller of one method of clustering.

    Attributes
    ----------
    table : type of ClusterTable
        Its settings.
    labeller : str
        A subclass of ``labelling.Labeller``, given as ``module:name`` and imported only when it is needed.
    """

    table: type[ClusterTable]
    labeller: str


METHODS: dict[str, Method] = {
    "kmeans": Method(KMeansTable, "vemseg.labelling.affine:AffineLabeller"),
    "minibatch": Method(MiniBatchTable, "vemseg.labelling.affine:MiniBatchLabeller"),
    "hyperbolic": Method(HyperbolicTable, "vemseg.labelling.hyperbolic:HyperbolicLabeller"),
    "gmm": Method(MixtureTable, "vemseg.labelling.mixture:MixtureLabeller"),
    "linkage": Method(LinkageTable, "vemseg.labelling.linkage:LinkageLabeller"),
    "codebook": Method(CodebookTable, "vemseg.labelling.codebook:CodebookLabeller"),
    "named": Method(NamedTable, "vemseg.labelling.named:NamedLabeller"),
}
"""Every method of clustering, by its name in ``cluster.method``."""
