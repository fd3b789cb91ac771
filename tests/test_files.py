"""Files that appear whole or not at all, and what the system says against writing them."""

import errno
import os

import numpy as np
import pytest
from interpreter import start

from vemseg.errors import ResourceError
from vemseg.files import atomic_path, remove, write_text, writing
from vemseg.run import save_tensors


def test_a_file_appears_whole_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new" / "a.ome.tif"
    with atomic_path(path) as temporary:
        assert temporary.name.endswith(".ome.tif")
        temporary.write_text("half")
        assert not path.exists()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.ome.tif"]
    assert path.read_text() == "half"


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("new")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_may_write_the_same_file(tmp_path):
    path = tmp_path / "000003.json"
    with atomic_path(path, shared=True) as one, atomic_path(path, shared=True) as other:
        one.write_text("[1, 2]")
        other.write_text("[1, 2]")
    assert [e.name for e in tmp_path.iterdir()] == ["000003.json"] and path.read_text() == "[1, 2]"


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = """
import sys, time, pathlib
from vemseg.files import atomic_path
with atomic_path(pathlib.Path(sys.argv[1])) as temporary:
    temporary.write_text("new")
    print("written", flush=True)
    time.sleep(60)
"""
    process = start(code, path)
    assert process.stdout.readline() == "written\n"
    process.kill()
    process.communicate()
    assert path.read_text() == "old"


def test_files_get_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    save_tensors(tmp_path / "a.safetensors", {"a": np.zeros(3)}, {})
    write_text(tmp_path / "a.txt", "x")
    modes = {entry.stat().st_mode for entry in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_the_system_refuses_is_one_line(tmp_path, number):
    path = tmp_path / "a.txt"
    with pytest.raises(ResourceError) as caught, atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"cannot write {path}: {os.strerror(number)}"
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_directory_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"cannot write .*file/b/a\.txt"):
        write_text(tmp_path / "file" / "b" / "a.txt", "x")
    with pytest.raises(ResourceError, match=r"cannot write"):
        write_text(tmp_path, "x")


def test_a_short_write_of_an_array_is_a_full_disk(tmp_path):
    with (
        pytest.raises(ResourceError, match=r"cannot write .*x\.tif: no space left"),
        writing(tmp_path / "x.tif"),
    ):
        raise OSError("65536 requested and 52352 written")
    with pytest.raises(OSError, match="another"), writing(tmp_path / "x.tif"):
        raise OSError("another")


def test_what_hdf5_says_of_a_broken_disk_is_one_line(tmp_path):
    said = (
        "Can't flush cache (file write failed: time = Sat Nov 28\n, file descriptor = 13, errno = {}, error)"
    )
    with (
        pytest.raises(ResourceError, match=r"cannot write .*x\.h5: Input/output error"),
        writing(tmp_path / "x.h5"),
    ):
        raise RuntimeError(said.format(5))
    with pytest.raises(RuntimeError, match="errno = 22"), writing(tmp_path / "x.h5"):
        raise RuntimeError(said.format(22))


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    """The temporary name follows from the final one, so nothing of a killed writer stays."""
    left = tmp_path / ".partial-a[1].tif"
    left.write_text("a longer text than the new one")
    write_text(tmp_path / "a[1].tif", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a[1].tif": "new"}


def test_files_and_directories_are_removed_and_links_are_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").touch()
    (tmp_path / "folder" / "b").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("folder", "file", "link", "absent"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "a"]
