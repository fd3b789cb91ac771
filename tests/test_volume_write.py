"""Writing volumes: label stores, finished TIFF and OME-Zarr, and outputs that appear whole or not at all."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models.v05 import Image, ImageLabel

from vemseg.errors import InputError, OutputExistsError, UsageError
from vemseg.geometry import Box
from vemseg.names import output_format
from vemseg.run import Output, Place
from vemseg.volume import (
    ArrayVolume,
    Cropped,
    LabelForm,
    LabelInfo,
    LabelStore,
    Volume,
    check_grey,
    finish_labels,
    open_volume,
    pyramid,
    record,
    rename_labels,
    tiff_tags,
    tiff_writing,
    write_volume,
)
from vemseg.volume.store import _chunk_edge

SHAPE = (40, 150, 133)
BLOCK = (16, 64, 64)
NAMES = {1: "mitochondrion", 3: "Zellkern µ"}
COLOURS = {1: (255, 0, 10), 3: (0, 128, 255)}
SIZES = [(15.0, 15.0, 15.0), (50.0, 4.6, 4.6), None]


def labels(shape=SHAPE, dtype="uint8"):
    """Blocky labels 0..4, so that majorities are clear in most places."""
    coarse = np.random.default_rng(0).integers(0, 5, [-(-n // 6) for n in shape])
    for axis in range(3):
        coarse = coarse.repeat(6, axis)
    return coarse[: shape[0], : shape[1], : shape[2]].astype(dtype)


def filled_store(directory, array, voxel_size=None, block=BLOCK):
    store = LabelStore.create(directory, array.shape, block, array.dtype, voxel_size)
    for box in store.box.split(store.block_shape):
        store.write(box, array[box.slices])
    return LabelStore.open(directory)


def info(voxel_size=None, **more):
    return LabelInfo(voxel_size, **{"description": {"seed": 7}, "names": NAMES, "colours": COLOURS, **more})


def finish(array, out, voxel_size=None, **more):
    finish_labels(filled_store(out.parent / "store", array), out, info(voxel_size, **more))
    return out


def contents(directory):
    return sorted(path.name for path in directory.iterdir())


# --- the store -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SHAPE, (1, 300, 200), (7, 9, 5), (347, 20, 20)])
@pytest.mark.parametrize("block", [(16, 64, 64), (64, 256, 256), (1, 100, 100)])
def test_every_block_is_a_whole_number_of_shards(tmp_path, shape, block):
    store = LabelStore.create(tmp_path / "s", shape, block)
    stored = zarr.open_array(str(tmp_path / "s" / "0"), mode="r")
    for n, edge, shard, chunk in zip(shape, block, stored.shards, stored.chunks, strict=True):
        assert shard % chunk == 0
        assert edge == shard or (edge >= n and shard >= n)  # a block, or one block covers the axis
    array = labels(shape)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda box: store.write(box, array[box.slices]), store.box.split(block)))
    np.testing.assert_array_equal(store.read(store.box), array)


@pytest.mark.parametrize(("shard", "chunk"), [(64, 64), (256, 64), (96, 48), (80, 80), (509, 509), (20, 20)])
def test_chunks_divide_shards(shard, chunk):
    assert _chunk_edge(shard) == chunk


def test_store_refuses_boxes_that_share_a_shard(tmp_path):
    store = LabelStore.create(tmp_path / "s", SHAPE, BLOCK)
    for box in [
        Box((0, 0, 0), (16, 64, 63)),
        Box((0, 32, 0), (16, 96, 64)),
        Box((8, 0, 0), (16, 64, 64)),
        Box((32, 128, 128), (48, 192, 192)),
        Box((-16, 0, 0), (0, 64, 64)),
    ]:
        with pytest.raises(ValueError, match="not aligned"):
            store.write(box, np.zeros(box.shape, np.uint8))
    with pytest.raises(ValueError, match="does not fit"):
        store.write(Box((0, 0, 0), BLOCK), np.zeros(BLOCK, np.uint16))
    with pytest.raises(ValueError, match="does not fit"):
        store.write(Box((0, 0, 0), BLOCK), np.zeros((1, 64, 64), np.uint8))
    store.write(Box((32, 128, 128), SHAPE), np.ones((8, 22, 5), np.uint8))
    store.write(Box((0, 0, 0), (32, 128, 133)), np.ones((32, 128, 133), np.uint8))


def test_store_can_be_opened_again_and_reads_zero_where_unwritten(tmp_path):
    store = LabelStore.create(tmp_path / "s", SHAPE, BLOCK, "uint16", (4, 5, 6))
    store.write(Box((0, 0, 0), BLOCK), np.full(BLOCK, 300, np.uint16))
    again = LabelStore.open(tmp_path / "s")
    assert isinstance(again, Volume)
    assert (again.shape, again.dtype, again.voxel_size) == (SHAPE, np.uint16, (4, 5, 6))
    assert again.block_shape == BLOCK
    assert again.read(Box((0, 0, 0), BLOCK)).min() == 300
    assert again.read(Box((16, 64, 64), (32, 128, 128))).max() == 0
    with pytest.raises(OutputExistsError):
        LabelStore.create(tmp_path / "s", SHAPE, BLOCK)
    with pytest.raises(InputError, match="not a label store"):
        LabelStore.open(tmp_path / "other")


def test_background_takes_no_space(tmp_path):
    store = LabelStore.create(tmp_path / "s", SHAPE, BLOCK)
    store.write(store.box, np.zeros(SHAPE, np.uint8))
    assert not list((tmp_path / "s" / "0").rglob("c/**/*.*"))
    assert sum(path.is_file() for path in (tmp_path / "s" / "0").rglob("*")) == 1


# --- finished labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("voxel_size", SIZES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("name", ["out.tif", "out.ome.zarr"])
def test_finished_labels_read_back(tmp_path, name, dtype, voxel_size):
    array = labels(dtype=dtype)
    out = tmp_path / name
    finish(array, out, voxel_size)
    assert contents(tmp_path) == ([name, "store"] if name == "out.tif" else [name])
    volume = open_volume(out)
    np.testing.assert_array_equal(volume.read(volume.box), array)
    assert volume.dtype == dtype
    assert volume.voxel_size == (voxel_size and pytest.approx(voxel_size))


def test_tiff_is_what_imagej_reads(tmp_path):
    out = tmp_path / "out.tif"
    array = labels()
    finish(array, out, (50.0, 4.6, 4.6))
    with tifffile.TiffFile(out) as file:
        assert file.is_imagej
        assert file.series[0].axes == "ZYX"
        assert file.series[0].dataoffset is not None
        about = file.imagej_metadata
        assert (about["slices"], about["spacing"], about["unit"]) == (40, 50.0, "nm")
        assert json.loads(about["Info"])["names"] == {"1": "mitochondrion", "3": "Zellkern µ"}
        assert json.loads(about["Info"])["seed"] == 7
        table = file.pages[0].colormap >> 8
        assert [tuple(table[:, label].tolist()) for label in (0, 1, 3)] == [(0, 0, 0), *COLOURS.values()]
        np.testing.assert_array_equal(file.asarray(), array)


def test_wide_labels_become_an_ome_tiff(tmp_path):
    out = tmp_path / "out.tiff"
    finish(labels(dtype="uint32"), out, (50.0, 4.6, 4.6))
    with tifffile.TiffFile(out) as file:
        assert file.is_ome
        assert file.is_bigtiff
        assert 'PhysicalSizeZ="50.0"' in file.ome_metadata
        assert "mitochondrion" in file.ome_metadata


def test_large_labels_become_an_ome_tiff(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_writing, "IMAGEJ_BYTES", 1000)
    out = tmp_path / "out.tif"
    array = labels()
    finish(array, out, (50.0, 4.6, 4.6))
    with tifffile.TiffFile(out) as file:
        assert file.is_ome
    np.testing.assert_array_equal(open_volume(out).read(Box.whole(SHAPE)), array)


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_tiff_is_written_in_bounded_memory(tmp_path, monkeypatch, dtype):
    class Counting(ArrayVolume):
        def _read(self, box):
            largest.append(box.size)
            return super()._read(box)

    largest = []
    volume = Counting(labels(dtype=dtype))
    plane = SHAPE[1] * SHAPE[2]
    monkeypatch.setattr(tiff_writing, "SLAB_BYTES", 3 * plane * volume.dtype.itemsize)
    write_volume(volume, tmp_path / "out.tif")
    assert max(largest) == 3 * plane
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), labels(dtype=dtype))


@pytest.mark.parametrize("voxel_size", SIZES)
def test_ome_zarr_is_valid(tmp_path, voxel_size):
    out = tmp_path / "out.ome.zarr"
    finish(labels(), out, voxel_size)
    group = zarr.open_group(str(out), mode="r")
    image = Image.from_zarr(group)
    described = ImageLabel.from_zarr(group).attributes.ome.image_label
    assert {c.label_value: tuple(c.rgba) for c in described.colors} == {
        k: (*v, 255) for k, v in COLOURS.items()
    }
    properties = group.attrs["ome"]["image-label"]["properties"]
    assert {p["label-value"]: p["name"] for p in properties} == NAMES
    assert group.attrs["vemseg"] == {"seed": 7}

    multiscale = image.attributes.ome.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == ["z", "y", "x"]
    assert {axis.unit for axis in multiscale.axes} == {"nanometer" if voxel_size else None}
    edges = voxel_size or (1.0, 1.0, 1.0)
    for dataset in multiscale.datasets:
        array = group[dataset.path]
        assert array.shards is not None
        scale, shift = (list(t.model_dump().values())[1] for t in dataset.coordinateTransformations)
        factors = [round(s / e) for s, e in zip(scale, edges, strict=True)]
        assert array.shape == tuple(-(-n // f) for n, f in zip(SHAPE, factors, strict=True))
        np.testing.assert_allclose(shift, [e * (f - 1) / 2 for e, f in zip(edges, factors, strict=True)])
    assert max(array.shape) <= 64
    assert open_volume(out / "1").voxel_size == (
        voxel_size and pytest.approx((50, 9.2, 9.2) if voxel_size[0] == 50 else (30, 30, 30))
    )


def test_coarser_levels_are_majorities_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr(pyramid, "BLOCK_SHAPE", (8, 32, 16))
    out = tmp_path / "out.ome.zarr"
    array = labels()
    finish(array, out)
    for level in ("1", "2"):
        array = pyramid.downsample(array, (2, 2, 2), pyramid.majority)
        np.testing.assert_array_equal(open_volume(out / level).read(Box.whole(array.shape)), array)


def slow_majority(block):
    values, counts = np.unique(block, return_counts=True)
    return values[counts == counts.max()].max()


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2), (2, 1, 2), (3, 4, 5), (4, 4, 4), (8, 8, 8)])
def test_majority_and_mean_against_the_obvious(factors):
    voxels = tuple(2 * f for f in factors)
    array = np.random.default_rng(0).integers(0, 2 if factors == (8, 8, 8) else 4, voxels).astype(np.uint8)
    shape = tuple(n // f for n, f in zip(array.shape, factors, strict=True))
    blocks = {
        at: array[tuple(slice(i * f, (i + 1) * f) for i, f in zip(at, factors, strict=True))]
        for at in np.ndindex(shape)
    }
    for reduce, slow in ((pyramid.majority, slow_majority), (pyramid.mean, lambda b: np.rint(b.mean()))):
        fast = pyramid.downsample(array, factors, reduce)
        assert (fast.shape, fast.dtype) == (shape, np.uint8)
        assert all(fast[at] == slow(block) for at, block in blocks.items())


def test_levels_halve_the_finest_axes_first():
    assert list(pyramid.level_factors((20, 1024, 1024), (50, 4.6, 4.6))) == [
        (1, 1, 1),
        (1, 2, 2),
        (1, 4, 4),
        (1, 8, 8),
        (2, 16, 16),
    ]
    assert list(pyramid.level_factors((200, 200, 200), None)) == [(1, 1, 1), (2, 2, 2), (4, 4, 4)]
    assert list(pyramid.level_factors((1, 200, 100), (4, 4, 4))) == [(1, 1, 1), (1, 2, 2), (1, 4, 4)]
    assert list(pyramid.level_factors((9, 9, 9), None)) == [(1, 1, 1)]


def fail(*args, **kwargs):
    raise OSError("disk full")


@pytest.mark.parametrize(
    ("name", "broken"), [("out.tif", "tifffile.TiffWriter.write"), ("out.ome.zarr", "numpy.pad")]
)
def test_a_failure_leaves_the_store_whole_and_nothing_else(tmp_path, monkeypatch, name, broken):
    out = tmp_path / name
    array = labels((41, 151, 133))
    store = filled_store(tmp_path / "store", array)
    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises(OSError, match="disk full"):
            finish_labels(store, out, info())
    assert contents(tmp_path) == ["store"]
    finish_labels(LabelStore.open(store.directory), out, info())
    np.testing.assert_array_equal(open_volume(out).read(Box.whole(array.shape)), array)


def test_labels_are_finished_where_they_lie(tmp_path):
    out = tmp_path / "out.ome.zarr"
    store = filled_store(out, labels())
    for _ in range(2):
        finish_labels(store, out, info())
        assert contents(tmp_path) == ["out.ome.zarr"]
        assert zarr.open_group(str(out), mode="r").attrs["ome"]["multiscales"][0]["name"] == "out"
        np.testing.assert_array_equal(open_volume(out).read(Box.whole(SHAPE)), labels())


# --- outputs appear whole --------------------------------------------------------------------------------


def publish(out, write, overwrite=False):
    """Write an output as the commands do."""
    place = Place(out, *LabelForm().place(out))
    with Output(place, state={}, record=lambda: None, overwrite=overwrite) as output:
        write(output.growing(out))
        output.publish()


def publish_volume(volume, out, overwrite=False):
    publish(out, lambda target: write_volume(volume, target), overwrite)


@pytest.mark.parametrize("name", ["out.tif", "out.ome.zarr"])
def test_a_failure_leaves_no_output_and_the_store_whole(tmp_path, monkeypatch, name):
    out, array = tmp_path / name, labels((41, 151, 133))
    directory = tmp_path / f"{name}.partial" / "labels"

    def write(target):
        store = LabelStore.open(directory) if directory.exists() else filled_store(directory, array)
        finish_labels(store, target, info())

    with monkeypatch.context() as patch:
        patch.setattr("vemseg.volume.writing.write_tiff", fail)
        patch.setattr("vemseg.volume.pyramid.write_levels", fail)
        with pytest.raises(OSError, match="disk full"):
            publish(out, write)
    assert contents(tmp_path) == [name + ".partial"]
    assert "labels" in contents(directory.parent)
    np.testing.assert_array_equal(LabelStore.open(directory).read(Box.whole(array.shape)), array)

    publish(out, write)
    assert contents(tmp_path) == [name]
    np.testing.assert_array_equal(open_volume(out).read(Box.whole(array.shape)), array)


class Failing(Volume):
    def __init__(self, shape=SHAPE):
        super().__init__(shape, np.dtype(np.uint8))

    def _read(self, box):
        if box.start[0] > 20:
            raise InputError("damaged")
        return np.zeros(box.shape, np.uint8)


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_a_failing_source_leaves_nothing_and_keeps_the_old_output(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tiff_writing, "SLAB_DEPTH", 4)
    out = tmp_path / name
    monkeypatch.setattr("vemseg.volume.zarr_writing.BLOCK_SHAPE", BLOCK)
    for write in (write_volume, publish_volume):
        with pytest.raises(InputError, match="damaged"):
            write(Failing(), out)
        assert contents(tmp_path) == []
    publish_volume(ArrayVolume(labels()), out)
    with pytest.raises(InputError, match="damaged"):
        publish_volume(Failing(), out, overwrite=True)
    assert contents(tmp_path) == [name]
    np.testing.assert_array_equal(open_volume(out).read(Box.whole(SHAPE)), labels())


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_existing_outputs_are_replaced_only_on_request(tmp_path, name):
    out = tmp_path / name
    publish_volume(ArrayVolume(np.ones((3, 4, 5), np.uint8)), out)
    with pytest.raises(OutputExistsError, match="exists"):
        publish_volume(ArrayVolume(labels()), out)
    assert open_volume(out).shape == (3, 4, 5)
    store = filled_store(tmp_path / "b" / name, labels())
    publish(out, lambda target: finish_labels(store, target, info()), overwrite=True)
    assert open_volume(out).shape == SHAPE


@pytest.mark.parametrize("name", ["out.tif", "out.ome.zarr"])
def test_a_volume_replaces_no_folder_of_something_else(tmp_path, name):
    out = tmp_path / name
    out.mkdir()
    (out / "old").write_text("old")
    with pytest.raises(OutputExistsError, match=rf"{name} is a folder"):
        publish_volume(ArrayVolume(labels()), out, overwrite=True)
    assert (out / "old").read_text() == "old" and contents(tmp_path) == [name]


def test_unknown_suffixes_are_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match=r"name it \.tif or \.ome\.zarr"):
        output_format(tmp_path / "out.png")
    with pytest.raises(UsageError):
        write_volume(ArrayVolume(labels()), tmp_path / "out")
    assert contents(tmp_path) == []


# --- grey volumes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("voxel_size", SIZES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("name", ["deep/out.tif", "deep/out.ome.zarr"])
def test_grey_volumes_read_back(tmp_path, monkeypatch, name, dtype, voxel_size):
    array = np.random.default_rng(0).normal(0, 90, SHAPE).astype(dtype)
    out = tmp_path / name
    monkeypatch.setattr("vemseg.volume.zarr_writing.BLOCK_SHAPE", BLOCK)
    write_volume(ArrayVolume(array, voxel_size), out, description={"made": "for a test"})
    assert contents(out.parent) == [out.name]
    volume = open_volume(out)
    np.testing.assert_array_equal(volume.read(volume.box), array)
    assert volume.dtype == dtype
    assert volume.voxel_size == (voxel_size and pytest.approx(voxel_size))
    if out.suffix == ".zarr":
        group = zarr.open_group(str(out), mode="r")
        Image.from_zarr(group)
        assert group.attrs["vemseg"] == {"made": "for a test"}


@pytest.mark.parametrize("name", ["out.tif", "out.zarr"])
def test_a_single_plane(tmp_path, name):
    array = labels((1, 300, 200))
    write_volume(ArrayVolume(array, (4.0, 4.0, 4.0)), tmp_path / name)
    volume = open_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.read(volume.box), array)
    assert volume.voxel_size == pytest.approx((4, 4, 4))


# --- what a volume says about itself ---------------------------------------------------------------------

WAYS = [("imagej", "out.tif", "uint8"), ("imagej", "out.tif", "uint16"), ("ome", "out.tif", "uint32")]
WAYS += [("ome", "out.tif", "uint8"), ("zarr", "out.ome.zarr", "uint8")]
RECORD = {
    "names": {"1": "mitochondrion", "3": "Zellkern µ"},
    "colours": {"1": [255, 0, 10], "3": [0, 128, 255]},
    "seed": 7,
}


@pytest.fixture(params=WAYS, ids=["-".join(way) for way in WAYS])
def finished(request, tmp_path, monkeypatch):
    """Return a function that finishes labels in one of the ways, and their path."""
    way, name, dtype = request.param
    if way == "ome":
        monkeypatch.setattr(tiff_writing, "IMAGEJ_BYTES", 1000)

    def make(voxel_size=None, **more):
        return finish(labels(dtype=dtype), tmp_path / name, voxel_size, **more)

    return make


def test_records_are_read_back(finished):
    assert record(finished()) == RECORD


def test_crops_know_where_they_lay(finished):
    out = finished((50.0, 4.6, 4.6), start=(3, 40, 500))
    assert record(out) == RECORD | {"origin_voxels": [3, 40, 500]}
    volume = open_volume(out)
    assert volume.start == (3, 40, 500)
    assert open_volume(out, crop="1:3,2:,:").start == (4, 42, 500)
    assert pickle.loads(pickle.dumps(volume)).start == (3, 40, 500)


@pytest.mark.parametrize("voxel_size", SIZES)
def test_origins_move_every_level_of_an_ome_zarr(tmp_path, voxel_size):
    at_zero, moved = (
        zarr.open_group(str(finish(labels(), tmp_path / name, voxel_size, start=start)), mode="r")
        for name, start in (("a.zarr", (0, 0, 0)), ("b.zarr", (3, 40, 500)))
    )
    Image.from_zarr(moved)
    edges = np.array(voxel_size or (1.0, 1.0, 1.0))
    before, after = (
        [level["coordinateTransformations"] for level in group.attrs["ome"]["multiscales"][0]["datasets"]]
        for group in (at_zero, moved)
    )
    for (scale, shift), (same, further) in zip(before, after, strict=True):
        assert scale == same
        np.testing.assert_allclose(
            np.subtract(further["translation"], shift["translation"]), edges * (3, 40, 500)
        )
    assert [open_volume(tmp_path / "b.zarr" / level).start for level in "01"] == [(3, 40, 500), (0, 0, 0)]


@pytest.mark.parametrize(
    ("voxel_size", "places"),
    [
        ((50.0, 4.5, 4.0), ("150.0 nm", "180.0 nm", "2000.0 nm")),
        (None, ("3.0 pixel", "40.0 pixel", "500.0 pixel")),
    ],
)
def test_origins_are_the_positions_of_planes_in_ome(tmp_path, voxel_size, places):
    out = finish(labels(dtype="uint32"), tmp_path / "out.tif", voxel_size, start=(3, 40, 500))
    with tifffile.TiffFile(out) as file:
        planes = [e for e in ElementTree.fromstring(file.ome_metadata).iter() if e.tag.endswith("}Plane")]
    assert len(planes) == SHAPE[0]
    for axis, place in zip("ZYX", places, strict=True):
        assert f"{planes[0].get(f'Position{axis}')} {planes[0].get(f'Position{axis}Unit')}" == place
    step = float(planes[7].get("PositionZ")) - float(planes[0].get("PositionZ"))
    assert step == pytest.approx(7 * (voxel_size or (1,))[0])


def test_a_cropped_grey_volume_keeps_its_origin(tmp_path):
    part = Cropped(ArrayVolume(labels(), (4.0, 4.0, 4.0)), Box((3, 40, 50), (9, 60, 90)))
    for name in ("out.tif", "out.zarr"):
        write_volume(part, tmp_path / name)
        assert open_volume(tmp_path / name).start == (3, 40, 50)
        assert record(tmp_path / name) == {"origin_voxels": [3, 40, 50]}


def test_other_peoples_files_have_no_record(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", labels(), imagej=True, metadata={"axes": "ZYX", "Info": "{no JSON"})
    tifffile.imwrite(tmp_path / "b.tif", labels(), ome=True, metadata={"axes": "ZYX", "Description": "[1]"})
    tifffile.imwrite(tmp_path / "c.tif", labels())
    zarr.create_array(str(tmp_path / "d.zarr"), shape=(3, 4, 5), dtype="uint8")
    for name in ("a.tif", "b.tif", "c.tif", "d.zarr"):
        assert record(tmp_path / name) is None
        assert open_volume(tmp_path / name).labelled is None
        with pytest.raises(InputError, match=r"holds no labels|not a readable"):
            rename_labels(tmp_path / name, NAMES, COLOURS)
    with pytest.raises(InputError, match="no labels at"):
        rename_labels(tmp_path / "absent.tif", NAMES, COLOURS)


def test_finished_labels_are_no_grey_volume(finished):
    with pytest.raises(InputError, match=r"holds labels \(vemseg wrote it as labels\): give the grey volume"):
        check_grey(open_volume(finished()))


# --- other names for finished labels ---------------------------------------------------------------------

OTHERS = {1: "nucleus & <envelope>", 2: "granule " + 500 * "x", 3: "ε"}
PAINT = {1: (1, 2, 3), 2: (4, 5, 6), 3: (7, 8, 9)}
RENAMED = RECORD | {
    "names": {str(k): name for k, name in OTHERS.items()},
    "colours": {str(k): list(rgb) for k, rgb in PAINT.items()},
}


def stored_voxels(path):
    """Return the bytes in which the voxels lie, as the file has them."""
    if path.is_dir():
        return {part: part.read_bytes() for part in sorted(path.rglob("c/**/*")) if part.is_file()}
    with tifffile.TiffFile(path) as file:
        data = path.read_bytes()
        at = [(page.dataoffsets, page.databytecounts) for page in file.pages]
    parts = [part for offsets, counts in at for part in zip(offsets, counts, strict=True)]
    return [(start, data[start : start + count]) for start, count in parts]


def test_names_change_and_voxels_do_not(finished):
    out = finished((50.0, 4.6, 4.6))
    before = stored_voxels(out)
    array = open_volume(out).read(Box.whole(SHAPE))
    for names, colours, expected in (
        (OTHERS, PAINT, RENAMED),
        ({}, {}, RECORD | {"names": {}, "colours": {}}),
        (NAMES, COLOURS, RECORD),
        (OTHERS, PAINT, RENAMED),
    ):
        rename_labels(out, names, colours)
        assert record(out) == expected
        assert stored_voxels(out) == before
    volume = open_volume(out)
    assert volume.voxel_size == pytest.approx((50.0, 4.6, 4.6))
    np.testing.assert_array_equal(volume.read(volume.box), array)


def test_renamed_ome_zarrs_are_valid(tmp_path):
    out = finish(labels(), tmp_path / "out.ome.zarr", (15.0, 15.0, 15.0))
    rename_labels(out, OTHERS, PAINT)
    group = zarr.open_group(str(out), mode="r")
    Image.from_zarr(group)
    described = ImageLabel.from_zarr(group).attributes.ome.image_label
    assert {c.label_value: tuple(c.rgba) for c in described.colors} == {
        k: (*v, 255) for k, v in PAINT.items()
    }
    assert group.attrs["vemseg"] == {"seed": 7}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_renamed_tiffs_are_what_imagej_reads(tmp_path, dtype):
    out = finish(labels(dtype=dtype), tmp_path / "out.tif", (50.0, 4.6, 4.6))
    with tifffile.TiffFile(out) as file:
        before = dict(file.imagej_metadata)
    rename_labels(out, OTHERS, PAINT)
    with tifffile.TiffFile(out) as file:
        after = dict(file.imagej_metadata)
        assert file.series[0].axes == "ZYX" and file.series[0].dataoffset is not None
        tables = [page.colormap >> 8 for page in file.pages] if dtype == "uint8" else [after.pop("LUTs")]
        assert all(tuple(table[:, k].tolist()) == rgb for table in tables for k, rgb in PAINT.items())
        np.testing.assert_array_equal(file.asarray(), labels(dtype=dtype))
    before.pop("LUTs", None)
    assert json.loads(after.pop("Info")) == RENAMED
    assert {**before, "Info": ""} == {**after, "Info": ""}


@pytest.mark.parametrize(("way", "dtype"), [("imagej", "uint8"), ("ome", "uint32"), ("ome", "uint8")])
def test_a_kill_leaves_the_old_names_or_the_new(tmp_path, monkeypatch, way, dtype):
    if way == "ome":
        monkeypatch.setattr(tiff_writing, "IMAGEJ_BYTES", 1000)
    out = finish(labels(dtype=dtype), tmp_path / "out.tif")
    before = stored_voxels(out)
    with monkeypatch.context() as patch:
        patch.setattr("vemseg.volume.tiff_tags._flush", fail)
        with pytest.raises(OSError, match="disk full"):
            rename_labels(out, OTHERS, PAINT)
    assert (record(out), stored_voxels(out)) == (RECORD, before)
    rename_labels(out, OTHERS, PAINT)
    assert (record(out), stored_voxels(out)) == (RENAMED, before)


def test_a_tiff_that_cannot_grow_keeps_its_names(tmp_path, monkeypatch):
    out = finish(labels(), tmp_path / "out.tif")
    before = out.read_bytes()
    monkeypatch.setattr(tiff_tags, "LARGEST_TIFF", len(before) + 100)
    with pytest.raises(InputError, match="cannot grow"):
        rename_labels(out, OTHERS, PAINT)
    assert out.read_bytes() == before


# --- where a volume lies in space ------------------------------------------------------------------------


def test_places_in_space_are_written_and_read_back(finished):
    out = finished((50.0, 4.6, 4.6), origin=(2400.5, 900.0, 25864.0), start=(3, 40, 500))
    volume = open_volume(out)
    assert volume.origin == pytest.approx((2400.5, 900, 25864))
    assert volume.start == (3, 40, 500)
    part = open_volume(out, crop="1:3,2:,:")
    assert part.origin == pytest.approx((2450.5, 909.2, 25864))
    assert pickle.loads(pickle.dumps(volume)).origin == volume.origin


def test_fiji_is_told_which_voxel_lies_at_zero(tmp_path):
    out = finish(labels(), tmp_path / "out.tif", (50.0, 4.0, 5.0), origin=(100.0, 0.0, -10.0))
    with tifffile.TiffFile(out) as file:
        told = file.imagej_metadata
    assert [told[f"{axis}origin"] for axis in "zyx"] == [-2, 0, 2]


def test_a_crop_of_a_volume_that_lies_elsewhere(tmp_path):
    whole = ArrayVolume(labels(), (4.0, 4.0, 4.0))
    whole.origin = (80.0, 0.0, 8.0)
    part = Cropped(whole, Box((3, 40, 50), (9, 60, 90)))
    for name in ("out.tif", "out.zarr"):
        write_volume(part, tmp_path / name)
        assert open_volume(tmp_path / name).origin == pytest.approx((92, 160, 208))
        assert record(tmp_path / name)["origin_nm"] == [92, 160, 208]
