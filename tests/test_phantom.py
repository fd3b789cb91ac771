"""The phantom: the same voxels however it is read, every class in a plausible share, no easy way out."""

import pickle
import time

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import kurtosis

from vemseg.errors import UsageError
from vemseg.geometry import Box
from vemseg.phantom import CLASSES, Phantom, _scene
from vemseg.phantom.layout import keep_apart, lay_out
from vemseg.phantom.texture import Texture, Waves, white_noise

NAMES = {name: label for label, name in CLASSES.items()}


@pytest.fixture(scope="module")
def cube():
    """A phantom of 128³ voxels with its grey values and labels."""
    phantom = Phantom((128, 128, 128), seed=4)
    return phantom, *phantom.render(Box.whole(phantom.shape))


def fractions(labels):
    return {
        CLASSES[k]: n / labels.size for k, n in enumerate(np.bincount(labels.ravel(), minlength=len(CLASSES)))
    }


def test_render_gives_bytes_and_known_labels(cube):
    phantom, raw, labels = cube
    assert raw.shape == labels.shape == phantom.shape
    assert raw.dtype == labels.dtype == np.uint8
    assert set(np.unique(labels).tolist()) == set(CLASSES) == set(range(7))


def test_read_and_labels_are_the_halves_of_render(cube):
    phantom, raw, labels = cube
    box = Box((100, 3, 7), (121, 90, 80))
    np.testing.assert_array_equal(phantom.read(box), raw[box.slices])
    np.testing.assert_array_equal(phantom.labels(box), labels[box.slices])


def random_boxes(shape, count, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        ends = [sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in shape]
        yield Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))


def single_voxels(shape, count, seed):
    for voxel in np.random.default_rng(seed).integers(0, shape, (count, 3)).tolist():
        yield Box(tuple(voxel), tuple(v + 1 for v in voxel))


def test_any_box_is_the_crop_of_the_whole_bit_for_bit(cube):
    phantom, raw, labels = cube
    corners = [
        Box((0, 0, 0), (1, 1, 1)),
        Box((127, 127, 127), (128, 128, 128)),
        Box((5, 0, 0), (6, 128, 128)),
    ]
    boxes = [*random_boxes(phantom.shape, 12, 0), *single_voxels(phantom.shape, 40, 1), *corners]
    for box in boxes:
        part, classes = phantom.render(box)
        np.testing.assert_array_equal(part, raw[box.slices], err_msg=str(box))
        np.testing.assert_array_equal(classes, labels[box.slices], err_msg=str(box))


def test_odd_tiles_of_an_anisotropic_volume_add_up():
    phantom = Phantom((11, 150, 301), seed=2, voxel_size=(50.0, 8.0, 8.0))
    whole = phantom.read(Box.whole(phantom.shape))
    tiled = np.zeros_like(whole)
    for tile in Box.whole(phantom.shape).split((3, 47, 61)):
        tiled[tile.slices] = phantom.read(tile)
    np.testing.assert_array_equal(tiled, whole)


def test_an_empty_box_is_empty():
    assert Phantom((8, 8, 8)).read(Box((3, 3, 3), (3, 5, 5))).shape == (0, 2, 2)


def test_same_parameters_same_phantom_another_seed_another(cube):
    phantom, raw, _ = cube
    box = Box((40, 40, 40), (60, 80, 80))
    _scene.cache_clear()
    again = pickle.loads(pickle.dumps(phantom))
    assert again == phantom
    np.testing.assert_array_equal(again.read(box), raw[box.slices])
    assert (Phantom(phantom.shape, seed=5).read(box) != raw[box.slices]).mean() > 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_class_fractions_of_a_cell(seed):
    phantom = Phantom((256, 256, 256), seed=seed)
    # every fourth slab: the whole cell at a quarter of the work
    slabs = [phantom.labels(Box((z, 0, 0), (z + 4, 256, 256))) for z in range(0, 256, 16)]
    share = fractions(np.concatenate(slabs))
    assert 0.10 < share["nucleus"] < 0.25
    assert 0.04 < share["mitochondrion"] < 0.12
    assert 0.05 < share["granule"] < 0.12
    assert 0.001 < share["vesicle"] < 0.02
    assert 0.005 < share["plasma membrane"] < 0.04
    assert 0.05 < share["outside"] < 0.20
    assert share["cytosol"] > 0.4


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("shape", "voxel_size"),
    [
        ((24, 96, 96), (16.0, 16.0, 16.0)),
        ((1, 64, 64), (16.0, 16.0, 16.0)),
        ((10, 300, 300), (50.0, 4.6, 4.6)),
        ((48, 48, 160), (32.0, 32.0, 32.0)),
    ],
)
def test_small_volumes_show_every_class(shape, voxel_size, seed):
    share = fractions(Phantom(shape, seed, voxel_size).labels(Box.whole(shape)))
    assert min(share["nucleus"], share["mitochondrion"], share["granule"], share["cytosol"]) > 0.01, share


def best_band_dice(values, mask):
    """Return the best Dice of any band of grey values against a mask: the slow, obvious search."""
    inside, everything = (np.bincount(v, minlength=256).astype(float) for v in (values[mask], values.ravel()))
    bands = [slice(a, b) for a in range(256) for b in range(a + 1, 257)]
    return max(2 * inside[band].sum() / (everything[band].sum() + inside.sum()) for band in bands)


def test_no_grey_threshold_finds_an_organelle(cube):
    _, raw, labels = cube
    smooth = gaussian_filter(raw.astype(np.float32), 2.0).round().astype(np.uint8)
    for name in ("nucleus", "mitochondrion", "granule"):
        assert best_band_dice(smooth, labels == NAMES[name]) < 0.6, name


def test_grey_values_are_those_of_electron_micrographs(cube):
    _, raw, labels = cube
    grey = {name: raw[labels == label].mean() for name, label in NAMES.items()}
    assert grey["mitochondrion"] < grey["granule"] < grey["cytosol"]
    assert grey["plasma membrane"] < grey["cytosol"]
    assert 120 < raw.mean() < 165
    assert 22 < raw.std() < 45
    assert np.isin(raw, (0, 255)).mean() < 0.001


def test_organelles_keep_apart_and_off_the_borders_of_the_cytosol():
    layout = lay_out((192, 192, 192), 3, (16.0, 16.0, 16.0))
    balls = [*zip(layout.granules.centre, layout.granules.radius, strict=True)]
    balls += zip(layout.vesicles.centre, layout.vesicles.radius, strict=True)
    centre, radius = (np.array(column) for column in zip(*balls, strict=True))
    apart = np.linalg.norm(centre[:, None] - centre[None], axis=2) - radius[:, None] - radius[None]
    assert apart[np.triu_indices(len(radius), 1)].min() > 0
    tubes = layout.mitochondria
    to_node = (
        np.linalg.norm(centre[:, None] - tubes.start[None], axis=2) - radius[:, None] - tubes.radius[:, 0]
    )
    assert to_node.min() > 0
    assert (layout.nucleus.distance_at(centre) > radius).all()
    assert (layout.cell.distance_at(centre) < -radius).all()


def test_keep_apart_agrees_with_a_plain_loop():
    rng = np.random.default_rng(0)
    centre, radius = rng.uniform(0, 1000, (150, 3)), rng.uniform(20, 90, 150)
    owner = np.sort(rng.integers(0, 60, 150))
    kept = keep_apart(centre, radius, owner, 62, placed=3)
    expected = []
    for item in range(62):
        mine, theirs = np.flatnonzero(owner == item), np.flatnonzero(np.isin(owner, expected))
        gaps = [np.linalg.norm(centre[i] - centre[j]) - radius[i] - radius[j] for i in mine for j in theirs]
        if len(mine) and (item < 3 or min(gaps, default=np.inf) >= 25):
            expected.append(item)
    assert np.flatnonzero(kept).tolist() == expected


def test_layout_of_a_large_cell_is_quick_and_large():
    start = time.process_time()
    layout = lay_out((400, 400, 400), 0, (16.0, 16.0, 16.0))
    assert len(layout.granules.radius) > 1000
    assert time.process_time() - start < 20


def test_distance_to_a_ball_is_exact():
    solid = lay_out((64, 64, 64), 0, (16.0, 16.0, 16.0)).nucleus
    ball = type(solid)(np.zeros(3), np.full(3, 500.0), 2, Waves(np.random.default_rng(0), (1e3, 2e3), 0.0))
    points = np.random.default_rng(1).uniform(-900, 900, (200, 3))
    np.testing.assert_allclose(ball.distance_at(points), np.linalg.norm(points, axis=1) - 500, atol=1e-6)


def test_waves_on_a_grid_are_waves_at_points():
    waves = Waves(np.random.default_rng(0), (300.0, 900.0), 2.0)
    axes = np.arange(9) * 40.0, np.arange(17) * 16.0, np.arange(12) * 16.0
    grid = waves.on(axes).read(Box((0, 0, 0), (9, 17, 12)))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    np.testing.assert_allclose(grid.ravel(), waves.at(points), atol=1e-4)


def test_white_noise_is_white_and_normal():
    noise = white_noise(Box((-20, 0, 5), (44, 64, 69)), 7)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs(kurtosis(noise, axis=None)) < 0.05
    for axis in range(3):
        ahead, behind = noise.take(range(1, 64), axis), noise.take(range(63), axis)
        assert abs((ahead * behind).mean()) < 0.01
    assert abs((noise * white_noise(Box((-20, 0, 5), (44, 64, 69)), 8)).mean()) < 0.01


@pytest.mark.parametrize("spacing", [16.0, 40.0, 100.0])
def test_texture_has_unit_variance_and_grain_of_its_spacing(spacing):
    field = Texture(3, spacing, (16.0, 16.0, 16.0)).read(Box((0, -64, 0), (64, 64, 128)))
    assert abs(field.mean()) < 0.05
    assert abs(field.std() - 1) < 0.1
    steps = round(4 * spacing / 16)
    assert abs((field[:, :, steps:] * field[:, :, :-steps]).mean()) < 0.06
    assert (field[:, :, 1:] * field[:, :, :-1]).mean() > 0.2


@pytest.mark.parametrize(
    "bad",
    [
        {"shape": (0, 8, 8)},
        {"shape": (8, 8)},
        {"shape": (8, 8, 8), "seed": -1},
        {"shape": (8, 8, 8), "voxel_size": (16.0, 0.0, 16.0)},
        {"shape": (8, 8, 8), "voxel_size": (16.0, float("nan"), 16.0)},
    ],
)
def test_impossible_phantoms_are_refused(bad):
    with pytest.raises(UsageError, match="give"):
        Phantom(**bad)


@pytest.mark.parametrize("box", [Box((0, 0, 0), (8, 8, 9)), Box((-1, 0, 0), (4, 4, 4))])
def test_a_box_beyond_the_volume_is_refused(box):
    with pytest.raises(UsageError, match="reaches beyond"):
        Phantom((8, 8, 8)).read(box)
