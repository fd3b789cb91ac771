"""``segment``: volume + model [+ labeller] -> labels, a QC picture, statistics, provenance.

1. open the volume, lay the model over it, see what fits into the memory
2. fit a labeller on a sample, or load one
3. label block by block: vectors -> scores -> interpolated -> labels, each into its own shards
4. QC picture, statistics, provenance; the labels take their name last
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import run
from vemseg.budget import Blocks
from vemseg.context import Context
from vemseg.dense import (
    LabelJob,
    VectorSource,
    Wanted,
    check_sample,
    keep_sample,
    label_blocks,
    label_stages,
)
from vemseg.drawing import palette
from vemseg.errors import InputError, Interrupted, MissingError, UsageError
from vemseg.files import remove
from vemseg.geometry import ZYX
from vemseg.labelling import Labeller, find_classes, load
from vemseg.names import check_output, is_tiff_output
from vemseg.pipeline.adapt import adapt
from vemseg.pipeline.beside import (
    Row,
    beside,
    class_table,
    draw_check,
    files_beside,
    rename,
    state_in,
    write_table,
)
from vemseg.pipeline.choice import PLOT, choice_of, draw_choice, say_choice
from vemseg.recipe import sets
from vemseg.run import Output, State, provenance, sha256, sidecar, write_json
from vemseg.volume import LabelInfo, LabelStore, Volume, describe, finish_labels

_log = logging.getLogger("vemseg")

CLUSTERS, SAMPLE, HELD = "clusters.safetensors", "sample.safetensors", "held.npz"
"""In the partial directory: the classes that were fitted, and the vectors that a stop kept."""

STORE, DONE = "store", "done"
"""In the partial directory: the labels that become a TIFF, and the markers of blocks that are written."""


def segment(
    wanted: Wanted,
    out: Path,
    *,
    clusters: Path | None = None,
    names: Mapping[int, str] | None = None,
    adapt_seconds: float | None = None,
    overwrite: bool = False,
    context: Context = Context(),
) -> Path:
    """Segment a volume into K classes, numbered 1..K from dark to bright; 0 is nothing.

    Parameters
    ----------
    wanted : Wanted
        Volume and model, or features that ``embed`` stored.
    out : Path
        Labels, .tif or .ome.zarr; beside them ``<stem>.json``, ``<stem>.csv`` and ``<stem>_qc.png``, and
        ``<stem>_k.png`` where the number of classes was chosen.
    clusters : Path, optional
        Classes that ``cluster`` or an earlier ``segment`` saved; fitted to this volume where left out.
    names : mapping of int to str, optional
        Names of classes. Labels that are there already are only renamed.
    adapt_seconds : float, optional
        First train the model on this volume for that long (see ``adapt``).
    context : Context
        Labels do not depend on it.

    Raises
    ------
    MissingError
        Where there is no such model or there are no such classes.
    ResourceError
        Where the memory is not enough.
    OutputExistsError
        Where labels, or the beginnings of them, made with other settings are there and ``overwrite`` is not
        set. Labels made with the same settings are left alone.
    Interrupted
        Where the work was stopped; the same call goes on with it.
    """
    check_output(out)
    fitted = None if clusters is None else load_classes(clusters)
    if adapt_seconds is not None:
        wanted = replace(wanted, model=str(adapt(wanted, out, adapt_seconds, context)))
    source = wanted.open(context)
    refuse_misfits(out, source, fitted, clusters)
    if fitted is not None and fitted.metadata.get("model") not in (None, source.maker.model):
        raise InputError(f"{clusters}: these clusters were fitted to another model's vectors")
    blocks = plan_blocks(source, fitted, context)
    output = Output(
        out,
        state=_state(source, out, clusters),
        inputs=source.maker.inputs,
        beside=files_beside(out),
        record=lambda: state_in(sidecar(out)),
        overwrite=overwrite,
    )
    with output:
        if output.done:
            renamed = names is not None and rename(out, source.volume, names)
            _log.info(
                "%s is there already, made with the same settings%s", out, ": renamed" if renamed else ""
            )
            return out
        said = fitted is not None or sets(wanted.settings, "cluster.k") or source.maker.recipe.cluster.k_range
        _say(source, blocks, bool(said))
        classes = clusters or output.partial / CLUSTERS
        held = source if classes.exists() else _classes(source, classes, context)
        store = _store(output, source.volume, blocks.shape)
        counts = _label(wanted, held, classes, store, context)
        labeller = load(classes)
        labeller = labeller.named(labeller.names if names is None else names)
        _finish(output, source, labeller, store, class_table(labeller, counts, store.voxel_size))
    return out


def _say(source: VectorSource, blocks: Blocks, given: bool) -> None:
    """Say what is computed with, and what was not chosen by the user."""
    source.machine.say()
    if not given:
        _log.info("no number of classes given (-k): taking %d", source.maker.recipe.cluster.k)
    _log.info("%s: %s", source.volume.name, blocks)


def load_classes(clusters: Path) -> Labeller:
    """Read classes that were saved.

    Raises
    ------
    MissingError, InputError
        Where there is no such file, or it holds something else.
    """
    if not clusters.is_file():
        raise MissingError(f"no clusters at {clusters}: 'cluster' or an earlier 'segment' makes them")
    return load(clusters)


def refuse_misfits(out: Path, source: VectorSource, labeller: Labeller | None, clusters: Path | None) -> None:
    """Refuse classes of longer or shorter vectors than the source's, and an output that is an input.

    Raises
    ------
    InputError, UsageError
        For the classes, and for the output.
    """
    if labeller is not None and labeller.dim != source.dim:
        raise InputError(f"{clusters}: clusters of {labeller.dim} features, but the model has {source.dim}")
    read = [*source.maker.inputs, *source.maker.parents, source.volume.path, clusters]
    if out.resolve() in {path.resolve() for path in read if path is not None}:
        raise UsageError(f"{out} is an input: name another output with -o")


def plan_blocks(source: VectorSource, fitted: Labeller | None, context: Context) -> Blocks:
    """Choose the blocks, and refuse a budget in which classes cannot be fitted.

    Raises
    ------
    ResourceError
        Naming the least memory that is enough.
    """
    if fitted is None:
        check_sample(source.maker.recipe.cluster, [source], context.limit)
    k = source.maker.recipe.cluster.k if fitted is None else fitted.k
    return label_blocks(source, k, context.limit)


def _state(source: VectorSource, out: Path, clusters: Path | None) -> State:
    """Return what labels depend on besides the content of the inputs: equal states give equal labels."""
    volume = describe(source.volume)
    return {
        "output": out.name,
        "settings": source.maker.recipe.flat(
            ("volume", "model", "embed", "cluster"), without=("embed.batch",)
        ),
        "model": source.maker.model,
        "clusters": None if clusters is None else sha256(clusters),
        "voxel_size": volume["voxel_size_nm"],
        "crop": volume["crop"],
    }


def _classes(source: VectorSource, kept: Path, context: Context) -> VectorSource:
    """Fit the classes and keep them; return the source, with its vectors in memory where that pays."""
    table, folder = source.maker.recipe.cluster, kept.parent
    n = check_sample(table, [source], context.limit)
    source = source.held(context, folder / HELD)
    sample = source.sample(n, table.seed, context, folder / SAMPLE)
    try:
        labeller = find_classes(table, sample, source, context)
    except Interrupted:
        keep_sample(sample, folder / SAMPLE)
        raise
    say_choice(labeller)
    labeller.noting({"model": source.maker.model}).save(kept)
    return source


def _store(output: Output, volume: Volume, block_shape: ZYX) -> LabelStore:
    """Return where labels are written to; begin it if it is not there. An OME-Zarr grows where it ends up."""
    directory = output.partial / STORE if is_tiff_output(output.path) else output.growing(output.path)
    if directory.exists():
        return LabelStore.open(directory)
    remove(output.partial / DONE)
    return LabelStore.create(directory, volume.shape, block_shape, voxel_size=volume.voxel_size)


def _label(
    wanted: Wanted, source: VectorSource, classes: Path, store: LabelStore, context: Context
) -> NDArray[np.int64]:
    """Label every block; return the voxels of each label, 0..K."""
    boxes = tuple(store.box.split(store.block_shape))
    job = LabelJob(
        boxes,
        store.directory.absolute().parent / DONE,
        "segmenting",
        "{:.1f}/{:.1f} Mvoxel",
        wanted.pinned(source.machine),
        classes.absolute(),
        store.directory.absolute(),
    )
    blocks = run(job, context, label_stages(source, load(classes), store))
    counts: NDArray[np.int64] = np.sum(np.array(blocks, np.int64), axis=0)
    return counts


def _finish(
    output: Output, source: VectorSource, labeller: Labeller, store: LabelStore, classes: list[Row]
) -> None:
    """Write the labels in their final form and what lies beside them, then give all of it its name."""
    out, volume = output.path, source.volume
    origin = provenance(
        "segmentation",
        recipe=source.maker.recipe,
        seed=source.maker.recipe.cluster.seed,
        parents=source.maker.parents,
        inputs=output.inputs,
        extra={
            "state": output.state,
            "machine": source.machine.facts,
            "classes": classes,
            "choice": labeller.metadata.get("choice"),
            "volume": describe(volume, source.intensity),
        },
    )
    write_json(output.growing(sidecar(out)), origin)
    write_table(output.growing(beside(out, ".csv")), classes)
    draw_check(output.growing(beside(out, "_qc.png")), volume, store, labeller.names)
    if choice := choice_of(labeller):
        draw_choice(output.growing(beside(out, PLOT)), choice)
    labeller.save(output.growing(beside(out, "_clusters.safetensors")))
    colours = dict(enumerate(palette(labeller.k), start=1))
    info = LabelInfo(volume.voxel_size, volume.origin, origin, labeller.names, colours)
    finish_labels(store, output.growing(out), info)
    output.publish()
