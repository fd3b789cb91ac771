"""Formats of the field, written by their own libraries: voxels, voxel sizes, axes and places are compared."""

import json
import pickle
import re
import shutil
import zipfile

import h5py
import imagecodecs
import mrcfile
import nibabel
import numcodecs
import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from commands import refused

from vemseg.errors import InputError, MissingError, UsageError
from vemseg.geometry import Box
from vemseg.volume import Choice, check_grey, describe, identity, open_grey, open_volume

SHAPE = (6, 20, 28)
ARRAY = np.random.default_rng(0).integers(0, 250, SHAPE, dtype=np.uint8)
PART = Box((1, 3, 5), (4, 9, 22))


def assert_reads_as(volume, array, size=None, origin=None):
    assert volume.shape == array.shape
    np.testing.assert_array_equal(volume.read(volume.box), array)
    np.testing.assert_array_equal(volume.read(PART), array[PART.slices])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(PART), array[PART.slices])
    assert volume.voxel_size == (size and pytest.approx(size))
    assert volume.origin == (origin and pytest.approx(origin))


def refuse(path, message, error=InputError, **more):
    with pytest.raises(error, match=message) as caught:
        volume = open_grey(path, **more)
        volume.read(volume.box)
    assert "\n" not in str(caught.value)


def ome(axes="zyx", scale=(30, 8, 8), unit="nanometer", path="0", shift=None, **image):
    kinds = {"t": "time", "c": "channel"}
    described = []
    for axis in axes:
        kind = kinds.get(axis.lower(), "space")
        described.append({"name": axis, "type": kind} | ({"unit": unit} if unit and kind == "space" else {}))
    steps = [{"type": "scale", "scale": list(scale)}]
    steps += [{"type": "translation", "translation": list(shift)}] if shift else []
    return {"axes": described, "datasets": [{"path": path, "coordinateTransformations": steps}], **image}


def image(path, array, image, **attributes):
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    level = image["datasets"][0]["path"]
    group.create_array(level, shape=array.shape, chunks=(8,) * array.ndim, dtype=array.dtype)[...] = array
    group.attrs.update({"multiscales": [image], **attributes})
    return path


# --- OME-Zarr and Zarr -----------------------------------------------------------------------------------


def test_translations_of_dataset_and_image_are_composed(tmp_path):
    whole = [{"type": "scale", "scale": [2, 2, 2]}, {"type": "translation", "translation": [1, 2, 3]}]
    described = ome(scale=(15, 4, 4), shift=(1200, 450, 9), coordinateTransformations=whole)
    path = image(tmp_path / "cell.zarr", ARRAY, described)
    for place in (path, path / "0", f"file://{path}"):
        assert_reads_as(open_volume(place), ARRAY, (30, 8, 8), (2401, 902, 21))
    assert open_volume(path, crop="2:,3:,5:").origin == pytest.approx((2461, 926, 61))


@pytest.mark.parametrize("axes", ["XYZ", "xyz", "ZYX", "YXZ"])
def test_axes_are_turned_whatever_their_order_and_case(tmp_path, axes):
    order = ["zyx".index(axis) for axis in axes.lower()]
    scale = [(30, 8, 4)[i] for i in order]
    path = image(tmp_path / "cell.zarr", ARRAY.transpose(order), ome(axes, scale, shift=scale))
    assert_reads_as(open_volume(path), ARRAY, (30, 8, 4), (30, 8, 4))


def test_a_unit_that_is_a_pixel_is_no_voxel_size(tmp_path, caplog):
    path = image(tmp_path / "cell.zarr", ARRAY[None, None], ome("tczyx", (1,) * 5, "pixel"))
    assert_reads_as(open_volume(path), ARRAY, None, None)
    open_grey(path)
    assert "voxel size unknown" in caplog.text


def test_codecs_of_zarr_2_are_decoded(tmp_path):
    group = zarr.open_group(str(tmp_path / "cell.zarr"), mode="w", zarr_format=2)
    wide = ARRAY.astype("u2") * 100
    layouts = {
        "swapped": {"dtype": ">u2", "order": "F", "compressors": numcodecs.LZ4()},
        "zipped": {"dtype": "<u2", "compressors": numcodecs.GZip()},
    }
    for name, layout in layouts.items():
        group.create_array(name, shape=SHAPE, chunks=(4, 16, 16), **layout)[:] = wide
        assert_reads_as(open_volume(tmp_path / "cell.zarr" / name), wide)
    group.create_array("delta", shape=SHAPE, chunks=SHAPE, dtype="<u2", compressors=None)[:] = wide
    delta, folder = numcodecs.Delta("<u2", "<i2"), tmp_path / "cell.zarr" / "delta"
    described = json.loads((folder / ".zarray").read_text()) | {"filters": [delta.get_config()]}
    (folder / ".zarray").write_text(json.dumps(described))
    (folder / "0.0.0").write_bytes(np.asarray(delta.encode(wide)).tobytes())
    assert_reads_as(open_volume(folder), wide)


@pytest.mark.parametrize("left", [200, 0])
def test_a_chunk_that_was_cut_short_is_named_by_its_box(tmp_path, left):
    path = image(tmp_path / "cell.zarr", ARRAY, ome())
    chunk = path / "0" / "0.1.2"
    chunk.write_bytes(chunk.read_bytes()[:left])
    refuse(path, "is damaged, box .* does not decode")
    assert open_volume(path).read(Box((0, 0, 0), (4, 8, 8))).any()


def test_levels_in_groups_of_their_own_as_ngff_zarr_writes_them(tmp_path):
    group = zarr.open_group(str(tmp_path / "cell.ome.zarr"), mode="w", zarr_format=3)
    levels = []
    for level, step in enumerate((1, 2)):
        part = ARRAY[::step, ::step, ::step]
        inner = group.create_group(f"scale{level}")
        inner.create_array("cell", data=part, dimension_names=("z", "y", "x"))
        levels += ome(scale=[30 * step, 8 * step, 8 * step], shift=(60, 16, 0), path=f"scale{level}/cell")[
            "datasets"
        ]
    described = {**ome(), "name": "cell", "datasets": levels, "@type": "ngff:Image"}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [described]}
    assert_reads_as(open_volume(tmp_path / "cell.ome.zarr"), ARRAY, (30, 8, 8), (60, 16, 0))
    coarse = open_volume(tmp_path / "cell.ome.zarr", choice=Choice(level="1"))
    assert (coarse.voxel_size, coarse.origin, coarse.shape) == ((60, 16, 16), (60, 16, 0), (3, 10, 14))


def test_names_of_dimensions_count_where_ngff_says_nothing(tmp_path):
    for names in (("x", "y", "z"), ("Width", "Height", "Depth"), ("column", "row", "plane")):
        zarr.create_array(str(tmp_path / "a.zarr"), data=ARRAY.T, dimension_names=names, overwrite=True)
        assert_reads_as(open_volume(tmp_path / "a.zarr"), ARRAY)
    old = zarr.create_array(str(tmp_path / "b.zarr"), data=ARRAY.T, zarr_format=2)
    old.attrs["_ARRAY_DIMENSIONS"] = ["x", "y", "z"]
    assert_reads_as(open_volume(tmp_path / "b.zarr"), ARRAY)


def test_names_that_are_not_understood_are_said_or_refused(tmp_path, caplog):
    zarr.create_array(str(tmp_path / "a.zarr"), data=ARRAY, dimension_names=("dim_0", "dim_1", "dim_2"))
    assert_reads_as(open_volume(tmp_path / "a.zarr"), ARRAY)
    assert "dim_0, dim_1, dim_2: taken as z, y, x" in caplog.text
    zarr.create_array(str(tmp_path / "b.zarr"), data=ARRAY, dimension_names=("x", "y", "depth_nm"))
    refuse(tmp_path / "b.zarr", "do not tell z, y, x.*--axes zyx")
    assert open_volume(tmp_path / "b.zarr", choice=Choice(axes="zyx")).shape == SHAPE
    path = image(tmp_path / "c.zarr", ARRAY[None], ome("zyx"))
    refuse(path, "4 axes, but its metadata name z, y, x: .*--axes czyx")
    assert_reads_as(open_volume(path, choice=Choice(axes="czyx")), ARRAY, (30, 8, 8), (0, 0, 0))
    for wrong in ("zyx", "zzyx", "zyxq"):
        refuse(path, "--axes", UsageError, choice=Choice(axes=wrong))


def test_channels_and_times_are_chosen_by_number_or_name(tmp_path):
    both = np.stack([ARRAY, 255 - ARRAY])
    omero = {"channels": [{"label": "ESB"}, {"label": "SE2"}]}
    path = image(tmp_path / "c.zarr", both, ome("czyx", (1, 30, 8, 8)), omero=omero)
    refuse(path, r"2 channels \(0 ESB, 1 SE2\): choose one with --channel 0")
    for chosen in ("1", "SE2"):
        volume = open_volume(path, choice=Choice(channel=chosen))
        assert_reads_as(volume, 255 - ARRAY, (30, 8, 8), (0, 0, 0))
        assert identity(volume) == {"read": {"channel": chosen}}
    refuse(path, "no such channel; there are 0 ESB, 1 SE2", UsageError, choice=Choice(channel="2"))
    refuse(path, "no choice of time", UsageError, choice=Choice(channel="0", time="0"))
    path = image(tmp_path / "t.zarr", both, ome("tzyx", (1, 30, 8, 8)))
    refuse(path, r"2 time points \(0, 1\): choose one with --time 0")
    assert_reads_as(open_volume(path, choice=Choice(time="0")), ARRAY, (30, 8, 8), (0, 0, 0))
    path = image(tmp_path / "one.zarr", ARRAY[None, None], ome("tczyx", (1, 1, 30, 8, 8)))
    assert_reads_as(open_volume(path, choice=Choice(channel="0")), ARRAY, (30, 8, 8), (0, 0, 0))


def test_the_finest_level_is_found_in_any_order(tmp_path):
    path = image(tmp_path / "cell.zarr", ARRAY, ome(path="fine"))
    group = zarr.open_group(str(path), mode="r+", zarr_format=2)
    group.create_array("coarse", shape=(3, 10, 14), dtype="uint8")[:] = ARRAY[::2, ::2, ::2]
    coarse = ome(scale=(60, 16, 16), shift=(15, 4, 4), path="coarse")["datasets"]
    described = group.attrs["multiscales"][0]
    group.attrs["multiscales"] = [described | {"datasets": coarse + described["datasets"]}]
    assert_reads_as(open_volume(path), ARRAY, (30, 8, 8), (0, 0, 0))
    for level in ("1", "coarse"):
        volume = open_volume(path, choice=Choice(level=level))
        assert (volume.shape, volume.voxel_size, volume.origin) == ((3, 10, 14), (60, 16, 16), (15, 4, 4))
    refuse(path, r"no such level; there are 0 \(fine\), 1 \(coarse\)", UsageError, choice=Choice(level="2"))
    bare = [{"path": "coarse"}, {"path": "fine"}]
    group.attrs["multiscales"] = [{"axes": described["axes"], "datasets": bare}]
    assert open_volume(path).shape == SHAPE


def test_conventions_of_the_field(tmp_path):
    cosem = {
        "axes": ["z", "y", "x"],
        "scale": [5.24, 4, 4],
        "translate": [10.48, 40, 80],
        "units": ["nm"] * 3,
    }
    cases = {
        "cosem": ({"transform": cosem}, (5.24, 4, 4), (10.48, 40, 80)),
        "n5": ({"pixelResolution": {"dimensions": [4, 4, 5], "unit": "nm"}}, (5, 4, 4), (0, 0, 0)),
        "um": (
            {"pixelResolution": {"dimensions": [0.004, 0.004, 0.005], "unit": "um"}},
            (5, 4, 4),
            (0, 0, 0),
        ),
        "cremi": ({"resolution": [40, 4, 4], "offset": [80, 0, 8]}, (40, 4, 4), (80, 0, 8)),
        "plantseg": ({"element_size_um": [0.03, 0.008, 0.008]}, (30, 8, 8), (0, 0, 0)),
        "imagej": (
            {"pixelWidth": 8, "pixelHeight": 8, "pixelDepth": 30, "pixelUnit": "nm"}, (30, 8, 8), (0, 0, 0)
        ),
    }  # fmt: skip
    for name, (attributes, size, origin) in cases.items():
        array = zarr.create_array(str(tmp_path / f"{name}.zarr"), data=ARRAY, zarr_format=2)
        array.attrs.update(attributes)
        assert_reads_as(open_volume(tmp_path / f"{name}.zarr"), ARRAY, size, origin)
    root = zarr.open_group(str(tmp_path / "jrc.zarr"), mode="w", zarr_format=2)
    raw = root.create_group("volumes/raw")
    raw.create_array("s0", shape=SHAPE, dtype="uint8")[:] = ARRAY
    raw.attrs["multiscales"] = [{"datasets": [{"path": "s0", "transform": cosem}]}]
    for inner in ("volumes/raw", "volumes/raw/s0"):
        assert_reads_as(open_volume(tmp_path / "jrc.zarr" / inner), ARRAY, (5.24, 4, 4), (10.48, 40, 80))
    refuse(tmp_path / "jrc.zarr", r"name one inside it, such as .*jrc\.zarr/volumes/raw")


def test_levels_of_n5_are_as_coarse_as_their_factors(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.attrs["pixelResolution"] = {"dimensions": [4, 4, 5], "unit": "nm"}
    for name, factors in (("s0", None), ("s1", [2, 2, 1]), ("s2", None)):
        array = group.create_array(name, shape=SHAPE, dtype="uint8")
        if factors:
            array.attrs["downsamplingFactors"] = factors
    sizes = [open_volume(tmp_path / "a.zarr" / name).voxel_size for name in ("s0", "s1", "s2")]
    assert sizes == [(5, 4, 4), (5, 8, 8), None]
    assert open_volume(tmp_path / "a.zarr" / "s1").origin == (0, 2, 2)


COSEM = {"axes": ["z", "y", "x"], "scale": [30, 8, 4], "translate": [60, 16, 8], "units": ["nm"] * 3}
TURNED = {"axes": ["x", "y", "z"], "scale": [4, 8, 30], "translate": [8, 16, 60], "units": ["nm"] * 3}


@pytest.mark.parametrize(
    ("attributes", "turned", "origin"),
    [
        ({"transform": TURNED}, True, (60, 16, 8)),
        ({"transform": COSEM | {"units": "nanometer"}}, False, (60, 16, 8)),
        ({"transform": {**COSEM, "translation": [1, 2, 3], "translate": None}}, False, (0, 0, 0)),
        (
            {"transform": COSEM, "pixelResolution": {"dimensions": [9, 9, 9], "unit": "nm"}},
            False,
            (60, 16, 8),
        ),
        (
            {"voxel_size": [30, 8, 4], "offset": [60, 16, 8], "axis_names": ["z", "y", "x"]},
            False,
            (60, 16, 8),
        ),
        ({"voxel_size": [4, 8, 30], "offset": [8, 16, 60], "axis_names": ["x", "y", "z"]}, True, (60, 16, 8)),
        ({"resolution": [30e-9, 8e-9, 4e-9], "units": ["m"] * 3}, False, (0, 0, 0)),
        ({"resolution": [0.03, 0.008, 0.004], "units": "um"}, False, (0, 0, 0)),
        ({"resolution": {"x": 4, "y": 8, "z": 30}, "unit": "nm"}, False, (0, 0, 0)),
        ({"pixelResolution": [4, 8, 30], "pixelResolutionUnit": "nm"}, False, (0, 0, 0)),
    ],
)
def test_relatives_of_the_conventions(tmp_path, attributes, turned, origin):
    data = ARRAY.T.copy() if turned else ARRAY
    zarr.create_array(str(tmp_path / "a.zarr"), data=data, zarr_format=2).attrs.update(attributes)
    assert_reads_as(open_volume(tmp_path / "a.zarr"), ARRAY, (30, 8, 4), origin)


def test_numbers_follow_the_names_of_dimensions_in_zarr_3(tmp_path):
    names = {"dimension_names": ("x", "y", "z")}
    array = zarr.create_array(str(tmp_path / "a.zarr"), data=ARRAY.T.copy(), **names)
    array.attrs.update({"voxel_size": [4, 8, 30], "offset": [8, 16, 60]})
    assert_reads_as(open_volume(tmp_path / "a.zarr"), ARRAY, (30, 8, 4), (60, 16, 8))


@pytest.mark.parametrize("size", [[0.03, 0.008, 0.004], [30e-9, 8e-9, 4e-9]])
def test_numbers_that_cannot_be_nanometres_are_not_taken_as_such(tmp_path, caplog, size):
    array = zarr.create_array(str(tmp_path / "a.zarr"), data=ARRAY, zarr_format=2)
    array.attrs["resolution"] = size
    assert open_grey(tmp_path / "a.zarr").voxel_size is None
    assert "under 'resolution', which vemseg cannot interpret" in caplog.text
    array.attrs["units"] = "nm"
    refuse(tmp_path / "a.zarr", "too small for electron microscopy .*--voxel-size 8,8,8")
    assert open_grey(tmp_path / "a.zarr", "30,8,4").voxel_size == (30, 8, 4)
    with pytest.raises(InputError, match=r"--voxel-size gives voxels of 500 x 500 x 500 nm .* too large"):
        open_grey(tmp_path / "a.zarr", "500")


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        (
            {"multiscales": [ome(unit=None)]},
            r"states 30, 8, 8 \(z, y, x\) without a unit: --voxel-size 30,8,8",
        ),
        ({"multiscales": [ome(unit="pixel")]}, "in 'pixel': --voxel-size 30,8,8"),
        ({"multiscales": [ome(scale=(0, 8, 8))]}, "0, 8, 8 .* which is not a size: --voxel-size z,y,x"),
        ({"multiscales": [{"datasets": [{"path": "0"}]}], "my_voxels": [9, 8, 7]}, "9, 8, 7 .*'my_voxels'"),
        (
            {"multiscales": [{"datasets": [{"path": "0"}]}], "transform": {"scale": [9, 8, 7]}},
            "'transform.scale'",
        ),
    ],
)
def test_numbers_that_are_no_voxel_size_are_quoted(tmp_path, caplog, attributes, said):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("0", shape=SHAPE, dtype="uint8")[:] = ARRAY
    group.attrs.update(attributes)
    volume = open_grey(tmp_path / "a.zarr")
    assert (volume.voxel_size, volume.origin) == (None, None)
    assert re.search(said, caplog.text)
    assert open_grey(tmp_path / "a.zarr", "30,8,8").voxel_size == (30, 8, 8)


def test_voxels_of_a_micrometre_are_no_electron_microscopy(tmp_path):
    path = image(tmp_path / "cell.zarr", ARRAY, ome(scale=(1, 1, 1), unit="micrometer"))
    refuse(path, "1000 x 1000 x 1000 nm .*--voxel-size 8,8,8")
    assert open_grey(path, "30,8,8").voxel_size == (30, 8, 8)


def test_what_holds_images_says_what_to_name(tmp_path):
    root = zarr.open_group(str(tmp_path / "plate.zarr"), mode="w", zarr_format=2)
    root.attrs["plate"] = {"wells": [{"path": "A/1"}]}
    root.create_group("A/1").attrs["well"] = {"images": [{"path": "0"}]}
    image(tmp_path / "plate.zarr" / "A" / "1" / "0", ARRAY, ome())
    refuse(tmp_path / "plate.zarr", r"plate of 1 wells: .*plate\.zarr/A/1/0$")
    refuse(tmp_path / "plate.zarr/A/1", r"is a well: .*A/1/0$")
    path = image(tmp_path / "cell.zarr", ARRAY, ome())
    zarr.open_group(str(path / "labels"), mode="w", zarr_format=2).attrs["labels"] = ["mito"]
    refuse(path / "labels", "is a group of labels: .*labels/mito$")
    root = zarr.open_group(str(tmp_path / "bf.zarr"), mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    root.create_group("OME").attrs["series"] = ["em"]
    image(tmp_path / "bf.zarr" / "em", ARRAY, ome())
    assert_reads_as(open_volume(tmp_path / "bf.zarr"), ARRAY, (30, 8, 8), (0, 0, 0))


def test_a_second_image_is_spoken_of(tmp_path, caplog):
    path = image(tmp_path / "two.zarr", ARRAY, ome())
    group = zarr.open_group(str(path), mode="r+", zarr_format=2)
    group.attrs["multiscales"] = [*group.attrs["multiscales"], ome(path="0")]
    root = zarr.open_group(str(tmp_path / "bf.zarr"), mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    root.create_group("OME").attrs["series"] = ["0", "1", "label"]
    image(tmp_path / "bf.zarr" / "0", ARRAY, ome())
    for name, said in (("two.zarr", "it holds 2 images"), ("bf.zarr", "it holds 3 images")):
        assert_reads_as(open_grey(tmp_path / name), ARRAY, (30, 8, 8), (0, 0, 0))
        assert f"{said}; the first one is read" in caplog.text
    assert open_volume(tmp_path / "bf.zarr" / "0").remarks == ()


def test_metadata_of_two_formats_side_by_side(tmp_path):
    path = image(tmp_path / "cell.zarr", ARRAY, ome())
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    assert_reads_as(open_volume(path), ARRAY, (30, 8, 8), (0, 0, 0))


@pytest.mark.parametrize("name", ["cell.ome.zarr.zip", "cell.ozx", "cell.zip"])
@pytest.mark.parametrize("top", ["", "cell.zarr"])
def test_zipped_zarr(tmp_path, name, top):
    group = zarr.open_group(str(tmp_path / "plain" / top), mode="w", zarr_format=3)
    group.create_array("0", shape=SHAPE, chunks=(2, 10, 14), shards=(6, 20, 28), dtype="u1")[:] = ARRAY
    group.attrs["ome"] = {"version": "0.5", "multiscales": [ome()]}
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for file in sorted((tmp_path / "plain").rglob("*")):
            archive.write(file, file.relative_to(tmp_path / "plain"))
    assert_reads_as(open_volume(tmp_path / name), ARRAY, (30, 8, 8), (0, 0, 0))
    assert_reads_as(open_volume(tmp_path / name / "0"), ARRAY, (30, 8, 8), (0, 0, 0))
    assert open_volume(tmp_path / name).name == "cell"


def zipped(source, archive, way=""):
    with zipfile.ZipFile(archive, "w") as opened:
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            opened.write(file, f"{way}{file.relative_to(source.parent)}")
    return archive


def test_zipped_zarr_in_folders_of_folders(tmp_path):
    source = image(tmp_path / "cell.zarr", ARRAY, ome())
    path = zipped(source, tmp_path / "deep.zarr.zip", way="data/em/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/data/._em", b"x")
        archive.writestr(".DS_Store", b"x")
    for inner in ("", "0", "data/em/cell.zarr", "em/cell.zarr/0", "cell.zarr"):
        assert_reads_as(open_volume(path / inner), ARRAY, (30, 8, 8), (0, 0, 0))
    (tmp_path / "cut.ozx").write_bytes(path.read_bytes()[:-600])
    refuse(tmp_path / "cut.ozx", "cut off, since its end is missing: copy it again")


# --- HDF5, MRC, NIfTI ------------------------------------------------------------------------------------


def test_hdf5_by_its_layouts(tmp_path):
    path = tmp_path / "cell.h5"
    with h5py.File(path, "w") as file:
        raw = file.create_dataset("volumes/raw", data=ARRAY, chunks=(2, 10, 14), compression="gzip")
        raw.attrs.update({"resolution": [40.0, 4, 4], "offset": [80.0, 0, 8]})
    for place in (path, f"{path}:/volumes/raw", path / "volumes" / "raw", path / "volumes"):
        assert_reads_as(open_volume(place), ARRAY, (40, 4, 4), (80, 0, 8))
    volume = open_volume(path)
    assert (volume.name, volume.path) == ("cell-volumes-raw", path)
    assert open_volume(describe(volume)["path"]).shape == SHAPE
    with h5py.File(path, "a") as file:
        file["volumes/labels"] = ARRAY
    refuse(path, "holds 2 volumes .*name one, such as .*cell.h5:/volumes/raw")
    refuse(f"{path}:/none", "has no /none; it holds /volumes/raw, /volumes/labels")
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:2000])
    refuse(tmp_path / "cut.h5", "not a readable HDF5 file")


def test_hdf5_of_ilastik(tmp_path):
    path = tmp_path / "cell.h5"
    tags = {"axes": [{"key": key, "typeFlags": 2, "resolution": 0, "description": ""} for key in "tzyxc"]}
    with h5py.File(path, "w") as file:
        data = file.create_dataset("exported_data", data=np.stack([ARRAY, 255 - ARRAY], -1)[None])
        data.attrs["axistags"] = json.dumps(tags)
        data.attrs["element_size_um"] = [0.03, 0.008, 0.008]
    refuse(path, "2 channels")
    assert_reads_as(open_volume(path, choice=Choice(channel="1")), 255 - ARRAY, (30, 8, 8), (0, 0, 0))
    with h5py.File(path, "a") as file:  # as ilastik writes it from 1.4.1 on
        data = file["exported_data"]
        del data.attrs["element_size_um"]
        sizes = {"t": 0, "z": 0.03, "y": 0.008, "x": 0.004, "c": 0}
        sized = [tag | {"resolution": sizes[tag["key"]]} for tag in tags["axes"]]
        data.attrs["axistags"] = json.dumps({"axes": sized})
        data.attrs["axis_units"] = json.dumps({"t": "", "z": "um", "y": "um", "x": "um", "c": ""})
    assert_reads_as(open_volume(path, choice=Choice(channel="1")), 255 - ARRAY, (30, 8, 4), (0, 0, 0))
    with h5py.File(path, "a") as file:
        file["exported_data"].attrs["axis_units"] = "{damaged"
    assert_reads_as(open_volume(path, choice=Choice(channel="1")), 255 - ARRAY)


def test_hdf5_of_bigdataviewer(tmp_path):
    with h5py.File(tmp_path / "cell.h5", "w") as file:
        file["t00000/s00/0/cells"] = ARRAY.astype("int16")
        file["t00000/s00/1/cells"] = ARRAY[::1, ::2, ::2].astype("int16")
        file["s00/resolutions"] = [[1.0, 1, 1], [2, 2, 1]]
        file["s00/subdivisions"] = [[16, 16, 16], [16, 16, 16]]
    (tmp_path / "cell.xml").write_text(
        "<SpimData><SequenceDescription><ViewSetups><ViewSetup><voxelSize><unit>um</unit>"
        "<size>0.008 0.008 0.03</size></voxelSize></ViewSetup></ViewSetups></SequenceDescription></SpimData>"
    )
    assert_reads_as(open_volume(tmp_path / "cell.h5"), ARRAY.astype("int16"), (30, 8, 8), (0, 0, 0))
    coarse = open_volume(tmp_path / "cell.h5", choice=Choice(level="1"))
    assert (coarse.shape, coarse.voxel_size, coarse.origin) == ((6, 10, 14), (30, 16, 16), (0, 4, 4))


def test_hdf5_links_lead_to_the_file_that_holds_the_voxels(tmp_path):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["volumes/em"] = ARRAY
        file["volumes/em"].attrs.update({"resolution": [30.0, 8, 4], "offset": [60.0, 16, 8]})
        file["same"] = h5py.SoftLink("/volumes/em")
        file["points"] = np.zeros((50, 3))
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["data"] = h5py.ExternalLink("raw.h5", "/volumes/em")
        file["gone"] = h5py.ExternalLink("gone.h5", "/volumes/em")
    for place in ("raw.h5", "raw.h5:/same", "links.h5", "links.h5:/data"):
        volume = open_volume(f"{tmp_path}/{place}")
        assert_reads_as(volume, ARRAY, (30, 8, 4), (60, 16, 8))
        assert volume.path == tmp_path / "raw.h5"
    refuse(f"{tmp_path}/links.h5:/gone", "is a link into gone.h5, which cannot be opened")


def test_hdf5_whose_parts_lie_in_files_that_are_missing(tmp_path):
    layout = h5py.VirtualLayout(SHAPE, dtype="u1")
    for z, plane in enumerate(ARRAY):
        with h5py.File(tmp_path / f"plane{z}.h5", "w") as file:
            file["plane"] = plane
        layout[z] = h5py.VirtualSource(f"plane{z}.h5", "plane", shape=SHAPE[1:])
    with h5py.File(tmp_path / "cell.h5", "w") as file:
        file.create_virtual_dataset("em", layout, fillvalue=0)
    assert_reads_as(open_volume(tmp_path / "cell.h5"), ARRAY)
    (tmp_path / "plane3.h5").unlink()
    refuse(tmp_path / "cell.h5", "from 6 files, of which 1 are not there, such as plane3.h5")


def test_hdf5_that_is_no_volume(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["text"], file["record"] = "hello", np.zeros(SHAPE, dtype=[("r", "u1"), ("g", "u1")])
        file.create_dataset("empty", shape=(0, 20, 28), dtype="u1")
    for name, said in (
        ("text", "not an array of numbers"),
        ("record", "not an array of numbers"),
        ("empty", "no voxels"),
    ):
        refuse(f"{tmp_path}/a.h5:/{name}", said)
    refuse(tmp_path / "a.h5", "holds no volume")


def test_mrc(tmp_path):
    for name, array in (("cell.mrc", ARRAY.astype("int16") - 100), ("cell.rec", ARRAY.astype("float32"))):
        with mrcfile.new(tmp_path / name) as file:
            file.set_data(array)
            file.voxel_size = (80, 80, 300)
            file.header.origin = (800, 0, 3000)
        assert_reads_as(open_volume(tmp_path / name), array, (30, 8, 8), (300, 0, 80))
    with mrcfile.new(tmp_path / "bare.mrc") as file:
        file.set_data(ARRAY.astype("int8"))
    assert_reads_as(open_volume(tmp_path / "bare.mrc"), ARRAY.astype("int8"))
    whole = (tmp_path / "cell.mrc").read_bytes()
    (tmp_path / "cut.mrc").write_bytes(whole[:-500])
    refuse(tmp_path / "cut.mrc", "not a readable MRC")
    for order, mark in (("little", b"\x44\x44"), ("big", b"\x11\x11")):
        lying = whole[:92] + (2**31 - 1).to_bytes(4, order) + whole[96:212] + mark + whole[214:]
        (tmp_path / "lying.mrc").write_bytes(lying)
        refuse(tmp_path / "lying.mrc", "extended header has 2147483647 bytes, more than the file")


def write_mrc(path, array, size=(80, 80, 300), **header):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(array)
        file.voxel_size = size
        for name, value in header.items():
            file.header[name] = value
    return path


@pytest.mark.parametrize(("mode", "read"), [("int8", "int8"), ("uint16", "uint16"), ("float16", "float32")])
def test_modes_of_mrc_and_a_grid_larger_than_the_volume(tmp_path, mode, read):
    array = (ARRAY // 2).astype(mode)
    path = write_mrc(tmp_path / "cell.mrc", array)
    assert_reads_as(open_volume(path), array.astype(read), (30, 8, 8), (0, 0, 0))
    write_mrc(path, array, (40, 80, 300), mx=56, my=10, mz=18, cella=(56 * 40, 10 * 80, 18 * 300))
    assert_reads_as(open_volume(path), array.astype(read), (30, 8, 4), (0, 0, 0))


def test_bytes_of_mrc_are_signed_or_not_as_imod_says(tmp_path):
    signed, unsigned = ARRAY.astype("int8"), ARRAY
    stamp = 1146047817
    for flags, least, most, expected in (
        ((stamp, 0), 0, 0, unsigned), ((stamp, 1), 0, 249, signed),
        ((0, 0), 0, 249, unsigned), ((0, 0), -128, 127, signed), ((0, 0), 0, 120, signed),
    ):  # fmt: skip
        path = write_mrc(tmp_path / "cell.mrc", signed, dmin=least, dmax=most)
        data = bytearray(path.read_bytes())
        data[152:160] = np.array(flags, "<i4").tobytes()
        path.write_bytes(data)
        assert_reads_as(open_volume(path), expected, (30, 8, 8), (0, 0, 0))


def test_places_of_mrc(tmp_path):
    array, path = ARRAY.astype("int16"), tmp_path / "cell.mrc"
    write_mrc(path, array, nxstart=1, nystart=2, nzstart=3)
    assert_reads_as(open_volume(path), array, (30, 8, 8), (90, 16, 8))
    for flags, origin in ((0, (-300, 0, -80)), (4, (300, 0, 80))):
        write_mrc(path, array, origin=(800, 0, 3000), nxstart=1)
        data = bytearray(path.read_bytes())
        data[152:160] = np.array([1146047817, flags], "<i4").tobytes()
        path.write_bytes(data)
        assert_reads_as(open_volume(path), array, (30, 8, 8), origin)


def test_mrc_of_turned_axes_planes_and_several_volumes(tmp_path):
    array, path = ARRAY.astype("int16"), tmp_path / "cell.mrc"
    write_mrc(
        path, array.T.copy(), mapc=3, mapr=2, maps=1, cella=(28 * 40, 20 * 80, 6 * 300), mx=28, my=20, mz=6
    )
    assert_reads_as(open_volume(path), array, (30, 8, 4), (0, 0, 0))
    write_mrc(path, array, mapc=0, mapr=0, maps=0)
    assert_reads_as(open_volume(path), array, (30, 8, 8), (0, 0, 0))
    write_mrc(path, array[0])
    assert open_volume(path).shape == (1, 20, 28)
    write_mrc(path, np.stack([array, -array]))
    refuse(path, "2 time points .* --time 0")
    assert_reads_as(open_volume(path, choice=Choice(time="1")), -array, (30, 8, 8), (0, 0, 0))
    write_mrc(path, array, (np.inf, 1, 1))
    assert open_volume(path).voxel_size is None and "--voxel-size" in open_volume(path).hint


def write_nifti(path, affine, unit="micron"):
    picture = nibabel.Nifti1Image(ARRAY.T, affine)
    picture.header.set_xyzt_units(unit)
    nibabel.save(picture, path)
    return path


def test_nifti_whose_place_is_not_known(tmp_path):
    backwards = np.diag([-0.004, 0.008, 0.03, 1])
    backwards[0, 3] = 0.1
    volume = open_volume(write_nifti(tmp_path / "a.nii", backwards))
    np.testing.assert_allclose(volume.voxel_size, (30, 8, 4), rtol=1e-6)
    assert volume.origin is None
    bare = nibabel.Nifti1Image(ARRAY.T, None)
    bare.header.set_zooms((0.004, 0.008, 0.03))
    bare.header.set_xyzt_units("micron")
    nibabel.save(bare, tmp_path / "b.nii")
    assert open_volume(tmp_path / "b.nii").origin is None


def test_nifti_at_an_angle_or_in_two_files(tmp_path):
    cos, sin = np.cos(0.2), np.sin(0.2)
    turn = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    path = write_nifti(tmp_path / "a.nii", turn @ np.diag([0.004, 0.008, 0.03, 1]))
    refuse(path, "rotated in space by an angle: .*resample_to_output")
    nibabel.save(nibabel.Nifti1Pair(ARRAY.T, np.eye(4)), tmp_path / "pair.img")
    refuse(tmp_path / "pair.hdr", "header beside an .img file: save both as one .nii")


def test_nifti(tmp_path):
    affine = np.diag([0.008, 0.008, 0.03, 1.0])
    affine[:3, 3] = (0.08, 0, 0.3)
    picture = nibabel.Nifti1Image(ARRAY.T, affine)
    picture.header.set_xyzt_units("micron")
    for name in ("cell.nii", "cell.nii.gz"):
        nibabel.save(picture, tmp_path / name)
        assert_reads_as(open_volume(tmp_path / name), ARRAY, (30, 8, 8), (300, 0, 80))
        assert open_volume(tmp_path / name).name == "cell"
    nibabel.save(nibabel.Nifti1Image(ARRAY.T, np.eye(4)), tmp_path / "bare.nii")
    assert_reads_as(open_volume(tmp_path / "bare.nii"), ARRAY)
    turned = nibabel.Nifti1Image(
        ARRAY.T, np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    )
    nibabel.save(turned, tmp_path / "turned.nii")
    refuse(tmp_path / "turned.nii", "turned in space")
    (tmp_path / "cut.nii").write_bytes((tmp_path / "cell.nii").read_bytes()[:200])
    refuse(tmp_path / "cut.nii", "unknown format|not a NIfTI file|not a readable")


# --- slices ----------------------------------------------------------------------------------------------


def test_slices_are_read_in_natural_order(tmp_path):
    many = np.random.default_rng(1).integers(0, 250, (12, 20, 28), dtype=np.uint8)
    for ending in ("tif", "png"):
        folder = tmp_path / ending
        folder.mkdir()
        for z, plane in enumerate(many):
            if ending == "tif":
                tifffile.imwrite(folder / f"cell_z{z}.tif", plane)
            else:
                (folder / f"cell_z{z}.png").write_bytes(imagecodecs.png_encode(plane))
        (folder / "notes.txt").write_text("not a slice")
        for place in (folder, f"{folder}/*.{ending}"):
            volume = open_volume(place, voxel_size=(30, 8, 8))
            assert_reads_as(volume, many, (30, 8, 8))
            assert volume.name == ending
    refuse(f"{tmp_path}/tif/*.jpg", "names no picture")
    tifffile.imwrite(tmp_path / "tif" / "cell_z5.tif", many[0, :9])
    refuse(tmp_path / "tif", r"cell_z5\.tif is \(9, 28\) pixels, but .*cell_z0\.tif is \(20, 28\)")
    (tmp_path / "png" / "a.jpg").write_bytes(b"")
    refuse(tmp_path / "png", "several kinds")
    rgb = np.stack([many[0], many[1], many[2]], -1)
    (tmp_path / "rgb").mkdir()
    tifffile.imwrite(tmp_path / "rgb" / "a.tif", rgb, photometric="rgb")
    refuse(tmp_path / "rgb", "3 colour samples, which differ")


def slices_of(folder, **options):
    folder.mkdir()
    for z, plane in enumerate(ARRAY):
        tifffile.imwrite(folder / f"cell{z}.tif", plane, **options)
    return folder


def test_results_may_lie_beside_slices_that_a_pattern_names(programs, made, tmp_path):
    """In their own folder, too, where they would belong to the input if the folder were named."""
    for z, plane in enumerate(tifffile.imread(made / "cell.tif")):
        tifffile.imwrite(tmp_path / f"s{z:02}.tif", plane)
    args = ["segment", "s*.tif", "-m", made / "run", "--clusters", made / "three.safetensors"]
    for _ in range(2):
        ended = programs.run(tmp_path, *args, "-o", "seg.ome.zarr")
        assert (ended.code, ended.out) == (0, "seg.ome.zarr\n"), ended.err
    refused(
        programs.run(tmp_path, *args, "-o", "seg.tif"), 2, r"seg\.tif would be one of the slices s\*\.tif"
    )
    shutil.copy(tmp_path / "s03.tif", tmp_path / "s99.tif")
    refused(programs.run(tmp_path, *args, "-o", "seg.ome.zarr"), 6, r"s\*\.tif had another content")
    refused(programs.run(tmp_path, "segment", "t*.tif", *args[2:], "-o", "b.tif"), 3, "t\\*")


def test_slices_are_shown_as_their_files_say(tmp_path, caplog):
    table = np.tile(np.arange(255, -1, -1, dtype=np.uint16) * 257, (3, 1))
    for name, options in (
        ("white", {"photometric": "miniswhite"}), ("table", {"photometric": "palette", "colormap": table})
    ):  # fmt: skip
        folder = slices_of(tmp_path / name, **options)
        np.testing.assert_array_equal(open_volume(folder).read(Box.whole(SHAPE)), 255 - ARRAY)
        np.testing.assert_array_equal(open_volume(folder).stored().read(Box.whole(SHAPE)), ARRAY)
    open_grey(tmp_path / "white")
    assert "0 is white; its values are inverted" in caplog.text


def test_slices_quote_what_their_tags_say_of_the_pixel(tmp_path):
    tags = {"resolution": (1e7 / 4, 1e7 / 8), "resolutionunit": "CENTIMETER"}
    assert "--voxel-size ?,8,4" in open_volume(slices_of(tmp_path / "cm", **tags)).hint
    tags = {"imagej": True, "resolution": (1 / 4, 1 / 8), "metadata": {"unit": "nm"}}
    assert "--voxel-size ?,8,4" in open_volume(slices_of(tmp_path / "nm", **tags)).hint


def test_slices_that_may_be_missing_are_spoken_of(tmp_path):
    assert open_volume(slices_of(tmp_path / "whole")).remarks == ()
    (tmp_path / "whole" / "cell3.tif").unlink()
    (remark,) = open_volume(tmp_path / "whole").remarks
    assert "cell2.tif is followed by cell4.tif" in remark
    tens = slices_of(tmp_path / "tens")
    for z in range(6):
        (tens / f"cell{z}.tif").rename(tens / f"z{z * 10:03}.tif")
    assert open_volume(tens).remarks == ()
    for z in range(3):
        (tens / f"z{(z + 3) * 10:03}.tif").rename(tens / f"z{z * 10:03}_ch1.tif")
    assert "several series" in open_volume(tens).remarks[0]


def test_folders_that_hold_stacks_or_damaged_slices(tmp_path):
    (tmp_path / "stacks").mkdir()
    tifffile.imwrite(tmp_path / "stacks" / "a.tif", ARRAY)
    refuse(tmp_path / "stacks", "a.tif is a stack of 6 planes and no slice")
    folder = slices_of(tmp_path / "cut")
    (folder / "cell3.tif").write_bytes((folder / "cell3.tif").read_bytes()[:300])
    refuse(folder, "cell3.tif is truncated")
    (folder / "cell3.tif").write_bytes(b"")
    refuse(folder, "cell3.tif is not a readable picture")
    (tmp_path / "alpha").mkdir()
    for z, plane in enumerate(ARRAY):
        both = np.stack([plane, np.full_like(plane, 255)], -1)
        (tmp_path / "alpha" / f"{z}.png").write_bytes(imagecodecs.png_encode(both))
    assert_reads_as(open_volume(tmp_path / "alpha"), ARRAY)


# --- N5, precomputed and the network ---------------------------------------------------------------------


def write_n5(root, inner="em/s0", array=ARRAY, **told):
    """Write an N5 container with one array, as tensorstore does."""
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{root}/{inner}"}}
    metadata = {"dimensions": array.shape[::-1], "blockSize": [14, 10, 4], "dataType": "uint8"}
    compression = {"compression": {"type": "gzip"}}
    store = tensorstore.open(spec | {"metadata": metadata | compression}, create=True).result()
    store[...] = array.T
    told = told or {"pixelResolution": {"dimensions": [8, 8, 30], "unit": "nm"}}
    attributes = root / inner / "attributes.json"
    attributes.write_text(json.dumps(json.loads(attributes.read_text()) | told))
    (root / "attributes.json").write_text('{"n5": "2.5.0"}')
    return root


def write_precomputed(root, kind="image", encoding="raw", **more):
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(root)},
        "multiscale_metadata": {"type": kind, "data_type": "uint8", "num_channels": 1},
        "scale_metadata": {
            "size": SHAPE[::-1], "resolution": [8, 8, 30], "voxel_offset": [10, 0, 2],
            "encoding": encoding, "chunk_size": [14, 10, 4], **more,
        },
    }  # fmt: skip
    store = tensorstore.open(spec, create=True).result()
    store[...] = ARRAY.T[..., None]


def test_n5(tmp_path):
    write_n5(tmp_path / "cell.n5")
    (tmp_path / "cell.n5").rename(tmp_path / "renamed.zarr")
    write_n5(tmp_path / "cell.n5")
    for place in ("cell.n5", "cell.n5/em", "cell.n5/em/s0", "renamed.zarr/em/s0"):
        assert_reads_as(open_volume(tmp_path / place), ARRAY, (30, 8, 8), (0, 0, 0))
    assert open_volume(tmp_path / "cell.n5/em/s0").name == "cell-em-s0"
    refuse(tmp_path / "cell.n5" / "none", "does not exist|not a volume of a known format")
    block = next(path for path in (tmp_path / "cell.n5" / "em" / "s0" / "0").rglob("*") if path.is_file())
    block.write_bytes(block.read_bytes()[:20])
    refuse(tmp_path / "cell.n5", "is damaged, box")


@pytest.mark.parametrize(
    "told",
    [
        {"transform": TURNED},
        {"transform": COSEM, "pixelResolution": {"dimensions": [9, 9, 9], "unit": "nm"}},
        {"resolution": [4, 8, 30], "units": ["nm"] * 3, "offset": [8, 16, 60]},
    ],
)
def test_lists_in_n5_run_from_x(tmp_path, told):
    write_n5(tmp_path / "cell.n5", **told)
    assert_reads_as(open_volume(tmp_path / "cell.n5"), ARRAY, (30, 8, 4), (60, 16, 8))


def test_levels_of_n5_groups_know_the_unit_of_the_group(tmp_path):
    write_n5(tmp_path / "cell.n5", "em/s0", note=1)
    write_n5(tmp_path / "cell.n5", "em/s1", ARRAY[:, ::2, ::2].copy(), downsamplingFactors=[2, 2, 1])
    (tmp_path / "cell.n5" / "em" / "attributes.json").write_text(
        '{"pixelResolution": [4, 8, 30], "units": "nm"}'
    )
    assert_reads_as(open_volume(tmp_path / "cell.n5" / "em"), ARRAY, (30, 8, 4), (0, 0, 0))
    coarse = open_volume(tmp_path / "cell.n5" / "em", choice=Choice(level="1"))
    assert (coarse.voxel_size, coarse.origin) == ((30, 16, 8), (0, 4, 2))


def test_n5_and_hdf5_of_bigdataviewer_heed_the_xml_of_their_set_up(tmp_path):
    sizes = [(4, 8, 30), (5, 5, 50)]
    setups = "".join(
        f"<ViewSetup><id>{i}</id><voxelSize><unit>µm</unit><size>{x / 1e3} {y / 1e3} {z / 1e3}</size>"
        "</voxelSize></ViewSetup>"
        for i, (x, y, z) in enumerate(sizes)
    )
    xml = f"<SpimData><SequenceDescription>{setups}</SequenceDescription></SpimData>"
    xml = f"<?xml version='1.0' encoding='UTF-8'?>{xml}"
    (tmp_path / "cell.xml").write_text(xml, encoding="utf-8")
    with h5py.File(tmp_path / "cell.h5", "w") as file:
        for i in range(2):
            write_n5(tmp_path / "cell.n5", f"setup{i}/timepoint0/s0", resolution=[0.004, 0.008, 0.03])
            file[f"t00000/s0{i}/0/cells"] = ARRAY
    for i, (x, y, z) in enumerate(sizes):
        for place in (f"cell.n5/setup{i}/timepoint0/s0", f"cell.h5:/t00000/s0{i}/0/cells"):
            assert_reads_as(open_volume(f"{tmp_path}/{place}"), ARRAY, (z, y, x), (0, 0, 0))
    refuse(tmp_path / "cell.xml", "XML of BigDataViewer: give the .h5 or .n5 beside it")


def test_precomputed(tmp_path):
    write_precomputed(tmp_path / "cell")
    assert_reads_as(open_volume(tmp_path / "cell"), ARRAY, (30, 8, 8), (60, 0, 80))
    write_precomputed(tmp_path / "labels", "segmentation")
    with pytest.raises(InputError, match="it is a segmentation"):
        check_grey(open_volume(tmp_path / "labels"))


@pytest.mark.parametrize("offset", [(0, 0, 0), (100, 40, 6)])
def test_a_coarse_scale_of_precomputed_lies_where_the_finest_does(tmp_path, offset):
    """The centre of a coarse voxel is that of the fine ones that it was made of."""
    coarse = np.arange(1, 193, dtype=np.uint8).reshape(4, 6, 8)
    for factor, array in ((1, coarse.repeat(2, axis=1).repeat(2, axis=2)), (2, coarse)):
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": str(tmp_path / "cell")},
            "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
            "scale_metadata": {
                "size": array.shape[::-1], "resolution": [4 * factor, 4 * factor, 50], "encoding": "raw",
                "voxel_offset": [offset[0] // factor, offset[1] // factor, offset[2]],
            },
        }  # fmt: skip
        tensorstore.open(spec, create=True).result()[...] = array.T[..., None]
    fine, level = open_volume(tmp_path / "cell"), open_volume(tmp_path / "cell", choice=Choice(level="1"))
    assert fine.origin == (offset[2] * 50, offset[1] * 4, offset[0] * 4)
    found = fine.read(fine.box)
    for at in np.ndindex(coarse.shape):
        middle = np.argwhere(found == coarse[at]).mean(axis=0) * fine.voxel_size + fine.origin
        np.testing.assert_allclose(at * np.array(level.voxel_size) + level.origin, middle)


SHARDED = {
    "@type": "neuroglancer_uint64_sharded_v1", "preshift_bits": 1, "minishard_bits": 1, "shard_bits": 1,
    "hash": "identity", "minishard_index_encoding": "gzip", "data_encoding": "gzip",
}  # fmt: skip


@pytest.mark.parametrize(("encoding", "sharding"), [("raw", SHARDED), ("png", None), ("jpeg", None)])
def test_encodings_of_precomputed(tmp_path, encoding, sharding):
    write_precomputed(tmp_path / "cell", encoding=encoding, **({"sharding": sharding} if sharding else {}))
    for address in (
        tmp_path / "cell",
        f"precomputed://{tmp_path}/cell",
        f"precomputed://file://{tmp_path}/cell",
    ):
        volume = open_volume(address)
        assert (volume.shape, volume.voxel_size, volume.origin) == (SHAPE, (30, 8, 8), (60, 0, 80))
        if encoding != "jpeg":
            assert_reads_as(volume, ARRAY, (30, 8, 8), (60, 0, 80))


@pytest.mark.parametrize("scales", ["3", "[]", "[3]", '[{"key": "1"}]', '[{"key": "1", "resolution": 8}]'])
def test_nonsense_about_the_scales_of_precomputed(tmp_path, scales):
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "info").write_text(f'{{"type": "image", "scales": {scales}}}')
    refuse(tmp_path / "cell", "info is damaged|holds no scale")


@pytest.mark.parametrize(("suffix", "program"), [(".gz", "gunzip -r"), (".br", "brotli -d")])
def test_chunks_that_cloud_volume_compressed_are_not_taken_for_missing_ones(tmp_path, suffix, program):
    write_precomputed(tmp_path / "cell")
    for chunk in (tmp_path / "cell" / "8_8_30").iterdir():
        chunk.rename(f"{chunk}{suffix}")
    refuse(tmp_path / "cell", f"compressed as files .*unpack them with {program}")


def test_volumes_on_the_network(tmp_path, served):
    address, asked = served
    write_n5(tmp_path / "cell.n5")
    write_precomputed(tmp_path / "pre")
    image(tmp_path / "old.zarr", ARRAY, ome(shift=(60, 8, 16)))
    group = zarr.open_group(str(tmp_path / "new.zarr"), mode="w", zarr_format=3)
    group.create_array("0", shape=SHAPE, chunks=(2, 10, 14), shards=(6, 20, 28), dtype="u1")[:] = ARRAY
    group.attrs["ome"] = {"version": "0.5", "multiscales": [ome(shift=(60, 8, 16))]}
    assert_reads_as(open_volume(f"{address}/cell.n5/em"), ARRAY, (30, 8, 8), (0, 0, 0))
    assert_reads_as(open_volume(f"{address}/pre"), ARRAY, (30, 8, 8), (60, 0, 80))
    for name in ("old.zarr", "new.zarr", "new.zarr/0"):
        volume = open_volume(f"{address}/{name}", choice=Choice())
        assert_reads_as(volume, ARRAY, (30, 8, 8), (60, 8, 16))
        assert volume.path is None and identity(volume) == {"address": volume.address}
    assert open_volume(f"n5://{address}/cell.n5/em").name == "cell-em-s0"
    refuse(f"{address}/none", "not a volume of a known format")
    before = len(asked)
    refuse(f"{address}/new.zarr", "--offline", MissingError, offline=True)
    assert len(asked) == before


def test_a_bucket_of_another_host_than_amazon(tmp_path, served, monkeypatch):
    address, asked = served
    image(tmp_path / "bucket" / "em" / "cell.zarr", ARRAY, ome(shift=(60, 8, 16)))
    write_n5(tmp_path / "bucket" / "cell.n5")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    assert_reads_as(open_volume("s3://bucket/em/cell.zarr"), ARRAY, (30, 8, 8), (60, 8, 16))
    assert_reads_as(open_volume("s3://bucket/cell.n5/em"), ARRAY, (30, 8, 8), (0, 0, 0))
    assert all(path.startswith("/bucket/") for path in asked)
    before = len(asked)
    refuse("s3://bucket/em/cell.zarr", "--offline", MissingError, offline=True)
    assert len(asked) == before


def test_addresses_that_lead_nowhere():
    refuse("http://127.0.0.1:9/cell.zarr", "cannot be reached")
    refuse("ftp://example.org/cell.zarr", "use https://", UsageError)


# --- what is no volume -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"ZISRAWFILE", "Zeiss CZI file: convert it to OME-Zarr with bioformats2raw"),
        (b"\x00\x00\x00\x03\x00", "Gatan DM3"),
        (b"NRRD0004", "an NRRD file: save it as a TIFF stack with Fiji"),
        (b"\x93NUMPY", "a numpy array"),
        (b"\x89PNG\r\n", "one PNG picture: give the folder of all slices"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"PK\x03\x04", "a ZIP file"),
        (b"version https://git-lfs", "git lfs pull"),
        (b"", "is empty"),
        (b"abc", "unknown format"),
    ],
)
def test_files_of_other_programs_are_named(tmp_path, head, said):
    (tmp_path / "cell.dat").write_bytes(head)
    refuse(tmp_path / "cell.dat", said)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("vemseg.foreign.importlib.import_module", missing)
    (tmp_path / "cell.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    refuse(tmp_path / "cell.h5", r"pip install '\.\[formats\]'")


# --- damage and nonsense in every format -----------------------------------------------------------------


def _png(folder):
    folder.mkdir()
    for z, plane in enumerate(ARRAY):
        (folder / f"{z}.png").write_bytes(imagecodecs.png_encode(plane))
    return folder, folder / "3.png"


def _jpeg(folder):
    folder.mkdir()
    for z, plane in enumerate(ARRAY):
        (folder / f"{z}.jpg").write_bytes(imagecodecs.jpeg_encode(plane))
    return folder, folder / "3.jpg"


def _hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=ARRAY, chunks=(2, 10, 14), compression="gzip")
    return path, path


def _tiff(path):
    tifffile.imwrite(path, ARRAY, photometric="minisblack", compression="zlib")
    return path, path


def _zarr_3(path):
    zarr.create_array(str(path), data=ARRAY, chunks=(2, 10, 14), shards=(6, 20, 28))
    return path, path / "c" / "0" / "0" / "0"


def _precomputed(path):
    write_precomputed(path)
    return path, path / "8_8_30" / "10-24_0-10_2-6"


def _zip(path):
    return (zipped(image(path.with_name("cell.zarr"), ARRAY, ome()), path),) * 2


def _nifti(path):
    return (write_nifti(path, np.eye(4)),) * 2


def _mrc(path):
    return (write_mrc(path, ARRAY.astype("int16")),) * 2


def _n5(path):
    return write_n5(path), path / "em" / "s0" / "0" / "0" / "0"


WHOLE = {
    "slices": _png, "photos": _jpeg, "cell.h5": _hdf5, "cell.tif": _tiff, "new.zarr": _zarr_3,
    "pre": _precomputed, "cell.zarr.zip": _zip, "cell.nii": _nifti, "cell.nii.gz": _nifti,
    "cell.mrc": _mrc, "cell.n5": _n5,
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("left", [0.0, 0.1, 0.6])
def test_truncated_files_end_in_one_line(tmp_path, name, left):
    path, part = WHOLE[name](tmp_path / name)
    assert open_volume(path).shape == SHAPE
    whole = part.read_bytes()
    part.write_bytes(whole[: int(left * len(whole))])
    refuse(path, re.escape(str(tmp_path)))


@pytest.mark.parametrize(
    "size", ["0,8,8", "inf,8,8", "nan,8,8", "-8,8,8", "8,8", "8,8,8,8", "8 px", "?,8,8", ""]
)
def test_voxel_sizes_that_are_none_are_refused(tmp_path, size):
    path, _ = _tiff(tmp_path / "cell.tif")
    with pytest.raises(UsageError, match="voxel size"):
        open_grey(path, size)


@pytest.mark.parametrize("edge", [0.0, -8.0, float("inf"), float("nan")])
def test_voxel_sizes_that_files_state_and_that_are_none(tmp_path, edge):
    with h5py.File(tmp_path / "cell.h5", "w") as file:
        file.create_dataset("raw", data=ARRAY).attrs["element_size_um"] = [edge, 0.008, 0.008]
    if np.isfinite(edge):  # JSON has no other numbers
        write_n5(tmp_path / "cell.n5", pixelResolution={"dimensions": [8, 8, edge], "unit": "nm"})
    image(tmp_path / "cell.zarr", ARRAY, ome(scale=(edge, 8, 8)))
    tifffile.imwrite(
        tmp_path / "cell.ome.tif", ARRAY, ome=True, photometric="minisblack",
        metadata={"axes": "ZYX", "PhysicalSizeX": 0.008, "PhysicalSizeY": 0.008, "PhysicalSizeZ": edge},
    )  # fmt: skip
    write_mrc(tmp_path / "cell.mrc", ARRAY.astype("int16"), (80, 80, edge))
    for path in sorted(tmp_path.glob("cell.*")):
        size = open_volume(path).voxel_size
        assert size is None or (path.name == "cell.ome.tif" and edge == -8)  # OME: the magnitude holds


@pytest.mark.parametrize("name", ["a.zarr", "a.h5", "a.tif"])
def test_an_axis_of_no_length_holds_no_voxels(tmp_path, name):
    path = tmp_path / name
    if name == "a.zarr":
        zarr.create_array(str(path), shape=(6, 0, 28), chunks=(6, 1, 28), dtype="u1")
    elif name == "a.h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("raw", shape=(6, 0, 28), dtype="u1")
        path = f"{path}:/raw"
    else:
        path, _ = _tiff(path)
        with tifffile.TiffFile(path, mode="r+") as file:
            file.pages[0].tags["ImageLength"].overwrite(0)
    refuse(path, "no voxels|no size|0 x 28")


@pytest.mark.parametrize(
    ("axes", "said"),
    [("zyx", "names 3 axes, but .* has 4"), ("zzyx", "--axes"), ("zyxq", "--axes"), ("czyx", "--channel 0")],
)
def test_axes_that_do_not_fit_are_refused(tmp_path, axes, said):
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.stack([ARRAY, ARRAY]))
    with pytest.raises((InputError, UsageError), match=said) as caught:
        open_grey(tmp_path / "a.zarr", choice=Choice(axes=axes))
    assert "\n" not in str(caught.value)
