"""A stand-in for the host of BetaSeg: a miniature archive of the same layout, of phantoms, and a server.

    python tests/stand_in.py FOLDER      make the archive, serve it on 127.0.0.1, say how to fetch from it

The server can misbehave as real ones do: cut connections, know no ranges, give no length, redirect, be slow.
"""

import hashlib
import re
import sys
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import tifffile

from vemseg.geometry import Box
from vemseg.phantom import CLASSES, Phantom

CELLS = ("high_c1", "high_c2", "high_c3", "high_c4")
SHAPE = (24, 96, 100)


def masks_of(labels, seed=0):
    """Return overlapping binary masks (0 or 255) by the endings of BetaSeg's files."""
    number = {name: k for k, name in CLASSES.items()}
    rng = np.random.default_rng(seed)

    def of(*names):
        return np.isin(labels, [number[name] for name in names])

    masks = {
        "nucleus_mask": of("nucleus"),
        "mitochondria_mask": of("mitochondrion"),
        "granules": of("granule"),
        "golgi_corrected": of("vesicle"),
        "microtubules": rng.random(labels.shape) < 0.01,
        "centrioles": np.zeros(labels.shape, bool),
    }
    masks["centrioles"][4:8, 40:46, 40:46] = True
    masks["golgi_corrected"][:, 10:30, 10:30] |= rng.random((len(labels), 20, 20)) < 0.5  # within other masks
    masks["membrane_full_mask"] = labels > 0
    return {ending: mask.astype(np.uint8) * 255 for ending, mask in masks.items()}


def make_archive(path, cells=CELLS, shape=SHAPE, extra=None):
    """Write the archive; ``extra`` maps further names in it to bytes. Return its SHA-256."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("download/", b"")
        for seed, cell in enumerate(cells, start=1):
            phantom = Phantom(shape, seed, (16.0, 16.0, 16.0))
            box = Box.whole(shape)
            files = {"source": phantom.read(box), **masks_of(phantom.labels(box), seed)}
            for ending, array in files.items():
                name = f"{cell}_{ending}.tif"
                tifffile.imwrite(path.with_name(name), array, photometric="minisblack")
                archive.write(path.with_name(name), f"download/{cell}/{name}")
                path.with_name(name).unlink()
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Manners:
    """How the server behaves.

    Attributes
    ----------
    cut_after : list of int
        Bytes after which the next answers break off, one after the other; then it gives all.
    ranges, length, validator : bool
        Whether it knows ranges, says the length, gives an ETag.
    pause : float
        Seconds between pieces of 16 kB.
    status : list of int
        What the next answers are, instead of the file.
    redirects : int
        Times that it sends on before it gives the file.
    """

    cut_after: list = field(default_factory=list)
    ranges: bool = True
    length: bool = True
    validator: bool = True
    pause: float = 0.0
    status: list = field(default_factory=list)
    redirects: int = 0


class Server:
    """Serves one file on 127.0.0.1, at every path; remembers what it was asked for."""

    def __init__(self, file, manners=None):
        self.file, self.manners = Path(file), manners or Manners()
        self.requests, self.sent = [], 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_port}/index.php/s/stand-in/download"
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._httpd.shutdown()
        self._httpd.server_close()

    @property
    def tag(self):
        return f'"{hashlib.sha256(self.file.read_bytes()).hexdigest()[:16]}"'

    def answer(self, handler):
        manners, data = self.manners, self.file.read_bytes()
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        handler.close_connection = True
        if manners.status:
            return self._end(handler, manners.status.pop(0))
        if manners.redirects:
            manners.redirects -= 1
            handler.send_response(302)
            handler.send_header("Location", f"{handler.path}?again={manners.redirects}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return None
        start = 0
        condition = handler.headers.get("If-Range")
        if asked and manners.ranges and condition in (None, self.tag):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(data):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(data)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return None
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            handler.send_response(200)
        if manners.validator:
            handler.send_header("ETag", self.tag)
        if manners.length:
            handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("Connection", "close")
        handler.end_headers()
        return self._send(handler, data[start:])

    def _end(self, handler, status):
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _send(self, handler, data):
        stop = self.manners.cut_after.pop(0) if self.manners.cut_after else len(data)
        for at in range(0, min(stop, len(data)), 2**14):
            piece = data[at : min(at + 2**14, stop)]
            try:
                handler.wfile.write(piece)
            except OSError:
                return
            self.sent += len(piece)
            if self.manners.pause:
                time.sleep(self.manners.pause)
        if stop < len(data):
            handler.connection.close()


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    digest = make_archive(folder / "stand_in.zip")
    with Server(folder / "stand_in.zip") as server:
        print(f"vemseg fetch betaseg --from {server.url} --sha256 {digest}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
