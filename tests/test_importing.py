"""The released MAESTER: a checkpoint and its cluster centres become a run that every command takes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vemseg.dense import Wanted
from vemseg.errors import InputError, MissingError, OutputExistsError
from vemseg.labelling import load
from vemseg.models import open_model
from vemseg.pipeline.fetch import fetch_phantom, import_weights
from vemseg.pipeline.segment import segment
from vemseg.volume import open_volume

GOLDEN = Path(__file__).parent / "golden" / "maester_small_weights.pt"
DIM = 48


@pytest.fixture
def centres(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, DIM))
    np.savetxt(tmp_path / "k6.txt", values)
    return tmp_path / "k6.txt", values


def test_the_run_is_the_checkpoint(centres, tmp_path):
    made = import_weights(GOLDEN, centres[0], tmp_path / "run", overwrite=False)
    assert made == [tmp_path / "run", tmp_path / "run" / "clusters.safetensors"]
    ours, theirs = (open_model(str(path)).load((1.0, 1.0, 1.0)) for path in (tmp_path / "run", GOLDEN))
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())
    assert open_model(str(tmp_path / "run")).recipe == open_model(str(GOLDEN)).recipe


def test_the_classes_are_the_nearest_centres_in_the_order_of_the_file(centres, tmp_path):
    import_weights(GOLDEN, centres[0], tmp_path / "run", overwrite=False)
    vectors = np.random.default_rng(1).normal(size=(200, DIM)).astype(np.float32)
    labeller = load(tmp_path / "run" / "clusters.safetensors")
    found = labeller.scores(torch.from_numpy(vectors)).argmax(dim=-1).numpy()
    nearest = [min(range(6), key=lambda k: ((v - centres[1][k]) ** 2).sum()) for v in vectors]
    assert found.tolist() == nearest


def test_a_volume_is_segmented_with_both(centres, tmp_path):
    import_weights(GOLDEN, centres[0], tmp_path / "run", overwrite=False)
    fetch_phantom(tmp_path / "cell.tif", (4, 60, 60), 1, (16.0, 16.0, 16.0), False)
    settings = ("embed.placement=expand-stride", "embed.stride=20")
    labels = segment(
        Wanted(str(tmp_path / "cell.tif"), str(tmp_path / "run"), settings),
        tmp_path / "labels.tif",
        clusters=tmp_path / "run" / "clusters.safetensors",
    )
    assert set(np.unique(open_volume(labels).read(open_volume(labels).box))) <= set(range(1, 7))


def test_importing_again_is_fine_and_another_is_not(centres, tmp_path):
    for _ in range(2):
        import_weights(GOLDEN, None, tmp_path / "run", overwrite=False)
    state = torch.load(GOLDEN, weights_only=True)
    state["norm.bias"] = state["norm.bias"] + 1
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(OutputExistsError):
        import_weights(tmp_path / "other.pt", None, tmp_path / "run", overwrite=False)
    import_weights(tmp_path / "other.pt", None, tmp_path / "run", overwrite=True)


def test_importing_again_changes_nothing_without_being_told(centres, tmp_path):
    run = tmp_path / "run.pt"  # a name like a checkpoint's
    import_weights(GOLDEN, centres[0], run, overwrite=False)
    before = {path: path.read_bytes() for path in run.iterdir()}
    copy = tmp_path / "renamed.pth"
    copy.write_bytes(GOLDEN.read_bytes())
    import_weights(copy, centres[0], run, overwrite=False)
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    np.savetxt(tmp_path / "other.txt", centres[1] + 1)
    with pytest.raises(OutputExistsError, match="holds other clusters"):
        import_weights(GOLDEN, tmp_path / "other.txt", run, overwrite=False)
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    import_weights(GOLDEN, tmp_path / "other.txt", run, overwrite=True)
    assert (run / "clusters.safetensors").read_bytes() != before[run / "clusters.safetensors"]
    assert (run / "model.safetensors").read_bytes() == before[run / "model.safetensors"]
    ours, theirs = (open_model(str(path)).load((1.0, 1.0, 1.0)) for path in (run, copy))
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", r"1 lines of 3 numbers, but the model's vectors have 48"),
        ("a b c\n", "no text file of numbers"),
        (" ".join(["nan"] * DIM), "1 lines of 48 numbers, some of them NaN or infinite"),
        ((" ".join(["1"] * DIM) + "\n") * 256, "256 centres, but labels go up to 255"),
    ],
)
def test_centres_that_do_not_fit_are_refused_before_anything_is_written(text, message, tmp_path):
    (tmp_path / "k.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        import_weights(GOLDEN, tmp_path / "k.txt", tmp_path / "run", overwrite=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(MissingError, match="no centroids"):
        import_weights(GOLDEN, tmp_path / "nothing.txt", tmp_path / "run", overwrite=False)
    with pytest.raises(MissingError, match="no checkpoint"):
        import_weights(tmp_path / "nothing.pt", None, tmp_path / "run", overwrite=False)


def test_the_command_asks_for_what_belongs_together(tmp_path):
    for words in (["--centroids", "k.txt"], ["--from", str(GOLDEN)], ["maester", "--from", str(GOLDEN)]):
        done = subprocess.run(
            [sys.executable, "-m", "vemseg", "fetch", "weights", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
