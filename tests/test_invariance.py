"""The objective of the dense encoder: what it compares lies at the same place, whatever was turned or cut."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from vemseg.batch import Batch
from vemseg.context import Context
from vemseg.geometry import Box
from vemseg.models import build_objective
from vemseg.models.invariance import Invariance, vicreg
from vemseg.models.unet import PATCH, UNetEncoder
from vemseg.models.views import Turn
from vemseg.phantom import Phantom
from vemseg.recipe import FovTable, Recipe, TrainTable, UNetTable
from vemseg.run import Run, load_tensors
from vemseg.sampling import Sampler, Source
from vemseg.training import MasterAdamW, Trainer
from vemseg.volume import ArrayVolume, Intensity

CPU = torch.device("cpu")
SIZES = {"fov": 24, "view": 16, "slices": 4, "widths": (4, 6), "layers": 1, "dim": 5, "points": 32}
TINY = UNetTable(**SIZES)
UNCHANGED = {"contrast": 0.0, "brightness": 0.0, "noise": 0.0, "blur": 0.0, "mask_ratio": 0.0}
TURNS = [Turn(k, mirrored, back) for k, mirrored, back in itertools.product(range(4), [0, 1], [0, 1])]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def regions(settings, size=3, seed=0):
    slices = settings.slices + 2 * settings.drift
    return Batch(torch.rand(size, 1, slices, settings.fov, settings.fov, generator=generator(seed)))


# The terms


def slow_vicreg(a, b):
    """Equations 1 to 5 of the paper, one number at a time."""
    n, d = a.shape
    variance = covariance = 0.0
    for z in (a, b):
        mean = [sum(z[i, j] for i in range(n)) / n for j in range(d)]
        for j in range(d):
            var = sum((z[i, j] - mean[j]) ** 2 for i in range(n)) / (n - 1)
            variance += max(0.0, 1.0 - (var + 1e-4) ** 0.5) / d
            for k in range(d):
                c = sum((z[i, j] - mean[j]) * (z[i, k] - mean[k]) for i in range(n)) / (n - 1)
                covariance += c**2 / d if k != j else 0.0
    invariance = sum(sum((a[i, j] - b[i, j]) ** 2 for j in range(d)) for i in range(n)) / n
    return {"invariance": invariance / d, "variance": variance, "covariance": covariance}


@pytest.mark.parametrize("scale", [0.05, 0.8, 5.0])
def test_vicreg_is_the_papers(scale):
    """The invariance term is the mean over components as well, as in the authors' code."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 4))
    a, b = (scale * rng.normal(size=(20, 4)) @ mixing + 3 for _ in range(2))
    found = vicreg(*(torch.from_numpy(z.astype(np.float32)) for z in (a, b)))
    assert {k: v.item() for k, v in found.items()} == pytest.approx(slow_vicreg(a, b), rel=1e-4, abs=1e-6)


def test_equal_uncorrelated_vectors_of_variance_one_cost_nothing():
    z = torch.tensor(list(itertools.product([-1.1, 1.1], repeat=3)))
    found = vicreg(z, z)
    assert all(abs(value.item()) < 1e-6 for value in found.values())


# Turns


@pytest.mark.parametrize("turn", TURNS, ids=lambda t: f"{t.quarters}{t.mirrored}{t.reversed}")
def test_a_turn_is_undone(turn):
    slab = torch.rand(2, 4, 6, 6, generator=generator(0))
    turned = turn.apply(slab)
    back = turn.undo(turned)
    assert torch.equal(back.flip(1) if turn.reversed else back, slab)


def test_the_sixteen_turns_differ_and_all_are_drawn():
    slab = torch.rand(1, 2, 4, 4, generator=generator(0))
    looks = {turn.apply(slab).contiguous().numpy().tobytes() for turn in TURNS}
    assert len(looks) == 16
    drawn = {
        Turn.draw(g).apply(slab).contiguous().numpy().tobytes() for g in [generator(1)] for _ in range(300)
    }
    assert drawn == looks


# Registration


class Means(nn.Module):
    """An encoder whose vectors are the mean of their patch in the slab, slices in no order."""

    pieces = 1
    spread = UNetEncoder.spread

    def trunk(self, x):
        return avg_pool2d(x.mean(dim=1, keepdim=True), PATCH)

    def head(self, x):
        return x


class Ramp(Means):
    """Vectors are the mean of their patch in the two middle slices."""

    def trunk(self, x):
        middle = x.shape[1] // 2
        return avg_pool2d(x[:, middle - 1 : middle + 1].mean(dim=1, keepdim=True), PATCH)


def objective_of(settings, encoder):
    made = Invariance(settings)
    made.encoder = encoder
    made.decoder = nn.Conv2d(1, 2 * PATCH**2, 1)
    return made


@pytest.mark.parametrize("turn", TURNS, ids=lambda t: f"{t.quarters}{t.mirrored}{t.reversed}")
def test_views_are_compared_where_they_show_the_same(turn, monkeypatch):
    settings = UNetTable(**SIZES, **UNCHANGED)
    objective = objective_of(settings, Means())
    monkeypatch.setattr(Turn, "draw", lambda generator: turn)
    for seed in range(5):
        batch = regions(settings, seed=seed)
        corners = objective.views.corners(len(batch), generator(seed))
        assert not torch.equal(corners[0], corners[1])
        terms = objective(batch, generator(seed))
        assert terms["invariance"] < 1e-13
    monkeypatch.setattr(Turn, "undo", lambda self, maps: maps)
    turned = turn.quarters or turn.mirrored
    assert (objective(batch, generator(0))["invariance"] > 1e-4) == bool(turned)


def test_slices_drift_by_at_most_what_is_asked_for():
    """On images that rise by one from slice to slice, means differ by the drift."""
    settings = UNetTable(**SIZES, **UNCHANGED, drift=3)
    objective = objective_of(settings, Ramp())
    assert objective.window == (10, 24, 24)
    batch = Batch(torch.arange(10.0).reshape(1, 1, 10, 1, 1).expand(1, 1, 10, 24, 24))
    drifts = set()
    for seed in range(80):
        corners = objective.views.corners(1, generator(seed))
        drift = int(corners[1, 0, 0] - corners[0, 0, 0])
        assert objective(batch, generator(seed))["invariance"].item() == pytest.approx(drift**2, abs=1e-6)
        drifts.add(drift)
    assert drifts == set(range(-3, 4))


def test_every_place_in_common_is_compared_and_no_other():
    settings = UNetTable(**SIZES | {"points": 2000}, **UNCHANGED)
    objective = Invariance(settings)
    edge = settings.view // PATCH
    grid = torch.stack(torch.meshgrid(torch.arange(edge), torch.arange(edge), indexing="ij")).float()
    for seed in range(20):
        corners = objective.views.corners(1, generator(seed))
        maps = [grid[None] + corner[:, 1:, None, None] // PATCH for corner in corners]
        a, b = objective._places(*maps, corners, generator(seed))
        assert torch.equal(a, b)
        low, high = (corners[:, 0, 1:] // PATCH).amax(0), (corners[:, 0, 1:] // PATCH).amin(0) + edge
        expected = set(itertools.product(*(range(int(i), int(j)) for i, j in zip(low, high, strict=True))))
        assert {tuple(map(int, place)) for place in a.tolist()} == expected


def test_views_lie_inside_the_region_on_whole_patches():
    settings = UNetTable(**SIZES, drift=2)
    objective = Invariance(settings)
    corners = torch.cat([objective.views.corners(50, generator(seed)) for seed in range(20)], dim=1)
    assert set(corners[0, :, 0].tolist()) == {2}
    assert set(corners[1, :, 0].tolist()) == set(range(5))
    assert set(corners[:, :, 1:].ravel().tolist()) == {0, 2, 4, 6, 8}


# Reconstruction


def test_only_hidden_pixels_are_to_be_reconstructed():
    settings = UNetTable(**SIZES | {"points": 4}, invariance=0, variance=0, covariance=0)
    objective = Invariance(settings)
    made = {}
    objective.decoder.register_forward_hook(lambda module, x, y: (y.retain_grad(), made.update(pixels=y))[0])
    hide = objective.views.hide
    objective.views.hide = lambda views, g: made.setdefault("hidden", hide(views, g))
    objective(regions(settings), generator(0))["loss"].backward()
    asked = made["pixels"].grad.abs().sum(dim=1) > 0
    hidden = made["hidden"].unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).flatten(3).any(dim=3)
    assert torch.equal(asked, hidden)
    assert 0.1 < hidden.float().mean() < 0.6
    assert objective.encoder.head.weight.grad is None or not objective.encoder.head.weight.grad.any()


def test_nothing_hidden_costs_nothing():
    settings = UNetTable(**SIZES, mask_ratio=0.0)
    assert Invariance(settings)(regions(settings), generator(0))["reconstruction"] == 0


def test_hidden_pixels_cannot_be_seen():
    settings = UNetTable(**SIZES, **UNCHANGED | {"mask_ratio": 0.999})
    objective = Invariance(settings)
    objective.views.hide = lambda views, g: torch.ones(views, settings.view, settings.view, dtype=torch.bool)
    seen = []
    trunk = objective.encoder.trunk
    objective.encoder.trunk = lambda x: seen.append(x) or trunk(x)
    objective(regions(settings), generator(0))
    assert (seen[0] == 0.5).all()


def test_what_is_reconstructed_is_the_patch_in_both_middle_slices():
    settings = UNetTable(**SIZES)
    x = regions(settings).images[:, 0, :, :16, :16]
    target = Invariance(settings)._pixels(x)
    for y, left in itertools.product(range(8), repeat=2):
        patch = x[:, 1:3, 2 * y : 2 * y + 2, 2 * left : 2 * left + 2]
        assert torch.equal(target[:, :, y, left], patch.flatten(1))


# What views differ in


def test_without_changes_views_are_the_images():
    settings = UNetTable(**SIZES, **UNCHANGED)
    objective = Invariance(settings)
    x = regions(settings).images[:, 0]
    assert torch.allclose(
        objective.views.disturb(objective.views.recolour(x, generator(0)), generator(1)), x, atol=1e-7
    )


def test_contrast_brightness_noise_and_blur_keep_to_their_bounds():
    settings = UNetTable(**SIZES, contrast=0.3, brightness=0.1, noise=0.08, blur=1.0)
    objective = Invariance(settings)
    flat = torch.full((500, 1, 8, 8), 0.5)
    shades = objective.views.recolour(flat, generator(0))[:, 0, 0, 0] - 0.5
    assert 0.09 < shades.abs().max() <= 0.1 and abs(shades.mean()) < 0.01
    deviations = (objective.views.disturb(flat, generator(1)) - flat).std(dim=(1, 2, 3))
    assert deviations.min() < 0.01 and 0.06 < deviations.max() < 0.11
    impulse = torch.zeros(200, 1, 9, 9)
    impulse[:, :, 4, 4] = 1.0
    quiet = Invariance(UNetTable(**SIZES, noise=0.0, blur=1.0))
    blurred = quiet.views.disturb(impulse, generator(2))
    torch.testing.assert_close(blurred.sum(dim=(1, 2, 3)), torch.ones(200))
    assert torch.allclose(blurred, blurred.transpose(2, 3), atol=1e-6)
    assert 0.1 < blurred[:, 0, 4, 4].min() < 0.25 and blurred[:, 0, 4, 4].max() > 0.99


# Training


@pytest.fixture(scope="module")
def cell():
    shape = (40, 64, 64)
    return Source(
        ArrayVolume(Phantom(shape, seed=2).read(Box.whole(shape)), (16.0,) * 3), Intensity(0.0, 255.0)
    )


def test_equal_random_numbers_give_an_equal_loss():
    objective = build_objective(TINY, 0)
    batch = regions(TINY)
    first, second, other = (objective(batch, generator(seed))["loss"] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert first != other


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_thirty_steps_lower_the_loss(cell, precision):
    settings = UNetTable(**SIZES | {"widths": (8, 16), "dim": 8}, drift=1)
    objective = build_objective(settings, 0).train()
    if precision == "bf16":
        objective.to(torch.bfloat16)
    sampler = Sampler([cell], objective.window, FovTable(), 0, CPU)
    optimiser = MasterAdamW(objective, TrainTable())
    losses = []
    for step in range(30):
        terms = objective(sampler.batch(step, 8), generator(step))
        assert set(terms) == {"loss", "invariance", "variance", "covariance", "reconstruction"}
        weighed = sum(getattr(settings, name) * terms[name] for name in set(terms) - {"loss"})
        assert terms["loss"].item() == pytest.approx(weighed.item(), rel=1e-5)
        terms["loss"].backward()
        optimiser.step(3e-3)
        losses.append(terms["loss"].item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_a_preview_shows_the_middle_and_what_was_hidden():
    objective = build_objective(TINY, 0).eval()
    shown = objective.preview(regions(TINY), generator(0))
    hidden = shown.masked.isnan()
    assert shown.images.shape == shown.predictions.shape == (3, 16, 16)
    assert hidden.any() and not hidden.all()
    assert torch.equal(shown.images[~hidden], shown.predictions[~hidden])
    assert not torch.equal(shown.images[hidden], shown.predictions[hidden])


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(cell, tmp_path, precision):
    """Batch normalisation keeps averages that no gradient moves; the checkpoint holds them."""
    table = TrainTable(steps=9, batch=4, log_every=2, picture_every=4, lr=2e-3, precision=precision)

    def go(name, stop_at=None):
        objective = build_objective(TINY, 0)
        sampler = Sampler([cell], objective.window, FovTable(), 0, CPU)
        with Run.create(tmp_path / name, Recipe(model=TINY, train=table)) as run:
            trainer = Trainer(objective, sampler, run, table)
            trainer.fit(Context(stopped=lambda: trainer.step == stop_at))
        return SimpleNamespace(run=run, objective=objective)

    whole = go("whole")
    for stop in (3, 4, 7, None):
        parts = go("parts", stop)
    for file in ("checkpoint", "model"):
        first, second = (load_tensors(getattr(made.run, file))[0] for made in (whole, parts))
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)
    counted = [
        b.item() for name, b in parts.objective.named_buffers() if name.endswith("num_batches_tracked")
    ]
    assert set(counted) == {9}
    lines = [[m["loss"] for m in made.run.read_metrics()] for made in (whole, parts)]
    assert lines[0] == lines[1]
