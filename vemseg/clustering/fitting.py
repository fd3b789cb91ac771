"""A sample -> scaling -> method -> a clusterer, its classes from dark to bright."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vemseg.clustering.clusterer import Clusterer
from vemseg.clustering.methods import METHODS, Heads, joined
from vemseg.clustering.scaling import Scaling, scaling
from vemseg.errors import InputError, UsageError
from vemseg.recipe import ClusterTable

OF_METHOD = {
    "kmeans": (),
    "gmm": ("components", "mixture_sample"),
    "linkage": ("parts", "linkage"),
    "codebook": ("linkage",),
}
"""The settings that count for a method alone; they go into the metadata."""

NO_CODES = (
    "cluster.method codebook needs vectors as a model with a codebook gives them (his4mae): "
    "take another method"
)


def fit(
    vectors: NDArray[np.float16],
    intensities: NDArray[np.float32],
    settings: ClusterTable,
    codes: NDArray[np.float32] | None = None,
) -> Clusterer:
    """Fit classes to a sample of vectors.

    Parameters
    ----------
    vectors : float16 (n, d)
        The sample.
    intensities : float32 (n,)
        Mean intensity of the patch of each vector; orders the classes.
    settings : ClusterTable
        Method, scaling, K, restarts, iterations, seed.
    codes : float32 (n, d), optional
        What the model learned of its vectors; "codebook" joins these.

    Raises
    ------
    UsageError
        Where K, or the parts that K classes are joined from, exceed the sample; where codes are asked for
        and there are none.
    InputError
        Where the sample has fewer than K distinct vectors, or NaN or infinity in them.
    """
    _check(vectors, settings)
    rng = np.random.default_rng([settings.seed, 0xC1])
    data = vectors[rng.permutation(len(vectors))].astype(np.float32)
    scaled = scaling(data, settings)
    if scaled is not None:
        scaled.apply(data)
    if settings.method == "codebook":
        heads = joined(data, _scaled_codes(codes, scaled, data.shape[1]), settings).after(scaled)
    else:
        heads = METHODS[settings.method](data, settings).after(scaled)
    order, counted = _dark_to_bright(vectors, intensities, _clusterer(heads, {}))
    metadata = {
        "method": settings.method,
        "scale": settings.scale,
        "k": settings.k,
        "seed": settings.seed,
        "sample": len(vectors),
    }
    metadata |= {name: getattr(settings, name) for name in OF_METHOD[settings.method]}
    return _clusterer(heads.grouped(np.argsort(order)), metadata | counted)


def joined_parts(settings: ClusterTable, codes: NDArray[np.float32] | None) -> int:
    """Return how many clusters, or codes, classes are joined from; 0 where they are not joined.

    Raises
    ------
    UsageError
        Where codes are asked for and there are none, or fewer than K.
    """
    if settings.method == "linkage":
        return settings.parts
    if settings.method != "codebook":
        return 0
    if codes is None:
        raise UsageError(NO_CODES)
    if settings.k > len(codes):
        raise UsageError(f"k = {settings.k} classes cannot be joined from the model's {len(codes)} codes")
    return len(codes)


def _scaled_codes(codes: NDArray[np.float32] | None, scaled: Scaling | None, dim: int) -> NDArray[np.float32]:
    """Return codes as the vectors are scaled.

    Raises
    ------
    UsageError
        Where there are none, or they are no vectors of the same length.
    """
    if codes is None or codes.shape[1] != dim:
        raise UsageError(NO_CODES)
    codes = codes.copy()
    if scaled is not None:
        scaled.apply(codes)
    return codes


def _check(vectors: NDArray[np.float16], settings: ClusterTable) -> None:
    n = len(vectors)
    if settings.k > n:
        raise UsageError(f"k = {settings.k} classes cannot be fitted to a sample of {n} vectors")
    for method, name in (("linkage", "parts"), ("gmm", "components")):
        if settings.method == method and (parts := getattr(settings, name)) > n:
            raise UsageError(f"cluster.{name} = {parts} cannot be fitted to a sample of {n} vectors")
    if not np.isfinite(vectors).all():
        raise InputError("the sample's vectors hold NaN or infinity: the model's weights are damaged")


def _clusterer(heads: Heads, metadata: dict[str, Any]) -> Clusterer:
    return Clusterer(
        np.ascontiguousarray(heads.weight, np.float32),
        heads.bias.astype(np.float32),
        metadata,
        None if (heads.parts == 1).all() else heads.parts,
        None if heads.offset is None else heads.offset.astype(np.float32),
    )


def _dark_to_bright(
    vectors: NDArray[np.float16], intensities: NDArray[np.float32], clusterer: Clusterer
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Return the order of the classes, and their sizes and mean intensities in that order."""
    label = np.concatenate(
        [
            clusterer.scores(torch.from_numpy(part.astype(np.float32))).argmax(dim=-1).numpy()
            for part in np.array_split(vectors, 64)
        ]
    )
    sizes = np.bincount(label, minlength=clusterer.k)
    grey = np.bincount(label, weights=intensities, minlength=clusterer.k) / np.maximum(sizes, 1)
    order = np.lexsort((-sizes, np.where(sizes > 0, grey, np.inf)))
    return order, {
        "sizes": [int(sizes[i]) for i in order],
        "intensities": [round(float(grey[i]), 6) if sizes[i] else None for i in order],
    }
