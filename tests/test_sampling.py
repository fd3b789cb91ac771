"""The stream of fields of view: what it depends on, what it draws, and what a sample is."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.nn.functional import interpolate

from vemseg import fov
from vemseg.errors import InputError
from vemseg.fov import FovStream, Source
from vemseg.geometry import Box
from vemseg.recipe import FovTable
from vemseg.volume import ArrayVolume, Intensity

F = 20
ISOTROPIC = (16.0, 16.0, 16.0)
CPU = torch.device("cpu")
LEAST_POOL = 2**20
"""The smallest ``fov.pool_bytes`` a recipe may ask for: 2**19 voxels."""


def source(shape, seed=0, voxel_size=ISOTROPIC, name="array"):
    grey = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Source(ArrayVolume(grey, voxel_size, name), Intensity(20.0, 230.0))


def stream_of(*sources, seed=0, **settings):
    return FovStream(sources, (1, F, F), FovTable(**settings), seed, CPU)


@pytest.fixture
def rotating(monkeypatch):
    """Return a maker of streams whose pool holds 4 boxes of a large volume and replaces one every 3 steps."""
    monkeypatch.setattr(fov, "POOL_BOX", (32, 64, 64))
    monkeypatch.setattr(fov, "REFRESH", 3)
    big = source((40, 120, 120))
    return lambda: stream_of(big, pool_bytes=LEAST_POOL)


def slowly(stream, step, size):
    """Make a batch again, one sample at a time, from the choices the stream drew."""
    draw = stream.draw(step, size)
    return np.stack([slow_sample(stream, draw, i) for i in range(size)])[:, None, None]


def slow_sample(stream, draw, i):
    slot = stream._slots[draw.slot[i]]
    chosen = stream.sources[slot.source]
    voxels = np.clip((chosen.volume.read(chosen.volume.box) - 20.0) / 210.0, 0, 1)[slot.box.slices]
    plane = np.take(voxels, draw.plane[i], axis=draw.axis[i])
    plane = np.pad(plane, [(0, max(0, F - n)) for n in plane.shape], mode="reflect")
    row, column = draw.corner[i]
    image = slow_zoom(plane[row : row + F, column : column + F], draw.zoom_start[i], draw.zoom_size[i])
    for axis in (0, 1):
        image = np.flip(image, axis) if draw.flip[i, axis] else image
    return image.T if draw.transpose[i] else image


def slow_zoom(image, start, size):
    """Cut whole pixels out and resize them with torch; parts of pixels are looked up one by one."""
    if (start == start.round()).all() and (size == size.round()).all():
        (y, x), (h, w) = start.astype(int), size.astype(int)
        part = torch.from_numpy(image[y : y + h, x : x + w].copy())[None, None]
        return interpolate(part, size=(F, F), mode="bilinear", align_corners=False)[0, 0].numpy()
    places = [
        np.clip(a + (np.arange(F) + 0.5) * n / F - 0.5, a, a + n - 1)
        for a, n in zip(start, size, strict=True)
    ]
    return map_coordinates(image, np.meshgrid(*places, indexing="ij"), order=1)


def agree(batch, restated):
    """Compare a batch with its restatement; voxels in the pool are float16, of 11 bits."""
    return batch.shape == restated.shape and np.abs(batch.numpy() - restated).max() < 2**-11


# What a sample is


@pytest.mark.parametrize("crop", ["monai12", "fixed", "isotropic", "off"])
@pytest.mark.parametrize("flips", ["independent", "joint", "off"])
def test_a_batch_is_what_a_slow_restatement_makes(crop, flips, monkeypatch):
    monkeypatch.setattr(fov, "POOL_BOX", (7, 30, 16))  # whole volumes are read in such parts
    made = stream_of(source((16, 45, 38)), source((31, 24, 60), 1), crop=crop, flips=flips)
    batch = made.batch(5, 48)
    assert batch.dtype == torch.float32
    assert agree(batch, slowly(made, 5, 48))


def test_a_sample_of_the_whole_plane_is_the_plane():
    one = source((1, F, F))
    batch = stream_of(one, crop="off", flips="off", rotate90=False).batch(0, 4)
    plane = np.clip((one.volume.read(one.volume.box) - 20.0) / 210.0, 0, 1)
    assert np.abs(batch.numpy() - plane).max() < 2**-11


@pytest.mark.parametrize("crop_min", [1e-3, 0.04, 0.37, 1.0])
@pytest.mark.parametrize("crop", ["monai12", "fixed", "isotropic"])
def test_intensities_lie_between_0_and_1(crop, crop_min):
    batch = stream_of(source((30, 30, 30)), crop=crop, crop_min=crop_min).batch(0, 64)
    assert batch.min() >= 0
    assert batch.max() <= 1 + 1e-6


def test_planes_thinner_than_the_field_of_view_serve_only_where_there_are_no_others():
    whole = stream_of(source((14, 40, 40)), crop="off", flips="off", rotate90=False)
    assert set(whole.draw(0, 64).axis) == {0}
    made = stream_of(source((14, 16, 40)), crop="off", flips="off", rotate90=False)
    draw = made.draw(0, 64)
    assert set(draw.axis) == {0, 1, 2}
    batch = made.batch(0, 64)[:, 0, 0]
    across = batch[torch.from_numpy(draw.axis) == 1]
    assert torch.equal(across[:, 14:], across[:, 7:13].flip(1))


# What a batch depends on


def test_equal_seed_and_step_give_equal_batches():
    volumes = source((30, 40, 50)), source((25, 25, 25), 1)
    first, second = stream_of(*volumes, seed=3), stream_of(*volumes, seed=3)
    first.batch(0, 8)
    assert torch.equal(first.batch(7, 8), second.batch(7, 8))
    assert not torch.equal(first.batch(7, 8), first.batch(8, 8))
    assert not torch.equal(first.batch(7, 8), stream_of(*volumes, seed=4).batch(7, 8))


def test_no_sample_ever_comes_twice():
    made = stream_of(source((40, 60, 60)))
    steps = [*range(8), *range(10_000, 10_008)]  # "epochs" are nothing but later steps
    seen = {sample.numpy().tobytes() for step in steps for sample in made.batch(step, 32)}
    assert len(seen) == 512


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_one_batch(world):
    volumes = source((30, 40, 50)), source((25, 25, 25), 1)
    whole = stream_of(*volumes).batch(11, 16)
    parts = [stream_of(*volumes).batch(11, 16, rank, world) for rank in range(world)]
    assert all(len(part) == 16 // world for part in parts)
    together = torch.stack(parts, dim=1).flatten(0, 1)
    assert torch.allclose(together, whole, atol=1e-6)  # kernels may round otherwise in smaller batches


# The pool


def test_a_late_start_sees_what_a_long_run_sees(rotating):
    long_run = rotating()
    boxes = []
    for step in range(41):
        batch = long_run.batch(step, 8)
        boxes.append([slot.box for slot in long_run._slots])
        assert agree(batch, slowly(long_run, step, 8))
    late = rotating()
    assert torch.equal(late.batch(40, 8), batch)
    assert [slot.box for slot in late._slots] == boxes[-1]
    changed = [sum(map(Box.__ne__, old, new)) for old, new in itertools.pairwise(boxes)]
    assert changed == [1 if step % 3 == 0 else 0 for step in range(1, 41)]


def test_going_back_repeats_a_batch(rotating):
    made = rotating()
    early = made.batch(2, 8)
    made.batch(300, 8)
    assert torch.equal(made.batch(2, 8), early)


def test_the_pool_keeps_to_its_memory(rotating):
    made = rotating()
    assert len(made._slots) == 4
    assert made._pool.nbytes <= LEAST_POOL


def test_a_large_volume_is_seen_from_edge_to_edge(rotating):
    made = rotating()
    reached = [np.zeros(n, bool) for n in (40, 120, 120)]
    for step in range(0, 3 * 4 * 100, 3):
        made._refresh(step)
        for slot in made._slots:
            for axis, where in enumerate(slot.box.slices):
                reached[axis][where] = True
    assert all(axis.all() for axis in reached)


def test_boxes_hold_a_field_of_view_where_the_volume_does(monkeypatch):
    monkeypatch.setattr(fov, "POOL_BOX", (8, 8, 8))
    made = stream_of(source((15, 200, 200)), pool_bytes=LEAST_POOL)
    assert {slot.box.shape for slot in made._slots} == {(15, F, F)}


def test_small_and_large_volumes_share_a_pool(rotating):
    made = stream_of(source((25, 25, 25)), source((60, 120, 120), 1), pool_bytes=LEAST_POOL)
    assert [slot.fixed for slot in made._slots] == [True, False, False]
    assert agree(made.batch(50, 32), slowly(made, 50, 32))


# What is drawn how often


def near(count, expected, n):
    """Tell whether a count is within five standard deviations of what chance gives."""
    share = expected / n
    return abs(count - expected) < 5 * np.sqrt(n * share * (1 - share))


def test_volumes_and_axes_come_equally_often_whatever_their_size(rotating):
    made = stream_of(source((21, 21, 21)), source((60, 120, 120), 1), pool_bytes=LEAST_POOL)
    draw = made.draw(0, 6000)
    volumes = np.array([made._slots[slot].source for slot in draw.slot])
    for i in range(2):
        assert near((volumes == i).sum(), 3000, 6000)
        for axis in range(3):
            assert near(((volumes == i) & (draw.axis == axis)).sum(), 1000, 6000)


def test_every_plane_and_corner_is_drawn_including_the_last():
    draw = stream_of(source((F + 2, F + 3, F + 4))).draw(0, 20_000)
    extents = np.array([F + 2, F + 3, F + 4])
    for axis in range(3):
        mine = draw.axis == axis
        planes = np.bincount(draw.plane[mine])
        assert len(planes) == extents[axis]
        assert all(near(count, mine.sum() / len(planes), mine.sum()) for count in planes)
        for k, extent in enumerate(np.delete(extents, axis)):
            corners = np.bincount(draw.corner[mine, k])
            assert len(corners) == extent - F + 1
            assert all(near(count, mine.sum() / len(corners), mine.sum()) for count in corners)


@pytest.mark.parametrize(
    ("voxel_size", "axes", "expected"),
    [
        ((50.0, 4.6, 4.6), "auto", {0}),
        ((16.0, 50.0, 16.0), "auto", {1}),
        (ISOTROPIC, "auto", {0, 1, 2}),
        (None, "auto", {0, 1, 2}),
        ((50.0, 16.0, 16.0), "xyz", {0, 1, 2}),
        (ISOTROPIC, "xy", {0}),
        ((16.0, 16.0, 50.0), "xy", {2}),
    ],
)
def test_planes_are_taken_across_the_axes_asked_for(voxel_size, axes, expected):
    made = stream_of(source((30, 30, 30), voxel_size=voxel_size), axes=axes)
    assert set(made.draw(0, 200).axis) == expected


def test_axes_whose_planes_are_too_narrow_are_left_out():
    assert set(stream_of(source((F - 1, 40, 40))).draw(0, 200).axis) == {0}
    assert set(stream_of(source((F, 40, 40))).draw(0, 200).axis) == {0, 1, 2}
    assert set(stream_of(source((F // 2 - 1, 15, 40))).draw(0, 200).axis) == {0}
    assert set(stream_of(source((F // 2, 15, 40))).draw(0, 200).axis) == {0, 1, 2}


# Augmentation


@pytest.mark.parametrize(
    ("crop", "low", "whole", "square"),
    [("isotropic", 10, False, True), ("monai12", 10, True, False), ("fixed", 10, True, True)],
)
def test_crops_have_the_sizes_asked_for(crop, low, whole, square):
    draw = stream_of(source((30, 30, 30)), crop=crop).draw(0, 4000)
    start, size = draw.zoom_start, draw.zoom_size
    assert size.min() >= low
    assert start.min() >= 0
    assert (start + size).max() <= F
    assert (size == size.round()).all() == whole
    assert (size[:, 0] == size[:, 1]).all() == square
    assert not (start[:, 0] == start[:, 1]).all()
    if crop == "fixed":
        assert (size == low).all()
        assert set(start[:, 0]) == set(range(F - low + 1))
    elif crop == "monai12":
        assert set(size[:, 1]) == set(range(low, F + 1))
    else:
        assert abs(size.mean() - 15) < 0.2


def test_no_crop_is_the_whole_field_of_view():
    draw = stream_of(source((30, 30, 30)), crop="off").draw(0, 10)
    assert (draw.zoom_start == 0).all()
    assert (draw.zoom_size == F).all()


def test_joint_flips_mirror_both_axes_or_none():
    made = source((30, 30, 30))
    joint = stream_of(made, flips="joint", rotate90=False).draw(0, 2000)
    assert (joint.flip[:, 0] == joint.flip[:, 1]).all()
    assert near(joint.flip[:, 0].sum(), 1000, 2000)
    independent = stream_of(made, flips="independent", rotate90=False).draw(0, 2000)
    both = independent.flip @ [1, 2]
    assert all(near(count, 500, 2000) for count in np.bincount(both, minlength=4))
    off = stream_of(made, flips="off", rotate90=False).draw(0, 2000)
    assert not off.flip.any()
    assert not any(draw.transpose.any() for draw in (joint, independent, off))


TURNS = [(k, False) for k in range(4)]
MIRRORS = [(k, True) for k in range(4)]


@pytest.mark.parametrize(
    ("flips", "rotate90", "expected"),
    [
        ("independent", True, TURNS + MIRRORS),
        ("joint", True, TURNS),
        ("off", True, TURNS),
        ("independent", False, [(0, False), (2, False), (0, True), (2, True)]),
        ("joint", False, [(0, False), (2, False)]),
        ("off", False, [(0, False)]),
    ],
)
def test_flips_and_turns_give_exactly_these_symmetries(flips, rotate90, expected):
    one = source((1, F, F))
    plain = stream_of(one, crop="off", flips="off", rotate90=False).batch(0, 1)[0, 0, 0]
    looks = {}
    for turns, mirrored in TURNS + MIRRORS:
        turned = torch.rot90(plain.flip(0) if mirrored else plain, turns)
        looks[turned.contiguous().numpy().tobytes()] = turns, mirrored
    batch = stream_of(one, crop="off", flips=flips, rotate90=rotate90).batch(0, 800)
    found = [looks[sample.contiguous().numpy().tobytes()] for sample in batch]
    assert set(found) == set(expected)
    assert all(near(found.count(which), 800 / len(expected), 800) for which in expected if len(expected) > 1)


# What is refused


@pytest.mark.parametrize("shape", [(1, 9, 100), (9, 9, 9), (50, 1, 9)])
def test_a_volume_too_small_is_refused_by_name(shape):
    with pytest.raises(InputError, match=r"tiny: too small.*20 voxels"):
        stream_of(source((30, 30, 30)), source(shape, name="tiny"))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused(poison):
    grey = np.zeros((25, 25, 25), np.float32)
    grey[20, 3, 4] = poison
    bad = Source(ArrayVolume(grey, ISOTROPIC, "sick"), Intensity(0.0, 1.0))
    with pytest.raises(InputError, match="sick: not-a-number or infinite"):
        stream_of(source((30, 30, 30)), bad).batch(0, 4)


# Slabs


def slow_slab(stream, draw, i, slices):
    """Cut a sample's planes one by one: a short voxel edge apart, each the section that holds its place."""
    size = stream.sources[stream._slots[draw.slot[i]].source].volume.voxel_size or ISOTROPIC
    across, short = size[draw.axis[i]], min(size)
    n = stream._slots[draw.slot[i]].box.shape[draw.axis[i]]
    planes = []
    for k in range(slices):
        if across > 1.5 * short:  # centred on the middle of the section
            plane = round(draw.plane[i] + (k - (slices - 1) / 2) * short / across)
        else:  # centred between the section and the next
            plane = draw.plane[i] + 1 - slices // 2 + k
        while not 0 <= plane < n:
            plane = 0 if n == 1 else -plane if plane < 0 else 2 * (n - 1) - plane
        each = dataclasses.replace(draw, plane=np.full_like(draw.plane, plane))
        planes.append(slow_sample(stream, each, i))
    return np.stack(planes)


@pytest.mark.parametrize(
    "voxel_size", [ISOTROPIC, None, (40.0, 16.0, 16.0), (100.0, 16.0, 16.0), (20.0, 16.0, 16.0)]
)
@pytest.mark.parametrize("slices", [2, 6])
def test_slabs_are_what_a_slow_restatement_makes(slices, voxel_size):
    sources = source((9, 30, 25), voxel_size=voxel_size), source((31, 24, 60), 1)
    made = FovStream(sources, (slices, F, F), FovTable(crop="isotropic"), 0, CPU)
    batch = made.batch(3, 24)
    draw = made.draw(3, 24)
    slow = np.stack([slow_slab(made, draw, i, slices) for i in range(24)])[:, None]
    assert agree(batch, slow)


def test_a_thick_section_is_repeated():
    made = FovStream([source((9, F, F), voxel_size=(200.0, 16.0, 16.0))], (6, F, F), FovTable(), 0, CPU)
    batch = made.batch(0, 8)
    assert all(torch.equal(batch[:, :, 0], batch[:, :, k]) for k in range(6))
    one = FovStream([source((9, F, F), voxel_size=(200.0, 16.0, 16.0))], (1, F, F), FovTable(), 0, CPU)
    assert torch.equal(batch[:, :, :1], one.batch(0, 8))


def test_slabs_change_nothing_in_the_draw():
    one = stream_of(source((31, 24, 60))).draw(7, 50)
    six = FovStream([source((31, 24, 60))], (6, F, F), FovTable(), 0, CPU).draw(7, 50)
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(six, field.name))
