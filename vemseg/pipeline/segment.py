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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import Stages, map_blocks
from vemseg.clustering import Clusterer, joined_parts
from vemseg.context import Context
from vemseg.dense import DenseEncoder, StoredVectors, block_input, block_labels
from vemseg.dense.scores import in_parts
from vemseg.drawing import palette
from vemseg.errors import InputError, MissingError, UsageError
from vemseg.geometry import ZYX, Box
from vemseg.pipeline.adapt import adaptation
from vemseg.pipeline.common import Report, Stopped, describe, log
from vemseg.pipeline.dense_input import draw_sample, stored_sample
from vemseg.pipeline.features import fit_classes, hold
from vemseg.pipeline.memory import check_sample, set_threads
from vemseg.pipeline.outputs import beside, check_beside, class_table, legend_of, state_beside, write_beside
from vemseg.pipeline.resume import STORE, alone_in, done_already, take_up
from vemseg.pipeline.subject import Subject, open_subject
from vemseg.pipeline.train import train
from vemseg.recipe import ClusterTable
from vemseg.run import fingerprint, provenance
from vemseg.volume import LabelStore, check_output, finish_labels, partial_directory
from vemseg.volume.publish import remove

CLUSTERS = "clusters.safetensors"
"""In the partial directory: the classes that were fitted."""


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
    max_memory: int | None = None,
    threads: int | None = None,
    adapt_seconds: float | None = None,
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
    max_memory : int, optional
        Bytes this process may occupy; labels do not depend on it.
    threads : int, optional
        To compute with; both follow from the machine where left out.
    adapt_seconds : float, optional
        First train the model on this volume for that long (see ``adaptation``).

    Raises
    ------
    MissingError
        Where there is no such model or clusterer.
    ResourceError
        Where ``max_memory`` is not enough.
    OutputExistsError
        Where labels, or the beginnings of them, made with other settings are there and ``overwrite`` is not
        set. Labels made with the same settings are left alone.
    Interrupted
        Where it was stopped; the same call goes on.
    """
    check_output(out, overwrite=True)
    if clusters is not None and not clusters.is_file():
        raise MissingError(f"no clusters at {clusters}: 'cluster' or an earlier 'segment' makes them")
    set_threads(threads)
    where: dict[str, Any] = {"voxel_size": voxel_size, "crop": crop, "device": device}
    if adapt_seconds is not None:
        job = adaptation(
            path, out, adapt_seconds, model=model, settings=settings, voxel_size=voxel_size, crop=crop
        )
        model = str(train(job, Context(device=device, report=report, stopped=stopped)))
    subject = open_subject(path, model=model, clusters=clusters, settings=settings, **where)
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
        blocks = _block_shape(subject, clusters, partial, max_memory)
        source = _held(subject, clusters, partial, max_memory, report, stopped)
        clusterer = _clusterer(source, clusters, partial, report, stopped)
        legend = legend_of(clusterer, names)
        store, counts = _stream(source, clusterer, blocks, partial, report, stopped)
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


def _block_shape(subject: Subject, clusters: Path | None, partial: Path, limit: int | None) -> ZYX:
    """Return the edges of the blocks: those of a run that goes on, or what the memory allows."""
    if (partial / STORE).exists():
        return LabelStore.open(partial / STORE).block_shape
    found = clusters or partial / CLUSTERS
    k = Clusterer.load(found).k if found.exists() else subject.recipe.cluster.k
    if not found.exists():
        parts = joined_parts(subject.recipe.cluster, subject.codes)
        check_sample(subject.vectors, subject.sample, parts, limit)
    blocks = subject.blocks(k, limit)
    log.info("%s: %s", subject.volume.name, blocks)
    return blocks.shape


def _held(
    subject: Subject,
    clusters: Path | None,
    partial: Path,
    limit: int | None,
    report: Report,
    stopped: Stopped,
) -> Subject:
    """Return the subject with its vectors in memory, where they are needed twice and are few."""
    fitted = clusters is not None or (partial / CLUSTERS).exists()
    if fitted or isinstance(subject.vectors, StoredVectors):
        return subject
    held = hold(subject.vectors, limit, report, stopped)
    return subject if held is None else replace(subject, vectors=StoredVectors(held))


def _clusterer(
    subject: Subject, clusters: Path | None, partial: Path, report: Report, stopped: Stopped
) -> Clusterer:
    """Load the clusterer, or fit it and keep it for the case of a resume."""
    kept = partial / CLUSTERS
    if clusters is not None or kept.exists():
        clusterer = Clusterer.load(clusters or kept)
        if clusterer.dim != (dim := subject.vectors.dim):
            raise InputError(f"{clusters}: clusters of {clusterer.dim} features, but the model has {dim}")
        if clusterer.metadata.get("model") not in (None, subject.model):
            raise InputError(f"{clusters or kept}: these clusters were fitted to another model's vectors")
        return clusterer
    table: ClusterTable = subject.recipe.cluster
    if isinstance(subject.vectors, StoredVectors):
        vectors, grey = stored_sample(subject.vectors.features, subject.sample, table.seed, report)
    else:
        vectors, grey = draw_sample(subject.vectors, subject.sample, table.seed, report, stopped)
    fitted = fit_classes(vectors, grey, table, subject.codes, report)
    clusterer = replace(fitted, metadata=fitted.metadata | {"model": subject.model})
    clusterer.save(kept)
    return clusterer


def _stream(
    subject: Subject, clusterer: Clusterer, shape: ZYX, partial: Path, report: Report, stopped: Stopped
) -> tuple[LabelStore, NDArray[np.int64]]:
    """Label every block; return the store and the voxels of each label, 0..K."""
    directory = partial / STORE
    volume = subject.volume
    if directory.exists():
        store = LabelStore.open(directory)
    else:
        remove(partial / "done")  # markers of a store that has become an output already
        store = LabelStore.create(directory, volume.shape, shape, voxel_size=volume.voxel_size)

    def progress(done: int, total: int) -> None:
        report("segmenting", done / total, f"{done / 1e6:.1f}/{total / 1e6:.1f} Mvoxel")

    blocks = list(store.box.split(store.block_shape))
    counts = map_blocks(_stages(subject, clusterer, store), blocks, partial / "done", progress, stopped)
    return store, np.sum(counts, axis=0)


def _stages(
    subject: Subject, clusterer: Clusterer, store: LabelStore
) -> Stages[NDArray[Any], NDArray[np.uint8]]:
    """Return how a block is read, labelled and written; writing returns the voxels of each label, 0..K."""
    vectors, head = subject.vectors, in_parts(clusterer.scores)

    def read(box: Box) -> NDArray[Any]:
        return block_input(vectors, subject.turn(box))

    def compute(box: Box, given: NDArray[Any]) -> NDArray[np.uint8]:
        return block_labels(vectors, subject.turn(box), given, head)

    def write(box: Box, turned: NDArray[np.uint8]) -> list[int]:
        block = np.ascontiguousarray(turned.transpose(subject.back))
        store.write(box, block)
        planes = [np.bincount(plane.ravel(), minlength=clusterer.k + 1) for plane in block]
        counts: list[int] = np.sum(planes, axis=0).tolist()
        return counts

    return Stages(read, compute, write)
