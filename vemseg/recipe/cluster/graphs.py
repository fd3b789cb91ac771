"""The tables of the methods that look at the regions of a volume as graphs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from vemseg.recipe.base import Count, CountOrShare, Natural, Positive, Share
from vemseg.recipe.cluster.base import CentroidTable, ClusterTable
from vemseg.recipe.cluster.kmeans import KMeansTable

Alpha = Annotated[float, Field(gt=1)]
Kappa = Positive | Literal["auto"]
Density = Annotated[float, Field(gt=0, lt=1)]
Distance = Literal["plain", "squared", "cosine"]


class IncrementalTable(KMeansTable):
    """Incremental k-means: anchored in one graph, then moved by all others ("w/o NC_inc" of SCCS).

    Attributes
    ----------
    every : int
        Graphs between two updates of the centres.
    """

    regions: ClassVar[bool] = True

    method: Literal["incremental"] = "incremental"  # type: ignore[assignment]
    sample: CountOrShare = 50_000
    every: Count = 8


class CutTable(CentroidTable):
    """What the methods share that cut every graph into segments and put these into classes.

    Attributes
    ----------
    restarts : int
        Random starts of the k-means that puts segments into classes; the best is kept.
    centred : bool
        Whether the mean vector of a graph is subtracted from its vectors before it is cut. It changes no
        distance, but the cosine: where all vectors point into one direction, as those of our encoders do,
        the cosine joins every region with every other one. DSM and DeepCut publish it without.
    """

    regions: ClassVar[bool] = True

    restarts: Count = 10
    centred: bool = True
    sample: CountOrShare = 50_000


class AffinityTable(ClusterTable):
    """The affinity of the regions of a graph, ``max(exp(-|F_i - F_j| / kappa) - 1 / alpha, 0)``.

    Attributes
    ----------
    kappa : float or "auto"
        Its scale. "auto" takes the one that joins a share of ``density`` of all pairs of regions in the
        reference graph, the most varied one. It is kept with the classes, and is the same for all graphs and
        volumes.
    density : float
        Share of the pairs of regions that are joined where kappa is "auto"; the paper names none.
    alpha : float
        Similarities below 1 / alpha become 0.
    distance : {"plain", "squared", "cosine"}
        The distance, its square, or the cosine instead of the exponential, which has no scale.
    """

    kappa: Kappa = "auto"
    density: Density = 0.1
    alpha: Alpha = 4.0
    distance: Distance = "plain"

    def scaled(self, kappa: float) -> Self:
        """Return the same settings with a scale that was found."""
        return self.model_copy(update={"kappa": kappa})


class SpectralTable(CutTable, AffinityTable):
    """Numerical spectral clustering of every graph ("w/o NSC" of SCCS).

    Attributes
    ----------
    eigenvectors : int
        Number of eigenvectors of the Laplacian; the first, which is constant, is not used.
    segments : int
        Number of segments that each graph is cut into.
    """

    method: Literal["spectral"] = "spectral"
    eigenvectors: Annotated[int, Field(ge=2)] = 12
    segments: Annotated[int, Field(ge=2)] = 15


class DsmTable(SpectralTable):
    """Deep spectral methods: the same with the cosine affinity, 5 eigenvectors and 15 segments."""

    method: Literal["dsm"] = "dsm"  # type: ignore[assignment]
    alpha: Annotated[float, Field(ge=0)] = 0.0
    distance: Distance = "cosine"
    eigenvectors: Annotated[int, Field(ge=2)] = 5


class DeepCutTable(CutTable):
    """DeepCut: a small network is trained on every graph alone, and cuts it.

    Attributes
    ----------
    loss : {"ncut", "cc"}
        What the network minimises: the relaxed normalised cut, or correlation clustering.
    alpha : float
        Similarities below 1 / alpha repel each other in correlation clustering.
    segments : int
        Largest number of segments of a graph.
    epochs : int
        Steps of training on each graph: 100 as in the two-stage mode of the published code; its other mode
        has 10.
    """

    method: Literal["deepcut"] = "deepcut"
    loss: Literal["ncut", "cc"] = "ncut"
    alpha: Alpha = 3.0
    segments: Annotated[int, Field(ge=2)] = 10
    epochs: Count = 100


class SccsTable(AffinityTable):
    """SCCS: a network that is trained once gives every graph its classes, the same in all of them.

    It is trained on the vectors of an encoder that is there already: ``train -c sccs --encoder MODEL``.

    Attributes
    ----------
    widths : (int, int, int)
        Channels after each of the three convolutions; the last is the number of spectral coordinates.
    dropout : float
        Share of the head's hidden layer that is set to 0 in training.
    warmup : int
        Steps with the spectral loss alone, before the classes are anchored in the reference graph; at most a
        quarter of the training.
    spectral, mu, clustering, smoothness, eta, nu : float
        Weights and the threshold of the losses: 1 for the spectral loss, then mu, gamma_1, gamma_2, eta and
        nu of the paper.
    every : int
        Graphs between two updates of the centres of the incremental k-means.
    forgetting : float
        How much of what was added to a centre counts after the next update; 1 is the mean of all nodes.
    centred : bool
        Whether the mean vector of the reference graph is subtracted from all vectors before the first
        convolution. The affinity does not depend on it.
    """

    regions: ClassVar[bool] = True
    finds: ClassVar[bool] = False

    method: Literal["sccs"] = "sccs"
    k: Annotated[int, Field(ge=2, le=255)] = 8
    widths: tuple[Count, Count, Count] = (96, 48, 12)
    dropout: Share = 0.25
    warmup: Natural = 500
    spectral: Annotated[float, Field(ge=0)] = 1.0
    mu: Annotated[float, Field(ge=0)] = 1.0
    clustering: Annotated[float, Field(ge=0)] = 1.0
    smoothness: Annotated[float, Field(ge=0)] = 0.1
    eta: Annotated[float, Field(ge=0)] = 0.1
    nu: Annotated[float, Field(ge=0)] = 0.1
    every: Count = 8
    forgetting: Annotated[float, Field(gt=0, le=1)] = 0.9
    centred: bool = True
