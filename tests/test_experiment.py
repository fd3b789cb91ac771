"""The README's experiment on BetaSeg, command by command, on a miniature archive from a local host."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in import CELLS, SHAPE, Server, make_archive

README = Path(__file__).resolve().parents[1] / "README.md"
TINY = (
    "model.fov=20 model.dim=16 model.depth=2 model.heads=2 model.decoder_dim=8 model.decoder_depth=1 "
    "model.decoder_heads=2 model.codes=32 train.steps=30 train.batch=16 train.lr=2e-3 train.log_every=10 "
    "embed.stride=20 cluster.sample_share=0.01"
)
WRAPPER = """#!/bin/sh
# The program, with what makes the experiment small: the host, the model.
case "$1 $2" in
    "fetch betaseg") exec {python} -m vemseg "$@" --from {url} --sha256 {sha256} ;;
    "train "*) exec {python} -m vemseg "$@" {tiny} ;;
    *) exec {python} -m vemseg "$@" ;;
esac
"""


@pytest.mark.slow
def test_the_papers_experiment_runs_as_the_readme_says(tmp_path):
    block = re.search(r"<!-- experiment -->\n```\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    sha256 = make_archive(tmp_path / "stand_in.zip", CELLS)
    (tmp_path / "bin").mkdir()
    program, tiny = tmp_path / "bin" / "vemseg", " ".join(f"--set {text}" for text in TINY.split())
    with Server(tmp_path / "stand_in.zip") as server:
        program.write_text(WRAPPER.format(python=sys.executable, url=server.url, sha256=sha256, tiny=tiny))
        program.chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "VEMSEG_CACHE_DIR": str(tmp_path / "cache"),
        }
        done = subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    inside = json.loads((tmp_path / "scores_k4.json").read_text())["voxels"]
    assert 0 < inside < SHAPE[0] * SHAPE[1] * SHAPE[2]
    for k in range(4, 11):
        scores = json.loads((tmp_path / f"scores_k{k}.json").read_text())
        names = [entry["name"] for entry in scores["protocols"][0]["classes"]]
        assert set(names) <= {"unrecognised", "nucleus", "granules", "mitochondria"}
        assert {"unrecognised", "mitochondria"} <= set(names)
        assert scores["clusters"] == list(range(1, k + 1))
        assert scores["voxels"] == inside
