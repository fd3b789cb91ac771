"""The readers that mutants are given to: how to make sound files for each, and how to read one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from vemseg.geometry import Box
from vemseg.volume import open_volume, record


@dataclass(frozen=True)
class Reader:
    """Makes sound files in a folder, reads one wholly, and reads a mutant as far as a reader would go."""

    seeds: Callable[[Path], Iterator[Path]]
    read_sound: Callable[[Path], None]
    read: Callable[[Path], None]


def _array(dtype="uint8"):
    return (np.random.default_rng(5).integers(0, 60, (5, 24, 40)) + np.arange(40)).astype(dtype)


TIFFS = {
    "plain": {},
    "no_description": {"metadata": None},
    "big": {"bigtiff": True},
    "big_endian": {"byteorder": ">", "dtype": "uint16"},
    "imagej": {
        "imagej": True,
        "resolution": (125, 125),
        "metadata": {"axes": "ZYX", "unit": "um", "spacing": 1},
    },
    "hyperstack": {"imagej": True, "metadata": {"axes": "TYX"}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 8, "PhysicalSizeXUnit": "nm"}},
    "ome_zlib": {"ome": True, "compression": "zlib", "metadata": {"axes": "ZYX"}},
    "xyz": {"metadata": {"axes": "XYZ"}},
    "zlib": {"compression": "zlib", "predictor": True},
    "lzw_strips": {"compression": "lzw", "rowsperstrip": 7, "metadata": None},
    "zstd_tiles": {"compression": "zstd", "tile": (16, 16)},
    "packbits": {"compression": "packbits", "metadata": None},
    "lzma": {"compression": "lzma", "metadata": None},
    "jpeg": {"compression": "jpeg", "metadata": None},
    "jpeg_tiles": {"compression": "jpeg", "tile": (16, 16), "metadata": None},
    "jpegxl": {"compression": "jpegxl", "metadata": None},
    "jpeg2000": {"compression": "jpeg2000", "metadata": None},
    "png": {"compression": "png", "metadata": None},
    "webp": {"compression": "webp", "photometric": "rgb", "samples": 3, "metadata": None},
    "lerc": {"compression": "lerc", "metadata": None},
    "float": {"dtype": "float32", "compression": "zlib", "predictor": True},
    "double": {"dtype": "float64"},
    "palette": {"photometric": "palette", "colormap": np.tile(np.arange(65535, -1, -257), (3, 1))},
    "white": {"photometric": "miniswhite", "compression": "zlib", "metadata": None},
    "rgb": {"photometric": "rgb", "samples": 3, "metadata": None},
    "rgb_apart": {"photometric": "rgb", "samples": 3, "planarconfig": "separate", "compression": "zlib"},
    "volumetric": {"volumetric": True, "tile": (16, 16, 16), "compression": "zlib"},
}


def tiff_seeds(folder: Path) -> Iterator[Path]:
    """Write small TIFFs of many kinds."""
    for name, options in TIFFS.items():
        kept = {"photometric": "minisblack"} | options
        array = _array(kept.pop("dtype", "uint8"))
        if samples := kept.pop("samples", 0):
            array = np.stack([array] * samples, 1 if "planarconfig" in kept else -1)
        if kept.get("colormap") is not None:
            kept["colormap"] = kept["colormap"].astype(np.uint16)
        tifffile.imwrite(folder / f"{name}.tif", array, **kept)
        yield folder / f"{name}.tif"


def mrc_seeds(folder: Path) -> Iterator[Path]:
    """Write small MRC files: a volume of bytes, and one of numbers."""
    import mrcfile

    for name, array in {"bytes": _array("int8"), "floats": _array("float32")}.items():
        with mrcfile.new(folder / f"{name}.mrc", array) as file:
            file.voxel_size = 80.0
        yield folder / f"{name}.mrc"


def nifti_seeds(folder: Path) -> Iterator[Path]:
    """Write small NIfTI files, plain and packed."""
    import nibabel

    for name in ("plain.nii", "packed.nii.gz"):
        image = nibabel.Nifti1Image(_array("int16"), np.diag([8e-6, 8e-6, 8e-6, 1.0]))
        image.header.set_xyzt_units("mm")
        nibabel.save(image, folder / name)
        yield folder / name


def read_whole(path: Path) -> None:
    """Read a whole volume."""
    volume = open_volume(path)
    assert volume.read(volume.box).size


def read_corners(path: Path) -> None:
    """Read what a file says of itself, and a little of its first and last corner."""
    record(path)
    volume = open_volume(path)
    z, y, x = (min(n, most) for n, most in zip(volume.shape, (4, 64, 64), strict=True))
    last = (volume.shape[0] - z, volume.shape[1] - y, volume.shape[2] - x)
    for start in ((0, 0, 0), last):
        assert volume.read(Box((0, 0, 0), (z, y, x)).shift(start)).size


READERS = {
    "tiff": Reader(tiff_seeds, read_whole, read_corners),
    "mrc": Reader(mrc_seeds, read_whole, read_corners),
    "nifti": Reader(nifti_seeds, read_whole, read_corners),
}
"""Add a reader here: the long campaign and the tests run every one of them."""
