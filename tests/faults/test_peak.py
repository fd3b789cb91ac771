"""The most memory of a whole process against ``--max-memory``, pictures included, for each kind of shape."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vemseg.resources import parse_bytes

ROOT = Path(__file__).resolve().parents[2]
LIMIT = "1400MiB"
SHAPES = {
    "cube": ((112, 112, 112), "10,10,10"),
    "flat": ((1, 3000, 3000), "10,10,10"),
    "slab": ((6, 1100, 1100), "50,10,10"),
    "wide": ((3, 40, 6000), "10,10,10"),
    "anisotropic": ((16, 320, 320), "50,10,10"),
}


def peak(folder, *args):
    """Run the program as a process of its own; return the largest resident set, in bytes."""
    program = (
        "import atexit, sys, vemseg.cli; from vemseg.run import peak_memory\n"
        "atexit.register(lambda: open('peak', 'w').write(str(peak_memory())))\n"
        "vemseg.cli.main()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *args], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int((folder / "peak").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
def test_the_peak_stays_below_the_limit(tmp_path, kind):
    shape, size = SHAPES[kind]
    grey = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "cell.tif", grey, photometric="minisblack")
    given = ["segment", "cell.tif", "-k", "3", "--voxel-size", size, "--set", "cluster.sample=20000"]
    most = peak(tmp_path, *given, "--max-memory", LIMIT, "-o", "labels.tif")
    assert most <= parse_bytes(LIMIT), f"{most / 2**20:.0f} MiB"
    assert json.loads((tmp_path / "labels.json").read_text())["peak_memory_bytes"] <= most
