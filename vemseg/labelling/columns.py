"""Labellers whose scores follow from one affine map of the vector.

A vector becomes some columns, ``vector @ weight + bias``, those of a class side by side, and each class makes
its score of its own columns. The scaling of vectors is an affine map too and is folded into this one, so it
costs nothing when scores are computed.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.labelling.base import Labeller, Sample
from vemseg.labelling.scaling import Scaling, scaling
from vemseg.recipe import ClusterTable

Single = NDArray[np.float32]
Doubles = NDArray[np.float64]

CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**27}
"""Bytes of columns held at a time: what stays in a CPU's cache, what fills a GPU."""


class Columns(NamedTuple):
    """An affine map of vectors, as it is while classes are fitted.

    Attributes
    ----------
    weight : float64 (d, C)
    bias : float64 (C,)
    """

    weight: Doubles
    bias: Doubles

    def after(self, scaled: Scaling | None) -> Columns:
        """Return the same columns as a function of vectors before they are scaled."""
        if scaled is None:
            return self
        weight = scaled.matrix @ self.weight
        return Columns(weight, self.bias - scaled.mean @ weight)

    def taken(self, places: NDArray[np.int64]) -> Columns:
        """Return the columns at some places, in their order."""
        return Columns(self.weight[:, places], self.bias[places])

    def rounded(self) -> tuple[Single, Single]:
        """Return weight and bias as a labeller keeps them, in float32."""
        return np.ascontiguousarray(self.weight, np.float32), self.bias.astype(np.float32)


@dataclass(frozen=True, eq=False)
class ColumnsLabeller(Labeller):
    """Classes that make their scores of columns.

    Attributes
    ----------
    weight : float32 (d, C)
    bias : float32 (C,)
        From a vector to C columns, those of a class side by side.
    """

    weight: Single
    bias: Single

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        return len(self.weight)

    @abstractmethod
    def pooled(self, columns: Tensor) -> Tensor:
        """Return what each class makes of its columns, which may be overwritten: (n, C) -> (n, K)."""

    def scores(self, vectors: Tensor) -> Tensor:
        """Return class scores: float32 (..., d) -> float32 (..., K), on the device of the vectors.

        Summed in float64: the last bit of a float32 product depends on the size of the batch and on where
        its arrays lie in memory, and labels must not (a device without float64 makes do).
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
    """Return the vectors of a sample as they are compared, shuffled and scaled, and how they were scaled.

    Parameters
    ----------
    table : ClusterTable
        The seed of the shuffle, and the scaling.
    sample : Sample
        It is left as it is.

    Returns
    -------
    data : float32 (n, d)
    scaled : Scaling or None
        None where nothing was to be done.
    """
    rng = np.random.default_rng([table.seed, 0xC1])
    data = sample.vectors[rng.permutation(len(sample.vectors))].astype(np.float32)
    scaled = scaling(data, table)
    if scaled is not None:
        scaled.apply(data)
    return data, scaled


def places(widths: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where columns come from when runs of some widths, side by side, are put in another order."""
    starts = np.cumsum(widths) - widths
    return np.concatenate([np.arange(starts[i], starts[i] + widths[i]) for i in order])
