"""Files of the kinds that users reported, built by the scripts of a folder beside this repository.

``VEMSEG_TEST_FIELD`` names the folder, ``../shared/field`` where it is left out. Each script writes its
files, and says what is right of them in ``expect.json`` or ``right.json``. All are read as ``segment`` reads
its input.
"""

import json
import os
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from vemseg.errors import InputError, UsageError
from vemseg.names import is_url
from vemseg.volume import open_grey

ROOT = Path(__file__).resolve().parents[1]
FIELD = Path(os.environ.get("VEMSEG_TEST_FIELD", ROOT.parent / "shared" / "field"))

READ_AFTER_ALL = {"ax05_planar_rgb", "ax06_rgb_equal", "px05_float_nan", "float_one_nan_corner"}
"""Said to be refused: equal colours are grey now, and NaN is found where it is read."""

REFUSED_AFTER_ALL = {"st03_ome_two_files", "ij21_placeholder_1um"}
"""Said to be read: an image in several files, and voxels of a micrometre, are refused."""


def scripts():
    """Return the scripts that build files to be read; the others try ``evaluate``."""
    return [
        path for path in sorted(FIELD.rglob("*.py")) if not path.name.startswith(("e0", "e1", "ev", "check"))
    ]


def built(script, folder, monkeypatch, capsys):
    """Run a script; return what it says is right, and the commands that it prints."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [str(script), str(folder)])
    try:
        runpy.run_path(str(script), run_name="__main__")
    except ModuleNotFoundError as error:
        pytest.skip(f"{script.name} needs {error.name}")
    said = next((folder / name for name in ("expect.json", "right.json") if (folder / name).exists()), None)
    return json.loads(said.read_text()) if said else {}, capsys.readouterr().out.splitlines()


def inputs(commands):
    """Yield volume, voxel size and crop of each ``segment``."""
    for command in commands:
        words = shlex.split(command) if command.startswith("vemseg segment") else []
        if words and not is_url(words[2].removeprefix("file://")):
            options = [words[words.index(o) + 1] if o in words else None for o in ("--voxel-size", "--crop")]
            yield words[2], *options


def as_meant(volume):
    """Tell whether the voxels look as the script drew them."""
    drawn = next((path for path in (Path("grey.npy"), Path("truth.npy")) if path.exists()), None)
    voxels = volume.read(volume.box).astype(float)
    if drawn is None or np.load(drawn).shape != voxels.shape or np.isnan(voxels).any():
        return drawn is None or not np.isfinite(voxels).all()
    return abs(np.corrcoef(voxels.ravel(), np.load(drawn).ravel().astype(float))[0, 1]) > 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("script", scripts(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_users_met_is_read_rightly_or_refused_in_one_line(script, tmp_path, monkeypatch, capsys):
    right, commands = built(script, tmp_path, monkeypatch, capsys)
    code = 3 if script.stem in REFUSED_AFTER_ALL else right.get("code", right.get("rc"))
    code = 0 if script.stem in READ_AFTER_ALL else code
    for path, size, crop in inputs(commands):
        try:
            volume = open_grey(path, size, crop)
            alike = as_meant(volume)
        except (InputError, UsageError) as error:
            assert "\n" not in str(error) and code != 0
            continue
        assert code != 3
        if right.get("voxel") is not None:
            assert volume.voxel_size == pytest.approx(right["voxel"])
        if right.get("shift"):
            assert volume.origin == pytest.approx(right["shift"])
        assert alike


def test_the_folder_is_there_or_named():
    if not FIELD.is_dir():
        pytest.skip(f"{FIELD} is absent: set VEMSEG_TEST_FIELD to the folder of scripts")
    assert len(scripts()) > 100
