"""Seconds to tell whether an input has changed: a file of 10 GB, and a store of 100,000 chunks.

Three times are taken of each: the first record of its content, the comparison where nothing has changed, and
the comparison after a ``touch``, for which everything is hashed again. The bytes are random and written to
the disk; they are hashed as they lie in the page cache where that is large enough.
"""

import argparse
import itertools
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from common import conclude, machine, show

from vemseg.resources import byte_text, parse_bytes
from vemseg.run import fingerprint, same
from vemseg.run.fingerprint import SETTLED

TARGET = 60.0
"""Seconds that nobody minds, beside the segmentation of as much: the most of any stage."""
PIECE = 2**26
IN_A_FOLDER = 1000


def main() -> None:
    """Measure and print."""
    options = _options()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        file, store = folder / "volume.tif", folder / "volume.zarr"
        _write_file(file, options.bytes)
        _write_store(store, options.chunks, options.chunk_bytes)
        time.sleep(2 * SETTLED / 1e9)  # until their times count
        seconds = {
            f"file of {byte_text(options.bytes)}": _measure(file),
            f"{options.chunks} chunks of {byte_text(options.chunk_bytes)}": _measure(store),
        }
    finally:
        shutil.rmtree(folder)
    stages = list(next(iter(seconds.values())))
    rows = [[what, *(f"{found[stage]:.2f}" for stage in stages)] for what, found in seconds.items()]
    show("seconds", ["", *stages], rows)
    most = max(value for found in seconds.values() for value in found.values())
    details = {"seconds": seconds, "machine": machine()}
    conclude("fingerprints", most, "s", f"< {TARGET} s", most < TARGET, details)


def _options():
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--bytes", type=parse_bytes, default="10GB", help="of the file")
    made.add_argument("--chunks", type=int, default=100_000, help="of the store")
    made.add_argument("--chunk-bytes", type=parse_bytes, default="16KiB", help="of each chunk")
    made.add_argument("--folder", type=Path, help="where they are written; the temporary one if left out")
    return made.parse_args()


def _write_file(path: Path, size: int) -> None:
    """Write random bytes: a sparse file would be read without its disk."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, size, PIECE):
            file.write(rng.bytes(min(PIECE, size - start)))


def _write_store(path: Path, chunks: int, size: int) -> None:
    """Write the chunks of a Zarr array (format 3), with its metadata."""
    rng = np.random.default_rng(1)
    path.mkdir()
    (path / "zarr.json").write_text("{}")
    for number in range(chunks):
        folder = path / "c" / str(number // IN_A_FOLDER)
        if number % IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / str(number % IN_A_FOLDER)).write_bytes(rng.bytes(size))


def _measure(path: Path) -> dict[str, float]:
    """Return the seconds of a first record, of an unchanged rerun, and of one after a touch."""
    clock = time.perf_counter
    times = [clock()]
    record = fingerprint(path)
    times.append(clock())
    unchanged = same(record, path)
    times.append(clock())
    for file in [path] if path.is_file() else path.rglob("*"):
        os.utime(file)
    times.append(clock())
    touched = same(record, path)
    times.append(clock())
    assert unchanged and touched
    first, again, _, after = (round(b - a, 3) for a, b in itertools.pairwise(times))
    return {"first record": first, "unchanged": again, "after a touch": after}


if __name__ == "__main__":
    main()
