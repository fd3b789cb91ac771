"""How fast each format is read, block by block, beside the same volume as OME-Zarr.

    python benchmarks/readers.py [--edge 384] [--repeat 3] [--segment]
    python benchmarks/readers.py --edge 384 --write FOLDER

Every format is written by its own library, uncompressed or with the compression that is usual for it. The
blocks are those of ``segment``; the best of several passes counts, so the files come from memory. With
``--segment`` the whole of ``segment -m classical`` is timed instead, in seconds of the processor. ``--write``
only writes the volumes, each as ``FORMAT/...``, for ``benchmarks/memory.py --formats``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import tensorstore
import tifffile
from numpy.typing import NDArray

from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.geometry import Box
from vemseg.phantom import Phantom
from vemseg.pipeline.segment import segment
from vemseg.volume import ArrayVolume, Volume, open_volume, write_volume

BLOCK = (64, 128, 128)

Array = NDArray[np.uint8]


def ome_zarr(array: Array, folder: Path) -> Path:
    """Write the volume as vemseg does, with zstd and shards."""
    path = folder / "cell.ome.zarr"
    write_volume(ArrayVolume(array, (8.0, 8.0, 8.0)), path)
    return path


def hdf5(array: Array, folder: Path) -> Path:
    """Write the volume in chunks, with gzip."""
    path = folder / "cell.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=array, chunks=(64, 64, 64), compression="gzip", compression_opts=1)
    return path


def mrc(array: Array, folder: Path) -> Path:
    """Write the volume which knows no uint8, as int16."""
    path = folder / "cell.mrc"
    with mrcfile.new(path) as file:
        file.set_data(array.astype(np.int16))
    return path


def n5(array: Array, folder: Path) -> Path:
    """Write the volume with gzip."""
    path = folder / "cell.n5"
    metadata = {
        "dimensions": array.shape[::-1], "blockSize": [64, 64, 64], "dataType": "uint8",
        "compression": {"type": "gzip", "level": 1},
    }  # fmt: skip
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": str(path)}, "metadata": metadata}
    tensorstore.open(spec, create=True).result()[...] = array.T
    return path


def precomputed(array: Array, folder: Path) -> Path:
    """Write the volume uncompressed."""
    path = folder / "precomputed"
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(path)},
        "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
        "scale_metadata": {
            "size": array.shape[::-1], "resolution": [8, 8, 8], "encoding": "raw", "chunk_size": [64, 64, 64]
        },
    }  # fmt: skip
    tensorstore.open(spec, create=True).result()[...] = array.T[..., None]
    return path


def tiff(array: Array, folder: Path) -> Path:
    """Write the volume uncompressed."""
    path = folder / "cell.tif"
    tifffile.imwrite(path, array, photometric="minisblack")
    return path


def slices(array: Array, folder: Path) -> Path:
    """Write one uncompressed TIFF for each slice."""
    path = folder / "slices"
    path.mkdir()
    for z, plane in enumerate(array):
        tifffile.imwrite(path / f"cell{z}.tif", plane, photometric="minisblack")
    return path


WRITERS: dict[str, Callable[[Array, Path], Path]] = {
    "OME-Zarr": ome_zarr,
    "HDF5, gzip": hdf5,
    "MRC, int16": mrc,
    "N5, gzip": n5,
    "precomputed": precomputed,
    "TIFF": tiff,
    "slices": slices,
}


def seconds(path: Path, repeat: int) -> float:
    """Return the time of the fastest pass over all blocks of a volume."""
    best = float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        volume: Volume = open_volume(path)
        for box in volume.box.split(BLOCK):
            volume.read(box)
        best = min(best, time.perf_counter() - started)
    return best


def segmenting(path: Path, repeat: int) -> float:
    """Return the processor's time of the fastest segmentation of a volume."""
    best = float("inf")
    wanted = Wanted(str(path), "classical", ("cluster.k=4", "cluster.sample=20000"), "8,8,8")
    for _ in range(repeat):
        started = time.process_time()
        segment(wanted, path.with_name("seg.ome.zarr"), overwrite=True, context=Context(threads=1))
        best = min(best, time.process_time() - started)
    return best


def volume(edge: int) -> Array:
    """Return a cube of phantoms side by side."""
    tile = Phantom((64, 128, 128), 0).read(Box.whole((64, 128, 128)))
    array = np.tile(tile, [-(-edge // n) for n in tile.shape])
    return np.ascontiguousarray(array[:edge, :edge, :edge])


def main() -> None:
    """Print the throughput of each format, or write the volumes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=384, help="voxels along each axis")
    parser.add_argument("--repeat", type=int, default=3, help="passes, of which the fastest counts")
    parser.add_argument("--segment", action="store_true", help="time segment -m classical, not reading alone")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the volumes here, and stop")
    options = parser.parse_args()
    timed = segmenting if options.segment else seconds
    array = volume(options.edge)
    if options.write:
        for name, write in WRITERS.items():
            folder = options.write / name.partition(",")[0]
            folder.mkdir(parents=True)
            write(array, folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        base = 0.0
        for name, write in WRITERS.items():
            speed = array.size / 1e6 / timed(write(array, Path(folder)), options.repeat)
            base = base or speed
            print(f"{name:12} {speed:7.2f} Mvoxel/s  {speed / base:5.0%} of OME-Zarr")


if __name__ == "__main__":
    main()
