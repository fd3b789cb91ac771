"""Fixtures shared by the tests."""

import http.server
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Programs

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Yield what runs the program as processes of their own."""
    server = Programs(tmp_path_factory.mktemp("streams"))
    yield server
    server.close()


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
