"""What shells and locales do to a process: closed streams, names beyond ASCII where only ASCII is known."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vemseg.cli import parsing

ROOT = Path(__file__).resolve().parents[2]
FETCH = f"{sys.executable} -m vemseg fetch phantom --shape 4,32,32"


def shell(line, folder, **environment):
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(["sh", "-c", line], cwd=folder, env=variables, capture_output=True)


@pytest.mark.parametrize("closed", [">&-", pytest.param("2>&-", marks=pytest.mark.slow), "<&- >&- 2>&-"])
def test_closed_streams_stop_nobody(tmp_path, closed):
    done = shell(f"{FETCH} -o cell.tif {closed}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "cell.tif").stat().st_size > 4 * 32 * 32


def test_names_beyond_ascii_where_the_locale_has_none(tmp_path):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for _ in range(2):  # the second time it is recognised as the same
        done = shell(f"{FETCH} -o zelle-größe.tif", tmp_path, **plain)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().splitlines()[0] == "zelle-größe.tif"
    about = json.loads((tmp_path / "zelle-größe.json").read_text(encoding="utf-8"))
    written = about["phantom"]["output"].encode("utf-8", "surrogateescape").decode()
    assert written == "zelle-größe.tif"


def test_a_default_output_is_no_option():
    assert parsing.default_labels("./-rf.tif") == Path("rf_seg.tif")
    assert parsing.default_labels("./--.zarr") == Path("volume_seg.ome.zarr")
