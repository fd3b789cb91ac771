"""Models that learn from labels: their losses, heads and windows, the labels they get, and the commands."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vemseg.batch import UNKNOWN, Batch
from vemseg.cli.train import _lessons
from vemseg.context import Context
from vemseg.dense import Lessons, Wanted, teach, training_source
from vemseg.errors import InputError, Interrupted, OutputExistsError, UsageError
from vemseg.geometry import Box
from vemseg.models import build_encoder, build_objective, open_model
from vemseg.models.layers import sincos_positions
from vemseg.models.segmenter import MaskHead
from vemseg.models.supervision import dice, known_entropy, overlaps
from vemseg.models.vit_supervised import PixelHead
from vemseg.models.windowed import WindowedEncoder
from vemseg.pipeline.segment import segment
from vemseg.pipeline.train import Training, train
from vemseg.recipe import FovTable, SegmenterTable, UNetSupervisedTable, VitSupervisedTable, load_recipe
from vemseg.run import Run, load_tensors
from vemseg.sampling import Sampler, Source, hold_out_known, survey
from vemseg.volume import ArrayVolume, Intensity, open_volume, record
from vemseg.volume import write_volume as write

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
NAMES = ("dark", "grey", "bright")
SIZES = {
    "fov": 20,
    "patch": 5,
    "dim": 16,
    "depth": 1,
    "decoder_dim": 16,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "kept": 10,
    "stride": 5,
}
TABLES = [
    VitSupervisedTable(**SIZES, classes=NAMES),
    SegmenterTable(**SIZES, classes=NAMES),
    UNetSupervisedTable(fov=32, view=24, slices=4, widths=(6, 8), layers=1, dim=3, classes=NAMES),
    UNetSupervisedTable(
        fov=32, view=24, slices=4, widths=(6, 8), layers=1, dim=3, classes=NAMES, full_resolution=True
    ),
]
TRANSFORMERS = TABLES[:2]


def write_volume(path, array, voxel_size=None, origin=None):
    volume = ArrayVolume(array, voxel_size)
    volume.origin = origin
    write(volume, path)


def by_kind(table):
    return table.kind + ("-full" if getattr(table, "full_resolution", False) else "")


def step(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(objective, labels=None, size=3):
    """Return windows of noise, of which two thirds of the rows are of unknown class."""
    shape = (size, *objective.window)
    if labels is None:
        labels = torch.randint(0, len(NAMES), shape, generator=step(1), dtype=torch.uint8)
        labels[:, :, objective.window[1] // 3 :] = UNKNOWN
    return Batch(torch.rand(size, 1, *objective.window, generator=step(2)), labels)


# The loss


@pytest.mark.parametrize("table", TABLES, ids=by_kind)
def test_unknown_voxels_carry_no_loss(table):
    """The gradient of the logits is 0 wherever no voxel is known, and nowhere else."""
    objective = build_objective(table, 0).train()
    learner = getattr(objective, "learner", objective.encoder)
    caught = []
    learner.head.register_forward_hook(lambda module, given, out: out.retain_grad() or caught.append(out))
    if table.kind == "unet_supervised":  # without turns, so that the known rows stay where they are
        objective.views.seen = lambda images, labels, generator: (
            images[..., :24, :24],
            labels[..., :24, :24],
        )
    batch = batch_of(objective)
    objective(batch, step())["loss"].backward()
    gradient = caught[0].grad.abs().sum(dim=1)  # (b, y, x)
    rows = objective.window[1] // 3
    known = rows if table.kind != "unet_supervised" else -(-rows // 2)
    assert (gradient[:, :known] > 0).all()
    assert (gradient[:, known:] == 0).all()


@pytest.mark.parametrize("table", TABLES, ids=by_kind)
def test_a_batch_without_known_voxels_teaches_nothing(table):
    objective = build_objective(table, 0).train()
    labels = torch.full((2, *objective.window), UNKNOWN, dtype=torch.uint8)
    found = objective(batch_of(objective, labels, 2), step())
    found["loss"].backward()
    assert found["loss"] == 0
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())


def test_the_loss_is_the_mean_over_known_voxels():
    logits = torch.randn(2, 3, 4, 5, generator=step())
    labels = torch.randint(0, 3, (2, 4, 5), generator=step(1))
    labels[0, 1:3] = labels[1, :, 2] = UNKNOWN
    slow = [
        -math.log(math.exp(logits[b, labels[b, y, x], y, x]) / logits[b, :, y, x].exp().sum().item())
        for b, y, x in itertools.product(range(2), range(4), range(5))
        if labels[b, y, x] != UNKNOWN
    ]
    assert len(slow) == 26
    assert known_entropy(logits, labels).item() == pytest.approx(sum(slow) / len(slow), rel=1e-5)


@pytest.mark.parametrize("table", TABLES, ids=by_kind)
def test_a_batch_without_labels_is_refused(table):
    objective = build_objective(table, 0)
    with pytest.raises(ValueError, match="learns from labels, and the batch has none"):
        objective(Batch(torch.rand(1, 1, *objective.window)), step())


def test_dice_is_that_of_all_batches_together():
    rng = np.random.default_rng(0)
    found, labels = torch.from_numpy(rng.integers(0, 3, (2, 4, 30, 30)))
    labels[rng.random(labels.shape) < 0.3] = UNKNOWN
    labels[labels == 2] = 1
    found[found == 2] = 0
    each = [overlaps(a, b, NAMES) for a, b in zip(found, labels, strict=True)]
    means = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
    scores = dice(means, NAMES)
    known = labels != UNKNOWN
    for k, name in enumerate(NAMES[:2]):
        both = ((found == k) & (labels == k)).sum()
        assert scores[f"dice_{name}"] == pytest.approx(
            float(2 * both / ((found == k)[known].sum() + (labels == k).sum()))
        )
    assert math.isnan(scores["dice_bright"])
    assert scores["dice"] == pytest.approx((scores["dice_dark"] + scores["dice_grey"]) / 2)


@pytest.mark.parametrize("table", TABLES, ids=by_kind)
def test_it_is_examined_on_known_voxels_alone(table):
    objective = build_objective(table, 0).eval()
    with torch.no_grad():
        batch = batch_of(objective)
        counts = objective.validate(batch, step())
        again = objective.validate(Batch(batch.images, torch.full_like(batch.labels, UNKNOWN)), step())
    assert not any(again.values())
    voxels = 24 * 2 if table.kind == "unet_supervised" else 20
    known = 3 * voxels * (objective.window[1] // 3)
    assert sum(value for key, value in counts.items() if key.startswith("sum")) == 2 * known


# Heads and windows


def test_the_mask_head_is_segmenters_as_written_down_slowly():
    torch.manual_seed(0)
    table = TRANSFORMERS[1]
    head = MaskHead(table).eval()
    nn.init.normal_(head.mask_norm.weight), nn.init.normal_(head.mask_norm.bias)
    tokens = torch.randn(2, 16, 16)
    with torch.no_grad():
        fast = head(tokens)
        placed = head.embed(tokens) + sincos_positions(16, 4)[:, 1:]
        joined = torch.cat([placed, head.classes.repeat(2, 1, 1)], dim=1)
        joined = head.norm(head.blocks[0](joined)).double().numpy()
    of_patches, of_classes, gain, bias = (
        p.detach().double().numpy()
        for p in (head.of_patches, head.of_classes, head.mask_norm.weight, head.mask_norm.bias)
    )
    for b in range(2):
        grid = np.empty((3, 4, 4))
        for n in range(16):
            patch = joined[b, n] @ of_patches
            scores = []
            for k in range(3):
                one = joined[b, 16 + k] @ of_classes
                scores.append(patch @ one / np.linalg.norm(patch) / np.linalg.norm(one))
            normed = (scores - np.mean(scores)) / np.sqrt(np.var(scores) + 1e-5)
            grid[:, n // 4, n % 4] = normed * gain + bias
        np.testing.assert_allclose(fast[b].numpy(), enlarged_slowly(grid, 20), atol=1e-4)


def enlarged_slowly(grid, edge):
    """Return a grid (k, n, n) at edge x edge pixels, linear between the centres of its cells."""
    n = grid.shape[1]
    at = np.clip((np.arange(edge) + 0.5) * n / edge - 0.5, 0, n - 1)
    rows = np.stack([[np.interp(at, np.arange(n), column) for column in plane.T] for plane in grid])
    return np.stack([[np.interp(at, np.arange(n), line) for line in plane.T] for plane in rows])


def test_the_pixel_head_puts_every_logit_at_its_pixel():
    torch.manual_seed(0)
    head = PixelHead(TRANSFORMERS[0]).eval()
    tokens = torch.randn(2, 16, 16)
    with torch.no_grad():
        logits = head(tokens)
        placed = head.embed(tokens) + sincos_positions(16, 4)[:, 1:]
        flat = head.pred(head.norm(head.blocks[0](placed)))
    assert logits.shape == (2, 3, 20, 20)
    for y, x, k in itertools.product(range(20), range(20), range(3)):
        token, place = y // 5 * 4 + x // 5, (y % 5 * 5 + x % 5) * 3 + k
        assert torch.equal(logits[:, k, y, x], flat[:, token, place])


class Marked(WindowedEncoder):
    """Logits that depend on all of a field of view and on the place in it."""

    def logits(self, images):
        weight = torch.rand(3, 20, 20, generator=step(7))
        return weight * images + images.mean(dim=(2, 3), keepdim=True) * weight.flip(2)


def test_logits_are_the_mean_over_the_fields_of_view_that_keep_a_pixel():
    encoder = Marked(TRANSFORMERS[0])
    window = torch.rand(2, 1, 2, 45, 50, generator=step())
    found = encoder.encode(window)
    assert found.shape == (2, 2, 45, 50, 3)
    for b, z, y, x in [(0, 0, 19, 19), (1, 1, 20, 27), (0, 1, 25, 24), (1, 0, 22, 30)]:
        seen = []
        for top, left in itertools.product(range(0, 26, 5), range(0, 31, 5)):
            if top + 5 <= y < top + 15 and left + 5 <= x < left + 15:
                part = window[b : b + 1, :, z, top : top + 20, left : left + 20]
                seen.append(encoder.logits(part)[0, :, y - top, x - left])
        assert len(seen) == 4
        torch.testing.assert_close(found[b, z, y, x], torch.stack(seen).mean(dim=0))


def test_logits_depend_on_the_halo_alone_and_not_on_the_window():
    encoder = Marked(TRANSFORMERS[0])
    halo = encoder.halo[1]
    assert encoder.fov == (1, 1 + 2 * halo, 1 + 2 * halo)
    whole = torch.rand(1, 1, 3, 70, 70, generator=step())
    full = encoder.encode(whole)
    part = encoder.encode(whole[..., 10:60, 15:65], (slice(1, 3), slice(halo, 50 - halo), slice(20, 31)))
    assert torch.equal(part, full[:, 1:3, 10 + halo : 60 - halo, 35:46])
    y = x = 35
    changed = whole.clone()
    changed[..., y - halo : y + halo + 1, x - halo : x + halo + 1] = -1.0
    outside = torch.where(changed == -1.0, whole, torch.zeros(()))
    assert torch.equal(encoder.encode(outside)[0, 0, y, x], full[0, 0, y, x])


def test_a_field_of_view_that_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"model\.kept must be a multiple of model\.stride \(7\), not 10"):
        VitSupervisedTable(**SIZES | {"stride": 7})
    with pytest.raises(ValueError, match=r"model\.kept must be model\.fov \(20\) less an even number"):
        VitSupervisedTable(**SIZES | {"kept": 15})
    with pytest.raises(ValueError, match="without classes has no logits"):
        build_encoder(VitSupervisedTable(**SIZES))


# Where labels are known


def scattered(shape=(20, 40, 50), share=0.02, seed=0):
    """Return labels of three classes, of which few are known."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, shape).astype(np.uint8)
    labels[rng.random(shape) >= share] = UNKNOWN
    return labels


def source_of(labels, places=None):
    grey = np.zeros(labels.shape, np.uint8)
    return Source(ArrayVolume(grey), Intensity(0.0, 1.0), ArrayVolume(labels), places)


def test_a_survey_counts_every_class_in_every_plane_and_knows_all_places(monkeypatch):
    monkeypatch.setattr("vemseg.sampling.known.BLOCK", (7, 16, 16))
    labels = scattered()
    known = survey(ArrayVolume(labels))
    for axis, profile in enumerate(known.profiles):
        planes = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
        slow = [np.bincount(plane[plane != UNKNOWN], minlength=UNKNOWN) for plane in planes]
        np.testing.assert_array_equal(profile, slow)
    assert {tuple(p) for p in known.places} == {tuple(p) for p in np.argwhere(labels != UNKNOWN)}
    monkeypatch.setattr("vemseg.sampling.known.PLACES", 60)
    few = survey(ArrayVolume(labels)).places
    assert len({tuple(p) for p in few}) == 60
    assert all(labels[tuple(p)] != UNKNOWN for p in few)
    assert abs(few[:, 0].mean() - 9.5) < 4  # not the first ones that were met


@pytest.mark.parametrize(
    ("planes", "rows"), [(range(20), None), ((2, 9, 10, 17), None), ((8,), range(12, 30))], ids=str
)
def test_a_share_of_the_known_voxels_is_held_out(planes, rows):
    labels = scattered(share=0.9)
    keep = np.zeros(labels.shape, bool)
    keep[list(planes), slice(None) if rows is None else slice(rows.start, rows.stop)] = True
    labels[~keep] = UNKNOWN
    source = source_of(labels)
    learnt, held = hold_out_known(source, survey(source.labels))
    mine, theirs = (each.labels.read(each.labels.box) for each in (learnt, held))
    assert ((mine != UNKNOWN) ^ (theirs != UNKNOWN))[labels != UNKNOWN].all()
    assert (np.minimum(mine, theirs) == labels).all()
    amount = (theirs != UNKNOWN).sum()
    one = (labels[planes[-1]] != UNKNOWN).sum() if rows is None else (labels[8, 29] != UNKNOWN).sum()
    assert amount <= max(one, (labels != UNKNOWN).sum() / 8)
    for each, values in ((learnt, mine), (held, theirs)):
        assert len(each.places) and all(values[tuple(p)] != UNKNOWN for p in each.places)


def test_holding_out_leaves_every_class_something_to_learn_from():
    labels = np.full((20, 8, 8), UNKNOWN, np.uint8)
    labels[4:16] = 0
    labels[15] = 1
    source = source_of(labels)
    learnt, held = hold_out_known(source, survey(source.labels))
    assert set(np.unique(learnt.labels.read(learnt.labels.box))) == {0, 1, UNKNOWN}
    assert set(held.places[:, 0]) == {4}  # from the other end
    labels[4] = 2
    source = source_of(labels)
    learnt, held = hold_out_known(source, survey(source.labels))
    assert held is None
    assert learnt.labels is source.labels and len(learnt.places) == 12 * 64


@pytest.mark.parametrize("pool", [2**30, 2**20])
@pytest.mark.parametrize("planes, crop", [(1, "off"), (4, "off"), (1, "monai12"), (1, "isotropic")])
def test_every_window_shows_a_known_voxel(pool, planes, crop, monkeypatch):
    monkeypatch.setattr("vemseg.sampling.sources.POOL_BOX", (16, 24, 24))
    labels = scattered((40, 90, 130), 2e-4)
    labels[:, :2], labels[:, -2:] = UNKNOWN, UNKNOWN
    labels[5, 0, 0], labels[9, 89, 64] = 1, 2
    source = source_of(labels)
    learnt = Source(source.volume, source.intensity, source.labels, survey(source.labels).places)
    table = FovTable(crop=crop, crop_min=0.4, pool_bytes=pool)
    sampler = Sampler([learnt], (planes, 12, 12), table, 0, CPU)
    assert sampler.stocks[0].moving == (pool == 2**20)
    for number in (0, 1, 60, 500):
        shown = sampler.batch(number, 32).labels
        middle = shown[:, (planes - 1) // 2]
        assert (middle != UNKNOWN).flatten(1).any(dim=1).all()
    again = Sampler([learnt], (planes, 12, 12), table, 0, CPU).batch(500, 32)
    assert torch.equal(again.labels, shown)


def test_labels_follow_their_volume_to_the_models_voxels():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (9, 20, 30)).astype(np.uint8)
    labels = rng.integers(0, 3, grey.shape).astype(np.uint8)
    recipe = load_recipe("vit_supervised", ["volume.voxel_size=20.0"])
    volume = ArrayVolume(grey, (40.0, 8.0, 8.0))
    source = training_source(volume, recipe, ArrayVolume(labels))
    assert source.labels.shape == source.volume.shape == (9, 8, 12)
    for y, x in itertools.product(range(8), range(12)):
        at = (slice(None), int((y + 0.5) * 2.5), int((x + 0.5) * 2.5))
        found = source.labels.read(Box((0, y, x), (9, y + 1, x + 1)))[:, 0, 0]
        np.testing.assert_array_equal(found, labels[at])
    turned = training_source(ArrayVolume(grey, (8.0, 8.0, 40.0)), recipe, ArrayVolume(labels))
    assert turned.labels.shape == turned.volume.shape == (30, 4, 8)
    found = turned.labels.read(Box((3, 2, 5), (4, 3, 6)))[0, 0, 0]
    assert found == labels[int(2.5 * 2.5), int(5.5 * 2.5), 3]


# Labels as users name them


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """Return the folder of a volume of three greys in blocks, and of its labels 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("cell")
    rng = np.random.default_rng(0)
    coarse = rng.integers(1, 4, (3, 6, 6))
    labels = coarse.repeat(6, 0).repeat(12, 1).repeat(12, 2).astype(np.uint8)
    grey = (labels * 60 + rng.normal(0, 8, labels.shape)).clip(0, 255).astype(np.uint8)
    write_volume(folder / "grey.tif", grey, voxel_size=(12.0, 12.0, 12.0))
    write_volume(folder / "labels.tif", labels, voxel_size=(12.0, 12.0, 12.0))
    few = np.zeros_like(labels)
    few[[2, 8, 14]] = labels[[2, 8, 14]]
    write_volume(folder / "few.tif", few, voxel_size=(12.0, 12.0, 12.0))
    return folder


def taught(cell, recipe="unet_supervised", settings=(), crop=None, **given):
    labels = given.pop("labels", ("few.tif",))
    masks = given.pop("masks", ())
    lessons = Lessons([str(cell / x) for x in labels], [str(cell / x) for x in masks], **given)
    volume = open_volume(cell / "grey.tif", crop=crop)
    return teach(lessons, [volume], load_recipe(recipe, settings), crop)


def test_classes_are_the_values_of_the_labels_in_their_order(cell):
    found = taught(cell, unlabelled=(0,))
    assert found.recipe.model.classes == ("label 1", "label 2", "label 3")
    assert found.recipe.model.dim == 3
    given = open_volume(cell / "few.tif").read(Box.whole((18, 72, 72)))
    parts = [each.labels.read(each.labels.box) for each in (*found.learnt, *found.held)]
    assert (np.minimum(*parts) == np.where(given == 0, UNKNOWN, given - 1)).all()
    facts = found.facts[0]
    assert facts["label_values"] == [1, 2, 3] and facts["unlabelled"] == [0]
    assert facts["known_voxels"] == [int((given == k).sum()) for k in (1, 2, 3)]
    assert taught(cell).recipe.model.classes == ("label 0", "label 1", "label 2", "label 3")
    assert taught(cell, unlabelled=(0,), names={1: "a", 2: "b", 3: "c"}).recipe.model.classes == (
        "a",
        "b",
        "c",
    )


def test_classes_are_said_with_their_shares_and_that_zero_is_one_of_them(cell, caplog):
    caplog.set_level("INFO", "vemseg")
    taught(cell, unlabelled=(0,))
    taught(cell)
    few = open_volume(cell / "few.tif").read(Box.whole((18, 72, 72)))
    shares = np.bincount(few.ravel(), minlength=4)[:4] / np.isin(few, (0, 1, 2, 3)).sum()
    known, zero = (record.message for record in caplog.records if "classes to learn" in record.message)
    assert known.count("%") == 3 and "--unlabelled" not in known
    assert f"label 0 {100 * shares[0]:.3g} %" in zero and zero.endswith("add --unlabelled 0")


def test_labels_count_inside_the_mask_alone(cell, tmp_path):
    mask = np.zeros((18, 72, 72), np.uint8)
    mask[:, 10:40] = 7
    write_volume(cell / "mask.tif", mask)
    found = taught(cell, labels=("labels.tif",), masks=("mask.tif",))
    parts = [each.labels.read(each.labels.box) for each in (*found.learnt, *found.held)]
    assert ((np.minimum(*parts) != UNKNOWN) == (mask > 0)).all()


def test_labels_of_the_whole_volume_are_cropped_with_it(cell):
    found = taught(cell, labels=("labels.tif",), crop="3:15,:,6:60")
    whole = open_volume(cell / "labels.tif").read(Box((3, 0, 6), (15, 72, 60)))
    parts = [each.labels.read(each.labels.box) for each in (*found.learnt, *found.held)]
    assert (np.minimum(*parts) + 1 == whole).all()


def test_labels_that_do_not_fit_are_refused_in_one_line(cell):
    labels = open_volume(cell / "labels.tif").read(Box.whole((18, 72, 72)))
    made = {
        "short.tif": (labels[:-1], {}),
        "fine.tif": (labels, {"voxel_size": (6.0, 6.0, 6.0)}),
        "far.ome.zarr": (labels, {"voxel_size": (12.0,) * 3, "origin": (0.0, 600.0, 0.0)}),
        "blank.tif": (np.full_like(labels, 255), {}),
        "one.tif": (np.where(labels == 1, 1, 255).astype(np.uint8), {}),
        "many.tif": ((np.arange(labels.size) % 300).astype(np.uint16).reshape(labels.shape), {}),
    }
    for name, (array, about) in made.items():
        if not (cell / name).exists():
            write_volume(cell / name, array, **about)
    write_volume(cell / "empty_mask.tif", np.zeros_like(labels))
    cases = [
        ({"labels": ("short.tif",)}, InputError, r"short\.tif has shape \(17, 72, 72\), but .*grey\.tif has"),
        ({"labels": ("fine.tif",)}, InputError, r"fine\.tif has voxels of \(6\.0, 6\.0, 6\.0\) nm, but"),
        ({"labels": ("blank.tif",)}, InputError, r"blank\.tif: no voxel is labelled \(not known: 255\)"),
        ({"masks": ("empty_mask.tif",)}, InputError, "no voxel is labelled inside the mask"),
        ({"labels": ("one.tif",)}, InputError, r"one\.tif: only one class is labelled \(1\)"),
        ({"labels": ("many.tif",)}, InputError, r"many\.tif: more than 255 values: these are instances"),
        ({"names": {0: "a", 1: "b"}}, InputError, r"the values \[2, 3\] have no name"),
        (
            {"unlabelled": (0,), "names": {1: "a", 2: "b", 3: "c", 4: "d"}},
            InputError,
            r"no voxel to learn class 4 \(d\) from",
        ),
        ({"names": {0: "a", 1: "b", 2: "b", 3: "c"}}, UsageError, "two classes are called 'b'"),
        ({"settings": ["model.classes=['a','b']", "model.dim=2"]}, InputError, r"4 classes .* names 2"),
        (
            {"recipe": "maester"},
            UsageError,
            r"'maester' does not learn from labels: add -c unet_supervised",
        ),
        ({"labels": ("few.tif", "few.tif")}, UsageError, "2 --labels for 1 volumes"),
        ({"masks": ("few.tif", "few.tif")}, UsageError, "2 --mask for 1 volumes"),
        (
            {"labels": ("dots.tif",), "settings": ["volume.voxel_size=100.0"]},
            InputError,
            r"no voxel of \[1, 2\] is left at the model's voxel size",
        ),
    ]
    dots = np.full_like(labels, 255)
    dots[0, 0, 0], dots[0, 0, 2] = 1, 2
    write_volume(cell / "dots.tif", dots)
    for given, error, says in cases:
        with pytest.raises(error, match=says) as caught:
            taught(cell, **given)
        assert "\n" not in str(caught.value)


# The whole way

SMALL = {
    "unet_supervised": [
        *("model.fov=32", "model.view=24", "model.slices=4", "model.widths=[8,12]", "train.steps=40"),
        *("train.batch=4", "train.lr=0.01", "model.average=0.9", "train.log_every=5"),
    ],
    "vit_supervised": [
        *(f"model.{key}={value}" for key, value in SIZES.items()),
        *("train.steps=90", "train.lr=0.005", "train.batch=16", "volume.voxel_size=12.0"),
        "train.log_every=10",
    ],
    "segmenter": [
        *(f"model.{key}={value}" for key, value in SIZES.items()),
        *("train.steps=130", "train.lr=0.005", "train.batch=16", "volume.voxel_size=12.0"),
        "train.log_every=10",
    ],
}


def training_of(cell, out, kind, settings=(), **given):
    lessons = Lessons([str(cell / "few.tif")], unlabelled=(0,), **given)
    recipe = load_recipe(kind, [*SMALL[kind], *settings])
    return Training([str(cell / "grey.tif")], out, recipe, lessons=lessons)


@pytest.mark.parametrize(
    "kind", ["unet_supervised", "vit_supervised", pytest.param("segmenter", marks=pytest.mark.slow)]
)
def test_it_learns_from_a_few_slices_and_labels_the_rest_with_its_names(cell, tmp_path, kind):
    run = train(training_of(cell, tmp_path / "run", kind, names={1: "a", 2: "b", 3: "c"}), Context())
    last = Run.open(run).read_metrics()[-1]
    assert last["held_dice"] > 0.75
    assert {"held_dice_a", "held_dice_b", "held_dice_c"} <= set(last)
    assert (run / "chart-held_dice.png").is_file()
    facts = json.loads((run / "run.json").read_text())
    assert facts["volumes"][0]["label_values"] == [1, 2, 3]
    assert [
        entry["path"].endswith(name)
        for entry, name in zip(facts["inputs"], ("grey.tif", "few.tif"), strict=True)
    ]
    out = segment(Wanted(str(cell / "grey.tif"), str(run)), tmp_path / "out.tif")
    found, wanted = (open_volume(path).read(Box.whole((18, 72, 72))) for path in (out, cell / "labels.tif"))
    assert (found == wanted).mean() > 0.75
    assert record(out)["names"] == {"1": "a", "2": "b", "3": "c"}


@pytest.mark.parametrize("kind", ["unet_supervised", "segmenter"])
def test_a_training_that_was_stopped_ends_in_the_same_weights(cell, tmp_path, kind):
    short = ("train.steps=6", "train.log_every=2")
    whole = train(training_of(cell, tmp_path / "whole", kind, short), Context())
    asked = []
    stops = Context(stopped=lambda: asked.append(0) or len(asked) > 3)
    with pytest.raises(Interrupted):
        train(training_of(cell, tmp_path / "parts", kind, short), stops)
    parts = train(training_of(cell, tmp_path / "parts", kind, short), Context())
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()


def test_a_run_of_other_labels_is_not_gone_on_with(cell, tmp_path):
    short = ("train.steps=2",)
    run = train(training_of(cell, tmp_path / "run", "unet_supervised", short), Context())
    other = Lessons([str(cell / "labels.tif")])
    recipe = load_recipe("unet_supervised", [*SMALL["unet_supervised"], *short])
    with pytest.raises(OutputExistsError, match=r"made from other volumes \(grey\.tif, few\.tif\)"):
        train(Training([str(cell / "grey.tif")], run, recipe, lessons=other), Context())
    renamed = {1: "label 1", 2: "label 2", 3: "label 3"}
    more = Lessons([str(cell / "few.tif")], unlabelled=(0, 9), names=renamed)
    with pytest.raises(OutputExistsError, match=r"unlabelled of grey\.tif \[0\] there, \[0, 9\] now"):
        train(Training([str(cell / "grey.tif")], run, recipe, lessons=more), Context())


def test_the_dense_encoder_begins_with_all_but_the_last_layer_of_another(cell, tmp_path):
    own = ["train.steps=1", "train.lr=1e-12", "train.min_lr=0.0", "train.warmup=0.0", "model.average=0.0"]
    own.append("train.precision=fp32")  # in bfloat16, an encoder without a mean is saved as it computes
    first = train(training_of(cell, tmp_path / "first", "unet_supervised", ["train.steps=3"]), Context())
    start = open_model(str(first))
    lessons = Lessons([str(cell / "few.tif")])  # four classes, as 0 is one of them
    recipe = load_recipe("unet_supervised", [*SMALL["unet_supervised"], *own])
    going = Training([str(cell / "grey.tif")], tmp_path / "next", recipe, start=start, lessons=lessons)
    before, after = (load_tensors(run / "model.safetensors")[0] for run in (first, train(going, Context())))
    assert after["head.weight"].shape[0] == 4 != before["head.weight"].shape[0]
    kept = [
        name
        for name in before
        if not name.startswith("head.") and "running" not in name and "num" not in name
    ]
    assert kept
    for name in kept:
        np.testing.assert_allclose(before[name], after[name], atol=1e-9)
    wide = load_recipe("unet_supervised", [*SMALL["unet_supervised"], "model.widths=[8,14]"])
    with pytest.raises(UsageError, match=r"it differs in model\.widths$"):
        train(
            Training([str(cell / "grey.tif")], tmp_path / "wide", wide, start=start, lessons=lessons),
            Context(),
        )


def test_the_last_layer_is_left_where_its_vectors_have_another_length():
    wide = build_objective(TABLES[2].model_copy(update={"dim": 5}), 1).encoder
    objective = build_objective(TABLES[2], 0)
    own = objective.learner.head.weight.detach().clone()
    objective.begin_with(wide)
    assert torch.equal(objective.learner.head.weight, own)
    first = next(iter(wide.state_dict()))
    assert torch.equal(objective.learner.state_dict()[first], wide.state_dict()[first])


def test_recipes_that_learn_from_labels_ask_for_them(cell, tmp_path):
    recipe = load_recipe("segmenter-quick")
    with pytest.raises(UsageError, match="a 'segmenter' learns from labels: add --labels LABELS"):
        train(Training([str(cell / "grey.tif")], tmp_path / "run", recipe), Context())
    assert not (tmp_path / "run").exists()
    lessons = Lessons([str(cell / "few.tif")])
    given = Training([str(cell / "grey.tif")], tmp_path / "run", recipe, lessons=lessons)
    for role in ("teacher", "encoder"):
        other = Training(**{**vars(given), role: open_model("classical")})
        with pytest.raises(UsageError, match=r"--labels and --teacher or --encoder do not go together"):
            train(other, Context())


def test_the_command_takes_labels_and_needs_no_k(programs, cell, tmp_path):
    settings = [part for text in SMALL["unet_supervised"] for part in ("--set", text)]
    given = ["--labels", cell / "few.tif", "--unlabelled", "0", "--names", "1=a,2=b,3=c"]
    run = tmp_path / "run"
    words = ["train", cell / "grey.tif", *given, "-o", run, *settings, "--steps", "3", "-d", "cpu"]
    done = programs.run(tmp_path, *words)
    assert done.code == 0, done.err
    assert Run.open(run).recipe.model.kind == "unet_supervised"
    out = segment(Wanted(str(cell / "grey.tif"), str(run)), tmp_path / "out.tif")
    assert record(out)["names"] == {"1": "a", "2": "b", "3": "c"}


@pytest.mark.parametrize(
    ("given", "option"), [((None, "0", None), "--unlabelled"), ((None, None, "1=a"), "--names")]
)
def test_options_on_labels_ask_for_labels(given, option):
    with pytest.raises(UsageError, match=f"{option} is about labels to learn from: add --labels LABELS"):
        _lessons(None, *given)
    assert _lessons(None, ["mask.tif"], None, None) is None  # a mask of what is learned without labels
