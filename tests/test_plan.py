"""Blocks from a budget, what is encoded for them, vectors held in memory, and the plan that says so."""

import itertools
import re

import numpy as np
import pytest
import torch

from vemseg.cli import app
from vemseg.errors import ResourceError, UsageError
from vemseg.geometry import Box
from vemseg.labelling.scaling import scaling
from vemseg.models import build_encoder
from vemseg.models.classical import ClassicalEncoder
from vemseg.pipeline import features as holding
from vemseg.pipeline import segment as segmenting
from vemseg.pipeline.blocking import BLOCK_OVERHEAD, FILL, Budget, Cuts, Need, choose_blocks
from vemseg.pipeline.memory import encoded_voxels
from vemseg.pipeline.plan import plan
from vemseg.pipeline.subject import open_subject
from vemseg.recipe import ClassicalTable, KMeansTable, UNetTable
from vemseg.volume import open_volume

HALO = 24
SHAPE = (200, 90, 150)


def quiet(stage, fraction, detail=""):
    """Say nothing."""


def never():
    return False


# Blocks


def cuts():
    def of(axis):
        n = SHAPE[axis]
        return lambda start, stop: (min(n, stop + HALO) - max(0, start - HALO), stop - start)

    z, y, x = (Cuts.of(SHAPE[axis], of(axis)) for axis in range(3))
    return z, y, x


def slow_encoded(block, sweeps):
    """Count voxel by voxel of every block what is encoded."""
    total = 0.0
    for box in Box.whole(SHAPE).split(block):
        windows = [
            min(n, b + HALO) - max(0, a - HALO) for a, b, n in zip(box.start, box.stop, SHAPE, strict=True)
        ]
        each = [np.prod([*windows[:i], box.shape[i], *windows[i + 1 :]]) for i in sweeps]
        total += np.mean(each) if sweeps else np.prod(windows)
    return total


@pytest.mark.parametrize("sweeps", [(), (0,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("share", [0.02, 0.2, 2.0])
def test_the_blocks_that_fit_and_make_the_least_work_are_chosen(sweeps, share):
    axes = cuts()
    limit = int(share * np.prod(SHAPE))
    found = choose_blocks(axes, [Budget(limit, 0, (Need(voxel=1.0),))], sweeps)
    assert found.encoded == pytest.approx(slow_encoded(found.shape, sweeps), abs=1)
    assert found.bytes == np.prod(found.shape) <= limit

    def work(block):
        count = np.prod([-(-n // edge) for n, edge in zip(SHAPE, block, strict=True)])
        return slow_encoded(block, sweeps) * (1 + FILL / count) + BLOCK_OVERHEAD * count

    others = itertools.product(*(axis.edge.tolist() for axis in axes))
    fitting = [block for block in others if np.prod(block) <= limit and min(block) >= 16]
    least = min((work(block) for block in fitting[:: len(fitting) // 100 + 1]), default=np.inf)
    assert work(found.shape) <= 1.001 * least


def test_context_along_the_sweeps_costs_nothing():
    along = choose_blocks(cuts(), [Budget(10**9, 0, (Need(voxel=10**9 / 5e5),))], (0,))
    assert along.shape[0] < SHAPE[0] and along.shape[1:] == SHAPE[1:]
    assert along.encoded == np.prod(SHAPE)


def test_planes_count_by_their_largest():
    need = (Need(pixel=1.0),)
    face = max(a * b for a, b in itertools.combinations(SHAPE, 2))
    assert choose_blocks(cuts(), [Budget(10**9, 0, need)], (0, 1, 2)).bytes <= face
    with pytest.raises(ResourceError, match="the least that works is"):
        choose_blocks(cuts(), [Budget(100, 0, need)], (0, 1, 2))


# Held vectors


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    from vemseg.phantom import Phantom

    path = tmp_path_factory.mktemp("plan") / "cell.tif"
    import tifffile

    shape = (40, 72, 80)
    grey = Phantom(shape, 3).read(Box.whole(shape))
    tifffile.imwrite(
        path, grey, imagej=True, metadata={"spacing": 0.016, "unit": "um", "axes": "ZYX"},
        resolution=(1 / 0.016, 1 / 0.016),
    )  # fmt: skip
    return path


SETTINGS = ["cluster.sample=2000", "cluster.restarts=2", "cluster.k=4"]


def test_held_vectors_give_the_labels_of_streamed_ones(volume, tmp_path, monkeypatch):
    options = {"settings": SETTINGS, "report": quiet, "stopped": never}
    seen = []
    hold = holding.hold
    monkeypatch.setattr(segmenting, "hold", lambda *args: seen.append(hold(*args)) or seen[-1])
    held = segmenting.segment(str(volume), tmp_path / "held.tif", **options)
    monkeypatch.setattr(holding, "HELD_SHARE", 0.0)
    streamed = segmenting.segment(str(volume), tmp_path / "streamed.tif", **options)
    assert [one is not None for one in seen] == [True, False]
    a, b = (open_volume(path).read(open_volume(path).box) for path in (held, streamed))
    assert set(np.unique(a)) == {1, 2, 3, 4}
    np.testing.assert_array_equal(a, b)


# Normalisation


def test_batch_normalisation_has_the_statistics_of_the_volume(volume):
    torch.manual_seed(0)
    encoder = build_encoder(UNetTable(widths=(4, 6), layers=1, dim=3))
    slabs = torch.rand(16, 6, 32, 32) * 0.3 + 0.5
    encoder.eval().normalise(slabs)
    assert not encoder.training
    seen = []
    encoder.stem.norm.register_forward_hook(lambda module, given, out: seen.append(out.clone()))
    encoder.trunk(slabs)
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[0].std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)
    ours, again = (subject(volume).vectors for _ in range(2))
    theirs = subject(volume, "embed.normalise=training").vectors
    box = Box((0, 0, 0), (4, 8, 8))
    assert torch.equal(ours.values(box), again.values(box))
    assert not torch.equal(ours.values(box), theirs.values(box))


def test_a_volume_too_small_for_slabs_keeps_the_statistics_of_training(tmp_path, volume):
    crop = {"crop": "0:1,0:6,0:6"}
    ours = subject(volume, "embed.planes=one", **crop).vectors
    theirs = subject(volume, "embed.planes=one", "embed.normalise=training", **crop).vectors
    box = Box.whole(ours.shape)
    assert torch.equal(ours.values(box), theirs.values(box))


def subject(volume, *settings, crop=None):
    return open_subject(
        str(volume),
        model=None,
        clusters=None,
        settings=[*SETTINGS, *settings],
        voxel_size=None,
        crop=crop,
        device="cpu",
    )


# The plan


def test_a_plan_counts_what_is_there_and_writes_nothing(volume, monkeypatch):
    before = sorted(volume.parent.iterdir())
    found = plan(str(volume), volume.with_name("labels.tif"), settings=SETTINGS, threads=1)
    assert found.shape == (40, 72, 80) and found.dim == 36
    assert found.vectors >= np.prod(found.shape) / 8
    assert found.blocks.count == 1 and found.sampling == 0.0
    assert 0.0 < found.labelling < 60.0 and found.seconds == found.labelling
    voxels = np.prod(found.shape)
    assert voxels < found.disk < 1.2 * voxels
    as_zarr = plan(str(volume), volume.with_name("labels.ome.zarr"), settings=SETTINGS, threads=1)
    assert as_zarr.disk < 0.2 * voxels
    assert sorted(volume.parent.iterdir()) == before
    monkeypatch.setattr(holding, "HELD_SHARE", 0.0)
    assert plan(str(volume), volume.with_name("labels.tif"), settings=SETTINGS, threads=1).sampling > 0.0


@pytest.mark.parametrize(("planes", "sweeps"), [("one", (0,)), ("three", (0, 1, 2))])
def test_what_is_encoded_for_a_box_is_counted_by_its_windows(volume, planes, sweeps):
    vectors = subject(volume, f"embed.planes={planes}").vectors
    cells = Box((3, 8, 12), (9, 20, 30))
    window = vectors.read(cells).shape
    each = [np.prod([*window[:i], 2 * cells.shape[i], *window[i + 1 :]]) for i in sweeps]
    assert encoded_voxels(vectors, cells) == pytest.approx(np.mean(each))


def test_the_command_prints_it(volume, tmp_path, capfd):
    with pytest.raises(SystemExit) as ended:
        app(
            ["segment", str(volume), "-k", "4", "--plan", "--adapt", "10min", "--threads", "1"],
            prog_name="vemseg",
        )
    assert ended.value.code in (0, None)
    shown = capfd.readouterr().out
    for row in ("volume", "blocks", "memory", "disk", "training", "labelling", "time"):
        assert re.search(rf"^\s*{row}\s+\S", shown, re.MULTILINE), row
    assert "40 x 72 x 80" in shown and "10 min" in shown


# Filters beside what was learned


def test_filters_are_those_of_patch_means_in_any_window(volume):
    both = subject(volume).vectors
    alone = subject(volume, "embed.filters=[]").vectors
    assert (both.dim, alone.dim) == (36, 24)
    points = Box.whole(both.shape)
    whole = both.values(points)
    assert torch.equal(whole[..., :24], alone.values(points))
    window = both.grid.volume.read_reflected(both._window(points))
    x = torch.from_numpy(both.intensity.apply(window)).to(both.encoder.dtype).float()
    means = torch.nn.functional.avg_pool3d(x[None, None], 2)
    slow = ClassicalEncoder(ClassicalTable(sigmas=(0.75, 1.5, 3.0))).encode(means)[0]
    skipped = [(a - b) // 2 for a, b in zip(first_voxels(both), both._window(points).start, strict=True)]
    cut = tuple(slice(s, s + n) for s, n in zip(skipped, both.shape, strict=True))
    torch.testing.assert_close(whole[..., 24:].float(), slow[cut], rtol=2e-3, atol=1e-4)
    for part in points.split((9, 14, 40)):
        assert torch.equal(both.values(part), whole[part.slices])


def first_voxels(vectors):
    halo = vectors.encoder.halo
    return [int(axis.starts[0]) + h for axis, h in zip(vectors.layout.lattices, halo, strict=True)]


def test_filters_need_windows(volume):
    with pytest.raises(UsageError, match="whole windows only"):
        open_subject(
            str(volume), model="maester", clusters=None, settings=["embed.filters=[1.0]"],
            voxel_size=None, crop=None, device="cpu",
        )  # fmt: skip


def test_the_others_are_only_brought_to_their_deviation():
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(5000, 5)) @ rng.normal(size=(5, 5)) + 3).astype(np.float32)
    table = KMeansTable(scale="whiten", whitened=3, others=0.5)
    scaling(data, table).apply(data)
    np.testing.assert_allclose(data.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(data[:, :3].T), np.eye(3), atol=1e-2)
    np.testing.assert_allclose(data[:, 3:].std(axis=0), 0.5, atol=1e-2)
    assert abs(np.corrcoef(data[:, 3:].T)[0, 1]) > 0.1
