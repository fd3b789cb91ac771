"""``evaluate``: labels + reference -> scores, counted in one stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg import metrics
from vemseg.drawing import confusion, save
from vemseg.drawing import slice_dice as draw_slice_dice
from vemseg.errors import InputError, OutputExistsError
from vemseg.files import DISK_FULL, writing
from vemseg.geometry import Box
from vemseg.pipeline.common import Report
from vemseg.pipeline.resume import done_already
from vemseg.run import fingerprint, provenance, read_json, write_json
from vemseg.volume import Volume, open_volume, partial_directory

SLAB_VOXELS = 2**24
MOST_COUNTS = 2**27
"""Numbers in the contingency tables of all slices: 1 GiB."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of one segmentation under several protocols.

    Attributes
    ----------
    tables : list of Scores
        One per protocol: Han's Hungarian matching, majority and greedy merging, and a given map if any.
    dice : float64 (P, G)
        Dice of every cluster with every class, before anything is matched.
    clusters, classes : list of int
        The ids of rows and columns.
    per_slice : dict of str to float64 (Z, G)
        Dice of each class in each slice (across z), by protocol.
    voxels : int
        Voxels that were counted.
    path : Path or None
        Where the scores were written.
    """

    tables: list[metrics.Scores]
    dice: NDArray[np.float64]
    clusters: list[int]
    classes: list[int]
    per_slice: dict[str, NDArray[np.float64]]
    voxels: int
    path: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types."""
        return {
            "voxels": self.voxels,
            "clusters": self.clusters,
            "classes": self.classes,
            "dice_matrix": [[round(float(v), 6) for v in row] for row in self.dice],
            "protocols": [scores.to_dict() for scores in self.tables],
            "slice_dice": {
                name: [[None if np.isnan(v) else round(float(v), 6) for v in row] for row in values]
                for name, values in self.per_slice.items()
            },
        }


def evaluate(
    prediction: str,
    reference: str,
    *,
    out: Path | None = None,
    mask: str | None = None,
    ignore: Sequence[int] = (),
    mapping: Mapping[int, int] | None = None,
    names: dict[int, str] | None = None,
    crop: str | None = None,
    overwrite: bool = False,
    report: Report,
) -> Evaluation:
    """Score labels against a reference.

    Parameters
    ----------
    prediction, reference : str
        Label volumes of one shape; label 0 of the prediction is "nothing" and never stands for a class.
    out : Path, optional
        A JSON file for all scores; confusion matrices and the course of Dice through the stack are drawn
        beside it.
    mask : str, optional
        Voxels that count: those above 0 in this volume.
    ignore : sequence of int
        Reference labels that do not count.
    mapping : mapping of int to int, optional
        Cluster -> class, scored as a further protocol.
    names : dict of int to str, optional
        Names of the reference's classes.
    crop : str, optional
        Compare with this part of reference and mask, where the prediction was made from a crop.

    Raises
    ------
    InputError
        Where shapes differ, labels are no integers or too many, or no voxel is left to count.
    OutputExistsError
        Where ``out`` exists, made otherwise, or a picture beside it, and ``overwrite`` is not set. The same
        scores are left as they are.
    ResourceError
        Where the directory of ``out`` cannot be made.
    """
    if out is not None and out.is_dir():
        raise OutputExistsError(f"{out} is a directory: give a file for the scores with -o")
    predicted = _open_labels(prediction, None)
    wanted = _open_labels(reference, crop)
    inside = None if mask is None else _open_labels(mask, crop)
    for volume, path in ((wanted, reference), *(((inside, mask),) if inside is not None else ())):
        if volume.shape != predicted.shape:
            raise InputError(
                f"{prediction} has shape {predicted.shape}, but {path} has {volume.shape} (z, y, x)"
            )
    state = _state(out, (predicted, wanted, inside), ignore, mapping, names, crop)
    done = out is None or _done(out, state, manual=bool(mapping), overwrite=overwrite)
    missing = None if done else out
    if missing is not None:
        with writing(missing):
            missing.parent.mkdir(parents=True, exist_ok=True)
    slices, clusters, classes = count(predicted, wanted, inside, report)
    slices = metrics.drop_classes(slices, [classes.index(c) for c in ignore if c in classes])
    table = slices.sum(axis=0)
    if not table.any():
        raise InputError(f"no voxel is left to compare: {reference} is masked or ignored everywhere")
    labels = {classes.index(c): (names or {}).get(c, f"class {c}") for c in classes}
    scores = [
        metrics.score(table, _without_zero(assignment, clusters), labels)
        for assignment in _protocols(blank_zero(table, clusters), mapping, clusters, classes)
    ]
    found = Evaluation(
        scores,
        metrics.dice_matrix(table),
        clusters,
        classes,
        {s.assignment.name: metrics.slice_dice(slices, s.assignment) for s in scores},
        int(table.sum()),
        out,
    )
    if missing is not None:
        with writing(missing, DISK_FULL):
            _write(found, missing, [prediction, reference, *([mask] if mask else [])], state)
    return found


def _state(
    out: Path | None,
    volumes: Sequence[Volume | None],
    ignore: Sequence[int],
    mapping: Mapping[int, int] | None,
    names: dict[int, str] | None,
    crop: str | None,
) -> dict[str, Any]:
    """Return what scores depend on (see ``resume``)."""
    paths = [None if volume is None else volume.path for volume in volumes]
    found = [fingerprint(path)["content"] if path else None for path in paths]
    return {
        "output": out.name if out else None,
        **dict(zip(("prediction", "reference", "mask"), found, strict=True)),
        "ignore": list(ignore),
        "map": {str(k): v for k, v in (mapping or {}).items()},
        "names": {str(k): v for k, v in (names or {}).items()},
        "crop": crop,
    }


def _done(out: Path, state: dict[str, Any], *, manual: bool, overwrite: bool) -> bool:
    """Tell whether these very scores are there; refuse what must not be overwritten."""
    if overwrite:
        return False
    with writing(out):
        if out.exists():
            return done_already(out, partial_directory(out), _made(out), state)
        for ending in ("hungarian", "majority", "greedy", *(("manual",) if manual else ()), "slices"):
            if (path := _picture(out, ending)).exists():
                raise OutputExistsError(f"{path} exists: choose another name or overwrite it (-f)")
    return False


def _made(scores: Path) -> dict[str, Any] | None:
    """Return the state that a file says it was made with, None where it says nothing."""
    try:
        found = read_json(scores)
        made: dict[str, Any] = found["provenance"]["state"]
    except (InputError, KeyError, TypeError):
        return None
    return made


def _picture(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.stem}_{ending}.png")


def _open_labels(path: str, crop: str | None) -> Volume:
    volume = open_volume(path, crop=crop)
    if not np.issubdtype(volume.dtype, np.integer):
        raise InputError(f"{path}: labels must be integers, not {volume.dtype}")
    return volume


def count(
    predicted: Volume, wanted: Volume, inside: Volume | None, report: Report
) -> tuple[NDArray[np.int64], list[int], list[int]]:
    """Return the contingency table of every slice, (Z, P, G), and the ids of its rows and columns.

    Parameters
    ----------
    predicted, wanted, inside : Volume
        Labels, reference, and a mask if any, of one shape.

    Raises
    ------
    InputError
        Where there are too many labels for tables of them.
    """
    rows = max(1, SLAB_VOXELS // (predicted.shape[1] * predicted.shape[2]))
    slabs = list(predicted.box.split((rows, *predicted.shape[1:])))
    clusters, classes = _ids(predicted, slabs), _ids(wanted, slabs)
    if predicted.shape[0] * len(clusters) * len(classes) > MOST_COUNTS:
        raise InputError(
            f"{len(clusters)} labels in the prediction and {len(classes)} in the reference are too many "
            f"for {predicted.shape[0]} slices: evaluate classes, not instances"
        )
    tables = np.zeros((predicted.shape[0], len(clusters), len(classes)), np.int64)
    for i, slab in enumerate(slabs):
        found = metrics.to_index(_ints(predicted, slab), clusters)
        truth = metrics.to_index(_ints(wanted, slab), classes)
        counted = None if inside is None else _ints(inside, slab) > 0
        for z in range(slab.shape[0]):
            tables[slab.start[0] + z] = metrics.contingency(
                found[z],
                truth[z],
                None if counted is None else counted[z],
                n_pred=len(clusters),
                n_ref=len(classes),
            )
        report("counting", (i + 1) / len(slabs))
    return tables, clusters, classes


def _ints(volume: Volume, box: Box) -> NDArray[np.integer[Any]]:
    values: NDArray[np.integer[Any]] = volume.read(box)  # type: ignore[assignment]
    return values


def _ids(volume: Volume, slabs: list[Box]) -> list[int]:
    ids: set[int] = set()
    for slab in slabs:
        ids.update(np.unique(_ints(volume, slab)).tolist())
    return sorted(ids)


def blank_zero(table: metrics.Table, clusters: list[int]) -> metrics.Table:
    """Return the table with the row of label 0 emptied, so that no protocol gives it a class."""
    if clusters[0] != 0:
        return table
    blank = table.copy()
    blank[0] = 0
    return blank


def _without_zero(assignment: metrics.Assignment, clusters: list[int]) -> metrics.Assignment:
    if clusters[0] != 0:
        return assignment
    return metrics.Assignment(assignment.name, {**assignment.mapping, 0: None}, assignment.uses_reference)


def _protocols(
    table: metrics.Table, mapping: Mapping[int, int] | None, clusters: list[int], classes: list[int]
) -> list[metrics.Assignment]:
    found = [metrics.match_hungarian(table), metrics.merge_majority(table), metrics.merge_greedy(table)]
    if mapping:
        if unknown := [k for k in mapping if k not in clusters]:
            raise InputError(f"--map names labels {unknown}, but the prediction has {clusters}")
        if unknown := [c for c in mapping.values() if c not in classes]:
            raise InputError(f"--map names classes {unknown}, but the reference has {classes}")
        found.append(
            metrics.merge_manual(table, {clusters.index(k): classes.index(c) for k, c in mapping.items()})
        )
    return found


def _write(found: Evaluation, out: Path, inputs: list[str], state: dict[str, Any]) -> None:
    """Write the scores, and draw confusion matrices and the course of Dice beside them."""
    for scores in found.tables:
        names = [scores.names[g] for g in range(len(found.classes))]
        figure = confusion(scores.confusion, [*names, "unassigned"], names, "column")
        save(figure, _picture(out, scores.assignment.name), dpi=200)
    best = found.tables[-1]
    figure = draw_slice_dice(found.per_slice[best.assignment.name], dict(best.names))
    save(figure, _picture(out, "slices"), dpi=200)
    there = [Path(path) for path in inputs if Path(path).exists()]
    origin = provenance("evaluation", inputs=map(fingerprint, there), extra={"state": state})
    write_json(out, found.to_dict() | {"provenance": origin})
