"""Fetching, from a local host: resumable, checked, unpacked with distrust; masks become the reference."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from stand_in import CELLS, SHAPE, Manners, Server, make_archive, masks_of

from vemseg.catalog import cache_directory, download, members, unpack
from vemseg.context import Context
from vemseg.datasets.reference import MASKS
from vemseg.errors import InputError, Interrupted, MissingError, OutputExistsError, ResourceError, UsageError
from vemseg.geometry import Box
from vemseg.phantom import Phantom
from vemseg.pipeline.fetch import fetch_betaseg
from vemseg.volume import open_volume

transfer, caching = (sys.modules[f"vemseg.catalog.{name}"] for name in ("download", "cache"))


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    monkeypatch.setenv("VEMSEG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("VEMSEG_OFFLINE", raising=False)
    monkeypatch.setattr(transfer, "PAUSE", 0.01)
    monkeypatch.setattr(transfer, "CHUNK", 2**12)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Return a miniature archive and its SHA-256."""
    path = tmp_path_factory.mktemp("host") / "stand_in.zip"
    return path, make_archive(path, CELLS[:2])


@pytest.fixture
def served(archive):
    """Return a running server of the archive, and the SHA-256."""
    with Server(archive[0]) as server:
        yield server, archive[1]


def cached(sha256):
    return cache_directory() / f"file-{sha256[:12]}.zip"


def bring(server, sha256, name="file.zip", **options):
    quiet = {"offline": False, "tell": lambda *_: None, "stopped": lambda: False}
    return download(server.url, sha256, name, **quiet | options)


# Download


def test_a_file_comes_once_and_is_kept(served, archive):
    server, sha256 = served
    seen = []
    path = bring(server, sha256, tell=lambda stage, *bytes_: seen.append((stage, *bytes_)))
    assert path == cached(sha256)
    assert path.read_bytes() == archive[0].read_bytes()
    size = path.stat().st_size
    stages = [stage for stage, *_ in seen]
    assert stages == sorted(stages, reverse=True)  # first downloading, then checking
    for stage in ("downloading", "checking"):
        have = [have for what, have, _ in seen if what == stage]
        assert have == sorted(have) and (stage, size, size) in seen
    assert bring(server, sha256, offline=True) == path
    assert len(server.requests) == 1
    assert not list(path.parent.glob("*.part*"))


def test_a_broken_connection_is_taken_up_where_it_broke(served, archive):
    server, sha256 = served
    server.manners.cut_after = [40_000, 0, 30_000]
    path = bring(server, sha256)
    assert path.read_bytes() == archive[0].read_bytes()
    asked = [
        None if a is None else int(a.removeprefix("bytes=").removesuffix("-")) for _, a in server.requests
    ]
    assert asked[0] is None
    assert asked[1:] == sorted(asked[1:])
    assert 0 < asked[1] <= 40_000
    assert server.sent <= path.stat().st_size + 2**14


def test_the_next_call_goes_on_where_the_last_gave_up(served, archive, monkeypatch):
    server, sha256 = served
    server.manners.cut_after = [50_000, *[0] * 4]
    with pytest.raises(
        MissingError, match=r"cannot download http.*: the connection broke.*kept: the same command goes on"
    ):
        bring(server, sha256)
    kept = next(cache_directory().glob("*.part")).stat().st_size
    assert 0 < kept <= 50_000
    assert bring(server, sha256).read_bytes() == archive[0].read_bytes()
    assert server.requests[-1][1] == f"bytes={kept}-"


def test_a_server_without_ranges_begins_again(served, archive):
    server, sha256 = served
    server.manners = Manners(cut_after=[40_000], ranges=False)
    assert bring(server, sha256).read_bytes() == archive[0].read_bytes()
    assert len(server.requests) == 2


def test_a_file_that_changed_at_its_host_is_not_patched_together(served, archive, tmp_path):
    """If-Range: the part of the old file is thrown away."""
    server, sha256 = served
    other = tmp_path / "old.zip"
    other.write_bytes(bytes(len(archive[0].read_bytes())))
    server.file, server.manners.cut_after = other, [40_000, *[0] * 4]
    with pytest.raises(MissingError):
        bring(server, sha256)
    server.file = archive[0]
    assert bring(server, sha256).read_bytes() == archive[0].read_bytes()
    assert server.requests[-1][1] is not None


def test_length_and_validator_may_be_missing(served, archive):
    server, sha256 = served
    server.manners = Manners(length=False, validator=False)
    totals = []
    path = bring(
        server, sha256, tell=lambda stage, _, total: totals.append(total) if stage == "downloading" else None
    )
    assert path.read_bytes() == archive[0].read_bytes()
    assert set(totals) == {None}


def test_all_was_there_but_the_name(served, archive):
    """Killed between the last byte and the check: the server has nothing more, and that is fine."""
    server, sha256 = served
    server.manners.cut_after = [50_000, *[0] * 4]
    with pytest.raises(MissingError):
        bring(server, sha256)
    next(cache_directory().glob("*.part")).write_bytes(archive[0].read_bytes())
    assert bring(server, sha256).read_bytes() == archive[0].read_bytes()


def test_a_part_that_is_longer_than_the_file_is_given_up(served, archive):
    server, sha256 = served
    server.manners.cut_after = [50_000, *[0] * 4]
    with pytest.raises(MissingError):
        bring(server, sha256)
    next(cache_directory().glob("*.part")).write_bytes(archive[0].read_bytes() + b"more")
    assert bring(server, sha256).read_bytes() == archive[0].read_bytes()


def test_redirects_are_followed(served):
    server, sha256 = served
    server.manners.redirects = 3
    assert bring(server, sha256).exists()
    assert len(server.requests) == 4


def test_another_file_is_kept_beside_and_taken_by_its_hash(served, archive):
    server, sha256 = served
    wrong = "0" * 64
    with pytest.raises(MissingError) as caught:
        bring(server, wrong)
    assert f"its SHA-256 is {sha256}, not {wrong}" in str(caught.value)
    assert f"--sha256 {sha256} takes it" in str(caught.value)
    assert not cached(wrong).exists() and not list(cache_directory().glob("*.part*"))
    assert bring(server, sha256, offline=True).read_bytes() == archive[0].read_bytes()
    assert len(server.requests) == 1


@pytest.mark.parametrize("where", ["ours", "pooch's"])
def test_what_came_outlives_a_check_that_is_interrupted(served, archive, monkeypatch, where):
    """Ctrl-C while the hash is computed, ours or pooch's: nothing is transferred again."""
    server, sha256 = served

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "ours":
            patch.setattr(transfer, "file_sha256", interrupt)
        else:
            patch.setattr("pooch.core.hash_matches", interrupt)
        with pytest.raises(KeyboardInterrupt):
            bring(server, sha256)
    sent = server.sent
    assert bring(server, sha256).read_bytes() == archive[0].read_bytes()
    assert server.sent == sent == archive[0].stat().st_size
    assert {path.name for path in cache_directory().iterdir()} == {
        cached(sha256).name,
        f"{cached(sha256).name}.json",
    }


def test_what_a_killed_check_left_is_removed(served, archive):
    server, sha256 = served
    server.manners.cut_after = [50_000, *[0] * 4]
    with pytest.raises(MissingError):
        bring(server, sha256)
    part = next(cache_directory().glob("*.part"))
    part.write_bytes(archive[0].read_bytes())
    os.link(part, cache_directory() / "tmpkilled")
    (cache_directory() / "tmpother").write_bytes(b"somebody else's")
    bring(server, sha256)
    assert not (cache_directory() / "tmpkilled").exists()
    assert (cache_directory() / "tmpother").exists()


def test_a_check_is_stopped_in_its_midst(served):
    server, sha256 = served
    checking = []

    def tell(stage, *_):
        checking.extend([stage] if stage == "checking" else [])

    with pytest.raises(Interrupted, match=r"SHA-256 .*: the same command goes on"):
        bring(server, sha256, tell=tell, stopped=lambda: bool(checking))
    sent = server.sent
    bring(server, sha256)
    assert server.sent == sent


def test_a_stop_is_heeded_while_the_server_is_silent(served):
    server, sha256 = served
    server.manners.pause = 30.0
    began = time.monotonic()
    with pytest.raises(Interrupted, match="the same command goes on"):
        bring(server, sha256, stopped=lambda: time.monotonic() > began + 0.5)
    assert time.monotonic() < began + server.manners.pause


def test_a_cache_that_cannot_be_written_is_read(served, archive, monkeypatch):
    server, sha256 = served
    path = bring(server, sha256)
    monkeypatch.setattr(caching.os, "access", lambda *_: False)  # root may write anywhere
    assert bring(server, sha256, offline=True) == path
    with pytest.raises(ResourceError, match="cannot write"):
        bring(server, "0" * 64)


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (403, "403 Forbidden")])
def test_a_server_that_says_no_is_believed(served, status, words):
    server, sha256 = served
    server.manners.status = [status]
    with pytest.raises(MissingError, match=f"the server says {words}"):
        bring(server, sha256)
    assert len(server.requests) == 1


def test_a_server_in_trouble_is_asked_again(served):
    server, sha256 = served
    server.manners.status = [503, 500]
    assert bring(server, sha256).exists()
    assert len(server.requests) == 3


def test_no_network_is_one_line():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
        with pytest.raises(MissingError, match="the host refuses the connection"):
            download(url, "0" * 64, "x", offline=False, tell=lambda *_: None, stopped=lambda: False)
    with pytest.raises(MissingError, match=r"cannot download ftp://x/y"):
        download("ftp://x/y", "0" * 64, "x", offline=False, tell=lambda *_: None, stopped=lambda: False)


def test_offline_asks_nobody(served, monkeypatch):
    server, sha256 = served

    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(
        MissingError, match=r"not in the cache \(.*\) and nothing may be downloaded \(--offline\)"
    ):
        bring(server, sha256, offline=True)
    cached(sha256).write_bytes(b"something else")
    with pytest.raises(MissingError, match=r"is not the expected file, and nothing may be downloaded"):
        bring(server, sha256, offline=True)


def test_a_file_put_into_the_cache_by_hand_is_checked_and_taken(served, archive):
    server, sha256 = served
    cached(sha256).write_bytes(archive[0].read_bytes())
    assert bring(server, sha256, offline=True).exists()
    assert not server.requests


def test_a_file_that_was_changed_in_the_cache_comes_again(served, archive):
    server, sha256 = served
    path = bring(server, sha256)
    path.write_bytes(b"x" * path.stat().st_size)
    assert bring(server, sha256).read_bytes() == archive[0].read_bytes()


def test_stopping_keeps_what_came(served, archive):
    server, sha256 = served
    server.manners.pause = 0.01
    count = []

    def stopped():
        count.append(1)
        return len(count) > 2

    with pytest.raises(Interrupted, match="the same command goes on"):
        bring(server, sha256, stopped=stopped)
    kept = next(cache_directory().glob("*.part")).stat().st_size
    assert kept >= 2**12
    server.manners.pause = 0.0
    bring(server, sha256)
    assert server.requests[-1][1] == f"bytes={kept}-"


def test_two_at_once_download_once(served, archive):
    server, sha256 = served
    server.manners.pause = 0.005
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(bring(server, sha256))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [cached(sha256)] * 2
    assert len(server.requests) == 1


def test_space_is_looked_at_first(served, monkeypatch):
    server, sha256 = served
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda path: FakeUsage(1000))
    with pytest.raises(
        ResourceError, match=r"has 1.0KiB free, and \d+.*KiB are to be written, with 64MiB to spare: make"
    ):
        bring(server, sha256)
    assert not list(cache_directory().glob("*.part"))


class Patience:
    """Asks to stop after it was asked so many times."""

    def __init__(self, times):
        self.left = times

    def __call__(self):
        self.left -= 1
        return self.left < 0


class FakeUsage:
    def __init__(self, free):
        self.free = free


# Where files are kept


def test_the_cache_is_where_it_is_told_to_be(tmp_path):
    assert cache_directory() == tmp_path / "cache"
    assert (tmp_path / "cache").is_dir()


def test_without_a_home_the_cache_is_a_temporary_one(tmp_path, monkeypatch):
    monkeypatch.delenv("VEMSEG_CACHE_DIR")
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = cache_directory()
    assert found == tmp_path / f"vemseg-{os.getuid()}"
    assert found.stat().st_mode & 0o777 == 0o700
    found.rmdir()
    (tmp_path / "other").mkdir()
    found.symlink_to(tmp_path / "other")
    with pytest.raises(ResourceError, match="belongs to somebody else"):
        cache_directory()


def test_a_cache_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("VEMSEG_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(ResourceError, match="cannot write"):
        cache_directory()


# Unpacking


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return path


def tarred(path, entries):
    with tarfile.open(path, "w:gz") as file:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def take(archive, wanted, **options):
    quiet = {"unpacked": lambda *_: None, "stopped": lambda: False}
    unpack(archive, {PurePosixPath(name): path for name, path in wanted.items()}, **quiet | options)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_chosen_members_become_files(make, tmp_path):
    archive = make(tmp_path / "a", {"x/one.tif": b"1" * 3000, "x/two.tif": b"2" * 10, "three": b""})
    assert {(str(m.path), m.size) for m in members(archive)} == {
        ("x/one.tif", 3000),
        ("x/two.tif", 10),
        ("three", 0),
    }
    told = []
    take(
        archive,
        {"x/one.tif": tmp_path / "out" / "a.tif", "three": tmp_path / "out" / "b"},
        unpacked=lambda done, total: told.append((done, total)),
    )
    assert (tmp_path / "out" / "a.tif").read_bytes() == b"1" * 3000
    assert (tmp_path / "out" / "b").read_bytes() == b""
    assert told[-1] == (3000, 3000)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.tif", "b"]


def test_what_is_there_is_not_unpacked_again(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"one": b"1" * 9, "two": b"2" * 9})
    (tmp_path / "one").write_bytes(b"kept left")
    (tmp_path / "two").write_bytes(b"short")
    take(archive, {"one": tmp_path / "one", "two": tmp_path / "two"})
    assert (tmp_path / "one").read_bytes() == b"kept left"
    assert (tmp_path / "two").read_bytes() == b"2" * 9


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "a\\..\\out"])
def test_names_that_lead_outside_are_refused(make, name, tmp_path):
    archive = make(tmp_path / "a", {"good": b"1", name: b"2"})
    with pytest.raises(InputError, match=r"not a trustworthy archive: it holds .*, which leads outside"):
        take(archive, {"good": tmp_path / "good"})
    assert not (tmp_path / "good").exists()


def cut(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_tar_archives_are_told_in_one_line(tmp_path, mode, damage):
    noise = np.random.default_rng(0).bytes(300_000)
    with tarfile.open(tmp_path / "a.tar", mode) as file:
        for name in ("one", "two"):
            info = tarfile.TarInfo(name)
            info.size = len(noise)
            file.addfile(info, io.BytesIO(noise))
    data = bytearray((tmp_path / "a.tar").read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    else:
        data[-400_000:-200_000] = bytes(200_000)
    bad = cut(tmp_path / "bad.tar", bytes(data))
    if (mode, damage) == ("w", "changed"):
        return  # a plain TAR has no checksum of its contents
    with pytest.raises(InputError, match=r"damaged|cut off"):
        take(bad, {"one": tmp_path / "out" / "one", "two": tmp_path / "out" / "two"})
    assert not (tmp_path / "out" / "two").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_zip_archives_are_told_in_one_line(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as file:
        file.writestr("one", np.random.default_rng(0).bytes(300_000))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[1000:200_000] = bytes(199_000)
    with pytest.raises(InputError, match="one is damaged"):
        take(cut(tmp_path / "b.zip", bytes(data)), {"one": tmp_path / "one"})
    with pytest.raises(InputError, match="neither a ZIP nor a TAR archive, or one that is cut off"):
        members(cut(tmp_path / "c.zip", bytes(data)[:150_000]))


def test_links_and_devices_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(info)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    for name in ("a.tar", "a.zip"):
        with pytest.raises(InputError, match="'link' is neither file nor folder"):
            members(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("one", "1")
        file.writestr("one", "2")
    with pytest.raises(InputError, match="it holds 'one' twice"):
        members(tmp_path / "a.zip")


def test_a_bomb_that_does_not_fit_the_disk_is_not_lit(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "a.zip", {"zeros": bytes(2**22)})
    assert archive.stat().st_size < 2**13
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda path: FakeUsage(2**26 + 2**20))
    with pytest.raises(ResourceError, match="65MiB free, and 4MiB are to be written"):
        take(archive, {"zeros": tmp_path / "out" / "zeros"})
    assert not (tmp_path / "out" / "zeros").exists()


def test_a_member_that_lies_about_its_size_is_refused(tmp_path, monkeypatch):
    """The header says 10 bytes, and there are 4 MiB: no file appears."""
    archive = zipped(tmp_path / "a.zip", {"zeros": bytes(2**22)})
    data = archive.read_bytes()
    lie = data.replace((2**22).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lie != data
    archive.write_bytes(lie)
    with pytest.raises(InputError, match="zeros"):
        take(archive, {"zeros": tmp_path / "zeros"})
    assert not (tmp_path / "zeros").exists()


def test_damage_is_noticed_and_leaves_nothing(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"noise": np.random.default_rng(0).bytes(100_000)})
    data = bytearray(archive.read_bytes())
    data[50_000:50_010] = b"0123456789"
    archive.write_bytes(data)
    with pytest.raises(InputError, match="noise is damaged"):
        take(archive, {"noise": tmp_path / "noise"})
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["a.zip"]
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(InputError, match="neither a ZIP nor a TAR"):
        members(tmp_path / "text")
    with pytest.raises(MissingError, match="no archive"):
        members(tmp_path / "nothing")
    with pytest.raises(InputError, match="no other in it"):
        take(zipped(tmp_path / "b.zip", {"one": b""}), {"other": tmp_path / "other"})


def test_stopping_leaves_whole_files_and_goes_on(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"one": b"1" * 9, "two": b"2" * 9})
    wanted = {"one": tmp_path / "one", "two": tmp_path / "two"}
    asked = []
    with pytest.raises(Interrupted):
        take(archive, wanted, stopped=lambda: asked.append(1) or len(asked) > 1)
    assert (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()
    take(archive, wanted)
    assert (tmp_path / "two").read_bytes() == b"2" * 9


# BetaSeg


def slow_reference(masks):
    """Return eight classes, voxel by voxel, by the order of trust."""
    order = [
        "centrioles",
        "nucleus_mask",
        "membrane_mask",
        "microtubules",
        "golgi_corrected",
        "granules",
        "mitochondria_mask",
    ]
    labels = np.zeros(SHAPE, np.uint8)
    for place in np.ndindex(SHAPE):
        for number, ending in enumerate(order, start=1):
            if ending in masks and masks[ending][place]:
                labels[place] = number
                break
    return labels


def read(path):
    volume = open_volume(path)
    return volume.read(volume.box)


def test_cells_come_with_their_reference(served, tmp_path):
    server, sha256 = served
    made = fetch_betaseg(tmp_path / "b", cells=CELLS[:2], source=server.url, sha256=sha256)
    names = [path.relative_to(tmp_path / "b").as_posix() for path in made]
    assert names[:4] == [
        f"high_c1/high_c1_{ending}.tif" for ending in ("source", "labels", "labels4", "cell")
    ]
    assert len(names) == 8
    phantom = Phantom(SHAPE, 1, (16.0, 16.0, 16.0))
    masks = masks_of(phantom.labels(Box.whole(SHAPE)), 1)
    eight = slow_reference(masks)
    assert {1, 4, 5, 7} <= set(np.unique(eight))
    assert np.array_equal(read(made[0]), phantom.read(Box.whole(SHAPE)))
    assert np.array_equal(read(made[1]), eight)
    four = np.select([eight == 2, eight == 6, eight == 7], [1, 2, 3], 0)
    assert np.array_equal(read(made[2]), four)
    assert np.array_equal(read(made[3]), masks["membrane_full_mask"] > 0)
    assert open_volume(made[1]).voxel_size == (16.0, 16.0, 16.0)
    assert (tmp_path / "b/high_c1/high_c1_labels4.toml").read_text() == (
        '0 = "unrecognised"\n1 = "nucleus"\n2 = "granules"\n3 = "mitochondria"\n'
    )
    inside = {path.name for path in (tmp_path / "b" / "high_c1").iterdir()}
    assert not [name for name in inside if "mask" in name or "partial" in name]
    note = json.loads((tmp_path / "b/high_c1/high_c1_labels.json").read_text())
    assert note["betaseg"] == {"cell": "high_c1", "sha256": sha256}


def test_the_progress_is_that_of_all_cells(archive, tmp_path):
    told = {}
    context = Context(report=lambda stage, *rest: told.setdefault(stage, []).append(rest))
    fetch_of(archive, tmp_path, cells=CELLS[:2], context=context)
    assert list(told) == ["checking", "unpacking", "labelling"]
    for said in told.values():
        fractions = [fraction for fraction, _ in said]
        assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    assert [detail for _, detail in told["labelling"]] == [
        f"{cell}_{kind}.tif" for cell in CELLS[:2] for kind in ("labels", "labels4", "cell")
    ]


def test_overlaps_go_to_the_most_trusted_mask():
    """The order of Han et al. (CVPRW 2022), from its configuration."""
    assert [name for name, _ in MASKS.values()] == [
        "centrioles",
        "nucleus",
        "membrane",
        "microtubules",
        "golgi",
        "granules",
        "mitochondria",
    ]


def test_the_same_command_again_does_nothing(served, tmp_path):
    server, sha256 = served
    options = {"cells": CELLS[:1], "source": server.url, "sha256": sha256}
    first = fetch_betaseg(tmp_path / "b", **options)
    times = [path.stat().st_mtime_ns for path in first]
    next(cache_directory().glob("betaseg*.zip")).unlink()
    assert fetch_betaseg(tmp_path / "b", **options) == first
    assert [path.stat().st_mtime_ns for path in first] == times
    assert len(server.requests) == 1


def test_parts_are_chosen(archive, tmp_path):
    options = {"cells": CELLS[:1], "source": str(archive[0]), "sha256": archive[1]}
    only = fetch_betaseg(tmp_path / "s", parts=["source"], **options)
    assert [path.name for path in only] == ["high_c1_source.tif"]
    assert {path.name for path in only[0].parent.iterdir()} == {"high_c1_source.tif", "high_c1_archive.json"}
    masks = fetch_betaseg(tmp_path / "m", parts=["masks"], **options)
    assert len(masks) == 7
    assert all(path.exists() for path in masks)
    labels = fetch_betaseg(tmp_path / "m", parts=["labels"], **options)
    assert [path.name for path in labels] == [f"high_c1_{e}.tif" for e in ("labels", "labels4", "cell")]
    assert all(path.exists() for path in masks)  # those that were asked for stay


def test_a_stopped_fetch_goes_on(served, tmp_path):
    server, sha256 = served
    options = {"cells": CELLS[:2], "source": server.url, "sha256": sha256}
    interruptions, patience = 0, 1
    while True:
        try:
            fetch_betaseg(tmp_path / "b", context=Context(stopped=Patience(patience)), **options)
            break
        except Interrupted:
            interruptions, patience = interruptions + 1, patience + 3
    assert interruptions > 3
    made = fetch_betaseg(tmp_path / "b", **options)
    other = fetch_betaseg(tmp_path / "c", **options)
    assert all(np.array_equal(read(a), read(b)) for a, b in zip(made, other, strict=True))


def test_unknown_cells_and_parts_name_the_nearest(tmp_path):
    with pytest.raises(UsageError, match=r"no cell 'high_5' in BetaSeg \(did you mean 'high_c"):
        fetch_betaseg(tmp_path, cells=["high_5"])
    with pytest.raises(UsageError, match=r"no part 'lables' in BetaSeg \(did you mean 'labels'\?\)"):
        fetch_betaseg(tmp_path, parts=["lables"])


def test_an_archive_of_another_layout_is_told(tmp_path):
    other = zipped(tmp_path / "o.zip", {"readme.txt": b"hello", "cells/c1.tif": b""})
    import hashlib

    sha256 = hashlib.sha256(other.read_bytes()).hexdigest()
    with pytest.raises(
        InputError,
        match=r"not have the layout of BetaSeg: no high_c1_source\.tif in it \(it begins with readme",
    ):
        fetch_betaseg(tmp_path / "b", source=str(other), sha256=sha256)
    assert not (tmp_path / "b").exists()
    with pytest.raises(MissingError, match=f"its SHA-256 is {sha256}, not .*--sha256 {sha256} takes it"):
        fetch_betaseg(tmp_path / "b", source=str(other))
    with pytest.raises(MissingError, match="no archive"):
        fetch_betaseg(tmp_path / "b", source="nothing.zip")


def test_a_mask_of_another_shape_is_told(tmp_path):
    import hashlib

    import tifffile

    make_archive(tmp_path / "a.zip", CELLS[:1])
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((3, 4, 5), np.uint8), photometric="minisblack")
    with zipfile.ZipFile(tmp_path / "a.zip") as old, zipfile.ZipFile(tmp_path / "b.zip", "w") as new:
        for name in old.namelist():
            bad = name.endswith("membrane_full_mask.tif")
            new.writestr(name, (tmp_path / "m.tif").read_bytes() if bad else old.read(name))
    sha256 = hashlib.sha256((tmp_path / "b.zip").read_bytes()).hexdigest()
    with pytest.raises(
        InputError, match=r"full_mask\.tif has shape \(3, 4, 5\), but .*source\.tif has \(24, 96, 100\)"
    ):
        fetch_betaseg(tmp_path / "b", cells=CELLS[:1], source=str(tmp_path / "b.zip"), sha256=sha256)
    assert not (tmp_path / "b/high_c1/high_c1_cell.tif").exists()
    assert not (tmp_path / "b/high_c1/high_c1_labels.tif").exists()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Return an archive of other cells of the same shapes and sizes, and its SHA-256."""
    path = tmp_path_factory.mktemp("other") / "other.zip"
    return path, make_archive(path, ("high_c2", "high_c1"))


def whose(folder, *archives):
    """Tell of which archive each file of a cell is, by what it shows."""
    found = {}
    for path in sorted(folder.glob("high_c1_*.tif")):
        data = read(path)
        found[path.stem.removeprefix("high_c1_")] = [
            i for i, made in enumerate(archives) if same(data, made, path)
        ]
    return found


def same(data, made, path):
    return np.array_equal(data, read(made / path.name))


def fetch_of(archive, out, **options):
    words = {"cells": CELLS[:1], "source": str(archive[0]), "sha256": archive[1]}
    return fetch_betaseg(out, **words | options)


def test_files_of_two_archives_are_never_mixed(archive, other, tmp_path):
    ours, theirs = (
        fetch_of(a, tmp_path / n, parts=["source", "labels", "masks"])[0].parent
        for a, n in ((archive, "ours"), (other, "theirs"))
    )
    mixed = tmp_path / "mixed"
    fetch_of(archive, mixed)
    before = {path: path.read_bytes() for path in (mixed / "high_c1").iterdir()}
    for parts in (["labels"], ["source"], ["masks"], ["source", "labels"]):
        with pytest.raises(OutputExistsError, match="holds files of another archive: -f replaces them"):
            fetch_of(other, mixed, parts=parts)
    assert {path: path.read_bytes() for path in (mixed / "high_c1").iterdir()} == before
    fetch_of(other, mixed, parts=["labels"], overwrite=True)
    assert whose(mixed / "high_c1", ours, theirs) == {"labels": [1], "labels4": [1], "cell": [1]}
    fetch_of(other, mixed)
    fetch_of(archive, mixed, overwrite=True)
    assert set(map(tuple, whose(mixed / "high_c1", ours, theirs).values())) == {(0,)}


@pytest.mark.parametrize("patience", [0, 1, 3, 8])
def test_a_replacement_that_was_stopped_goes_on_with_the_new_archive(archive, other, tmp_path, patience):
    theirs = fetch_of(other, tmp_path / "theirs")[0].parent
    fetch_of(archive, tmp_path / "b")
    with pytest.raises(Interrupted):
        fetch_of(other, tmp_path / "b", overwrite=True, context=Context(stopped=Patience(patience)))
    with pytest.raises(OutputExistsError) if patience else contextlib.nullcontext():
        fetch_of(archive, tmp_path / "b")
    if patience:
        fetch_of(other, tmp_path / "b")
        assert set(map(tuple, whose(tmp_path / "b" / "high_c1", theirs).values())) == {(0,)}


def test_another_archive_is_refused_before_it_is_downloaded(served, archive, other, tmp_path):
    server, _ = served
    fetch_of(archive, tmp_path / "b")
    with pytest.raises(OutputExistsError):
        fetch_of(other, tmp_path / "b", source=server.url)
    assert not server.requests


def test_files_that_say_not_where_they_are_from_are_not_taken_for_ours(archive, tmp_path):
    (tmp_path / "high_c1").mkdir()
    (tmp_path / "high_c1" / "high_c1_source.tif").write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        fetch_of(archive, tmp_path)
    assert (tmp_path / "high_c1" / "high_c1_source.tif").read_bytes() == b"mine"


def test_a_mask_that_is_gone_comes_again(archive, tmp_path):
    made = fetch_of(archive, tmp_path, parts=["masks"])
    made[3].unlink()
    assert fetch_of(archive, tmp_path, parts=["masks"]) == made
    assert made[3].exists()


def test_several_fetch_into_one_folder(archive, tmp_path):
    errors = []

    def fetch():
        try:
            fetch_of(archive, tmp_path / "b")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    alone = fetch_of(archive, tmp_path / "c")[0].parent
    assert set(map(tuple, whose(tmp_path / "b" / "high_c1", alone).values())) == {(0,)}
    assert not [p for p in (tmp_path / "b" / "high_c1").iterdir() if "partial" in p.name or "lock" in p.name]


def test_what_a_killed_unpacking_left_is_removed(archive, tmp_path):
    (tmp_path / "high_c1").mkdir()
    left = tmp_path / "high_c1" / ".partial-high_c1_source.tif"
    left.write_bytes(b"half")
    fetch_of(archive, tmp_path)
    assert not left.exists()


@pytest.mark.parametrize("sha256", ["abc", "../../x", "g" * 64, "sha256:" + "0" * 64])
def test_what_is_no_hash_is_refused_first(tmp_path, sha256):
    with pytest.raises(UsageError, match="is not a SHA-256: give 64 hexadecimal digits"):
        fetch_betaseg(tmp_path / "b", source="http://127.0.0.1:9/", sha256=sha256)
    assert not cache_directory().joinpath("..", "b").exists()


def test_blanks_and_capitals_of_a_hash_and_an_address_do_not_matter(served, tmp_path):
    server, sha256 = served
    address = server.url.replace("http", "HTTP")
    assert fetch_of((address, f" {sha256.upper()}\n"), tmp_path, parts=["source"])[0].exists()
    with pytest.raises(UsageError, match="give an http or https address, or a file"):
        fetch_of(("ftp://127.0.0.1/x", sha256), tmp_path, parts=["labels"])


def test_a_file_that_comes_twice_is_told(tmp_path):
    sha256 = make_archive(tmp_path / "a.zip", CELLS[:1], extra={"old/high_c1/high_c1_granules.tif": b"x"})
    with pytest.raises(
        InputError, match=r"not have the layout of BetaSeg: high_c1_granules\.tif comes twice"
    ):
        fetch_of((tmp_path / "a.zip", sha256), tmp_path / "b")


# Through the command


@pytest.fixture
def vemseg(programs, tmp_path):
    """Return what runs the program as a process of its own."""

    def run(*words, run=programs.run, **environment):
        places = {"VEMSEG_CACHE_DIR": os.environ["VEMSEG_CACHE_DIR"], **environment}
        return run(tmp_path, *words, **places)

    return run


def betaseg_words(server, sha256, out):
    return ["fetch", "betaseg", "--from", server.url, "--sha256", sha256, "--cells", "high_c1", "-o", out]


def test_the_command_prints_paths_and_speaks_plainly(vemseg, served, tmp_path):
    server, sha256 = served
    words = betaseg_words(server, sha256, tmp_path / "b")
    done = vemseg(*words)
    assert done.code == 0, done.err
    assert [Path(line).name for line in done.out.splitlines()] == [
        f"high_c1_{ending}.tif" for ending in ("source", "labels", "labels4", "cell")
    ]
    assert "downloading 100 %" in done.err
    assert "\x1b" not in done.err
    assert "Traceback" not in done.err
    off = vemseg("fetch", "betaseg", "-o", tmp_path / "c", VEMSEG_OFFLINE="1")
    assert (off.code, off.out) == (5, "")
    assert off.err.count("\n") == 1


def test_a_terminated_download_exits_75_and_goes_on(programs, vemseg, served, tmp_path):
    server, sha256 = served
    server.manners.pause = 0.2
    words = betaseg_words(server, sha256, tmp_path / "b")
    program = vemseg(*words, run=programs.start)
    parts = cache_directory().glob
    program.until(lambda: any(part.stat().st_size for part in parts("*.part")))  # a first piece has come
    program.send(signal.SIGTERM)
    ended = program.wait()
    assert (ended.code, ended.out) == (75, ""), ended.err
    assert "the same command goes on" in ended.err
    server.manners.pause = 0.0
    assert vemseg(*words).code == 0
    assert server.requests[-1][1] is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_is_exit_code_4(vemseg, served, tmp_path):
    server, sha256 = served
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=False).returncode:
        pytest.skip("no right to mount")
    try:
        words = ["fetch", "betaseg", "--from", server.url, "--sha256", sha256, "-o", tmp_path / "b"]
        done = vemseg(*words, VEMSEG_CACHE_DIR=str(small))
        assert done.code == 4, done.err
        assert done.err.splitlines()[-1].startswith("vemseg: error: ")
        server.manners.length = False  # then it is noticed only when it happens
        done = vemseg(*words, VEMSEG_CACHE_DIR=str(small))
        assert done.code == 4, done.err
        assert "No space left" in done.err
    finally:
        subprocess.run(["umount", small], check=True)
    assert not (tmp_path / "b").exists()


def test_weights_are_listed_and_found(vemseg):
    listed = vemseg("fetch", "weights", "--json")
    entries = {entry["name"]: entry for entry in json.loads(listed.out)}
    assert {"vemseg", "maester", "maester-betaseg"} <= set(entries)
    assert entries["vemseg"]["licence"].startswith("BSD")
    found = vemseg("fetch", "weights", "vemseg")
    assert (Path(found.out.strip()) / "model.safetensors").exists()
    one = json.loads(vemseg("fetch", "weights", "vemseg", "--json").out)
    assert one == entries["vemseg"]
    released = vemseg("fetch", "weights", "maester-betaseg")
    assert (released.code, released.out) == (5, "")
    assert "vemseg fetch weights --from model.pt" in released.err
    missing = vemseg("fetch", "weights", "vemsag")
    assert missing.code == 5
    assert "did you mean 'vemseg'?" in missing.err
