"""``objects``: labels of classes -> every object by itself, and a table of what is measured of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from vemseg.blocks import must_be_begun
from vemseg.context import Context
from vemseg.objects import (
    Asked,
    Finding,
    Measures,
    Wish,
    begin,
    borders,
    chosen,
    known_classes,
    numbered,
    write_measures,
    write_parquet,
)
from vemseg.pipeline.beside import beside, made_of_labels
from vemseg.run import Output, lasting, provenance, sidecar, write_json
from vemseg.volume import LabelForm, LabelInfo, LabelStore, Volume, describe, finish_labels, record
from vemseg.volume.about import names_in

_log = logging.getLogger("vemseg")


def objects(
    labels: Volume,
    out: Path,
    *,
    asked: Asked = Asked(),
    names: Mapping[int, str] | None = None,
    form: LabelForm = LabelForm(),
    overwrite: bool = False,
    context: Context = Context(),
) -> Path | None:
    """Find the objects in labels and measure them; return ``out``, or None where others do the rest.

    Parameters
    ----------
    labels : Volume
        Of classes; 0 is nothing.
    out : Path
        The number of its object at every voxel, uint32, in a format by the suffix; beside it ``<stem>.csv``
        (see ``Measures.of``), ``<stem>.parquet`` where asked for, and ``<stem>.json``.
    asked : Asked
    names : mapping of int to str, optional
        Names of classes; they take the place of those in the file.
    form : LabelForm
        How the volume is written, as far as its name does not say it.
    context : Context
        Where it is for a share of the blocks, this process looks for objects in these, and others in the
        rest. Once all blocks are done, it also writes the numbers of objects into its share. A call for the
        whole does what is left.

    Raises
    ------
    InputError, ResourceError, OutputExistsError, Interrupted
        As ``Finding``, ``chosen`` and ``Output``.
    """
    form.check(out)
    form.fits(labels)
    asked.check()
    told = record(labels.address)
    known = known_classes(labels, told, context) if asked.classes else []
    given, names = names or {}, names_in(told) | dict(names or {})
    wish = Wish(chosen(asked.classes, known, names))
    settings = {"classes": wish.classes, "names": names, "voxel_size": labels.voxel_size, **borders(labels)}
    table_too = [beside(out, ".parquet")]
    output = made_of_labels(out, [labels], settings | asked.state(), form, overwrite, table_too)
    with output if context.share.whole else output.joined(context.stopped):
        if output.done:
            _log.info("%s is there already, made with the same settings", output.main)
            return out
        if labels.voxel_size is None:
            _log.warning("%s: voxel size unknown, so everything is counted in voxels", labels.name)
        must_be_begun(output.partial / "parts", context)
        finding = Finding.begin(labels, output.partial, wish, context)
        plan = form.plan(out, labels)
        store = begin(output.partial / "objects", labels, "uint32", finding.blocks.shape, plan)
        if context.share.whole and (found := numbered(finding, store, asked.neck, context)):
            _log.info("%s: %d objects", labels.name, len(found.classes))
            for k in sorted(set(given) - set(wish.classes or found.classes.tolist())):
                _log.warning(
                    "%s: no object is of class %d, which --names calls '%s'", labels.name, k, given[k]
                )
            table = Measures.of(found, names, labels.voxel_size, labels.origin)
            _publish(output, labels, store, table, asked, form)
            return out
    numbered(finding, store, asked.neck, context)
    return None


def _publish(
    output: Output, labels: Volume, store: LabelStore, table: Measures, asked: Asked, form: LabelForm
) -> None:
    """Write the tables and the record, and publish the numbered objects."""
    out = output.path
    write_measures(output.growing(beside(out, ".csv")), table)
    if asked.parquet:
        write_parquet(output.growing(beside(out, ".parquet")), table)
    extra = {"state": output.state, "volume": describe(labels), "objects": len(table)}
    origin = provenance("objects", inputs=output.inputs, extra=extra)
    write_json(output.growing(sidecar(out)), origin)
    info = LabelInfo(**labels.placed, description=lasting(origin))
    finish_labels(store, output.growing(out), info, form)
    output.publish()
