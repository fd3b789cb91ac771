"""The experiment of docs/experiment.md, command by command, on a miniature archive from a local host.

    python tests/experiment.py FOLDER PROGRAM [ARG ...]

runs it in FOLDER with any program that takes the place of ``vemseg``, such as a container.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from stand_in import CELLS, SHAPE, Server, make_archive

PAGE = Path(__file__).resolve().parents[1] / "docs" / "experiment.md"
TINY = (
    "model.fov=20 model.dim=16 model.depth=2 model.heads=2 model.decoder_dim=8 model.decoder_depth=1 "
    "model.decoder_heads=2 model.codes=32 train.steps=30 train.batch=16 train.lr=2e-3 train.log_every=10 "
    "embed.stride=20 cluster.sample=0.01"
)
EVERY_K, SOME_K = "4 5 6 7 8 9 10", (4, 10)
"""The page goes through all numbers of classes of the papers; the first and the last are enough here."""

WRAPPER = """#!/bin/sh
# The program, with what makes the experiment small: the host, the model.
case "$1 $2" in
    "fetch betaseg") exec {program} "$@" --from {url} --sha256 {sha256} ;;
    "train "*) exec {program} "$@" {tiny} ;;
    *) exec {program} "$@" ;;
esac
"""


def run(folder, program):
    """Run the commands of the page in a folder; return what bash says, as subprocess.run does."""
    block = re.search(r"<!-- experiment -->\n```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert EVERY_K in block
    block = block.replace(EVERY_K, " ".join(map(str, SOME_K)))
    sha256 = make_archive(folder / "stand_in.zip", CELLS)
    (folder / "bin").mkdir()
    wrapper, tiny = folder / "bin" / "vemseg", " ".join(f"--set {text}" for text in TINY.split())
    with Server(folder / "stand_in.zip") as server:
        wrapper.write_text(
            WRAPPER.format(program=shlex.join(program), url=server.url, sha256=sha256, tiny=tiny)
        )
        wrapper.chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}",
            "VEMSEG_CACHE_DIR": str(folder / "cache"),
        }
        return subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


def check(folder):
    """Assert that the scores are those of the cell alone, of the papers' classes and of each K."""
    inside = json.loads((folder / "scores_k4.json").read_text())["voxels"]
    assert 0 < inside < SHAPE[0] * SHAPE[1] * SHAPE[2]
    for k in SOME_K:
        scores = json.loads((folder / f"scores_k{k}.json").read_text())
        names = [entry["name"] for entry in scores["protocols"][0]["classes"]]
        assert set(names) <= {"unrecognised", "nucleus", "granules", "mitochondria"}
        assert {"unrecognised", "mitochondria"} <= set(names)
        assert scores["clusters"] == list(range(1, k + 1))
        assert scores["voxels"] == inside


def main():
    folder, program = Path(sys.argv[1]).resolve(), sys.argv[2:]
    done = run(folder, program)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}exit code {done.returncode}")
    check(folder)


if __name__ == "__main__":
    main()
