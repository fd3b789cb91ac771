"""Fixtures shared by the tests."""

import http.server
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.register_assert_rewrite("commands")

from commands import SMALL_BLOCKS, command, essence, run_all  # noqa: E402
from injection import compiled  # noqa: E402
from processes import COARSE, Programs  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


TOGETHER = (
    *("test_adversity", "test_kills", "test_out_of_memory", "test_reproducible", "test_same_files"),
    *("test_after_labels", "test_exit_codes", "test_fetch", "test_supervised"),
)
"""Files that use ``programs``, most of them ``made`` too: one worker runs them all and makes these once."""

LONG = (
    *("test_training", "test_sampling", "test_pipeline", "test_self_distilled_runs", "test_plan", "test_cli"),
    *("test_invariance", "test_labelling", "test_choosing", "test_named", "test_gallery", "test_report"),
    *("test_background", "test_again", "test_sccs", "test_objects", "test_writers", "test_volume_write"),
    *("test_distilled", "test_self_distilled", "test_recognition", "test_refine", "test_mutants"),
    *("test_surroundings", "test_compare", "test_tissue", "test_maester", "test_dense", "test_start"),
)
"""Files of many seconds, which come early, so that no worker ends long before another."""


def pytest_collection_modifyitems(items):
    """Let the longest files come first."""
    order = {name: place for place, name in enumerate((*TOGETHER, *LONG))}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each file to one worker, and all that are in ``TOGETHER`` to the same one."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "together" if Path(file).stem in TOGETHER else file

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def coarse():
    """Draw pictures with fewer dots than usual where a test does not say how many."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in COARSE.items():
            patch.setattr(name, value)
        yield


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Yield what runs the program as processes of their own."""
    folder = tmp_path_factory.mktemp("streams")
    server = Programs(folder, compiled(folder))
    yield server
    server.close()


@pytest.fixture(scope="session")
def vulnerable(programs):
    """Return ``programs``; skip where no fault can be put into their operations on files."""
    if programs.library is None:
        pytest.skip("no C compiler: faults cannot be put into operations on files")
    return programs


@pytest.fixture(scope="session")
def course(programs, tmp_path_factory):
    """Run every command once; return the folder, where nothing may be changed, and how each ended."""
    folder = tmp_path_factory.mktemp("made")
    return folder, run_all(programs, folder)


@pytest.fixture(scope="session")
def made(course):
    """Return the folder in which every command ran."""
    folder, ended = course
    assert [one.err for one in ended.values() if one.code] == []
    return folder


@pytest.fixture(scope="session")
def uninterrupted(programs, made, tmp_path_factory):
    """Return a function: what a long command makes without a stop, as ``essence`` shows it."""
    found = {}

    def of(verb):
        if verb not in found:
            folder = tmp_path_factory.mktemp(verb)
            ended = programs.run(folder, *command(verb, made, steps=60), changes=SMALL_BLOCKS)
            assert ended.code == 0, ended.err
            found[verb] = essence(verb, folder)
        return found[verb]

    return of


@pytest.fixture
def real_volume() -> Callable[..., Path]:
    """Return a function: the folder of a real volume, or a file in it; skips where it is absent."""

    def find(name: str, file: str | None = None) -> Path:
        data = Path(os.environ.get("VEMSEG_TEST_DATA", ROOT.parent / "shared" / "data"))
        path = data / name if file is None else data / name / file
        if not path.exists():
            pytest.skip(f"{path} is absent: set VEMSEG_TEST_DATA to the folder of real volumes")
        return path

    return find


@pytest.fixture
def served(tmp_path):
    """Serve a folder over HTTP, to pages in a browser too; yield its address and the requests that came."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            file = tmp_path / self.path.lstrip("/")
            if not file.is_file():
                return self.send_error(404)
            data, wanted = file.read_bytes(), self.headers.get("Range")
            if wanted:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start = int(first) if first else len(data) - int(last)
                stop = int(last) + 1 if first and last else len(data)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
                data = data[start:stop]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{file.stat().st_mtime_ns}"')
            self.end_headers()
            self.wfile.write(data)

        def do_HEAD(self):
            file = tmp_path / self.path.lstrip("/")
            if not file.is_file():
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(file.stat().st_size))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()

        def do_OPTIONS(self):
            self.send_response(204)
            self.end_headers()

        def end_headers(self):
            for what in ("Allow-Origin", "Allow-Methods", "Allow-Headers", "Expose-Headers"):
                self.send_header(f"Access-Control-{what}", "*")
            super().end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()
