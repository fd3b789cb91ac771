"""CIHS and hyperbolic space: known identities in float64, densities, gyroplanes, k-means, the objective."""

import itertools
import math
import sys
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.distributions import Normal

from vemseg.batch import Batch
from vemseg.context import Context
from vemseg.errors import InputError, UsageError
from vemseg.geometry import Box
from vemseg.labelling import Sample, fit, load
from vemseg.labelling.columns import CHUNK_BYTES
from vemseg.labelling.hyperbolic import HyperbolicLabeller, distances, lloyd, spread
from vemseg.models import build_encoder, build_objective, hyperbolic
from vemseg.models.cubes import Cubes
from vemseg.models.hyperbolic import Gyroplanes, WrappedNormal, ball, log_sinh_ratio
from vemseg.models.objective import device_generator
from vemseg.phantom import Phantom
from vemseg.recipe import CihsTable, HyperbolicTable, load_recipe
from vemseg.run import Run, load_tensors
from vemseg.sampling import Sampler, Source
from vemseg.training import Trainer
from vemseg.volume import ArrayVolume, Intensity

TINY = CihsTable(widths=(2, 2, 2, 3), hidden=6, gyroplanes=5, parents=(3, 7), children=(1, 4), reach=4)
CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tangents(n, dim=2, seed=0, scale=1.0):
    return scale * torch.randn(n, dim, generator=generator(seed), dtype=torch.float64)


def points_of(v):
    """Return the points of the ball that tangents at the origin stand for."""
    far = v.norm(dim=-1, keepdim=True)
    return torch.tanh(far) * v / far


# Geometry


def test_the_distance_is_that_of_the_textbook():
    a, b = tangents(30), tangents(20, seed=1)
    x, y = points_of(a)[:, None], points_of(b)
    gaps = (1 - x.square().sum(-1)) * (1 - y.square().sum(-1))
    slow = torch.arccosh(1 + 2 * (x - y).square().sum(-1) / gaps)
    torch.testing.assert_close(distances(a, b), slow)
    torch.testing.assert_close(ball().dist(x, y), slow)
    torch.testing.assert_close(distances(a, torch.zeros(1, 2).double())[:, 0], 2 * a.norm(dim=1))


def test_points_far_from_the_origin_are_told_apart():
    far = torch.tensor([[14.0, 0.0], [14.0, 1e-6], [-14.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = distances(far, far)
    assert found[0, 0] == found[3, 3] == 0
    assert float(found[0, 2]) == pytest.approx(56.0)  # along the diameter
    angle = math.atan2(1e-6, 14.0)
    slow = math.acosh(1 + math.sinh(28.0) ** 2 * (1 - math.cos(angle)))
    assert float(found[0, 1]) == pytest.approx(slow, rel=1e-4)


def test_translations_of_the_ball_change_no_distance():
    x, y, shift = (points_of(tangents(10, dim=3, seed=seed)) for seed in range(3))
    moved = (ball().mobius_add(shift, each) for each in (x, y))
    torch.testing.assert_close(ball().dist(*moved), ball().dist(x, y))


def test_the_stretch_of_the_exponential_map():
    r = torch.tensor([0.0, 1e-6, 9e-4, 1.1e-3, 0.5, 3.0, 50.0], dtype=torch.float64, requires_grad=True)
    found = log_sinh_ratio(r)
    torch.testing.assert_close(found[1:], torch.log(torch.sinh(r[1:]) / r[1:]), atol=1e-12, rtol=1e-8)
    assert found[0] == 0
    found.sum().backward()
    assert r.grad.isfinite().all()


def test_a_wrapped_normal_is_a_density():
    """Its integral over the hyperbolic plane is 1, by a sum over a fine polar grid of the ball."""
    law = WrappedNormal(torch.tensor([0.3, -0.2]).double(), torch.tensor([0.5, 0.9]).double())
    radius = (torch.arange(1200).double() + 0.5) / 1200 * 9.0  # hyperbolic
    angle = (torch.arange(240).double() + 0.5) / 240 * 2 * math.pi
    r, t = torch.meshgrid(radius, angle, indexing="ij")
    at = torch.stack([torch.tanh(r / 2) * t.cos(), torch.tanh(r / 2) * t.sin()], dim=-1)
    area = torch.sinh(r) * (9.0 / 1200) * (2 * math.pi / 240)
    assert float((law.log_density(at).exp() * area).sum()) == pytest.approx(1.0, abs=2e-3)


def test_samples_are_distributed_as_the_density_says():
    """The divergence of two wrapped normals at the origin is that of their flat counterparts."""
    zero = torch.zeros(2).double()
    law, prior = WrappedNormal(zero, zero + 0.5), WrappedNormal(zero, zero + 1.0)
    at = law.sample(tangents(50_000, seed=3))
    terms = law.log_density(at) - prior.log_density(at)
    analytic = 2 * (math.log(1 / 0.5) + 0.25 / 2 - 0.5)
    assert abs(float(terms.mean()) - analytic) < 5 * float(terms.std()) / 50_000**0.5
    shifted = WrappedNormal(points_of(tangents(1))[0], zero + 0.3)
    far = ball().dist(shifted.mean, shifted.sample(tangents(50_000, seed=4)))
    assert float(far.square().mean()) == pytest.approx(2 * 0.3**2, rel=0.03)


@torch.no_grad()
def test_gyroplanes_are_distances_from_geodesics():
    torch.manual_seed(0)
    layer = Gyroplanes(2, 7)
    x = points_of(tangents(20, scale=0.5)).float()
    found = layer(x)
    normals, places = layer.normals, points_of(layer.normals * layer.offsets)
    for i, j in np.ndindex(20, 7):
        away = ball().mobius_add(-places[j], x[i])
        along = 2 * (away @ normals[j]) / ((1 - away @ away) * normals[j].norm())
        assert float(found[i, j]) == pytest.approx(float(torch.asinh(along)), abs=1e-4)
    on_it = layer(places.detach())
    torch.testing.assert_close(on_it.diagonal(), torch.zeros(7), atol=1e-5, rtol=0)


# K-means


def step(v, centre):
    """Return where one step leads the only centroid."""
    return lloyd(v, centre[None], 1).centres[0]


def textbook_step(v, centre):
    """Take the step of Lou et al. in the Poincaré ball with 80 digits, from lists of Decimals."""

    def product(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    def point(tangent):
        far = product(tangent, tangent).sqrt()
        return [x * (1 - 2 / ((2 * far).exp() + 1)) / far for x in tangent]

    at, total, moment = point(centre), Decimal(0), [Decimal(0)] * len(centre)
    for x in map(point, v):
        between = [p - q for p, q in zip(x, at, strict=True)]
        gap = 1 - product(x, x)
        y = 2 * product(between, between) / (gap * (1 - product(at, at)))
        sinh = (y * (y + 2)).sqrt()
        weight = ((1 + y + sinh).ln() / sinh if y else 1) / gap
        total += weight * (1 + product(x, x))
        moment = [m + weight * p for m, p in zip(moment, x, strict=True)]
    mean = [2 * m / (total + (total**2 - 4 * product(moment, moment)).sqrt()) for m in moment]
    radius = product(mean, mean).sqrt()
    return [float(p / radius * ((1 + radius) / (1 - radius)).ln() / 2) for p in mean]


@pytest.mark.parametrize("far", [0.01, 1.0, 5.0, 9.0, 9.5, 10.0, 12.0, 14.0])
def test_a_step_is_that_of_the_textbook_at_any_distance_from_the_origin(far):
    v = tangents(30, dim=3)
    rounding = 1e-13 + 1e-17 * math.exp(2 * far)  # of directions, as it moves points
    for width in (1.0, 1e-2, 2 * math.exp(-2 * far)):  # the last moves a point by about 1
        along = v[:1] + width * v
        near = far * along / along.norm(dim=1, keepdim=True) * (1 + 0.02 * v[:, :1])
        for centre in (near[1], 0.9 * near[2], v[3]):
            with localcontext(prec=80):
                exact = [[Decimal(x) for x in row] for row in [*near.tolist(), centre.tolist()]]
                slow = torch.tensor(textbook_step(exact[:-1], exact[-1]), dtype=torch.float64)
            torch.testing.assert_close(step(near, centre), slow, rtol=rounding, atol=1e-12)


@pytest.mark.parametrize("n", [1, 40, 20_000])
def test_the_centroid_of_one_place_is_that_place(n):
    for i, far in enumerate([0.0, 1e-9, 1e-3, 1.0, 5.0, 9.0, 9.5, 10.0, 11.0, 12.0, 13.0, 14.0]):
        place = tangents(1, dim=3, seed=i)
        place *= far / place.norm()
        found = lloyd(place.repeat(n, 1), tangents(1, dim=3, seed=100 + i), 10)
        torch.testing.assert_close(found.centres, place, atol=1e-6, rtol=0)
        assert found.cost < 1e-3


def test_steps_are_finite_and_raise_no_cost_far_from_the_origin():
    for far, width, seed in itertools.product([8.0, 11.0, 14.0, 30.0], [1.0, 1e-4, 1e-8, 1e-12], range(3)):
        v = torch.tensor([far, 0.0, 0.0]).double() + far * width * tangents(50, dim=3, seed=seed)
        found = lloyd(v, v[:1], 0)
        for _ in range(5):
            last, found = found, lloyd(v, found.centres, 1)
            assert found.centres.isfinite().all() and found.cost <= last.cost * (1 + 1e-6) + 1e-6
    pair = torch.tensor([[14.0, 0.0], [-14.0, 0.0]]).double()
    for centre in ([0.0, 0.0], [0.0, 3.0]):
        assert float(step(pair, torch.tensor(centre).double()).norm()) < 1e-12


def slow_lloyd(v, centres, iterations):
    """Move centroids one after the other, by formulas that are exact near the origin."""
    for _ in range(iterations):
        apart, label = distances(v, centres).min(dim=1)
        before, centres = centres, centres.clone()
        for i in range(len(centres)):
            x, d = points_of(v[label == i]), apart[label == i, None].clamp_min(1e-9)
            if not len(x):
                centres[i] = v[apart.argmax()]
                continue
            weight = d / torch.sinh(d) / (1 - x.square().sum(dim=1, keepdim=True))
            total = (weight * (1 + x.square().sum(dim=1, keepdim=True))).sum()
            moment = (weight * x).sum(dim=0)
            mean = 2 * moment / (total + (total**2 - 4 * moment @ moment).sqrt())
            centres[i] = mean / mean.norm() * torch.atanh(mean.norm())
        if (centres - before).square().sum() < 1e-10:
            break
    return centres, float(distances(v, centres).amin(dim=1).square().mean())


@pytest.mark.parametrize("dim", [2, 5])
def test_classes_that_move_together_move_as_one_after_the_other(monkeypatch, dim):
    v = tangents(2000, dim, scale=0.7)
    start = spread(v, 5, np.random.default_rng(0))
    start[3] = 40.0  # without points
    for iterations in (1, 2, 7, 200):
        slow, cost = slow_lloyd(v, start, iterations)
        found = lloyd(v, start, iterations)
        torch.testing.assert_close(found.centres, slow, rtol=0, atol=1e-11)
        assert found.cost == pytest.approx(cost, rel=1e-12)
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 10_000)
    torch.testing.assert_close(lloyd(v, start, 200).centres, found.centres, rtol=0, atol=1e-12)
    again = lloyd(v, start, 200)
    assert torch.equal(again.centres, lloyd(v, start, 200).centres)


def test_steps_lead_to_the_point_of_least_squares():
    v = tangents(40, scale=1.5)
    centre = torch.zeros(2).double()
    costs = []
    for _ in range(100):
        costs.append(float(distances(v, centre[None]).square().sum()))
        centre = step(v, centre)
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(costs))

    def cost(c):
        return float(distances(v, torch.from_numpy(c)[None]).square().sum())

    best = minimize(cost, np.zeros(2), tol=1e-12)
    assert costs[-1] == pytest.approx(best.fun, rel=1e-8)
    pair = torch.tensor([[0.4, 0.0], [1.6, 0.0]]).double()
    middle = torch.tensor([0.5, 0.1]).double()
    for _ in range(100):
        middle = step(pair, middle)
    torch.testing.assert_close(middle, torch.tensor([1.0, 0.0]).double(), atol=1e-6, rtol=0)


def planted(n=300, seed=0):
    rng = np.random.default_rng(seed)
    angle = np.repeat([0.0, 2.1, 4.2], n)
    centres = 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (centres + 0.15 * rng.normal(size=(3 * n, 2))).astype(np.float16), np.repeat(range(3), n)


def test_planted_clusters_are_found_saved_and_scored_by_distance(tmp_path):
    vectors, blob = planted()
    grey = np.array([0.5, 0.1, 0.9], np.float32)[blob]
    made = fit(HyperbolicTable(k=3, restarts=3), Sample(vectors, grey))
    made.save(tmp_path / "classes.safetensors")
    found = load(tmp_path / "classes.safetensors")
    assert isinstance(found, HyperbolicLabeller) and (found.k, found.dim) == (3, 2)
    single = torch.from_numpy(vectors).float()
    scores = found.scores(single)
    assert torch.equal(scores, made.scores(single)) and scores.dtype == torch.float32
    np.testing.assert_array_equal(np.array([1, 0, 2])[scores.argmax(dim=1)], blob)
    slow = -distances(single.double(), torch.from_numpy(found.centres).double())
    torch.testing.assert_close(scores, slow.float())
    assert found.scores(single[:6].view(2, 3, 2)).shape == (2, 3, 3)
    assert found.scores(torch.full((1, 2), 6e4)).isfinite().all()


def test_the_whole_sample_refines_what_a_part_found(monkeypatch):
    monkeypatch.setattr("vemseg.labelling.hyperbolic.SEARCH", 20)
    vectors, blob = planted(100)
    found = fit(HyperbolicTable(k=3, restarts=2), Sample(vectors, blob.astype(np.float32)))
    exact = torch.from_numpy(vectors).double()
    settled = lloyd(exact, torch.from_numpy(found.centres).double(), 1).centres
    torch.testing.assert_close(settled.float(), torch.from_numpy(found.centres), atol=1e-3, rtol=0)


def test_a_centroid_without_points_goes_where_the_farthest_point_is():
    v = torch.tensor([[0.0, 0.0], [0.1, 0.0], [3.0, 0.0]]).double()
    start = torch.tensor([[0.05, 0.0], [0.0, -9.0]]).double()
    found = lloyd(v, start, 50)
    assert found.centres[:, 0].tolist() == pytest.approx([0.05, 3.0], abs=1e-3)


def test_what_cannot_be_fitted_is_refused():
    vectors = np.repeat(np.eye(2, dtype=np.float16), 20, axis=0)
    with pytest.raises(InputError, match="k = 4 classes, but the sample has only 2 distinct vectors"):
        fit(HyperbolicTable(k=4), Sample(vectors, np.zeros(40, np.float32)))
    with pytest.raises(UsageError, match=r"cluster\.scale must be 'none', not \"whiten\""):
        load_recipe("cihs", ["cluster.scale=whiten"])


# The objective


def test_sizes_are_those_of_the_reference():
    objective = build_objective(CihsTable(), 0)
    assert sum(p.numel() for p in objective.encoder.parameters()) == 1_654_944
    assert sum(p.numel() for p in objective.decoder.parameters()) == 331_314
    assert objective.decoder.samples == 8
    assert objective.window == (35, 35, 35)
    assert load_recipe("cihs").model == CihsTable()
    assert objective.decoder(torch.zeros(8, 1, 2)).shape == (1, 1, 10, 10, 10)


def test_children_are_smaller_and_others_lie_outside_along_every_axis():
    objective = build_objective(CihsTable(widths=(2, 2, 2, 2)), 0)
    parent, child = objective.sizes(5000, generator())
    assert set(parent.tolist()) == set(range(2, 18)) and set(child.tolist()) == set(range(1, 8))
    assert (child < parent).all()
    away = objective.elsewhere(parent, generator())[:, 0].abs() - parent[:, None]
    assert away.min() == 1 and away.max() == 32


def cube_batch(objective, n=3):
    images = torch.rand(n, 1, *objective.window, generator=generator())
    others = torch.rand(n, 1, 1, *objective.window, generator=generator(1))
    return Batch(images, nearby=lambda offsets: others), others[:, 0]


@torch.no_grad()
def test_the_loss_is_a_slow_restatement():
    objective = build_objective(TINY.model_copy(update={"kl": 0.5, "triplet": 3.0, "margin": 4.0}), 0)
    batch, others = cube_batch(objective)
    mean = objective.encoder.mean
    mean.weight *= 3000  # else the means of an untrained encoder nearly coincide
    mean.bias -= objective.encoder.vectors(Cubes.upright(torch.ones(3, 1)).cut(others, 10)).mean(dim=0)
    found = objective(batch, generator(7))
    rng = device_generator(generator(7), CPU)
    parent, child = objective.sizes(3, rng)
    objective.elsewhere(parent, rng)
    noise = torch.randn(8, 3, 2, generator=rng)
    total, triplets = 0.0, []
    for i in range(3):
        cubes = [
            Cubes.upright(radius.view(1, 1)).cut(image[i : i + 1], 10)
            for radius, image in ((parent[i], batch.images), (child[i], batch.images), (child[i], others))
        ]
        means = [points_of(objective.encoder.vectors(cube)[0]) for cube in cubes]
        law = objective.encoder.distribution(cubes[0])
        points = law.sample(noise[:, i : i + 1])
        made = objective.decoder(points)
        likelihood = Normal(made, 1.0).log_prob(cubes[0]).sum() + 500 * math.log(2 * math.pi)
        prior = WrappedNormal(torch.zeros(2), torch.ones(2))
        total += -likelihood + 0.5 * (law.log_density(points) - prior.log_density(points)).mean()
        near, far = (float(ball().dist(means[0], other)) ** 2 for other in means[1:])
        assert abs(near - far) > 0.1
        triplets.append(max(0.0, near - far + 4.0))
    assert float(found["triplet"]) == pytest.approx(np.mean(triplets), rel=1e-4)
    assert float(found["loss"]) == pytest.approx(float(total) + 3.0 * np.mean(triplets), rel=1e-4)


def test_a_stopped_training_ends_as_one_that_was_not(tmp_path):
    grey = Phantom((16, 24, 24), seed=2).read(Box.whole((16, 24, 24)))
    cell = Source(ArrayVolume(grey, (16.0, 16.0, 16.0)), Intensity(0.0, 255.0))
    settings = [f"model.{key}={list(v) if isinstance(v, tuple) else v}" for key, v in TINY if key != "kind"]
    train = ["train.steps=4", "train.batch=2", "train.lr=1e-3", "train.log_every=2"]
    recipe = load_recipe("cihs", [*settings, *train])

    def go(name, stop=None):
        objective = build_objective(recipe.model, 0)
        sampler = Sampler([cell], objective.window, recipe.fov, 0, CPU)
        with Run.create(tmp_path / name, recipe) as run:
            trainer = Trainer(objective, sampler, run, recipe.train)
            if trainer.fit(Context(stopped=lambda: trainer.step == stop)):
                assert trainer.objective.preview(sampler.batch(0, 2), generator()).predictions.shape == (
                    2,
                    10,
                    10,
                )
        return load_tensors(run.checkpoint)[0]

    whole, parts = go("whole"), [go("parts", stop) for stop in (1, None)][-1]
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    assert all(np.isfinite(value).all() for value in whole.values())


def test_without_geoopt_training_says_what_is_missing_and_encoding_works(monkeypatch):
    hyperbolic.ball.cache_clear()
    monkeypatch.setitem(sys.modules, "geoopt", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[hyperbolic\]'"):
        build_objective(TINY, 0)
    vectors = build_encoder(TINY).encode(torch.rand(2, 1, 11, 11, 11))
    assert vectors.shape == (2, 1, 1, 1, 2)
    hyperbolic.ball.cache_clear()
