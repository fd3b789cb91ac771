"""The same command makes the same files, byte for byte, at any time and memory; labels at any threads too."""

import json
import shutil
import time

import pytest
from commands import OUT, SMALL_BLOCKS, command, refused

from vemseg.run import lasting
from vemseg.run.fingerprint import SETTLED

VERBS = [verb for verb in OUT if verb not in ("fetch", "train")]


def held(folder):
    """Return the content of all files by name; of descriptions what lasts."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: _content(path) for name, path in found.items()}


def _content(path):
    if path.suffix == ".json" and "zarr" not in path.name:
        return lasting(json.loads(path.read_text()))
    return path.read_bytes()


def again(programs, made, place, name, *args, **options):
    """Run a command in an empty folder; return what it makes. The folder is the same each time."""
    place.mkdir()
    ended = programs.run(place, *args, **options)
    assert ended.code == 0, ended.err
    found = held(place)
    place.rename(place.with_name(name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["fetch", *VERBS])
def test_files_are_equal(programs, made, tmp_path, verb):
    """The second time with copies of the inputs that were written just now."""
    place, inputs = tmp_path / "place", tmp_path / "inputs"
    args = command(verb, inputs)
    shutil.copytree(made, inputs)
    first = again(programs, made, place, "first", *args)
    shutil.rmtree(inputs)
    shutil.copytree(made, inputs, copy_function=shutil.copyfile)
    if verb in ("embed", "segment"):
        args += ["--max-memory", "5GiB"]
    if verb == "segment":
        args += ["--threads", "2"]
    changes = SMALL_BLOCKS if verb == "segment" else {}
    second = again(programs, made, place, "second", *args, changes=changes)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_the_same_training_makes_the_same_model(programs, made, tmp_path):
    """What else a run keeps, such as its curve, tells seconds."""
    args, lasting = command("train", made), ("run/model.safetensors", "run/recipe.toml")
    first, second = (again(programs, made, tmp_path / "place", name, *args) for name in "ab")
    assert [first[name] == second[name] for name in lasting] == [True, True]


@pytest.mark.parametrize("out", ["labels.tif", "labels.ome.zarr", "large.tif"])
def test_nothing_in_a_file_of_labels_tells_the_time(programs, made, tmp_path, out):
    """Neither ImageJ TIFF, OME TIFF nor OME-Zarr; ``large`` stands for what is too large for ImageJ."""
    changes = {"vemseg.volume.tiff_writing.IMAGEJ_BYTES": 0} if out == "large.tif" else {}
    args = command("segment", made, out=out)
    first, second = (again(programs, made, tmp_path / "place", name, *args, changes=changes) for name in "ab")
    assert first == second


def test_an_input_too_large_to_hash_is_known_by_its_times(programs, made, tmp_path):
    """Results do not hold these times; the descriptions beside them do, also that in stored features."""
    inputs = tmp_path / "inputs"
    shutil.copytree(made, inputs)
    time.sleep(SETTLED / 1e9)
    changes = {"vemseg.run.fingerprint.MOST_HASHED": 0}
    by_region = ["segment", "cell.zarr", "-k", 3, "--regions", "slic", "-o", "pieces.tif"]
    for args in (*(command(verb, inputs) for verb in VERBS), by_region):
        for _ in range(2):
            ended = programs.run(tmp_path, *args, changes=changes)
            assert ended.code == 0, ended.err
    (inputs / "cell.tif").touch()
    for args, code, said in (
        (command("segment", inputs), 6, "cell.tif had another content"),
        ([*by_region, "-f"], 3, "cell.tif has changed since"),
    ):
        refused(programs.run(tmp_path, *args, changes=changes), code, said)
