"""A model trained on, on the volume it segments."""

import numpy as np
import pytest
import tifffile

from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.errors import InputError, OutputExistsError, ResourceError, UsageError
from vemseg.models import open_model
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.segment import segment
from vemseg.pipeline.train import Training, train
from vemseg.recipe import load_recipe
from vemseg.run import Run, load_tensors

SMALL = [
    "model.widths=[6,8]",
    "model.layers=1",
    "model.dim=5",
    "train.batch=2",
    "cluster.sample=5000",
    "cluster.restarts=1",
]


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapt") / "cell.tif"
    fetch_phantom(path, (16, 160, 160), 0, (16.0, 16.0, 16.0), overwrite=False)
    return path


@pytest.fixture(scope="module")
def start(cell):
    recipe = load_recipe("invariance", [*SMALL, "train.steps=2"])
    return train(Training([str(cell)], cell.with_name("start"), recipe), Context())


def test_a_model_is_adapted_once_and_used_again(cell, start, tmp_path, caplog):
    def labels(k):
        # the first step's rate is 0: time is no measure
        settings = (*SMALL[4:], f"cluster.k={k}", "train.steps=4")
        out = tmp_path / f"k{k}" / "seg.tif"
        out.parent.mkdir()
        return segment(Wanted(str(cell), str(start), settings), out, adapt_seconds=600.0)

    run = Run.open(labels(3).with_name("seg.run"))
    assert run.finished and run.info["parents"][0]["path"] == str((start / "model.safetensors").resolve())
    before, after = (load_tensors(one.model)[0]["stem.conv.weight"] for one in (Run.open(start), run))
    assert before.shape == after.shape and not np.array_equal(before, after)

    weights = run.model.read_bytes()
    again = tmp_path / "k3" / "seg.tif"
    again.unlink()
    (tmp_path / "k3" / "seg.json").unlink()
    with caplog.at_level("INFO", "vemseg"):
        wanted = Wanted(str(cell), str(start), ("cluster.k=4", *SMALL[4:], "train.steps=4"))
        segment(wanted, again, adapt_seconds=60.0, overwrite=True)
    assert "was adapted to this volume before" in caplog.text
    assert run.model.read_bytes() == weights


def test_what_is_refused_is_refused_before_the_training(cell, start, tmp_path):
    out, wanted = tmp_path / "seg.tif", Wanted(str(cell), str(start), tuple(SMALL[4:]))
    out.write_bytes(b"another model's")
    with pytest.raises(OutputExistsError, match=r"seg\.tif exists, and this would train another model"):
        segment(wanted, out, adapt_seconds=600.0)
    with pytest.raises(UsageError, match="is an input"):
        segment(wanted, cell, adapt_seconds=600.0, overwrite=True)
    with pytest.raises(ResourceError, match="1MiB of memory is not enough"):
        segment(wanted, out, adapt_seconds=600.0, overwrite=True, context=Context(memory=2**20))
    assert [path.name for path in tmp_path.iterdir()] == ["seg.tif"]
    assert not cell.with_name("cell.run").exists()


def test_what_is_not_trained_cannot_be_adapted(cell, tmp_path):
    with pytest.raises(UsageError, match="'classical' is not trained"):
        segment(Wanted(str(cell), "classical"), tmp_path / "seg.tif", adapt_seconds=1.0)
    assert not list(tmp_path.iterdir())


def test_an_encoder_of_tissue_is_not_adapted_to_voxels_of_unknown_size(tmp_path):
    tifffile.imwrite(tmp_path / "cell.tif", np.random.default_rng(0).integers(0, 255, (5, 64, 64), np.uint8))
    with pytest.raises(UsageError, match=r"--adapt needs the voxel size, which nothing says of cell: add"):
        segment(Wanted(str(tmp_path / "cell.tif"), None), tmp_path / "seg.tif", adapt_seconds=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["cell.tif"]


def test_training_starts_from_the_same_kind_of_model_alone(cell, start, tmp_path):
    other = load_recipe("invariance", [*SMALL, "model.dim=7", "train.steps=2"])
    with pytest.raises(UsageError, match=r"it differs in model\.dim"):
        train(Training([str(cell)], tmp_path / "run", other, start=open_model(str(start))), Context())


def test_a_directory_does_not_hide_bundled_weights_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vemseg").mkdir()
    assert open_model(None).hash == open_model("vemseg").hash
    with pytest.raises(InputError, match="not a vemseg run"):
        open_model("./vemseg")
