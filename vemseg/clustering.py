"""Vectors to class scores: fitted on a sample, applied to a stream.

A clusterer's scores are affine in the vector, ``scores = vector @ weight + bias``, and the class is the
largest. For k-means this is exact: the nearest centroid c is the largest of 2 z.c - |c|^2, whatever affine
standardisation z of the vector comes before. That is what allows scores to be interpolated instead of
vectors.

Classes are numbered from 1, from dark to bright by the mean intensity of the patches they hold (ties: the
larger first), so that the numbers do not change from one fit to the next. A saved clusterer keeps its
numbers on every volume.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from vemseg.errors import InputError, UsageError
from vemseg.recipe import ClusterTable
from vemseg.run import load_tensors, save_tensors

KIND = "vemseg-clusters"
FORMAT = 1
SEARCH = 50_000
"""Vectors on which the restarts compete; the best is then refined on the whole sample."""


@dataclass(frozen=True)
class Clusterer:
    """K classes as affine scores.

    Attributes
    ----------
    weight : float32 (d, K)
    bias : float32 (K,)
    metadata : dict
        What made it: method, seed, sizes of the classes in the sample, the encoder's hash.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    metadata: dict[str, Any]

    @property
    def k(self) -> int:
        """Number of classes."""
        return len(self.bias)

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        return len(self.weight)

    def scores(self, vectors: Tensor) -> Tensor:
        """Return class scores: float32 (..., d) -> float32 (..., K), on the device of the vectors.

        Summed in float64: the last bit of a float32 product depends on the size of the batch and on where
        its arrays lie in memory, and labels must not (a device without float64 makes do).
        """
        exact = torch.float32 if vectors.device.type == "mps" else torch.float64
        weight, bias = (torch.from_numpy(a).to(vectors.device, exact) for a in (self.weight, self.bias))
        return (vectors.to(exact) @ weight + bias).float()

    def save(self, path: Path) -> None:
        """Write the clusterer as safetensors with its metadata, whole or not at all."""
        arrays = {"weight": self.weight, "bias": self.bias}
        save_tensors(path, arrays, {"kind": KIND, "format": FORMAT} | self.metadata)

    @classmethod
    def load(cls, path: Path) -> Clusterer:
        """Read a saved clusterer.

        Raises
        ------
        MissingError, InputError
            Where there is no such file, or it holds something else.
        """
        arrays, metadata = load_tensors(path)
        if metadata.get("kind") != KIND or not {"weight", "bias"} <= set(arrays):
            raise InputError(f"{path}: no clusters saved by vemseg")
        if metadata.get("format") != FORMAT:
            raise InputError(
                f"{path}: clusters of format {metadata.get('format')}; this version reads {FORMAT}"
            )
        kept = {key: value for key, value in metadata.items() if key not in ("kind", "format")}
        return cls(arrays["weight"], arrays["bias"], kept)


def fit(vectors: NDArray[np.float16], intensities: NDArray[np.float32], settings: ClusterTable) -> Clusterer:
    """Fit k-means to a sample of vectors.

    Restarts (k-means++, Lloyd) compete on the first ``SEARCH`` vectors of a shuffled sample; the best is
    refined by Lloyd's algorithm on all of it. A deliberate deviation from restarting on the whole sample,
    ten times cheaper.

    Parameters
    ----------
    vectors : float16 (n, d)
        The sample.
    intensities : float32 (n,)
        Mean intensity of the patch of each vector; orders the classes.
    settings : ClusterTable
        K, restarts, iterations, seed, whether to standardise.

    Raises
    ------
    UsageError
        Where K exceeds the sample.
    InputError
        Where the sample has fewer than K distinct vectors, or NaN or infinity in them.
    """
    if settings.k > len(vectors):
        raise UsageError(f"k = {settings.k} classes cannot be fitted to a sample of {len(vectors)} vectors")
    if not np.isfinite(vectors).all():
        raise InputError("the sample's vectors hold NaN or infinity: the model's weights are damaged")
    rng = np.random.default_rng([settings.seed, 0xC1])
    data = vectors[rng.permutation(len(vectors))].astype(np.float32)
    mean = np.zeros(data.shape[1], np.float32)
    scale = np.ones(data.shape[1], np.float32)
    if settings.standardise:
        mean = data.mean(axis=0, dtype=np.float64).astype(np.float32)
        deviation = data.std(axis=0, dtype=np.float64).astype(np.float32)
        scale = np.where(deviation > 0, deviation, 1).astype(np.float32)
    data -= mean
    data /= scale
    centres = _kmeans(data, settings)
    weight, bias = _affine(centres, mean, scale)
    order, sizes, grey = _dark_to_bright(vectors, intensities, weight, bias)
    metadata = {
        "method": settings.method,
        "k": settings.k,
        "seed": settings.seed,
        "sample": len(vectors),
        "sizes": sizes,
        "intensities": grey,
        "standardise": settings.standardise,
    }
    return Clusterer(np.ascontiguousarray(weight[:, order]), bias[order], metadata)


def _kmeans(data: NDArray[np.float32], settings: ClusterTable) -> NDArray[np.float32]:
    """Return centroids (K, d): restarts on a part, refined on the whole."""
    search = data[:SEARCH] if settings.k <= SEARCH else data
    common = {"n_clusters": settings.k, "max_iter": settings.max_iterations, "random_state": settings.seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # empty classes, which are looked into below
        found = KMeans(init="k-means++", n_init=settings.restarts, **common).fit(search)
        if len(search) < len(data):
            found = KMeans(init=found.cluster_centers_, n_init=1, **common).fit(data)
    if len(np.unique(found.labels_)) < settings.k:
        distinct = len(np.unique(data, axis=0))
        if distinct < settings.k:
            raise InputError(
                f"k = {settings.k} classes, but the sample has only {distinct} distinct vectors: lower -k"
            )
    centres: NDArray[np.float32] = found.cluster_centers_.astype(np.float32)
    return centres


def _affine(
    centres: NDArray[np.float32], mean: NDArray[np.float32], scale: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight and bias of the scores 2 z.c - |c|^2 with z = (vector - mean) / scale."""
    weight = 2.0 * centres.T.astype(np.float64) / scale[:, None]
    bias = -mean.astype(np.float64) @ weight - np.square(centres, dtype=np.float64).sum(axis=1)
    return weight.astype(np.float32), bias.astype(np.float32)


def _dark_to_bright(
    vectors: NDArray[np.float16],
    intensities: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> tuple[NDArray[np.int64], list[int], list[float | None]]:
    """Return the order of the classes, and their sizes and mean intensities in that order."""
    k = len(bias)
    label = np.concatenate(
        [(part.astype(np.float32) @ weight + bias).argmax(axis=1) for part in np.array_split(vectors, 64)]
    )
    sizes = np.bincount(label, minlength=k)
    grey = np.bincount(label, weights=intensities, minlength=k) / np.maximum(sizes, 1)
    order = np.lexsort((-sizes, np.where(sizes > 0, grey, np.inf)))
    return (
        order,
        [int(sizes[i]) for i in order],
        [round(float(grey[i]), 6) if sizes[i] else None for i in order],
    )
