"""Labellers whose scores follow from one affine map of the vector.

A vector is mapped to a row of columns, ``vector @ weight + bias``, where the columns of a class stand side by
side, and the score of a class is computed from its own columns. The scaling of vectors is an affine map too
and is folded into this one, so it costs nothing when scores are computed.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from vemseg.labelling.base import Doubles, Labeller, Sample, Single
from vemseg.labelling.scaling import Scaling, scaling
from vemseg.recipe import ClusterTable

CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**27}
"""Bytes of columns that are computed at a time: few enough for a CPU's cache, many enough for a GPU."""

RARE = 0.01
"""Added to the share of a class before vectors are weighed by it: what hardly occurs stays rare."""


class Columns(NamedTuple):
    """An affine map of vectors in float64, used while classes are fitted.

    Attributes
    ----------
    weight : float64 (d, C)
    bias : float64 (C,)
    """

    weight: Doubles
    bias: Doubles

    def after(self, scaled: Scaling | None) -> Columns:
        """Return the same columns as a function of the vectors before scaling."""
        if scaled is None:
            return self
        weight = scaled.matrix @ self.weight
        return Columns(weight, self.bias - scaled.mean @ weight)

    def taken(self, places: NDArray[np.int64]) -> Columns:
        """Return the columns at these places, in the order of the places."""
        return Columns(self.weight[:, places], self.bias[places])

    def rounded(self) -> tuple[Single, Single]:
        """Return weight and bias in float32, as a labeller keeps them."""
        return np.ascontiguousarray(self.weight, np.float32), self.bias.astype(np.float32)


@dataclass(frozen=True, eq=False)
class ColumnsLabeller(Labeller):
    """A labeller that computes the scores of classes from columns.

    Attributes
    ----------
    weight : float32 (d, C)
    bias : float32 (C,)
        The map from a vector to C columns, those of a class side by side.
    """

    weight: Single
    bias: Single

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        return len(self.weight)

    @abstractmethod
    def pooled(self, columns: Tensor) -> Tensor:
        """Return the scores that follow from columns, which may be overwritten: (n, C) -> (n, K)."""

    def scores(self, vectors: Tensor) -> Tensor:
        """Return class scores: float32 (..., d) -> float32 (..., K), on the device of the vectors.

        Sums are taken in float64, because the last bit of a float32 product depends on the size of the batch
        and on where its arrays lie in memory, and labels must not. Apple GPUs have only float32.
        """
        device = vectors.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        weight, bias = (torch.from_numpy(a).to(device, exact) for a in (self.weight, self.bias))
        scores = torch.empty(*vectors.shape[:-1], self.k, device=device)
        flat, out = vectors.reshape(-1, self.dim), scores.view(-1, self.k)
        bytes_ = CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"])
        rows = max(1, bytes_ // (8 * (self.dim + len(bias))))
        for start in range(0, len(flat), rows):
            part = slice(start, start + rows)
            out[part] = self.pooled(torch.addmm(bias, flat[part].to(exact), weight))
        return scores


def prepared(table: ClusterTable, sample: Sample) -> tuple[Single, Scaling | None]:
    """Shuffle and scale the vectors of a sample; return them and the scaling.

    Parameters
    ----------
    table : ClusterTable
        Gives the seed of the shuffle, the balance and the scaling.
    sample : Sample
        It is not changed.

    Returns
    -------
    data : float32 (n, d)
    scaled : Scaling or None
        None where the vectors are not scaled.
    """
    rng = np.random.default_rng([table.seed, 0xC1])
    data = sample.vectors[rng.permutation(len(sample.vectors))].astype(np.float32)
    if table.balance and sample.classes:
        data = data[rng.permutation(_drawn(_rarity(data[:, : len(sample.classes)], table.balance)))]
    scaled = scaling(data, table)
    if scaled is not None:
        scaled.apply(data)
    return data, scaled


def _rarity(logits: Single, balance: float) -> Doubles:
    """Return how much each vector counts: the more, the rarer the classes that the encoder takes it for.

    Parameters
    ----------
    logits : float32 (n, C)
        Of the encoder's own classes.
    balance : float
        A class weighs as its share, and ``RARE`` more, to the power of minus this. A vector weighs as its
        classes do, each by its probability.
    """
    probabilities = softmax(logits, axis=1)
    shares = probabilities.mean(axis=0, dtype=np.float64)
    weights: Doubles = (probabilities * np.float32((shares + RARE) ** -balance)).sum(axis=1, dtype=np.float64)
    return weights


def _drawn(weights: Doubles) -> NDArray[np.intp]:
    """Return as many places as there are weights (n,), each as often as its weight says, up to rounding."""
    reached = np.cumsum(weights)
    middles = (np.arange(len(weights)) + 0.5) * (reached[-1] / len(weights))
    drawn: NDArray[np.intp] = np.searchsorted(reached, middles)
    return drawn


def places(widths: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the old places of columns when runs of these widths, side by side, are put in another order."""
    starts = np.cumsum(widths) - widths
    return np.concatenate([np.arange(starts[i], starts[i] + widths[i]) for i in order])
