"""What a command refuses to destroy, its own inputs above all, and what it says of odd command lines."""

import shutil

import numpy as np
import pytest
import tifffile
import zarr
from commands import TINY, command, refused

from vemseg.errors import OutputExistsError, UsageError
from vemseg.run.conflicts import refuse_inputs, refuse_other_kinds


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def mine(made, tmp_path):
    """Copies of what commands made, in a folder in which they are run, with something of the user's."""
    folder = tmp_path / "mine"
    shutil.copytree(made, folder)
    (folder / "results").mkdir()
    (folder / "results" / "thesis.txt").write_text("years of work")
    (folder / "old.ome.zarr").mkdir()
    (folder / "old.ome.zarr" / "thesis.txt").write_text("years of work")
    (folder / "names.toml").write_text('1 = "nucleus"\n')
    return folder


SEGMENT = ["segment", "cell.tif", "-m", "run", "--clusters", "three.safetensors"]
REPORT = ["report", "labels.tif", "--volume", "cell.tif", "--points", 0]
EVALUATE = ["evaluate", "labels.tif", "--reference", "cell_labels.tif"]
CLUSTER = ["cluster", "cell.zarr", "-k", 3]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ([*REPORT, "-o", "results"], 6, "results is a folder: give a file"),
        ([*REPORT, "-o", "cell.tif"], 2, r"cell\.tif is an input \(volume\)"),
        ([*REPORT, "-o", "../mine/labels.tif"], 2, r"labels\.tif is an input"),
        ([*REPORT, "-o", "."], 2, r"'\.' is not the name of a file"),
        ([*EVALUATE, "-o", "results"], 6, "results is a folder: give a file"),
        ([*EVALUATE, "-o", "labels.tif"], 2, r"labels\.tif is an input"),
        ([*EVALUATE, "-o", "cell_labels.tif"], 2, r"cell_labels\.tif is an input \(reference\)"),
        ([*EVALUATE, "--names", "names.toml", "-o", "names.toml"], 2, r"names\.toml is an input \(names\)"),
        ([*CLUSTER, "-o", "results"], 6, "results is a folder: give a file"),
        ([*CLUSTER, "-o", "cell.zarr"], 2, r"cell\.zarr is an input"),
        ([*CLUSTER, "-o", "cell.zarr/three.safetensors"], 2, r"lies in the input cell\.zarr"),
        ([*CLUSTER, "-o", "."], 2, r"'\.' is not the name of a file"),
        ([*SEGMENT, "-o", "old.ome.zarr"], 6, r"old\.ome\.zarr is a folder of something else"),
        (["segment", "image.ome.zarr/0", "-m", "run", "-k", 3, "-o", "image.ome.zarr"], 2, "that the input"),
        (["segment", "image.ome.zarr", "-m", "run", "-k", 3, "-o", "image.ome.zarr/a.tif"], 2, "lies in"),
        (["refine", "image.ome.zarr/0", "--smooth", 1, "-o", "image.ome.zarr"], 2, "that the input"),
        (["objects", "image.ome.zarr/0", "-o", "image.ome.zarr"], 2, "that the input"),
        (["train", "cell.tif", "--from", "run", *TINY, "--steps", 5, "-o", "run"], 2, "that the input"),
        (["embed", "cell.tif", "-m", "run", "-o", "run/cell.zarr"], 0, ""),
        ([*SEGMENT, "-o", "run"], 2, "no suffix of a volume"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)  # fmt: skip
def test_force_replaces_results_and_nothing_else(programs, mine, args, code, says):
    if "image.ome.zarr" in " ".join(map(str, args)):
        programs.run(mine, "fetch", "phantom", "-o", "image.ome.zarr", "--shape", "8,32,32")
    before = content(mine)
    ended = programs.run(mine, *args, "-f")
    if code:
        refused(ended, code, says)
    else:
        assert ended.code == 0, ended.err
    after = content(mine)
    assert all(after.get(path) == data for path, data in before.items())
    assert not code or before.keys() == after.keys()


def test_labels_of_an_image_may_lie_in_it_and_nothing_else(tmp_path):
    image = tmp_path / "image.ome.zarr"
    image.mkdir()
    refuse_inputs([image / "labels" / "cells"], [image, image / "0"])
    refuse_inputs([tmp_path / "image.ome.zarr.tif", tmp_path / "image"], [image])
    (tmp_path / "way").symlink_to(image)
    for out in (image / "0", image / "seg.tif", tmp_path / "way" / "seg.tif", tmp_path, image):
        with pytest.raises(UsageError, match=r"name (another|an) output"):
            refuse_inputs([out], [image])


def test_stores_and_empty_folders_may_be_replaced_and_files_by_files(tmp_path):
    store, empty, file = tmp_path / "a.zarr", tmp_path / "b.zarr", tmp_path / "a.tif"
    store.mkdir(), empty.mkdir(), file.write_text("")
    (store / "zarr.json").write_text("{}")
    for main in (store, empty, tmp_path / "new"):
        refuse_other_kinds(main, folder=True)
    refuse_other_kinds(file, folder=False)
    for main, folder in ((store, False), (tmp_path, True)):
        with pytest.raises(OutputExistsError, match="is a folder"):
            refuse_other_kinds(main, folder=folder)
    with pytest.raises(OutputExistsError, match="no regular file"):
        refuse_other_kinds(type(file)("/dev/null"), folder=False)


def test_words_are_no_files_and_folders_of_results_are_written_again(programs, made, tmp_path):
    """A run may be called like its recipe, and pictures like a format; meshes are a folder of plain files."""
    train = ["train", made / "cell.tif", "-c", "invariance", *TINY, "--steps", 2, "-o", "invariance"]
    render = ["render", made / "cell.tif", "--labels", made / "labels.tif", "--slices", 1, "-o", "png"]
    for args in (train, [*render, "--meshes", "obj"]):
        for more in ([], [], ["-f"]):
            ended = programs.run(tmp_path, *args, *more)
            assert ended.code == 0, ended.err


def test_a_file_may_be_called_like_a_pattern(tmp_path):
    odd = tmp_path / "cell[1].tif"
    odd.write_text("voxels")
    refuse_inputs([tmp_path / "cell1.tif"], [odd])
    odd.unlink()
    with pytest.raises(UsageError, match="one of the slices"):
        refuse_inputs([tmp_path / "cell1.tif"], [odd])


# Odd command lines and surroundings


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nope"], r"No such command 'nope'"),
        (["segment", "cell.tif", "--clases", "3"], r"No such option: --clases .*segment --help' explains"),
        (["segment", "cell.tif", "--background", "FOO"], r"'FOO' is not one of 'auto', 'none'"),
        (["segment", "cell.tif", "--threads", "100000"], r"threads.*1024"),
        (["segment", "cell.tif", "--names", ""], r"names: the text is empty"),
        (["segment", ""], r"volume: the text is empty"),
        (["segment", "cell.tif", "--names", "1=a\x1b[31m"], r"is no name for label 1"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("columns", ["1", "200"])
def test_a_command_line_that_cannot_be_read_is_one_line(programs, tmp_path, args, says, columns):
    refused(programs.run(tmp_path, *args, COLUMNS=columns), 2, says)


def test_a_log_that_cannot_be_written_stops_no_work(programs, made, tmp_path):
    for verb, out in (("segment", "labels.tif"), ("train", "run/model.safetensors")):
        ended = programs.run(tmp_path, *command(verb, made), terminal="/dev/full")
        assert ended.code == 0 and (tmp_path / out).exists()


@pytest.mark.parametrize("verb", ["segment", "evaluate", "train"])
def test_a_file_that_may_not_grow_is_4(programs, made, tmp_path, verb):
    ended = programs.run(tmp_path, *command(verb, made), limits={"RLIMIT_FSIZE": 2**10})
    refused(ended, 4, "File too large")


def test_a_device_that_computes_nothing_is_4(programs, made, tmp_path):
    refused(programs.run(tmp_path, *command("segment", made), "-d", "meta"), 4, "-d cpu")


def test_names_of_classes_that_there_are_not_are_refused_before_the_work(programs, made, tmp_path):
    args = ["segment", made / "cell.tif", "-m", made / "run", "-k", 3, "--names", "1=a,9=z", "-o", "seg.tif"]
    refused(programs.run(tmp_path, *args), 3, r"names for classes \[9\]")
    assert not list(tmp_path.iterdir())


def test_a_phantom_larger_than_the_disk_is_4(programs, tmp_path):
    args = ["fetch", "phantom", "--shape", "100000,100000,100000", "-o", "cell.tif"]
    refused(programs.run(tmp_path, *args), 4, "takes .*GiB.*--shape")
    assert not list(tmp_path.iterdir())


def test_a_report_takes_features_for_features_alone(programs, made, tmp_path):
    args = ["report", made / "labels.tif", "--volume", made / "cell.tif", "--features", made / "cell.tif"]
    refused(programs.run(tmp_path, *args, "-o", "a.html"), 5, r"no features at .*cell\.tif")


def test_labels_below_0_are_told_of(programs, tmp_path):
    labels = np.zeros((4, 16, 16), np.int16)
    labels[:, :8], labels[:, 8:12] = 1, -3
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    ended = programs.run(tmp_path, "refine", "labels.tif", "--smooth", 1, "-o", "smooth.tif")
    assert ended.code == 0 and ended.err.count("holds labels below 0") == 1, ended.err


def test_an_array_without_axes_is_no_volume(programs, tmp_path):
    zarr.create_array(tmp_path / "one.zarr", shape=(), dtype="uint8")
    refused(programs.run(tmp_path, "segment", "one.zarr", "-k", 3), 3, r"one\.zarr holds one number")
