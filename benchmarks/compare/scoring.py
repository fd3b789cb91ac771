"""A cell: one system on one volume with one training seed, counted for every K and seed of the clustering."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from common import machine
from counting import Counts, Key, Labels, count, fit_all, labelled, lay
from pairs import Pair

from compare.places import labelled_slices
from compare.plan import Plan, Task
from vemseg.context import Context
from vemseg.files import atomic_path
from vemseg.geometry import Box
from vemseg.labelling import Labeller
from vemseg.models import Model, open_model
from vemseg.run import Run, write_json
from vemseg.run.origin import now, peak_memory

DRAWN_K = 6
"""Number of classes of the pictures, where it is among those that are compared."""


def score(plan: Plan, task: Task, context: Context) -> None:
    """Score a cell and write its file, and the labels of the middle slice beside it."""
    started = time.perf_counter()
    pair = task.place.open()
    source, regions = lay(model_of(plan, task), pair, context)
    labellers = fit_all(regions or source, plan.common.k, plan.common.seeds, context)
    shown = np.zeros(pair.grey.shape[1:], np.uint8)
    key = drawn(labellers)
    boxes = _watched(labelled(source, regions, labellers, context), key, middle(pair), shown)
    counts = count(pair, boxes)
    task.cell.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(task.picture) as temporary, temporary.open("wb") as file:
        np.save(file, shown)
    slices = labelled_slices(pair, task.system.slices) if task.system.slices and not task.place.learnt else []
    facts = {
        "volume": task.place.name,
        "system": task.system.key,
        "title": task.system.shown,
        "seed": task.seed,
        "drawn": list(key),
        "classes": {str(g): name for g, name in pair.classes.items()},
        "labelled_slices": slices if task.system.labels else [],
        "training": training_of(task),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_bytes": peak_memory(),
        "machine": machine(context.threads) | {"device": source.machine.facts},
        "made": now(),
    }
    write_json(task.cell, facts | {"counts": [_entry(k, labellers[k], counts) for k in labellers]})


def model_of(plan: Plan, task: Task) -> Model:
    """Return the model of a cell with the settings that it is scored with."""
    system = task.system
    owner = system.teacher if system.of else system
    path = str(task.run_of(owner)) if owner is not None and owner.trained else system.model
    return open_model(path, [*system.score, *plan.common.set])


def training_of(task: Task) -> dict[str, Any]:
    """Return how long the training of a cell took, with that of its encoder; empty where there is none."""
    found: dict[str, Any] = {}
    for system in (task.system.teacher, task.system):
        if system is not None and system.trained:
            run = Run.open(task.run_of(system))
            last = (run.read_metrics() or [{}])[-1]
            done = {"steps": run.info.get("steps"), "samples": last.get("samples")}
            found[system.key] = done | {"seconds": run.info.get("seconds")}
    return found


def drawn(labellers: Mapping[Key, Labeller]) -> Key:
    """Return which labeller the picture is of: that of ``DRAWN_K`` classes, else the first."""
    return next((key for key in labellers if key[0] == DRAWN_K), next(iter(labellers)))


def middle(pair: Pair) -> int:
    """Return the slice that is drawn."""
    return pair.grey.shape[0] // 2


def _watched(
    boxes: Iterable[tuple[Box, Key, Labels]], key: Key, z: int, shown: Labels
) -> Iterator[tuple[Box, Key, Labels]]:
    """Pass boxes on, and copy what one labeller says of a slice."""
    for box, one, labels in boxes:
        if one == key and box.start[0] <= z < box.stop[0]:
            shown[box.slices[1:]] = labels[z - box.start[0]]
        yield box, one, labels


def _entry(key: Key, labeller: Labeller, counts: Counts) -> dict[str, Any]:
    own = labeller.own_names
    names = [own[k] for k in sorted(own)] if own else None
    return {"k": key[0], "seed": key[1], "names": names, "slices": counts[key].tolist()}
