"""The experiment of docs/experiment.md with this environment; ``containers.sh`` runs it with the images."""

import sys

import experiment
import pytest


@pytest.mark.slow
def test_the_papers_experiment_runs_as_its_page_says(tmp_path):
    done = experiment.run(tmp_path, [sys.executable, "-m", "vemseg"])
    assert done.returncode == 0, done.stderr[-2000:]
    experiment.check(tmp_path)
