"""``refine``: finished labels -> labels with classes merged, renamed and cleaned; no vector is computed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from vemseg.comparison import open_on_grid_of
from vemseg.context import Context
from vemseg.files import write_table
from vemseg.objects import Labels, Refinement, clean, known_classes, renamed, shown, tabulated
from vemseg.pipeline.beside import beside, made_of_labels
from vemseg.run import Json, Output, lasting, provenance, sidecar, write_json
from vemseg.volume import (
    LabelForm,
    LabelInfo,
    Volume,
    copied,
    describe,
    finish_labels,
    record,
    rename_labels,
)
from vemseg.volume.about import LEGEND

_log = logging.getLogger("vemseg")

STORE = "refined"
"""In the partial directory: labels that become a TIFF or an OME-Zarr."""


def refine(
    labels: Volume,
    out: Path,
    refinement: Refinement,
    *,
    mask: str | None = None,
    form: LabelForm = LabelForm(),
    overwrite: bool = False,
    context: Context = Context(),
) -> Path:
    """Refine labels; returns ``out``. Where only names change, the voxels are copied as they are.

    Parameters
    ----------
    labels : Volume
    out : Path
        In a format by the suffix; beside it ``<stem>.json`` and, where voxels were looked at, ``<stem>.csv``.
    refinement : Refinement
    mask : str, optional
        A volume; labels become 0 where it is not above 0.
    form : LabelForm
        How labels are written, as far as their name does not say it.

    Raises
    ------
    UsageError, InputError, ResourceError, OutputExistsError, Interrupted
        As ``Refinement.classes``, ``open_on_grid_of``, ``clean`` and ``Output``.
    """
    form.check(out)
    form.fits(labels)
    told = record(labels.address)
    classes = refinement.classes(known_classes(labels, told, context), told)
    if refinement.least is not None:
        refinement.least.voxels(labels.voxel_size)  # refused early where it cannot be counted
    inside = None if mask is None else open_on_grid_of(labels, mask, offline=context.offline)
    settings = {"refined": refinement.state(), "mask": mask is not None, "voxel_size": labels.voxel_size}
    read = [labels] if inside is None else [labels, inside]
    output = made_of_labels(out, read, settings | refinement.manner(labels), form, overwrite)
    with output:
        if output.done:
            _log.info("%s is there already, made with the same settings", output.main)
            return out
        told, target = told or {}, output.growing(out)
        if mask is None and not refinement.moves_voxels and copied(labels, target, form):
            rows = renamed(told, classes)
            origin = _origin(output, labels, told, rows)
            rename_labels(target, **shown(classes), description=lasting(origin))
        else:
            given, store = Labels(labels, inside), output.partial / STORE
            refined, counts = clean(given, refinement, classes, store, context)
            rows = tabulated(classes, counts, labels.voxel_size)
            origin = _origin(output, labels, told, rows)
            info = LabelInfo(**labels.placed, **shown(classes), description=lasting(origin))
            finish_labels(refined, target, info, form)
        write_json(output.growing(sidecar(out)), origin)
        if rows:
            write_table(output.growing(beside(out, ".csv")), rows)
        output.publish()
    return out


def _origin(output: Output, labels: Volume, told: Json, rows: Sequence[Json]) -> Json:
    """Return what the refined labels say of themselves, with what the labels they come from said."""
    before = {key: value for key, value in told.items() if key not in LEGEND}
    extra = {"state": output.state, "labels": describe(labels), "classes": rows, "refined_from": before}
    extra["volume"] = before.get("volume", extra["labels"])
    return provenance("refinement", inputs=output.inputs, extra=extra)
