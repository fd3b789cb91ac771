"""``embed`` and ``cluster``: the stages of ``segment`` apart, with the vectors stored between them."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vemseg.clustering import fit
from vemseg.dense import PatchMean, lattice_boxes
from vemseg.errors import InputError, Interrupted, OutputExistsError
from vemseg.features import Features
from vemseg.geometry import Box
from vemseg.pipeline.common import Report, Stopped, describe, open_input, open_model, sharp_plane_first
from vemseg.pipeline.dense_input import lay_model, stored_sample
from vemseg.recipe import ClusterTable
from vemseg.run import provenance

log = logging.getLogger("vemseg")


def embed(
    path: str,
    out: Path,
    *,
    model: str | None = None,
    settings: Sequence[str] = (),
    voxel_size: str | None = None,
    crop: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    report: Report,
    stopped: Stopped,
) -> Path:
    """Store the vectors of a volume on their lattice, float16.

    Returns
    -------
    Path
        ``out``, a Zarr directory (``features.Features``).

    Raises
    ------
    OutputExistsError
        Where it exists and ``overwrite`` is not set.
    Interrupted
        Where it was stopped; nothing is kept.
    """
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists: choose another name or overwrite it (-f)")
    chosen = open_model(model, settings)
    volume = open_input(path, voxel_size, crop)
    oriented, order = sharp_plane_first(volume)
    dense = lay_model(chosen, oriented, device)
    layout, dim = dense.layout, dense.encoder.dim
    size = int(np.prod(layout.shape)) * (dim + 1) * 2
    log.info("%s vectors of %d numbers: %.3g GB at most", "x".join(map(str, layout.shape)), dim, size / 1e9)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    attributes = {
        "source": None if volume.path is None else str(volume.path),
        "source_shape": list(volume.shape),
        "voxel_size_nm": None if volume.voxel_size is None else list(volume.voxel_size),
        "order": list(order),
        "inside": [list(layout.inside.start), list(layout.inside.stop)],
        "cell": list(layout.cell),
        "model": chosen.hash,
        "recipe": chosen.recipe.to_toml(),
        "volume": describe(volume, dense.intensity),
        "provenance": provenance(
            "features",
            recipe=chosen.recipe,
            parents=chosen.parents,
            inputs=[volume.path] if volume.path else [],
        ),
    }
    try:
        box_shape = lattice_boxes(layout.shape, layout.cell, dim)
        features = Features.create(partial, layout.positions, dim, box_shape, attributes)
        means = dense.with_encoder(PatchMean(dense.encoder))
        boxes = list(Box.whole(layout.shape).split(features.box_shape))
        for i, box in enumerate(boxes):
            if stopped():
                raise Interrupted(f"stopped after {i} of {len(boxes)} boxes; nothing is kept: start it again")
            features.write(box, dense.values(box).numpy(), means.values(box).numpy()[..., 0])
            report("embedding", (i + 1) / len(boxes), f"{i + 1}/{len(boxes)} boxes")
        if overwrite:
            shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def cluster(paths: Sequence[Path], out: Path, table: ClusterTable, *, overwrite: bool = False) -> Path:
    """Fit a clusterer to stored features, of one volume or of several alike.

    Returns
    -------
    Path
        ``out``, a safetensors file (``clustering.Clusterer``).

    Raises
    ------
    OutputExistsError
        Where it exists and ``overwrite`` is not set.
    InputError
        Where the features were made by different models.
    """
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists: choose another name or overwrite it (-f)")
    stores = [Features(path) for path in paths]
    models = {store.attributes["model"] for store in stores}
    if len(models) > 1:
        raise InputError(f"features of {len(models)} different models cannot be clustered together")
    samples = [stored_sample(store, -(-table.sample // len(stores)), table.seed) for store in stores]
    clusterer = fit(
        np.concatenate([vectors for vectors, _ in samples]),
        np.concatenate([grey for _, grey in samples]),
        table,
    )
    about = {"model": models.pop(), "provenance": provenance("clusters", seed=table.seed, inputs=paths)}
    dataclasses.replace(clusterer, metadata=clusterer.metadata | about).save(out)
    return out
