"""Fingerprints: every change of content is seen, and nothing is read where nothing can have changed."""

import contextlib
import hashlib
import os
import shutil
import sys
import time

import numpy as np
import pytest
import zarr

from vemseg.errors import InputError
from vemseg.run import fingerprint, same, sha256
from vemseg.run.fingerprint import MOST_HASHED, SEGMENT

prints = sys.modules["vemseg.run.fingerprint"]


@pytest.fixture
def settled(monkeypatch):
    """Let times of files that were written just now count."""
    monkeypatch.setattr(prints, "SETTLED", -(10**10))


@pytest.fixture
def unread(monkeypatch):
    """Return a function for ``with``: no content may be read inside."""

    def refuse(files):
        raise AssertionError("content is read")

    @contextlib.contextmanager
    def nothing_is_read():
        with monkeypatch.context() as patch:
            patch.setattr(prints, "_hashes", refuse)
            yield

    return nothing_is_read


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "cell.tif"
    path.write_bytes(np.random.default_rng(0).bytes(3 * 2**20 + 5))
    return path


@pytest.fixture(params=[2, 3])
def store(tmp_path, request):
    group = zarr.open_group(tmp_path / "cell.zarr", mode="w", zarr_format=request.param)
    group.create_group("em")
    array = group.create_array("em/s2", shape=(8, 8), chunks=(2, 2), dtype="u1")
    array[:] = np.arange(64).reshape(8, 8)
    return tmp_path / "cell.zarr"


def flip(path, place):
    """Change one byte of a file; its size stays, and its modification time is put back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        old = file.read(1)
        file.seek(place)
        file.write(bytes([old[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_fingerprint_follows_the_content(tmp_path, volume):
    first = fingerprint(volume)
    copy = tmp_path / "copy.tif"
    shutil.copy(volume, copy)
    assert fingerprint(copy)["content"] == first["content"]
    assert same(first, copy)
    for place in (0, volume.stat().st_size // 2, volume.stat().st_size - 1):
        shutil.copy(volume, copy)
        flip(copy, place)
        assert fingerprint(copy)["content"] != first["content"]
        assert not same(first, copy)
    with volume.open("ab") as file:
        file.write(b"x")
    assert fingerprint(volume)["content"] != first["content"]
    assert not same(first, volume)


@pytest.mark.parametrize("call", [fingerprint, sha256, lambda path: same({}, path)])
def test_what_is_not_there_is_one_line(tmp_path, call):
    with pytest.raises(InputError, match=r"no such file or directory: .*absent"):
        call(tmp_path / "absent")


def test_the_plain_hash_is_that_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "a") == expected
    assert fingerprint(tmp_path / "a")["content"] == expected


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 160, 1003])
def test_the_hash_of_a_long_file_is_that_of_its_segments(tmp_path, monkeypatch, size):
    monkeypatch.setattr(prints, "SEGMENT", 16)
    monkeypatch.setattr(prints, "_BUFFER", 5)
    data = np.random.default_rng(size).bytes(size)
    (tmp_path / "a").write_bytes(data)
    parts = [hashlib.sha256(data[at : at + 16]).digest() for at in range(0, max(size, 1), 16)]
    whole = parts[0] if len(parts) == 1 else hashlib.sha256(b"".join(parts)).digest()
    assert fingerprint(tmp_path / "a")["content"] == whole.hex()
    assert SEGMENT == 2**26


def test_the_same_times_spare_the_reading(volume, store, settled, unread):
    for path in (volume, store, store / "em" / "s2"):
        recorded = fingerprint(path)
        with unread():
            assert same(recorded, path)
        assert same(recorded, path)


def test_times_of_files_written_just_now_are_not_trusted(volume, store):
    """Within one step of its clock a file system gives a second change the same time."""
    recorded = [fingerprint(path) for path in (volume, store)]
    assert [found[key] for found, key in zip(recorded, ("mtime_ns", "listing"), strict=True)] == [None, None]
    assert same(recorded[0], volume) and same(recorded[1], store)


def test_a_pattern_stands_for_the_files_that_match_it_alone(tmp_path, settled, unread):
    for name in ("b1.png", "a1.png", "notes.txt"):
        (tmp_path / name).write_text(name)
    slices = tmp_path / "*.png"
    recorded = fingerprint(slices)
    assert (recorded["files"], recorded["bytes"], recorded["path"]) == (2, 12, str(slices))
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "out.tif").write_text("result")
    with unread():
        assert same(recorded, slices)
    (tmp_path / "a1.png").touch()
    assert same(recorded, slices)
    (tmp_path / "a1.png").write_text("A1.PNG")
    assert not same(recorded, slices)
    (tmp_path / "a1.png").unlink()
    assert not same(recorded, slices)
    (tmp_path / "b1.png").unlink()
    with pytest.raises(InputError, match="no such file"):
        same(recorded, slices)
    with pytest.raises(InputError, match="is not a pattern of names"):
        fingerprint(tmp_path / "**.png")


def test_a_touch_a_copy_and_a_rename_change_nothing(tmp_path, volume, store, settled, unread):
    for path in (volume, store):
        recorded = fingerprint(path)
        for file in [path, *path.rglob("*")]:
            os.utime(file, ns=(time.time_ns(), time.time_ns() - 10**12))
        with unread(), pytest.raises(AssertionError, match="content is read"):
            same(recorded, path)
        assert same(recorded, path)
        copy = tmp_path / f"copy of {path.name}"
        (shutil.copytree if path.is_dir() else shutil.copy)(path, copy)
        assert same(recorded, copy)
        assert same(recorded, path.rename(tmp_path / f"renamed {path.name}"))


def test_every_chunk_of_a_store_counts(store):
    first = fingerprint(store)
    chunks = [path for path in (store / "em" / "s2").rglob("*") if path.is_file()]
    for chunk in chunks:
        flip(chunk, chunk.stat().st_size - 1)
        assert not same(first, store)
        flip(chunk, chunk.stat().st_size - 1)
        assert same(first, store)
    chunks[-1].unlink()
    assert not same(first, store)


def test_a_store_that_is_written_again_is_the_same_only_with_the_same_values(store):
    first = fingerprint(store)
    array = zarr.open_array(store / "em" / "s2")
    array[:] = np.arange(64).reshape(8, 8)
    assert same(first, store)
    array[3, 3] = 99
    assert not same(first, store)


def test_the_metadata_of_the_groups_above_belong_to_an_array(tmp_path, store):
    array = store / "em" / "s2"
    first = fingerprint(array)
    zarr.open_group(store)["em"].attrs["voxel_size"] = 8
    assert not same(first, array)
    second = fingerprint(array)
    zarr.open_group(store).attrs["title"] = "cell"
    assert not same(second, array)
    third = fingerprint(array)
    (tmp_path / "zarr.json.bak").touch()  # beside the store
    zarr.open_group(store).create_array("other", shape=(2, 2), dtype="u1")[:] = 1
    assert same(third, array)
    chunk = next(path for path in array.rglob("*0*") if path.is_file())
    chunk.rename(chunk.with_name("9"))
    assert not same(third, array)


def test_a_folder_of_slices_follows_names_and_content(tmp_path):
    folder = tmp_path / "slices"
    folder.mkdir()
    (folder / "0.tif").write_bytes(b"a")
    (folder / "1.tif").write_bytes(b"b")
    first = fingerprint(folder)
    (folder / "0.tif").rename(folder / "x")
    (folder / "1.tif").rename(folder / "0.tif")
    (folder / "x").rename(folder / "1.tif")
    assert not same(first, folder)
    (folder / "1.tif").write_bytes(b"b")
    (folder / "0.tif").write_bytes(b"a")
    assert same(first, folder)


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(b"a")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "data").symlink_to(tmp_path / "data")
    (folder / "up").symlink_to(folder)
    (folder / "nowhere").symlink_to(tmp_path / "absent")
    first = fingerprint(folder)
    assert first["files"] == 1
    (tmp_path / "data" / "a").write_bytes(b"b")
    assert not same(first, folder)


def test_the_largest_are_known_by_their_times_alone(volume, settled, monkeypatch, unread):
    assert MOST_HASHED == 2**36
    monkeypatch.setattr(prints, "MOST_HASHED", 2**20)
    with unread():
        first = fingerprint(volume)
        assert first["content"] is None
        assert same(first, volume)
        os.utime(volume)
        assert not same(first, volume)
    monkeypatch.setattr(prints, "SETTLED", 10**12)  # times that cannot be trusted
    first = fingerprint(volume)
    assert same(first, volume)
    flip(volume, 7)
    assert not same(first, volume)


def test_a_chunk_that_cannot_be_read_is_one_line(store, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", "chunk")

    monkeypatch.setattr(prints, "_hash_segments", refuse)
    with pytest.raises(InputError, match="cannot read chunk: Permission denied"):
        fingerprint(store)
