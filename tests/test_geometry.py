"""Texts of boxes and voxel sizes, and what the names of volumes' files say."""

from pathlib import Path

import pytest

from vemseg.errors import UsageError
from vemseg.geometry import Box, parse_box, parse_voxel_size
from vemseg.names import is_tiff_name, output_format, split_name, volume_name

SHAPE = (9, 50, 67)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (":,:,:", Box((0, 0, 0), SHAPE)),
        ("0:9,0:50,0:67", Box((0, 0, 0), SHAPE)),
        (" 1:2 , 3: , :4 ", Box((1, 3, 0), (2, 50, 4))),
        ("-9:-1,-5:,:-60", Box((0, 45, 0), (8, 50, 7))),
    ],
)
def test_boxes(text, box):
    assert parse_box(text, SHAPE) == box


@pytest.mark.parametrize("text", ["0:10,:,:", ":,0:51,:", ":,:,67:68", "-10:,:,:", ":,:-51,:", "9:12,:,:"])
def test_boxes_beyond_the_volume_are_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_box(text, SHAPE, "cell.tif")
    assert str(caught.value) == f"box '{text}' reaches beyond cell.tif of shape {SHAPE} (z, y, x)"


@pytest.mark.parametrize("text", ["3:3,:,:", "5:2,:,:", ":,-1:-1,:", ":,:,67:"])
def test_boxes_without_voxels_are_refused(text):
    with pytest.raises(UsageError, match=r"holds no voxel of a volume of shape \(9, 50, 67\)"):
        parse_box(text, SHAPE)


@pytest.mark.parametrize("text", ["", "1:2", ":,:,:,:", "1,2,3", "a:b,:,:", "::2,:,:"])
def test_texts_of_no_box(text):
    with pytest.raises(UsageError, match=r"write z0:z1,y0:y1,x0:x1"):
        parse_box(text, SHAPE)


@pytest.mark.parametrize(
    ("text", "nm"),
    [
        ("16", (16, 16, 16)),
        ("16nm", (16, 16, 16)),
        ("0.016um", (16, 16, 16)),
        ("15,15,15nm", (15, 15, 15)),
        ("15nm,15nm,15nm", (15, 15, 15)),
        (" 50 nm , 4.6nm, 4.6 nm ", (50, 4.6, 4.6)),
        ("0.05um,4.6nm,46A", (50, 4.6, 4.6)),
        ("50,4.6,4.6", (50, 4.6, 4.6)),
        ("0.05, 0.0046, 0.0046 µm", (50, 4.6, 4.6)),
        ("1.5e1,1e2Å", None),
    ],
)
def test_voxel_sizes(text, nm):
    if nm is None:
        with pytest.raises(UsageError):
            parse_voxel_size(text)
    else:
        assert parse_voxel_size(text) == pytest.approx(nm)


@pytest.mark.parametrize(
    "text", ["", "nm", "0", "-4", "4,4", "4,4,4,4", "4;4;4", "inf", "4px", "1 2 3", "50nm,4,4", "50nm,4,4nm"]
)
def test_texts_of_no_voxel_size(text):
    with pytest.raises(UsageError, match=r"is not a voxel size: write z,y,x in nm"):
        parse_voxel_size(text)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("cell.tif", ("cell", ".tif")),
        ("my.cell.OME.TIFF", ("my.cell", ".OME.TIFF")),
        ("cell.ome.zarr", ("cell", ".ome.zarr")),
        ("cell.zarr", ("cell", ".zarr")),
        ("scores.json", ("scores", ".json")),
    ],
)
def test_stems_and_suffixes(name, parts):
    assert split_name(Path("/data") / name) == parts


def test_names_of_volumes_inside_a_hierarchy():
    assert volume_name(Path("/data/jrc.zarr/recon-1/em/s2")) == "jrc-recon-1-em-s2"
    assert volume_name(Path("a.ome.zarr/labels/mito")) == "a-labels-mito"
    assert volume_name(Path("cell.btf")) == "cell"


def test_suffixes_of_tiffs():
    assert [is_tiff_name(Path(f"a{suffix}")) for suffix in (".TIF", ".btf", ".ome.tif", ".zarr")] == [
        *(True, True, True, False),
    ]
    names = ["a.tiff", "a.ome.zarr", "a.H5", "a.precomputed"]
    assert [output_format(Path(name)) for name in names] == ["tiff", "zarr", "hdf5", "precomputed"]
    with pytest.raises(UsageError, match=r"name it \.tif or \.ome\.zarr"):
        output_format(Path("a.btf"))
