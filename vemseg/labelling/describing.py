"""What fitted classes are like: what the encoder takes them for, and how far apart they are.

A suggestion is the class of the encoder that is likeliest in a class that was found, by the mean of its
probabilities over the vectors of the sample. It is not a name: several classes may get the same one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.labelling.base import MARGIN, Labeller, Metadata, Sample

STEPS = 64
"""Number of parts in which the vectors of a sample are scored."""

SURE = 0.5
"""A suggestion of a smaller probability is called unsure."""


def described(labeller: Labeller, sample: Sample) -> Metadata:
    """Return what the vectors of a sample say of classes.

    Returns
    -------
    dict
        ``margin``: the median of how far the best class of a vector is ahead of the second, in scores.
        ``suggestions``, where the encoder knows classes by name: for each class ``name`` and ``probability``
        of the likeliest one; None for a class without vectors.
    """
    total = np.zeros((labeller.k, len(sample.classes)))
    sizes, ahead = np.zeros(labeller.k, np.int64), []
    for scores, vectors in scored(labeller, sample):
        best = scores.topk(2, dim=-1).values
        ahead.append((best[:, 0] - best[:, 1]).numpy())
        label = scores.argmax(dim=-1).numpy()
        sizes += np.bincount(label, minlength=labeller.k)
        for i, one in enumerate(vectors[:, : len(sample.classes)].softmax(dim=-1).T.numpy()):
            total[:, i] += np.bincount(label, weights=one, minlength=labeller.k)
    facts: Metadata = {MARGIN: float(np.median(np.concatenate(ahead)))}
    if sample.classes:
        facts["suggestions"] = _likeliest(total, sizes, sample.classes)
    return facts


def suggestion_text(name: str, probability: float) -> str:
    """Return a suggestion for people to read, such as "membrane .71" or "unsure (vesicle .34)"."""
    text = f"{name} {f'{probability:.2f}'.removeprefix('0')}"
    return text if probability >= SURE else f"unsure ({text})"


def scored(labeller: Labeller, sample: Sample) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield scores (n, K) and vectors (n, d), float32, part by part; the nodes of a graph are one part."""
    for graph in sample.graphs:
        yield labeller.graph_scores(graph), graph.features(torch.float32)
    if not sample.graphs:
        yield from scored_alone(labeller, sample.vectors)


def scored_alone(labeller: Labeller, vectors: NDArray[np.float16]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield scores (n, K) and vectors (n, d), float32, part by part; each vector is scored by itself."""
    for part in np.array_split(vectors, STEPS):
        some = torch.from_numpy(part.astype(np.float32))
        yield labeller.scores(some), some


def _likeliest(
    total: NDArray[np.float64], sizes: NDArray[np.int64], classes: tuple[str, ...]
) -> list[Metadata | None]:
    """Return the likeliest of the encoder's classes in each class, from summed probabilities (K, C)."""
    mean = total / np.maximum(sizes, 1)[:, None]
    best = mean.argmax(axis=1)
    return [
        {"name": classes[i], "probability": round(float(row[i]), 4)} if n else None
        for row, i, n in zip(mean, best, sizes, strict=True)
    ]
