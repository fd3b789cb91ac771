"""Reading volumes: formats, boxes, voxel sizes, views, intensities, and input that must be refused."""

import itertools
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import tifffile
import zarr

from vemseg.errors import InputError, UsageError
from vemseg.geometry import Box, add
from vemseg.volume import (
    FORMATS,
    ArrayVolume,
    Cropped,
    Format,
    Intensity,
    Permuted,
    Resampled,
    Volume,
    check_grey,
    check_labels,
    measure_intensity,
    open_volume,
    record,
    resample,
)
from vemseg.volume.resample import taps_of
from vemseg.volume.units import nanometres

SHAPE = (9, 50, 67)


def grey(shape=SHAPE, dtype="uint8", seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    if dtype == "bool":
        return rng.random(shape) > 0.5
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def random_boxes(shape, count=12, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        ends = [sorted(rng.integers(0, n + 1, 2).tolist()) for n in shape]
        yield Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))


def assert_reads_as(volume, array):
    assert volume.shape == array.shape
    assert volume.dtype == array.dtype
    for box in [volume.box, *random_boxes(volume.shape)]:
        read = volume.read(box)
        assert read.dtype == array.dtype
        assert read.flags.writeable
        np.testing.assert_array_equal(read, array[box.slices])


# --- boxes across the border -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 6, 2), (2, 1, 3)])
def test_reading_across_the_border_mirrors_like_numpy(shape):
    array = grey(shape)
    volume = ArrayVolume(array)
    pad = 17
    mirrored = np.pad(array, pad, mode="reflect")
    rng = np.random.default_rng(0)
    for _ in range(40):
        start = tuple(int(rng.integers(-pad, n + pad)) for n in shape)
        stop = tuple(int(rng.integers(a, n + pad + 1)) for a, n in zip(start, shape, strict=True))
        box = Box(start, stop)
        np.testing.assert_array_equal(
            volume.read_reflected(box), mirrored[box.shift((pad, pad, pad)).slices], err_msg=str(box)
        )


def test_reading_across_the_border_reads_the_inner_box_once():
    boxes = []

    class Counting(ArrayVolume):
        def _read(self, box):
            boxes.append(box)
            return super()._read(box)

    volume = Counting(grey((20, 30, 40)))
    volume.read_reflected(Box((-3, 25, 10), (4, 33, 20)))
    assert boxes == [Box((0, 25, 10), (4, 30, 20))]


@pytest.mark.parametrize(("dtype", "count", "reads"), [("u1", 9, 9), ("u1", 10, 1), ("f4", 10, 10)])
def test_boxes_that_hold_as_much_as_the_volume_are_cut_from_one_reading(dtype, count, reads):
    asked = []

    class Counting(ArrayVolume):
        def _read(self, box):
            asked.append(box)
            return super()._read(box)

    array = grey((10, 20, 10)).astype(dtype)
    boxes = [Box((n % 6, n, 0), (n % 6 + 4, n + 5, 10)) for n in range(count)]
    found = list(Counting(array).read_each(boxes))
    assert len(asked) == reads
    for box, part in zip(boxes, found, strict=True):
        np.testing.assert_array_equal(part, array[box.slices])


def test_a_box_outside_is_a_bug():
    with pytest.raises(ValueError, match="reaches outside"):
        ArrayVolume(grey()).read(Box((0, 0, 0), (10, 1, 1)))


# --- TIFF ------------------------------------------------------------------------------------------------

TIFF_WAYS = {
    "plain": {},
    "big": {"bigtiff": True},
    "big_endian": {"byteorder": ">"},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    "ome_zlib": {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
    "tiled": {"tile": (16, 32)},
    "tiled_zlib": {"tile": (16, 32), "compression": "zlib"},
    "zlib": {"compression": "zlib"},
    "zlib_predictor_big_endian": {"compression": "zlib", "predictor": True, "byteorder": ">"},
    "lzw_strips": {"compression": "lzw", "rowsperstrip": 7},
    "zstd": {"compression": "zstd"},
    "volumetric": {"volumetric": True, "tile": (16, 16, 32), "compression": "zlib"},
    "no_description": {"metadata": None},
    "palette": {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
}


@pytest.mark.parametrize("way", TIFF_WAYS)
def test_tiff_boxes(tmp_path, way):
    array = grey()
    tifffile.imwrite(tmp_path / "v.tif", array, **({"photometric": "minisblack"} | TIFF_WAYS[way]))
    volume = open_volume(tmp_path / "v.tif")
    assert_reads_as(volume, array)
    assert volume.name == "v"
    assert volume.voxel_size is None
    assert volume.voxel_size_from == "unknown"
    assert_reads_as(pickle.loads(pickle.dumps(volume)), array)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("uint8", "uint8"),
        ("uint16", "uint16"),
        ("int16", "int16"),
        ("uint32", "uint32"),
        ("int32", "int32"),
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("bool", "uint8"),
    ],
)
def test_tiff_types(tmp_path, stored, read, compression):
    array = grey(dtype=stored)
    tifffile.imwrite(tmp_path / "v.tif", array, compression=compression, photometric="minisblack")
    assert_reads_as(open_volume(tmp_path / "v.tif"), array.astype(read))


@pytest.mark.parametrize("described", [{}, {"metadata": None}, {"contiguous": False}])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_page_by_page(tmp_path, described, compression):
    array = grey()
    with tifffile.TiffWriter(tmp_path / "v.tif") as file:
        for plane in array:
            file.write(plane, compression=compression, **described)
    assert_reads_as(open_volume(tmp_path / "v.tif"), array)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_of_one_plane(tmp_path, compression):
    array = grey()[0]
    tifffile.imwrite(tmp_path / "v.tiff", array, compression=compression)
    assert_reads_as(open_volume(str(tmp_path / "v.tiff")), array[None])


def test_tiff_with_missing_tiles_reads_zeros(tmp_path):
    array = grey()
    tifffile.imwrite(tmp_path / "v.tif", array, tile=(16, 32), compression="zlib")
    with tifffile.TiffFile(tmp_path / "v.tif", mode="r+b") as file:
        tag = file.pages[2].tags["TileByteCounts"]
        tag.overwrite([0, *tag.value[1:]])
    array[2, :16, :32] = 0
    assert_reads_as(open_volume(tmp_path / "v.tif"), array)


def test_compressed_tiff_stays_within_its_memory(tmp_path):
    planes, edge = 64, 512
    with tifffile.TiffWriter(tmp_path / "v.tif") as file:
        for z in range(planes):
            file.write(np.full((edge, edge), z, np.uint8), compression="zlib", rowsperstrip=edge)
    volume = open_volume(tmp_path / "v.tif")
    volume._cache.limit = 4 * edge * edge
    tracemalloc.start()
    for z in (*range(planes), 0, planes - 1):
        assert volume.read(Box((z, 3, 3), (z + 1, 5, 5))).mean() == z
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * edge * edge  # the file has 64 planes


def test_only_the_tiles_of_a_box_are_decoded(tmp_path, monkeypatch):
    array = grey((6, 128, 128))
    tifffile.imwrite(tmp_path / "v.tif", array, tile=(32, 32), compression="zlib")
    volume = open_volume(tmp_path / "v.tif")
    decoded = []
    decode = type(volume)._decode
    monkeypatch.setattr(type(volume), "_decode", lambda self, *a: decoded.append(a[2]) or decode(self, *a))
    for _ in range(2):
        volume.read(Box((1, 40, 70), (2, 70, 90)))
    assert decoded == [6, 10]  # the second time they are remembered


# --- Zarr ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", ">u2", "bool"])
def test_zarr_arrays(tmp_path, zarr_format, dtype):
    if zarr_format == 3 and dtype == ">u2":
        pytest.skip("format 3 has no byte order in its types")
    array = grey(dtype="uint16" if dtype == ">u2" else dtype)
    stored = zarr.create_array(
        str(tmp_path / "v.zarr"), shape=SHAPE, chunks=(4, 16, 32), dtype=dtype, zarr_format=zarr_format
    )
    stored[:] = array
    volume = open_volume(tmp_path / "v.zarr")
    assert_reads_as(volume, array.astype("uint8") if dtype == "bool" else array)
    assert volume.voxel_size is None
    assert volume.name == "v"


def test_zarr_chunks_of_small_boxes_are_decoded_once(tmp_path, monkeypatch):
    array = grey((40, 64, 64))
    stored = zarr.create_array(
        str(tmp_path / "v.zarr"), shape=array.shape, chunks=(16, 16, 16), dtype="uint8"
    )
    stored[:] = array
    volume = open_volume(tmp_path / "v.zarr")
    loaded = []
    load = type(volume)._load
    monkeypatch.setattr(type(volume), "_load", lambda self, box: loaded.append(box) or load(self, box))
    box = Box((33, 10, 20), (34, 20, 30))
    for _ in range(2):
        np.testing.assert_array_equal(volume.read(box), array[box.slices])
    assert loaded == [Box((32, 0, 16), (40, 16, 32)), Box((32, 16, 16), (40, 32, 32))]
    assert_reads_as(pickle.loads(pickle.dumps(volume)), array)
    volume._cache.limit = 1000  # such chunks are not worth keeping
    volume.read(box)
    assert loaded[-1] == box


def ome_zarr(path, array, *, version="0.5", axes="tczyx", unit="micrometer", scale=(0.05, 0.0046, 0.0046)):
    """Write an image whose level 1 is a copy; t and c have length 1."""
    zarr_format = 3 if version == "0.5" else 2
    group = zarr.create_group(str(path), zarr_format=zarr_format)
    extra = len(axes) - 3
    described = [
        {"name": a, "type": "space", **({"unit": unit} if unit else {})} if a in "zyx" else {"name": a}
        for a in axes
    ]
    datasets = []
    for level in ("s0", "s1"):
        stored = group.create_array(level, shape=(1,) * extra + array.shape, dtype=array.dtype)
        stored[:] = array.reshape((1,) * extra + array.shape)
        ratio = 1 if level == "s0" else 2
        scales = [1.0] * extra + [s * ratio for s in scale]
        datasets.append({"path": level, "coordinateTransformations": [{"type": "scale", "scale": scales}]})
    whole = [{"type": "scale", "scale": [1.0] * len(axes)}]
    image = {"axes": described, "datasets": datasets, "coordinateTransformations": whole}
    if version == "0.5":
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [image | {"version": version}]
    return group


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tczyx", "czyx", "zyx"])
def test_ome_zarr(tmp_path, version, axes):
    array = grey()
    group = ome_zarr(tmp_path / "cell.ome.zarr", array, version=version, axes=axes)
    group.create_group("labels")
    labels = grey(dtype="uint32", seed=5)
    ome_zarr(tmp_path / "cell.ome.zarr" / "labels" / "mito", labels, version=version, axes="zyx")

    volume = open_volume(tmp_path / "cell.ome.zarr")
    assert_reads_as(volume, array)
    assert volume.voxel_size == pytest.approx((50, 4.6, 4.6))
    assert volume.voxel_size_from == "file"
    assert volume.name == "cell"

    coarse = open_volume(tmp_path / "cell.ome.zarr" / "s1")
    assert coarse.voxel_size == pytest.approx((100, 9.2, 9.2))
    assert coarse.name == "cell-s1"

    mito = open_volume(tmp_path / "cell.ome.zarr" / "labels" / "mito")
    assert_reads_as(mito, labels)
    assert mito.voxel_size == pytest.approx((50, 4.6, 4.6))


def test_ome_zarr_with_its_axes_in_another_order(tmp_path):
    array = grey()
    ome_zarr(tmp_path / "v.zarr", array, axes="xyz", scale=(4, 5, 6), unit="nanometer")
    volume = open_volume(tmp_path / "v.zarr")
    assert_reads_as(volume, array.transpose(2, 1, 0))
    assert volume.voxel_size == (6, 5, 4)


@pytest.mark.parametrize("unit", [None, "pixel"])
def test_ome_zarr_without_a_unit_has_no_voxel_size(tmp_path, unit):
    ome_zarr(tmp_path / "v.zarr", grey(), unit=unit)
    assert open_volume(tmp_path / "v.zarr").voxel_size is None


def test_zarr_inside_a_collection_of_bioformats(tmp_path):
    array = grey()
    outer = zarr.create_group(str(tmp_path / "v.zarr"), zarr_format=2)
    outer.attrs["bioformats2raw.layout"] = 3
    ome_zarr(tmp_path / "v.zarr" / "0", array, version="0.4")
    assert_reads_as(open_volume(tmp_path / "v.zarr"), array)


# --- voxel sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "edge"),
    [
        ("micron", 1000),
        ("um", 1000),
        ("µm", 1000),
        ("μm", 1000),
        (r"\u00B5m", 1000),
        ("nm", 1),
        ("nanometre", 1),
        ("Micrometers", 1000),
        ("Å", 0.1),
        ("mm", 1e6),
        ("pixel", None),
        ("", None),
        (None, None),
    ],
)
def test_units(unit, edge):
    assert nanometres(unit) == edge


@pytest.mark.parametrize("unit", ["micron", "um", r"\u00B5m"])
def test_voxel_size_of_imagej(tmp_path, unit):
    tifffile.imwrite(
        tmp_path / "v.tif",
        grey(),
        imagej=True,
        metadata={"axes": "ZYX", "spacing": 0.05, "unit": unit},
        resolution=(1 / 0.004, 1 / 0.008),
    )
    volume = open_volume(tmp_path / "v.tif")
    assert volume.voxel_size == pytest.approx((50, 8, 4))
    assert volume.voxel_size_from == "file"


def test_voxel_size_of_imagej_without_a_step_is_unknown(tmp_path):
    tifffile.imwrite(
        tmp_path / "v.tif", grey(), imagej=True, metadata={"axes": "ZYX", "unit": "nm"}, resolution=(1, 1)
    )
    assert open_volume(tmp_path / "v.tif").voxel_size is None


def test_voxel_size_of_ome(tmp_path):
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 0.05, "PhysicalSizeY": 46, "PhysicalSizeYUnit": "Å"}
    metadata |= {"PhysicalSizeX": 4.6, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(tmp_path / "v.ome.tif", grey(), metadata=metadata)
    volume = open_volume(tmp_path / "v.ome.tif")
    assert volume.voxel_size == pytest.approx((50, 4.6, 4.6))
    assert volume.name == "v"


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((1e6, 2e6), "CENTIMETER", (5, 5, 10)),
        ((72, 72), "INCH", None),
        ((300, 300), "INCH", None),
        ((118, 118), "CENTIMETER", None),
        ((4, 4), "NONE", None),
    ],
)
def test_voxel_size_of_a_plain_plane(tmp_path, resolution, unit, expected):
    tifffile.imwrite(tmp_path / "v.tif", grey()[0], resolution=resolution, resolutionunit=unit, metadata=None)
    volume = open_volume(tmp_path / "v.tif")
    assert volume.voxel_size == (expected and pytest.approx(expected))
    tifffile.imwrite(tmp_path / "v.tif", grey(), resolution=resolution, resolutionunit=unit, metadata=None)
    assert open_volume(tmp_path / "v.tif").voxel_size is None  # nothing states the step in z


def test_the_option_overrides_the_file(tmp_path):
    ome_zarr(tmp_path / "v.zarr", grey())
    tifffile.imwrite(tmp_path / "v.tif", grey())
    for path in (tmp_path / "v.zarr", tmp_path / "v.tif"):
        volume = open_volume(path, voxel_size=(30, 8, 8))
        assert volume.voxel_size == (30, 8, 8)
        assert volume.voxel_size_from == "option"
    again = pickle.loads(pickle.dumps(volume))
    assert (again.voxel_size, again.voxel_size_from) == ((30, 8, 8), "option")


# --- other formats ---------------------------------------------------------------------------------------


class Dump(ArrayVolume):
    """A toy format: an array as numpy saves it, under a name inside an archive."""

    def __init__(self, path, wish):
        with np.load(path.parent) as arrays:
            super().__init__(arrays[path.name], wish.voxel_size, name=path.name)
        self.path = path

    @staticmethod
    def recognises(path):
        return path.parent.suffix == ".npz"


def test_a_further_format_is_one_registration(tmp_path, monkeypatch):
    array = grey()
    np.savez(tmp_path / "cell.npz", em=array)
    (tmp_path / "v.npz").write_bytes(b"of no use")
    refuse(tmp_path / "v.npz", "unknown format: .*, or give one of these: Zarr array or group, TIFF stack")
    monkeypatch.setitem(FORMATS, "numpy archive", Format(Dump.recognises, Dump, (".npz",)))
    assert_reads_as(open_volume(tmp_path / "cell.npz" / "em"), array)
    part = open_volume(tmp_path / "cell.npz" / "em", voxel_size=(3, 2, 1), crop="1:4,:,:")
    assert (part.shape, part.voxel_size, part.start) == ((3, 50, 67), (3, 2, 1), (1, 0, 0))
    assert record(tmp_path / "cell.npz" / "em") is None
    refuse(tmp_path / "v.npz", "v.npz is not a numpy archive, in spite of its name")
    (tmp_path / "v.npz").write_bytes(b"")
    refuse(tmp_path / "v.npz", "v.npz is empty")
    (tmp_path / "nothing").mkdir()
    refuse(tmp_path / "nothing", "without a volume: give one of these: Zarr array.*, numpy archive")


# --- labels and grey values ------------------------------------------------------------------------------


def blobs(values, dtype="uint8"):
    """Labels as they look: patches of 8 x 8 voxels."""
    patches = np.random.default_rng(0).integers(0, values, (4, 20, 20))
    return patches.repeat(8, 1).repeat(8, 2).astype(dtype)


def test_label_images_are_known_by_their_metadata(tmp_path):
    group = zarr.create_group(str(tmp_path / "v.zarr"))
    group.create_array("0", shape=(3, 4, 5), dtype="uint8")
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}]
    image = {"axes": [{"name": axis, "type": "space"} for axis in "zyx"], "datasets": levels}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    assert open_volume(tmp_path / "v.zarr").labelled is None
    check_grey(open_volume(tmp_path / "v.zarr"))
    group.attrs["ome"] = group.attrs["ome"] | {"image-label": {"version": "0.5", "colors": [{}, 5]}}
    for path in (tmp_path / "v.zarr", tmp_path / "v.zarr" / "0"):
        volume = open_volume(path, crop="1:2,:,:")
        assert "image-label" in Permuted(volume, (2, 0, 1)).labelled
        with pytest.raises(InputError, match=r"holds labels \(its metadata .*\): give the grey volume"):
            check_grey(volume)


def test_few_grey_values_are_a_warning(caplog):
    for array, warned in (
        (blobs(7), True),
        (blobs(7, "float32"), False),
        (grey((4, 64, 64)) // 16, True),
        (grey((4, 64, 64)) // 15, False),
    ):
        caplog.clear()
        check_grey(ArrayVolume(array, name="a"))
        measure_intensity(ArrayVolume(array, name="a"))
        assert caplog.messages == [
            f"a holds only {len(np.unique(array))} different values, like labels: they count as grey values"
        ] * int(warned)


def test_grey_values_are_no_labels(caplog):
    for array in (blobs(2), blobs(250), blobs(3000, "uint32"), grey((4, 64, 64)) // 8):
        check_labels(ArrayVolume(array))
    assert not caplog.messages
    check_labels(ArrayVolume(grey((4, 64, 64)), name="a"))
    assert caplog.messages == ["a holds 256 different values, like a grey volume: its voxels count as labels"]
    with pytest.raises(InputError, match="a: labels must be integers, not float32"):
        check_labels(ArrayVolume(grey((4, 64, 64), "float32"), name="a"))
    with pytest.raises(InputError, match="a holds more than 4096 different values: these are grey values"):
        check_labels(ArrayVolume(grey((4, 64, 64), "uint16"), name="a"))


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 1, 5)])
@pytest.mark.parametrize("described", [{}, {"metadata": None}, {"imagej": True}])
def test_tiffs_with_axes_of_one_voxel(tmp_path, shape, described):
    array = grey(shape)
    tifffile.imwrite(tmp_path / "v.tif", array, photometric="minisblack", **described)
    volume = open_volume(tmp_path / "v.tif")
    assert volume.shape[-2:] == shape[-2:] and np.prod(volume.shape) == array.size
    np.testing.assert_array_equal(volume.read(volume.box).ravel(), array.ravel())


def refuse(path, message):
    with pytest.raises(InputError, match=message) as caught:
        volume = open_volume(path)
        volume.read(volume.box)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_volume(tmp_path):
    refuse(tmp_path / "absent.tif", "does not exist")
    refuse(tmp_path, "a folder without a volume: .*Zarr array or group")
    (tmp_path / "text.tif").write_text("not an image")
    refuse(tmp_path / "text.tif", "not a TIFF stack")
    (tmp_path / "empty.tif").write_bytes(b"")
    refuse(tmp_path / "empty.tif", "empty")
    (tmp_path / "v.mrc").write_bytes(bytes(2000))
    refuse(tmp_path / "v.mrc", "not an MRC file, in spite of its name")
    (tmp_path / "v.raw").write_bytes(bytes(2000))
    refuse(tmp_path / "v.raw", "unknown format")
    (tmp_path / "head.tif").write_bytes(b"II*\x00\x08\x00")
    refuse(tmp_path / "head.tif", "not a readable TIFF|no image|truncated")


def test_tiffs_that_are_no_grey_stack(tmp_path):
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, grey((3, 20, 30, 3)), photometric="rgb")
    refuse(path, "3 colour samples")
    tifffile.imwrite(path, grey((4, 2, 20, 30)), imagej=True, metadata={"axes": "ZCYX"})
    refuse(path, "2 channels")
    tifffile.imwrite(path, grey((5, 4, 20, 30)), imagej=True, metadata={"axes": "TZYX"})
    refuse(path, "5 time points")
    tifffile.imwrite(path, grey((5, 20, 30), "float32").astype("complex64"))
    refuse(path, "complex64")
    with tifffile.TiffWriter(path) as file:
        file.write(grey((20, 30)), metadata=None)
        file.write(grey((10, 30)), metadata=None)
    refuse(path, "2 images")
    tifffile.imwrite(path, grey((2, 5, 20, 30)))
    refuse(path, "not a stack")


@pytest.mark.parametrize("way", sorted(set(TIFF_WAYS) - {"palette", "volumetric"}))
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.97])
def test_truncated_tiffs(tmp_path, way, kept):
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, grey(), photometric="minisblack", **TIFF_WAYS[way])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    refuse(path, "truncated|damaged|readable")


def test_a_damaged_strip(tmp_path):
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, grey(), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[4].dataoffsets[0], file.pages[4].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\xff" * count
    path.write_bytes(data)
    refuse(path, "damaged")
    assert open_volume(path).read(Box((0, 0, 0), (4, 50, 67))).shape == (4, 50, 67)


def test_a_broken_list_of_pages(tmp_path):
    path = tmp_path / "v.tif"
    with tifffile.TiffWriter(path) as file:
        for plane in grey():
            file.write(plane, metadata=None, contiguous=False)
    with tifffile.TiffFile(path) as file:
        page = file.pages[5]
        at = page.offset + 2 + 12 * len(page.tags)
    data = bytearray(path.read_bytes())
    data[at : at + 4] = struct.pack("<I", len(data) + 1000)
    path.write_bytes(data)
    refuse(path, "truncated")


def test_zarrs_that_are_no_volume(tmp_path):
    group = zarr.create_group(str(tmp_path / "g.zarr"))
    refuse(tmp_path / "g.zarr", "it is empty")
    group.create_group("a").create_array("raw", shape=(3, 4, 5), dtype="uint8")
    refuse(tmp_path / "g.zarr", "g.zarr/a")
    refuse(tmp_path / "g.zarr" / "none", "does not exist")
    ome_zarr(tmp_path / "c.zarr", grey((1, 3, 4)))
    zarr.create_array(str(tmp_path / "t.zarr"), shape=(2, 3, 4, 5), dtype="uint8")
    refuse(tmp_path / "t.zarr", r"2 channels \(0, 1\): choose one with --channel 0")
    zarr.create_array(str(tmp_path / "line.zarr"), shape=(9,), dtype="uint8")
    refuse(tmp_path / "line.zarr", "1 axes")
    zarr.create_array(str(tmp_path / "complex.zarr"), shape=(3, 4, 5), dtype="complex64")
    refuse(tmp_path / "complex.zarr", "complex64")
    zarr.create_array(str(tmp_path / "none.zarr"), shape=(0, 4, 5), dtype="uint8")
    refuse(tmp_path / "none.zarr", "holds no voxels")
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{")
    refuse(tmp_path / "bad.zarr", "not a readable Zarr")


def test_a_damaged_chunk(tmp_path):
    stored = zarr.create_array(str(tmp_path / "v.zarr"), shape=SHAPE, chunks=SHAPE, dtype="uint8")
    stored[:] = grey()
    (tmp_path / "v.zarr" / "c" / "0" / "0" / "0").write_bytes(b"nothing of value")
    refuse(tmp_path / "v.zarr", "damaged")


# --- views -----------------------------------------------------------------------------------------------


def test_crops_and_permutations():
    array = grey()
    volume = ArrayVolume(array, voxel_size=(3, 2, 1))
    assert_reads_as(Cropped(volume, Box((2, 10, 20), (7, 45, 60))), array[2:7, 10:45, 20:60])
    for order in [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)]:
        view = Permuted(volume, order)
        assert_reads_as(view, array.transpose(order))
        assert view.voxel_size == tuple((3, 2, 1)[axis] for axis in order)
    with pytest.raises(ValueError, match="not an order"):
        Permuted(volume, (0, 0, 1))


def test_crop_option(tmp_path):
    array = grey()
    tifffile.imwrite(tmp_path / "v.tif", array)
    assert_reads_as(open_volume(tmp_path / "v.tif", crop=":,5:-5,30:"), array[:, 5:-5, 30:])
    with pytest.raises(UsageError):
        open_volume(tmp_path / "v.tif", crop="1:2")
    with pytest.raises(UsageError, match=r"beyond .*v\.tif of shape \(9, 50, 67\)"):
        open_volume(tmp_path / "v.tif", crop=":,:,0:68")


def test_views_know_where_they_begin():
    volume = ArrayVolume(grey())
    assert volume.start == (0, 0, 0)
    part = Cropped(volume, Box((2, 10, 20), (7, 45, 60)))
    assert part.start == (2, 10, 20)
    assert Cropped(part, Box((1, 0, 5), (2, 3, 9))).start == (3, 10, 25)
    assert Permuted(part, (2, 0, 1)).start == (20, 2, 10)
    assert Cropped(Permuted(part, (2, 0, 1)), Box((1, 2, 3), (4, 4, 4))).start == (21, 4, 13)


def slow_coarser(line, factor):
    """Average a line over intervals by summing tiny steps of it."""
    n = len(line)
    fine = 1000
    steps = np.repeat(line.astype(float), fine)
    out = max(1, round(n / factor))
    ends = np.rint(np.minimum(np.arange(out + 1) * factor, n) * fine).astype(int)
    return np.array([steps[a:b].mean() for a, b in itertools.pairwise(ends)])


@pytest.mark.parametrize("factor", [1.25, 1.6, 2.0, 3.5, 7.3, 40.0])
def test_coarser_is_the_exact_mean(factor):
    line = grey((1, 1, 37))[0, 0]
    view = Resampled(ArrayVolume(line[None, None]), (1, 1, factor))
    np.testing.assert_allclose(view.read(view.box)[0, 0], slow_coarser(line, factor), rtol=1e-4)


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.8])
def test_finer_is_linear_between_centres(factor):
    line = grey((1, 1, 37))[0, 0].astype(float)
    view = Resampled(ArrayVolume(line[None, None]), (1, 1, factor))
    centres = (np.arange(view.shape[2]) + 0.5) * factor - 0.5
    expected = np.interp(centres, np.arange(37), line)
    np.testing.assert_allclose(view.read(view.box)[0, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 2, 2), (1.6, 0.5, 1.25), (0.3, 3.7, 1), (20, 100, 100)])
def test_resampled_boxes_are_crops_of_the_whole(factors):
    volume = ArrayVolume(grey((13, 50, 67)), voxel_size=(10, 10, 10))
    view = Resampled(volume, factors)
    assert view.shape == tuple(max(1, round(n / f)) for n, f in zip(volume.shape, factors, strict=True))
    assert view.voxel_size == pytest.approx(tuple(10 * f for f in factors))
    whole = view.read(view.box)
    assert whole.dtype == view.dtype == np.float32
    if factors == (1, 1, 1):
        np.testing.assert_array_equal(whole, volume.read(volume.box))
    for box in random_boxes(view.shape):
        np.testing.assert_allclose(view.read(box), whole[box.slices], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("factors", [(1, 1, 1), (1, 0.7, 1.3), (0.6, 0.6, 0.6), (2.2, 1, 0.8)], ids=str)
def test_slabs_are_what_is_read_in_one_go_beyond_the_borders_too(monkeypatch, factors):
    view = Resampled(ArrayVolume(grey((20, 30, 40))), factors)
    z, y, x = view.shape
    for box in (view.box, Box((2, 3, 4), (9, 8, 11)), Box((-7, -3, 2), (z + 5, y, x + 9))):
        monkeypatch.setattr(resample, "SLAB", 2**19)
        [whole] = view.slabs(box)
        np.testing.assert_array_equal(whole, view.read_reflected(box))
        monkeypatch.setattr(resample, "SLAB", 3.01 * box.shape[1] * box.shape[2] * max(1, np.prod(factors)))
        slabs = list(view.slabs(box))
        assert [len(slab) for slab in slabs[:-1]] == [3] * (len(slabs) - 1) and len(slabs) > 2
        np.testing.assert_array_equal(np.concatenate(slabs), whole)


def test_resampling_reads_no_more_than_it_needs():
    class Watched(Volume):
        def _read(self, box):
            self.seen = box
            return np.ones(box.shape, np.uint8)

    volume = Watched((10_000, 10_000, 10_000), np.dtype(np.uint8))
    view = Resampled(volume, (2.0, 1.5, 0.5))
    assert view.read(Box((100, 100, 100), (110, 110, 110))).shape == (10, 10, 10)
    assert Box((200, 150, 49), (220, 165, 56)).contains(volume.seen)
    assert volume.seen.contains(Box((200, 150, 50), (220, 165, 54)))


@pytest.mark.parametrize("n", [1, 2, 3, 10, 64, 347])
def test_taps_stay_inside_and_sum_to_one(n):
    for factor in (0.1, 1 / 3, 0.7, 0.99, 1.0, 1.01, 1.1, 4 / 3, 2.0, 9.9, 500.0):
        taps = taps_of(np.arange(max(1, round(n / factor))), factor, n)
        assert taps.index.min() >= 0
        assert taps.index.max() < n
        np.testing.assert_allclose(taps.weight.sum(axis=1), 1, rtol=1e-6)


# --- intensities -----------------------------------------------------------------------------------------


def test_intensity_maps_its_range_to_one():
    out = Intensity(50, 150).apply(np.array([0, 50, 100, 150, 255], np.uint8))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, [0, 0, 0.5, 1, 1])


def test_measured_intensity_is_near_the_percentiles_and_repeatable():
    array = np.random.default_rng(0).normal(100, 20, (30, 200, 200)).astype(np.float32)
    volume = ArrayVolume(array)
    found = measure_intensity(volume)
    assert found == measure_intensity(volume)
    np.testing.assert_allclose((found.low, found.high), np.percentile(array, (0.5, 99.5)), rtol=0.01)


def test_intensity_of_rare_voxels_is_their_range():
    array = np.zeros((8, 64, 64), np.uint8)
    array[3, 4, 5] = 9
    assert measure_intensity(ArrayVolume(array)) == Intensity(0, 9)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN"), (np.inf, "infinite"), (7.0, "constant: every sampled voxel is 7")]
)
def test_intensity_refuses_what_has_no_contrast(value, message):
    array = np.full((4, 9, 9), 7, np.float32)
    array[1, 2, 3] = value
    with pytest.raises(InputError, match=message):
        measure_intensity(ArrayVolume(array, name="a"))


@pytest.mark.parametrize(
    ("dtype", "offset"),
    [("uint32", 2**31), ("int32", -(2**31)), ("uint64", 2**40), ("int64", -(2**50)), ("float64", 1e10)],
)
@pytest.mark.parametrize("factors", [(1, 1, 1), (1, 2, 2), (1.3, 0.7, 1)])
def test_a_contrast_on_a_large_offset_is_not_lost(dtype, offset, factors):
    small = grey((16, 64, 64))
    large = ArrayVolume(small.astype(dtype) + np.dtype(dtype).type(offset))
    views = [Resampled(ArrayVolume(small), factors), Resampled(large, factors)]
    found = [measure_intensity(view) for view in views]
    np.testing.assert_allclose(found[1].low - offset, found[0].low, atol=0.3)
    scaled = [i.apply(view.read(view.box)) for i, view in zip(found, views, strict=True)]
    assert scaled[1].dtype == np.float32
    np.testing.assert_allclose(scaled[1], scaled[0], atol=2e-3)


def test_words_for_values_that_are_large_but_not_constant():
    near = {2**63: r"9\.22337e\+18", 2**63 + 900: r"9\.22337e\+18", 2**57: r"1\.44115e\+17"}
    for offset, words in near.items():
        array = grey((4, 64, 64)).astype(np.uint64) + np.uint64(offset)
        with pytest.raises(InputError, match=f"values near {words} too close to tell apart"):
            measure_intensity(ArrayVolume(array))
    assert measure_intensity(ArrayVolume(array - np.uint64(2**57) + np.uint64(2**53))).high > 2**53
    huge = grey((4, 64, 64)).astype(np.float64) * 1e200
    scaled = measure_intensity(ArrayVolume(huge)).apply(huge)
    assert np.isfinite(scaled).all() and scaled.min() == 0 and scaled.max() == 1


# --- real volumes ----------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file", "shape", "voxel_size"),
    [
        ("epfl_train_15nm", "raw.tif", (55, 256, 341), (15, 15, 15)),
        ("epfl_train_15nm", "labels.tif", (55, 256, 341), (15, 15, 15)),
        ("drosophila_vnc", "raw.tif", (20, 1024, 1024), (50, 4.6, 4.6)),
        ("flyem_medulla_15nm", "raw.tif", (347, 347, 347), None),
    ],
)
def test_real_volumes(real_volume, name, file, shape, voxel_size):
    path = real_volume(name, file)
    volume = open_volume(path)
    assert volume.shape == shape
    assert volume.voxel_size == (voxel_size and pytest.approx(voxel_size))
    array = tifffile.imread(path, key=range(3, 9))
    box = Box((3, 100, 100), add((3, 100, 100), (6, 80, 80)))
    np.testing.assert_array_equal(volume.read(box), array[:, 100:180, 100:180])
