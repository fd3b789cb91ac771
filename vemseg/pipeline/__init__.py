"""The page: one function per verb, each "open, compute, write"; no array arithmetic, no method by name.

    fetch      a phantom, or what else the catalog names
    train      volumes -> a run
    embed      volume + model -> features on their lattice
    cluster    features -> a clusterer
    segment    volume + model [+ clusterer] -> labels, QC picture, statistics
    evaluate   labels + reference -> scores
    render     volume [+ labels + reference] -> pictures

Every function takes plain paths and settings, and callables for progress and for stopping; none prints.
"""

from vemseg.pipeline.evaluate import evaluate
from vemseg.pipeline.features import cluster, embed
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.render import render
from vemseg.pipeline.segment import segment
from vemseg.pipeline.train import train

__all__ = ["cluster", "embed", "evaluate", "fetch_phantom", "render", "segment", "train"]
