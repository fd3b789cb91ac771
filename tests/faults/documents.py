"""A campaign of damaged and hostile documents: every reader must refuse them in one line, or read them.

Documents are mutated as bytes (flipped, cut off, pieces doubled) and, where they are JSON, as values (other
types, huge numbers, deep nesting, missing entries). A case that ends in anything but an error of the package
is made smaller, as long as it still does, and written to ``--keep``.

    PYTHONPATH=.:tests:tests/faults python tests/faults/documents.py --cases 100000 --keep found

The quick part is ``test_documents.py``.
"""

import argparse
import asyncio
import concurrent.futures
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from vemseg.catalog.archive import members
from vemseg.cli import parsing
from vemseg.cli.tables import class_table
from vemseg.dense import Wanted
from vemseg.errors import VemsegError
from vemseg.features import Features
from vemseg.geometry import Box
from vemseg.labelling import load
from vemseg.models import import_maester
from vemseg.pipeline.beside import classes_of, rename
from vemseg.pipeline.cluster import cluster
from vemseg.pipeline.embed import embed
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.segment import segment
from vemseg.recipe import load_recipe
from vemseg.run import Output, Run
from vemseg.volume import open_volume, record, rename_labels

GOLDEN = Path(__file__).parents[1] / "golden" / "maester_small_weights.pt"
LONGEST = 500
"""Most characters of a message, the path left out."""

DEEP = "[" * 5000
ODD = (None, True, -1, 0, 2**70, 1e308, "", "x" * 3000, [], {}, [[]], {"a": [1]}, "../../etc/passwd", "\0")
"""Values that stand where something else is due."""


@dataclass(frozen=True)
class Reader:
    """A kind of document.

    Attributes
    ----------
    whole : Path
        The file, or the folder that holds it, undamaged.
    read : callable
        Reads a copy of ``whole``.
    inner : str
        Name of the file that is mutated; "" where ``whole`` is that file.
    as_json : bool
        Whether it is mutated as values too.
    """

    whole: Path
    read: object
    inner: str = ""
    as_json: bool = False

    def wrong(self, data, place):
        """Return what is wrong with how mutated bytes are read; None where all is well."""
        target = place / self.whole.name
        if self.whole.is_dir():
            shutil.copytree(self.whole, target, dirs_exist_ok=True)
        (target / self.inner if self.inner else target).write_bytes(data)
        try:
            self.read(target)
        except VemsegError as error:
            text = str(error).replace(str(place), "")
            return f"a message of {len(text)} characters" if len(text) > LONGEST or "\n" in text else None
        except BaseException as error:
            return f"{type(error).__name__}: {error}"[:300]
        return None

    def original(self):
        return (self.whole / self.inner if self.inner else self.whole).read_bytes()


def readers(folder):
    """Return all readers by name, each with an undamaged document."""
    grey, _ = fetch_phantom(folder / "cell.ome.zarr", (8, 32, 32), 0, (16.0, 16.0, 16.0))
    features = embed(Wanted(str(grey), "classical"), folder / "features.zarr")
    clusters = cluster([features], folder / "two.safetensors", settings=["cluster.k=2", "cluster.restarts=1"])
    (folder / "labelled").mkdir()
    segment(Wanted(str(features)), folder / "labelled" / "two.ome.zarr", clusters=clusters)
    with Run.create(folder / "run", load_recipe("invariance")) as run:
        run.append_metrics({"step": 1, "loss": 0.5})
        run.finish()
    (folder / "names.toml").write_text('1 = "nucleus"\n2 = "granule"\n')
    (folder / "recipe.toml").write_text(load_recipe("invariance").to_toml())
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a/b.tif", bytes(100))
    with tarfile.open(folder / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(folder / "names.toml", "a/" + "größe" * 30)
    shutil.copy(GOLDEN, folder / "golden.pt")
    return {
        "names": Reader(folder / "names.toml", lambda path: parsing.names(str(path))),
        "recipe": Reader(folder / "recipe.toml", load_recipe),
        "run": Reader(folder / "run", _read_run, "run.json", as_json=True),
        "metrics": Reader(folder / "run", _read_run, "metrics.jsonl"),
        "settings of a run": Reader(folder / "run", _read_run, "recipe.toml"),
        "features": Reader(folder / "features.zarr", _read_features, "zarr.json", as_json=True),
        "vectors": Reader(folder / "features.zarr", _read_features, "vectors/zarr.json", as_json=True),
        "clusters": Reader(clusters, load),
        "image": Reader(grey, _read_volume, "zarr.json", as_json=True),
        "level": Reader(grey, _read_volume, "0/zarr.json", as_json=True),
        "old image": Reader(_of_zarr_2(folder / "old.zarr"), _read_volume, ".zattrs", as_json=True),
        "old level": Reader(folder / "old.zarr", _read_volume, "0/.zarray", as_json=True),
        "n5": Reader(_of_n5(folder / "cell.n5"), _read_volume, "attributes.json", as_json=True),
        "description": Reader(folder / "labelled", _rename, "two.json", as_json=True),
        "labels": Reader(folder / "labelled", _rename, "two.ome.zarr/zarr.json", as_json=True),
        "zip": Reader(folder / "a.zip", members),
        "tar": Reader(folder / "a.tar", members),
        "checkpoint": Reader(folder / "golden.pt", import_maester),
    }


def _of_zarr_2(path):
    """Write an OME-Zarr image of NGFF 0.4; return its path."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=np.arange(256, dtype=np.uint8).reshape(4, 8, 8), chunks=(4, 4, 4))
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [16.0, 16.0, 16.0]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]
    return path


def _of_n5(path):
    """Write an N5 array that has no block yet, so its voxels are 0; return its path."""
    size = {"dimensions": [16, 12, 8], "blockSize": [8, 8, 4], "dataType": "uint8"}
    resolution = {"pixelResolution": {"unit": "nm", "dimensions": [8, 8, 8]}}
    path.mkdir()
    about = {"n5": "2.0.0", **size, **resolution, "compression": {"type": "raw"}}
    (path / "attributes.json").write_text(json.dumps(about))
    return path


def mutated(data, chance, as_json):
    """Return a document with one to four random changes."""
    if as_json and chance.random() < 0.8:
        try:
            return json.dumps(_changed(json.loads(data), chance)).encode().replace(b'"DEEP"', DEEP.encode())
        except ValueError:
            pass
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        length = min(chance.choice((1, 1, 4, 40)), len(changed) - at)
        kind = chance.randrange(5)
        if kind == 0:
            changed[at : at + length] = chance.randbytes(length)
        elif kind == 1:
            del changed[at : at + length]
        elif kind == 2:
            changed[at:at] = changed[at : at + length] * chance.choice((1, 3))
        elif kind == 3:
            changed[at:at] = chance.choice((DEEP, "9" * 5000, "\0", "=", '"', "{", "é")).encode("latin-1")
        else:
            del changed[at + chance.randint(0, 100) :]
    return bytes(changed)


def _changed(value, chance):
    """Return a JSON value in which one entry, deep down, is missing or another."""
    if isinstance(value, dict) and value:
        key = chance.choice(sorted(value))
        if chance.random() < 0.15:
            return {name: held for name, held in value.items() if name != key}
        return value | {key: _changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], _changed(value[at], chance), *value[at + 1 :]]
    return chance.choice((*ODD, "DEEP"))


def smaller(reader, data, place):
    """Return a shorter document that is still wrong: pieces are left out as long as that is so."""
    piece = len(data) // 2
    while piece:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + piece :]
            if reader.wrong(shorter, place):
                data = shorter
            else:
                at += piece
        piece //= 2
    return data


def _read_run(path):
    run = Run.open(path)
    _ = run.info, run.finished, run.read_metrics()


def _read_features(path):
    found = Features(path)
    _ = found.codes, found.classes, found.voxel_size, found.cell, found.source_shape
    corner = Box(found.inside.start, tuple(a + 1 for a in found.inside.start))
    assert found.vectors(corner).shape == (1, 1, 1, found.dim)
    assert np.asarray(found.intensities(corner)).dtype == np.float16


def _rename(folder):
    out = folder / "two.ome.zarr"
    classes = classes_of(out)
    class_table(classes)
    output = Output(out, state={}, record=dict)
    rename(output, open_volume(out), {row["label"]: row["name"] for row in classes})  # which changes nothing
    rename_labels(out, {1: "cell", 2: "rest"}, {1: (1, 2, 3)})


def _read_volume(path):
    volume = open_volume(path)
    record(path)
    volume.read(Box((0, 0, 0), (1, 1, 1)))


def hold_zarr_here():
    """Let Zarr do its work in this thread: nearly twice as many cases in a minute."""
    loop = asyncio.new_event_loop()

    def run(coroutine, _):
        done = concurrent.futures.Future()
        done.set_result(loop.run_until_complete(coroutine))
        return done

    async def call(function, *args, **given):
        return function(*args, **given)

    asyncio.run_coroutine_threadsafe, asyncio.to_thread = run, call


def main():
    """Run the campaign; the exit code is 1 where anything was found."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--cases", type=int, default=100_000, help="for each reader")
    options.add_argument("--reader", action="append", help="only this one; may be repeated")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--keep", type=Path, help="a folder for documents that are not refused well")
    given = options.parse_args()
    found = 0
    hold_zarr_here()
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as place:
        for name, reader in readers(Path(made)).items():
            if given.reader and name not in given.reader:
                continue
            chance, data, wrong = random.Random(f"{given.seed} {name}"), reader.original(), {}
            for _ in range(given.cases):
                case = mutated(data, chance, reader.as_json)
                if says := reader.wrong(case, Path(place)):
                    wrong.setdefault(says.split(":")[0], (case, says))
            for kind, (case, says) in wrong.items():
                print(f"{name}: {says}", flush=True)
                if given.keep:
                    given.keep.mkdir(parents=True, exist_ok=True)
                    (given.keep / f"{name} {kind}").write_bytes(smaller(reader, case, Path(place)))
            print(f"{name}: {given.cases} documents, {len(wrong)} kinds of failure", flush=True)
            found += len(wrong)
    sys.exit(os.EX_OK if not found else 1)


if __name__ == "__main__":
    main()
