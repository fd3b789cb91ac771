"""Results in every format that is written, read by the library of that format: axes, sizes, places."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorstore
import tifffile
import torch
import zarr
from ome_zarr_models import v04, v05

from vemseg.cli.writing import output
from vemseg.dense import RATINGS, Wanted
from vemseg.errors import InputError, OutputExistsError, UsageError
from vemseg.files import remove
from vemseg.objects import Refinement
from vemseg.pipeline.extras import Extras
from vemseg.pipeline.objects import objects
from vemseg.pipeline.refine import refine
from vemseg.pipeline.segment import segment
from vemseg.run import Output, Place, fingerprint, state_in, write_json
from vemseg.run.fingerprint import same
from vemseg.volume import (
    About,
    ArrayVolume,
    Choice,
    LabelForm,
    LabelInfo,
    LabelsOfImage,
    LabelStore,
    copied,
    finish_grey,
    finish_labels,
    open_labels,
    open_volume,
    parse_output,
    pyramid,
    record,
    rename_labels,
    write_volume,
)
from vemseg.volume.hdf5_writing import RECORD

SHAPE, BLOCK = (20, 70, 130), (16, 64, 64)
SIZE, ORIGIN = (30.0, 8.0, 4.0), (300.0, -80.0, 44.0)
NAMES, COLOURS = {1: "mitochondrion", 3: "Zellkern µ"}, {1: (255, 0, 10), 3: (0, 128, 255)}
LABELS = np.random.default_rng(0).integers(0, 4, (5, 14, 26)).repeat(4, 0).repeat(5, 1).repeat(5, 2)
LABELS = LABELS.astype(np.uint8)
SCORES = -np.random.default_rng(1).random((3, *SHAPE)).astype(np.float16)
FORMS = {
    "a.tif": LabelForm(),
    "a.ome.zarr": LabelForm(),
    "b.ome.zarr": LabelForm("0.4"),
    "a.h5": LabelForm(),
    "b.h5": LabelForm(inner="volumes/labels"),
    "a.precomputed": LabelForm(),
    "b": LabelForm(format="precomputed"),
}


def filled(directory, array, channels=None):
    store = LabelStore.create(directory, SHAPE, BLOCK, array.dtype, SIZE, channels)
    for box in store.box.split(store.block_shape):
        store.write(box, array[(..., *box.slices)])
    return store


def finish(out, form=LabelForm(), array=LABELS, **about):
    about = {"voxel_size": SIZE, "origin": ORIGIN, "description": {"seed": 7}, **about}
    store = filled(out.parent / f"{out.name}.store", array)
    finish_labels(store, out, LabelInfo(**{"names": NAMES, "colours": COLOURS, **about}), form)
    remove(store.directory)
    return out


def finish_scores(out, form=LabelForm()):
    store = filled(out.parent / f"{out.name}.store", SCORES, channels=3)
    about = About(SIZE, ORIGIN, channels=("dark", "mito", "bright"), span=(-4.0, 0.0))
    finish_grey(store, out, about, form)
    return out


# --- our own reader --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_labels_come_back_with_size_place_and_names(tmp_path, name):
    out = finish(tmp_path / name, FORMS[name])
    volume = open_labels(out)
    np.testing.assert_array_equal(volume.read(volume.box), LABELS)
    assert (volume.voxel_size, volume.origin) == (pytest.approx(SIZE), pytest.approx(ORIGIN))
    assert volume.labelled and volume.start == (0, 0, 0)
    known = record(volume.address)
    assert (known["names"], known["seed"]) == ({"1": "mitochondrion", "3": "Zellkern µ"}, 7)
    rename_labels(out, {1: "other"}, {1: (1, 2, 3)}, {"seed": 8})
    known = record(open_labels(out).address)
    assert (known["names"], known["colours"], known["seed"]) == ({"1": "other"}, {"1": [1, 2, 3]}, 8)
    np.testing.assert_array_equal(open_labels(out).read(volume.box), LABELS)


@pytest.mark.parametrize("name", FORMS)
def test_a_crop_of_unknown_voxel_size_keeps_its_place_in_voxels(tmp_path, name):
    out = finish(tmp_path / name, FORMS[name], voxel_size=None, origin=None, start=(3, 0, 17))
    volume = open_labels(out)
    np.testing.assert_array_equal(volume.read(volume.box), LABELS)
    assert volume.start == (3, 0, 17)
    if "precomputed" not in (FORMS[name].kind(out)):  # which cannot say that a size is unknown
        assert volume.voxel_size is None


@pytest.mark.parametrize("name", FORMS)
def test_scores_come_back_channel_by_channel(tmp_path, name):
    out = finish_scores(tmp_path / name, FORMS[name])
    for channel in range(3):
        volume = open_volume(out, choice=Choice(channel=str(channel)))
        np.testing.assert_array_equal(volume.read(volume.box), SCORES[channel].astype(np.float32))
        assert (volume.voxel_size, volume.origin) == (pytest.approx(SIZE), pytest.approx(ORIGIN))
    with pytest.raises(InputError, match="3 channels"):
        open_volume(out)


@pytest.mark.parametrize("name", ["a.h5", "a.precomputed", "b.ome.zarr"])
def test_memory_is_bounded_by_blocks(tmp_path, name, monkeypatch):
    read, largest = LabelStore.read, []
    monkeypatch.setattr(LabelStore, "read", lambda self, box: (largest.append(box.size), read(self, box))[1])
    monkeypatch.setattr(pyramid, "BLOCK_SHAPE", (16, 64, 64))
    finish(tmp_path / name, FORMS[name])
    assert max(largest) <= 2 * 16 * 64 * 64 < LABELS.size and len(largest) > 8


@pytest.mark.parametrize("name", ["a.h5", "a.precomputed", "b.ome.zarr"])
def test_grey_volumes_are_written_too(tmp_path, name):
    grey = np.random.default_rng(2).integers(0, 60000, SHAPE, dtype=np.uint16)
    form = FORMS[name]
    if form == LabelForm():
        write_volume(ArrayVolume(grey, SIZE), tmp_path / name)
        volume = open_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.read(volume.box), grey)
        assert volume.voxel_size == SIZE and not volume.labelled


def test_uint32_and_uint64_survive(tmp_path):
    objects = LABELS.astype(np.uint32) * 2**29
    for name, form in FORMS.items():
        volume = open_labels(finish(tmp_path / name, form, objects))
        np.testing.assert_array_equal(volume.read(volume.box), objects)


# --- the libraries of the formats ------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "models"), [("0.4", v04), ("0.5", v05)])
def test_ome_zarr_is_valid_and_says_scale_and_translation(tmp_path, version, models):
    labels = finish(tmp_path / "l.ome.zarr", LabelForm(version))
    scores = finish_scores(tmp_path / "s.ome.zarr", LabelForm(version))
    format_of_zarr = 2 if version == "0.4" else 3
    group = zarr.open_group(str(labels), mode="r", zarr_format=format_of_zarr)
    np.testing.assert_array_equal(group["0"][...], LABELS)
    valid = models.ImageLabel.from_zarr(group).attributes
    valid = valid if version == "0.4" else valid.ome
    image, described = valid.multiscales[0], valid.image_label
    assert [axis.name for axis in image.axes] == ["z", "y", "x"]
    assert {axis.unit for axis in image.axes} == {"nanometer"}
    first, second = (each.coordinateTransformations for each in image.datasets[:2])
    assert (list(first[0].scale), list(first[1].translation)) == (list(SIZE), list(ORIGIN))
    assert list(second[0].scale) == [30.0, 8.0, 8.0]
    assert list(second[1].translation) == [300.0, -80.0, 46.0]
    colours = {each.label_value: tuple(each.rgba) for each in described.colors}
    assert colours == {1: (255, 0, 10, 255), 3: (0, 128, 255, 255)}
    group = zarr.open_group(str(scores), mode="r", zarr_format=format_of_zarr)
    np.testing.assert_array_equal(group["0"][...], SCORES)
    assert group["0"].dtype == np.float16
    valid = models.Image.from_zarr(group).attributes
    valid = valid if version == "0.4" else valid.ome
    assert [axis.name for axis in valid.multiscales[0].axes] == ["c", "z", "y", "x"]
    names = [channel["label"] for channel in dict(group.attrs).get("ome", group.attrs)["omero"]["channels"]]
    assert names == ["dark", "mito", "bright"]


def test_zarr_2_lies_as_its_readers_expect(tmp_path):
    out = finish(tmp_path / "l.ome.zarr", LabelForm("0.4"))
    array = json.loads((out / "0" / ".zarray").read_text())
    assert (array["zarr_format"], array["dimension_separator"]) == (2, "/")
    assert array["compressor"]["id"] == "blosc" and array["chunks"] == [20, 64, 64]
    assert (out / "0" / "0" / "1" / "2").is_file() and not list(out.rglob("zarr.json"))
    attributes = json.loads((out / ".zattrs").read_text())
    assert attributes["multiscales"][0]["version"] == attributes["image-label"]["version"] == "0.4"
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{out}/0/"}}
    np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), LABELS)


def test_coarser_levels_of_labels_are_majorities_in_every_format(tmp_path):
    wanted = pyramid.downsample(LABELS, (1, 1, 2), pyramid.majority)
    for version in ("0.4", "0.5"):
        out = finish(tmp_path / f"{version}.ome.zarr", LabelForm(version))
        np.testing.assert_array_equal(zarr.open_group(str(out), mode="r")["1"][...], wanted)
    out = finish(tmp_path / "a.precomputed", origin=(300.0, -80.0, 48.0))
    store = precomputed(out, 1)
    np.testing.assert_array_equal(store[..., 0].read().result().T, wanted)


def precomputed(path, scale=0):
    kvstore = {"driver": "file", "path": f"{path}/"}
    spec = {"driver": "neuroglancer_precomputed", "kvstore": kvstore, "scale_index": scale}
    return tensorstore.open(spec).result()


def test_precomputed_is_a_segmentation_at_its_place(tmp_path, caplog):
    out = finish(tmp_path / "a.precomputed")
    store = precomputed(out)
    assert store.domain.labels == ("x", "y", "z", "channel")
    assert store.domain.origin[:3] == (11, -10, 10) and store.domain.shape == (130, 70, 20, 1)
    assert [unit.multiplier for unit in store.dimension_units[:3]] == [4, 8, 30]
    assert {unit.base_unit for unit in store.dimension_units[:3]} == {"nm"}
    np.testing.assert_array_equal(store[..., 0].read().result().T, LABELS)
    info = json.loads((out / "info").read_text())
    assert (info["type"], info["data_type"]) == ("segmentation", "uint32")
    assert [scale["resolution"] for scale in info["scales"]] == [[4, 8, 30]]  # at 11 voxels, none is coarser
    names = json.loads((out / info["segment_properties"] / "info").read_text())
    assert names["inline"]["ids"] == ["1", "3"]
    assert names["inline"]["properties"][0]["values"] == ["mitochondrion", "Zellkern µ"]
    assert not caplog.records
    finish(tmp_path / "b.precomputed", origin=(310.0, -80.0, 44.0))
    assert "begins at voxel 10.333, -10.000, 11.000" in caplog.text
    assert precomputed(tmp_path / "b.precomputed").domain.origin[2] == 10
    assert open_labels(tmp_path / "b.precomputed").origin == (310.0, -80.0, 44.0)


def test_hdf5_lies_as_ilastik_writes_it(tmp_path):
    out, scores = finish(tmp_path / "a.h5"), finish_scores(tmp_path / "s.h5")
    with h5py.File(out) as file:
        found = file["exported_data"]
        np.testing.assert_array_equal(found[...], LABELS)
        tags = json.loads(found.attrs["axistags"])["axes"]
        assert [(tag["key"], tag["typeFlags"]) for tag in tags] == [("z", 2), ("y", 2), ("x", 2)]
        assert [tag["resolution"] for tag in tags] == pytest.approx([0.03, 0.008, 0.004])
        assert json.loads(found.attrs["axis_units"]) == {"z": "um", "y": "um", "x": "um"}
        np.testing.assert_allclose(found.attrs["element_size_um"], [0.03, 0.008, 0.004])
        np.testing.assert_allclose(found.attrs["offset"], ORIGIN)
        assert found.chunks is not None and found.compression == "gzip"
    with h5py.File(scores) as file:
        tags = json.loads(file["exported_data"].attrs["axistags"])["axes"]
        assert [(tag["key"], tag["typeFlags"]) for tag in tags][:2] == [("c", 1), ("z", 2)]
        assert file["exported_data"].dtype == np.float16


def test_tiff_says_size_and_place_to_imagej_and_ome(tmp_path):
    with tifffile.TiffFile(finish(tmp_path / "a.tif")) as file:
        assert (file.series[0].axes, file.imagej_metadata["unit"]) == ("ZYX", "nm")
        assert file.imagej_metadata["spacing"] == 30
        across, down = (file.pages[0].tags[name].value for name in ("XResolution", "YResolution"))
        assert (across[1] / across[0], down[1] / down[0]) == (pytest.approx(4), pytest.approx(8))
    with tifffile.TiffFile(finish_scores(tmp_path / "s.tif")) as file:
        assert (file.series[0].axes, file.series[0].dtype) == ("ZCYX", np.float32)
        np.testing.assert_array_equal(file.asarray(), SCORES.transpose(1, 0, 2, 3).astype(np.float32))


# --- into an image ---------------------------------------------------------------------------------------


def image(path, version, collected=False):
    """Write an image of 5 axes, as bioformats2raw does, with zarr itself."""
    old = version == "0.4"
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if old else 3)
    named = {} if old else {"dimension_names": list("tczyx")}
    array = group.create_array("0", shape=(1, 1, *SHAPE), chunks=(1, 1, 20, 64, 64), dtype="uint8", **named)
    array[...] = 100
    for level, n in enumerate((65, 33), start=1):
        group.create_array(
            str(level), shape=(1, 1, 20, 35, n), chunks=(1, 1, 20, 35, 33), dtype="uint8", **named
        )
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    levels = []
    for level, (y, x) in enumerate([(1, 1), (2, 2), (2, 4)]):
        scale = {"type": "scale", "scale": [1, 1, 30.0, 8.0 * y, 4.0 * x]}
        shift = {"type": "translation", "translation": [0, 0, *ORIGIN]}
        levels.append({"path": str(level), "coordinateTransformations": [scale, shift]})
    described = {"axes": axes, "datasets": levels}
    ome = {"version": version, "multiscales": [described]}
    group.attrs.update({"multiscales": [{"version": version, **described}]} if old else {"ome": ome})
    if collected:
        with warnings.catch_warnings(action="ignore"):
            zarr.consolidate_metadata(str(path), zarr_format=2 if old else 3)
    return path


def put(path, form, overwrite=False, made=1):
    """Write labels as the verbs do."""
    state, sidecar = {"output": path.name, "made": made}, path.with_suffix(".json")
    place, record = Place(path, *form.place(path)), partial(state_in, sidecar)
    with Output(place, state=state, beside=[sidecar], record=record, overwrite=overwrite) as result:
        if result.done:
            return "done"
        finish(result.growing(path), form, LABELS * (made >= LABELS))
        write_json(result.growing(sidecar), {"state": result.state})
        result.publish()
    return "made"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("collected", [False, True])
def test_labels_go_into_an_image_of_its_own_version(tmp_path, version, collected):
    cell = image(tmp_path / "cell.ome.zarr", version, collected)
    before = fingerprint(cell)
    path, form = output(None, cell, "mito", None)
    assert (path, form.ngff) == (cell.parent / "cell_mito.ome.zarr", version)
    assert put(path, form) == "made" and put(path, form) == "done"
    with pytest.raises(OutputExistsError, match=r"cell\.ome\.zarr/labels/mito exists"):
        put(path, form, made=2)
    assert put(path, form, overwrite=True, made=2) == "made"
    assert put(*output(None, cell, "other", version)) == "made"
    group = zarr.open_group(str(cell), mode="r", zarr_format=2 if version == "0.4" else 3)
    listed = dict(group["labels"].attrs)
    assert (listed if version == "0.4" else listed["ome"])["labels"] == ["mito", "other"]
    models = v04 if version == "0.4" else v05
    models.Image.from_zarr(group)
    label = models.ImageLabel.from_zarr(group["labels/mito"]).attributes
    label = label if version == "0.4" else label.ome
    assert label.image_label.source.image == "../../"
    scales = [list(each.coordinateTransformations[0].scale) for each in label.multiscales[0].datasets]
    assert scales == [[30, 8, 4], [30, 16, 8], [30, 16, 16]]  # those of the image
    volume = open_labels(cell / "labels" / "mito")
    assert (volume.voxel_size, volume.origin) == (SIZE, ORIGIN)
    np.testing.assert_array_equal(volume.read(volume.box), LABELS * (LABELS <= 2))
    assert (collected and version == "0.5") or same(before, cell)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("cell.ome.zarr", "cell_mito.ome.json", "cell_other.ome.json")
    ]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_are_listed_by_whoever_goes_on_after_a_kill(tmp_path, version, monkeypatch):
    cell = image(tmp_path / "cell.zarr", version)
    path, form = output(None, cell, "mito", None)
    with monkeypatch.context() as patch:
        patch.setattr(LabelsOfImage, "enlist", lambda self: sys.exit("killed"))
        with pytest.raises(SystemExit):
            put(path, form)
    assert (cell / "labels" / "mito").is_dir() and not open_volume(cell).labelled
    assert put(path, form) == "done"
    assert form.image.path == cell / "labels" / "mito"
    listed = dict(zarr.open_group(str(cell / "labels"), mode="r").attrs)
    assert listed.get("ome", listed)["labels"] == ["mito"]


def test_what_labels_cannot_go_into_is_refused(tmp_path):
    cell = image(tmp_path / "cell.zarr", "0.4")
    labels = finish(tmp_path / "l.ome.zarr", LabelForm("0.4"))
    (tmp_path / "text").write_text("no image")
    zarr.open_group(str(tmp_path / "plate"), mode="w").attrs["ome"] = {"plate": {"wells": []}}
    for wrong, error, said in [
        ((None, cell, "a/b", None), UsageError, "--name a/b"),
        ((None, cell, "mito", "0.5"), UsageError, "are of NGFF 0.4, as the image is"),
        (("x.tif", cell, "mito", None), UsageError, "--into takes --name, and no -o"),
        ((None, cell, None, None), UsageError, "--into takes --name"),
        (("x.tif", None, "mito", None), UsageError, "--name belongs to --into"),
        ((None, None, None, None), UsageError, "give -o"),
        ((None, cell / "0", "mito", None), InputError, "is an array"),
        ((None, labels, "mito", None), InputError, "holds labels"),
        ((None, tmp_path / "text", "mito", None), InputError, "not a folder of an OME-Zarr"),
        ((None, tmp_path / "plate", "mito", None), InputError, "plate of 0 wells"),
        ((None, tmp_path / "none.zarr", "mito", None), InputError, "not a folder of an OME-Zarr"),
    ]:
        with pytest.raises(error, match=said) as caught:
            output(*wrong)
        assert "\n" not in str(caught.value)


def test_labels_of_another_place_or_of_no_size_do_not_go_into_an_image(tmp_path):
    form = output(None, image(tmp_path / "cell.zarr", "0.4"), "mito", None)[1]
    form.fits(open_labels(finish(tmp_path / "here.tif")))
    for name, about, said in [
        ("away.tif", {"origin": (300.0, 900.0, 44.0)}, "lies at y = 896 to 1456 nm, outside of cell.zarr"),
        ("sizeless.tif", {"voxel_size": None, "origin": None}, "has none: give it with --voxel-size"),
    ]:
        with pytest.raises(InputError, match=said):
            form.fits(open_labels(finish(tmp_path / name, **about)))


# --- names of outputs ------------------------------------------------------------------------------------


def test_names_of_outputs_say_the_format(tmp_path):
    path, form = parse_output("a.h5:/volumes/labels")
    assert (str(path), form.inner) == ("a.h5", "volumes/labels")
    path, form = parse_output("precomputed://seg")
    assert (str(path), form.kind(path)) == ("seg", "precomputed")
    path, form = parse_output("out.ome.zarr", "0.4")
    assert (str(path), form.ngff, form.grows_in_place(path)) == ("out.ome.zarr", "0.4", False)
    for text in ("s3://bucket/seg.zarr", "precomputed://gs://bucket/seg", "a.h5:/../b"):
        with pytest.raises(UsageError):
            parse_output(text)
    for name, form, said in [
        ("a.png", LabelForm(), "name it"),
        ("a.tif", LabelForm("0.4"), "--ngff belongs to OME-Zarr"),
        ("a.ome.zarr", LabelForm("0.3"), "versions 0.4 and 0.5"),
    ]:
        with pytest.raises(UsageError, match=said):
            form.check(tmp_path / name)


def test_a_file_with_other_data_is_never_replaced(tmp_path):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["raw"] = LABELS
    with pytest.raises(UsageError, match=r"holds other data \(raw"):
        LabelForm(inner="labels").check(tmp_path / "raw.h5")
    LabelForm().check(finish(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        assert RECORD in file
        file["mine"] = [1]
    with pytest.raises(UsageError, match=r"holds other data \(mine"):
        LabelForm().check(tmp_path / "a.h5")


def test_labels_are_copied_only_into_their_own_form(tmp_path):
    for name, form in FORMS.items():
        labels = open_labels(finish(tmp_path / name, form))
        for other, wanted in FORMS.items():
            alike = name == other and name in ("a.tif", "a.ome.zarr", "b.ome.zarr")
            assert copied(labels, tmp_path / f"copy.{other}", wanted) == alike


# --- from an image to results ----------------------------------------------------------------------------


def turned_image(path, grey):
    """Write an OME-Zarr of two channels, the second of which is ``grey``, its other axes being X, Y, Z."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    array = np.stack([255 - grey, grey]).transpose(0, 3, 2, 1)
    group.create_array("fine", shape=array.shape, chunks=(1, 20, 20, 8), dtype="uint8")[...] = array
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "XYZ"]
    scale = {"type": "scale", "scale": [1, 8, 8, 30]}
    shift = {"type": "translation", "translation": [0, 44, -80, 300]}
    levels = [{"path": "fine", "coordinateTransformations": [scale, shift]}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    group.attrs["omero"] = {"channels": [{"label": "SE"}, {"label": "BSE"}]}
    return path


def voxels(path, channel=None):
    volume = open_volume(path, choice=Choice(channel=channel))
    return volume.read(volume.box)


def test_from_a_channel_of_turned_axes_to_labels_scores_and_confidence(tmp_path):
    inside = np.zeros((16, 40, 56), bool)
    inside[4:11, 6:20, 28:50] = True
    grey = np.where(inside, 190, 70) + np.random.default_rng(7).normal(0, 8, inside.shape)
    grey = np.clip(grey, 0, 255).astype(np.uint8)
    cell = turned_image(tmp_path / "cell.zarr", grey)
    write_volume(ArrayVolume(grey, (30.0, 8.0, 8.0)), tmp_path / "same.tif")
    settings = ("cluster.k=3", "cluster.sample=4000")
    plain = segment(Wanted(str(tmp_path / "same.tif"), "classical", settings), tmp_path / "plain.tif")
    wanted = Wanted(str(cell), "classical", settings, choice=Choice(channel="BSE"))
    path, form = output(None, cell, "organelles", None)
    beside = {"confidence": tmp_path / "certain.precomputed", "scores": tmp_path / "scores.h5"}
    extras = Extras(form=form, **beside)
    for _ in range(2):
        assert segment(wanted, path, extras=extras) == path
        for out in (cell / "labels" / "organelles", *beside.values()):
            volume = open_volume(out, choice=Choice(channel="0" if out.suffix == ".h5" else None))
            assert (volume.voxel_size, volume.origin) == ((30, 8, 8), (300, -80, 44))
    labels = voxels(cell / "labels" / "organelles")
    np.testing.assert_array_equal(labels, voxels(plain))
    scores = np.stack([voxels(beside["scores"], str(channel)) for channel in range(3)])
    np.testing.assert_array_equal(scores.argmax(axis=0) + 1, labels)
    assert (scores.max(axis=0) == 0).all() and (np.sort(scores, axis=0)[1] < 0).all()
    margin = json.loads(path.with_name("cell_organelles.json").read_text())
    assert margin["state"]["into"] == "cell.zarr/labels/organelles"
    certain, ahead = voxels(beside["confidence"]), -np.sort(scores, axis=0)[1]
    order = np.argsort(ahead, axis=None)
    assert (np.diff(certain.ravel()[order].astype(int)) >= -1).all()  # both say how far ahead the best is
    segment(wanted, path, extras=Extras({2: "membrane"}, form=form, **beside))
    assert record(cell / "labels" / "organelles")["names"]["2"] == "membrane"
    assert sorted(p.name for p in tmp_path.glob("*.partial")) == []


def test_scores_behind_the_best_stay_behind_whatever_float16_rounds():
    scores = torch.tensor([[1.0, 1.0 - 1e-7, -1e9], [0.0, 0.0, -3.0], [2.5, 4.0, 1.25]])
    found = RATINGS["scores"].of(None, scores).numpy()
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found[2], [-1.5, 0, -2.75])
    np.testing.assert_array_equal(found.argmax(axis=-1), scores.numpy().argmax(axis=-1))
    assert found[0, 1] < 0 and found[0, 2] == np.finfo(np.float16).min and found[1, 1] == 0


def test_scores_of_regions_are_painted(tmp_path):
    write_volume(ArrayVolume(LABELS * np.uint8(60), (8.0, 8.0, 8.0)), tmp_path / "grey.tif")
    settings = ("cluster.k=3", "regions.method=slic", "regions.size=6")
    wanted = Wanted(str(tmp_path / "grey.tif"), "classical", settings)
    out = segment(wanted, tmp_path / "l.tif", extras=Extras(scores=tmp_path / "s.ome.zarr"))
    scores = np.stack([voxels(tmp_path / "s.ome.zarr", str(channel)) for channel in range(3)])
    np.testing.assert_array_equal(scores.argmax(axis=0) + 1, voxels(out))


def test_objects_and_refined_labels_use_the_same_door(tmp_path):
    cell = image(tmp_path / "cell.zarr", "0.5")
    names = {1: "dark", 2: "mid", 3: "bright"}
    labels = finish(tmp_path / "l.ome.zarr", LabelForm("0.4"), names=names, colours={})
    path, form = output(None, cell, "parts", None)
    objects(open_labels(labels), path, form=form)
    found = voxels(cell / "labels" / "parts")
    assert found.dtype == np.uint32 and found.max() > 3
    np.testing.assert_array_equal(found > 0, LABELS > 0)
    path, form = parse_output(str(tmp_path / "m.h5:/merged"))
    refined = Refinement(merges=[((1, 3), "both")])
    refine(open_labels(labels), path, refined, form=form)
    refine(open_labels(labels), path, refined, form=form)  # there already
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["merged"][...], np.array([0, 1, 2, 1])[LABELS])
    volume = open_labels(path)
    assert (volume.voxel_size, volume.origin) == (SIZE, ORIGIN)
    assert record(volume.address)["names"]["1"] == "both"
    with pytest.raises(UsageError, match="is an input"):
        parts, form = output(None, cell, "parts", None)
        refine(open_labels(cell / "labels" / "parts"), parts, refined, form=form)


# --- other programs --------------------------------------------------------------------------------------

NAPARI = os.environ.get("VEMSEG_NAPARI", sys.executable)
"""An interpreter in whose environment napari and napari-ome-zarr are, which are too large to ask for here."""

NEUROGLANCER = os.environ.get("VEMSEG_NEUROGLANCER", sys.executable)
"""An interpreter in whose environment neuroglancer, cloud-volume and tensorstore are."""

IMAGEJ = os.environ.get("VEMSEG_IMAGEJ", "/usr/share/java/ij.jar")
"""ImageJ's ij.jar, the core of Fiji; Debian's package imagej puts it there."""

READ = """
import json, sys
import numpy as np
from napari_ome_zarr import napari_get_reader

for path in sys.argv[1:]:
    for data, told, kind in napari_get_reader(path)(path):
        first = np.asarray(data[0] if isinstance(data, list) else data)
        named = told.get("properties", {})
        print("layer", json.dumps({
            "kind": kind, "scale": list(told["scale"]), "shift": list(told.get("translate", ())),
            "sum": float(first.sum(dtype=float)), "name": told.get("name"),
            "names": dict(zip(named.get("index", []), named.get("name", []))),
            "colours": {k: list(rgba) for k, rgba in told["colormap"].items()} if kind == "labels" else {},
        }))
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_napari_reads_image_labels_and_scores(tmp_path, version):
    there = subprocess.run([NAPARI, "-c", "import napari_ome_zarr"], capture_output=True, check=False)
    if there.returncode:
        pytest.skip("no napari-ome-zarr here: VEMSEG_NAPARI names the python of an environment that has it")
    cell = image(tmp_path / "cell.zarr", version)
    put(*output(None, cell, "mito", None), made=3)
    scores = finish_scores(tmp_path / "s.ome.zarr", LabelForm(version))
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    told = subprocess.run(
        [NAPARI, "-c", READ, str(cell), str(scores)], capture_output=True, text=True, check=True, env=kept
    )
    lines = [line[6:] for line in told.stdout.splitlines() if line.startswith("layer ")]
    grey, labels, behind = map(json.loads, lines)
    assert (grey["kind"], labels["kind"], behind["kind"]) == ("image", "labels", "image")
    for layer in (grey, labels, behind):
        assert layer["scale"][-3:] == list(SIZE)
        # napari-ome-zarr 0.10 gives an affine matrix instead, and leaves every translation out of it
        assert layer["shift"][-3:] in (list(ORIGIN), [])
    assert len(labels["scale"]) == 3 and labels["sum"] == LABELS.sum()
    assert labels["names"] == {"1": "mitochondrion", "3": "Zellkern µ"}
    assert labels["colours"]["1"] == pytest.approx([1, 0, 10 / 255, 1])
    assert [name.split(": ")[-1] for name in behind["name"]] == ["dark", "mito", "bright"]


READ_BY_IMAGEJ = """
import ij.ImagePlus;
import ij.measure.Calibration;

public class Read {
    public static void main(String[] paths) {
        ImagePlus image = ij.IJ.openImage(paths[0]);
        Calibration c = image.getCalibration();
        System.out.println(c.pixelDepth + " " + c.pixelHeight + " " + c.pixelWidth + " " + c.getUnit());
        System.out.println(c.getZ(0) + " " + c.getY(0) + " " + c.getX(0));
        System.out.println(image.getNSlices() + " " + image.getNChannels() + " " + image.getNFrames() + " "
            + image.getHeight() + " " + image.getWidth());
        for (int z = 1; z <= image.getStackSize(); z++)
            for (int y = 0; y < image.getHeight(); y++) {
                StringBuilder row = new StringBuilder();
                for (int x = 0; x < image.getWidth(); x++)
                    row.append(image.getStack().getProcessor(z).getf(x, y)).append(' ');
                System.out.println(row);
            }
    }
}
"""


def read_by_imagej(path):
    """Return size, unit, place, dimensions and planes of a TIFF as ImageJ reads it."""
    if not (Path(IMAGEJ).is_file() and shutil.which("javac")):
        pytest.skip("no ImageJ, or no JDK: VEMSEG_IMAGEJ names the ij.jar, Debian has imagej and a JDK")
    program = path.parent / "Read.java"
    program.write_text(READ_BY_IMAGEJ)
    java = ["java", "-Djava.awt.headless=true", "-cp", IMAGEJ, str(program), str(path)]
    told = subprocess.run(java, capture_output=True, text=True, check=True).stdout.splitlines()
    *size, unit = told[0].split()
    slices, channels, frames, height, width = map(int, told[2].split())
    planes = np.array([row.split() for row in told[3:]], float).reshape(
        slices, channels, frames, height, width
    )
    return tuple(map(float, size)), unit, tuple(map(float, told[1].split())), planes


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_imagej_reads_labels_with_their_size_place_and_order(tmp_path, dtype):
    size, unit, place, planes = read_by_imagej(finish(tmp_path / "a.tif", array=LABELS.astype(dtype)))
    assert (size, unit, place) == (pytest.approx(SIZE), "nm", pytest.approx(ORIGIN))
    np.testing.assert_array_equal(planes[:, 0, 0], LABELS)


@pytest.mark.slow
def test_imagej_reads_scores_as_channels(tmp_path):
    size, unit, place, planes = read_by_imagej(finish_scores(tmp_path / "s.tif"))
    assert (size, unit, place) == (pytest.approx(SIZE), "nm", pytest.approx(ORIGIN))
    np.testing.assert_allclose(planes[:, :, 0].swapaxes(0, 1), SCORES.astype(float), rtol=1e-6)


READ_BY_CLOUD_VOLUME = """
import json, sys
import numpy as np
from cloudvolume import CloudVolume

volume = CloudVolume(f"file://{sys.argv[1]}", progress=False)
voxels = np.asarray(volume[:])[..., 0].T
np.save(sys.argv[2], voxels)
info = volume.info
print("told " + json.dumps([volume.layer_type, *volume.resolution.tolist(), *volume.voxel_offset.tolist()]))
"""

READ_BY_NEUROGLANCER = """
import json, subprocess, sys, tempfile
import neuroglancer, numpy as np

served, chromium, *sources = sys.argv[1:]
neuroglancer.set_server_bind_address("127.0.0.1")
viewer = neuroglancer.Viewer()
with viewer.txn() as state:
    for source in sources:
        kind, name = source.split("://")
        state.layers[name] = neuroglancer.SegmentationLayer(source=f"{kind}://{served}/{name}")
browser = subprocess.Popen(
    [chromium, "--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
     "--enable-unsafe-swiftshader", f"--user-data-dir={tempfile.mkdtemp()}", str(viewer)],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    for source in sources:
        name = source.split("://")[1]
        told = viewer.volume_info(name).result(timeout=300)
        space = told.dimensions
        volume = viewer.volume(name).result(timeout=300)
        origin, shape = list(volume.domain.inclusive_min), list(volume.domain.shape)
        total = int(np.asarray(volume[...].read().result(timeout=300)).sum()) if "zarr" in source else None
        axes = [list(space.names), list(space.scales), list(space.units)]
        print("told " + json.dumps([*axes, origin, shape, total]))
finally:
    browser.kill()
"""


def told_elsewhere(interpreter, modules, program, *arguments):
    """Return what a program prints after ``told``, in another environment; skip where that lacks modules."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    there = subprocess.run(
        [interpreter, "-c", f"import {modules}"], capture_output=True, check=False, env=kept
    )
    if there.returncode:
        pytest.skip(
            f"no {modules} here: VEMSEG_NEUROGLANCER names the python of an environment that has them"
        )
    run = [interpreter, "-c", program, *map(str, arguments)]
    lines = subprocess.run(run, capture_output=True, text=True, check=True, env=kept).stdout.splitlines()
    return [json.loads(line[5:]) for line in lines if line.startswith("told ")]


@pytest.mark.slow
def test_cloud_volume_reads_precomputed_labels(tmp_path):
    finish(tmp_path / "a.precomputed")
    arguments = (tmp_path / "a.precomputed", tmp_path / "read.npy")
    (told,) = told_elsewhere(NEUROGLANCER, "cloudvolume", READ_BY_CLOUD_VOLUME, *arguments)
    assert told == ["segmentation", 4, 8, 30, 11, -10, 10]
    np.testing.assert_array_equal(np.load(tmp_path / "read.npy"), LABELS)


@pytest.mark.slow
def test_neuroglancer_shows_every_format_at_its_place(tmp_path, served):
    chromium = shutil.which("chromium") or pytest.skip("no Chromium on the path")
    finish(tmp_path / "p.precomputed")
    finish(tmp_path / "new.ome.zarr")
    finish(tmp_path / "old.ome.zarr", LabelForm("0.4"))
    sources = ("zarr://new.ome.zarr", "zarr://old.ome.zarr", "precomputed://p.precomputed")
    arguments = (served[0], chromium, *sources)
    found = told_elsewhere(NEUROGLANCER, "neuroglancer, tensorstore", READ_BY_NEUROGLANCER, *arguments)
    for names, scales, units, origin, shape, total in found:
        at = {name: i for i, name in enumerate(names)}
        z, y, x = (at[axis] for axis in "zyx")
        assert [units[axis] for axis in (z, y, x)] == ["m"] * 3
        assert [scales[axis] for axis in (z, y, x)] == pytest.approx([edge * 1e-9 for edge in SIZE])
        assert [shape[axis] for axis in (z, y, x)] == list(SHAPE)
        assert [origin[axis] for axis in (z, y, x)] == [10, -10, 11]
        assert total in (LABELS.sum(), None)  # its Python side cannot unpack compressed segmentations
