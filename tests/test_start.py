"""``train --from``: another training begins with the weights of a model."""

import numpy as np
import pytest
import torch

from vemseg.context import Context
from vemseg.errors import Interrupted, OutputExistsError, UsageError
from vemseg.models import build_encoder, differing_encoder, open_model
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.train import Training, train
from vemseg.recipe import MaesterTable, UNetTable, load_recipe
from vemseg.run import Run, load_tensors, write_json

TINY = [
    "model.fov=48",
    "model.view=32",
    "model.slices=4",
    "model.widths=[6,8]",
    "model.layers=1",
    "model.dim=5",
    "train.batch=2",
    "train.log_every=1",
    "train.steps=3",
    "train.precision=fp32",
]


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "cell.tif"
    fetch_phantom(path, (12, 80, 90), 3, (16.0, 16.0, 16.0), False)
    return path


@pytest.fixture(scope="module")
def first(cell):
    return train(Training([str(cell)], cell.with_name("first"), load_recipe("invariance", TINY)), Context())


def weights(run):
    return load_tensors(Run.open(run).model)[0]


def begin(cell, out, start, settings=(), stopped=lambda: False, **options):
    recipe = load_recipe("invariance", [*TINY, "train.seed=9", *settings])
    job = Training([str(cell)], out, recipe, start=open_model(str(start)), **options)
    return train(job, Context(stopped=stopped))


def alone(cell, out, seed):
    """Train without a model to begin with."""
    recipe = load_recipe("invariance", [*TINY, f"train.seed={seed}"])
    return train(Training([str(cell)], out, recipe), Context())


def test_the_encoder_begins_with_the_models_weights(cell, first, tmp_path):
    with pytest.raises(Interrupted):
        begin(cell, tmp_path / "second", first, stopped=lambda: True)
    before, begun = weights(first), weights(tmp_path / "second")
    assert before.keys() == begun.keys()
    assert all(np.array_equal(before[name], begun[name]) for name in before)
    heads = [
        load_tensors(Run.open(run).checkpoint)[0]["master.decoder.weight"]
        for run in (first, tmp_path / "second")
    ]
    assert not np.array_equal(*heads)

    begin(cell, tmp_path / "second", first)
    begin(cell, tmp_path / "whole", first)
    ended, whole = weights(tmp_path / "second"), weights(tmp_path / "whole")
    assert all(np.array_equal(ended[name], whole[name]) for name in whole)
    assert any(not np.array_equal(before[name], ended[name]) for name in before)


def test_the_run_says_what_it_began_with(cell, first, tmp_path):
    about = Run.open(begin(cell, tmp_path / "run", first)).info
    assert about["start"] == {"model": str(first), "hash": open_model(str(first)).hash}
    assert [parent["path"] for parent in about["parents"]] == [str((first / "model.safetensors").resolve())]
    assert "teacher" not in about


def test_a_run_that_began_otherwise_is_left_alone(cell, first, tmp_path):
    other = alone(cell, tmp_path / "other", 4)
    run = begin(cell, tmp_path / "run", first)
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match=r"start .*first there, start .*other now.*-f"):
        begin(cell, run, other)
    with pytest.raises(OutputExistsError, match=r"start .*first there, no other model now"):
        alone(cell, run, 9)
    assert (run / "model.safetensors").read_bytes() == before
    begin(cell, run, other, overwrite=True)
    assert Run.open(run).info["start"]["model"] == str(other)


def test_a_run_that_names_its_weights_alone_goes_on(cell, first, tmp_path):
    """Before ``run.json`` named the start, it held the weights that a run began with."""
    with pytest.raises(Interrupted):
        begin(cell, tmp_path / "run", first, stopped=lambda: True)
    about = Run.open(tmp_path / "run").info
    del about["start"]
    write_json(tmp_path / "run" / "run.json", about)
    with pytest.raises(OutputExistsError, match=r"first/model\.safetensors there, no other model now"):
        alone(cell, tmp_path / "run", 9)
    assert Run.open(begin(cell, tmp_path / "run", first)).finished


def test_what_an_objective_needs_besides_may_differ(cell, first, tmp_path):
    settings = ["model.noise=0.2", "model.reconstruction=10.0", "model.fov=64", "model.view=40"]
    assert Run.open(begin(cell, tmp_path / "run", first, settings)).recipe.model.noise == 0.2


def test_another_encoder_is_refused_by_the_keys_that_differ(cell, first, tmp_path):
    with pytest.raises(UsageError, match=r"first is another model .* differs in model\.layers, model\.dim$"):
        begin(cell, tmp_path / "run", first, ["model.noise=0.2", "model.dim=6", "model.layers=2"])
    with pytest.raises(UsageError, match=r"it differs in model\.kind"):
        begin(cell, tmp_path / "run", "classical")
    with pytest.raises(UsageError, match="needs no training"):
        start = open_model("classical")
        train(Training([str(cell)], tmp_path / "run", load_recipe("classical"), start=start), Context())
    assert not (tmp_path / "run").exists()


OTHER = {
    MaesterTable: {
        **{"fov": 40, "patch": 4, "dim": 16, "depth": 2, "heads": 2, "mlp_ratio": 3.0, "pos_weight": 0.5},
        **{"decoder_dim": 16, "decoder_depth": 2, "decoder_heads": 4, "mask_ratio": 0.7},
    },
    UNetTable: {
        **{"fov": 64, "view": 40, "slices": 6, "widths": (6, 10), "layers": 2, "dim": 3, "points": 9},
        **{"invariance": 1.0, "variance": 1.0, "covariance": 2.0, "reconstruction": 1.0, "mask_ratio": 0.1},
        **{"mask_block": 4, "contrast": 0.1, "brightness": 0.2, "noise": 0.0, "blur": 0.0, "drift": 1},
        **{"recognition": 0.5, "balance": 0.2, "average": 0.5, "full_resolution": True},
        **{"agreement": 0.5, "restain": 0.1, "texture": 0.2},
    },
}
PLAIN = {
    MaesterTable: MaesterTable(
        fov=20, patch=5, dim=8, depth=1, heads=1, decoder_dim=8, decoder_depth=1, decoder_heads=1
    ),
    UNetTable: UNetTable(fov=48, view=32, slices=4, widths=(6, 8), layers=1, dim=5),
}


@pytest.mark.parametrize(("table", "key"), [(table, key) for table, keys in OTHER.items() for key in keys])
def test_settings_bind_weights_where_they_change_the_vectors(table, key):
    named = {"kind", "classes"} & table.model_fields.keys()  # classes say what the numbers of a vector mean
    assert OTHER[table].keys() | named == table.model_fields.keys()

    def vectors(model):
        torch.manual_seed(0)
        encoder = build_encoder(model).eval()
        shape = (8, 16, 16) if model.kind == "unet" else encoder.fov
        with torch.no_grad():
            return encoder.encode(torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)))

    plain, other = PLAIN[table], PLAIN[table].model_copy(update={key: OTHER[table][key]})
    found = vectors(plain), vectors(other)
    same = found[0].shape == found[1].shape and torch.equal(*found)
    assert differing_encoder(plain, other) == ([] if same else [f"model.{key}"])
