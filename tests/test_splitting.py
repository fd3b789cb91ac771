"""Touching objects split at their necks: phantoms computed by hand, and a slow obvious version."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from vemseg.context import Context, Share
from vemseg.errors import Interrupted, OutputExistsError, ResourceError, UsageError
from vemseg.objects import Asked, blockwise
from vemseg.objects.necks import can_be_cut, cut
from vemseg.pipeline.objects import objects
from vemseg.volume import open_labels, open_volume

ISOTROPIC = (10.0, 10.0, 10.0)
SPLIT = Asked(neck=0.7)


def ball(shape, centre, radius, edges=(1.0, 1.0, 1.0)):
    grid = (np.indices(shape).T - np.array(centre)) * np.array(edges)
    return ((grid**2).sum(-1) <= radius**2).T


def pair(gap, radius=10):
    """Return two balls whose centres are that far apart along x."""
    shape = (2 * radius + 5, 2 * radius + 5, 2 * radius + 5 + gap)
    at = radius + 2
    return ball(shape, (at, at, at), radius) | ball(shape, (at, at, at + gap), radius)


@pytest.mark.parametrize(("gap", "parts"), [(8, 1), (12, 1), (18, 2), (20, 2)])
def test_two_balls_are_split_where_the_neck_is_thin(gap, parts):
    """The neck of two balls of radius 10 is sqrt(100 - gap² / 4) in radius: 9.2, 8, 4.4 and 0."""
    found, n = cut(pair(gap), (1.0, 1.0, 1.0), 0.7)
    assert n == parts == found.max()
    if parts == 2:
        middle = 12 + gap / 2
        x = np.indices(found.shape)[2]
        assert (found[x < middle - 0.5] != 2).all() and (found[x > middle + 0.5] != 1).all()
    assert ((found > 0) == pair(gap)).all()


def test_more_is_split_the_greater_the_share():
    assert [cut(pair(16), (1.0, 1.0, 1.0), neck)[1] for neck in (0.3, 0.5, 0.7, 0.9)] == [1, 1, 2, 2]


def test_a_chain_of_three_is_three():
    shape = (24, 24, 70)
    chain = np.any([ball(shape, (12, 12, x), 10) for x in (12, 31, 50)], axis=0)
    found, n = cut(chain, ISOTROPIC, 0.7)
    sizes = np.bincount(found[found > 0])[1:]
    assert n == 3 and sizes.min() > 0.9 * sizes.max()
    assert [found[12, 12, x] for x in (12, 31, 50)] == [1, 2, 3]


def test_nanometres_count_and_not_voxels():
    """Two balls in voxels four times as long along z, once side by side."""
    edges, shape = (4.0, 1.0, 1.0), (10, 40, 40)
    two = ball(shape, (5, 20, 12), 11, edges) | ball(shape, (5, 20, 31), 11, edges)
    assert cut(two, edges, 0.7)[1] == 2
    along = ball((17, 30, 30), (4, 15, 15), 13, edges) | ball((17, 30, 30), (10, 15, 15), 13, edges)
    found, n = cut(along, edges, 0.8)
    assert n == 2 and {found[4, 15, 15], found[10, 15, 15]} == {1, 2}


@pytest.mark.parametrize("radius", [2, 3, 6])
@pytest.mark.parametrize("edges", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0)])
def test_a_long_bent_tube_stays_whole(radius, edges):
    z, y, x = np.indices((int(30 / edges[0]), 60, 90)).astype(float)
    around = np.hypot(y, x - 45) - 40
    tube = np.hypot(around, z * edges[0] - 15) <= radius
    assert cut(tube, edges, 0.7)[1] == 1


def test_in_one_slice_discs_are_split(tmp_path):
    discs = pair(18)[12:13]
    assert cut(discs, ISOTROPIC, 0.7)[1] == 2
    tifffile.imwrite(tmp_path / "l.tif", discs.astype(np.uint8))
    objects(open_labels(tmp_path / "l.tif"), tmp_path / "o.tif", asked=SPLIT)
    assert open_volume(tmp_path / "o.tif").read(open_volume(tmp_path / "o.tif").box).max() == 2


def slow_count(inside, edges, neck):
    """Count the parts by flooding at every depth: hills that meet are cut where the lower one stands out."""
    depth = ndimage.distance_transform_edt(inside, sampling=edges)
    parts, edge, hills = 1, max(edges), []
    for level in np.unique(depth[inside])[::-1]:
        flooded, n = ndimage.label(depth >= level, np.ones((3, 3, 3)))
        merged = {}
        for at in hills:
            merged.setdefault(flooded[at], []).append(at)
        peaks = ndimage.maximum_position(depth, flooded, np.arange(1, n + 1))
        hills = []
        for i, peak in enumerate(peaks, start=1):
            meeting = sorted(merged.get(i, [peak]), key=lambda at: depth[at])
            parts += sum(level + edge <= neck * (depth[low] + edge) for low in meeting[:-1])
            hills.append(meeting[-1])
    return parts


@pytest.mark.parametrize("edges", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
def test_as_many_parts_as_flooding_at_every_depth_gives(edges):
    noise = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal((36, 40, 44)), 3.0)
    blobs, _ = ndimage.label(noise > np.quantile(noise, 0.75), np.ones((3, 3, 3)))
    counts = []
    for i, box in enumerate(ndimage.find_objects(blobs), start=1):
        inside = np.pad(blobs[box] == i, 1)
        for neck in (0.6, 0.8):
            found, n = cut(inside, edges, neck)
            assert n == slow_count(inside, edges, neck)
            assert all(ndimage.label(found == part, np.ones((3, 3, 3)))[1] == 1 for part in range(1, n + 1))
            high = np.array([inside.shape]) - 1
            assert n == 1 or can_be_cut(high * 0 + 1, high, inside.shape, edges, neck)[0]
            counts.append(n)
    assert max(counts) > 4 and counts.count(1) > 4


@pytest.fixture
def labels(tmp_path):
    """Write two pairs of balls, of two classes, that touch; one pair goes through faces of small blocks."""
    array = np.zeros((36, 30, 40), np.uint8)
    array[8:27, 2:21, 4:36][pair(13, 7)] = 2
    array[20:35, 15:30, 10:34][pair(9, 5)] = 1
    path = tmp_path / "labels.tif"
    tifffile.imwrite(
        path, array, imagej=True, resolution=(0.1, 0.1), metadata={"spacing": 10, "unit": "nm", "axes": "ZYX"}
    )
    return path


def results(folder):
    volume = open_volume(folder / "o.tif")
    return volume.read(volume.box), (folder / "o.csv").read_text()


def test_neither_blocks_nor_shares_nor_a_stop_change_a_piece(labels, tmp_path, monkeypatch):
    monkeypatch.setattr(blockwise, "SHAPES", ((48, 48, 48),))
    objects(open_labels(labels), tmp_path / "one" / "o.tif", asked=SPLIT)
    numbers, table = results(tmp_path / "one")
    assert numbers.max() == 4
    monkeypatch.setattr(blockwise, "SHAPES", ((16, 16, 32),))
    shared, there = tmp_path / "shared" / "o.tif", Context()
    for index in (0, 1):
        objects(open_labels(labels), shared, asked=SPLIT, context=replace(there, share=Share(index, 2)))
    objects(open_labels(labels), shared, asked=SPLIT, context=replace(there, executor="gather"))
    for stop_after in (13, 9):  # in the midst of splitting, and of painting
        asked = iter(range(100))
        with pytest.raises(Interrupted):
            stopped = Context(stopped=lambda asked=asked, n=stop_after: next(asked) >= n)
            objects(open_labels(labels), tmp_path / "stopped" / "o.tif", asked=SPLIT, context=stopped)
    objects(open_labels(labels), tmp_path / "stopped" / "o.tif", asked=SPLIT)
    for name in ("shared", "stopped"):
        again, said = results(tmp_path / name)
        np.testing.assert_array_equal(again, numbers, err_msg=name)
        assert said == table, name


@pytest.mark.slow
def test_processes_find_split_and_paint_the_same(labels, tmp_path, monkeypatch):
    objects(open_labels(labels), tmp_path / "one" / "o.tif", asked=SPLIT)
    monkeypatch.setattr(blockwise, "SHAPES", ((16, 16, 32),))
    context = Context(processes=2, memory=2**32)
    objects(open_labels(labels), tmp_path / "two" / "o.tif", asked=SPLIT, context=context)
    (numbers, table), (again, said) = results(tmp_path / "one"), results(tmp_path / "two")
    np.testing.assert_array_equal(again, numbers)
    assert said == table and numbers.max() == 4


def test_halves_have_their_volume_surface_and_place(tmp_path):
    """Each half is a ball of radius 16 without a cap of height 2; its flat side counts as surface."""
    radius, gap = 16, 28
    tifffile.imwrite(tmp_path / "l.tif", pair(gap, radius).astype(np.uint8) * 3)
    asked = {"asked": SPLIT, "names": {3: "granule"}}
    objects(open_labels(tmp_path / "l.tif", voxel_size="10"), tmp_path / "o.tif", **asked)
    rows = list(csv.DictReader((tmp_path / "o.csv").read_text().splitlines()))
    height = radius - gap / 2
    volume = np.pi * (4 / 3 * radius**3 - height**2 * (3 * radius - height) / 3)
    flat = np.pi * (radius**2 - (gap / 2) ** 2)
    round_ = 2 * np.pi * radius * (2 * radius - height)
    assert [row["object"] for row in rows] == ["1", "2"]
    for row, x in zip(rows, (radius + 2, radius + 2 + gap), strict=True):
        assert float(row["volume_um3"]) == pytest.approx(volume / 1e6, rel=0.03)
        assert float(row["surface_um2"]) == pytest.approx((round_ + flat) / 1e4, rel=0.03)
        assert float(row["contact_nothing_um2"]) == pytest.approx(round_ / 1e4, rel=0.03)
        assert float(row["contact_3_granule_um2"]) == pytest.approx(flat / 1e4, rel=0.12)
        assert float(row["centre_x"]) == pytest.approx(x, abs=0.5)
        assert float(row["sphericity"]) == pytest.approx(1, abs=0.03)


def test_what_is_not_split_stays_as_it_was(labels, tmp_path):
    for name, asked in (("before", Asked()), ("split", Asked(neck=0.1))):
        objects(open_labels(labels), tmp_path / name / "o.tif", asked=asked)
    (before, table), (after, same) = results(tmp_path / "before"), results(tmp_path / "split")
    np.testing.assert_array_equal(before, after)
    assert before.max() == 2 and table == same


def test_what_cannot_be_split_is_refused_in_one_line(labels, tmp_path):
    volume, out = open_labels(labels), tmp_path / "o.tif"
    for neck in (0.0, 1.0, float("nan")):
        with pytest.raises(UsageError, match=r"give a share above 0 and below 1, such as 0\.7"):
            objects(volume, out, asked=Asked(neck=neck))
    objects(volume, out, asked=SPLIT)
    with pytest.raises(OutputExistsError, match="made otherwise"):
        objects(volume, out)


def test_an_object_that_does_not_fit_into_memory_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(blockwise, "SHAPES", ((16, 16, 16),))
    monkeypatch.setattr("vemseg.objects.splitting.VOXEL_BYTES", 2**20)
    tifffile.imwrite(tmp_path / "l.tif", pair(19).astype(np.uint8))
    volume = open_labels(tmp_path / "l.tif", voxel_size="10")
    with pytest.raises(
        ResourceError, match="for object 1, which is of class 1 and spans 23 x 23 x 42 voxels"
    ):
        objects(volume, tmp_path / "o.tif", asked=SPLIT, context=Context(memory=2**32))
    assert not (tmp_path / "o.tif").exists()
