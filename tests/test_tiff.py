"""TIFF as people have it: pages that differ, odd descriptions, shown values, and damage."""

import pickle
import re
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile

from vemseg.errors import InputError, UsageError
from vemseg.geometry import Box
from vemseg.volume import Choice, open_grey, open_labels, open_volume

SHAPE = (12, 48, 64)
NM = {"PhysicalSizeX": 8, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 8, "PhysicalSizeYUnit": "nm"}


def cell(shape=SHAPE, dtype="uint8"):
    """Return a bright ball in noise: no two planes are alike, no axis is like another."""
    z, y, x = np.indices(shape)
    ball = ((z - 4) / 3) ** 2 + ((y - 14) / 9) ** 2 + ((x - 18) / 9) ** 2 < 1
    noise = np.random.default_rng(3).normal(0, 6, shape)
    return np.clip(np.where(ball, 200, 130) + noise, 40, 220).round().astype(dtype)


def write_pages(path, pages, **options):
    """Write pages one by one; each is an array, or an array and options of its own."""
    with tifffile.TiffWriter(path, byteorder=options.pop("byteorder", None)) as file:
        for page in pages:
            array, own = page if isinstance(page, tuple) else (page, {})
            kept = {"photometric": "minisblack", "metadata": None, "contiguous": False} | options | own
            file.write(array, **kept)


def read(path, **options):
    volume = open_volume(path, **options)
    return volume.read(volume.box)


def reads_as(path, array):
    np.testing.assert_array_equal(read(path), array)
    volume = open_volume(path)
    again = pickle.loads(pickle.dumps(volume))
    box = Box((3, 10, 20), (9, 40, 50))
    np.testing.assert_array_equal(again.read(box), array[box.slices])


def refuses(path, *words):
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    for word in words:
        assert word in message, message


def patched(path, page, name, value):
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[page].aspage().tags[name].overwrite(value)


# --- pages that are not like the first -------------------------------------------------------------------

ODD_PAGES = {
    "compressed": ({}, {"compression": "zlib"}),
    "uncompressed": ({"compression": "zlib"}, {"compression": None}),
    "another compression": ({"compression": "lzw"}, {"compression": "zstd"}),
    "a predictor": ({"compression": "lzw"}, {"compression": "lzw", "predictor": True}),
    "no predictor": ({"compression": "zlib", "predictor": True}, {"compression": "zlib", "predictor": False}),
    "tiles": ({}, {"tile": (16, 32)}),
    "other tiles": ({"tile": (16, 16)}, {"tile": (32, 16), "compression": "zlib"}),
    "other strips": ({"rowsperstrip": 5}, {"rowsperstrip": 7}),
    "other compressed strips": ({"rowsperstrip": 48, "compression": "zlib"}, {"rowsperstrip": 9}),
}


@pytest.mark.parametrize("odd", ODD_PAGES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_page_that_is_stored_otherwise_is_read_as_it_is(tmp_path, odd, dtype):
    usual, other = ODD_PAGES[odd]
    array = cell(dtype=dtype)
    write_pages(
        tmp_path / "v.tif", [(plane, other if i == 6 else {}) for i, plane in enumerate(array)], **usual
    )
    reads_as(tmp_path / "v.tif", array)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (lambda plane: plane[:-1], "47 x 64 pixels of uint8"),
        (lambda plane: plane[:, :-1], "48 x 63 pixels"),
        (lambda plane: plane.astype("uint16"), "pixels of uint16"),
        (lambda plane: plane.astype("int8"), "pixels of int8"),
        (lambda plane: (plane, {"photometric": "miniswhite"}), "white is 0"),
        (lambda plane: (np.stack([plane] * 3, -1), {"photometric": "rgb"}), "3 samples each"),
    ],
)
def test_a_page_of_another_size_type_or_meaning_is_named(tmp_path, odd, words):
    pages = [odd(plane) if i == 6 else plane for i, plane in enumerate(cell())]
    write_pages(tmp_path / "v.tif", pages)
    refuses(tmp_path / "v.tif", "2 images of different shapes or types: page 7 has", words)


def test_half_of_the_pages_are_smaller(tmp_path):
    write_pages(tmp_path / "v.tif", [p if i < 8 else p[:20, :30] for i, p in enumerate(cell())])
    refuses(tmp_path / "v.tif", "page 9 has 20 x 30 pixels")


@pytest.mark.parametrize("place", [0, 12])
@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("colour", [True, False])
def test_a_thumbnail_is_left_out_and_said(tmp_path, place, marked, colour, caplog):
    small = cell()[5, ::4, ::4]
    options = {"subfiletype": 1} if marked else {}
    thumbnail = (np.stack([small] * 3, -1), options | {"photometric": "rgb"}) if colour else (small, options)
    pages = list(cell())
    pages.insert(place, thumbnail)
    write_pages(tmp_path / "v.tif", pages)
    reads_as(tmp_path / "v.tif", cell())
    open_grey(tmp_path / "v.tif", "8,8,8")
    assert "left out" in caplog.text


# --- planes that are missing or left over ----------------------------------------------------------------


def imagej(**said):
    return "ImageJ=1.54f\n" + "".join(f"{key}={value}\n" for key, value in said.items())


@pytest.mark.parametrize(("claimed", "held"), [(12, 6), (5, 12), (16, 12)])
def test_imagej_speaks_of_more_or_fewer_planes(tmp_path, claimed, held):
    said = imagej(images=claimed, slices=claimed)
    pages = [(p, {"description": said} if i == 0 else {}) for i, p in enumerate(cell()[:held])]
    write_pages(tmp_path / "v.tif", pages)
    refuses(tmp_path / "v.tif", f"{min(claimed, held)} of {max(claimed, held)} planes")


def test_a_stack_in_one_page_is_read_and_its_end_missed(tmp_path):
    array = cell()
    path = tmp_path / "v.tif"
    tifffile.imwrite(
        path, array[0], description=imagej(images=12, slices=12), metadata=None, photometric="minisblack"
    )
    whole = path.read_bytes() + array[1:].tobytes()
    path.write_bytes(whole)
    reads_as(path, array)
    path.write_bytes(whole[: -3 * array[0].size - 1])
    refuses(path, "truncated", "8 of 12 planes")


def ome(tiff_data, size_z=12, **attributes):
    attributes = {
        "DimensionOrder": "XYZCT",
        "Type": "uint8",
        "SizeX": 64,
        "SizeY": 48,
        "SizeZ": size_z,
        "SizeC": 1,
        "SizeT": 1,
    } | attributes
    pixels = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" {pixels}>{tiff_data}</Pixels></Image></OME>'
    )


def write_ome(path, xml, array=None):
    array = cell() if array is None else array
    pages = [(p, {"description": xml.encode()} if i == 0 else {}) for i, p in enumerate(array)]
    write_pages(path, pages)


EVERY = '<TiffData IFD="0" PlaneCount="12"/>'


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (
            ome("".join(f'<TiffData FirstZ="{i}" IFD="{i}" PlaneCount="1"/>' for i in range(12) if i != 7)),
            "11 of 12 planes: plane 7 is missing",
        ),
        (ome('<TiffData IFD="0" PlaneCount="5"/>', 5), "5 of 12 planes"),
        (ome("", 5), "5 of 12 planes"),
        (ome('<TiffData IFD="0" PlaneCount="20"/>', 20), "12 of 20 planes"),
        (ome('<TiffData IFD="0" PlaneCount="99999999999999"/>', 99999999999999), "of 99999999999999 planes"),
        (ome('<TiffData IFD="3" PlaneCount="12"/>'), "9 of 12 planes"),
        (ome(EVERY, SizeY=47), "planes of 47 x 64 pixels"),
        (ome(EVERY, SizeC="x"), "SizeC='x'"),
        (ome(EVERY, SizeT=-1), "SizeT='-1'"),
        (ome(EVERY, DimensionOrder="ZYXCT"), "ZYXCT"),
        (ome(EVERY * 99), "again and again"),
        (ome(EVERY)[:-20] + "</OME>", "not XML"),
        (ome(EVERY).replace("<OME", '<!DOCTYPE a [<!ENTITY b "c">]><OME', 1), "not XML"),
        ('<?xml version="1.0"?><OME></OME>', "names no image"),
    ],
)
def test_ome_descriptions_that_do_not_fit(tmp_path, xml, words):
    write_ome(tmp_path / "v.ome.tif", xml)
    refuses(tmp_path / "v.ome.tif", words)


def test_ome_planes_in_an_order_of_their_own(tmp_path):
    back = "".join(f'<TiffData FirstZ="{i}" IFD="{11 - i}"/>' for i in range(12))
    write_ome(tmp_path / "v.ome.tif", ome(back))
    reads_as(tmp_path / "v.ome.tif", cell()[::-1])


def test_the_first_of_two_ome_images_is_read_and_said(tmp_path):
    with tifffile.TiffWriter(tmp_path / "v.ome.tif") as file:
        for array in (cell(), cell((4, 20, 30))):
            file.write(array, photometric="minisblack", metadata={"axes": "ZYX"})
    reads_as(tmp_path / "v.ome.tif", cell())
    assert "2 OME images" in open_volume(tmp_path / "v.ome.tif").remarks[0]


def test_ome_metadata_in_another_file_is_said(tmp_path):
    xml = '<?xml version="1.0"?><OME UUID="urn:uuid:1"><BinaryOnly MetadataFile="c.ome" UUID="u"/></OME>'
    write_ome(tmp_path / "v.ome.tif", xml)
    reads_as(tmp_path / "v.ome.tif", cell())
    assert "another file" in open_volume(tmp_path / "v.ome.tif").remarks[0]


def test_an_ome_image_in_several_files_is_refused(tmp_path):
    parts = "".join(
        f'<TiffData FirstZ="{i}" IFD="0"><UUID FileName="c{i}.tif">urn:uuid:{i}</UUID></TiffData>'
        for i in range(12)
    )
    write_ome(tmp_path / "c0.tif", ome(parts), cell()[:1])
    refuses(tmp_path / "c0.tif", "several files")


def test_a_shaped_description_that_does_not_fit(tmp_path):
    for shape, words in (("[5, 48, 64]", "5 of 12 planes"), ("[12, 48, 63]", "describes the shape")):
        said = f'{{"shape": {shape}}}'
        write_pages(
            tmp_path / "v.tif", [(p, {"description": said} if i == 0 else {}) for i, p in enumerate(cell())]
        )
        refuses(tmp_path / "v.tif", words)


# --- axes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["XYZ", "YXZ", "ZXY", "XZY", "YZX", "ZYX"])
def test_axes_in_another_order_are_turned(tmp_path, axes):
    array = cell()
    stored = np.ascontiguousarray(array.transpose(["ZYX".index(axis) for axis in axes]))
    for options in ({}, {"compression": "zlib"}, {"tile": (16, 16)}):
        tifffile.imwrite(
            tmp_path / "v.tif", stored, photometric="minisblack", metadata={"axes": axes}, **options
        )
        reads_as(tmp_path / "v.tif", array)
    assert open_volume(tmp_path / "v.tif", voxel_size=(25, 8, 4)).voxel_size == (25, 8, 4)


def test_axes_that_are_no_volume_are_refused(tmp_path):
    for axes in ("ZYC", "AYX", "ZPX"):
        tifffile.imwrite(tmp_path / "v.tif", cell(), photometric="minisblack", metadata={"axes": axes})
        refuses(tmp_path / "v.tif", axes)


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {}])
@pytest.mark.parametrize(("axis", "called"), [("T", "time points"), ("C", "channels")])
def test_a_stack_of_times_or_many_channels_is_a_stack(tmp_path, options, axis, called):
    tifffile.imwrite(
        tmp_path / "v.tif", cell(), photometric="minisblack", metadata={"axes": f"{axis}YX"}, **options
    )
    reads_as(tmp_path / "v.tif", cell())
    assert open_volume(tmp_path / "v.tif").remarks == (
        f"its 12 planes are called {called}; they are read as a stack along z",
    )


@pytest.mark.parametrize("axes", ["CYX", "ZCYX", "TZYX"])
def test_channels_and_times_beside_z_are_refused(tmp_path, axes):
    array = cell()[:3] if axes == "CYX" else cell().reshape(4, 3, 48, 64)
    tifffile.imwrite(tmp_path / "v.tif", array, imagej=True, metadata={"axes": axes})
    refuses(tmp_path / "v.tif", "4 time points" if "T" in axes else "3 channels", "choose one with --")


def test_a_channel_and_a_time_are_chosen(tmp_path):
    path, array = tmp_path / "v.tif", cell((30, 20, 24)).reshape(2, 5, 3, 20, 24)
    for options in ({"imagej": True}, {"ome": True, "compression": "zlib"}):
        tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": "TZCYX"}, **options)
        volume = open_volume(path, choice=Choice(channel="2", time="1"))
        np.testing.assert_array_equal(volume.read(volume.box), array[1, :, 2])
        again = pickle.loads(pickle.dumps(volume))
        np.testing.assert_array_equal(again.read(again.box), array[1, :, 2])
        for choice, words in (
            (Choice(channel="2"), "2 time points (0, 1): choose one with --time 0"),
            (Choice(time="0"), "3 channels (0, 1, 2): choose one with --channel 0"),
        ):
            with pytest.raises(InputError, match=re.escape(words)):
                open_volume(path, choice=choice)
        for choice in (Choice(channel="3", time="0"), Choice(channel="0", time="x"), Choice(level="1")):
            with pytest.raises(UsageError):
                open_volume(path, choice=choice)
    write_pages(path, cell())
    with pytest.raises(UsageError, match="leave --channel out"):
        open_volume(path, choice=Choice(channel="0"))


@pytest.mark.parametrize(("tag", "name"), [(34412, "Zeiss LSM"), (33629, "MetaMorph STK")])
def test_formats_that_count_planes_in_tags_of_their_own(tmp_path, tag, name):
    write_pages(tmp_path / "v.tif", [(p, {"extratags": [(tag, 4, 1, 1, True)]}) for p in cell()])
    refuses(tmp_path / "v.tif", name)


# --- stored and shown values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "white"), [("uint8", 255), ("uint16", 65535), ("int16", -1), ("float32", 0), ("bool", True)]
)
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_where_0_is_white_grey_values_are_inverted_and_labels_are_not(
    tmp_path, dtype, white, options, caplog
):
    array = cell() > 150 if dtype == "bool" else cell(dtype=dtype)
    stored = white ^ array if dtype == "bool" else np.dtype(dtype).type(white) - array
    tifffile.imwrite(tmp_path / "v.tif", stored, photometric="miniswhite", **options)
    reads_as(tmp_path / "v.tif", array)
    assert (
        open_grey(tmp_path / "v.tif", "8,8,8").read(Box.whole(SHAPE)).dtype
        == open_volume(tmp_path / "v.tif").dtype
    )
    assert "0 is white; its values are inverted" in caplog.text
    whole = open_volume(tmp_path / "v.tif", crop="2:9,:,:").stored()
    np.testing.assert_array_equal(whole.read(whole.box), stored[2:9])
    again = pickle.loads(pickle.dumps(whole))
    np.testing.assert_array_equal(again.read(again.box), stored[2:9])
    if np.dtype(dtype).kind in "iub":
        np.testing.assert_array_equal(open_labels(tmp_path / "v.tif").read(Box.whole(SHAPE)), stored)


def test_where_the_meaning_is_missing_0_is_black(tmp_path):
    write_pages(tmp_path / "v.tif", cell())
    data = (tmp_path / "v.tif").read_bytes()
    tag, other = struct.pack("<HHI", 262, 3, 1), struct.pack("<HHI", 261, 3, 1)
    assert data.count(tag) == 12
    (tmp_path / "v.tif").write_bytes(data.replace(tag, other))
    reads_as(tmp_path / "v.tif", cell())
    assert open_volume(tmp_path / "v.tif").remarks == ()


def grey_table(values):
    return np.tile(np.asarray(values).astype(np.uint16), (3, 1))


def test_values_are_shown_through_a_table_of_greys(tmp_path):
    table = grey_table(np.arange(255, -1, -1) * 257)
    tifffile.imwrite(tmp_path / "v.tif", 255 - cell(), photometric="palette", colormap=table)
    reads_as(tmp_path / "v.tif", cell())
    assert "table of greys" in open_volume(tmp_path / "v.tif").remarks[0]
    np.testing.assert_array_equal(open_labels(tmp_path / "v.tif").read(Box.whole(SHAPE)), 255 - cell())
    deep = cell(dtype="uint16") * np.uint16(300)
    table = grey_table(np.arange(65536)[::-1])
    tifffile.imwrite(tmp_path / "v.tif", 65535 - deep, photometric="palette", colormap=table)
    reads_as(tmp_path / "v.tif", deep)


def test_a_table_of_greys_that_changes_nothing_is_not_spoken_of(tmp_path):
    tifffile.imwrite(
        tmp_path / "v.tif", cell(), photometric="palette", colormap=grey_table(np.arange(256) * 257)
    )
    assert open_volume(tmp_path / "v.tif").remarks == ()


def test_a_table_of_colours_leaves_the_stored_values(tmp_path):
    table = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "v.tif", cell(), photometric="palette", colormap=table)
    reads_as(tmp_path / "v.tif", cell())
    assert "not one of greys" in open_volume(tmp_path / "v.tif").remarks[0]
    assert open_labels(tmp_path / "v.tif").remarks == ()


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "rowsperstrip": 9}, {"tile": (16, 32)}])
def test_colours_that_are_equal_are_grey(tmp_path, planar, options):
    array = np.stack([cell()] * 3, -1 if planar == "contig" else 1)
    tifffile.imwrite(tmp_path / "v.tif", array, photometric="rgb", planarconfig=planar, **options)
    reads_as(tmp_path / "v.tif", cell())
    assert "3 colour samples are equal" in open_volume(tmp_path / "v.tif").remarks[0]
    with pytest.raises(InputError, match="in colour"):
        open_labels(tmp_path / "v.tif")
    array[(5, 7, 9, 1) if planar == "contig" else (5, 1, 7, 9)] += 1
    tifffile.imwrite(tmp_path / "v.tif", array, photometric="rgb", planarconfig=planar, **options)
    refuses(tmp_path / "v.tif", "page 6,", "3 colour samples, which differ")


def test_transparency_is_left_out(tmp_path):
    array = np.stack([cell(), np.full_like(cell(), 255)], -1)
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "v.tif", array, **options)
    reads_as(tmp_path / "v.tif", cell())
    assert open_volume(tmp_path / "v.tif").remarks == ("its transparency is left out",)


@pytest.mark.parametrize("options", [{"tile": (32, 32)}, {}, {"photometric": "rgb"}])
def test_jpegs_are_read_as_tifffile_reads_them(tmp_path, options):
    array = np.stack([cell()] * 3, -1) if options else cell()
    array = array if options.get("photometric") else cell()
    tifffile.imwrite(
        tmp_path / "v.tif", array, **{"photometric": "minisblack", "compression": "jpeg"} | options
    )
    expected = tifffile.imread(tmp_path / "v.tif")
    reads_as(tmp_path / "v.tif", expected[..., 0] if options.get("photometric") else expected)


# --- voxel sizes -----------------------------------------------------------------------------------------

PASTE = "y 8 nm, x 8 nm: --voxel-size ?,8,8"


@pytest.mark.parametrize(
    ("said", "per_unit", "size"),
    [
        ({"spacing": -25, "unit": "nm"}, (1 / 8, 1 / 8), (25, 8, 8)),
        ({"spacing": 20, "unit": "nm", "yunit": "micron"}, (1 / 8, 1 / 0.008), (20, 8, 8)),
        ({"spacing": 0.02, "unit": "nm", "zunit": "micron"}, (1 / 8, 1 / 8), (20, 8, 8)),
        ({"spacing": 0.02, "unit": "micron", "yunit": "nm", "zunit": "um"}, (125, 1 / 8), (20, 8, 8)),
    ],
)
def test_imagej_units_of_each_axis(tmp_path, said, per_unit, size):
    description = imagej(images=12, slices=12, **said)
    tifffile.imwrite(
        tmp_path / "v.tif",
        cell(),
        description=description,
        metadata=None,
        photometric="minisblack",
        resolution=per_unit,
        resolutionunit=1,
    )
    assert open_volume(tmp_path / "v.tif").voxel_size == pytest.approx(size)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (
            {"resolution": (1e7 / 8, 1e7 / 8), "resolutionunit": "CENTIMETER"},
            PASTE,
        ),
        (
            {"imagej": True, "resolution": (125, 125), "metadata": {"axes": "ZYX", "unit": "um"}},
            PASTE,
        ),
        (
            {"imagej": True, "resolution": (0.125, 0.125), "metadata": {"axes": "ZYX", "spacing": 30}},
            "30,8,8 (z,y,x) without a unit: --voxel-size 30,8,8 if that is nm",
        ),
        ({"ome": True, "metadata": {"axes": "ZYX"} | NM}, PASTE),
        (
            {
                "imagej": True,
                "resolution": (72, 72),
                "metadata": {"axes": "ZYX", "spacing": 1, "unit": "inch"},
            },
            "2.54e+07 nm, which is not a voxel of electron microscopy",
        ),
    ],
)
def test_what_is_known_of_the_voxel_size_is_told(tmp_path, options, hint, caplog):
    tifffile.imwrite(tmp_path / "v.tif", cell(), photometric="minisblack", **options)
    assert open_grey(tmp_path / "v.tif").voxel_size is None
    assert "voxel size unknown" in caplog.text and f"the file says {hint}" in caplog.text
    assert open_volume(tmp_path / "v.tif", crop="1:,:,:").hint == f"the file says {hint}"


FEI = "[Scan]\r\nPixelWidth=4e-09\r\nPixelHeight=8e-09\r\n"
ZEISS = "\r\n0\r\n0\r\n0\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 4.000 nm\r\n"


@pytest.mark.parametrize(("tag", "text", "hint"), [(34682, FEI, "?,8,4"), (34118, ZEISS, "?,4,4")])
def test_pixels_that_the_microscope_measured_are_quoted(tmp_path, tag, text, hint):
    tags = {"resolution": (72, 72), "resolutionunit": "INCH", "extratags": [(tag, 2, None, text, True)]}
    tifffile.imwrite(tmp_path / "v.tif", cell(), photometric="minisblack", metadata=None, **tags)
    volume = open_volume(tmp_path / "v.tif")
    assert volume.voxel_size is None and f"--voxel-size {hint}" in volume.hint


PLACED = [
    {"imagej": True, "resolution": (1 / 4, 1 / 8), "metadata": {
        "axes": "ZYX", "spacing": 30, "unit": "nm", "xorigin": -2.0, "yorigin": -2.0, "zorigin": -2.0}},
    {"ome": True, "metadata": {
        "axes": "ZYX", "PhysicalSizeX": 0.004, "PhysicalSizeY": 0.008, "PhysicalSizeZ": 0.03,
        "Plane": {"PositionX": [0.008] * 12, "PositionY": [0.016] * 12,
                  "PositionZ": [0.06 + 0.03 * z for z in range(12)]}
        | {f"Position{axis}Unit": ["µm"] * 12 for axis in "XYZ"}}},
]  # fmt: skip


@pytest.mark.parametrize("options", PLACED)
def test_places_of_imagej_and_ome(tmp_path, options):
    tifffile.imwrite(tmp_path / "v.tif", cell(), photometric="minisblack", **options)
    volume = open_volume(tmp_path / "v.tif")
    assert (volume.voxel_size, volume.origin) == (pytest.approx((30, 8, 4)), pytest.approx((60, 16, 8)))
    assert open_volume(tmp_path / "v.tif", crop="2:,3:,5:").origin == pytest.approx((120, 40, 28))


def test_a_position_without_a_unit_of_length_is_no_place(tmp_path):
    sizes = {"PhysicalSizeX": 0.004, "PhysicalSizeY": 0.008, "PhysicalSizeZ": 0.03}
    plane = {f"Position{axis}": [5.0] * 12 for axis in "XYZ"}
    told = {"axes": "ZYX", "Plane": plane, **sizes}
    tifffile.imwrite(tmp_path / "v.tif", cell(), photometric="minisblack", ome=True, metadata=told)
    assert open_volume(tmp_path / "v.tif").origin is None


# --- damage ----------------------------------------------------------------------------------------------


def page_links(path):
    """Return for each page where the place of the next one is stored."""
    with tifffile.TiffFile(path) as file:
        return [page.offset + 2 + 12 * len(page.aspage().tags) for page in file.pages]


@pytest.mark.parametrize("back_to", [0, 3, 11])
def test_pages_in_a_circle_are_found_at_once(tmp_path, back_to):
    path = tmp_path / "v.tif"
    write_pages(path, cell())
    with tifffile.TiffFile(path) as file:
        offset = file.pages[back_to].offset
    data = bytearray(path.read_bytes())
    data[page_links(path)[-1] :][:4] = b""
    at = page_links(path)[-1]
    data[at : at + 4] = struct.pack("<I", offset)
    path.write_bytes(data)
    refuses(path, "damaged", f"page 12 leads back to page {back_to + 1}")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ImageWidth", 2**31, "too few for"),
        ("ImageLength", 2**31, "claims 44739243 strips"),
        ("StripByteCounts", 2**31, "truncated"),
        ("StripByteCounts", 5, "too few for the 3072"),
        ("StripOffsets", 2**31, "truncated"),
        ("BitsPerSample", 64, "too few for"),
        ("SamplesPerPixel", 3, "too few for"),
        ("ImageWidth", 0, "no size"),
        ("Compression", 4711, "4711|does not decode"),
        ("RowsPerStrip", 7, "1 strips where 7 belong"),
    ],
)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tags_that_lie(tmp_path, name, value, words, compression):
    path = tmp_path / "v.tif"
    write_pages(path, cell(), compression=compression)
    for page in range(12):
        patched(path, page, name, value)
    with pytest.raises(InputError, match=words if compression is None else "."):
        read(path)


@pytest.mark.parametrize("page", range(0, 12, 11))
def test_lengths_that_a_program_left_out(tmp_path, page):
    path = tmp_path / "v.tif"
    write_pages(path, cell())
    patched(path, page, "StripByteCounts", 0)
    reads_as(path, cell())
    patched(path, page, "StripOffsets", 0)
    refuses(path, f"page {page + 1} holds no data")


def test_voxels_of_an_unknown_type(tmp_path):
    write_pages(tmp_path / "v.tif", cell(dtype="float32"))
    for page in range(12):
        patched(tmp_path / "v.tif", page, "SampleFormat", 99)
    refuses(tmp_path / "v.tif", "48 x 64 pixels of type 99 of 32 bits", "cannot be read")


def test_a_strip_that_unpacks_to_more_than_its_shape_is_refused(tmp_path):
    path = tmp_path / "v.tif"
    write_pages(path, cell(), compression="zlib")
    bomb = imagecodecs.zlib_encode(bytes(2**28))
    with tifffile.TiffFile(path) as file:
        number = len(path.read_bytes())
        assert file.pages[0].compression == 8
    path.write_bytes(path.read_bytes() + bomb)
    patched(path, 4, "StripOffsets", number)
    patched(path, 4, "StripByteCounts", len(bomb))
    refuses(path, "damaged, strip 0 of page 5 does not decode")
