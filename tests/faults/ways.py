"""What the campaign of kills runs: every command, in every form of output that it knows."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import stand_in
import test_openorganelle
from commands import OUT, VERBS, command

from vemseg.pipeline.fetch import fetch_phantom
from vemseg.run import sha256

GOLDEN = Path(__file__).parents[1] / "golden" / "maester_small_weights.pt"

LABELS = ("labels.tif", "labels.json", "labels.csv", "labels_qc.png", "labels_clusters.safetensors")
Args = list[object]


@dataclass(frozen=True)
class Way:
    """A command that is hit, and what is around it.

    Attributes
    ----------
    command : callable
        Takes the folder of what is made already, and returns arguments.
    out : str
        The main output.
    found : tuple of str
        What of the folder lies where the outputs come, before the command begins.
    before, after : callable
        Arguments of commands that run undisturbed, earlier and later.
    edited : bool
        Whether finished TIFFs are edited where they lie; what was replaced stays in them as unused bytes.
    varies : bool
        Whether a training by the clock is a part of it, so that only names can be compared.
    """

    command: Callable[[Path], Args]
    out: str
    found: tuple[str, ...] = ()
    before: Callable[[Path], list[Args]] = lambda made: []
    after: Callable[[Path], list[Args]] = lambda made: []
    edited: bool = False
    varies: bool = False


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing of requests."""


def lay(made: Path) -> ThreadingHTTPServer:
    """Write what ways read beside the outputs of the commands; return a server of it, to be shut down."""
    shutil.copy(GOLDEN, made / "golden.pt")
    (made / "names.toml").write_text('1 = "dark"\n2 = "grey"\n3 = "bright"\n')
    stand_in.make_archive(made / "archive.zip", ("high_c1",), (8, 50, 50))
    test_openorganelle.lay_bucket(made / "bucket")
    fetch_phantom(made / "image.ome.zarr", (16, 64, 64), 0, (16.0, 16.0, 16.0))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=made / "bucket"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (made / "address").write_text(f"http://127.0.0.1:{server.server_address[1]}")
    return server


def _segment(*more, out="labels.tif"):
    return lambda made: [*command("segment", made, out=out), *more]


def _regions(made):
    return [
        *("segment", made / "cell.tif", "-m", "classical", "-k", 3, "--regions", "slic"),
        *("--crop", "0:4,:,:", "-o", "labels.tif"),
    ]


def _shard(verb, number):
    return lambda made: [*command(verb, made), "--shard", f"{number}/2"]


def _finalize(verb):
    return lambda made: [*command(verb, made), "--finalize"]


def _shared(verb):
    """Return a task of a batch array, and the end of one, as ways."""
    return {
        f"{verb} --shard": Way(
            _shard(verb, 1), OUT[verb], after=lambda made: [_shard(verb, 2)(made), _finalize(verb)(made)]
        ),
        f"{verb} --finalize": Way(
            _finalize(verb), OUT[verb], before=lambda made: [_shard(verb, n)(made) for n in (1, 2)]
        ),
    }


def _of_labels(verb, out, *more):
    return Way(lambda made: [verb, made / "labels.tif", *more, "-o", out], out)


SEGMENT = {
    f"segment {name}": Way(_segment(*more, out=out), out)
    for name, out, more in (
        ("ome-zarr", "labels.ome.zarr", ()),
        ("ngff 0.4", "labels.ome.zarr", ("--ngff", "0.4")),
        ("hdf5", "labels.h5", ()),
        ("precomputed", "labels.precomputed", ()),
        ("scores", "labels.tif", ("--scores", "scores.ome.zarr", "--confidence", "confidence.tif")),
    )
}
OVERWRITE = ("--crop", "0:8,:,:", "-f")

WAYS = {
    **{verb: Way(lambda made, verb=verb: command(verb, made), OUT[verb]) for verb in VERBS},
    "fetch ome-zarr": Way(
        lambda made: ["fetch", "phantom", "--shape", "16,64,64", "-o", "cell.ome.zarr"], "cell.ome.zarr"
    ),
    "fetch weights": Way(
        lambda made: ["fetch", "weights", "--from", made / "golden.pt", "-o", "imported"], "imported"
    ),
    "fetch betaseg": Way(
        lambda made: [
            *("fetch", "betaseg", "--cells", "high_c1", "--only", "source,labels,masks", "-o", "cells"),
            *("--from", made / "archive.zip", "--sha256", sha256(made / "archive.zip")),
        ],
        "cells",
    ),
    "fetch openorganelle": Way(
        lambda made: [
            *("fetch", "openorganelle", "jrc_a", "--from", (made / "address").read_text()),
            *("--crop", "8:24,0:64,0:64", "-o", "crop.ome.zarr"),
        ],
        "crop.ome.zarr",
    ),
    **SEGMENT,
    "segment --into": Way(
        lambda made: [
            *("segment", "image.ome.zarr", "-m", made / "run", "--clusters", made / "three.safetensors"),
            *("--into", "image.ome.zarr", "--name", "classes"),
        ],
        "image.ome.zarr",
        found=("image.ome.zarr",),
    ),
    "segment -k": Way(
        lambda made: ["segment", made / "cell.tif", "-m", made / "run", "-k", 3, "-o", "labels.tif"],
        "labels.tif",
    ),
    "segment --regions": Way(_regions, "labels.tif"),
    "segment --names": Way(
        lambda made: [*command("segment", made), "--names", made / "names.toml"],
        "labels.tif",
        found=LABELS,
        edited=True,
    ),
    "segment -f": Way(_segment(*OVERWRITE), "labels.tif", found=LABELS),
    "segment --adapt": Way(
        lambda made: [
            *("segment", made / "cell.tif", "-m", made / "run", "-k", 3, "--adapt", "1s", "-o", "labels.tif")
        ],
        "labels.tif",
        varies=True,
    ),
    **_shared("segment"),
    **_shared("embed"),
    "embed --regions": Way(
        lambda made: [
            *("embed", made / "cell.tif", "-m", "classical", "--set", "regions.method=slic"),
            *("--crop", "0:4,:,:", "-o", "cell.zarr"),
        ],
        "cell.zarr",
    ),
    "refine": _of_labels("refine", "clean.tif", "--merge", "1,2=dark", "--smooth", 1, "--min-size", 20),
    "refine ome-zarr": _of_labels("refine", "clean.ome.zarr", "--min-size", 20),
    "refine --into": Way(
        lambda made: [
            *("refine", made / "labels.tif", "--map", "1=2", "--into", "image.ome.zarr", "--name", "clean")
        ],
        "image.ome.zarr",
        found=("image.ome.zarr",),
    ),
    "objects": _of_labels("objects", "objects.tif"),
    "objects ome-zarr": _of_labels("objects", "objects.ome.zarr"),
    "objects hdf5": _of_labels("objects", "objects.h5", "--class", 2),
    "report": Way(
        lambda made: [
            *("report", made / "labels.tif", "--volume", made / "cell.tif"),
            *("--features", made / "cell.zarr", "-o", "report.html"),
        ],
        "report.html",
    ),
}
