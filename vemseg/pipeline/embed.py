"""``embed``: volume + model -> vectors on their lattice, stored."""

from __future__ import annotations

import logging
from pathlib import Path

from vemseg.blocks import must_be_begun, run
from vemseg.context import Context
from vemseg.dense import (
    ComputedVectors,
    EmbedJob,
    Wanted,
    divide_stored,
    lay_over,
    point_blocks,
    point_stages,
)
from vemseg.errors import UsageError
from vemseg.features import Features
from vemseg.files import remove
from vemseg.geometry import ZYX, Box
from vemseg.models import open_model, spread
from vemseg.run import DESCRIPTION, Json, Output, Place, State, lasting, provenance, write_json
from vemseg.volume import describe

_log = logging.getLogger("vemseg")

STORE, DONE = "store", "done"
"""In the partial directory: the vectors, and the markers of the blocks that are written."""


def embed(wanted: Wanted, out: Path, *, overwrite: bool = False, context: Context = Context()) -> Path | None:
    """Store the vectors of a volume on their lattice, float16.

    Parameters
    ----------
    wanted : Wanted
        Volume and model.
    out : Path
        A Zarr directory (``features.Features``).
    overwrite : bool
        Replace features that are there.
    context : Context
        Vectors do not depend on it.

    Returns
    -------
    Path or None
        ``out``; None where others do the rest.

    Raises
    ------
    UsageError
        Where ``out`` is not named .zarr.
    InputError, OutputExistsError
        Where ``out`` exists and holds no features; or where it, or its beginnings, were made with other
        settings and ``overwrite`` is not set.
    ResourceError
        Where the memory is not enough.
    Interrupted
        Where the work was stopped; the same call goes on with it.
    """
    if out.suffix != ".zarr":
        raise UsageError(f"{out} has no suffix of stored features: name it .zarr")
    if out.exists():
        Features(out)  # anything else is not ours to replace
    source = lay_over(open_model(wanted.model, wanted.settings), wanted, context)
    context = spread(context, source.machine)
    blocks = point_blocks(source, context.limit)
    state: State = {
        "model": source.maker.model,
        "settings": source.maker.recipe.of_vectors,
        "volume": describe(source.volume, source.intensity),
    }
    output = Output(
        Place(out, folder=True),
        state=state,
        inputs=source.maker.inputs,
        record=lambda: Features(out).state if out.exists() else None,
        overwrite=overwrite,
    )
    with output if context.share.whole else output.joined(context.stopped):
        if output.done:
            _log.info("%s is there already, made with the same settings", out)
            return out
        must_be_begun(output.partial / STORE, context)
        source.machine.say()
        store = _store(source, output, blocks.shape)
        features = Features(store, mode="r+")
        boxes = tuple(Box.whole(source.shape).split(features.box_shape))
        markers = (output.partial / DONE).absolute()
        counted = "{:.2f}/{:.2f} million vectors"
        pinned = wanted.pinned(source.machine)
        job = EmbedJob(boxes, markers, "embedding", counted, pinned, store.absolute())
        if context.share.whole:
            run(job, context, point_stages(source, features))
            divide_stored(store, source.volume, source.machine, context)
            write_json(store / DESCRIPTION, _origin(source, output))
            output.publish(store)
            return out
    run(job, context, point_stages(source, features))  # others do the rest, and the end
    return None


def _store(source: ComputedVectors, output: Output, block_shape: ZYX) -> Path:
    """Return where vectors are written to; begin it if it is not there."""
    store, shape = output.partial / STORE, source.shape
    size = source.count * (source.dim + 1) * 2
    _log.info("%s vectors of %d numbers: %.3g GB at most", "x".join(map(str, shape)), source.dim, size / 1e9)
    if not store.exists():
        remove(output.partial / DONE)
        about = _about(source, output)
        learned = source.maker.codes, source.maker.learned
        Features.create(store, source.positions, source.dim, block_shape, about, *learned)
    return store


def _origin(source: ComputedVectors, output: Output) -> Json:
    """Return where the vectors come from."""
    maker, extra = source.maker, {"state": output.state, "machine": source.machine.facts}
    return provenance(
        "features", recipe=maker.recipe, parents=maker.parents, inputs=output.inputs, extra=extra
    )


def _about(source: ComputedVectors, output: Output) -> dict[str, object]:
    """Return what is stored with the vectors: all that labels need to be made from them."""
    recipe, inside = source.maker.recipe, source.inside
    size = source.volume.voxel_size
    known = lasting(_origin(source, output))
    return {
        "source_shape": list(source.volume.shape),
        "voxel_size_nm": None if size is None else list(size),
        "order": list(source.order),
        "inside": [list(inside.start), list(inside.stop)],
        "cell": list(source.cell),
        "factors": list(source.factors),
        "classes": list(source.classes),
        "shown": source.shown,
        "recipe": recipe.to_toml(),
        "model": source.maker.model,
        "volume": output.state["volume"],
        "state": known.pop("state"),
        "provenance": known,
    }
