"""Flat pictures: planes, a montage, a comparison, confidence, and features as colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vemseg.comparison import merged_greedily, open_on_grid_of
from vemseg.drawing import Figure, comparison, depths, heat, montage, three_planes
from vemseg.drawing.pictures import Planes, Row
from vemseg.errors import InputError
from vemseg.features import Features
from vemseg.gallery.view import View, folded
from vemseg.geometry import Box
from vemseg.volume import Thinned, planes, sections

ROWS = 3
"""How many slices show confidence and features."""

SAMPLE = 20_000
"""Most vectors that the directions of colours are found from."""

CERTAIN = 255
"""The confidence of a label that is certain."""

SPREAD = (1.0, 99.0)
"""The percentiles of a component that get no and all of its colour."""

MATCHING = (
    "Greedy matching: each label was given, one after another, to the class that raised the mean Dice of the "
    "whole volume most. It looks at the reference."
)


def draw_planes(view: View) -> Figure:
    """Draw three planes that cross, raw and under their labels."""
    at, shown = view.raw.at(view.position), view.shown
    raw = planes(view.raw, at)
    if shown is None:
        seen = _blank(raw)
    else:
        z, y, x = (folded(plane) for plane in planes(shown, at))
        seen = z, y, x
    return three_planes(raw, seen, view.raw.voxel_size, view.captions, position=at, manner=view.manner)


def draw_montage(view: View) -> Figure:
    """Draw slices through the stack."""
    at = view.depths(view.look.slices)
    cuts = None if view.shown is None else folded(sections(view.shown, at))
    return montage(
        sections(view.raw, at), cuts, view.places(at), view.pixel, view.captions, manner=view.manner
    )


def draw_comparison(view: View) -> Figure:
    """Draw a slice of labels, merged into the classes of the reference, beside the reference."""
    painted, truth = view.painted, view.truth
    assert painted is not None and truth is not None
    z = view.raw.at(view.position)[0]
    cut, found, wished = (sections(part, [z])[0] for part in (view.raw, Thinned(painted), Thinned(truth)))
    merged, manner = merged_greedily(painted, truth, found), replace(view.manner, colours={})
    return comparison(cut, merged, wished, view.classes, view.pixel, matching=MATCHING, manner=manner)


def draw_confidence(view: View) -> Figure:
    """Draw how certain labels are, beside them.

    Raises
    ------
    InputError
        Where the confidence is not a volume of uint8, or of other voxels than the labels.
    """
    assert view.wishes.confidence is not None
    values = open_on_grid_of(view.grey, view.wishes.confidence, offline=view.context.offline)
    if values.dtype != np.uint8:
        raise InputError(
            f"{view.wishes.confidence} holds {values.dtype}, no confidence: 'segment --confidence' writes it"
        )
    at, known = view.depths(ROWS), Thinned(values)
    certain = np.stack([heat(cut / CERTAIN) for cut in sections(known, at)])
    mean = float(sections(known, at).mean()) / CERTAIN
    note = f"Confidence: dark blue is 0, yellow is 1; the mean of these slices is {mean:.2f}."
    return _deep(view, at, Row("confidence", certain, note))


def draw_features(view: View) -> Figure:
    """Draw the first three principal components of stored vectors as red, green and blue.

    Raises
    ------
    InputError
        Where the vectors are of other voxels than the volume.
    """
    assert view.wishes.features is not None
    features = Features(view.wishes.features)
    if features.source_shape != view.grey.shape:
        raise InputError(
            f"{features.path} holds vectors of {features.source_shape} voxels, but {view.grey.name} has "
            f"{view.grey.shape} (z, y, x): give the volume and crop that they were made from"
        )
    at = view.depths(ROWS)
    colours, share = _coloured(features, view, at)
    note = (
        f"Features: red, green and blue are the first three principal components of {features.dim} numbers, "
        f"{100 * share:.0f} % of their variance."
    )
    return _deep(view, at, Row("features", colours, note))


def _deep(view: View, at: list[int], beside: Row) -> Figure:
    """Draw slices at some depths, with one more row."""
    cuts = None if view.shown is None else folded(sections(view.shown, at))
    raw, places = sections(view.raw, at), view.places(at)
    return depths(raw, cuts, places, view.pixel, view.captions, beside=beside, manner=view.manner)


def _coloured(features: Features, view: View, at: list[int]) -> tuple[NDArray[np.uint8], float]:
    """Return slices of vectors as colours, (n, h, w, 3), and the share of variance that they show."""
    order = features.attributes["order"]
    axes = [order.index(axis) for axis in range(3)]  # the axis of the lattice along each of the volume
    near = [
        _nearest(features.positions[a], np.arange(n) * step)
        for a, n, step in zip(axes, view.raw.shape, view.raw.steps, strict=True)
    ]
    cuts = [_plane(features, axes, int(near[0][z])) for z in at]
    sample = np.concatenate([cut.reshape(-1, features.dim) for cut in cuts])
    sample = sample[np.isfinite(sample).all(axis=1)]
    sample = sample[:: max(1, len(sample) // SAMPLE)].astype(np.float64)
    middle = sample.mean(axis=0)
    values, directions = np.linalg.eigh(np.cov(sample - middle, rowvar=False).reshape(features.dim, -1))
    first = directions[:, ::-1][:, :3]
    first = first * np.sign(first[np.abs(first).argmax(axis=0), np.arange(first.shape[1])])
    low, high = np.percentile((sample - middle) @ first, SPREAD, axis=0)
    out = np.zeros((len(at), *view.raw.shape[1:], 3), np.uint8)
    for i, cut in enumerate(cuts):
        parts = ((cut.astype(np.float64) - middle) @ first - low) / np.maximum(high - low, 1e-12)
        shown = np.nan_to_num(255 * parts.clip(0, 1)).round().astype(np.uint8)
        out[i, ..., : first.shape[1]] = shown[np.ix_(near[1], near[2])]
    return out, float(values[::-1][:3].sum() / max(values.sum(), np.finfo(float).tiny))


def _plane(features: Features, axes: list[int], index: int) -> NDArray[np.float16]:
    """Read the vectors of one plane across the volume's z: (y, x, d)."""
    start, stop = [0, 0, 0], list(features.shape)
    start[axes[0]], stop[axes[0]] = index, index + 1
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    plane: NDArray[np.float16] = features.vectors(box).transpose(*axes, 3)[0]
    return plane


def _nearest(positions: NDArray[np.float64], voxels: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return which lattice point along an axis is nearest to each voxel."""
    found: NDArray[np.intp] = np.searchsorted((positions[1:] + positions[:-1]) / 2, voxels)
    return found


def _blank(like: Planes) -> Planes:
    z, y, x = (np.zeros(plane.shape, np.uint8) for plane in like)
    return z, y, x
