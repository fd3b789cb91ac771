"""``segment``: volume + model [+ clusterer] -> labels, a QC picture, statistics, provenance.

1. open the volume, lay the model over it
2. fit a clusterer on a sample, or load one
3. stream blocks: vectors -> scores -> interpolated -> labels, each into its own shards
4. QC picture, statistics, provenance; the labels take their name last

Everything grows in ``<out>.partial/``, which holds the clusterer, the blocks that are done, and the settings
they were made with: a killed run goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import map_blocks
from vemseg.clustering import Clusterer, fit
from vemseg.dense import DenseEncoder, StoredVectors, labels
from vemseg.drawing import palette
from vemseg.errors import InputError, MissingError, UsageError
from vemseg.features import Features
from vemseg.geometry import ZYX, Box
from vemseg.pipeline.common import (
    Model,
    Report,
    Stopped,
    describe,
    log,
    open_input,
    open_model,
    sharp_plane_first,
)
from vemseg.pipeline.dense_input import draw_sample, lay_model, stored_sample
from vemseg.pipeline.outputs import beside, check_beside, class_table, legend_of, state_beside, write_beside
from vemseg.pipeline.resume import STORE, alone_in, done_already, take_up
from vemseg.recipe import ClusterTable, Recipe, override, parse_recipe
from vemseg.run import fingerprint, provenance
from vemseg.volume import LabelStore, Volume, check_output, finish_labels, partial_directory
from vemseg.volume.publish import remove

BLOCK_VOXELS = 2**23
LEAST_VOXELS = 2**16
BLOCK_BYTES = 2**28
"""Bounds of a block: its voxels, and the bytes of the scores (in 3-D, the features) held of it."""


@dataclass(frozen=True)
class Subject:
    """What is segmented: where its vectors come from, and how these lie in the volume.

    Attributes
    ----------
    volume : Volume
        The grey volume.
    vectors : DenseEncoder or StoredVectors
        In the orientation whose sharp plane is (y, x).
    order : (int, int, int)
        Axes of that orientation in the volume's.
    recipe : Recipe
    model : str
        Hash of the model.
    inputs, parents : list of Path
    """

    volume: Volume
    vectors: DenseEncoder | StoredVectors
    order: ZYX
    recipe: Recipe
    model: str
    inputs: list[Path]
    parents: list[Path]

    def block_shape(self, k: int) -> ZYX:
        """Return the voxels to segment at a time into ``k`` classes."""
        density = np.prod(self.vectors.shape) / np.prod(self.volume.shape)
        channels = k + (self.vectors.dim if self.vectors.in_cubes else 0)
        voxels = min(BLOCK_VOXELS, max(LEAST_VOXELS, int(BLOCK_BYTES / (4 * channels * density))))
        return block_shape(self.volume.shape, self.order, self.vectors.in_cubes, voxels)


def segment(
    path: str,
    out: Path,
    *,
    model: str | None = None,
    clusters: Path | None = None,
    settings: Sequence[str] = (),
    names: dict[int, str] | None = None,
    voxel_size: str | None = None,
    crop: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    report: Report,
    stopped: Stopped,
) -> Path:
    """Segment a volume into K classes, numbered 1..K from dark to bright; 0 is nothing.

    Parameters
    ----------
    path : str
        A volume, or features that ``embed`` stored.
    out : Path
        Labels, .tif or .ome.zarr; beside them ``<stem>.json``, ``<stem>.csv`` and ``<stem>_qc.png``.
    model : str, optional
        As in ``open_model``; the bundled weights where left out.
    clusters : Path, optional
        A clusterer that ``cluster`` or an earlier ``segment`` saved; fitted to this volume where left out.
    settings : sequence of str
        ``table.key=value`` laid over the model's recipe.
    names : dict of int to str, optional
        Names of classes.

    Raises
    ------
    MissingError
        Where there is no such model or clusterer.
    OutputExistsError
        Where labels, or the beginnings of them, made with other settings are there and ``overwrite`` is not
        set. Labels made with the same settings are left alone.
    Interrupted
        Where it was stopped; the same call goes on.
    """
    check_output(out, overwrite=True)
    if clusters is not None and not clusters.is_file():
        raise MissingError(f"no clusters at {clusters}: 'cluster' or an earlier 'segment' makes them")
    subject = _open(path, model, clusters, settings, voxel_size, crop, device)
    if out.resolve() in {p.resolve() for p in [*subject.inputs, *subject.parents, *_source(subject)]}:
        raise UsageError(f"{out} is an input: name another output with -o")
    state = _state(subject, out, clusters, names)
    partial = partial_directory(out)
    with alone_in(partial, out):
        if not overwrite and done_already(out, partial, state_beside(out), state):
            log.info("%s is there already, made with the same settings", out)
            return out
        if not overwrite:
            check_beside(out)
        take_up(out, partial, state, overwrite)
        clusterer = _clusterer(subject, clusters, partial, report)
        legend = legend_of(clusterer, names)
        store, counts = _stream(subject, clusterer, partial, report, stopped)
        return _finish(subject, clusterer, store, counts, out, state, legend, overwrite)


def _finish(
    subject: Subject,
    clusterer: Clusterer,
    store: LabelStore,
    counts: NDArray[np.int64],
    out: Path,
    state: dict[str, Any],
    legend: dict[int, str],
    overwrite: bool,
) -> Path:
    """Write what lies beside the labels, then give these their name."""
    classes = class_table(clusterer, legend, counts, subject.volume.voxel_size)
    intensity = subject.vectors.intensity if isinstance(subject.vectors, DenseEncoder) else None
    origin = provenance(
        "segmentation",
        recipe=subject.recipe,
        seed=subject.recipe.cluster.seed,
        parents=subject.parents,
        inputs=subject.inputs,
        extra={"state": state, "classes": classes, "volume": describe(subject.volume, intensity)},
    )
    write_beside(out, subject.volume, store, origin, legend, classes)
    clusterer.save(beside(out, "_clusters.safetensors"))
    return finish_labels(
        store,
        out,
        names=legend,
        colours=dict(enumerate(palette(clusterer.k), start=1)),
        voxel_size=subject.volume.voxel_size,
        description=origin,
        overwrite=overwrite,
    )


def _open(
    path: str,
    model: str | None,
    clusters: Path | None,
    settings: Sequence[str],
    voxel_size: str | None,
    crop: str | None,
    device: str,
) -> Subject:
    parents = [clusters] if clusters else []
    if (Path(path) / "vectors").is_dir():
        if model or voxel_size or crop:
            raise UsageError(
                f"{path} holds features: model, voxel size and crop are those they were made with"
            )
        return _open_features(Path(path), parents, settings)
    chosen: Model = open_model(model, settings)
    volume = open_input(path, voxel_size, crop)
    oriented, order = sharp_plane_first(volume)
    inputs = [volume.path] if volume.path else []
    dense = lay_model(chosen, oriented, device)
    return Subject(volume, dense, order, chosen.recipe, chosen.hash, inputs, [*chosen.parents, *parents])


def _open_features(path: Path, parents: list[Path], settings: Sequence[str]) -> Subject:
    features = Features(path)
    facts = features.attributes
    source = facts["volume"]
    size = None if features.voxel_size is None else ",".join(map(str, features.voxel_size))
    volume = open_input(source["path"], size, source["crop"])
    if volume.shape != features.source_shape:
        raise InputError(f"{source['path']} has changed since {path} was made from it: {volume.shape} voxels")
    recipe = override(parse_recipe(facts["recipe"], str(path)), settings)
    z, y, x = facts["order"]
    return Subject(volume, StoredVectors(features), (z, y, x), recipe, facts["model"], [path], parents)


def _source(subject: Subject) -> list[Path]:
    return [subject.volume.path] if subject.volume.path else []


def _state(
    subject: Subject, out: Path, clusters: Path | None, names: dict[int, str] | None
) -> dict[str, Any]:
    """Return what labels depend on: two calls with equal states give equal labels."""
    source = describe(subject.volume)
    return {
        "output": out.name,
        "settings": {
            f"{table}.{key}": value
            for table in ("volume", "model", "embed", "cluster")
            for key, value in subject.recipe.settings[table].items()
            if key != "batch"
        },
        "model": subject.model,
        "clusters": fingerprint(clusters, whole=True)["sha256"] if clusters else None,
        "names": {str(k): v for k, v in (names or {}).items()},
        "volume": [fingerprint(p)["sha256"] for p in subject.inputs],
        "voxel_size": source["voxel_size_nm"],
        "crop": source["crop"],
    }


def _clusterer(subject: Subject, clusters: Path | None, partial: Path, report: Report) -> Clusterer:
    """Load the clusterer, or fit it and keep it for the case of a resume."""
    kept = partial / "clusters.safetensors"
    if clusters is not None or kept.exists():
        clusterer = Clusterer.load(clusters or kept)
        if clusterer.dim != (dim := subject.vectors.dim):
            raise InputError(f"{clusters}: clusters of {clusterer.dim} features, but the model has {dim}")
        if clusterer.metadata.get("model") not in (None, subject.model):
            raise InputError(f"{clusters or kept}: these clusters were fitted to another model's vectors")
        return clusterer
    table: ClusterTable = subject.recipe.cluster
    if isinstance(subject.vectors, StoredVectors):
        vectors, grey = stored_sample(subject.vectors.features, table.sample, table.seed)
    else:
        vectors, grey = draw_sample(subject.vectors, table.sample, table.seed, report)
    report("clustering", 0.0, f"{len(vectors)} vectors into {table.k} classes")
    fitted = fit(vectors, grey, table)
    clusterer = Clusterer(fitted.weight, fitted.bias, fitted.metadata | {"model": subject.model})
    clusterer.save(kept)
    report("clustering", 1.0)
    return clusterer


def _stream(
    subject: Subject, clusterer: Clusterer, partial: Path, report: Report, stopped: Stopped
) -> tuple[LabelStore, NDArray[np.int64]]:
    """Label every block; return the store and the voxels of each label, 0..K."""
    directory = partial / STORE
    volume = subject.volume
    if directory.exists():
        store = LabelStore.open(directory)
    else:
        remove(partial / "done")  # markers of a store that has become an output already
        shape = subject.block_shape(clusterer.k)
        store = LabelStore.create(directory, volume.shape, shape, voxel_size=volume.voxel_size)

    def work(box: Box) -> list[int]:
        turned = labels(subject.vectors, _turn(box, subject.order), clusterer.scores)
        block = np.ascontiguousarray(turned.transpose(np.argsort(subject.order)))
        store.write(box, block)
        counts: list[int] = np.bincount(block.ravel(), minlength=clusterer.k + 1).tolist()
        return counts

    def progress(done: int, total: int) -> None:
        report("segmenting", done / total, f"{done / 1e6:.1f}/{total / 1e6:.1f} Mvoxel")

    blocks = list(store.box.split(store.block_shape))
    counts = map_blocks(work, blocks, partial / "done", progress, stopped)
    return store, np.sum(counts, axis=0)


def block_shape(shape: ZYX, order: ZYX, cubes: bool, voxels: int) -> ZYX:
    """Return the edges of the blocks to compute at a time.

    Parameters
    ----------
    shape : (int, int, int)
        Of the volume.
    order : (int, int, int)
        Its axes, the one across the sharp plane first.
    cubes : bool
        Near-cubes, where context is needed along all axes; slabs of whole sharp planes else.
    voxels : int
        About how many; a single plane may hold more.
    """
    block = [1, 1, 1]
    if cubes:
        edge = max(32, round(voxels ** (1 / 3) / 32) * 32)
        wanted = dict.fromkeys(range(3), edge)
    else:
        across, *plane = order
        sides = {axis: min(shape[axis], 2048) for axis in plane}
        thickness = max(1, min(64, voxels // (sides[plane[0]] * sides[plane[1]])))
        wanted = {across: thickness} | sides
    for axis in range(3):
        parts = -(-shape[axis] // wanted[axis])
        block[axis] = -(-shape[axis] // parts)
    return block[0], block[1], block[2]


def _turn(box: Box, order: ZYX) -> Box:
    """Return a box of the volume in the orientation ``order``."""
    z, y, x = (box.start[axis] for axis in order)
    z1, y1, x1 = (box.stop[axis] for axis in order)
    return Box((z, y, x), (z1, y1, x1))
