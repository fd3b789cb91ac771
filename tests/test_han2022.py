"""Han et al.: sizes of the reference code, losses against slow restatements, and what training gives."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import interpolate, softplus

from vemseg.batch import Batch
from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.errors import UsageError
from vemseg.geometry import Box
from vemseg.models import build_encoder, build_objective
from vemseg.models.cubes import CubeUpConv
from vemseg.models.han2022 import gaussian_divergence, multi_similarity, standardised, variance_ratio
from vemseg.models.objective import device_generator
from vemseg.phantom import Phantom
from vemseg.pipeline.segment import segment
from vemseg.pipeline.train import Training, train
from vemseg.recipe import Han2022Table, diff, load_recipe
from vemseg.run import Run, load_tensors
from vemseg.sampling import Sampler, Source
from vemseg.training import Trainer
from vemseg.volume import ArrayVolume, Intensity, open_volume

TINY = Han2022Table(grid=4, widths=(4, 8), hidden=12, latent=8, semantic=3, radii=(1.0, 3.0))
CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# Sizes


def test_sizes_are_those_of_the_reference():
    objective = build_objective(Han2022Table(), 0)
    assert count(objective.encoder) == 5_509_760
    assert count(objective.decoder) == 5_500_290
    assert objective.window == (27, 27, 27)
    assert (objective.encoder.fov, objective.encoder.dim) == ((9, 9, 9), 8)
    made, deviation = objective.decoder(torch.zeros(1, 64))
    assert made.shape == deviation.shape == (1, 1, 16, 16, 16)


@torch.no_grad()
def test_the_decoder_repeats_voxels_before_each_convolution():
    decoder = build_objective(TINY, 0).decoder
    latent = torch.randn(3, 8, generator=generator())
    maps = decoder.spread(decoder.hidden(latent)).relu().view(3, 8, 1, 1, 1)
    for layer in [each for each in decoder.convolutions if isinstance(each, CubeUpConv)]:
        maps = layer(interpolate(maps.relu(), scale_factor=2, mode="nearest"))
    made, deviation = decoder(latent)
    torch.testing.assert_close(made, maps[:, :1])
    torch.testing.assert_close(deviation, softplus(maps[:, 1:]) + 1e-5)


def test_the_recipe_is_the_papers_and_the_quick_one_is_smaller():
    recipe = load_recipe("han2022")
    assert recipe.model == Han2022Table()
    assert recipe.train.steps == 3 * 2_000_000 // 128
    changed = diff(recipe, load_recipe("han2022-quick"))
    sizes = {"model.grid", "model.widths", "model.hidden", "model.latent"}
    assert {key for key in changed if key.startswith("model.")} == sizes
    assert not [key for key in changed if key.startswith(("cluster.", "fov."))]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.grid=12"], r"model\.grid must be a multiple of the coarsest cell \(8\), not 12"),
        (["model.semantic=33"], r"model\.semantic must be at most half of model\.latent \(64\), not 33"),
        (["model.radii=[3, 2]"], r"model\.radii must rise, not \[3\.0, 2\.0\]"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        load_recipe("han2022", settings)


# Losses


def slow_similarity(places, alpha, beta, margin):
    """Equation 3 with the signs of the reference code, term by term."""
    b, r, _ = places.shape
    total = 0.0
    for i in range(b):
        for j in range(r):
            own = other = 1.0
            for k, m in itertools.product(range(b), range(r)):
                d = math.dist(places[i, j], places[k, m])
                if k != i:
                    other += math.exp(-beta * (d - margin))
                elif m != j:
                    own += math.exp(alpha * (d - margin))
            total += math.log(own) / alpha + math.log(other) / beta
    return total / (b * r)


@pytest.mark.parametrize(("alpha", "beta", "margin"), [(1, 1, 1), (2.0, 0.5, 0.3)])
def test_multi_similarity_is_the_slow_loop(alpha, beta, margin):
    places = torch.randn(5, 3, 4, generator=generator())
    found = multi_similarity(places, alpha, beta, margin)
    assert float(found) == pytest.approx(slow_similarity(places.numpy(), alpha, beta, margin), rel=1e-5)


def test_multi_similarity_draws_places_together_and_pushes_others_apart():
    places = torch.randn(4, 3, 2, generator=generator())
    middle = places.mean(dim=1, keepdim=True)
    near = multi_similarity(middle + 0.5 * (places - middle), 1, 1, 1)
    apart = multi_similarity(places + 2 * middle, 1, 1, 1)
    assert near < multi_similarity(places, 1, 1, 1) and apart < multi_similarity(places, 1, 1, 1)


def test_equal_vectors_have_gradients():
    places = torch.zeros(2, 2, 3, requires_grad=True)
    multi_similarity(places, 1, 1, 1).backward()
    assert places.grad.isfinite().all()


def test_divergence_is_the_analytic_one_and_what_samples_say():
    mean = torch.randn(3, 4, generator=generator(), dtype=torch.float64)
    variance = torch.rand(3, 4, generator=generator(1), dtype=torch.float64) + 0.2
    found = gaussian_divergence(mean, variance)
    posterior, prior = Normal(mean, variance.sqrt()), Normal(torch.zeros(4, dtype=torch.float64), 1.0)
    torch.testing.assert_close(found, kl_divergence(posterior, prior).sum(dim=1))
    noise = torch.randn(100_000, 3, 4, generator=generator(2), dtype=torch.float64)
    points = mean + variance.sqrt() * noise
    sampled = (posterior.log_prob(points) - prior.log_prob(points)).sum(dim=-1)
    error = 5 * sampled.std(dim=0) / len(noise) ** 0.5
    assert ((sampled.mean(dim=0) - found).abs() < error).all()


@pytest.mark.parametrize("likelihood", ["gaussian", "mse"])
@torch.no_grad()
def test_the_loss_is_the_sum_over_anchors_and_each_positive(likelihood):
    table = TINY.model_copy(update={"likelihood": likelihood, "kl": 0.1, "similarity": 7.0})
    objective = build_objective(table, 0)
    images = torch.rand(6, 1, *objective.window, generator=generator())
    found = objective(Batch(images), generator(3))
    rng = device_generator(generator(3), CPU)
    cubes = objective.recolour(objective.cut(images, rng), rng)
    noise = torch.randn(6, 5, table.latent, generator=rng)
    total, means = 0.0, []
    for j in range(5):
        x = cubes[:, j, None]
        features = objective.encoder.features(x)
        mean, raw = objective.encoder.mean(features), objective.encoder.variance(features)
        variance = softplus(raw) + 1e-5
        made, deviation = objective.decoder(mean + variance.sqrt() * noise[:, j])
        cost = -Normal(made, deviation).log_prob(x) if likelihood == "gaussian" else (x - made) ** 2
        prior = Normal(torch.zeros_like(mean), 1.0)
        total += cost.mean() + 0.1 * kl_divergence(Normal(mean, variance.sqrt()), prior).sum(dim=1).mean()
        means.append(mean[:, :3])
    similarity = slow_similarity(torch.stack(means, dim=1).numpy(), 1, 1, 1)
    assert float(found["similarity"]) == pytest.approx(similarity, rel=1e-4)
    assert float(found["loss"]) == pytest.approx(float(total) + 7.0 * similarity, rel=1e-4)


def test_the_ratio_of_variances_by_hand():
    places = torch.tensor([[[0.0], [2.0]], [[10.0], [12.0]]])
    assert float(variance_ratio(places)) == pytest.approx(2.0 / 50.0)


# Samples


def test_draws_have_the_sizes_and_places_asked_for():
    objective = build_objective(Han2022Table(positives=3), 0)
    cubes = objective.draw(2000, generator())
    assert kstest(cubes.radii.flatten(), "uniform", (2, 4)).pvalue > 1e-3
    assert not cubes.centres[:, 0].any() and (cubes.centres.round() == cubes.centres).all()
    assert (cubes.centres.abs() <= 2).all() and cubes.centres[:, 1:].any(dim=2).float().mean() > 0.5
    assert (cubes.frames[:, 0].abs().sum(dim=(1, 2)) == 3).all()  # anchors along the axes
    assert ((cubes.frames[:, 1:].abs() > 0.999).any(dim=-1).float().mean()) < 0.05
    corners = cubes.frames.abs().sum(dim=2) * cubes.radii[..., None] + cubes.centres.abs()
    assert corners.max() <= objective.window[0] // 2  # nothing beyond the window is asked for


def test_half_of_all_cubes_are_mirrored():
    cubes = build_objective(Han2022Table(), 0).draw(2000, generator())
    determinants = torch.linalg.det(cubes.frames)
    torch.testing.assert_close(determinants.abs(), torch.ones(2000, 5))
    right = (determinants > 0).float().mean(dim=0)  # of anchors, and of each positive
    assert (right - 0.5).abs().max() < 5 * 0.5 / 2000**0.5


@pytest.mark.parametrize("axis", range(3))
def test_points_inside_a_cube_move_by_a_part_of_their_distance_and_its_sides_stay(monkeypatch, axis):
    monkeypatch.setattr("vemseg.models.han2022.standardised", lambda cubes: cubes)
    objective = build_objective(Han2022Table(elastic=0.4, widths=(2, 2, 2)), 0)
    drawn = objective.draw(4, generator(5))
    monkeypatch.setattr(objective, "draw", lambda anchors, rng: drawn)
    along = torch.arange(27.0).view([-1 if k == axis else 1 for k in range(3)])
    images = along.expand(4, 1, 27, 27, 27).contiguous()  # grey values are places
    moved = objective.cut(images, generator(6)) - drawn.cut(images, 16)
    moved /= drawn.radii[..., None, None, None]
    inside = moved[..., 1:-1, 1:-1, 1:-1].clone()
    assert float(inside.std()) == pytest.approx(0.4 / (2 * 15), rel=0.02)
    moved[..., 1:-1, 1:-1, 1:-1] = 0
    assert moved.abs().max() < 1e-5


def test_cubes_are_standardised_and_recoloured():
    cubes = 5 + 3 * torch.rand(40, 5, 8, 8, 8, generator=generator())
    plain = standardised(cubes)
    deviation, mean = torch.std_mean(plain, dim=(2, 3, 4))
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
    torch.testing.assert_close(deviation, torch.ones_like(mean), atol=1e-4, rtol=0)
    flat = standardised(torch.full((1, 16, 16, 16), 0.3) + 1e-4 * torch.randn(1, 16, 16, 16))
    assert flat.std() < 1e-4 * 65  # the floor is 1/64
    deviation, mean = torch.std_mean(build_objective(TINY, 0).recolour(plain, generator()), dim=(2, 3, 4))
    contrast = (deviation.square() - 0.01).clamp_min(0).sqrt().log2().flatten()
    assert kstest(contrast, "uniform", (-1.02, 2.04)).pvalue > 1e-3
    assert kstest(mean.flatten(), "uniform", (-0.26, 0.52)).pvalue > 1e-3


def test_noise_has_the_standard_deviation_asked_for():
    for noise in (0.1, 0.3):
        objective = build_objective(TINY.model_copy(update={"noise": noise}), 0)
        found = objective.recolour(torch.zeros(20, 5, 16, 16, 16), generator())
        deviations = found.std(dim=(2, 3, 4))
        assert (deviations / noise - 1).abs().max() < 6 / (2 * 16**3) ** 0.5


@torch.no_grad()
def test_vectors_are_semantic_means_whatever_the_contrast():
    encoder = build_encoder(TINY)
    windows = torch.rand(3, 1, 9, 9, 9, generator=generator())
    vectors = encoder.encode(windows)
    assert vectors.shape == (3, 1, 1, 1, 3)
    torch.testing.assert_close(encoder.encode(0.2 + 0.5 * windows), vectors, atol=1e-4, rtol=1e-4)
    mean, _ = encoder.distribution(standardised(encoder.cubes(windows)))
    torch.testing.assert_close(mean[:, :3], vectors[:, 0, 0, 0])


# Training and use


@pytest.fixture(scope="module")
def cell():
    shape = (24, 40, 40)
    grey = Phantom(shape, seed=2).read(Box.whole(shape))
    return Source(ArrayVolume(grey, (16.0, 16.0, 16.0)), Intensity(0.0, 255.0))


def trained(folder, cell, recipe, stop_at=None):
    objective = build_objective(recipe.model, 1)
    sampler = Sampler([cell], objective.window, recipe.fov, 1, CPU)
    with Run.create(folder, recipe) as run:
        trainer = Trainer(objective, sampler, run, recipe.train)
        trainer.fit(Context(stopped=lambda: trainer.step == stop_at))
    return run


SMALL = [
    "model.grid=4", "model.widths=[4, 8]", "model.hidden=12", "model.latent=8", "model.semantic=3",
    "train.batch=8", "train.lr=3e-3", "train.precision=fp32",
]  # fmt: skip


def test_a_stopped_training_ends_as_one_that_was_not(cell, tmp_path):
    recipe = load_recipe("han2022", [*SMALL, "train.steps=8", "train.log_every=3"])
    whole = trained(tmp_path / "whole", cell, recipe)
    for stop in (3, 5, None):
        parts = trained(tmp_path / "parts", cell, recipe, stop)
    first, second = (load_tensors(run.checkpoint)[0] for run in (whole, parts))
    assert first.keys() == second.keys() and any(name.startswith("max_exp") for name in first)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_semantic_subspace_becomes_invariant(cell, tmp_path):
    run = trained(tmp_path / "run", cell, load_recipe("han2022", [*SMALL, "train.steps=100"]))
    first, last = run.read_metrics()[0], run.read_metrics()[-1]
    assert last["similarity"] < first["similarity"]
    assert last["variance_semantic"] < 0.75 * last["variance_other"]


def test_a_volume_thinner_than_a_cube_is_learnt_and_labelled(tmp_path, monkeypatch):
    import tifffile

    monkeypatch.chdir(tmp_path)
    shape = (3, 20, 24)
    grey = Phantom(shape, 3).read(Box.whole(shape))
    tifffile.imwrite("thin.tif", grey, imagej=True, metadata={"axes": "ZYX", "spacing": 16, "unit": "nm"})
    small = load_recipe("han2022-quick", [*SMALL, "train.steps=3", "cluster.sample=500", "cluster.k=3"])
    run = train(Training(["thin.tif"], tmp_path / "run", small, voxel_size="16"), Context())
    labels = segment(Wanted("thin.tif", str(run), voxel_size="16"), tmp_path / "labels.tif")
    found = open_volume(labels)
    values = found.read(found.box)
    assert values.shape == shape and set(np.unique(values)) == {1, 2, 3}
