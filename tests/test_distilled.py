"""A dense encoder taught by another: the same places are compared, it learns, and agreement is reported."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool3d

from vemseg.batch import Batch
from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.distillation import DESCRIPTION, agreement
from vemseg.errors import Interrupted, OutputExistsError, UsageError
from vemseg.geometry import Box
from vemseg.models import build_encoder, build_student, load_encoder, open_model
from vemseg.models.distilled import DenseTeacher, Distillation, PlaneTeacher, ScaledHead, Targets, _onto
from vemseg.models.unet import PATCH
from vemseg.phantom import Phantom
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.segment import segment
from vemseg.pipeline.train import Training, train
from vemseg.recipe import ClassicalTable, FovTable, MaesterTable, Recipe, TrainTable, UNetTable, load_recipe
from vemseg.run import Run, load_tensors
from vemseg.sampling import Sampler, Source, hold_out
from vemseg.training import Trainer
from vemseg.volume import ArrayVolume, Intensity, open_volume

CPU = torch.device("cpu")
VIT = MaesterTable(fov=20, patch=5, dim=8, depth=1, heads=1, decoder_dim=8, decoder_depth=1, decoder_heads=1)
SIZES = {"fov": 48, "view": 32, "slices": 4, "widths": (6, 8), "layers": 1}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def student_of(dim):
    return UNetTable(**SIZES, dim=dim)


def teacher_of(table, seed=0):
    torch.manual_seed(seed)
    return build_encoder(table).prepare(CPU, torch.float32)


# Registration


class Places:
    """A teacher or student whose vectors are the mean of their patch."""

    def __init__(self, fov, patch, halo=None, align=(1, 1, 1), dim=1):
        self.fov, self.patch, self.halo, self.align, self.dim = fov, patch, halo, align, dim
        self.fixed_fov = halo is None

    def encode(self, x, kept):
        assert x.shape[2] % self.patch[0] == 0
        return avg_pool3d(x, self.patch)[:, 0][:, kept[0], kept[1], kept[2], None]


TEACHERS = [
    (Places((1, 20, 20), (1, 5, 5)), 10),
    (Places((1, 20, 20), (1, 5, 5)), 20),
    (Places((1, 24, 24), (1, 4, 4)), 8),
    (Places((1, 9, 9), (1, 3, 3)), 3),
    (Places((7, 11, 11), (1, 1, 1), (3, 5, 5)), 1),
    (Places((6, 10, 10), (2, 2, 2), (2, 4, 4), (2, 8, 8)), 2),
    (Places((3, 13, 13), (1, 3, 3), (1, 5, 5)), 3),
]


@pytest.mark.parametrize(("teacher", "stride"), TEACHERS, ids=lambda t: getattr(t, "fov", t))
@pytest.mark.parametrize("axis", range(3))
def test_both_are_compared_in_the_same_places(teacher, stride, axis):
    """On an image of coordinates, means of patches are the places of their centres, whatever the patch."""
    objective = build_student(student_of(1), 0, teacher, stride)
    slices, edge, _ = objective.window
    ramp = torch.from_numpy(np.indices((slices, edge, edge))[axis].astype(np.float32))[None, None]
    objective.encoder.trunk = lambda slabs: avg_pool3d(slabs[:, None], (slabs.shape[1], 2, 2))[:, 0]
    objective.encoder.head.forward = lambda means: objective.encoder.head.standardised(
        means.movedim(1, -1)
    ).movedim(-1, 1)
    for seed in range(6):
        theirs, ours = objective.vectors(Batch(ramp), generator(seed))
        assert len(ours) == len(theirs) >= 16
        torch.testing.assert_close(theirs, ours, rtol=0, atol=2e-3)
    assert ours.std() > 1 or axis == 0
    if axis == 0:
        assert ours.mean().item() == pytest.approx((slices - 1) / 2, abs=1e-3)


def test_windows_of_a_plane_teacher_are_those_of_one_by_one():
    encoder = teacher_of(VIT)
    teacher = PlaneTeacher(encoder, 10)
    images = torch.rand(2, 1, 4, 48, 48, generator=generator(0))
    found = teacher.look(images, generator(3), both=True)
    y, x = (round(first - 7) for first in found.first)  # the first kept patch of 5 begins 5 pixels in
    assert found.pitch == 5 and found.vectors.shape == (2, 6, 6, 8)
    for i in range(6):
        for j in range(6):
            top, left = y + i // 2 * 10, x + j // 2 * 10
            planes = [images[:, :, z : z + 1, top : top + 20, left : left + 20] for z in (1, 2)]
            slow = sum(encoder.encode(plane)[:, 0, 1 + i % 2, 1 + j % 2] for plane in planes) / 2
            torch.testing.assert_close(found.vectors[:, i, j], slow, rtol=1e-4, atol=1e-5)


def test_one_slice_stands_for_both():
    teacher = PlaneTeacher(teacher_of(VIT), 10)
    images = torch.rand(1, 1, 2, 30, 30, generator=generator(0)).expand(40, -1, -1, -1, -1)

    def look(images, both=False):
        return teacher.look(images, generator(2), both=both)

    def of_slice(z):
        return look(images[:1, :, [z, z]]).vectors[0]

    found, (first, second) = look(images), (of_slice(z) for z in range(2))
    drawn = [int(torch.allclose(one, second, atol=1e-5)) for one in found.vectors]
    for one, z in zip(found.vectors, drawn, strict=True):
        torch.testing.assert_close(one, (first, second)[z], rtol=1e-4, atol=1e-5)
    assert 10 < sum(drawn) < 30
    torch.testing.assert_close(look(images, True).vectors[0], (first + second) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "table", [ClassicalTable(sigmas=(1.0, 2.0)), UNetTable(fov=16, view=16, widths=(4, 6), layers=1, dim=3)]
)
def test_windows_of_a_dense_teacher_hold_its_halo(table):
    encoder = teacher_of(table)
    teacher = DenseTeacher(encoder)
    edge = -(-teacher.edge // 8) * 8
    images = torch.rand(1, 1, teacher.slices, edge, edge, generator=generator(0))
    found = teacher.look(images, generator(0), both=True).vectors
    padded = torch.rand(1, 1, teacher.slices + 8, edge + 16, edge + 16, generator=generator(1))
    padded[:, :, 4:-4, 8:-8, 8:-8] = images
    around = teacher.look(padded[:, :, 4:-4], generator(0), both=True).vectors
    offset = 8 // encoder.patch[1]
    torch.testing.assert_close(around[:, offset:-offset, offset:-offset], found)
    with pytest.raises(UsageError, match="two slices thick, not 4"):
        DenseTeacher(Places((4, 4, 4), (4, 4, 4), (0, 0, 0)))


@pytest.mark.parametrize(
    ("first", "pitch", "n"), [(7.0, 5, 4), (0.0, 1, 40), (4.5, 2, 9), (10.5, 4, 1), (9.25, 4, 5)]
)
def test_interpolation_is_numpys(first, pitch, n):
    rng = np.random.default_rng(0)
    values = rng.normal(size=n)
    targets = Targets(torch.zeros(1, n, n, 1), (first, first), pitch)
    if n == 1:
        first = 10.5
    kept, weights = _onto(targets, 0, 48)
    places = (np.arange(24) * PATCH + 0.5)[kept]
    lattice = first + np.arange(n) * pitch
    assert places.min() - PATCH < lattice[0] <= places.min()
    assert places.max() <= lattice[-1] < places.max() + PATCH
    np.testing.assert_allclose(weights.numpy() @ values, np.interp(places, lattice, values), atol=1e-6)


# The student


def test_what_is_saved_gives_the_teachers_own_vectors():
    torch.manual_seed(0)
    head = ScaledHead(4, 3)
    sample = torch.randn(1000, 3, generator=generator(0)) * torch.tensor([5.0, 0.1, 1e-9]) + 7
    head.learn_scale(sample)
    head.learn_scale(sample * 100)  # only the first counts
    assert head.spread.tolist() == pytest.approx([5.0, 0.1, 5e-3], rel=0.1)
    plain = torch.nn.Conv2d(4, 3, 1)
    plain.load_state_dict(head.state_dict())
    x = torch.randn(2, 4, 5, 5, generator=generator(1))
    expected = head.restored(head(x).movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(plain(x), expected)
    torch.testing.assert_close(head.standardised(head.restored(sample)), sample, rtol=1e-3, atol=5e-2)
    assert head.to(torch.bfloat16).mean.dtype == torch.float32


def test_the_teacher_is_no_part_of_what_is_trained():
    objective = build_student(student_of(8), 0, teacher_of(VIT), 10)
    assert isinstance(objective, Distillation)
    names = {name.split(".")[0] for name, _ in [*objective.named_parameters(), *objective.named_buffers()]}
    assert names == {"encoder"}
    assert objective.window == (4, 48, 48)
    assert build_student(student_of(8), 0, teacher_of(ClassicalTable(sigmas=(1.0, 2.0))), 1).window[0] == 16


@pytest.fixture(scope="module")
def cell():
    shape = (32, 96, 96)
    return Source(
        ArrayVolume(Phantom(shape, seed=2).read(Box.whole(shape)), (16.0,) * 3), Intensity(0.0, 255.0)
    )


def fit_student(cell, path, table, precision="fp32", stop_at=None, steps=30):
    settings = TrainTable(steps=steps, batch=4, log_every=4, lr=3e-3, picture_every=1000, precision=precision)
    teacher = teacher_of(table)
    model = student_of(teacher.dim)
    objective = build_student(model, 0, teacher, 10)
    sampler = Sampler([cell], objective.window, FovTable(), 0, CPU)
    with Run.create(path, Recipe(model=model, train=settings)) as run:
        trainer = Trainer(objective, sampler, run, settings)
        trainer.fit(Context(stopped=lambda: trainer.step == stop_at))
    return SimpleNamespace(run=run, objective=objective)


@pytest.mark.parametrize("table", [VIT, ClassicalTable(sigmas=(1.0, 2.0))], ids=["maester", "classical"])
def test_the_cosine_rises(cell, tmp_path, table):
    made = fit_student(cell, tmp_path / "run", table, steps=60)
    lines = made.run.read_metrics()
    assert all({"loss", "error", "cosine"} <= set(line) for line in lines)
    assert lines[-1]["cosine"] > lines[0]["cosine"] + 0.2
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]


def test_the_saved_student_is_the_trained_one(cell, tmp_path):
    made = fit_student(cell, tmp_path / "run", VIT, steps=6)
    loaded = load_encoder(made.run.recipe.model, made.run.model).eval()
    trained = made.objective.encoder.eval()
    x = torch.rand(1, 1, 8, 32, 32, generator=generator(0))
    with torch.no_grad():
        expected = trained.head.restored(trained.encode(x))
        torch.testing.assert_close(loaded.encode(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(cell, tmp_path, precision):
    whole = fit_student(cell, tmp_path / "whole", VIT, precision, steps=9)
    for stop in (0, 3, 6, None):
        parts = fit_student(cell, tmp_path / "parts", VIT, precision, stop, steps=9)
    for file in ("checkpoint", "model"):
        first, second = (load_tensors(getattr(made.run, file))[0] for made in (whole, parts))
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)
    keys = ("step", "loss", "error", "cosine")
    lines = [[[line[key] for key in keys] for line in made.run.read_metrics()] for made in (whole, parts)]
    assert lines[0] == lines[1]


# The examination


def test_the_last_sections_of_thick_volumes_are_held_out():
    volume = ArrayVolume(np.arange(83 * 40 * 50, dtype=np.uint32).reshape(83, 40, 50))
    sources = [Source(ArrayVolume(volume.read(Box((0, 0, 0), (n, 40, 50)))), None) for n in (83, 63)]
    learnt, held = hold_out(sources, 8, 80)
    assert [source.volume.shape[0] for source in learnt] == [73, 63]
    assert [source.volume.shape for source in held] == [(10, 40, 50)]
    parts = [part.volume.read(part.volume.box) for part in (learnt[0], held[0])]
    np.testing.assert_array_equal(np.concatenate(parts), volume.read(volume.box))
    assert hold_out(sources, 8, 81)[1] == hold_out(sources, 11, 80)[1] == []


class Vectors:
    """An objective whose student gives the teacher's vectors plus some noise."""

    window = (2, 32, 32)

    def __init__(self, noise):
        self.noise = noise

    def eval(self):
        pass

    def vectors(self, batch, generator):
        middle = batch.images[:, 0, :, ::2, ::2].movedim(1, -1).flatten(0, 2)
        theirs = torch.cat([middle, middle.square()], dim=1)
        return theirs, theirs + self.noise * torch.randn(theirs.shape, generator=generator) * theirs.std()


def test_agreement_is_one_with_itself_and_chance_with_noise(cell):
    def examine(noise, held=()):
        clusters = load_recipe("classical").cluster
        recipe = Recipe(model=student_of(4), train=TrainTable(batch=4), cluster=clusters)
        return agreement(Vectors(noise), [cell], held, recipe, CPU)

    same = examine(0.0)
    assert same["cosine"] == pytest.approx(1) and same["label_agreement"] == 1 and not same["held_out"]
    near, far = examine(0.1, [cell]), examine(100.0)
    assert near["held_out"] and 0.5 < near["label_agreement"] < 1
    assert abs(far["cosine"]) < 0.1 and far["label_agreement"] < 0.5
    assert examine(0.1) == near | {"held_out": False}


# The verb

SMALL = [
    *[f"model.{key}={list(value) if isinstance(value, tuple) else value}" for key, value in SIZES.items()],
    "train.steps=6",
    "train.batch=3",
    "train.log_every=2",
    "cluster.sample=3000",
    "cluster.k=3",
    "cluster.restarts=1",
]
VIT_SETTINGS = [
    *[f"model.{key}={value}" for key, value in VIT.model_dump().items() if key not in ("kind", "pos_weight")],
    "train.steps=2",
    "train.batch=4",
    "embed.stride=10",
]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    path = tmp_path_factory.mktemp("distilled") / "cell.tif"
    fetch_phantom(path, (12, 80, 90), 3, (16.0, 16.0, 16.0), False)
    return path


@pytest.fixture(scope="module")
def teacher(phantom):
    recipe = load_recipe("maester-quick", VIT_SETTINGS)
    return train(Training([str(phantom)], phantom.with_name("teacher"), recipe), Context())


def distil(phantom, out, teacher, settings=(), stopped=lambda: False, **options):
    recipe = load_recipe("invariance", [*SMALL, *settings])
    job = Training([str(phantom)], out, recipe, teacher=open_model(str(teacher)), **options)
    return train(job, Context(stopped=stopped))


def test_a_student_is_an_ordinary_run_that_names_its_teacher(phantom, teacher, tmp_path, caplog):
    with caplog.at_level("INFO", "vemseg"):
        run = Run.open(distil(phantom, tmp_path / "student", teacher))
    assert run.recipe.model.dim == 8 and run.recipe.cluster.scale == "none"
    assert run.recipe.description == DESCRIPTION
    about = run.info
    assert about["parents"][0]["path"] == str((Path(teacher) / "model.safetensors").resolve())
    assert about["teacher"] == {"model": str(teacher), "hash": open_model(str(teacher)).hash}
    assert -1 <= about["cosine"] <= 1 and 0 < about["label_agreement"] <= 1 and not about["held_out"]
    assert "too small to hold a part out: cosine" in caplog.text
    assert json.loads(run.metrics.read_text().splitlines()[-1])["cosine"] > -1
    out = segment(Wanted(str(phantom), str(run.path), ("embed.smooth=0.0",)), tmp_path / "seg.tif")
    volume = open_volume(out)
    assert set(np.unique(volume.read(volume.box))) == {1, 2, 3}


def test_a_student_of_a_student_that_was_stopped_is_the_same(phantom, teacher, tmp_path):
    first = distil(phantom, tmp_path / "first", teacher)
    whole = distil(phantom, tmp_path / "whole", first)
    for stop in (1, 4):
        asked = iter(range(100))
        with pytest.raises(Interrupted):
            distil(phantom, tmp_path / "parts", first, stopped=lambda asked=asked, n=stop: next(asked) == n)
    parts = distil(phantom, tmp_path / "parts", first)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    facts = [Run.open(run).info for run in (whole, parts)]
    for key in ("cosine", "label_agreement", "steps"):
        assert facts[0][key] == facts[1][key]


def test_the_same_student_again_and_another_teachers(phantom, teacher, tmp_path):
    run = distil(phantom, tmp_path / "student", teacher)
    before = (run / "model.safetensors").read_bytes()
    distil(phantom, run, teacher)
    assert (run / "model.safetensors").read_bytes() == before
    recipe = load_recipe("maester-quick", [*VIT_SETTINGS, "train.seed=5"])
    other = train(Training([str(phantom)], tmp_path / "other", recipe), Context())
    with pytest.raises(OutputExistsError, match=r"teacher .* there, teacher .*other now"):
        distil(phantom, run, other)
    with pytest.raises(OutputExistsError, match=r"teacher .* there, no other model now"):
        train(Training([str(phantom)], run, Run.open(run).recipe), Context())


def test_features_without_training_can_be_taught_too(phantom, tmp_path):
    filters = open_model("classical", ["model.sigmas=[1.0, 2.0]"])
    recipe = load_recipe("invariance", [*SMALL, "model.slices=2"])
    job = Training([str(phantom)], tmp_path / "student", recipe, teacher=filters)
    run = Run.open(train(job, Context()))
    assert run.recipe.cluster.scale == "standardise" and run.recipe.model.dim == 8
    assert run.info["parents"] == [] and run.info["teacher"]["model"] == "classical"
    with pytest.raises(OutputExistsError, match="teacher classical there, no other model now"):
        train(Training([str(phantom)], run.path, run.recipe), Context())


def test_what_a_teacher_cannot_teach(phantom, teacher, tmp_path):
    with pytest.raises(UsageError, match=r"volume\.voxel_size 16\.0 there, 8\.0 here\): add --set 'volume"):
        distil(phantom, tmp_path / "run", teacher, ["volume.voxel_size=8.0"])
    with pytest.raises(UsageError, match="a dense encoder, not a 'maester': add -c vemseg"):
        recipe = load_recipe("maester-quick", VIT_SETTINGS)
        job = Training([str(phantom)], tmp_path / "run", recipe, teacher=open_model(str(teacher)))
        train(job, Context())
    with pytest.raises(UsageError, match="do not go together"):
        distil(phantom, tmp_path / "run", teacher, start=open_model(str(teacher)))
    assert not (tmp_path / "run").exists()
