"""HiS4MAE and SdAE through the commands' own functions: train, resume, segment, and be a teacher in turn."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vemseg.context import Context
from vemseg.dense import Wanted, check_sample
from vemseg.errors import InputError, Interrupted, MissingError, ResourceError, UsageError
from vemseg.features import Features
from vemseg.labelling import Sample, fit, load
from vemseg.models import build_encoder, load_codes, load_encoder, open_model
from vemseg.pipeline.cluster import cluster
from vemseg.pipeline.embed import embed
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.segment import segment
from vemseg.pipeline.train import Training, train
from vemseg.recipe import CodebookTable, KMeansTable, load_recipe
from vemseg.run import Run, load_tensors
from vemseg.volume import open_volume

SIZES = {
    "fov": 20,
    "dim": 16,
    "depth": 2,
    "heads": 2,
    "decoder_dim": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
}
COMMON = [
    *(f"model.{key}={value}" for key, value in SIZES.items()),
    "model.epoch=20",
    "train.steps=12",
    "train.batch=8",
    "train.log_every=3",
    "train.precision=fp32",
    "embed.stride=20",
    "cluster.sample=400",
    "cluster.restarts=2",
]
KINDS = {"his4mae": ["model.codes=24"], "sdae_recon": ["volume.intensity=percentile"], "sdae": []}


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cell.tif"
    fetch_phantom(path, (12, 60, 70), 3, (16.0, 16.0, 16.0), False)
    return path


def recipe_of(name, settings=()):
    return load_recipe(name, [*COMMON, *KINDS[name], *settings])


def run_of(cell, name, out=None, settings=(), stopped=lambda: False, **options):
    out = out or cell.with_name(name)
    job = Training([str(cell)], out, recipe_of(name, settings), **options)
    return train(job, Context(stopped=stopped))


def wanted(path, model=None, settings=()):
    """Return which volume is encoded, by which model, with which settings."""
    return Wanted(str(path), None if model is None else str(model), tuple(settings))


@pytest.fixture(scope="module")
def trained(cell):
    return run_of(cell, "his4mae")


class StopsAfter:
    """Says that it is time to stop once it has been asked a number of times."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self):
        self.left -= 1
        return self.left < 0


def same(a, b):
    """Tell whether two checkpoints hold the same numbers, bit for bit."""
    (x, _), (y, _) = load_tensors(a), load_tensors(b)
    assert x.keys() == y.keys()
    return all(np.array_equal(x[name], y[name]) for name in x)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "fp32") for name in KINDS),
        ("his4mae", "bf16"),
        *(pytest.param(name, "bf16", marks=pytest.mark.slow) for name in ("sdae_recon", "sdae")),
    ],
)
def test_a_resumed_training_is_the_same_bit_for_bit(cell, name, precision, tmp_path):
    """This includes the teacher, the codebook, the counts of an epoch and stochastic depth."""
    settings = [f"train.precision={precision}"]
    whole = run_of(cell, name, tmp_path / "whole", settings)
    with pytest.raises(Interrupted):
        run_of(cell, name, tmp_path / "parts", settings, stopped=StopsAfter(7))
    parts = run_of(cell, name, tmp_path / "parts", settings)
    held = load_tensors(Run.open(parts).checkpoint)[0]
    assert "buffer.teacher.mean" in held
    assert ("master.codebook.codes" in held) == (name == "his4mae")
    assert (parts / "chart-codes.png").exists() == (name == "his4mae")
    assert same(Run.open(whole).checkpoint, Run.open(parts).checkpoint)
    assert same(Run.open(whole).model, Run.open(parts).model)


def test_the_course_of_the_codes_is_kept_and_drawn(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    wanted = {"reconstruction", "codebook", "student", "codes_used", "codes_perplexity", "codes_isolated"}
    assert all(wanted <= set(line) for line in lines)
    assert all(1 <= line["codes_perplexity"] <= line["codes_used"] <= 24 for line in lines)
    assert (trained / "chart-codes.png").stat().st_size > 5000


def test_the_student_is_an_ordinary_encoder(trained):
    run = Run.open(trained)
    encoder = load_encoder(run.recipe.model, run.model)
    assert set(encoder.state_dict()) == set(
        build_encoder(load_recipe("maester", COMMON[:7]).model).state_dict()
    )
    student = load_tensors(run.checkpoint)[0]
    for name, value in encoder.named_parameters():
        assert np.array_equal(value.detach().numpy(), student[f"master.encoder.{name}"])
    assert load_codes(run.model).shape == (24, 16)
    assert np.array_equal(load_codes(run.model), student["master.codebook.codes"])


@pytest.mark.slow
def test_snapshots_are_models_too(cell, tmp_path):
    run = run_of(cell, "his4mae", tmp_path / "run", ["train.snapshot_every=5"])
    kept = sorted(path.name for path in run.glob("model*"))
    assert kept == ["model-0000005.safetensors", "model-0000010.safetensors", "model.safetensors"]
    early = open_model(str(run / kept[0]))
    assert early.recipe == Run.open(run).recipe
    assert early.hash != open_model(str(run)).hash
    labels = segment(wanted(cell, run / kept[0]), tmp_path / "labels.tif")
    assert open_volume(labels).shape == (12, 60, 70)
    with pytest.raises(MissingError, match="no weights at"):
        open_model(str(run / "model-0000007.safetensors"))
    with pytest.raises(InputError, match="not a vemseg run"):
        (tmp_path / "alone").mkdir()
        (tmp_path / "alone" / "model.safetensors").write_bytes(b"")
        open_model(str(tmp_path / "alone" / "model.safetensors"))
    run_of(cell, "his4mae", run, overwrite=True)
    assert [path.name for path in run.glob("model*")] == ["model.safetensors"]


@pytest.mark.parametrize("method", ["kmeans", "codebook"])
def test_embed_and_cluster_apart_are_segment(cell, trained, method, tmp_path):
    settings = [f"cluster.method={method}", "cluster.k=3"]
    at_once = segment(wanted(cell, trained, settings), tmp_path / "a.tif")
    features = embed(wanted(cell, trained), tmp_path / "f.zarr")
    assert np.array_equal(Features(features).codes, load_codes(Run.open(trained).model))
    classes = cluster([features], tmp_path / "c.safetensors", settings=settings)
    later = segment(wanted(features), tmp_path / "b.tif", clusters=classes)
    both = [open_volume(path).read(open_volume(path).box) for path in (at_once, later)]
    assert np.array_equal(*both)
    assert len(np.unique(both[0])) == 3
    straight = segment(wanted(features, settings=settings), tmp_path / "d.tif")
    assert np.array_equal(both[0], open_volume(straight).read(open_volume(straight).box))


def test_a_student_teaches_a_dense_encoder(cell, trained, tmp_path):
    sizes = ["fov=32", "view=24", "slices=2", "widths=[4,4]", "layers=1"]
    settings = [*(f"model.{size}" for size in sizes), "train.steps=2", "train.batch=2", "train.log_every=1"]
    given = load_recipe("his4mae", COMMON).settings["volume"]
    settings += [f"volume.intensity={given['intensity']}", "volume.range=[0.0, 255.0]"]
    recipe = load_recipe("invariance", settings)
    job = Training([str(cell)], tmp_path / "dense", recipe, teacher=open_model(str(trained)))
    run = train(job, Context())
    assert Run.open(run).recipe.model.dim == 16
    assert -1 <= Run.open(run).info["cosine"] <= 1


def test_maester_begins_his4mae_and_the_other_way_round(cell, trained, tmp_path):
    recipe = load_recipe("maester", [*COMMON[:7], *COMMON[8:]])
    job = Training([str(cell)], tmp_path / "maester", recipe, start=open_model(str(trained)))
    started = train(job, Context())
    with pytest.raises(Interrupted):
        run_of(cell, "his4mae", tmp_path / "again", start=open_model(str(started)), stopped=StopsAfter(0))
    before, after = (load_tensors(Run.open(run).model)[0] for run in (started, tmp_path / "again"))
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_only_a_model_with_codes_is_clustered_by_them(cell, tmp_path):
    run = run_of(cell, "sdae_recon", tmp_path / "run", ["train.steps=1"])
    with pytest.raises(UsageError, match="method codebook needs the vectors of a model with a codebook"):
        segment(wanted(cell, run, ["cluster.method=codebook"]), tmp_path / "l.tif")
    assert not (tmp_path / "l.tif").exists()


# The codebook as the labeller, without a network


def blobs():
    """Return three distant blobs of vectors, and codes: several near each blob, and some near none."""
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 0], [20, 0, 0], [0, 30, 0]], np.float32)
    which = rng.integers(3, size=900)
    vectors = (centres[which] + rng.normal(size=(900, 3))).astype(np.float16)
    codes = np.concatenate([centres + step for step in (-0.5, 0, 0.6)] + [centres + 500])
    return vectors, which, codes.astype(np.float32)


@pytest.mark.parametrize("linkage", ["ward", "overlap"])
@pytest.mark.parametrize("scale", ["none", "standardise"])
def test_codes_are_joined_into_classes(linkage, scale, tmp_path):
    vectors, which, codes = blobs()
    table = CodebookTable(k=3, sample=900, linkage=linkage, scale=scale)
    before = codes.copy()
    labeller = fit(table, Sample(vectors, which.astype(np.float32), codes))
    assert np.array_equal(codes, before)
    assert labeller.parts.tolist() == [3, 3, 3]  # codes far from everything are left out
    labels = labeller.scores(torch.from_numpy(vectors.astype(np.float32))).argmax(dim=-1).numpy()
    assert np.array_equal(labels, which)
    labeller.save(tmp_path / "c.safetensors")
    assert load(tmp_path / "c.safetensors").metadata["method"] == "codebook"


def test_classes_of_a_codebook_are_nearest_codes():
    """With as many classes as codes in use, the label is the nearest code, one code at a time."""
    vectors, _, codes = blobs()
    table = CodebookTable(k=9, sample=900)
    labeller = fit(table, Sample(vectors, np.zeros(900, np.float32), codes))
    labels = labeller.scores(torch.from_numpy(vectors.astype(np.float32))).argmax(dim=-1).numpy()
    nearest = [min(range(9), key=lambda c: ((codes[c] - v) ** 2).sum()) for v in vectors.astype(np.float64)]
    pairs = set(zip(labels.tolist(), nearest, strict=True))
    assert len(pairs) == 9


def test_more_classes_than_codes_in_use_is_said():
    vectors, _, codes = blobs()
    with pytest.raises(InputError, match=r"vectors lie near 9 of the model's \d+ codes: lower -k, or train"):
        fit(CodebookTable(k=10, sample=900), Sample(vectors, np.zeros(900, np.float32), codes))


@pytest.mark.parametrize(
    "k, message", [(3, "needs the vectors of a model with a codebook"), (25, "24 codes")]
)
def test_codes_that_are_not_there_are_missed_before_anything_is_encoded(cell, trained, tmp_path, k, message):
    settings = ["cluster.method=codebook", f"cluster.k={k}"]
    told = []
    model = trained if k > 24 else "classical"
    context = Context(report=lambda *say: told.append(say))
    with pytest.raises(UsageError, match=message):
        segment(wanted(cell, model, settings), tmp_path / "l.tif", context=context)
    assert told == []
    assert not (tmp_path / "l.tif").exists()


def test_joining_many_codes_needs_memory():
    def source(codes):
        maker = SimpleNamespace(codes=np.zeros((codes, 4), np.float32), learned={})
        return SimpleNamespace(maker=maker, volume_shape=(10, 100, 100), count=100_000, dim=4, classes=())

    table = CodebookTable(sample=1000)
    assert check_sample(table, [source(512)], 8 * 2**30) == 1000
    with pytest.raises(ResourceError, match=r"to join classes from 65536 parts: .* is 2\d\dGiB"):
        check_sample(table, [source(65_536)], 8 * 2**30)


# The sample as a share of the volume


def test_a_thousandth_of_the_volume(cell, trained, tmp_path):
    assert KMeansTable(sample=0.001).sample_of(600_000_000) == 600_000
    assert KMeansTable(sample=0.001, k=6).sample_of(100) == 6
    assert KMeansTable(sample=77).sample_of(100) == 77
    settings = ["cluster.sample=0.01", "cluster.k=3"]
    out = segment(wanted(cell, trained, settings), tmp_path / "l.tif")
    made = load(out.with_name("l_clusters.safetensors"))
    assert made.metadata["sample"] == round(0.01 * 12 * 60 * 70)


def test_a_run_that_began_before_a_setting_existed_goes_on(cell, tmp_path):
    """A recipe written without ``train.snapshot_every`` counts as one with its default."""
    with pytest.raises(Interrupted):
        run_of(cell, "his4mae", tmp_path / "run", stopped=StopsAfter(3))
    path = tmp_path / "run" / "recipe.toml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "snapshot" not in line))
    run = run_of(cell, "his4mae", tmp_path / "run")
    assert Run.open(run).finished
