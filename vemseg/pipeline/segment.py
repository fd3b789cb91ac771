"""``segment``: volume + model [+ labeller] -> labels, a QC picture, statistics, provenance.

1. open the volume, lay the model over it, see what fits into the memory
2. fit a labeller on a sample, or load one
3. label block by block: vectors -> scores -> interpolated -> labels, each into its own shards; beside them,
   where it is wanted, how certain each label is
4. QC picture, statistics, provenance; the labels take their name last
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.blocks import must_be_begun, run
from vemseg.budget import Blocks
from vemseg.context import Context
from vemseg.dense import (
    RATINGS,
    LabelJob,
    VectorSource,
    Wanted,
    check_sample,
    keep_sample,
    label_blocks,
    label_stages,
)
from vemseg.drawing import palette
from vemseg.errors import InputError, Interrupted, OutputExistsError
from vemseg.files import remove, write_table
from vemseg.geometry import ZYX
from vemseg.labelling import Labeller, check_names, count, find_classes, load
from vemseg.labelling.telling import (
    PLOT,
    captions,
    choice_of,
    class_table,
    draw_choice,
    say_choice,
    suggestions,
)
from vemseg.models import spread
from vemseg.pipeline.adapt import adapt, is_adapted
from vemseg.pipeline.beside import beside, draw_check, files_beside, rename
from vemseg.pipeline.extras import Extras
from vemseg.recipe import sets
from vemseg.run import (
    Output,
    Place,
    State,
    lasting,
    provenance,
    refuse_inputs,
    sha256,
    sidecar,
    write_json,
)
from vemseg.volume import LabelForm, LabelInfo, LabelStore, Volume, describe, finish_labels, identity

_log = logging.getLogger("vemseg")

CLUSTERS, SAMPLE, HELD = "clusters.safetensors", "sample.safetensors", "held.npz"
"""In the partial directory: the fitted classes; of the sample and of all vectors, what a stop left done."""

STORE, DONE = "store", "done"
"""In the partial directory: labels that do not grow in their final form, and markers of written blocks."""


def segment(
    wanted: Wanted,
    out: Path,
    *,
    clusters: Path | None = None,
    extras: Extras = Extras(),
    adapt_seconds: float | None = None,
    overwrite: bool = False,
    context: Context = Context(),
) -> Path | None:
    """Segment a volume into K classes, numbered 1..K; 0 is nothing.

    Classes that are found here are numbered from dark to bright, those of the encoder in its own order.

    Parameters
    ----------
    wanted : Wanted
        Volume and model, or features that ``embed`` stored.
    out : Path
        Labels, in a format by the suffix; beside them ``<stem>.json``, ``<stem>.csv`` and ``<stem>_qc.png``,
        and ``<stem>_k.png`` where the number of classes was chosen.
    clusters : Path, optional
        Classes that ``cluster`` or an earlier ``segment`` saved; fitted to this volume where left out.
    extras : Extras
        Names, the form of the labels, and volumes that say more of each voxel.
    adapt_seconds : float, optional
        First train the model on this volume for that long (see ``adapt``).
    context : Context
        Labels do not depend on it. Where it is for a share of the blocks, this process labels these, and
        others the rest; a call for the whole then finishes the output.

    Returns
    -------
    Path or None
        ``out``; None where others do the rest.

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
    fitted = None if clusters is None else load(clusters)
    extras.check(out, fitted)
    if adapt_seconds is not None:
        if not is_adapted(out):  # then it takes long: what would be refused after it is refused now
            _opened(wanted, out, fitted, clusters, extras, context)
            _refuse_older(extras.form.main(out), overwrite)
        wanted = replace(wanted, model=str(adapt(wanted, out, adapt_seconds, context)))
    source, context, blocks = _opened(wanted, out, fitted, clusters, extras, context)
    output = Output(
        Place(out, *extras.form.place(out)),
        state=_state(source, out, clusters, extras),
        inputs=source.maker.inputs,
        beside=[*files_beside(out), *extras.volumes(out)],
        overwrite=overwrite,
    )
    with output if context.share.whole else output.joined(context.stopped):
        if output.done:
            also = ": renamed" if rename(output, source.volume, extras.names) else ""
            _log.info("%s is there already, made with the same settings%s", output.main, also)
            return out
        _say(source, blocks, given=fitted is not None or sets(wanted.settings, "cluster.k"))
        classes = clusters or output.partial / CLUSTERS
        held = source if classes.exists() else _classes(source, classes, context)
        labeller = load(classes)
        store = _store(output, out, STORE, source.volume, extras, blocks.shape, labeller.k)
        ratings = _ratings(output, source.volume, extras, store.block_shape, labeller.k)
        if context.share.whole:
            counts = _label(wanted, held, classes, store, ratings, context)
            named = labeller.named(labeller.names if extras.names is None else extras.names)
            extras.finish(output, source.volume, named, ratings)
            _finish(output, source, named, store, extras.form, counts)
            return out
    _label(wanted, held, classes, store, ratings, context)  # one share: outside the lock, beside the others
    return None


def _opened(
    wanted: Wanted,
    out: Path,
    fitted: Labeller | None,
    clusters: Path | None,
    extras: Extras,
    context: Context,
) -> tuple[VectorSource, Context, Blocks]:
    """Open the vectors, and refuse what does not fit them; return them, where to compute, and the blocks."""
    source = wanted.open(context)
    context = spread(context, source.machine)
    extras.form.fits(source.volume)
    refuse_misfits([extras.form.main(out), *extras.ratings.values()], source, fitted, clusters)
    table = source.maker.recipe.cluster
    if fitted is not None or not table.k_range:
        check_names(count(table, source.classes) if fitted is None else fitted.k, extras.names or {})
    return source, context, plan_blocks(source, fitted, context, extras)


def _refuse_older(main: Path, overwrite: bool) -> None:
    """Refuse labels that are there before the model that is to make them."""
    if main.exists() and not overwrite:
        raise OutputExistsError(
            f"{main} exists, and this would train another model: give another -o, or -f to replace it"
        )


def _say(source: VectorSource, blocks: Blocks, given: bool) -> None:
    """Tell the user the device, the number of classes that is taken where none was given, and the blocks."""
    source.machine.say()
    table = source.maker.recipe.cluster
    if table.finds and not (given or table.k_range):
        _log.info("no number of classes given (-k): taking %d", table.k)
    _log.info("%s: %s", source.volume.name, blocks)


def refuse_misfits(
    outputs: Sequence[Path], source: VectorSource, labeller: Labeller | None, clusters: Path | None
) -> None:
    """Refuse classes of other vectors than those of the source, and an output that is an input.

    Raises
    ------
    InputError, UsageError
        For the classes, and for the output.
    """
    if labeller is not None and labeller.dim != source.dim:
        raise InputError(f"{clusters}: clusters of {labeller.dim} features, but the model has {source.dim}")
    if labeller is not None and labeller.metadata.get("model") not in (None, source.maker.model):
        raise InputError(f"{clusters}: these clusters were fitted to another model's vectors")
    read = [*source.maker.inputs, *source.maker.parents, source.volume.path, clusters]
    refuse_inputs(outputs, [path for path in read if path is not None])


def plan_blocks(source: VectorSource, fitted: Labeller | None, context: Context, extras: Extras) -> Blocks:
    """Choose the blocks, and refuse a budget in which classes cannot be fitted.

    Raises
    ------
    ResourceError
        Naming the least memory that is enough.
    """
    if fitted is None:
        check_sample(source.maker.recipe.cluster, [source], context.limit)
    k = count(source.maker.recipe.cluster, source.classes) if fitted is None else fitted.k
    return label_blocks(source, k, context.limit, list(extras.ratings))


def _state(source: VectorSource, out: Path, clusters: Path | None, extras: Extras) -> State:
    """Return what labels depend on besides the content of the inputs: equal states give equal labels."""
    volume = describe(source.volume)
    return {
        "output": out.name,
        "settings": source.maker.recipe.of_vectors | source.maker.recipe.flat(("volume", "model", "cluster")),
        "model": source.maker.model,
        "clusters": None if clusters is None else sha256(clusters),
        "voxel_size": volume["voxel_size_nm"],
        "crop": volume["crop"],
        **identity(source.volume),
        **extras.state(),
    }


def _classes(source: VectorSource, kept: Path, context: Context) -> VectorSource:
    """Fit and save the classes; return the source, its vectors in memory if this process labels all of it."""
    must_be_begun(kept, context)
    table, folder = source.maker.recipe.cluster, kept.parent
    n = check_sample(table, [source], context.limit)
    if n and context.alone:
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


def _store(
    output: Output, path: Path, name: str, volume: Volume, extras: Extras, block_shape: ZYX, k: int
) -> LabelStore:
    """Return the store that the labels, or a rating of them, are written to; begin it if it is not there.

    An OME-Zarr grows in the form in which it ends up, anything else in a store called ``name``.

    Parameters
    ----------
    output : Output
    path : Path
        Where the volume ends up.
    name : str
        ``STORE`` for the labels, or the name of a rating.
    volume : Volume
        What is labelled.
    extras : Extras
    block_shape : (int, int, int)
    k : int
        Number of classes.
    """
    plan = extras.form_of(path).plan(path, volume, labelled=name not in RATINGS)
    directory = output.growing(path) if plan else output.partial / name
    if directory.exists():
        return LabelStore.open(directory)
    remove(output.partial / DONE)
    dtype, channels = (
        (RATINGS[name].dtype, RATINGS[name].channels(k)) if name in RATINGS else (np.uint8, None)
    )
    return LabelStore.create(
        directory, volume.shape, block_shape, np.dtype(dtype), volume.voxel_size, channels, plan
    )


def _ratings(
    output: Output, volume: Volume, extras: Extras, block_shape: ZYX, k: int
) -> dict[str, LabelStore]:
    """Return the stores of the volumes that say more of each voxel, by the names of the ratings."""
    return {
        name: _store(output, path, name, volume, extras, block_shape, k)
        for name, path in extras.ratings.items()
    }


def _label(
    wanted: Wanted,
    source: VectorSource,
    classes: Path,
    store: LabelStore,
    ratings: Mapping[str, LabelStore],
    context: Context,
) -> NDArray[np.int64]:
    """Label every block, and rate it where that is wanted; return the voxels of each label, 0..K."""
    job = LabelJob(
        tuple(store.box.split(store.block_shape)),
        store.directory.absolute().parent / DONE,
        "segmenting",
        "{:.1f}/{:.1f} Mvoxel",
        wanted.pinned(source.machine),
        classes.absolute(),
        store.directory.absolute(),
        tuple((name, each.directory.absolute()) for name, each in ratings.items()),
    )
    source.machine.release()
    blocks = run(job, context, label_stages(source, load(classes), store, ratings))
    counts: NDArray[np.int64] = np.sum(np.array(blocks, np.int64), axis=0)
    return counts


def _finish(
    output: Output,
    source: VectorSource,
    labeller: Labeller,
    store: LabelStore,
    form: LabelForm,
    counts: NDArray[np.int64],
) -> None:
    """Write the labels in their final form and what lies beside them, then give all of it its name."""
    out, volume = output.path, source.volume
    classes = class_table(labeller, counts, store.voxel_size)
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
            "own_names": labeller.own_names,
            "choice": labeller.metadata.get("choice"),
            "volume": describe(volume, source.intensity),
        },
    )
    write_json(output.growing(sidecar(out)), origin)
    write_table(output.growing(beside(out, ".csv")), classes)
    draw_check(output.growing(beside(out, "_qc.png")), volume, store, captions(classes))
    if choice := choice_of(labeller):
        draw_choice(output.growing(beside(out, PLOT)), choice)
    labeller.save(output.growing(beside(out, "_clusters.safetensors")))
    colours = dict(enumerate(palette(labeller.k), start=1))
    info = LabelInfo(
        **volume.placed,
        description=lasting(origin),
        names=labeller.names,
        colours=colours,
        suggestions=suggestions(classes),
    )
    finish_labels(store, output.growing(out), info, form)
    output.publish()
