"""What a GPU would refuse, on a machine without one: see ``pretended``.

Two steps of every objective must not let the CPU wait. Then the whole loop, its previews and checkpoints, and
inference must give NumPy nothing that lies on the GPU, and mix no tensors of both places.
"""

import numpy as np
import pytest
import torch
from pretended import GPU, Generator, OnGPU, PretendedGPU, is_gpu, moved, placed, tensors
from tiny import NM, RECIPES, SHORT, TRANSFORMER, UNET, Tissue

from vemseg.batch import Batch, Pair
from vemseg.context import Context
from vemseg.dense import GraphSampler, lay_over_volume
from vemseg.geometry import Box
from vemseg.labelling import Examples, Sample, fit
from vemseg.models import (
    Machine,
    build_encoder,
    build_labeller,
    build_objective,
    build_self_training,
    build_student,
    hyperbolic,
    open_model,
)
from vemseg.models.objective import step_generator
from vemseg.phantom import Phantom
from vemseg.recipe import METHODS, KMeansTable, load_recipe
from vemseg.run import Run
from vemseg.sampling import Sampler, Source, Synthetic
from vemseg.training import MasterAdamW, Trainer
from vemseg.volume import ArrayVolume, Intensity

SHAPE = (8, 40, 40)


class Undrawn:
    """Stands in for the figures, which cost more than the steps here."""

    def curve(self, *given, **more):
        assert all(isinstance(one, np.ndarray | dict | float) for one in given)

    def reconstructions(self, *images):
        assert all(isinstance(one, np.ndarray) for one in images)

    def save(self, figure, path):
        assert figure is None


class Space:
    """The Poincaré ball: geoopt compiles its functions, so calls of PyTorch inside them are not seen."""

    def __init__(self, real):
        self.real = real

    def __getattr__(self, name):
        def call(*args, **kwargs):
            there = [isinstance(one, OnGPU) for one in tensors(args)]
            assert all(there) or not any(there), f"{name}: tensors of both places"
            with torch._C.DisableTorchFunction():
                return moved(getattr(self.real, name)(*args, **kwargs), any(there))

        return call


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """Let modules and generators of random numbers move to the pretended GPU."""
    real = torch.Generator
    monkeypatch.setattr(
        torch, "Generator", lambda device="cpu": Generator() if is_gpu(device) else real(device)
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**33, 2**34))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    monkeypatch.setattr("vemseg.training.drawing", Undrawn())
    for module in ("hyperbolic", "cihs"):
        monkeypatch.setattr(f"vemseg.models.{module}.ball", lambda real=hyperbolic.ball: Space(real()))
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.fixture(scope="module")
def cell():
    phantom = Phantom(SHAPE, seed=2)
    labels = ArrayVolume(phantom.labels(Box.whole(SHAPE)), NM)
    return Source(ArrayVolume(phantom.read(Box.whole(SHAPE)), NM), Intensity(0.0, 255.0), labels)


def trained(objective, sampler, recipe, path):
    """Train on the GPU: two steps for which the CPU waits nowhere, then to the end."""
    with Run.create(path, recipe) as run:
        with PretendedGPU(steady=False):
            objective = objective.to(GPU)
            trainer = Trainer(
                objective, sampler, run, recipe.train, held=sampler if recipe.model.learns_labels else None
            )
            trainer.sampler.batch(0, recipe.train.batch)  # reads the boxes
        with PretendedGPU(steady=True):
            objective.train()
            for _ in range(2):
                assert all(isinstance(value, torch.Tensor) for value in trainer._one_step().values())
        with PretendedGPU(steady=False):
            assert trainer.fit(Context())
            trainer.draw()
        return run


def encoded_on_gpu(model, volume, monkeypatch, precision=torch.float32):
    """Return a box of vectors that were computed on the GPU, and the labels made of them."""
    machine = Machine(GPU, precision, 1, "pretended")
    monkeypatch.setattr("vemseg.dense.opening.settle", lambda context, precision: machine)
    box = Box.whole((2, 10, 10))
    with PretendedGPU(steady=False):
        source = lay_over_volume(model, volume, Context())
        points = source.points_of(box)
        given = source.read_points(points)
        vectors = source.compute(points, given)
        sample = Sample(vectors.reshape(-1, source.dim).numpy(), np.zeros(points.size, np.float32))
        labeller = fit(KMeansTable(k=2, restarts=1), sample)
        labels = source.labels(box, source.read(box), labeller)
        source.budgets(2, 1.0, 2**32)
    return vectors, labels


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_encodes_on_a_gpu(name, cell, tmp_path, monkeypatch):
    recipe = load_recipe(name, [*SHORT, "train.steps=4", "train.precision=fp32", *RECIPES[name]])
    objective = build_objective(recipe.model, 0)
    source = cell if recipe.model.learns_labels else Source(cell.volume, cell.intensity)
    sources = [source, Synthetic(Tissue(), 2, 2, 0)] if name == "vemseg" else [source]
    with PretendedGPU(steady=False):
        sampler = Sampler(sources, objective.window, recipe.fov, 0, GPU)
    run = trained(objective, sampler, recipe, tmp_path / "run")
    losses = [line["loss"] for line in run.read_metrics()]
    assert [line["step"] for line in run.read_metrics()] == [4] and np.isfinite(losses).all()
    vectors, labels = encoded_on_gpu(open_model(str(run.path)), cell.volume, monkeypatch)
    assert (
        not isinstance(vectors, OnGPU) and torch.isfinite(vectors).all() and set(np.unique(labels)) <= {1, 2}
    )


def test_classical_features_are_returned_to_the_gpu(cell, monkeypatch):
    vectors, _ = encoded_on_gpu(open_model("classical", ["model.sigmas=[1.0]"]), cell.volume, monkeypatch)
    assert vectors.dtype == torch.float16 and not isinstance(vectors, OnGPU)


def test_sccs_trains_on_a_gpu(cell, tmp_path, monkeypatch):
    short = ["train.steps=4", "train.log_every=2", "cluster.warmup=1", "cluster.every=100", "cluster.k=2"]
    small = ["cluster.widths=[8, 6, 4]", "regions.tile=24", "regions.size=20", "regions.parts=4"]
    model = open_model("classical", ["model.sigmas=[1.0]"])
    recipe = load_recipe("sccs", [*short, *small]).on_vectors_of(model.recipe)
    machine = Machine(GPU, torch.float32, 1, "pretended")
    monkeypatch.setattr("vemseg.dense.opening.settle", lambda context, precision: machine)
    with PretendedGPU(steady=False):
        sampler = GraphSampler([lay_over_volume(model, cell.volume, Context())], recipe)
        for step in range(4):
            sampler.batch(step, 1)  # graphs are made on the CPU, and kept
        objective = build_labeller(recipe.cluster, 0, model.load(), sampler.dim).to(GPU)
        optimiser = MasterAdamW(objective, recipe.train)
        objective(sampler.batch(0, 1), step_generator(0, 0))
        objective(sampler.batch(0, 1), step_generator(0, 0))  # anchors the classes
    with PretendedGPU(steady=True):
        terms = objective(sampler.batch(1, 1), step_generator(0, 1))
        torch.autograd.backward(terms["loss"])
        optimiser.step(1e-3)
    assert set(terms) == {"loss", "spectral", "clustering", "smoothness", "density"}
    assert isinstance(terms["loss"], OnGPU)


def stepped(objective, batch, recipe):
    """Take two steps on the GPU, the second without a wait."""
    with PretendedGPU(steady=False):
        objective = objective.to(GPU).train()
        optimiser = MasterAdamW(objective, recipe.train)
    for step in range(2):
        with PretendedGPU(steady=bool(step)):
            generator = step_generator(0, step)
            terms = objective(batch, generator)
            torch.autograd.backward(terms["loss"])
            optimiser.step(1e-3)
            objective.after_step(0.5, generator)
    return terms


def test_teaching_and_self_training_run_on_a_gpu(tmp_path):
    recipe = load_recipe("vemseg", [*SHORT, *UNET])
    images = placed(torch.rand(4, 1, 8, 32, 32))
    labels = placed(torch.randint(0, 4, (4, 8, 32, 32), dtype=torch.uint8))
    labels[:2] = labels[:2] | (labels[:2] << 4)
    assert int(Pair.parts(labels[:2])[1].max()) == 3
    volume = torch.tensor([0, 0, 1, 1])
    start = build_encoder(recipe.model)
    terms = stepped(
        build_self_training(recipe.model, 0, start, 4), Batch(images, labels, volume=volume), recipe
    )
    assert set(terms) >= {"loss", "found", "kept", "recognition"}
    teacher = build_encoder(load_recipe("maester", TRANSFORMER).model)
    student = load_recipe("invariance", [*UNET, f"model.dim={teacher.dim}"])
    with PretendedGPU(steady=False):
        objective = build_student(student.model, 0, teacher.prepare(GPU, torch.float32), 10)
    regions = placed(torch.rand(2, 1, *objective.window))
    assert set(stepped(objective, Batch(regions), student)) == {"loss", "error", "cosine"}


TABLES = {
    "kmeans": {}, "minibatch": {}, "hyperbolic": {"restarts": 1}, "gmm": {"components": 4},
    "linkage": {"parts": 6}, "codebook": {}, "named": {}, "points": {},
}  # fmt: skip


@pytest.mark.parametrize("method", TABLES)
def test_every_labeller_scores_on_a_gpu(method):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 4)).astype(np.float16)
    codes, names = vectors[:9].astype(np.float32), ("a", "b", "c")
    given = Examples(codes, np.arange(9) % 3, names)
    sample = Sample(vectors, rng.random(200).astype(np.float32), codes, names, examples=given)
    sizes = {} if method in ("named", "points") else {"k": 3, "sample": 200}
    labeller = fit(
        METHODS[method].table.model_validate({"method": method, **sizes, **TABLES[method]}), sample
    )
    plain = labeller.scores(torch.from_numpy(vectors).float())
    with PretendedGPU(steady=method != "named"):  # "named" looks whether vectors are finite
        scores = labeller.scores(placed(torch.from_numpy(vectors).float()))
        assert scores.device == GPU and labeller.confidence(scores).device == GPU
    assert torch.equal(scores.as_subclass(torch.Tensor), plain)


def test_the_other_labellers_score_graphs_on_the_cpu():
    graphs = {name for name, method in METHODS.items() if method.table.regions}
    assert set(METHODS) == set(TABLES) | graphs


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x + torch.ones(3),
        lambda x: x.numpy(),
        lambda x: torch.rand(3, generator=torch.Generator(), device=GPU),
        lambda x: float(x.sum()),
        lambda x: x[x > 0],
        lambda x: bool(x.any()),
        lambda x: x.to("cpu"),
        lambda x: torch.ones(3)[x.long()],
        lambda x: torch.nn.functional.linear(x, torch.ones(2, 3)),
    ],
)
def test_the_pretended_gpu_refuses(wrong):
    with PretendedGPU(steady=True), pytest.raises(AssertionError):
        wrong(torch.zeros(3, device=GPU))
