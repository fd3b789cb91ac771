"""Labels from interpolated scores: the quick way gives what the obvious one does, bit for bit."""

import itertools

import numpy as np
import pytest
import torch

from vemseg.dense import argmax_interpolated, interpolated, interpolations
from vemseg.dense import scores as room
from vemseg.geometry import Box


def slow(scores, axes):
    """Interpolate all scores of a voxel side by side, then take the best."""
    z, y, x = axes
    labels = np.empty((len(z.left), len(y.left), len(x.left)), np.uint8)
    for plane, rows, strip in interpolated(scores, axes):
        labels[plane, rows] = strip.argmax(dim=-1).numpy() + 1
    return labels


def lattice(patch, shape):
    """Return positions of patch centres that reach over a volume's borders, as placements lay them."""
    return tuple(
        np.arange(-(-n // p) + 2) * float(p) - (p + 1) / 2 for p, n in zip(patch, shape, strict=True)
    )


@pytest.mark.parametrize("patch", [(1, 1, 1), (2, 2, 2), (1, 5, 5), (3, 1, 2), (1, 4, 3.7)], ids=str)
@pytest.mark.parametrize(
    ("tile", "k"),
    [pair for pair in itertools.product([1, 2**6, 2**15], [1, 2, 7, 255]) if pair != (1, 255)],
)
def test_labels_are_those_of_the_obvious_way(patch, k, tile, monkeypatch):
    monkeypatch.setattr(room, "TILE_VOXELS", tile)
    monkeypatch.setattr(room, "STRIP_BYTES", 50_000)
    shape = (5, 29, 37)
    rng = np.random.default_rng(k)
    for box in (Box.whole(shape), Box((1, 3, 5), (3, 4, 37)), Box((2, 0, 7), (5, 29, 8))):
        axes = interpolations(lattice(patch, tuple(int(n) for n in shape)), box)
        points = [axis.stop - axis.start for axis in axes]
        scores = torch.from_numpy(rng.normal(size=(*points, k)).astype(np.float32))
        np.testing.assert_array_equal(argmax_interpolated(scores, axes), slow(scores, axes))


def test_near_ties_fall_the_same_way_whatever_the_tile(monkeypatch):
    rng = np.random.default_rng(0)
    axes = interpolations(lattice((2, 2, 2), (6, 40, 50)), Box.whole((6, 40, 50)))
    points = [axis.stop - axis.start for axis in axes]
    base = rng.normal(size=(*points, 1)).astype(np.float32)
    nudges = rng.integers(-1, 2, (*points, 5)).astype(np.float32) * np.spacing(np.abs(base))
    scores = torch.from_numpy(base + nudges)
    whole = argmax_interpolated(scores, axes)
    assert len(np.unique(whole)) == 5
    for tile in (1, 41, 333):
        monkeypatch.setattr(room, "TILE_VOXELS", tile)
        np.testing.assert_array_equal(argmax_interpolated(scores, axes), whole)
    np.testing.assert_array_equal(slow(scores, axes), whole)
