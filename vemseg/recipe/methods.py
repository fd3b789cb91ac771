"""The methods of clustering: for each its settings and the labeller that is fitted with them.

A new method needs a module under ``labelling``, a table under ``recipe/cluster``, and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass

from vemseg.recipe.cluster.base import ClusterTable
from vemseg.recipe.cluster.codebook import CodebookTable
from vemseg.recipe.cluster.graphs import DeepCutTable, DsmTable, IncrementalTable, SccsTable, SpectralTable
from vemseg.recipe.cluster.hyperbolic import HyperbolicTable
from vemseg.recipe.cluster.kmeans import KMeansTable
from vemseg.recipe.cluster.linkage import LinkageTable
from vemseg.recipe.cluster.minibatch import MiniBatchTable
from vemseg.recipe.cluster.mixture import MixtureTable
from vemseg.recipe.cluster.named import NamedTable
from vemseg.recipe.cluster.points import PointsTable


@dataclass(frozen=True)
class Method:
    """The settings and the labeller of one method of clustering.

    Attributes
    ----------
    table : type of ClusterTable
        Its settings.
    labeller : str
        A subclass of ``labelling.Labeller``, given as ``module:name`` and imported only when it is needed.
    objective : str or None
        What trains the labeller on the vectors of an encoder, called with (table, encoder, dim): dim is the
        length of the vectors. None where it is fitted to a sample instead.
    """

    table: type[ClusterTable]
    labeller: str
    objective: str | None = None


METHODS: dict[str, Method] = {
    "kmeans": Method(KMeansTable, "vemseg.labelling.affine:AffineLabeller"),
    "minibatch": Method(MiniBatchTable, "vemseg.labelling.affine:MiniBatchLabeller"),
    "hyperbolic": Method(HyperbolicTable, "vemseg.labelling.hyperbolic:HyperbolicLabeller"),
    "gmm": Method(MixtureTable, "vemseg.labelling.mixture:MixtureLabeller"),
    "linkage": Method(LinkageTable, "vemseg.labelling.linkage:LinkageLabeller"),
    "codebook": Method(CodebookTable, "vemseg.labelling.codebook:CodebookLabeller"),
    "named": Method(NamedTable, "vemseg.labelling.named:NamedLabeller"),
    "points": Method(PointsTable, "vemseg.labelling.readout:ReadoutLabeller"),
    "incremental": Method(IncrementalTable, "vemseg.labelling.incremental:IncrementalLabeller"),
    "spectral": Method(SpectralTable, "vemseg.labelling.cuts:SpectralLabeller"),
    "dsm": Method(DsmTable, "vemseg.labelling.cuts:SpectralLabeller"),
    "deepcut": Method(DeepCutTable, "vemseg.labelling.cuts:DeepCutLabeller"),
    "sccs": Method(
        SccsTable, "vemseg.labelling.sccs:SccsLabeller", objective="vemseg.models.sccs:SpectralClustering"
    ),
}
"""Every method of clustering, by its name in ``cluster.method``."""
