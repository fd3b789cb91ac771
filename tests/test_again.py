"""The same command again: when the result is the same one, what changes at once, what is refused first."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
import tifffile
import torch
import zarr

from vemseg.blocks import here
from vemseg.cli import app
from vemseg.comparison import Scene
from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.errors import InputError, Interrupted, OutputExistsError, ResourceError, UsageError
from vemseg.geometry import Box
from vemseg.models import devices
from vemseg.phantom import Phantom
from vemseg.pipeline.evaluate import Comparison, evaluate
from vemseg.pipeline.extras import Extras
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.render import render
from vemseg.pipeline.segment import segment
from vemseg.volume import open_volume, record

SHAPE = (24, 40, 48)
SIZE = (16.0, 16.0, 16.0)
SETTINGS = ("cluster.k=3", "cluster.sample=2000", "cluster.restarts=1")


@pytest.fixture
def phantom(tmp_path):
    """Return the paths of a grey volume and its labels."""
    return fetch_phantom(tmp_path / "cell.tif", SHAPE, 3, SIZE)


@pytest.fixture
def wanted(phantom):
    return Wanted(str(phantom[0]), "classical", SETTINGS)


def labels_of(path):
    volume = open_volume(path)
    return volume.read(volume.box)


# What is the same


def test_a_tiff_that_was_changed_in_its_middle_is_another_one(tmp_path):
    cell, out = tmp_path / "cell.tif", tmp_path / "seg.tif"
    noise = np.random.default_rng(0).integers(0, 255, (64, 256, 256), np.uint8)
    tifffile.imwrite(cell, noise, imagej=True, metadata={"axes": "ZYX"})
    wanted = Wanted(str(cell), "classical", SETTINGS, crop="0:4,0:40,0:40")
    segment(wanted, out)
    before = cell.stat()
    middle = before.st_size // 2  # two megabytes from either end
    with cell.open("r+b") as file:
        file.seek(middle)
        file.write(bytes(500))
    assert cell.stat().st_size == before.st_size
    with pytest.raises(OutputExistsError, match=r"cell\.tif had another content"):
        segment(wanted, out)
    os.utime(cell, ns=(before.st_atime_ns, before.st_mtime_ns))  # even where the time is put back
    with pytest.raises(OutputExistsError, match=r"cell\.tif had another content"):
        segment(wanted, out)


def test_a_zarr_whose_chunks_were_rewritten_is_another_one(tmp_path):
    made = fetch_phantom(tmp_path / "cell.ome.zarr", SHAPE, 3, SIZE)
    wanted, out = Wanted(str(made[0]), "classical", SETTINGS), tmp_path / "seg.tif"
    segment(wanted, out)
    array = zarr.open_array(made[0] / "0", mode="r+")
    array[:] = 255 - array[:]
    with pytest.raises(OutputExistsError, match=r"cell\.ome\.zarr had another content"):
        segment(wanted, out)


def test_a_touched_or_copied_volume_is_the_same(wanted, phantom, tmp_path):
    out = segment(wanted, tmp_path / "seg.tif")
    made = out.stat().st_mtime_ns
    os.utime(phantom[0])
    segment(wanted, out)
    copy = tmp_path / "elsewhere.tif"
    shutil.copy(phantom[0], copy)
    segment(Wanted(str(copy), "classical", SETTINGS), out)
    assert out.stat().st_mtime_ns == made


def test_old_and_new_blocks_are_never_mixed(wanted, phantom, tmp_path, monkeypatch):
    monkeypatch.setattr("vemseg.budget.MOST_VOXELS", 2**12)
    out, stops = tmp_path / "seg.tif", []

    def report(stage, fraction, detail=""):
        if stage == "segmenting" and fraction:
            stops.append(fraction)

    with pytest.raises(Interrupted):
        segment(wanted, out, context=Context(report=report, stopped=lambda: bool(stops)))
    grey = Phantom(SHAPE, 4).read(Box.whole(SHAPE))
    tifffile.imwrite(phantom[0], grey, imagej=True, metadata={"axes": "ZYX", "spacing": 16, "unit": "nm"})
    with pytest.raises(OutputExistsError, match=r"begun earlier and .*cell\.tif had another content"):
        segment(wanted, out)


# What changes at once


@pytest.mark.parametrize("name", ["seg.tif", "seg.ome.zarr"])
def test_names_of_finished_labels_change_without_a_block_being_computed(wanted, tmp_path, monkeypatch, name):
    out = segment(wanted, tmp_path / name)
    before = labels_of(out)
    monkeypatch.setattr(here, "map_blocks", lambda *_: pytest.fail("blocks are computed again"))
    picture = (tmp_path / "seg_qc.png").read_bytes()
    segment(wanted, out, extras=Extras({1: "membrane", 3: "lumen"}))
    np.testing.assert_array_equal(labels_of(out), before)
    assert record(out)["names"] == {"1": "membrane", "2": "class 2", "3": "lumen"}
    assert [row["name"] for row in json.loads((tmp_path / "seg.json").read_text())["classes"]] == [
        "membrane", "class 2", "lumen"
    ]  # fmt: skip
    assert ",lumen," in (tmp_path / "seg.csv").read_text()
    assert (tmp_path / "seg_qc.png").read_bytes() != picture
    segment(wanted, out)  # names that are not given again stay
    assert record(out)["names"]["1"] == "membrane"
    with pytest.raises(InputError, match=r"names for classes \[4\]"):
        segment(wanted, out, extras=Extras({4: "nothing"}))


# Crops


def test_a_crop_is_known_to_labels_and_to_those_who_read_them(wanted, phantom, tmp_path):
    crop = "4:20,8:40,:"
    part = Wanted(wanted.path, wanted.model, wanted.settings, crop=crop)
    for name in ("first.tif", "second.ome.zarr"):
        out = segment(part, tmp_path / name)
        assert record(out)["volume"]["crop"] == "4:20,8:40,0:48"
        assert open_volume(out).start == (4, 8, 0)
        found = evaluate(Comparison(str(out), str(phantom[1])))
        given = evaluate(Comparison(str(out), str(phantom[1]), crop=crop))
        assert found.voxels == 16 * 32 * 48
        np.testing.assert_array_equal(found.dice, given.dice)
        pictures = render(
            Scene(str(phantom[0]), str(out), str(phantom[1])), out.with_name(f"{out.name}-pictures")
        )
        assert len(pictures) == 3
    ome = zarr.open_group(out, mode="r").attrs["ome"]["multiscales"][0]["datasets"][0]
    assert ome["coordinateTransformations"][1] == {"type": "translation", "translation": [64.0, 128.0, 0.0]}


def test_a_crop_beyond_the_volume_is_refused(wanted, tmp_path):
    beyond = Wanted(wanted.path, wanted.model, wanted.settings, crop="0:30,:,:")
    with pytest.raises(UsageError, match=r"24, 40, 48"):
        segment(beyond, tmp_path / "seg.tif")


# What is refused before it is looked whether the result is there


def test_checks_that_cost_nothing_come_first(wanted, tmp_path):
    out = segment(wanted, tmp_path / "seg.tif")
    with pytest.raises(ResourceError, match="is not enough"):
        segment(wanted, out, context=Context(memory=100 * 2**20))
    with pytest.raises(UsageError, match=r"unknown key 'cluster\.sampel'"):
        segment(Wanted(wanted.path, "classical", (*SETTINGS, "cluster.sampel=3")), out)


def test_labels_are_no_grey_volume_nor_the_other_way_round(wanted, phantom, tmp_path):
    out = segment(wanted, tmp_path / "seg.tif")
    with pytest.raises(InputError, match="label"):
        segment(Wanted(str(out), "classical", SETTINGS), tmp_path / "again.tif")
    grey = np.random.default_rng(0).integers(0, 60_000, SHAPE).astype(np.uint16)
    tifffile.imwrite(tmp_path / "grey.tif", grey, imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match=r"grey\.tif holds more than 4096 different values"):
        evaluate(Comparison(str(tmp_path / "grey.tif"), str(phantom[1])))


# What is said


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        app([str(argument) for argument in arguments], prog_name="vemseg")
    return ended.value.code or 0


def test_what_computes_is_said_once_and_recorded(phantom, tmp_path, capfd):
    out = tmp_path / "seg.tif"
    assert run("segment", phantom[0], "-m", "classical", "--threads", 1, "-d", "cpu", "-o", out) == 0
    said = capfd.readouterr().err
    assert said.count("computing on cpu in ") == 1 and "with 1 thread\n" in said
    assert "no number of classes given (-k): taking 6\n" in said
    about = json.loads(out.with_suffix(".json").read_text())["machine"]
    assert about == {"device": "cpu", "gpu": None, "precision": about["precision"], "threads": 1}
    assert about["precision"] in ("float32", "bfloat16")


def test_no_model_named_is_one_short_line(phantom, tmp_path, capfd):
    out = tmp_path / "seg.tif"
    assert run("segment", phantom[0], "-k", 3, "--set", "cluster.sample=2000", "-o", out) == 0
    said = capfd.readouterr().err
    assert said.splitlines().count("no model named: using the bundled weights 'vemseg'") == 1
    assert "no number of classes given" not in said


def test_a_single_class_is_refused(phantom, tmp_path, capfd):
    assert run("segment", phantom[0], "-k", 1, "-o", tmp_path / "seg.tif") == 2
    assert "at least 2" in capfd.readouterr().err


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this is a Mac with a GPU")
def test_a_device_that_is_not_there_is_one_line(phantom, tmp_path, capfd):
    assert run("segment", phantom[0], "-k", 3, "-d", "mps", "-o", tmp_path / "seg.tif") == 4
    (line,) = [text for text in capfd.readouterr().err.splitlines() if "mps" in text]
    assert line.startswith("vemseg: error: device 'mps' cannot be used (") and line.endswith("-d auto")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU can be used")
def test_a_gpu_that_torch_cannot_use_is_said(monkeypatch, caplog):
    monkeypatch.setattr(devices.shutil, "which", lambda name: f"/usr/bin/{name}")
    machine = devices.settle(Context(), "fp32")
    with caplog.at_level(logging.INFO, "vemseg"):
        machine.say()
    assert [entry.levelname for entry in caplog.records] == ["INFO", "WARNING"]
    assert "a GPU driver is there, but PyTorch cannot use it: " in caplog.text
    assert devices.settle(Context(device="cpu"), "fp32").unused is None
