"""Graphs of regions: how alike regions are, and what follows from that.

base         a graph: the vectors of regions, and which of these touch
affinity     the sparsified affinity of all pairs, its degrees and its Laplacian
network      the network of SCCS
losses       what that network minimises
incremental  k-means that graph after graph is added to
cuts         graphs cut one by one: eigenvectors, DSM, DeepCut
"""

from vemseg.graphs.affinity import Affinity, Kernel, similarities
from vemseg.graphs.base import Graph, most_varied
from vemseg.graphs.cuts import deep_cut, eigenvectors, spectral_cut
from vemseg.graphs.incremental import IncrementalMeans
from vemseg.graphs.losses import clustering_loss, smoothness_loss, spectral_loss
from vemseg.graphs.network import SpectralNetwork

__all__ = [
    "Affinity",
    "Graph",
    "IncrementalMeans",
    "Kernel",
    "SpectralNetwork",
    "clustering_loss",
    "deep_cut",
    "eigenvectors",
    "most_varied",
    "similarities",
    "smoothness_loss",
    "spectral_cut",
    "spectral_loss",
]
