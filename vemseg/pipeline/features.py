"""``embed`` and ``cluster``: the stages of ``segment`` apart, with the vectors stored between them."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import Stages, map_blocks
from vemseg.clustering import Clusterer, fit, joined_parts
from vemseg.dense import DenseEncoder, PatchMean
from vemseg.errors import InputError, UsageError
from vemseg.features import Features, HeldFeatures
from vemseg.files import remove
from vemseg.geometry import Box
from vemseg.pipeline.common import (
    Report,
    Stopped,
    describe,
    open_input,
    open_model,
    sharp_plane_first,
    silent,
)
from vemseg.pipeline.dense_input import lay_model, stored_sample
from vemseg.pipeline.memory import lattice_blocks, set_threads
from vemseg.pipeline.resume import STORE, alone_in, done_already, take_up
from vemseg.recipe import ClusterTable
from vemseg.resources import memory_budget, resident_memory
from vemseg.run import fingerprint, provenance
from vemseg.volume import partial_directory
from vemseg.volume.publish import publish

log = logging.getLogger("vemseg")

HELD_SHARE = 0.4
"""Of the memory that is left, what vectors of a whole volume may take."""

Values = tuple[NDArray[np.float16], NDArray[np.float16]]
"""Vectors (z, y, x, d) and mean intensities (z, y, x)."""


def embed(
    path: str,
    out: Path,
    *,
    model: str | None = None,
    settings: Sequence[str] = (),
    voxel_size: str | None = None,
    crop: str | None = None,
    device: str = "auto",
    max_memory: int | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    report: Report,
    stopped: Stopped,
) -> Path:
    """Store the vectors of a volume on their lattice, float16.

    Parameters
    ----------
    max_memory, threads : int, optional
        Bytes this process may occupy, and threads to compute with; both follow from the machine where left
        out.

    Returns
    -------
    Path
        ``out``, a Zarr directory (``features.Features``).

    Raises
    ------
    UsageError
        Where ``out`` is not named .zarr.
    InputError
        Where ``out`` exists and holds no features.
    OutputExistsError
        Where it, or its beginnings, were made with other settings and ``overwrite`` is not set.
    ResourceError
        Where ``max_memory`` is not enough.
    Interrupted
        Where it was stopped; the same call goes on.
    """
    if out.suffix != ".zarr":
        raise UsageError(f"{out} has no suffix of stored features: name it .zarr")
    if out.exists():
        Features(out)  # anything else is not ours to replace
    set_threads(threads)
    chosen = open_model(model, settings)
    volume = open_input(path, voxel_size, crop)
    oriented, order = sharp_plane_first(volume)
    dense = lay_model(chosen, oriented, device)
    inputs = [volume.path] if volume.path else []
    prints = [fingerprint(path) for path in inputs]
    origin = provenance("features", recipe=chosen.recipe, parents=chosen.parents, inputs=prints)
    state: dict[str, Any] = {
        "model": chosen.hash,
        "settings": {f"embed.{k}": v for k, v in chosen.recipe.settings["embed"].items() if k != "batch"},
        "volume": describe(volume, dense.intensity),
        "sha256": [found["content"] for found in prints],
    }
    attributes = {
        "source_shape": list(volume.shape),
        "voxel_size_nm": state["volume"]["voxel_size_nm"],
        "order": list(order),
        "inside": [list(dense.layout.inside.start), list(dense.layout.inside.stop)],
        "cell": list(dense.layout.cell),
        "recipe": chosen.recipe.to_toml(),
        "state": state,
        "provenance": origin,
    } | {key: state[key] for key in ("model", "volume")}
    partial = partial_directory(out)
    with alone_in(partial, out):
        made = Features(out).attributes.get("state") if out.exists() else None
        if not overwrite and done_already(out, partial, made, state):
            log.info("%s is there already, made with the same settings", out)
            return out
        take_up(out, partial, state, overwrite)
        _stream(dense, partial, attributes, chosen.codes, max_memory, report, stopped)
        publish(partial / STORE, out, overwrite)
    return out


def _stream(
    dense: DenseEncoder,
    partial: Path,
    attributes: dict[str, Any],
    codes: NDArray[np.float32] | None,
    limit: int | None,
    report: Report,
    stopped: Stopped,
) -> None:
    """Compute and store the vectors, box by box."""
    layout, dim = dense.layout, dense.dim
    size = int(np.prod(layout.shape)) * (dim + 1) * 2
    log.info("%s vectors of %d numbers: %.3g GB at most", "x".join(map(str, layout.shape)), dim, size / 1e9)
    store = partial / STORE
    if not store.exists():
        remove(partial / "done")  # markers of a store that has become an output already
        Features.create(store, layout.positions, dim, lattice_blocks(dense, limit).shape, attributes, codes)
    features = Features(store, mode="r+")

    def progress(done: int, total: int) -> None:
        report("embedding", done / total, f"{done / 1e6:.2f}/{total / 1e6:.2f} million vectors")

    boxes = list(Box.whole(layout.shape).split(features.box_shape))
    map_blocks(_stages(dense, features), boxes, partial / "done", progress, stopped)


def _stages(dense: DenseEncoder, features: Features | HeldFeatures) -> Stages[NDArray[Any], Values]:
    """Return how a box of vectors is read, computed and kept."""
    means = dense.with_encoder(PatchMean(dense.encoder))

    def compute(box: Box, given: NDArray[Any]) -> Values:
        return dense.compute(box, given).numpy(), means.compute(box, given).numpy()[..., 0]

    def write(box: Box, values: Values) -> None:
        features.write(box, *values)

    return Stages(dense.read, compute, write)


def hold(dense: DenseEncoder, limit: int | None, report: Report, stopped: Stopped) -> HeldFeatures | None:
    """Compute all vectors of a volume and keep them in memory, where they take a small part of it.

    So what is needed twice, to fit classes and to label, is computed once. Only encoders of whole windows
    are asked: they are fast enough for a run that was killed to compute them again.

    Returns
    -------
    HeldFeatures or None
        None where it does not pay.
    """
    if not fits_in_memory(dense, limit):
        return None
    layout = dense.layout
    left = (limit or memory_budget()) - held_bytes(dense)
    boxes = list(Box.whole(layout.shape).split(lattice_blocks(dense, left).shape))
    held = HeldFeatures(layout.positions, dense.dim, layout.inside, layout.cell)

    def progress(done: int, total: int) -> None:
        report("encoding", done / total, f"{done / 1e6:.2f}/{total / 1e6:.2f} million vectors")

    map_blocks(_stages(dense, held), boxes, None, progress, stopped)
    return held


def fits_in_memory(dense: DenseEncoder, limit: int | None) -> bool:
    """Tell whether ``hold`` would keep the vectors of a volume."""
    left = (limit or memory_budget()) - resident_memory()
    return dense.encoder.halo is not None and held_bytes(dense) <= HELD_SHARE * left


def held_bytes(dense: DenseEncoder) -> int:
    """Return the bytes that ``hold`` keeps."""
    return int(np.prod(dense.layout.shape)) * (dense.dim + 1) * 2


def fit_classes(
    vectors: NDArray[np.float16],
    intensities: NDArray[np.float32],
    table: ClusterTable,
    codes: NDArray[np.float32] | None,
    report: Report,
) -> Clusterer:
    """Fit a clusterer to a sample, as ``clustering.fit`` does, and say so before and after."""
    report("clustering", 0.0, f"{len(vectors)} vectors into {table.k} classes")
    clusterer = fit(vectors, intensities, table, codes)
    report("clustering", 1.0, f"{len(vectors)} vectors into {table.k} classes")
    return clusterer


def cluster(
    paths: Sequence[Path],
    out: Path,
    table: ClusterTable,
    *,
    overwrite: bool = False,
    report: Report = silent,
) -> Path:
    """Fit a clusterer to stored features, of one volume or of several alike.

    Returns
    -------
    Path
        ``out``, a safetensors file (``clustering.Clusterer``).

    Raises
    ------
    OutputExistsError
        Where it exists, made with other settings or of other features, and ``overwrite`` is not set.
    InputError
        Where the features were made by different models.
    """
    stores = [Features(path) for path in paths]
    models = {store.attributes["model"] for store in stores}
    if len(models) > 1:
        raise InputError(f"features of {len(models)} different models cannot be clustered together")
    state = {
        "output": out.name,
        "settings": {f"cluster.{key}": value for key, value in table.model_dump(mode="json").items()},
        "model": stores[0].attributes["model"],
        "features": [fingerprint(path)["content"] for path in paths],
    }
    if not overwrite and done_already(out, partial_directory(out), _made(out), state):
        log.info("%s is there already, made with the same settings", out)
        return out
    joined_parts(table, stores[0].codes)
    sample = table.sample_of(sum(math.prod(store.source_shape) for store in stores))
    samples = [stored_sample(store, -(-sample // len(stores)), table.seed, report) for store in stores]
    clusterer = fit_classes(
        np.concatenate([vectors for vectors, _ in samples]),
        np.concatenate([grey for _, grey in samples]),
        table,
        stores[0].codes,
        report,
    )
    origin = provenance("clusters", seed=table.seed, inputs=map(fingerprint, paths), extra={"state": state})
    about = {"model": models.pop(), "provenance": origin}
    dataclasses.replace(clusterer, metadata=clusterer.metadata | about).save(out)
    return out


def _made(clusters: Path) -> dict[str, Any] | None:
    """Return the state that a file says it was made with, None where it says nothing."""
    if not clusters.is_file():
        return None
    try:
        found: dict[str, Any] = Clusterer.load(clusters).metadata.get("provenance", {})
    except InputError:
        return None
    state: dict[str, Any] | None = found.get("state")
    return state
