"""``evaluate``: labels + reference -> scores, counted in one stream."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg import metrics
from vemseg.context import Context
from vemseg.drawing import confusion, save
from vemseg.drawing import slice_dice as draw_slice_dice
from vemseg.errors import InputError, OutputExistsError
from vemseg.geometry import Box
from vemseg.run import Output, State, provenance, read_json, write_json
from vemseg.volume import Volume, crop_of, open_labels

SLAB_VOXELS = 2**24
"""Voxels that are counted at a time, at least one slice."""

MOST_COUNTS = 2**27
"""Most numbers in the contingency tables of all slices together: 1 GiB."""

PROTOCOLS = ("hungarian", "majority", "greedy")
"""The ways in which labels are always matched to classes; each has a picture."""


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how.

    Attributes
    ----------
    prediction, reference : str
        Label volumes; label 0 of the prediction is "nothing" and never stands for a class.
    mask : str, optional
        A volume; voxels count where it is above 0.
    crop : str, optional
        The part of reference and mask that the prediction shows. Where it is left out and they are larger
        than the prediction, the crop that the prediction recorded is used.
    ignore : sequence of int
        Reference labels that do not count.
    mapping : mapping of int to int
        Label -> class, scored as a further protocol where it is not empty.
    names : mapping of int to str
        Names of the reference's classes.
    """

    prediction: str
    reference: str
    mask: str | None = None
    crop: str | None = None
    ignore: Sequence[int] = ()
    mapping: Mapping[int, int] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)

    def open(self) -> tuple[Volume, Volume, Volume | None, str | None]:
        """Open prediction, reference and mask, and return the crop that was used.

        Raises
        ------
        InputError
            Where one holds no labels, or their shapes differ.
        """
        predicted = open_labels(self.prediction)
        crop = self.crop or crop_of(self.prediction)
        wanted = self._part(self.reference, predicted, crop)
        inside = None if self.mask is None else self._part(self.mask, predicted, crop)
        return predicted, wanted, inside, crop

    def _part(self, path: str, predicted: Volume, crop: str | None) -> Volume:
        """Open what is compared with the prediction; crop it where it is larger, or where it must be."""
        volume = open_labels(path)
        if crop is not None and (self.crop is not None or volume.shape != predicted.shape):
            volume = open_labels(path, crop)
        if volume.shape != predicted.shape:
            raise InputError(
                f"{self.prediction} has shape {predicted.shape}, but {path} has {volume.shape} (z, y, x)"
            )
        return volume

    def state(self, out: Path, crop: str | None) -> State:
        """Return what scores depend on besides the content of the volumes."""
        return {
            "output": out.name,
            "mask": self.mask is not None,
            "ignore": list(self.ignore),
            "map": {str(k): v for k, v in self.mapping.items()},
            "names": {str(k): v for k, v in self.names.items()},
            "crop": crop,
        }


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

    def to_dict(self) -> dict[str, object]:
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
    comparison: Comparison,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    context: Context = Context(),
) -> Evaluation:
    """Score labels against a reference.

    Parameters
    ----------
    comparison : Comparison
    out : Path, optional
        A JSON file for all scores; confusion matrices and the course of Dice through the stack are drawn
        beside it.
    overwrite : bool
        Replace scores that are there.
    context : Context

    Raises
    ------
    InputError
        Where shapes differ, labels are no integers or too many, or no voxel is left to count.
    OutputExistsError
        Where ``out`` exists and was made with other settings, or a picture beside it is not its own, and
        ``overwrite`` is not set. The same scores are left as they are.
    ResourceError
        Where the directory of ``out`` cannot be made.
    """
    predicted, wanted, inside, crop = comparison.open()
    if out is None:
        return _score(comparison, (predicted, wanted, inside), None, context)
    if out.is_dir():
        raise OutputExistsError(f"{out} is a directory: give a file for the scores with -o")
    volumes = [volume.path for volume in (predicted, wanted, inside) if volume is not None]
    output = Output(
        out,
        state=comparison.state(out, crop),
        inputs=[path for path in volumes if path is not None],
        beside=[_picture(out, ending) for ending in (*PROTOCOLS, "manual", "slices")],
        record=lambda: _made(out),
        overwrite=overwrite,
        resumable=False,
    )
    with output:
        found = _score(comparison, (predicted, wanted, inside), out, context)
        if not output.done:
            _write(found, output)
    return found


def _score(
    comparison: Comparison,
    volumes: tuple[Volume, Volume, Volume | None],
    out: Path | None,
    context: Context,
) -> Evaluation:
    """Count, match and score."""
    slices, clusters, classes = count(*volumes, context)
    slices = metrics.drop_classes(slices, [classes.index(c) for c in comparison.ignore if c in classes])
    table = slices.sum(axis=0)
    if not table.any():
        raise InputError(
            f"no voxel is left to compare: {comparison.reference} is masked or ignored everywhere"
        )
    labels = {classes.index(c): comparison.names.get(c, f"class {c}") for c in classes}
    scores = [
        metrics.score(table, _without_zero(assignment, clusters), labels)
        for assignment in _protocols(blank_zero(table, clusters), comparison.mapping, clusters, classes)
    ]
    return Evaluation(
        scores,
        metrics.dice_matrix(table),
        clusters,
        classes,
        {s.assignment.name: metrics.slice_dice(slices, s.assignment) for s in scores},
        int(table.sum()),
        out,
    )


def _made(scores: Path) -> State | None:
    """Return the state that a file says it was made with, None where it says nothing."""
    with contextlib.suppress(InputError, KeyError, TypeError):
        made: State = read_json(scores)["provenance"]["state"]
        return made
    return None


def _picture(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.stem}_{ending}.png")


def count(
    predicted: Volume, wanted: Volume, inside: Volume | None, context: Context
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
        context.report("counting", (i + 1) / len(slabs))
    return tables, clusters, classes


def _ints(volume: Volume, box: Box) -> NDArray[np.integer]:
    values: NDArray[np.integer] = volume.read(box)  # type: ignore[assignment]
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
    table: metrics.Table, mapping: Mapping[int, int], clusters: list[int], classes: list[int]
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


def _write(found: Evaluation, output: Output) -> None:
    """Draw confusion matrices and the course of Dice, and write the scores."""
    out = output.path
    for scores in found.tables:
        names = [scores.names[g] for g in range(len(found.classes))]
        figure = confusion(scores.confusion, [*names, "unassigned"], names, "column")
        save(figure, output.growing(_picture(out, scores.assignment.name)), dpi=200)
    best = found.tables[-1]
    figure = draw_slice_dice(found.per_slice[best.assignment.name], dict(best.names))
    save(figure, output.growing(_picture(out, "slices")), dpi=200)
    origin = provenance("evaluation", inputs=output.inputs, extra={"state": output.state})
    write_json(output.growing(out), found.to_dict() | {"provenance": origin})
    output.publish()
