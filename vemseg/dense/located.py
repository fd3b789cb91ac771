"""A sample of vectors together with the places they come from, for people to look at."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.context import Context
from vemseg.dense.opening import Wanted
from vemseg.dense.sample import SampleCell, sample_cells
from vemseg.dense.sources import LatticeVectors
from vemseg.errors import InputError, Interrupted, MissingError
from vemseg.features import are_features
from vemseg.volume import Background, Choice, Record, Volume

_log = logging.getLogger("vemseg")

_OF_VECTORS = ("embed.", "volume.")
"""Beginnings of the settings that decide, besides the model, what the vectors are."""


@dataclass(frozen=True)
class Located:
    """Some vectors of a volume.

    Attributes
    ----------
    vectors : float16 (n, d)
    places : float32 (n, 3)
        Where they lie, z y x, in voxels of the volume.
    """

    vectors: NDArray[np.float16]
    places: NDArray[np.float32]


def located(source: LatticeVectors, n: int, seed: int, context: Context) -> Located:
    """Draw vectors at random lattice points, as samples for classes are drawn, and say where they lie.

    Parameters
    ----------
    source : LatticeVectors
    n : int
        Number of vectors wanted, at least 1; where there are fewer, all are taken.
    seed : int
        The same seed draws the same vectors.
    context : Context

    Raises
    ------
    Interrupted
        Where the work was stopped.
    """
    cells = sample_cells(source.inside, source.cell, math.ceil(n / source.shown), seed)
    vectors, places = [np.empty((0, source.dim), np.float16)], [np.empty((0, 3), np.float32)]
    for i, cell in enumerate(cells):
        if context.stopped():
            raise Interrupted("stopped while vectors were drawn: the same command starts again")
        points = source.shown_points(cell)
        if points.size:
            vectors.append(source.values(cell.cells).numpy().reshape(-1, source.dim)[points])
            places.append(_places(source, cell, points))
        context.report("vectors", (i + 1) / len(cells), f"{i + 1}/{len(cells)} places")
    return Located(np.concatenate(vectors), np.concatenate(places))


def _places(source: LatticeVectors, cell: SampleCell, points: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return where points of a cell lie in the volume, z y x."""
    index = np.unravel_index(points, cell.cells.shape)
    places = np.empty((len(points), 3), np.float32)
    for axis, (first, along) in enumerate(zip(cell.cells.start, index, strict=True)):
        places[:, source.order[axis]] = source.positions[axis][first + along]
    return places


def located_again(
    told: Record, image: Volume, n: int, features: str | None, model: str | None, context: Context
) -> Located | None:
    """Draw some of the vectors that labels were made from once more.

    Parameters
    ----------
    told : dict
        What the labels say of themselves.
    image : Volume
        Their image.
    n : int
        Number of vectors wanted.
    features : str or None
        What ``embed`` stored of the image; None computes the vectors again.
    model : str or None
        The model that computes them; None for the bundled one.
    context : Context

    Returns
    -------
    Located or None
        None where no vectors are wanted, or where they are of other voxels than the image. Also None where
        neither features nor a model is named, and the labels were made with another model than the bundled
        one.

    Raises
    ------
    InputError
        Where the labels were made with other vectors than those of the features or the model that is named.
    Interrupted
        Where the work was stopped.
    """
    source = _source(told, image.address, features, model, context) if n else None
    if source is None:
        return None
    if source.volume_shape != image.shape:
        _log.warning(
            "the vectors are of %s voxels, the image of %s: no vector is shown",
            source.volume_shape,
            image.shape,
        )
        return None
    return located(source, n, 0, context)


def _source(
    told: Record, image: str, features: str | None, model: str | None, context: Context
) -> LatticeVectors | None:
    """Open the vectors that labels were made from once more."""
    made = _segmentation(told)
    if made is None and not (features or model):
        return None
    facts, state = (made or {}).get("volume") or {}, (made or {}).get("state") or {}
    if features and not are_features(Path(features)):
        raise MissingError(f"no features at {features}: 'vemseg embed' stores them")
    again = Wanted(features) if features else _computed(image, model, facts, state)
    source = again.vectors(context)
    if made is None or source.maker.model == state["model"]:
        return source
    if features or model:
        raise InputError(f"{features or model}: the labels were made with vectors of another model")
    _log.info("the labels were made with another model than the bundled one: -m MODEL shows its vectors")
    return None


def _segmentation(told: Record) -> Record | None:
    """Return what segmented labels said of themselves, before they were refined; None for other labels."""
    while isinstance(told.get("refined_from"), Mapping):
        told = told["refined_from"]
    state = told.get("state")
    return told if isinstance(state, Mapping) and isinstance(state.get("model"), str) else None


def _computed(
    image: str, model: str | None, facts: Mapping[str, object], state: Mapping[str, object]
) -> Wanted:
    """Return the vectors of an image as the labels were made from them."""
    given = state.get("settings")
    known = given.items() if isinstance(given, Mapping) else ()
    settings = tuple(f"{key}={json.dumps(value)}" for key, value in known if key.startswith(_OF_VECTORS))
    size, crop, read, mask = (facts.get(key) for key in ("voxel_size_nm", "crop", "read", "mask"))
    return Wanted(
        image,
        model,
        settings,
        ",".join(map(str, size)) if isinstance(size, list) else None,
        crop if isinstance(crop, str) else None,
        Choice(**{k: str(v) for k, v in read.items()}) if isinstance(read, Mapping) else Choice(),
        Background("background" in facts, mask if isinstance(mask, str) else None),
    )
