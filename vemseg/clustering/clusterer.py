"""Classes as scores of a vector; the class is the largest.

Everything that is fitted comes down to one affine map from a vector to some columns,
``vector @ weight + bias``, and to what a class makes of its own columns:

    k-means     one column per class, and that is the score. Exact: the nearest centroid c is the largest of
                2 z.c - |c|^2, whatever affine scaling z of the vector comes before. Scores interpolated
                between lattice points are the scores of interpolated vectors.
    linkage     one column per part of a class; the score is the largest of them. Interpolated scores are no
                longer exactly those of interpolated vectors, unless the same part wins at both ends.
    mixture     d columns per part, standard normal under that part; the score is the logarithm of the sum of
                the parts' weighted densities, ``exp(offset - |columns|^2 / 2)``. Interpolated scores are the
                logarithm of a geometric mean of densities.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.errors import InputError
from vemseg.run import load_tensors, save_tensors

KIND = "vemseg-clusters"
FORMAT = 2
READABLE = (1, FORMAT)
"""Format 1 knew one column per class only."""

CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**27}
"""Of columns held at a time: what stays in a CPU's cache, what fills a GPU."""


@dataclass(frozen=True)
class Clusterer:
    """K classes as scores.

    Attributes
    ----------
    weight : float32 (d, C)
    bias : float32 (C,)
        From a vector to C columns, those of a class side by side: one per part, or d per part of a mixture.
    metadata : dict
        What made it: method, seed, sizes of the classes in the sample, the encoder's hash.
    parts : int64 (K,), optional
        Parts of each class, P together; one each where left out.
    offset : float32 (P,), optional
        Given for a mixture: the logarithm of each part's weighted density at its mean.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    metadata: dict[str, Any]
    parts: NDArray[np.int64] | None = None
    offset: NDArray[np.float32] | None = None

    @property
    def k(self) -> int:
        """Number of classes."""
        given = (a for a in (self.parts, self.offset, self.bias) if a is not None)
        return len(next(given))

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        return len(self.weight)

    def scores(self, vectors: Tensor) -> Tensor:
        """Return class scores: float32 (..., d) -> float32 (..., K), on the device of the vectors.

        Summed in float64: the last bit of a float32 product depends on the size of the batch and on where
        its arrays lie in memory, and labels must not (a device without float64 makes do).
        """
        device = vectors.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        weight, bias = (torch.from_numpy(a).to(device, exact) for a in (self.weight, self.bias))
        offset = None if self.offset is None else torch.from_numpy(self.offset).to(device, exact)
        scores = torch.empty(*vectors.shape[:-1], self.k, device=device)
        flat, out = vectors.reshape(-1, self.dim), scores.view(-1, self.k)
        bytes_ = CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"])
        rows = max(1, bytes_ // (8 * (self.dim + len(bias))))
        for start in range(0, len(flat), rows):
            part = slice(start, start + rows)
            out[part] = self._pooled(torch.addmm(bias, flat[part].to(exact), weight), offset)
        return scores

    def _pooled(self, columns: Tensor, offset: Tensor | None) -> Tensor:
        """Return what each class makes of its columns: (n, C) -> (n, K)."""
        if offset is not None:
            squares = columns.square_().view(-1, len(offset), self.dim).sum(dim=-1)
            columns = torch.sub(offset, squares, alpha=0.5)
        if self.parts is None:
            return columns
        stops = np.cumsum(self.parts).tolist()
        own = [columns[:, stop - n : stop] for stop, n in zip(stops, self.parts.tolist(), strict=True)]
        if offset is not None:
            return torch.stack([one.logsumexp(dim=-1) for one in own], dim=-1)
        return torch.stack([one.amax(dim=-1) for one in own], dim=-1)

    def save(self, path: Path) -> None:
        """Write the clusterer as safetensors with its metadata, whole or not at all."""
        arrays = {"weight": self.weight, "bias": self.bias, "parts": self.parts, "offset": self.offset}
        given = {name: array for name, array in arrays.items() if array is not None}
        save_tensors(path, given, {"kind": KIND, "format": FORMAT} | self.metadata)

    @classmethod
    def load(cls, path: Path) -> Clusterer:
        """Read a saved clusterer, of this or an earlier version.

        Raises
        ------
        MissingError, InputError
            Where there is no such file, or it holds something else.
        """
        arrays, metadata = load_tensors(path)
        if metadata.get("kind") != KIND or not {"weight", "bias"} <= set(arrays):
            raise InputError(f"{path}: no clusters saved by vemseg")
        if metadata.get("format") not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise InputError(
                f"{path}: clusters of format {metadata.get('format')}; this version reads {known}"
            )
        kept = {key: value for key, value in metadata.items() if key not in ("kind", "format")}
        return cls(arrays["weight"], arrays["bias"], kept, arrays.get("parts"), arrays.get("offset"))
