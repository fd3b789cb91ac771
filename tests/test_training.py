"""The training loop: it learns, goes on exactly where it stopped, and leaves nothing broken behind."""

import itertools
import json
import math
import re
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from vemseg import training
from vemseg.context import Context, silent
from vemseg.errors import VemsegError
from vemseg.geometry import Box
from vemseg.models import build_objective, load_encoder
from vemseg.models.objective import Objective, step_generator
from vemseg.phantom import Phantom
from vemseg.recipe import EmbedTable, FovTable, MaesterTable, Recipe, TrainTable, UNetTable
from vemseg.run import Run, load_tensors
from vemseg.sampling import Sampler, Source
from vemseg.training import MasterAdamW, Trainer, learning_rate
from vemseg.volume import ArrayVolume, Intensity

CPU = torch.device("cpu")
TINY = MaesterTable(
    fov=20, patch=5, dim=16, depth=2, heads=1, decoder_dim=16, decoder_depth=1, decoder_heads=2
)
SETTINGS = {
    "steps": 24,
    "batch": 8,
    "lr": 3e-3,
    "log_every": 5,
    "picture_every": 1000,
    "precision": "fp32",
    "seed": 1,
}
SHAPE = (32, 64, 64)
TIMINGS = {"seconds", "samples_per_second"}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(scope="module")
def cell():
    grey = Phantom(SHAPE, seed=2).read(Box.whole(SHAPE))
    return Source(ArrayVolume(grey, (16.0, 16.0, 16.0)), Intensity(0.0, 255.0))


def trained(cell, path, stop_at=None, limit=None, change=None, **settings):
    """Train in a directory, from the checkpoint there, until ``stop_at``."""
    table = TrainTable(**SETTINGS | settings)
    objective = build_objective(TINY, table.seed)
    if change is not None:
        change(objective)
    sampler = Sampler([cell], (1, TINY.fov, TINY.fov), FovTable(), table.seed, CPU)
    with Run.create(path, Recipe(model=TINY, train=table, embed=EmbedTable(stride=20))) as run:
        trainer = Trainer(objective, sampler, run, table, limit)
        told = []
        context = Context(report=lambda *say: told.append(say), stopped=lambda: trainer.step == stop_at)
        trainer.finished = trainer.fit(context)
    trainer.told = told
    return trainer


@pytest.fixture
def train(cell, tmp_path):
    """Return a function that trains in a directory of that name."""
    return lambda name, *given, **settings: trained(cell, tmp_path / name, *given, **settings)


@pytest.fixture(scope="module")
def whole(cell, tmp_path_factory):
    """Return a function of the precision: a training without a stop; made once, so nothing may change it."""
    folder = tmp_path_factory.mktemp("whole")
    return cache(lambda precision: trained(cell, folder / precision, precision=precision))


def course(run):
    """Return the metrics without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in run.read_metrics()]


def equal_files(a, b):
    first, second = load_tensors(a)[0], load_tensors(b)[0]
    return first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)


def plain_files(run):
    return sorted(p.name for p in run.path.iterdir() if not p.name.startswith(".lock"))


# It learns


def test_forty_steps_lower_the_loss(train):
    trainer = train("run", steps=40)
    losses = [line["loss"] for line in trainer.run.read_metrics()]
    assert trainer.finished
    assert len(losses) == 8
    assert losses[-1] < 0.5 * losses[0]
    assert np.mean(losses[-2:]) < np.mean(losses[2:4])


def test_reports_and_metrics_say_where_the_run_stands(train):
    trainer = train("run", steps=13)
    lines = trainer.run.read_metrics()
    assert [line["step"] for line in lines] == [5, 10, 13]
    assert [line["samples"] for line in lines] == [40, 80, 104]
    assert [line["lr"] for line in lines] == [
        learning_rate(trainer.settings, step / 13) for step in (5, 10, 13)
    ]
    assert trainer.told[0] == ("training", 0.0, "step 0")
    assert [stage for stage, _, _ in trainer.told] == ["training"] * 4
    assert [fraction for _, fraction, _ in trainer.told[1:]] == [5 / 13, 10 / 13, 1.0]
    for (_, _, words), line in zip(trainer.told[1:], lines, strict=True):
        rate = re.fullmatch(rf"step {line['step']}/13  loss {line['loss']:.4f}  (\d+) samples/s", words)
        assert abs(int(rate[1]) - line["samples_per_second"]) <= 1
    assert all(line["samples_per_second"] > 0 for line in lines)
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)


def test_a_reported_loss_is_the_mean_since_the_last_report(train, whole):
    each = [line["loss"] for line in train("each", log_every=1).run.read_metrics()]
    some = [line["loss"] for line in whole("fp32").run.read_metrics()]
    means = [np.mean(each[i : i + 5]) for i in range(0, 24, 5)]
    assert some == pytest.approx(means, rel=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equal_seeds_give_equal_weights(train, whole, precision):
    a, b = whole(precision), train("b", precision=precision)
    other = train("other", precision=precision, seed=2)
    assert equal_files(a.run.model, b.run.model)
    assert equal_files(a.run.checkpoint, b.run.checkpoint)
    assert course(a.run) == course(b.run)
    assert not equal_files(a.run.model, other.run.model)


def test_bf16_learns_what_fp32_learns(whole):
    losses = [
        [line["loss"] for line in whole(precision).run.read_metrics()] for precision in ("fp32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_the_saved_encoder_is_the_trained_one(train):
    trainer = train("run")
    trained = trainer.objective.encoder.eval()
    loaded = load_encoder(trainer.run.recipe.model, trainer.run.model).eval()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in trained.state_dict().items())
    x = torch.rand(3, 1, 1, 20, 20)
    assert torch.allclose(loaded.encode(x), trained.encode(x), atol=1e-5)
    assert load_tensors(trainer.run.model)[1] == {"step": 24}


# It is examined on held-out data


class Brightness(Objective):
    """Learns to tell the class of windows, which is on the whole that of bright ones or dark ones."""

    window = (1, 16, 16)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(1, 1)
        self.examined = []

    def score(self, batch):
        known = batch.labels.flatten(1).float().mean(dim=1)
        return (self.encoder(batch.images.mean(dim=(2, 3, 4)))[:, 0] - known).square()

    def forward(self, batch, generator):
        return {"loss": self.score(batch).mean()}

    def validate(self, batch, generator):
        assert not self.training
        self.examined.append((batch.images, torch.rand(1, generator=generator).item()))
        return {"error": self.score(batch).mean().item(), "samples": len(batch)}


@pytest.fixture
def bright(tmp_path):
    """Return a function that trains ``Brightness``, and examines it on another volume where asked to."""

    def go(name, held=True, stop_at=None, steps=44):
        volumes = [Phantom(SHAPE, seed=seed).read(Box.whole(SHAPE)) for seed in (2, 3)]
        sources = [
            Source(ArrayVolume(grey), Intensity(0.0, 255.0), ArrayVolume((grey > 128).astype(np.uint8)))
            for grey in volumes
        ]
        settings = TrainTable(**SETTINGS | {"steps": steps, "log_every": 2, "batch": 4})
        objective = Brightness()
        learnt, other = (Sampler([each], objective.window, FovTable(), 0, CPU) for each in sources)
        recipe = Recipe(model=TINY, train=settings, embed=EmbedTable(stride=20))
        with Run.create(tmp_path / name, recipe) as run:
            trainer = Trainer(objective, learnt, run, settings, held=other if held else None)
            trainer.finished = trainer.fit(Context(silent, stopped=lambda: trainer.step == stop_at))
        return trainer

    return go


def test_it_is_examined_every_few_lines_and_at_the_end(bright):
    trainer = bright("run")
    lines = trainer.run.read_metrics()
    assert [line["step"] for line in lines if "held_error" in line] == [20, 40, 44]
    assert lines[-1]["held_samples"] == 4
    examined = trainer.objective.examined
    assert len(examined) == 3 * 4
    for first, again in zip(examined[:4], examined[4:8], strict=True):
        assert torch.equal(first[0], again[0]) and first[1] == again[1]
    with torch.no_grad():
        errors = [trainer.objective.score(trainer.held.batch(i, 4)).mean().item() for i in range(4)]
    assert lines[-1]["held_error"] == pytest.approx(np.mean(errors))
    assert trainer.objective.training


def test_examining_changes_nothing_in_the_training(bright):
    with_it, without = bright("with"), bright("without", held=False)
    assert equal_files(with_it.run.checkpoint, without.run.checkpoint)
    assert not any("held_error" in line for line in without.run.read_metrics())
    bright("parts", stop_at=21)
    assert course(bright("parts").run) == course(with_it.run)


# It goes on where it stopped


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stops", [[10], [3, 11, 17], [0, 23]])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(train, whole, precision, stops):
    for stop in stops:
        part = train("parts", stop_at=stop, precision=precision)
        assert (part.step, part.finished) == (stop, False)
    last = train("parts", precision=precision)
    assert last.finished
    through = whole(precision).run
    assert equal_files(through.model, last.run.model)
    assert equal_files(through.checkpoint, last.run.checkpoint)
    assert course(through) == course(last.run)


def test_a_checkpoint_holds_masters_moments_and_buffers(whole):
    trainer = whole("bf16")
    arrays, about = load_tensors(trainer.run.checkpoint)
    names = [name for name, _ in trainer.objective.named_parameters()]
    parts = ("master", "exp_avg", "exp_avg_sq", "step")
    expected = {f"{part}.{name}" for part, name in itertools.product(parts, names)}
    assert set(arrays) == expected | {"buffer.encoder.pos_embed", "buffer.decoder.pos_embed"}
    assert all(array.dtype == np.float32 for array in arrays.values())
    assert about["step"] == 24
    assert about["seconds"] == trainer.elapsed


def test_what_came_after_the_checkpoint_is_forgotten(train, whole, tmp_path):
    train("killed", stop_at=12)
    run = Run.open(tmp_path / "killed")
    run.append_metrics({"step": 15, "loss": 99.0})
    assert course(train("killed").run) == course(whole("fp32").run)


def test_every_term_of_an_objective_is_reported(tmp_path, cell):
    table = UNetTable(fov=32, view=24, slices=4, widths=(4, 6), layers=1, dim=3)
    settings = TrainTable(**SETTINGS | {"steps": 6, "log_every": 3, "batch": 2})
    terms = ("invariance", "variance", "covariance", "reconstruction")
    objective = build_objective(table, 0)
    sampler = Sampler([cell], objective.window, FovTable(), 0, CPU)
    with Run.create(tmp_path / "run", Recipe(model=table, train=settings)) as run:
        Trainer(objective, sampler, run, settings).fit(Context())
    for line in run.read_metrics():
        expected = sum(getattr(table, term) * line[term] for term in terms)
        assert line["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_run_killed_before_its_first_checkpoint_starts_again(train, whole):
    killed = train("killed", stop_at=7)
    killed.run.checkpoint.unlink()
    assert killed.run.read_metrics()
    assert course(train("killed").run) == course(whole("fp32").run)


def test_a_finished_run_is_left_as_it_is(train):
    first = train("run")
    before = first.run.model.read_bytes()
    again = train("run")
    assert again.finished
    assert again.told == []
    assert again.run.model.read_bytes() == before
    assert course(again.run) == course(first.run)


# The clock


class Clock:
    """A clock that goes on by a second each time it is read."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(training, "time", made)
    return made


def count_saves(monkeypatch):
    steps = []
    write = Trainer.save
    monkeypatch.setattr(Trainer, "save", lambda self: (steps.append(self.step), write(self)))
    return steps


@pytest.mark.parametrize("stop_at", [None, 12])
def test_the_state_is_saved_every_few_minutes(train, clock, monkeypatch, stop_at):
    saves = count_saves(monkeypatch)
    train("run", stop_at=stop_at, checkpoint_minutes=9 / 60)  # two looks at the clock per step
    first = [5, 10, 12] if stop_at else [5, 10, 15, 20, 24]
    assert saves == first
    if stop_at:
        saves.clear()
        train("run", checkpoint_minutes=9 / 60)
        assert saves == [17, 22, 24]


def test_a_limit_ends_the_run_and_its_schedule(train, clock):
    trainer = train("run", steps=10_000, limit=40.0, log_every=4)
    assert trainer.finished
    assert 15 < trainer.step < 25
    assert trainer.elapsed == pytest.approx(40, abs=2)
    rates = [line["lr"] for line in trainer.run.read_metrics()]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == trainer.settings.min_lr
    assert trainer.told[-1][1] == 1.0


def test_a_limit_counts_earlier_parts(train, clock):
    first = train("run", steps=10_000, limit=40.0, stop_at=10)
    assert not first.finished
    second = train("run", steps=10_000, limit=40.0)
    assert second.finished
    assert second.step < 25
    assert second.elapsed == pytest.approx(40, abs=2)


# The learning rate


@pytest.mark.parametrize(
    ("settings", "fractions", "rates"),
    [
        ({"schedule": "constant", "warmup": 0.0}, [0, 0.5, 1], [1e-3, 1e-3, 1e-3]),
        ({"schedule": "constant", "warmup": 0.5}, [0, 0.1, 0.25, 0.5, 1], [0, 2e-4, 5e-4, 1e-3, 1e-3]),
        ({"schedule": "cosine", "warmup": 0.0}, [0, 0.5, 1], [1e-3, 6e-4, 2e-4]),
        (
            {"schedule": "cosine", "warmup": 0.2},
            [0, 0.1, 0.2, 0.4, 0.6, 1],
            [0, 5e-4, 1e-3, 2e-4 + 8e-4 * (1 + math.sqrt(0.5)) / 2, 6e-4, 2e-4],
        ),
    ],
)
def test_the_learning_rate_spelt_out(settings, fractions, rates):
    table = TrainTable(lr=1e-3, min_lr=2e-4, **settings)
    assert [learning_rate(table, part) for part in fractions] == pytest.approx(rates, abs=1e-12)


# The optimiser


def small_module(dtype=torch.float32):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    module[0].bias.requires_grad_(False)
    return module.to(dtype)


def backward(module, step):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
    module(x.to(module[0].weight)).square().sum().backward()


def test_in_fp32_it_is_adamw():
    table = TrainTable(weight_decay=0.1, betas=(0.8, 0.95))
    ours, theirs = small_module(), small_module()
    master = MasterAdamW(ours, table)
    trained = [p for p in theirs.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=1.0, betas=(0.8, 0.95), weight_decay=0.1, fused=True)
    for step in range(10):
        lr = 0.01 / (1 + step)
        adamw.param_groups[0]["lr"] = lr
        for module in (ours, theirs):
            backward(module, step)
        master.step(lr)
        adamw.step()
        adamw.zero_grad()
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert all(p.grad is None for p in ours.parameters())


def test_amsgrad_and_the_longest_gradient_are_those_of_torch():
    table = TrainTable(weight_decay=0.0, amsgrad=True, clip=0.5)
    ours, theirs = small_module(), small_module()
    master = MasterAdamW(ours, table)
    trained = [p for p in theirs.parameters() if p.requires_grad]
    adam = torch.optim.Adam(trained, lr=0.01, amsgrad=True)
    for step in range(10):
        for module in (ours, theirs):
            backward(module, step)
        norm = torch.nn.utils.clip_grad_norm_(trained, 0.5)
        assert norm > 0.5
        master.step(0.01)
        adam.step()
        adam.zero_grad()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_norms_and_biases_can_be_spared_the_decay():
    table = TrainTable(weight_decay=0.5, decay_vectors=False)
    module, before = small_module(), small_module()
    master = MasterAdamW(module, table)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    master.step(0.1)  # without a gradient, the decay is all that happens
    for (name, now), old in zip(module.named_parameters(), before.parameters(), strict=True):
        spared = name in ("0.bias", "1.weight", "1.bias", "2.bias")  # the first is not trained
        torch.testing.assert_close(now, old if spared else 0.95 * old)


def test_eps_bounds_what_small_gradients_do():
    """The first step of Adam is lr g / (|g| + eps), by hand."""
    moved = []
    for eps in (1e-8, 1e-12):
        module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(module.weight)
        master = MasterAdamW(module, TrainTable(weight_decay=0.0, eps=eps))
        module.weight.grad = torch.full_like(module.weight, 1e-9)
        master.step(1.0)
        moved.append(-module.weight.item())
    assert moved == pytest.approx([1e-9 / (1e-9 + 1e-8), 1e-9 / (1e-9 + 1e-12)], rel=1e-4)


def test_masters_keep_the_weights_that_a_shorter_type_rounds():
    module = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    before = [p.detach().clone() for p in module.parameters()]
    master = MasterAdamW(module, TrainTable(weight_decay=0.0), torch.bfloat16)
    for weight, mine, parameter in zip(before, master.masters, module.parameters(), strict=True):
        assert torch.equal(mine, weight) and mine.dtype == torch.float32
        assert torch.equal(parameter.detach(), weight.bfloat16())
        parameter.grad = torch.zeros_like(parameter)
    master.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, master.masters, strict=True))


def test_updates_below_the_resolution_of_bf16_add_up():
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    module = nn.Module()
    module.weight = weight
    naive = weight.detach().clone()
    master = MasterAdamW(module, TrainTable(weight_decay=0.0))
    for _ in range(64):  # each step is lr = 2**-12, a sixteenth of the next smaller bfloat16
        weight.grad = torch.ones_like(weight)
        master.step(2**-12)
        naive -= 2**-12
    assert naive.item() == 1.0
    assert weight.item() == 1.0 - 2**-6
    assert master.masters[0].item() == pytest.approx(1.0 - 2**-6, abs=1e-6)
    assert weight.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("settings", [{}, {"decay_vectors": False}, {"amsgrad": True, "clip": 0.5}])
def test_the_optimiser_state_restores(dtype, device, settings):
    table = TrainTable(**settings)
    first, second = small_module(dtype).to(device), small_module(dtype).to(device)
    a = MasterAdamW(first, table)
    for step in range(3):
        backward(first, step)
        a.step(0.01)
    b = MasterAdamW(second, table)
    b.load({name: value.cpu().clone() for name, value in a.state().items()})
    for step in range(3, 6):
        for module, optimiser in ((first, a), (second, b)):
            backward(module, step)
            optimiser.step(0.01)
    assert all(torch.equal(x, y) for x, y in zip(first.parameters(), second.parameters(), strict=True))
    assert a.state().keys() == b.state().keys()
    assert all(torch.equal(value, b.state()[key]) for key, value in a.state().items())


# What goes wrong


def burst(objective, at):
    """Make the loss of one step infinite."""
    forward = objective.forward
    calls = itertools.count()
    objective.forward = lambda batch, generator: {
        "loss": forward(batch, generator)["loss"] * (math.inf if next(calls) == at else 1.0)
    }


def test_a_diverged_training_is_the_users_to_mend(train):
    with pytest.raises(
        VemsegError, match=r"run: the training diverged.*-f.*train\.lr below 0\.003"
    ) as caught:
        train("run", change=lambda objective: burst(objective, 7))
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_nothing_of_a_divergence_is_written(train, tmp_path):
    def files():
        return {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.name != "run.json"}

    train("run", stop_at=12)
    before = files()
    with pytest.raises(VemsegError, match="diverged"):
        train("run", change=lambda objective: burst(objective, 1))
    assert files() == before


@pytest.mark.parametrize("stop_at", [8, 9])  # in between reports; 8: the loss was finite, the weights are not
def test_broken_weights_are_never_saved(train, tmp_path, stop_at):
    with pytest.raises(VemsegError, match="diverged"):
        train("run", stop_at=stop_at, change=lambda objective: poison_gradients(objective, 7))
    assert plain_files(Run.open(tmp_path / "run")) == ["metrics.jsonl", "recipe.toml", "run.json"]


def poison_gradients(objective, at):
    """Make a gradient infinite at one step whose loss is finite."""
    calls = itertools.count()
    objective.decoder.pred.bias.register_hook(lambda grad: grad * (math.inf if next(calls) == at else 1.0))


# What it leaves


def test_a_run_explains_itself_in_files(train):
    trainer = train("run", picture_every=10)
    assert plain_files(trainer.run) == [
        "checkpoint.safetensors",
        "curve.png",
        "metrics.jsonl",
        "model.safetensors",
        "recipe.toml",
        "reconstruction-0000010.png",
        "reconstruction-0000020.png",
        "run.json",
    ]
    for picture in trainer.run.path.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    lines = trainer.run.metrics.read_text().splitlines()
    assert all(json.loads(line)["loss"] > 0 for line in lines)


def test_pictures_change_nothing_in_the_training(train, whole):
    drawn = train("drawn", picture_every=7)
    assert equal_files(whole("fp32").run.checkpoint, drawn.run.checkpoint)


def test_the_curve_is_drawn_over_steps(train, monkeypatch):
    seen = {}
    draw = training.drawing.curve
    monkeypatch.setattr(
        training.drawing,
        "curve",
        lambda steps, losses, *more: (
            seen.update(steps=list(steps), losses=list(losses)) or draw(steps, losses, *more)
        ),
    )
    trainer = train("run", picture_every=24)
    lines = trainer.run.read_metrics()
    assert seen == {"steps": [x["step"] for x in lines], "losses": [x["loss"] for x in lines]}


def test_an_objective_without_pictures_trains_too(train, monkeypatch):
    monkeypatch.delattr("vemseg.models.mae.MaskedAutoencoder.preview")
    names = plain_files(train("run", picture_every=10).run)
    assert "curve.png" in names
    assert not any(name.startswith("reconstruction") for name in names)


def test_the_loop_tells_the_objective_of_each_step(train):
    told = []
    train("run", change=lambda objective: setattr(objective, "after_step", lambda *given: told.append(given)))
    assert [fraction for fraction, _ in told] == [step / 24 for step in range(24)]
    assert all(isinstance(generator, torch.Generator) for _, generator in told)


def test_random_numbers_follow_from_seed_and_step():
    numbers = [
        tuple(torch.rand(4, generator=step_generator(seed, step)).tolist())
        for seed in (0, 1, 12345)
        for step in (0, 1, 175_000)
    ]
    assert len(set(numbers)) == len(numbers)
    again = torch.rand(4, generator=step_generator(1, 1)).tolist()
    assert tuple(again) == numbers[4]
