"""The quick part of the campaign of ``documents.py``, and documents that once ended in a traceback."""

import json
import os
import random
import shutil
import tarfile
import zipfile

import pytest
import zarr
from documents import mutated, readers, smaller

from vemseg.catalog.archive import members
from vemseg.cli import parsing
from vemseg.errors import InputError, OutputExistsError, UsageError, VemsegError
from vemseg.features import Features
from vemseg.foreign import Form, check_regular, quoted, read_text, reading
from vemseg.labelling import load
from vemseg.recipe import load_recipe
from vemseg.run import Output, Run, fingerprint, write_json
from vemseg.volume import open_volume
from vemseg.volume.conventions import frame_in

NAMES = (
    *("names", "recipe", "run", "metrics", "settings of a run", "features", "vectors", "clusters", "image"),
    *("level", "old image", "old level", "n5", "zip", "tar", "checkpoint", "description", "labels"),
)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return readers(tmp_path_factory.mktemp("documents"))


@pytest.mark.parametrize("name", NAMES)
def test_damaged_documents_are_refused_in_one_line(known, tmp_path, name):
    reader, chance = known[name], random.Random(f"quick {name}")
    assert reader.wrong(reader.original(), tmp_path) is None
    for _ in range(15):
        case = mutated(reader.original(), chance, reader.as_json)
        assert reader.wrong(case, tmp_path) is None, case[:500]


def test_a_failure_is_seen_and_made_small(known, tmp_path, monkeypatch):
    reader = known["names"]
    monkeypatch.setattr("vemseg.cli.parsing.names", lambda text: {}["none"] if "granule" in _of(text) else {})
    case = reader.original() + b'3 = "vesicle"\n'
    assert reader.wrong(case, tmp_path) == "KeyError: 'none'"
    assert smaller(reader, case, tmp_path) == b"granule"


def _of(path):
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        return file.read()


# Texts


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "1 = " + "9" * 5000, "\0", "1 = 'x'\n" * 2, "x" * 9000 + " = 'a'"]
)
@pytest.mark.parametrize(
    "read", [load_recipe, lambda path: parsing.names(str(path))], ids=["recipe", "names"]
)
def test_hostile_texts(tmp_path, read, text):
    (tmp_path / "hostile.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "hostile.toml")
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_pipes_are_no_inputs(tmp_path):
    for name in ("pipe.toml", "pipe.tif"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "cell.zarr").mkdir()
    os.mkfifo(tmp_path / "cell.zarr" / "zarr.json")
    says = "is a pipe, a device or a socket"
    for read in (load_recipe, lambda path: parsing.names(str(path))):
        with pytest.raises(UsageError, match=says):
            read(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.tif", tmp_path / "cell.zarr", "/dev/zero"):
        with pytest.raises(InputError, match=says):
            open_volume(path)
    with pytest.raises(InputError, match=says):
        fingerprint(tmp_path / "cell.zarr")
    check_regular(tmp_path)
    check_regular(tmp_path / "absent")


def test_errors_of_libraries_become_one_line():
    def deep(level=0):
        return deep(level + 1)

    for raised, says in (
        (ValueError("a\nb" + "x" * 999), r"^bad: a bx{196}…$"),
        (KeyError(), r"^bad: KeyError$"),
        (OSError(5, "Input/output error"), r"^bad: Input/output error$"),
    ):
        with pytest.raises(InputError, match=says), reading("bad"):
            raise raised
    with pytest.raises(UsageError, match=r"^bad: it is nested too deeply$"), reading("bad", UsageError):
        deep()
    for passed in (MemoryError, OutputExistsError, KeyboardInterrupt):
        with pytest.raises(passed), reading("bad"):
            raise passed
    assert quoted("\x1b[31m\t" + "é") == "\N{REPLACEMENT CHARACTER}[31m é"


def test_texts_have_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr("vemseg.foreign.MOST_TEXT", 2**20)
    (tmp_path / "long.txt").write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(InputError, match="no text: it is larger than 1 MiB"):
        read_text(tmp_path / "long.txt", "no text")


def test_a_form_is_strict_and_names_the_place():
    form = Form({"a": {"b": tuple[int, int]}, "c?": str})
    data = {"a": {"b": [1, 2]}, "more": None}
    assert form.check(data, "bad") is data
    for wrong, place in (
        ({}, "a: "),
        ({"a": {"b": [1, "2"]}}, r"a\.b\.1: "),
        ({"a": {"b": [1, 2]}, "c": 3}, "c: "),
        ({"a": {"b": [1, 2]}, "c": None}, "c: "),
    ):
        with pytest.raises(InputError, match=f"^bad: {place}"):
            form.check(wrong, "bad")


@pytest.mark.parametrize("names", [["x" * 3000, "y", "x"], ["x" * 3000, "y", "x", "t"]], ids=len)
def test_names_of_axes_are_quoted_in_part(known, tmp_path, names):
    shutil.copytree(known["old image"].whole, tmp_path / "old.zarr")
    group = zarr.open_group(tmp_path / "old.zarr")
    image = group.attrs["multiscales"][0]
    group.attrs["multiscales"] = [image | {"axes": [{"name": name} for name in names]}]
    with pytest.raises(InputError, match=r"old\.zarr.* axes") as caught:
        open_volume(tmp_path / "old.zarr")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("unit", [[[]], [{}], {"a": 1}, 3], ids=str)
def test_a_unit_that_is_no_text_gives_no_size(unit):
    found = frame_in({"pixelResolution": {"unit": unit, "dimensions": [8, 8, 8]}}, 3)
    assert found is None or found.voxel_size is None


# Places outside


def test_an_image_may_not_lead_out_of_its_group(tmp_path):
    zarr.create_array(tmp_path / "secret.zarr", shape=(4, 4, 4), chunks=(4, 4, 4), dtype="uint8")
    for path in ("../secret.zarr", str(tmp_path / "secret.zarr")):
        group = zarr.open_group(tmp_path / "cell.zarr", mode="w")
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": [], "datasets": [{"path": path}]}]}
        with pytest.raises(InputError, match=r"cell\.zarr: its metadata name the array .* outside of it"):
            open_volume(tmp_path / "cell.zarr")


@pytest.mark.parametrize("chunks", [[0, 4, 4], [4, 4, -1]])
def test_chunks_without_voxels_are_refused(known, tmp_path, chunks):
    """Zarr itself takes them in format 2."""
    shutil.copytree(known["old level"].whole, tmp_path / "old.zarr")
    path = tmp_path / "old.zarr" / "0" / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chunks": chunks}))
    with pytest.raises(InputError, match=r"old\.zarr.* (is damaged|is not a readable Zarr)"):
        open_volume(tmp_path / "old.zarr")


@pytest.mark.parametrize(
    "changes",
    [
        {"settled": {"moves": {"seg": "../seg"}, "stale": []}},
        {"settled": {"moves": {"../mine": "seg"}, "stale": []}},
        {"settled": {"moves": {"/etc/hosts": "seg"}, "stale": []}},
        {"settled": {"moves": {}, "stale": ["../mine"]}},
        {"settled": {"moves": {}, "stale": ["/etc/hosts"]}},
        {"settled": {"moves": {}}},
        {"settled": 3},
        {"settled": {"moves": {"mine": "mine"}, "stale": []}, "main": "../mine"},
        {"replaces": "yes"},
    ],
    ids=str,
)
def test_the_beginnings_of_an_output_may_not_name_files_elsewhere(tmp_path, changes):
    folder, mine = tmp_path / "folder", tmp_path / "mine"
    (folder / "seg.partial").mkdir(parents=True)
    mine.write_text("mine")
    begun = {"state": {}, "main": "seg", "replaces": False}
    write_json(folder / "seg.partial" / "state.json", begun | changes)
    with pytest.raises(VemsegError), Output(folder / "seg", state={}, record=lambda: None):
        pass
    assert mine.read_text() == "mine" and not (folder / "seg").exists()


# Archives


def test_an_entry_of_an_archive_without_a_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", b"")
    data = (tmp_path / "a.zip").read_bytes()
    at = data.index(b"PK\x01\x02")
    directory, end = bytearray(data[at:-22]), bytearray(data[-22:])
    directory[28] = 0  # the length of the name
    end[12:16] = (len(directory) - 1).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data[:at] + directory[:-1] + end)
    with pytest.raises(InputError, match="it holds '', which is not a name"):
        members(tmp_path / "a.zip")


def test_a_header_of_a_tar_archive_has_a_largest_size(tmp_path):
    with tarfile.open(tmp_path / "long.tar", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("a")
        entry.pax_headers = {"comment": "x" * (2**20 + 1)}
        archive.addfile(entry)
    with pytest.raises(InputError, match="not a trustworthy archive: it has a header of 1MiB"):
        members(tmp_path / "long.tar")


def test_names_that_are_no_utf8(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("größe", b"")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace("größe".encode(), b"gr\xff\xfe\xff\xfee"))
    with pytest.raises(InputError, match="damaged archive"):
        members(tmp_path / "a.zip")


def test_clusters_that_do_not_fit_themselves(known, tmp_path):
    shutil.copy(known["clusters"].whole, tmp_path / "two.safetensors")
    data = (tmp_path / "two.safetensors").read_bytes()
    assert b"intensities" in data
    (tmp_path / "two.safetensors").write_bytes(data.replace(b"F32", b"I32"))
    with pytest.raises(InputError, match="damaged clusters"):
        load(tmp_path / "two.safetensors")


def test_what_may_be_missing_may_not_be_null(known, tmp_path):
    shutil.copytree(known["features"].whole, tmp_path / "features.zarr")
    group = zarr.open_group(tmp_path / "features.zarr")
    group.attrs["classes"] = None
    with pytest.raises(InputError, match="damaged features: classes: "):
        Features(tmp_path / "features.zarr")
    shutil.copytree(known["run"].whole, tmp_path / "run")
    write_json(tmp_path / "run" / "run.json", {"imported": None})  # which ``fetch`` once took for a table
    with pytest.raises(InputError, match=r"cannot read .*run\.json: imported: "):
        _ = Run.open(tmp_path / "run").info


def test_facts_of_a_run_have_their_types(known, tmp_path):
    shutil.copytree(known["run"].whole, tmp_path / "run")
    write_json(tmp_path / "run" / "run.json", {"inputs": 3})
    with pytest.raises(InputError, match=r"cannot read .*run\.json: inputs: "):
        _ = Run.open(tmp_path / "run").info
