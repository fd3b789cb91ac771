"""The sampler: what a batch depends on, what is drawn, and what a sample is."""

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.nn.functional import interpolate

from vemseg.batch import Batch
from vemseg.errors import InputError
from vemseg.geometry import Box
from vemseg.recipe import FovTable, TissueTable, load_recipe
from vemseg.sampling import Sampler, Source, Synthetic, sources, stocks, tissue_sources
from vemseg.sampling.draws import random_numbers
from vemseg.volume import ArrayVolume, Intensity

F = 20
ISOTROPIC = (16.0, 16.0, 16.0)
CPU = torch.device("cpu")
LEAST_POOL = 2**20
"""The smallest ``fov.pool_bytes`` a recipe may ask for: 2**19 voxels."""


def grey(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def source(shape, seed=0, voxel_size=ISOTROPIC, name="array", labelled=False):
    """Return a volume of noise; its labels are its grey values, so both can be compared voxel by voxel."""
    volume = ArrayVolume(grey(shape, seed), voxel_size, name)
    labels = ArrayVolume(grey(shape, seed), voxel_size, f"labels of {name}") if labelled else None
    return Source(volume, Intensity(20.0, 230.0), labels)


@dataclasses.dataclass(frozen=True)
class Noise:
    """Makes blocks of noise with any range of grey values, which are its labels too."""

    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    planes: int = 9

    def make(self, rng, shape):
        labels = rng.integers(0, 256, shape, dtype=np.uint8)
        return (labels / 255).astype(np.float32), labels


def noise():
    return Synthetic(Noise(), held=3, pace=2, margin=5)


def sampler_of(*sources, seed=0, window=(1, F, F), **settings):
    return Sampler(sources, window, FovTable(**settings), seed, CPU)


@pytest.fixture
def rotating(monkeypatch):
    """Return a maker of samplers that hold 4 boxes of a large volume and replace one every 3 steps."""
    monkeypatch.setattr(sources, "POOL_BOX", (32, 64, 64))
    monkeypatch.setattr(stocks.Stock, "pace", 3)
    big = source((40, 120, 120))
    return lambda: sampler_of(big, pool_bytes=LEAST_POOL)


def slowly(made, step, size):
    """Make the images and labels of a batch again, one sample at a time, from the choices that were drawn."""
    draw = made.draw(step, size)
    images, labels = zip(*(slow_sample(made, draw, i, step) for i in range(size)), strict=True)
    return np.stack(images)[:, None], np.stack(labels)


def slow_sample(made, draw, i, step=0):
    """Cut a sample, zoom into it, mirror it and exchange its rows and columns."""
    axis, (_, h, w) = draw.axis[i], made.window
    h, w = (w, h) if draw.transpose[i] else (h, w)
    found = []
    for voxels, zoom in zip(slow_box(made, draw, i, step), (slow_zoom, slow_nearest), strict=True):
        planes = np.moveaxis(voxels, axis, 0)[slow_planes(made, draw, i)]
        planes = np.pad(
            planes,
            [(0, 0), *((0, max(0, m - n)) for m, n in zip((h, w), planes.shape[1:], strict=True))],
            "reflect",
        )
        row, column = draw.corner[i]
        planes = planes[:, row : row + h, column : column + w]
        planes = np.stack([zoom(plane, draw.zoom_start[i], draw.zoom_size[i]) for plane in planes])
        for k in (1, 2):
            planes = np.flip(planes, k) if draw.flip[i, k - 1] else planes
        found.append(planes.transpose(0, 2, 1) if draw.transpose[i] else planes)
    return found


def slow_box(made, draw, i, step):
    """Return intensities and labels of the voxels that a sample is cut from."""
    stock = made.stocks[draw.source[i]]
    if isinstance(stock.source, Synthetic):
        before = sum(len(each.boxes) for each in made.stocks[: draw.source[i]])
        number, made_first = before + draw.box[i], len(stock.boxes) - 1 - draw.box[i]
        generation = (step // stock.source.pace + made_first) // len(stock.boxes)
        rng = random_numbers(made.seed, generation, stream=1 + number)
        return stock.source.maker.make(rng, stock.boxes[0].shape)
    volume, labels = stock.source.volume, stock.source.labels
    box = stock.boxes[draw.box[i]]
    voxels = np.clip((volume.read(box) - 20.0) / 210.0, 0, 1)
    return voxels, np.full_like(voxels, 255) if labels is None else labels.read(box)


def slow_planes(made, draw, i):
    """Return a sample's planes, a short voxel edge apart: each is the section that it lies in."""
    stock, d = made.stocks[draw.source[i]], made.window[0]
    across, short = stock.voxel_size[draw.axis[i]], min(stock.voxel_size)
    n = stock.boxes[draw.box[i]].shape[draw.axis[i]]
    planes = []
    for k in range(d):
        if across > 1.5 * short:  # centred on the middle of the section
            plane = round(draw.plane[i] + (k - (d - 1) / 2) * short / across)
        else:  # centred on the section, or, where their number is even, between it and the next
            plane = draw.plane[i] - (d - 1) // 2 + k
        while not 0 <= plane < n:
            plane = 0 if n == 1 else -plane if plane < 0 else 2 * (n - 1) - plane
        planes.append(plane)
    return planes


def slow_zoom(image, start, size):
    """Cut whole pixels out and resize them with torch; parts of pixels are looked up one by one."""
    if (start == start.round()).all() and (size == size.round()).all():
        (y, x), (h, w) = start.astype(int), size.astype(int)
        part = torch.from_numpy(image[y : y + h, x : x + w].copy())[None, None]
        return interpolate(part, size=image.shape, mode="bilinear", align_corners=False)[0, 0].numpy()
    places = np.meshgrid(*places_in(image, start, size), indexing="ij")
    return map_coordinates(image, places, order=1)


def slow_nearest(labels, start, size):
    """Take the nearest voxel of each place; in a tie, the later one."""
    rows, columns = (
        [min(range(n), key=lambda v, p=p: (abs(v - p), -v)) for p in places]
        for n, places in zip(labels.shape, places_in(labels, start, size), strict=True)
    )
    return labels[np.ix_(rows, columns)]


def places_in(image, start, size):
    """Return the rows and columns at which the pixels of an enlarged part of an image are sampled."""
    return [
        np.clip(a + (np.arange(n) + 0.5) * m / n - 0.5, a, a + m - 1)
        for n, a, m in zip(image.shape, start, size, strict=True)
    ]


def agree(batch, restated):
    """Compare a batch with what ``slowly`` makes; voxels in memory are float16, which has 11 bits."""
    images, labels = restated
    same = batch.labels is None or np.array_equal(batch.labels.numpy(), labels)
    return (
        same and batch.images.shape == images.shape and np.abs(batch.images.numpy() - images).max() < 2**-11
    )


# What a sample is


@pytest.mark.parametrize("crop", ["monai12", "fixed", "isotropic", "off"])
@pytest.mark.parametrize("flips", ["independent", "joint", "off"])
def test_a_batch_is_what_a_slow_restatement_makes(crop, flips, monkeypatch):
    monkeypatch.setattr(sources, "POOL_BOX", (7, 30, 16))  # whole volumes are read in such parts
    made = sampler_of(source((16, 45, 38)), source((31, 24, 60), 1), crop=crop, flips=flips)
    batch = made.batch(5, 48)
    assert batch.images.dtype == torch.float32
    assert batch.labels is None
    assert agree(batch, slowly(made, 5, 48))


WINDOWS = [(1, F, F), (1, 14, 21), (4, 21, 14), (5, F, F), (7, 12, 17), (2, 13, 13)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("crop", ["isotropic", "monai12", "off"])
@pytest.mark.parametrize("turned", [True, False])
def test_windows_of_any_shape_and_their_labels_are_what_a_slow_restatement_makes(window, crop, turned):
    """Volumes with labels and without, of two voxel sizes, and made-up tissue, in one list."""
    given = [
        source((16, 45, 38), labelled=True),
        source((9, 24, 60), 1, (40.0, 16.0, 16.0), labelled=True),
        source((31, 24, 60), 2),
        noise(),
    ]
    made = sampler_of(*given, window=window, crop=crop, rotate90=turned)
    batch = made.batch(5, 48)
    assert batch.images.shape == (48, 1, *window)
    assert batch.labels.dtype == torch.uint8
    assert agree(batch, slowly(made, 5, 48))
    assert set(batch.volume.tolist()) == {0, 1, 2, 3}
    assert torch.equal(batch.volume, torch.from_numpy(made.draw(5, 48).source))
    assert (batch.labels[batch.volume == 2] == 255).all()
    assert turned == bool(made.draw(5, 48).transpose.any())


def test_a_sample_of_the_whole_plane_is_the_plane():
    one = source((1, F, F))
    batch = sampler_of(one, crop="off", flips="off", rotate90=False).batch(0, 4).images
    plane = np.clip((one.volume.read(one.volume.box) - 20.0) / 210.0, 0, 1)
    assert np.abs(batch.numpy() - plane).max() < 2**-11


@pytest.mark.parametrize("crop_min", [1e-3, 0.04, 0.37, 1.0])
@pytest.mark.parametrize("crop", ["monai12", "fixed", "isotropic"])
def test_intensities_lie_between_0_and_1(crop, crop_min):
    batch = sampler_of(source((30, 30, 30)), crop=crop, crop_min=crop_min).batch(0, 64).images
    assert batch.min() >= 0
    assert batch.max() <= 1 + 1e-6


def test_planes_thinner_than_the_field_of_view_serve_only_where_there_are_no_others():
    whole = sampler_of(source((14, 40, 40)), crop="off", flips="off", rotate90=False)
    assert set(whole.draw(0, 64).axis) == {0}
    made = sampler_of(source((14, 16, 40)), crop="off", flips="off", rotate90=False)
    draw = made.draw(0, 64)
    assert set(draw.axis) == {0, 1, 2}
    batch = made.batch(0, 64).images[:, 0, 0]
    across = batch[torch.from_numpy(draw.axis) == 1]
    assert torch.equal(across[:, 14:], across[:, 7:13].flip(1))


# What a batch depends on


def test_equal_seed_and_step_give_equal_batches():
    volumes = source((30, 40, 50)), source((25, 25, 25), 1)
    first, second = sampler_of(*volumes, seed=3), sampler_of(*volumes, seed=3)
    first.batch(0, 8)
    images = first.batch(7, 8).images
    assert torch.equal(images, second.batch(7, 8).images)
    assert not torch.equal(images, first.batch(8, 8).images)
    assert not torch.equal(images, sampler_of(*volumes, seed=4).batch(7, 8).images)


def test_no_sample_ever_comes_twice():
    made = sampler_of(source((40, 60, 60)))
    steps = [*range(8), *range(10_000, 10_008)]  # "epochs" are nothing but later steps
    seen = {sample.numpy().tobytes() for step in steps for sample in made.batch(step, 32).images}
    assert len(seen) == 512


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_one_batch(world):
    volumes = source((30, 40, 50)), source((25, 25, 25), 1)
    whole = sampler_of(*volumes).batch(11, 16).images
    parts = [sampler_of(*volumes).batch(11, 16, rank, world).images for rank in range(world)]
    assert all(len(part) == 16 // world for part in parts)
    together = torch.stack(parts, dim=1).flatten(0, 1)
    assert torch.allclose(together, whole, atol=1e-6)  # kernels may round otherwise in smaller batches


# The pool


def test_a_late_start_sees_what_a_long_run_sees(rotating):
    long_run = rotating()
    boxes = []
    for step in range(41):
        batch = long_run.batch(step, 8)
        boxes.append(list(long_run.stocks[0].boxes))
        assert agree(batch, slowly(long_run, step, 8))
    late = rotating()
    assert torch.equal(late.batch(40, 8).images, batch.images)
    assert late.stocks[0].boxes == boxes[-1]
    changed = [sum(map(Box.__ne__, old, new)) for old, new in itertools.pairwise(boxes)]
    assert changed == [1 if step % 3 == 0 else 0 for step in range(1, 41)]


def test_going_back_repeats_a_batch(rotating):
    made = rotating()
    early = made.batch(2, 8).images
    made.batch(300, 8)
    assert torch.equal(made.batch(2, 8).images, early)


def test_the_pool_keeps_to_its_memory(rotating):
    (stock,) = rotating().stocks
    assert len(stock.boxes) == 4
    assert stock._held._images.nbytes <= LEAST_POOL


def test_labels_count_in_the_memory(rotating):
    (stock,) = sampler_of(source((40, 120, 120), labelled=True), pool_bytes=LEAST_POOL).stocks
    assert len(stock.boxes) == 2
    assert stock._held._images.nbytes + stock._held._labels.nbytes <= LEAST_POOL


def test_a_large_volume_is_seen_from_edge_to_edge(rotating):
    made = rotating()
    reached = [np.zeros(n, bool) for n in (40, 120, 120)]
    for step in range(0, 3 * 4 * 100, 3):
        made._refresh(step)
        for box in made.stocks[0].boxes:
            for axis, where in enumerate(box.slices):
                reached[axis][where] = True
    assert all(axis.all() for axis in reached)


def test_boxes_hold_a_field_of_view_where_the_volume_does(monkeypatch):
    monkeypatch.setattr(sources, "POOL_BOX", (8, 8, 8))
    made = sampler_of(source((15, 200, 200)), pool_bytes=LEAST_POOL)
    assert {box.shape for box in made.stocks[0].boxes} == {(15, F, F)}


def test_small_and_large_volumes_share_a_pool(rotating):
    made = sampler_of(source((25, 25, 25)), source((60, 120, 120), 1), pool_bytes=LEAST_POOL)
    assert [stock.moving for stock in made.stocks for _ in stock.boxes] == [False, True, True]
    assert agree(made.batch(50, 32), slowly(made, 50, 32))


# Synthetic tissue


def test_sections_have_pixels_that_are_looked_at():
    table = load_recipe("vemseg").tissue
    made = []
    for source in tissue_sources(table):
        low, high = source.maker.pixel
        assert table.pixel[0] <= low <= high <= table.pixel[1]
        if (ratio := source.maker.ratio) > 1:
            made.append((ratio * low, ratio * high))
            assert table.section[0] <= ratio * low and ratio * high <= table.section[1] * 1.001
    looked = [(z, pixel) for z in (28, 34, 42, 50, 58) for pixel in (8.0, 10.0, 12.0)]
    ratios = sorted({source.maker.ratio for source in tissue_sources(table)})
    for z, pixel in looked:  # sections of the volumes of the papers
        nearest = min(ratios, key=lambda ratio: abs(ratio - z / pixel))
        assert abs(nearest - z / pixel) <= 1.01
        assert table.pixels(nearest)[0] <= pixel * 1.3 and table.pixels(nearest)[1] >= pixel / 1.3


def test_sections_that_no_pixel_fits_have_the_nearest():
    table = TissueTable(pixel=(20.0, 30.0), section=(25.0, 65.0))
    assert table.pixels(1.0) == (20.0, 30.0)
    assert table.pixels(7.0) == (20.0, 20.0)


def test_blocks_are_replaced_in_turn_and_a_late_start_sees_what_a_long_run_sees():
    long_run = sampler_of(noise(), source((25, 25, 25)))
    seen = [long_run.batch(step, 8) for step in range(24)]
    assert agree(seen[-1], slowly(long_run, 23, 8))
    late = sampler_of(noise(), source((25, 25, 25))).batch(23, 8)
    assert torch.equal(late.images, seen[-1].images)
    assert torch.equal(late.labels, seen[-1].labels)


@pytest.mark.slow
def test_other_processes_make_the_same_blocks():
    table = FovTable()
    alone = Sampler([noise()], (1, F, F), table, 0, CPU)
    helped = Sampler([noise()], (1, F, F), table, 0, CPU, workers=2)
    try:
        for step in (0, 1, 2, 9, 3):
            assert torch.equal(alone.batch(step, 4).images, helped.batch(step, 4).images)
    finally:
        helped.close()


# What is drawn how often


def near(count, expected, n):
    """Tell whether a count is within five standard deviations of what chance gives."""
    share = expected / n
    return abs(count - expected) < 5 * np.sqrt(n * share * (1 - share))


def test_volumes_and_axes_come_equally_often_whatever_their_size(rotating):
    made = sampler_of(source((21, 21, 21)), source((60, 120, 120), 1), pool_bytes=LEAST_POOL)
    draw = made.draw(0, 6000)
    volumes = draw.source
    for i in range(2):
        assert near((volumes == i).sum(), 3000, 6000)
        for axis in range(3):
            assert near(((volumes == i) & (draw.axis == axis)).sum(), 1000, 6000)


def test_every_plane_and_corner_is_drawn_including_the_last():
    draw = sampler_of(source((F + 2, F + 3, F + 4))).draw(0, 20_000)
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
    made = sampler_of(source((30, 30, 30), voxel_size=voxel_size), axes=axes)
    assert set(made.draw(0, 200).axis) == expected


def test_axes_whose_planes_are_too_narrow_are_left_out():
    assert set(sampler_of(source((F - 1, 40, 40))).draw(0, 200).axis) == {0}
    assert set(sampler_of(source((F, 40, 40))).draw(0, 200).axis) == {0, 1, 2}
    assert set(sampler_of(source((F // 2 - 1, 15, 40))).draw(0, 200).axis) == {0}
    assert set(sampler_of(source((F // 2, 15, 40))).draw(0, 200).axis) == {0, 1, 2}


# Augmentation


@pytest.mark.parametrize(
    ("crop", "low", "whole", "square"),
    [("isotropic", 10, False, True), ("monai12", 10, True, False), ("fixed", 10, True, True)],
)
def test_crops_have_the_sizes_asked_for(crop, low, whole, square):
    draw = sampler_of(source((30, 30, 30)), crop=crop).draw(0, 4000)
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
    draw = sampler_of(source((30, 30, 30)), crop="off").draw(0, 10)
    assert (draw.zoom_start == 0).all()
    assert (draw.zoom_size == F).all()


def test_joint_flips_mirror_both_axes_or_none():
    made = source((30, 30, 30))
    joint = sampler_of(made, flips="joint", rotate90=False).draw(0, 2000)
    assert (joint.flip[:, 0] == joint.flip[:, 1]).all()
    assert near(joint.flip[:, 0].sum(), 1000, 2000)
    independent = sampler_of(made, flips="independent", rotate90=False).draw(0, 2000)
    both = independent.flip @ [1, 2]
    assert all(near(count, 500, 2000) for count in np.bincount(both, minlength=4))
    off = sampler_of(made, flips="off", rotate90=False).draw(0, 2000)
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
    plain = sampler_of(one, crop="off", flips="off", rotate90=False).batch(0, 1).images[0, 0, 0]
    looks = {}
    for turns, mirrored in TURNS + MIRRORS:
        turned = torch.rot90(plain.flip(0) if mirrored else plain, turns)
        looks[turned.contiguous().numpy().tobytes()] = turns, mirrored
    batch = sampler_of(one, crop="off", flips=flips, rotate90=rotate90).batch(0, 800).images
    found = [looks[sample.contiguous().numpy().tobytes()] for sample in batch]
    assert set(found) == set(expected)
    assert all(near(found.count(which), 800 / len(expected), 800) for which in expected if len(expected) > 1)


# What is refused


@pytest.mark.parametrize("shape", [(1, 9, 100), (9, 9, 9), (50, 1, 9)])
def test_a_volume_too_small_is_refused_by_name(shape):
    with pytest.raises(InputError, match=r"tiny: too small.*20 voxels"):
        sampler_of(source((30, 30, 30)), source(shape, name="tiny"))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused(poison):
    grey = np.zeros((25, 25, 25), np.float32)
    grey[20, 3, 4] = poison
    bad = Source(ArrayVolume(grey, ISOTROPIC, "sick"), Intensity(0.0, 1.0))
    with pytest.raises(InputError, match="sick: not-a-number or infinite"):
        sampler_of(source((30, 30, 30)), bad).batch(0, 4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            np.zeros((30, 30, 29), np.uint8),
            r"wrong: labels of shape \(30, 30, 29\) do not fit array of shape",
        ),
        (np.zeros((30, 30, 30), np.float32), "wrong: holds float32, and labels are whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        Source(ArrayVolume(grey((30, 30, 30))), Intensity(0.0, 1.0), ArrayVolume(labels, name="wrong"))


@pytest.mark.parametrize("value", [-1, 256])
def test_labels_that_are_no_classes_are_refused(value):
    labels = np.zeros((30, 30, 30), np.int16)
    labels[3, 4, 5] = value
    wrong = Source(ArrayVolume(grey((30, 30, 30))), Intensity(0.0, 1.0), ArrayVolume(labels, name="wrong"))
    with pytest.raises(InputError, match=r"wrong: labels from .* classes are numbered 0 \.\. 254, or 255"):
        sampler_of(wrong).batch(0, 2)


# Windows that are not square


def test_a_window_that_is_not_square_fits_also_where_it_is_turned():
    flat = source((40, 15, 40))
    assert set(sampler_of(flat, window=(1, 12, 30), rotate90=False).draw(0, 200).axis) == {0, 1}
    assert set(sampler_of(flat, window=(1, 12, 30)).draw(0, 200).axis) == {1}
    assert set(sampler_of(flat, window=(1, 12, 15)).draw(0, 200).axis) == {0, 1, 2}
    with pytest.raises(InputError, match="a field of view is 12 x 40 voxels wide"):
        sampler_of(source((30, 15, 15)), window=(1, 12, 40))


# Where samples lie


def test_positions_are_those_of_the_middle_of_what_is_shown():
    """On a volume of coordinates, the middle of a window is its mean, as long as nothing is mirrored."""
    for axis in range(3):
        ramp = np.indices((60, 60, 60))[axis].astype(np.float32)
        size = [(8.0, 8.0, 8.0), (40.0, 8.0, 8.0), (8.0, 8.0, 40.0)][axis]
        place = Source(ArrayVolume(ramp, size), Intensity(0.0, 64.0))
        for planes in (1, 4, 5):
            made = sampler_of(place, window=(planes, F, F))
            batch, draw = made.batch(2, 40), made.draw(2, 40)
            inside = (draw.plane > 4) & (draw.plane < 55)
            means = batch.images.mean(dim=(1, 2, 3, 4)) * 64 * size[axis]
            np.testing.assert_allclose(batch.positions[inside, axis], means[inside], atol=0.02 * size[axis])


def test_positions_in_a_large_volume_are_its_own(rotating):
    ramp = np.indices((40, 120, 120))[2].astype(np.float32)
    made = sampler_of(Source(ArrayVolume(ramp), Intensity(0.0, 128.0)), pool_bytes=LEAST_POOL)
    assert made.stocks[0].moving
    batch = made.batch(8, 64)
    np.testing.assert_allclose(batch.positions[:, 2], batch.images.mean(dim=(1, 2, 3, 4)) * 128, atol=0.1)


def test_made_up_tissue_lies_nowhere():
    batch = sampler_of(noise()).batch(0, 3)
    assert batch.positions.isnan().all()


# Windows around samples


@pytest.mark.parametrize("window", [(1, F, F), (4, 14, 21), (3, 13, 13)])
def test_windows_around_a_sample_are_those_at_their_places(window):
    made = sampler_of(
        source((31, 44, 60)), source((9, 44, 60), 1, (40.0, 16.0, 16.0)), noise(), window=window
    )
    batch, draw = made.batch(4, 12), made.draw(4, 12)
    offsets = torch.randint(-9, 10, (12, 5, 3), generator=torch.Generator().manual_seed(0))
    found = batch.around(offsets)
    assert found.shape == (12, 5, 1, *window)
    _, h, w = window
    for i, p in itertools.product(range(12), range(5)):
        z, y, x = offsets[i, p].tolist()
        voxels = np.moveaxis(slow_box(made, draw, i, 4)[0], draw.axis[i], 0)
        shifted = dataclasses.replace(draw, plane=draw.plane + z)
        top, left = draw.corner[i] + ([(w - h) // 2, (h - w) // 2] if draw.transpose[i] else [0, 0])
        pad = 40
        padded = np.pad(voxels[slow_planes(made, shifted, i)], ((0, 0), (pad, pad), (pad, pad)), "reflect")
        top, left = top + y + pad, left + x + pad
        expected = padded[:, top : top + h, left : left + w]
        assert np.abs(found[i, p, 0].numpy() - expected).max() < 2**-11


def test_an_offset_of_nothing_is_the_sample_itself(rotating):
    made = rotating()
    made.settings = FovTable(crop="off", flips="off", rotate90=False)
    batch = made.batch(5, 8, 1, 2)
    made.batch(300, 8)  # other boxes are in memory now
    assert torch.equal(batch.around(torch.zeros(4, 1, 3, dtype=torch.int64))[:, 0], batch.images)
    some = batch.first(3)
    assert torch.equal(some.around(torch.zeros(3, 1, 3, dtype=torch.int64))[:, 0], some.images)


def test_around_says_what_it_wants():
    with pytest.raises(ValueError, match="not made by a sampler"):
        Batch(torch.zeros(2, 1, 1, 4, 4)).around(torch.zeros(2, 1, 3))
    with pytest.raises(ValueError, match=r"offsets must be \(4, p, 3\), not \(3, 1, 3\)"):
        sampler_of(source((30, 30, 30))).batch(0, 4).around(torch.zeros(3, 1, 3))


# Made-up tissue


def test_made_up_blocks_are_shared_between_processes_of_a_training():
    made = sampler_of(noise(), source((30, 30, 30)))
    batch = made.batch(3, 16)
    parts = [sampler_of(noise(), source((30, 30, 30))).batch(3, 16, rank, 2) for rank in range(2)]
    together = torch.stack([part.labels for part in parts], dim=1).flatten(0, 1)
    assert torch.equal(together, batch.labels)


# The first samples of a batch


def test_the_first_samples_keep_all_that_is_known_of_them():
    batch = sampler_of(source((30, 30, 30), labelled=True)).batch(0, 6)
    some = batch.first(4)
    assert len(some) == 4 and len(batch.first(9)) == 6
    for name in ("images", "labels", "positions", "volume"):
        assert torch.equal(getattr(some, name), getattr(batch, name)[:4])
    assert Batch(torch.zeros(3, 1, 1, 4, 4)).first(2).labels is None


# Slabs


@pytest.mark.parametrize(
    "voxel_size", [ISOTROPIC, None, (40.0, 16.0, 16.0), (100.0, 16.0, 16.0), (20.0, 16.0, 16.0)]
)
@pytest.mark.parametrize("slices", [2, 5, 6])
def test_slabs_are_what_a_slow_restatement_makes(slices, voxel_size):
    volumes = source((9, 30, 25), voxel_size=voxel_size), source((31, 24, 60), 1)
    made = sampler_of(*volumes, window=(slices, F, F), crop="isotropic")
    assert agree(made.batch(3, 24), slowly(made, 3, 24))


def test_a_thick_section_is_repeated():
    thick = source((9, F, F), voxel_size=(200.0, 16.0, 16.0))
    batch = sampler_of(thick, window=(6, F, F)).batch(0, 8).images
    assert all(torch.equal(batch[:, :, 0], batch[:, :, k]) for k in range(6))
    assert torch.equal(batch[:, :, :1], sampler_of(thick).batch(0, 8).images)


def test_slabs_change_nothing_in_the_draw():
    one = sampler_of(source((31, 24, 60))).draw(7, 50)
    six = sampler_of(source((31, 24, 60)), window=(6, F, F)).draw(7, 50)
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(six, field.name))


# What earlier versions drew

# From version 0.1.0 (commit 52738a8): digests of the choices of one step and of the images of three, and a
# weighted sum of these. Images are compared by their digest where enlarging them is exact in float32.
BEFORE = {
    "isotropic": ("85d0269279a33a1d", "571840dc01d69004", 76.1132),
    "monai12": ("1a0f1f2437e5c3b6", "44c5e29a1beb73c4", 29.2064),
    "fixed": ("b3998cd04b4104f2", "b8956a603fcafecb", 100.4993),
    "off": ("1ea400ccd4b06172", "d7ebb9f7f602ac3a", 96.7511),
    "plain": ("8a8f07d7ad071d70", "644db27f4b7bbf4a", 116.5473),
    "slabs": ("f68dc0635d9a48b7", "9704e98080afc71e", 16.1215),
    "thick slabs": ("d0de77fd25cd706c", "71c8c251930485a5", -42.702),
}
SETTINGS = {
    "isotropic": (1, {}),
    "monai12": (1, {"crop": "monai12", "flips": "joint"}),
    "fixed": (1, {"crop": "fixed", "flips": "off"}),
    "off": (1, {"crop": "off", "flips": "joint", "axes": "xyz"}),
    "plain": (1, {"crop": "off", "flips": "off", "rotate90": False, "axes": "xy"}),
    "slabs": (6, {"crop": "fixed"}),
    "thick slabs": (8, {"crop": "isotropic", "axes": "xy"}),
}
EXACT = {"fixed", "off", "plain", "slabs"}


def digest(*arrays):
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("name", BEFORE)
def test_the_same_seed_gives_the_same_images_as_ever(name):
    slices, settings = SETTINGS[name]
    volumes = [
        source((30, 40, 50)),
        source((25, 25, 25), 1),
        source((12, 44, 41), 2, (50.0, 4.6, 4.6)),
        source((44, 13, 41), 3, (16.0, 50.0, 16.0)),
        source((14, 16, 40), 4, None),
    ]
    made = sampler_of(*volumes, seed=3, window=(slices, F, F), **settings)
    draw = made.draw(7, 32)
    choices = (draw.axis, draw.plane, draw.corner, draw.zoom_start, draw.zoom_size, draw.flip, draw.transpose)
    chosen, exactly, weighed = BEFORE[name]
    assert digest(draw.source, *choices) == chosen
    images = torch.cat([made.batch(step, 32).images for step in (0, 7, 10**6)]).numpy()
    weights = np.random.default_rng(0).normal(size=images.shape)
    assert (images * weights).sum() == pytest.approx(weighed, abs=2e-3)
    if name in EXACT:
        assert digest(images) == exactly


@pytest.mark.parametrize(
    ("rank", "world", "expected"), [(0, 1, "2d8c9a5cbfb0c5dc"), (1, 2, "e3fa896c6d5f1c50")]
)
def test_boxes_are_replaced_as_ever(rotating, rank, world, expected):
    volumes = source((40, 120, 120)), source((25, 25, 25)), source((60, 120, 120), 1)
    made = sampler_of(*volumes, seed=2, crop="fixed", pool_bytes=2**22)
    assert digest(*(made.batch(t, 16, rank, world).images.numpy() for t in (0, 4, 29, 400, 2))) == expected
