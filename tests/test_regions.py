"""Regions of even grey: their vectors are exact, parts cover the volume, labels do not depend on blocks."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_seams import source_of

from vemseg.context import Context
from vemseg.dense import RegionVectors, interpolated
from vemseg.dense.pooling import moments
from vemseg.dense.scores import interpolations
from vemseg.errors import Interrupted
from vemseg.geometry import Box
from vemseg.labelling import AffineLabeller, fit
from vemseg.recipe import KMeansTable, RegionsTable
from vemseg.superpixels import divide
from vemseg.volume import intensity_of

RANDOM = np.random.default_rng(5)


def dense_map(values, axes):
    """Return the vector of every voxel: the slow way."""
    planes = [[] for _ in axes[0].left]
    for plane, _, strip in interpolated(torch.from_numpy(values.astype(np.float64)), axes):
        planes[plane].append(strip)
    return torch.stack([torch.cat(strips) for strips in planes]).numpy()


def slow_moments(dense, regions, standardise):
    """Return mean and standard deviation over the voxels of each region."""
    if standardise:
        dense = dense - dense.mean(axis=-1, keepdims=True)
        dense = dense / dense.std(axis=-1, keepdims=True)
    each = [dense[regions == number] for number in range(regions.max() + 1)]
    return np.array([one.mean(axis=0) for one in each]), np.array([one.std(axis=0) for one in each])


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize(
    ("shape", "pitch"),
    [((1, 30, 23), (1, 5, 5)), ((1, 21, 30), (3, 4, 5)), ((5, 12, 13), (2, 5, 3)), ((4, 6, 5), (1, 1, 1))],
    ids=str,
)
def test_moments_need_no_vector_per_voxel(shape, pitch, standardise):
    positions = tuple(np.arange(-1.5, n + step, step) for n, step in zip(shape, pitch, strict=True))
    axes = interpolations(positions, Box.whole(shape))
    values = RANDOM.normal(size=(*(rule.stop for rule in axes), 40)).astype(np.float16)
    regions = RANDOM.integers(0, 9, shape)
    found = moments(values, axes, regions, standardise)
    for fast, slow in zip(found, slow_moments(dense_map(values, axes), regions, standardise), strict=True):
        np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_moments_of_vectors_without_contrast_are_zero_and_no_nan():
    axes = interpolations(
        (np.arange(1.0), np.arange(-1, 9, 3.0), np.arange(-1, 9, 3.0)), Box.whole((1, 8, 8))
    )
    values = np.full((1, axes[1].stop, axes[2].stop, 6), 3.0, np.float16)
    mean, deviation = moments(values, axes, np.zeros((1, 8, 8), np.int64), standardise=True)
    assert not mean.any() and not deviation.any()
    mean, deviation = moments(values, axes, np.zeros((1, 8, 8), np.int64), standardise=False)
    np.testing.assert_allclose(mean, 3.0)
    np.testing.assert_allclose(deviation, 0, atol=1e-6)


def reflected(array, box):
    """Return a part of an array that may reach beyond its end, mirrored there."""
    wide = np.pad(array, [(0, max(0, b - n)) for b, n in zip(box.stop, array.shape, strict=True)], "reflect")
    return wide[box.slices]


@pytest.mark.parametrize("settings", [{}, {"whole": False}, {"standardise": True}, {"depth": 2}], ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)], ids=str)
def test_the_vectors_of_regions_are_those_of_their_voxels(order, settings):
    source = source_of((5, 20, 23), order)
    found = RegionVectors(source, RegionsTable(method="slic", size=12.0, tile=16, **settings))
    shape = source.volume.shape
    values = source.values(Box.whole(source.shape)).numpy()
    dense = dense_map(values, source.interpolations(Box.whole(shape)))
    grey = source.volume.read(source.volume.box).transpose(order)
    seen, intensity = np.zeros(grey.shape, int), intensity_of(source.volume, source.maker.recipe.volume)
    for part in (found.divided(number) for number in range(len(found.parts))):
        inside = part.box.clip(Box.whole(grey.shape))
        seen[inside.slices] += 1
        here = np.stack([reflected(dense[..., c], part.box) for c in range(dense.shape[-1])], axis=-1)
        mean, deviation = slow_moments(here, part.numbers, settings.get("standardise", False))
        slow = np.concatenate([mean, deviation], axis=1)
        np.testing.assert_allclose(part.graph.vectors, slow, atol=2e-3)  # float16
        expected = intensity.apply(reflected(grey, part.box))
        bright = [expected[part.numbers == i].mean() for i in range(len(part.graph))]
        np.testing.assert_allclose(part.graph.intensities, bright, atol=1e-6)
    assert (seen == 1).all()  # parts cover the volume, once
    edges = part.box.shape if settings.get("whole", True) else (1, 16, 16)
    assert len(found.parts) == np.prod([-(-n // edge) for n, edge in zip(grey.shape, edges, strict=True)])


def test_edges_are_the_pairs_of_regions_that_lie_face_to_face():
    found = RegionVectors(
        source_of((4, 9, 16), (0, 1, 2)), RegionsTable(method="slic", size=12.0, tile=16, depth=2)
    )
    part = found.divided(0)
    expected = set()
    for axis, place in itertools.product(range(3), np.ndindex(part.numbers.shape)):
        beside = tuple(at + (axis == a) for a, at in enumerate(place))
        if beside[axis] < part.numbers.shape[axis]:
            pair = tuple(sorted((int(part.numbers[place]), int(part.numbers[beside]))))
            expected |= {pair} if pair[0] < pair[1] else set()
    assert expected and {tuple(edge) for edge in part.graph.edges.tolist()} == expected


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
@pytest.mark.parametrize("whole", [True, False])
def test_labels_and_their_certainty_do_not_depend_on_blocks(order, whole):
    found = RegionVectors(
        source_of((5, 20, 23), order), RegionsTable(method="slic", size=12.0, tile=16, whole=whole)
    )
    labeller = fit(KMeansTable(k=3, sample=1000, restarts=1), found.sample(1000, 0, Context()), found)
    assert isinstance(labeller, AffineLabeller)
    box = found.volume.box
    labels, certain = found.rated(box, found.read(box), labeller, ["confidence"])
    assert set(np.unique(labels)) == {1, 2, 3}
    np.testing.assert_array_equal(found.labels(box, found.read(box), labeller), labels)
    for part in box.split((2, 11, 9)):
        mine = found.rated(part, found.read(part), labeller, ["confidence"])
        np.testing.assert_array_equal(mine[0], labels[part.slices])
        np.testing.assert_array_equal(mine[1], certain[part.slices])
    turned = labels.transpose(order)
    for divided in (found.divided(number) for number in range(len(found.parts))):
        inside = divided.box.clip(Box.whole(turned.shape))
        classes = labeller.graph_scores(divided.graph).argmax(dim=-1).numpy() + 1
        numbers = divided.numbers[inside.relative_to(divided.box).slices]
        np.testing.assert_array_equal(turned[inside.slices], classes[numbers])


def test_a_sample_is_whole_graphs_the_same_for_the_same_seed_and_stops():
    found = RegionVectors(source_of((9, 20, 23), (0, 1, 2)), RegionsTable(method="slic", size=12.0))
    some, again, other = (found.sample(50, seed, Context()) for seed in (3, 3, 4))
    np.testing.assert_array_equal(some.vectors, again.vectors)
    assert not np.array_equal(some.vectors[:20], other.vectors[:20])
    assert 50 <= len(some.vectors) < found.count and len(some.graphs) < len(found.parts)
    np.testing.assert_array_equal(np.concatenate([graph.vectors for graph in some.graphs]), some.vectors)
    told = []
    everything = found.sample(10**6, 0, Context(report=lambda *said: told.append(said[1])))
    assert told[len(told) // 2 - 1] == pytest.approx(0.5, abs=0.1)  # of what there is, not of what is asked
    assert len(everything.graphs) == len(found.parts) and len(everything.vectors) == len(
        everything.intensities
    )
    with pytest.raises(Interrupted, match="sampled"):
        found.sample(50, 0, Context(stopped=lambda: True))


def test_division_of_anything_has_regions_without_gaps():
    for image in (
        np.zeros((1, 24, 24)),
        np.zeros((1, 1, 1)),
        RANDOM.random((1, 30, 7)),
        RANDOM.random((3, 9, 9)),
    ):
        numbers = divide(image.astype(np.float32), 10, 0.2, (1.0, 1.0, 1.0))
        assert numbers.shape == image.shape
        assert np.array_equal(np.unique(numbers), np.arange(numbers.max() + 1))


@pytest.mark.parametrize("depth", [1, 3])
def test_regions_do_not_depend_on_the_unit_of_the_edges(depth):
    """They follow the edges in the image, however large its pixels are; else they would be rectangles."""
    rng = np.random.default_rng(2)
    image = ndimage.gaussian_filter(rng.random((depth, 60, 60)), (0, 3, 3))
    image = ((image - image.min()) / np.ptp(image)).astype(np.float32)
    thick = 2.0 if depth > 1 else 1.0
    found = divide(image, 36 * depth, 0.2, (thick, 1.0, 1.0))
    for edge in (15.0, 0.015):
        assert np.array_equal(divide(image, 36 * depth, 0.2, (thick * edge, edge, edge)), found)
    filled = [np.mean(found[part] == k) for k, part in enumerate(ndimage.find_objects(found + 1))]
    assert np.mean(filled) < 0.75


def test_the_number_of_regions_follows_the_working_voxels():
    source = source_of((5, 40, 60), (0, 1, 2))
    table = RegionsTable(method="slic", size=24.0, tile=20)
    assert RegionVectors(source, table).parts.regions == 100
    assert RegionVectors(source, table, whole=False).parts.regions == round(400 / 24)
    source.factors = (1.0, 2.0, 2.0)
    scaled = RegionVectors(source, table, whole=False).parts
    assert (scaled.shape, scaled.regions) == ((1, 40, 40), round(400 / 24))
    assert RegionVectors(source, table).parts.regions == 25


def test_work_reach_and_memory_are_those_of_whole_parts():
    source = source_of((5, 40, 60), (0, 1, 2))
    found = RegionVectors(source, RegionsTable(method="slic", size=24.0, tile=20), whole=False)
    box = Box((1, 5, 25), (2, 8, 41))
    assert found.work(box) == source.work(Box((1, 0, 20), (2, 20, 60)))
    assert found.reach(2, 25, 41) == source.reach(2, 20, 60)
    assert found.reach(0, 1, 2) == source.reach(0, 1, 2)
    inner, outer = (one.budgets(4, 1.0, 2**32)[0] for one in (source, found))
    assert outer.base - inner.base == pytest.approx(found.part_bytes, abs=2**22)
