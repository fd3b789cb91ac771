"""Blocks from a budget, what is encoded for them, vectors held in memory, and the plan that says so."""

import itertools
import re

import numpy as np
import pytest
import torch

import vemseg.budget
from vemseg.budget import BLOCK_OVERHEAD, FILL, Budget, Cuts, Need, Stretch, choose_blocks
from vemseg.cli import app
from vemseg.context import Context, Share
from vemseg.dense import ComputedVectors, StoredVectors, Wanted, holding
from vemseg.errors import InputError, Interrupted, MissingError, ResourceError, UsageError
from vemseg.geometry import Box
from vemseg.labelling import AffineLabeller
from vemseg.labelling.scaling import scaling
from vemseg.models import build_encoder
from vemseg.models.classical import ClassicalEncoder
from vemseg.pipeline.plan import plan
from vemseg.pipeline.segment import segment
from vemseg.recipe import ClassicalTable, KMeansTable, UNetTable
from vemseg.volume import open_volume

HALO, MARGIN = 24, 10
SHAPE = (200, 90, 150)


# Blocks


def cuts():
    def of(axis):
        n = SHAPE[axis]

        def around(start, stop, voxels):
            return min(n, stop + voxels) - max(0, start - voxels)

        return lambda *ends: Stretch(around(*ends, HALO), ends[1] - ends[0], around(*ends, MARGIN))

    z, y, x = (Cuts.of(SHAPE[axis], of(axis)) for axis in range(3))
    return z, y, x


def slow_encoded(block, sweeps):
    """Count voxel by voxel of every block what is encoded."""
    total = 0.0
    for box in Box.whole(SHAPE).split(block):
        windows = [
            min(n, b + MARGIN) - max(0, a - MARGIN)
            for a, b, n in zip(box.start, box.stop, SHAPE, strict=True)
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

    shape = (24, 48, 56)
    grey = Phantom(shape, 3).read(Box.whole(shape))
    tifffile.imwrite(
        path, grey, imagej=True, metadata={"spacing": 0.016, "unit": "um", "axes": "ZYX"},
        resolution=(1 / 0.016, 1 / 0.016),
    )  # fmt: skip
    return path


SETTINGS = [
    *("cluster.sample=2000", "cluster.restarts=2", "cluster.k=4"),
    *("embed.filters=[0.75, 1.5, 3.0]", "embed.normalise=volume", "volume.voxel_size=16.0"),
]


def test_held_vectors_give_the_labels_of_streamed_ones(volume, tmp_path, monkeypatch):
    wanted, seen = Wanted(str(volume), settings=tuple(SETTINGS)), []
    hold = ComputedVectors.held
    monkeypatch.setattr(ComputedVectors, "held", lambda *args: seen.append(hold(*args)) or seen[-1])
    held = segment(wanted, tmp_path / "held.tif")
    segment(wanted, tmp_path / "shared.tif", context=Context(share=Share(0, 2)))
    assert len(seen) == 1  # a task does not encode the blocks of others
    monkeypatch.setattr(holding, "HELD_SHARE", 0.0)
    streamed = segment(wanted, tmp_path / "streamed.tif")
    assert [isinstance(one, StoredVectors) for one in seen] == [True, False]
    a, b = (open_volume(path).read(open_volume(path).box) for path in (held, streamed))
    assert set(np.unique(a)) == {1, 2, 3, 4}
    np.testing.assert_array_equal(a, b)


def test_vectors_that_were_held_when_it_stopped_are_not_computed_again(volume, tmp_path, monkeypatch):
    monkeypatch.setattr(vemseg.budget, "MOST_VOXELS", 2**12)
    source, keep = subject(volume), tmp_path / "held.npz"
    whole = source.held(Context())
    computed = []
    compute = source.compute
    monkeypatch.setattr(
        source, "compute", lambda points, *more: computed.append(points) or compute(points, *more)
    )
    with pytest.raises(
        Interrupted, match=r"stopped after \d+ of \d+ blocks: the same command goes on from there"
    ):
        source.held(Context(stopped=lambda: len(computed) > 2), keep)
    before = len(computed)
    again = source.held(Context(), keep)
    points = Box.whole(source.shape)
    np.testing.assert_array_equal(again.store.vectors(points), whole.store.vectors(points))
    np.testing.assert_array_equal(again.store.intensities(points), whole.store.intensities(points))
    assert before > 0 and len(set(computed)) == len(computed)
    assert not keep.exists()


# Normalisation


def test_batch_normalisation_has_the_statistics_of_the_volume(volume):
    torch.manual_seed(0)
    encoder = build_encoder(UNetTable(widths=(4, 6), layers=1, dim=3))
    slabs = torch.rand(16, 6, 32, 32) * 0.3 + 0.5
    encoder.eval().normalise(slabs[:, None])
    assert not encoder.training
    seen = []
    encoder.stem.norm.register_forward_hook(lambda module, given, out: seen.append(out.clone()))
    encoder.trunk(slabs)
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[0].std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)
    ours, again = (subject(volume) for _ in range(2))
    theirs = subject(volume, "embed.normalise=training")
    box = Box((0, 0, 0), (4, 8, 8))
    assert torch.equal(ours.values(box), again.values(box))
    assert not torch.equal(ours.values(box), theirs.values(box))


def test_a_volume_too_small_for_slabs_keeps_the_statistics_of_training(tmp_path, volume):
    crop = {"crop": "0:1,0:6,0:6"}
    ours = subject(volume, "embed.planes=one", **crop)
    theirs = subject(volume, "embed.planes=one", "embed.normalise=training", **crop)
    box = Box.whole(ours.shape)
    assert torch.equal(ours.values(box), theirs.values(box))


def subject(volume, *settings, crop=None):
    return Wanted(str(volume), settings=(*SETTINGS, *settings), crop=crop).open(Context(device="cpu"))


# The plan


def test_a_plan_counts_what_is_there_and_writes_nothing(volume, monkeypatch):
    before = sorted(volume.parent.iterdir())
    wanted, context = Wanted(str(volume), settings=tuple(SETTINGS)), Context(threads=1)
    found = plan(wanted, volume.with_name("labels.tif"), context=context)
    assert found.shape == (24, 48, 56) and found.dim == 24
    assert found.vectors >= np.prod(found.shape) / 8
    assert found.blocks.count == 1 and found.sampling == 0.0
    assert 0.0 < found.labelling < 60.0 and found.seconds == found.labelling
    voxels = np.prod(found.shape)
    assert voxels < found.disk < 1.2 * voxels
    as_zarr = plan(wanted, volume.with_name("labels.ome.zarr"), context=context)
    assert as_zarr.disk < 0.2 * voxels
    assert sorted(volume.parent.iterdir()) == before
    monkeypatch.setattr(holding, "HELD_SHARE", 0.0)
    assert plan(wanted, volume.with_name("labels.tif"), context=context).sampling > 0.0


@pytest.mark.parametrize(("planes", "sweeps"), [("one", (0,)), ("three", (0, 1, 2))])
def test_what_is_encoded_for_a_box_is_counted(volume, planes, sweeps):
    vectors = subject(volume, f"embed.planes={planes}")
    cells = Box((3, 8, 12), (9, 20, 14))
    margins, read = vectors.covering.encoder.margins, vectors.covering.window(cells)
    first = vectors.covering.window(Box.whole(vectors.shape)).start
    window = [
        min(low + 2 * b + m, stop) - max(low + 2 * a - m, start)
        for low, a, b, m, start, stop in zip(
            first, cells.start, cells.stop, margins, read.start, read.stop, strict=True
        )
    ]
    assert window[2] < read.shape[2] == vectors.read_points(cells).shape[2]
    each = [np.prod([*window[:i], 2 * cells.shape[i], *window[i + 1 :]]) for i in sweeps]
    assert vectors.points_work(cells) == pytest.approx(np.mean(each))


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
    assert "24 x 48 x 56" in shown and "10 min" in shown


def test_a_plan_refuses_what_segment_would_refuse(volume, tmp_path):
    wanted, clusters = Wanted(str(volume)), tmp_path / "clusters.safetensors"
    AffineLabeller.of_centres(np.eye(4), {}).save(clusters)
    with pytest.raises(InputError, match="clusters of 4 features, but the model has 12"):
        plan(wanted, tmp_path / "labels.tif", clusters=clusters)
    with pytest.raises(MissingError, match="no clusters at"):
        plan(wanted, tmp_path / "labels.tif", clusters=tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="is an input"):
        plan(wanted, volume)


# Filters beside what was learned


def test_filters_are_those_of_patch_means_in_any_window(volume):
    both = subject(volume)
    alone = subject(volume, "embed.filters=[]")
    assert (both.dim, alone.dim) == (24, 12)
    points = Box.whole(both.shape)
    whole = both.values(points)
    assert torch.equal(whole[..., :12], alone.values(points))
    covering = both.covering
    window = covering.grid.volume.read_reflected(covering.window(points))
    x = torch.from_numpy(both.intensity.apply(window)).to(covering.encoder.dtype).float()
    means = torch.nn.functional.avg_pool3d(x[None, None], 2)
    slow = ClassicalEncoder(ClassicalTable(sigmas=(0.75, 1.5, 3.0))).encode(means)[0]
    skipped = [
        (a - b) // 2 for a, b in zip(first_voxels(covering), covering.window(points).start, strict=True)
    ]
    cut = tuple(slice(s, s + n) for s, n in zip(skipped, both.shape, strict=True))
    torch.testing.assert_close(whole[..., 12:].float(), slow[cut], rtol=2e-3, atol=1e-4)
    for part in points.split((9, 14, 21)):  # windows of a single column may round otherwise
        assert torch.equal(both.values(part), whole[part.slices])


def first_voxels(covering):
    halo = covering.encoder.halo
    return [int(axis.starts[0]) + h for axis, h in zip(covering.layout.lattices, halo, strict=True)]


def test_filters_need_windows(volume):
    with pytest.raises(UsageError, match="only with encoders of whole windows"):
        Wanted(str(volume), "maester", ("embed.filters=[1.0]",)).open(Context(device="cpu"))


def test_the_others_are_only_brought_to_their_deviation():
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(5000, 5)) @ rng.normal(size=(5, 5)) + 3).astype(np.float32)
    table = KMeansTable(scale="whiten", whitened=3, others=0.5)
    scaling(data, table).apply(data)
    np.testing.assert_allclose(data.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(data[:, :3].T), np.eye(3), atol=1e-2)
    np.testing.assert_allclose(data[:, 3:].std(axis=0), 0.5, atol=1e-2)
    assert abs(np.corrcoef(data[:, 3:].T)[0, 1]) > 0.1
