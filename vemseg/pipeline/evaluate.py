"""``evaluate``: labels + reference -> scores, counted in one stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg import metrics
from vemseg.comparison import count, nothing_of, open_compared, warn_of_instances
from vemseg.context import Context
from vemseg.drawing import confusion, save
from vemseg.drawing import slice_dice as draw_slice_dice
from vemseg.errors import InputError
from vemseg.run import Output, State, lasting, provenance, sidecar, write_json
from vemseg.volume import Volume, crop_of, record
from vemseg.volume.about import names_in

MATCHING = 2
"""Rises when the same labels get other scores or names than before."""

PROTOCOLS = ("hungarian", "majority", "greedy")
"""The ways in which labels are always matched to classes; each has a picture."""
DPI = 200.0
"""Dots per inch of the pictures."""


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
        The part of the larger volumes that the smaller ones show. Where it is left out, places and voxel
        sizes decide, or else the crop that the prediction recorded.
    by_place : bool
        False compares voxel by voxel, whatever the files say of places and voxel sizes.
    ignore : sequence of int
        Reference labels that do not count.
    mapping : mapping of int to int
        Label -> class, scored as a further protocol where it is not empty.
    names : mapping of int to str
        Names of the reference's classes; others have those that the reference's file gives them.
    """

    prediction: str
    reference: str
    mask: str | None = None
    crop: str | None = None
    ignore: Sequence[int] = ()
    mapping: Mapping[int, int] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    by_place: bool = True

    def open(self, context: Context) -> list[Volume]:
        """Open prediction, reference and mask, if any, on the same voxels.

        Raises
        ------
        InputError
            Where one holds no labels, or they have nothing in common.
        """
        named = (self.prediction, self.reference, self.mask)
        return open_compared(*named, crop=self.crop, by_place=self.by_place, offline=context.offline)

    def state(self, out: Path) -> State:
        """Return what scores depend on besides the content of the volumes."""
        return {
            "output": out.name,
            "matching": MATCHING,
            "mask": self.mask is not None,
            "ignore": list(self.ignore),
            "map": {str(k): v for k, v in self.mapping.items()},
            "names": {str(k): v for k, v in self.names.items()},
            "crop": self.crop or crop_of(self.prediction),
            **({} if self.by_place else {"by_place": False}),
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
    volumes = comparison.open(context)
    if out is None:
        return _score(comparison, volumes, None, context)
    output = Output(
        out,
        state=comparison.state(out),
        inputs=[volume.path for volume in volumes if volume.path is not None],
        beside=[sidecar(out), *(_picture(out, ending) for ending in (*PROTOCOLS, "manual", "slices"))],
        overwrite=overwrite,
        resumable=False,
    )
    with output:
        found = _score(comparison, volumes, out, context)
        if not output.done:
            _write(found, output)
    return found


def _score(
    comparison: Comparison, volumes: Sequence[Volume], out: Path | None, context: Context
) -> Evaluation:
    """Count, match and score."""
    slices, clusters, classes = count(volumes, context)
    warn_of_instances(classes, comparison.ignore)
    slices = metrics.drop_classes(slices, [classes.index(c) for c in comparison.ignore if c in classes])
    table = slices.sum(axis=0)
    if not table.any():
        raise InputError(
            f"no voxel is left to compare: {comparison.reference} is masked or ignored everywhere"
        )
    names = names_in(record(comparison.reference)) | dict(comparison.names)
    labels = {classes.index(c): names.get(c, f"class {c}") for c in classes}
    scores = [
        metrics.score(table, assignment, labels)
        for assignment in _protocols(table, comparison.mapping, clusters, classes)
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


def _picture(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.stem}_{ending}.png")


def _protocols(
    table: metrics.Table, mapping: Mapping[int, int], clusters: list[int], classes: list[int]
) -> list[metrics.Assignment]:
    protocols = metrics.match_hungarian, metrics.merge_majority, metrics.merge_greedy
    found = [protocol(table, nothing_of(clusters)) for protocol in protocols]
    if mapping:
        if 0 in mapping:
            raise InputError("--map: label 0 of a prediction stands for no class; leave 0=... out")
        if unknown := [k for k in mapping if k not in clusters]:
            raise InputError(f"--map names labels {unknown}, but the prediction has {clusters}")
        if unknown := [c for c in mapping.values() if c not in classes]:
            raise InputError(f"--map names classes {unknown}, but the reference has {classes}")
        meant = {clusters.index(k): classes.index(c) for k, c in mapping.items()}
        found.append(metrics.merge_manual(table, meant))
    return found


def _write(found: Evaluation, output: Output) -> None:
    """Draw confusion matrices and the course of Dice, and write the scores."""
    out = output.path
    for scores in found.tables:
        names = [scores.names[g] for g in range(len(found.classes))]
        figure = confusion(scores.confusion, [*names, "unassigned"], names, "column")
        save(figure, output.growing(_picture(out, scores.assignment.name)), dpi=DPI)
    best = found.tables[-1]
    figure = draw_slice_dice(found.per_slice[best.assignment.name], dict(best.names))
    save(figure, output.growing(_picture(out, "slices")), dpi=DPI)
    origin = provenance("evaluation", inputs=output.inputs, extra={"state": output.state})
    write_json(output.growing(sidecar(out)), origin)
    write_json(output.growing(out), found.to_dict() | {"provenance": lasting(origin)})
    output.publish()
