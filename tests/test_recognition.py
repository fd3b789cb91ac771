"""The objectives of an encoder that knows organelles: recognition, and self-training on a volume."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from vemseg.batch import Batch
from vemseg.cli import app
from vemseg.context import Context
from vemseg.dense import Judge, PseudoLabels, lay_over_volume
from vemseg.errors import UsageError
from vemseg.geometry import Box
from vemseg.labelling import fit
from vemseg.models import build_objective, build_self_training, open_model
from vemseg.models.invariance import Invariance
from vemseg.models.recognition import RAMP, RARE, SURE, Recognition, class_shares, weighed_entropy
from vemseg.models.views import COARSE, Turn, Viewer
from vemseg.phantom import Phantom
from vemseg.phantom.tissue import CLASSES, Tissue
from vemseg.recipe import FovTable, KMeansTable, NamedTable, TrainTable, UNetTable, load_recipe
from vemseg.run import Run
from vemseg.sampling import Sampler, Synthetic
from vemseg.training import MasterAdamW
from vemseg.volume import ArrayVolume, open_volume

CPU = torch.device("cpu")
SIZES = {"fov": 24, "view": 16, "slices": 4, "widths": (4, 6), "layers": 1, "points": 32}
TINY = UNetTable(**SIZES, dim=5, classes=("a", "b", "c"))
FULL = TINY.model_copy(update={"full_resolution": True})


def generator(seed):
    return torch.Generator().manual_seed(seed)


def batch_of(size=4, seed=0, unlabelled=()):
    images = torch.rand(size, 1, 4, 24, 24, generator=generator(seed))
    labels = torch.randint(0, 3, (size, 4, 24, 24), generator=generator(seed + 1)).to(torch.uint8)
    labels[list(unlabelled)] = 255
    return Batch(images, labels, volume=torch.arange(size) % 2)


# The loss


def test_shares_are_counted_voxel_by_voxel():
    labels = torch.randint(0, 4, (2, 2, 6, 8), generator=generator(0)).to(torch.uint8)
    labels[0, 0, 0, 0] = 255
    found = class_shares(labels, 3, 2)
    assert found.shape == (2, 3, 3, 4)
    for b, k, y, x in itertools.product(range(2), range(3), range(3), range(4)):
        patch = labels[b, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert found[b, k, y, x] == (patch == k).sum() / 8
    single = class_shares(labels, 3, 1)
    assert single.shape == (2, 3, 12, 8)
    for b, k, z, y in itertools.product(range(2), range(3), range(2), range(6)):
        assert torch.equal(single[b, k, 6 * z + y], (labels[b, z, y] == k).float())


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_the_entropy_is_what_a_sum_over_places_says(balance):
    shares = class_shares(batch_of().labels[:, :2], 3, 2)
    shares[0] = 0  # nothing known there
    logits = torch.randn(shares.shape, generator=generator(3))
    share = [shares[:, k].mean().item() for k in range(3)]
    weights = [(s + RARE) ** -balance for s in share]
    mean = sum(w * s for w, s in zip(weights, share, strict=True))
    total, n = 0.0, 0
    for b, y, x in itertools.product(*map(range, (shares.shape[0], *shares.shape[2:]))):
        shown = [logits[b, k, y, x].item() + math.log(weights[k] / mean) for k in range(3)]
        norm = math.log(sum(map(math.exp, shown)))
        for k in range(3):
            total -= weights[k] / mean * shares[b, k, y, x].item() * (shown[k] - norm)
        n += 1
    assert weighed_entropy(logits, shares, balance).item() == pytest.approx(total / n, rel=1e-4)


@pytest.mark.parametrize("balance", [0.0, 0.25, 1.0])
def test_however_rare_classes_count_the_best_logits_are_those_of_the_shares(balance):
    shares = class_shares(batch_of().labels[:, :2], 3, 2)
    share = shares.mean(dim=(0, 2, 3), keepdim=True)
    logits = share.log().expand_as(shares).clone().requires_grad_(True)
    weighed_entropy(logits, shares, balance).backward()
    assert logits.grad is not None
    per_class = logits.grad.sum(dim=(0, 2, 3))  # of a constant that is added to a class everywhere
    assert torch.allclose(per_class, torch.zeros(3), atol=1e-6)


def test_a_model_with_classes_is_taught_to_recognise_them():
    assert isinstance(build_objective(TINY, 0), Recognition)
    assert isinstance(build_objective(UNetTable(**SIZES), 0), Invariance)


def test_windows_without_labels_are_learned_from_by_invariance():
    objective = build_objective(TINY, 0)
    assert set(objective(batch_of(), generator(0))) == {"loss", "recognition", "accuracy"}
    mixed = objective(batch_of(unlabelled=(1, 2)), generator(0))
    assert {"invariance", "variance", "covariance", "reconstruction"} < set(mixed)
    assert mixed["loss"] > mixed["recognition"]
    other = batch_of(unlabelled=(1, 2))
    other.images[[1, 2]] = 0.5  # recognition looks at labelled windows alone
    assert torch.equal(objective(other, generator(0))["recognition"], mixed["recognition"])


QUIET = {"contrast": 0.0, "brightness": 0.0, "noise": 0.0, "blur": 0.0, "mask_ratio": 0.0}
ALONE = {"invariance": 0.0, "variance": 0.0, "covariance": 0.0, "reconstruction": 0.0}


class Grey(torch.nn.Module):
    """An encoder whose classes follow from the grey value of a patch alone."""

    pieces = 1

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(40.0))

    def maps(self, slabs):
        grey = torch.nn.functional.avg_pool2d(slabs[:, 1:3].mean(dim=1), 2)
        return self.slope * torch.stack([-((grey - place) ** 2) for place in (0.3, 0.5, 0.7)], dim=1)[:, None]


def test_agreement_is_refused_without_the_mean_that_it_agrees_with():
    with pytest.raises(UsageError, match=r"needs the running mean of the weights: set model\.average"):
        load_recipe("vemseg", ["model.agreement=1.0", "model.average=0.0"])


def agreeing(agreement=0.5):
    objective = Recognition(TINY.model_copy(update=QUIET | ALONE | {"agreement": agreement, "average": 0.9}))
    objective.learner, objective.encoder = Grey(), Grey().requires_grad_(False)
    objective.steps += 500
    return objective


def test_agreement_is_on_what_the_mean_of_the_encoder_is_sure_of():
    objective, batch = agreeing(), batch_of(unlabelled=(1, 2))
    terms = objective(batch, generator(4))
    drawn = generator(4)  # in the order of the objective: the view of what has labels, a turn, the places
    objective.views.seen(batch.images[[0, 3], 0], batch.labels[[0, 3]], drawn)
    Turn.draw(drawn)
    clean = objective.views.cut(batch.images[[1, 2], 0], objective.views.corners(2, drawn)[0])
    logits = objective.encoder.maps(clean)[:, 0]
    wanted = logits.softmax(dim=1)
    unsure = wanted.amax(dim=1) < SURE
    assert 0.05 < unsure.float().mean() < 0.95
    wanted = torch.where(unsure[:, None], torch.zeros(()), wanted)
    assert torch.allclose(terms["agreement"], weighed_entropy(logits, wanted, TINY.balance), rtol=1e-4)
    added = 0.5 * 500 / RAMP * terms["agreement"]
    assert torch.allclose(terms["loss"], terms["recognition"] + added, rtol=1e-5)
    terms["loss"].backward()
    assert objective.learner.slope.grad is not None and objective.encoder.slope.grad is None


def test_without_volumes_there_is_nothing_to_agree_on():
    assert set(agreeing()(batch_of(), generator(0))) == {"loss", "recognition", "accuracy"}
    assert "agreement" not in agreeing(0.0)(batch_of(unlabelled=(0,)), generator(0))


def test_classes_are_stained_anew_in_half_of_the_views():
    views = Viewer(TINY.model_copy(update={"restain": 0.1}))
    x = torch.zeros(40, 4, 16, 16)
    labels = torch.zeros(40, 4, 16, 16, dtype=torch.uint8)
    labels[:, :, 8:], labels[:, :, :, 12:] = 2, 255
    found = views.restain(x, labels, generator(0))
    first, third = found[:, :, 1:7, 1:11], found[:, :, 9:15, 1:11]
    for each in (first, third):
        assert torch.allclose(each, each[:, :1, :1, :1].expand_as(each), atol=1e-6)
    changed = first[:, 0, 0, 0] != 0
    assert 10 < changed.sum() < 30
    assert torch.equal(third[:, 0, 0, 0] != 0, changed)
    assert not torch.allclose(first[changed][:, 0, 0, 0], third[changed][:, 0, 0, 0])
    assert 0.05 < first[changed][:, 0, 0, 0].std() < 0.2
    assert (found[:, :, :, 14:] == 0).all()


def test_fine_structure_is_laid_over_views():
    views = Viewer(TINY.model_copy(update={"texture": 0.8}))
    x, other = torch.zeros(20, 4, 24, 24), torch.rand(1, 4, 24, 24, generator=generator(1))
    found = views.lay_over(x, other, generator(0))
    reach, fine = COARSE // 2, torch.empty_like(other)
    for y, c in itertools.product(range(24), range(24)):
        around = other[0, :, max(0, y - reach) : y + reach + 1, max(0, c - reach) : c + reach + 1]
        fine[0, :, y, c] = other[0, :, y, c] - around.mean(dim=(1, 2))
    strength = (found * fine).sum(dim=(1, 2, 3)) / fine.square().sum()
    assert torch.allclose(found, strength[:, None, None, None] * fine, atol=1e-5)
    assert 5 <= (strength == 0).sum() <= 15
    assert strength.max() <= 0.8 and strength.max() > 0.3


def test_the_encoder_that_is_kept_is_a_running_mean():
    objective = build_objective(TINY.model_copy(update={"average": 0.9}), 0).train()
    assert not objective.encoder.training and objective.learner.training
    name, mean = "stem.conv.weight", objective.encoder.state_dict()["stem.conv.weight"].clone()
    for step in range(30):
        with torch.no_grad():
            objective.learner.stem.conv.weight.add_(1.0)
        objective.after_step(0.0, generator(0))
        stays = min(0.9, (step + 1) / (step + 10))
        mean = stays * mean + (1 - stays) * objective.learner.state_dict()[name]
    assert torch.allclose(objective.encoder.state_dict()[name], mean, atol=1e-5)
    trained = {id(p) for p in objective.parameters() if p.requires_grad}
    assert not trained & {id(p) for p in objective.encoder.parameters()}
    objective.begin_with(build_objective(TINY, 5).encoder)
    assert torch.equal(objective.learner.stem.conv.weight, objective.encoder.stem.conv.weight)
    plain = build_objective(TINY, 0)
    assert plain.encoder is plain.learner


def test_self_training_keeps_a_share_of_the_encoder_as_it_was():
    start = build_objective(TINY, 0).encoder
    objective = build_self_training(TINY.model_copy(update={"average": 0.9}), 1, start, 4).train()
    first = start.state_dict()["stem.conv.weight"]
    for _ in range(10):
        with torch.no_grad():
            objective.learner.stem.conv.weight.copy_(first + 1.0)
        objective.after_step(0.0, generator(0))
    assert torch.allclose(objective.encoder.stem.conv.weight, first + 1 - 0.9**10, atol=1e-5)


@pytest.mark.parametrize("full", [False, True])
def test_labels_turn_with_their_windows(full):
    """An encoder that returns the labels that are painted into its windows makes no mistake."""

    class Painted(torch.nn.Module):
        pieces = 2 if full else 1

        def maps(self, slabs):
            middle = (slabs[:, 1:3] * 3 - 0.5).round()
            if full:
                return 50 * torch.stack([middle == k for k in range(3)], dim=2).float()
            return 50 * class_shares(middle, 3, 2)[:, None]

    settings = TINY.model_copy(update=QUIET | {"full_resolution": full})
    objective = Recognition(settings)
    objective.learner = Painted()
    for seed in range(6):
        batch = batch_of(seed=seed)
        batch.images[:, 0] = (batch.labels + 0.5) / 3
        assert objective(batch, generator(seed))["accuracy"] > 0.99


def test_a_small_encoder_learns_tissue():
    settings = UNetTable(
        fov=48,
        view=48,
        slices=4,
        widths=(8, 16, 16),
        layers=1,
        dim=len(CLASSES),
        classes=CLASSES,
        mask_ratio=0.0,
    )
    objective = build_objective(settings, 0).train()
    source = Synthetic(Tissue(1.0, (14.0, 15.0), ("neuropil",)), held=6, pace=100, margin=16)
    sampler = Sampler([source], objective.window, FovTable(), 0, CPU)
    optimiser = MasterAdamW(objective, TrainTable())
    losses = []
    for step in range(40):
        terms = objective(sampler.batch(step, 8), generator(step))
        terms["loss"].backward()
        optimiser.step(4e-3)
        losses.append(terms["loss"].item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


# Self-training


@pytest.mark.parametrize("table", [TINY, FULL], ids=["half", "full"])
def test_an_encoder_begins_with_what_it_knows(table):
    start = build_objective(table, 0).encoder
    slabs = torch.rand(2, 4, 16, 16, generator=generator(0))
    objective = build_self_training(table, 1, start, 4)
    assert torch.equal(objective.encoder.eval().maps(slabs), start.eval().maps(slabs))


@pytest.mark.parametrize("table", [TINY, FULL], ids=["half", "full"])
def test_each_kind_of_label_moves_its_own_layer(table):
    objective = build_self_training(table, 1, build_objective(table, 0).encoder, 4)
    labels = batch_of().labels
    for real, packed, known, found in (
        (False, labels, True, False),
        (True, labels | 15 << 4, True, False),
        (True, 15 | labels << 4, False, True),
        (True, labels | labels << 4, True, True),
    ):
        batch = dataclasses.replace(batch_of(), labels=packed, volume=torch.full((4,), int(not real)))
        objective.zero_grad()
        objective(batch, generator(0))["loss"].backward()
        own, new = objective.learner.head.weight.grad, objective.head.weight.grad
        own = objective.learner.spread(own[None, :, :, 0])[0, :, :3]
        assert bool(own.abs().sum() > 0) == known
        assert bool(new.abs().sum() > 0) == found


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Return a run of a tiny encoder that was taught on tissue for a few steps."""
    folder = tmp_path_factory.mktemp("taught")
    settings = [
        "tissue.kinds=['neuropil']", "tissue.held=2", "tissue.ratios=[1.0]",
        "model.fov=32", "model.view=32", "model.slices=4", "model.widths=[4, 6]", "model.layers=1",
        f"model.classes={list(CLASSES)}", f"model.dim={len(CLASSES)}", "train.steps=3", "train.batch=2",
        "embed.filters=[]", "cluster.whitened=0", "volume.voxel_size=16.0",
    ]  # fmt: skip
    arguments = [part for text in settings for part in ("--set", text)]
    app(["train", "-o", str(folder / "run"), *arguments], standalone_mode=False)
    return folder / "run"


def cell(path, shape=(12, 40, 48)):
    import tifffile

    raw = Phantom(shape, 3).read(Box.whole(shape))
    tifffile.imwrite(path, raw)
    return path


def test_tissue_alone_is_enough_to_train(taught):
    run = Run.open(taught)
    assert run.finished and run.info["volumes"] == []
    assert open_model(str(taught)).load().classes == CLASSES


def test_pseudo_labels_are_the_sure_ones(taught, tmp_path):
    model = open_model(str(taught))
    volume = ArrayVolume(Phantom((12, 40, 48), 3).read(Box.whole((12, 40, 48))), (16.0,) * 3)
    vectors = lay_over_volume(model, volume, Context("cpu"))
    table = KMeansTable(k=4, sample=2000)
    sample = vectors.sample(2000, 0, Context("cpu"))
    labellers = fit(NamedTable(), sample, vectors), fit(table, sample, vectors)
    whole = [vectors.labels(volume.box, vectors.read(volume.box), one) - 1 for one in labellers]
    everything = PseudoLabels(vectors, *(Judge(one, 0.0) for one in labellers))
    assert np.array_equal(everything.read(volume.box), whole[0] + 16 * whole[1])
    part = Box((2, 5, 7), (9, 30, 40))
    sure = PseudoLabels(vectors, *(Judge.of(one, sample, 1.0) for one in labellers))
    labels = sure.read(volume.box)
    for found, every in zip((labels % 16, labels // 16), whole, strict=True):
        assert 0.2 < (found == 15).mean() < 0.8
        assert (found[found != 15] == every[found != 15]).all()
    assert np.array_equal(sure.read(part), labels[part.slices])


def test_adapting_an_encoder_with_classes_is_self_training(taught, tmp_path):
    path = cell(tmp_path / "cell.tif")
    steps = ["--set", "train.steps=4", "--set", "tissue.held=2"]
    command = ["segment", str(path), "-k", "3", "-m", str(taught), "--voxel-size", "16", *steps]
    app([*command, "--adapt", "5min", "-o", str(tmp_path / "labels.tif")], standalone_mode=False)
    run = Run.open(tmp_path / "labels.run")
    assert run.finished
    assert run.recipe.model.dim == len(CLASSES) and run.recipe.model.classes == CLASSES
    assert {"found", "kept", "recognition"} < set(run.read_metrics()[-1])
    assert set(np.unique(open_volume(tmp_path / "labels.tif").read(Box.whole((12, 40, 48))))) <= {1, 2, 3}
