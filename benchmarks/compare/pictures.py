"""The same slice under every system, and for each system its confusion matrix and its Dice slice by slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pairs import Pair

from compare.details import drawn, judged
from compare.places import section
from compare.plan import Plan, Task
from compare.scoring import middle
from compare.tables import Cell, protocols
from vemseg import metrics
from vemseg.drawing import confusion, grey, overlay, save, slice_dice

ACROSS = 4
"""Panels side by side."""


def draw(plan: Plan) -> None:
    """Draw all pictures of the cells that are there, with the first training seed."""
    for place in plan.places:
        tasks = [task for task in plan.cells if task.place == place and task.cell.exists()]
        first = list({task.system.key: task for task in reversed(tasks)}.values())[::-1]
        if first:
            pair, folder = place.open(), plan.folder / "pictures"
            (folder / place.name).mkdir(parents=True, exist_ok=True)
            _overview(pair, first, folder / f"{place.name}.png")
            for task in first:
                _details(Cell.read(task.cell), folder / place.name / task.system.key)


def _overview(pair: Pair, tasks: Sequence[Task], path: Path) -> None:
    """Draw the slice, the reference, and what each system says, in the colours of the reference."""
    z = middle(pair)
    box = pair.grey.box
    raw = grey(pair.grey.read(type(box)((z, *box.start[1:]), (z + 1, *box.stop[1:])))[0])
    panels = [("volume", overlay(raw, np.zeros(raw.shape, np.uint8)))]
    panels.append(("reference", overlay(raw, _coloured(section(pair, z), pair))))
    for task in tasks:
        cell = Cell.read(task.cell)
        classes = _as_classes(cell, np.load(task.picture, allow_pickle=False))
        learned = " (learned this slice)" if z in cell.facts["labelled_slices"] else ""
        panels.append((cell.facts["title"] + learned, overlay(raw, _coloured(classes, pair))))
    save(_grid(panels), path, dpi=150)


def _coloured(classes: NDArray[np.generic], pair: Pair) -> NDArray[np.int64]:
    """Return the numbers of colours; class 0 of the reference, and what stands for no class, is clear."""
    lut = np.zeros(256, np.int64)
    for i, g in enumerate(sorted(pair.classes.keys() - {0}), start=1):
        lut[g] = i
    return lut[classes.astype(np.int64).clip(0, 255)]


def _as_classes(cell: Cell, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the classes of the reference that labels stand for under the merging protocol, or by name."""
    one = drawn(cell)
    mapping = cell.assignment(one, cell.table(one, ()), protocols(one)[-1]).mapping
    lut = np.full(256, 255, np.int64)
    for p, g in mapping.items():
        if g is not None:
            lut[p + 1] = g
    return lut[labels]


def _grid(panels: Sequence[tuple[str, NDArray[np.uint8]]]) -> Figure:
    height, width = panels[0][1].shape[:2]
    down = math.ceil(len(panels) / ACROSS)
    figure = Figure(figsize=(3 * ACROSS, (3 * height / width + 0.3) * down), layout="constrained")
    for axes, (title, image) in zip(figure.subplots(down, ACROSS, squeeze=False).flat, panels, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(title, fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def _details(cell: Cell, stem: Path) -> None:
    """Draw the confusion matrix of a cell, and its Dice slice by slice."""
    one, scores = judged(cell)
    present, names = scores.present, cell.classes
    columns = [names[g] for g in present]
    matrix = scores.confusion[np.ix_([*present, len(scores.confusion) - 1], present)]
    save(
        confusion(matrix, [*columns, "unassigned"], columns, "column"),
        stem.with_name(f"{stem.name}_confusion.png"),
    )
    dice = metrics.slice_dice(cell.slices(one, ()), scores.assignment)
    save(slice_dice(dice, names), stem.with_name(f"{stem.name}_slices.png"))
