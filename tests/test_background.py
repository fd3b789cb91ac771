"""A constant background, and a mask: found, left out of everything, labelled 0."""

import json
from dataclasses import replace

import numpy as np
import pytest
import test_cli
from scipy import ndimage
from test_pipeline import quiet, save

from vemseg.comparison import open_subject
from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.errors import InputError, OutputExistsError
from vemseg.geometry import Box
from vemseg.phantom import Phantom
from vemseg.pipeline.cluster import cluster
from vemseg.pipeline.embed import embed
from vemseg.pipeline.segment import segment
from vemseg.sampling import Source, hold_out, plain_windows, shown_source
from vemseg.volume import (
    ArrayVolume,
    Background,
    Intensity,
    Permuted,
    Resampled,
    constant_background,
    filled,
    measure_intensity,
    open_volume,
)

SETTINGS = ("cluster.k=4", "cluster.sample=4000")
FEW = Context(report=quiet)
inside = test_cli.inside


def padded(grey, wide, value=0):
    """Lay a cell into a volume of one value; its own voxels of that value are moved away from it."""
    grey = np.where(grey == value, value + 1, grey).astype(grey.dtype)
    return np.pad(grey, wide, constant_values=value)


@pytest.fixture(scope="module")
def cell():
    phantom = Phantom((20, 40, 42), seed=3)
    return phantom.read(Box.whole(phantom.shape))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, cell):
    """A cell in zeros, 8/9 of the voxels, and the box that it takes."""
    folder = tmp_path_factory.mktemp("padded")
    volume = padded(cell, ((9, 11), (47, 36), (39, 51)))
    box = Box((9, 47, 39), (29, 87, 81))
    assert volume.size > 8.9 * box.size
    return save(folder / "cell.tif", volume), box


def slow_background(array, value):
    """Voxels of the value that hang together with the border, in the whole volume at once."""
    numbers, _ = ndimage.label(array == value)
    border = np.unique(np.concatenate([numbers.take([0, -1], axis=axis).ravel() for axis in range(3)]))
    return np.isin(numbers, border[border > 0])


@pytest.fixture(scope="module")
def labelled(embedded, tmp_path_factory):
    """Labels of the padded cell, K = 4."""
    out = tmp_path_factory.mktemp("labels") / "padded.tif"
    return segment(Wanted(embedded[0], "classical", SETTINGS), out, context=FEW)


def voxels(path):
    volume = open_volume(path)
    return volume.read(volume.box)


def test_four_classes_remain_for_a_cell_in_zeros(embedded, labelled, cell):
    _, box = embedded
    labels = voxels(labelled)
    assert np.bincount(labels[box.slices].ravel(), minlength=5)[1:].min() > 0.02 * box.size
    assert np.count_nonzero(labels) == np.count_nonzero(labels[box.slices]) == box.size
    about = json.loads(labelled.with_suffix(".json").read_text())
    assert about["state"]["background"]["value"] == 0
    assert about["state"]["background"]["share"] == pytest.approx(8 / 9, abs=0.03)
    found, alone = about["volume"]["intensity"], measure_intensity(ArrayVolume(cell))
    assert (found["low"], found["high"]) == pytest.approx((alone.low, alone.high), abs=5)


def test_counted_as_before_it_eats_classes_and_is_another_output(embedded, labelled, tmp_path):
    path, box = embedded
    out = tmp_path / "padded.tif"
    wanted = Wanted(path, "classical", SETTINGS, background=Background(find=False))
    labels = voxels(segment(wanted, out, context=FEW))
    assert labels.min() == 1
    assert len(np.unique(labels[box.slices][4:-4, 12:-12, 12:-12])) < 4
    with pytest.raises(OutputExistsError):
        segment(replace(wanted, background=Background()), out, context=FEW)


def test_stored_features_leave_the_same_voxels_out(embedded, labelled, tmp_path):
    features = embed(Wanted(embedded[0], "classical"), tmp_path / "cell.zarr", context=FEW)
    classes = cluster([features], tmp_path / "c.safetensors", settings=SETTINGS, context=FEW)
    staged = segment(Wanted(str(features)), tmp_path / "staged.tif", clusters=classes, context=FEW)
    np.testing.assert_array_equal(voxels(staged), voxels(labelled))


def test_a_mask_says_what_counts(inside, embedded, tmp_path):
    path, box = embedded
    mask = np.zeros(open_volume(path).shape, np.uint8)
    mask[box.slices] = 7
    mask[box.start[0] : box.start[0] + 5] = 0
    save(tmp_path / "mask.tif", mask)
    save(tmp_path / "small.tif", mask[:9])
    command = ["segment", path, "-m", "classical", "-k", 4, "-o", "masked.tif", "--mask"]
    assert inside(*command, "mask.tif").returncode == 0
    labels = voxels("masked.tif")
    np.testing.assert_array_equal(labels > 0, mask > 0)
    again = inside(*command, "mask.tif")
    assert again.returncode == 0 and "already" in again.stderr
    refused = inside(*command, "small.tif")
    assert refused.returncode == 3 and "small.tif has shape (9," in refused.stderr
    with pytest.raises(InputError, match="marks no voxel"):
        open_subject(path, background=Background(mask=save(tmp_path / "none.tif", 0 * mask)))


def test_the_background_is_what_hangs_together_with_the_border(cell):
    """Exact, at any block, against the slow way; holes of the same value inside the cell are not of it."""
    grey = padded(cell, ((17, 25), (30, 9), (40, 23)))
    turned = ndimage.rotate(grey, 17, axes=(1, 2), reshape=False, order=0)  # a slanting border
    turned[20:32, 42:56, 52:66] = 0
    found = constant_background(ArrayVolume(turned))
    blank = slow_background(turned, 0)
    assert not blank[20:32, 42:56, 52:66].any()
    np.testing.assert_array_equal(found.voxels.read(found.voxels.box), ~blank)
    assert found.share == pytest.approx(1 - blank.mean(), abs=0.1)
    for start in ((0, 0, 0), (3, 30, 61), (31, 2, 43)):
        box = Box(start, (start[0] + 27, start[1] + 41, start[2] + 29))
        np.testing.assert_array_equal(found.voxels.read(box), ~blank[box.slices])


@pytest.mark.parametrize("shape", [(1, 90, 120), (3, 64, 40)])
def test_thin_volumes_have_a_background_too(shape, cell):
    z, y, x = shape
    grey = padded(cell[:z, 8:40, 9:40], ((0, 0), (y - 40, 8), (5, x - 36)), value=255)
    found = constant_background(ArrayVolume(grey))
    np.testing.assert_array_equal(found.voxels.read(found.voxels.box) > 0, ~slow_background(grey, 255))


def test_images_without_a_background_are_left_alone(cell):
    rng = np.random.default_rng(0)
    dark = cell.copy()
    dark[5:16, 10:30, 10:30] = 0  # a hole that does not reach the border
    saturated = np.where(rng.random(cell.shape) < 0.3, 255, cell).astype(np.uint8)
    for image in (cell, dark, saturated, np.full((20, 30, 30), 7, np.uint8)):
        assert constant_background(ArrayVolume(image)) is None


def test_views_show_the_same_specimen(cell):
    volume = ArrayVolume(padded(cell, ((16, 0), (0, 24), (0, 0))), (16.0, 8.0, 8.0))
    volume.specimen = constant_background(volume)
    shown = volume.specimen.voxels.read(volume.box)
    turned = Permuted(volume, (1, 0, 2))
    np.testing.assert_array_equal(turned.specimen.voxels.read(turned.box), shown.transpose(1, 0, 2))
    assert turned.specimen.middle == pytest.approx([20 / 64, 26 / 36, 0.5], abs=0.12)
    coarse = Resampled(volume, (1.0, 2.0, 2.0))
    np.testing.assert_array_equal(coarse.specimen.voxels.read(coarse.box), shown[:, 1::2, 1::2])
    assert measure_intensity(volume).low == pytest.approx(measure_intensity(ArrayVolume(cell)).low, abs=4)
    source = shown_source(coarse, measure_intensity(volume))
    assert (source.places[:, 0] >= 16).all()
    assert (source.places[:, 1] < 20).all()


def test_training_sees_the_specimen_in_every_window(cell):
    volume = ArrayVolume(padded(cell, ((4, 4), (60, 150), (90, 20))))
    volume.specimen = constant_background(volume)
    grey = Intensity(0.0, 255.0)
    windows = plain_windows(shown_source(filled(volume, grey), grey), (1, 24, 24), 200, "xy")
    around = (windows == np.float16(128 / 255)).flatten(1).all(dim=1)
    assert not around.any()
    blind = plain_windows(Source(volume, grey), (1, 24, 24), 200, "xy")
    assert (blind == 0).flatten(1).all(dim=1).sum() > 50


def test_parts_of_the_specimen_train_and_validate():
    """A part without any place for a window is not held out."""
    grey = np.random.default_rng(0).integers(1, 200, (16, 40, 40)).astype(np.uint8)
    grey[8:] = 0
    volume = ArrayVolume(grey)
    volume.specimen = constant_background(volume)
    learnt, held = hold_out([shown_source(volume, Intensity(0.0, 255.0))], 2, 16)
    assert [part.volume.shape for part in learnt] == [(16, 40, 40)] and not held


@pytest.mark.slow
def test_regions_leave_the_background_out(embedded, tmp_path):
    path, box = embedded
    settings = (*SETTINGS, "regions.method=slic", "regions.tile=64", "regions.size=64")
    labels = voxels(segment(Wanted(path, "classical", settings), tmp_path / "regions.tif", context=FEW))
    assert np.count_nonzero(labels) == np.count_nonzero(labels[box.slices]) == box.size
    assert set(np.unique(labels[box.slices])) == {1, 2, 3, 4}
