"""The same command makes the same files, byte for byte, at any time and memory; labels at any threads too."""

import json

import pytest
from commands import OUT, SMALL_BLOCKS, command

from vemseg.run.origin import PASSING

VERBS = [verb for verb in OUT if verb not in ("fetch", "train")]


def held(folder):
    """Return the content of all files by name; of descriptions what lasts."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: _content(path) for name, path in found.items()}


def _content(path):
    if path.suffix == ".json" and "zarr" not in path.name:
        return {key: value for key, value in json.loads(path.read_text()).items() if key not in PASSING}
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
    place, args = tmp_path / "place", command(verb, made)
    first = again(programs, made, place, "first", *args)
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
