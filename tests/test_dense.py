"""Dense inference: what goes in comes out at its own voxel, however the volume is cut.

The oracle is an encoder whose token says where in the volume the centre of its patch lies, read from the
voxels it is given. Whatever the placement, the dense output must be each voxel's own coordinate.
"""

import itertools

import numpy as np
import pytest
import torch
from laying import MACHINE, computed, labels, means_of
from torch.nn.functional import avg_pool3d

import vemseg.dense
from vemseg.context import Context
from vemseg.dense import (
    Grid,
    StoredVectors,
    argmax_interpolated,
    interpolated,
    interpolations,
    lay_out,
    sample_cells,
    working_grid,
)
from vemseg.features import Features
from vemseg.geometry import Box
from vemseg.labelling import fit
from vemseg.models import Encoder, build_encoder
from vemseg.recipe import ClassicalTable, EmbedTable, KMeansTable, MaesterTable
from vemseg.tiling import Placement
from vemseg.volume import ArrayVolume, Intensity, Resampled, Volume

SMALL = MaesterTable(
    fov=20, patch=5, dim=16, depth=2, heads=1, decoder_dim=8, decoder_depth=1, decoder_heads=2
)
ONE = Placement(1, 1, 1, 1)
LOW = 1024.0
"""What the second number of an oracle's vector counts in: float16 alone is too coarse."""


class Coordinates(Volume):
    """A working grid whose voxels hold their own coordinate along one axis in source voxels, outside too."""

    def __init__(self, shape, axis, factors=(1.0, 1.0, 1.0)):
        super().__init__(shape, np.dtype(np.float64))
        self.axis, self.factors = axis, factors

    def read_reflected(self, box):
        centres = [
            (np.arange(a, b) + 0.5) * f - 0.5
            for a, b, f in zip(box.start, box.stop, self.factors, strict=True)
        ]
        return np.broadcast_to(np.meshgrid(*centres, indexing="ij")[self.axis], box.shape).copy()


class Oracle(Encoder):
    """A token is the mean of its patch; of the patch and all its context where there is a halo."""

    dim = 2

    def __init__(self, fov, patch, halo=None):
        super().__init__()
        self.fov, self.patch, self.halo, self.fixed_fov = fov, patch, halo or (0, 0, 0), halo is None
        self.fovs_seen = 0

    def encode(self, x, kept):
        self.fovs_seen += len(x)
        if self.fixed_fov:
            mean = avg_pool3d(x, self.patch)[:, 0][:, kept[0], kept[1], kept[2]]
        else:
            mean = avg_pool3d(x, self.fov, stride=self.patch)[:, 0]
            assert [s.start for s in kept] == [h // p for h, p in zip(self.halo, self.patch, strict=True)]
            assert [s.stop - s.start for s in kept] == list(mean.shape[1:])
        coarse = mean.half().to(mean.dtype)
        return torch.stack([coarse, (mean - coarse) * LOW], dim=-1)


def read_oracle(vectors):
    return (vectors[..., :1].double() + vectors[..., 1:].double() / LOW).float()


def lay(encoder, rule, volume, factors=(1.0, 1.0, 1.0), batch=64):
    grid = Grid(volume, factors, (1.0, 1.0, 1.0))
    return computed(encoder, grid, lay_out(rule, grid), batch=batch)


def at_voxels(dense, box, head):
    """Return the interpolated channels of a box of voxels: (z, y, x, c)."""
    axes = dense.interpolations(box)
    points = dense.values(dense.points_of(box), head)
    planes = [[] for _ in range(box.shape[0])]
    for plane, rows, strip in interpolated(points, axes):
        assert rows.start == sum(len(part) for part in planes[plane])
        planes[plane].append(strip)
    return torch.stack([torch.cat(strips) for strips in planes]).numpy()


def coordinates(rule, working, source=None, factors=(1.0, 1.0, 1.0), halo=None, batch=64, block=None):
    """Push each axis' coordinate through dense inference: (z, y, x, 3)."""
    fov, patch = tuple(p.fov for p in rule), tuple(p.patch for p in rule)
    source = source or working
    found = np.full((*source, 3), np.nan)
    for axis in range(3):
        dense = lay(Oracle(fov, patch, halo), rule, Coordinates(working, axis, factors), factors, batch)
        for box in Box.whole(source).split(block or source):
            found[(*box.slices, axis)] = at_voxels(dense, box, read_oracle)[..., 0]
    return found


def identity(shape):
    return np.stack(np.indices(shape), axis=-1)


def in_plane(placement):
    return ONE, placement, placement


SHAPES = [(2, 37, 23), (1, 3, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kept", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("patch", [3, 4, 5, 7, 8])
def test_cover_and_stride_is_registered(patch, kept, shape):
    rule = in_plane(Placement(8 * patch, patch, kept * patch, 1))
    np.testing.assert_allclose(coordinates(rule, shape), identity(shape), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("patch", [3, 4, 5, 7, 8])
def test_expand_stride_is_registered(patch, shape):
    for stride in sorted({patch, patch + 1, 2 * patch, 2 * patch + 3, 3 * patch - 1, 5 * patch, 6 * patch}):
        rule = in_plane(Placement(6 * patch, patch, stride, patch))
        np.testing.assert_allclose(coordinates(rule, shape), identity(shape), atol=1e-5)


@pytest.mark.parametrize("stride", [20, 40, 60, 80])
def test_expand_stride_of_the_paper_is_registered(stride):
    rule, shape = in_plane(Placement(80, 5, stride, 5)), (1, 97, 131)
    np.testing.assert_allclose(coordinates(rule, shape), identity(shape), atol=1e-5)


THREE_D = (Placement(6, 3, 3, 1), Placement(20, 5, 13, 5), Placement(12, 4, 8, 2))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_placements_may_differ_by_axis(order):
    rule = tuple(THREE_D[axis] for axis in order)
    np.testing.assert_allclose(coordinates(rule, (7, 9, 11)), identity((7, 9, 11)), atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 9, 12), (1, 1, 1)], ids=str)
@pytest.mark.parametrize(
    ("patch", "halo"),
    [
        ((1, 1, 1), (0, 0, 0)),
        ((1, 1, 1), (0, 3, 3)),
        ((1, 1, 1), (4, 2, 7)),
        ((1, 2, 2), (1, 2, 4)),
        ((2, 2, 4), (2, 4, 4)),
    ],
    ids=str,
)
def test_windows_with_a_halo_are_registered(patch, halo, shape):
    rule = tuple(Placement(p + 2 * h, p, p, p) for p, h in zip(patch, halo, strict=True))
    for block in (None, (2, 4, 5)):
        found = coordinates(rule, shape, halo=halo, block=block)
        np.testing.assert_allclose(found, identity(shape), atol=1e-5)


class AlignedOracle(Oracle):
    """Tokens are patch means in windows that start at multiples of ``align`` and may end at the border."""

    def __init__(self, fov, patch, halo, align):
        super().__init__(fov, patch, halo)
        self.align, self.pads = align, True

    def encode(self, x, kept):
        assert all(n % unit == 0 for n, unit in zip(x.shape[2:], self.align, strict=True))
        means = avg_pool3d(x, self.patch)[:, 0]
        assert all(0 <= k.start < k.stop <= n for k, n in zip(kept, means.shape[1:], strict=True))
        mean = means[:, kept[0], kept[1], kept[2]]
        coarse = mean.half().to(mean.dtype)
        return torch.stack([coarse, (mean - coarse) * LOW], dim=-1)


@pytest.mark.parametrize("shape", [(9, 37, 23), (1, 21, 30), (1, 1, 1), (2, 3, 5), (16, 16, 16)], ids=str)
@pytest.mark.parametrize(
    ("patch", "halo", "align"),
    [
        ((2, 2, 2), (2, 8, 8), (2, 8, 8)),
        ((1, 2, 2), (3, 4, 4), (1, 4, 4)),
        ((2, 2, 2), (8, 8, 8), (8, 8, 8)),
        ((4, 4, 4), (8, 4, 12), (4, 16, 8)),
        ((1, 1, 1), (2, 3, 3), (1, 8, 4)),
    ],
    ids=str,
)
def test_aligned_windows_are_registered(patch, halo, align, shape):
    rule = tuple(Placement(p + 2 * h, p, p, p) for p, h in zip(patch, halo, strict=True))
    oracle = AlignedOracle(tuple(p.fov for p in rule), patch, halo, align)
    for axis in range(3):
        dense = lay(oracle, rule, Coordinates(shape, axis))
        for block in (shape, (2, 5, 7)):
            for box in Box.whole(shape).split(block):
                found = at_voxels(dense, box, read_oracle)[..., 0]
                np.testing.assert_allclose(found, identity(shape)[box.slices][..., axis], atol=1e-5)


def test_aligned_windows_start_where_the_encoder_expects_and_hold_the_halo():
    patch, halo, align = (2, 2, 2), (2, 12, 12), (2, 8, 8)
    rule = tuple(Placement(p + 2 * h, p, p, p) for p, h in zip(patch, halo, strict=True))
    dense = lay(
        AlignedOracle(tuple(p.fov for p in rule), patch, halo, align), rule, Coordinates((40, 61, 70), 0)
    )
    lattices = dense.covering.layout.lattices
    first = [int(axis.starts[0]) + h for axis, h in zip(lattices, halo, strict=True)]
    for cells in Box.whole(dense.shape).split((3, 5, 7)):
        window = dense.covering.window(cells)
        for axis in range(3):
            n = -(-len(lattices[axis]) * patch[axis] // align[axis]) * align[axis]
            start, stop = window.start[axis] - first[axis], window.stop[axis] - first[axis]
            assert start % align[axis] == stop % align[axis] == 0
            assert start <= max(0, cells.start[axis] * patch[axis] - halo[axis])
            assert stop >= min(n, cells.stop[axis] * patch[axis] + halo[axis])
            assert start >= 0 and stop <= n


@pytest.mark.parametrize(
    ("batch", "block"),
    [
        *((1, (2, 37, 1)), (1, (1, 100, 100)), (5, (1, 7, 9)), (5, (1, 100, 100))),
        *((10_000, (1, 7, 9)), (10_000, (2, 37, 1)), (10_000, (1, 100, 100))),
    ],
    ids=str,
)
def test_blocks_and_batches_change_nothing(batch, block):
    for placement in (Placement(20, 5, 10, 1), Placement(20, 5, 13, 5), Placement(20, 5, 20, 5)):
        found = coordinates(in_plane(placement), (2, 37, 23), batch=batch, block=block)
        np.testing.assert_allclose(found, identity((2, 37, 23)), atol=1e-5)


@pytest.mark.parametrize("factors", [(1, 2, 2), (1, 0.5, 0.5), (1.6, 1.6, 0.7), (3, 0.3, 1)], ids=str)
@pytest.mark.parametrize(
    "placement", [Placement(15, 5, 10, 1), Placement(16, 4, 9, 4), Placement(20, 5, 20, 5)], ids=str
)
def test_labels_fall_on_source_voxels_whatever_the_working_voxels(placement, factors):
    source = (9, 38, 29)
    working = tuple(max(1, round(n / f)) for n, f in zip(source, factors, strict=True))
    found = coordinates(in_plane(placement), working, source, factors)
    for axis, (n, f) in enumerate(zip(source, factors, strict=True)):
        expected = identity(source)[..., axis]
        inner = np.clip(expected, (f - 1) / 2, (working[axis] - 0.5) * f - 0.5)
        np.testing.assert_array_less(np.abs(found[..., axis] - expected), f / 2 + f * 0.5 + 1e-6)
        sure = expected == inner  # voxels beyond the outermost working voxels' centres take these' values
        assert sure.sum() >= expected.size * max(0, n - 2 * f) / n
        np.testing.assert_allclose(found[..., axis][sure], expected[sure], atol=2e-3)


@pytest.mark.parametrize(("voxel_size", "tolerance"), [(8.0, 1e-3), (10.7, 0.2), (32.0, 1e-3)])
def test_a_ramp_resampled_by_the_volume_comes_back(voxel_size, tolerance):
    # A mean over 1.5 voxels counts a part of a voxel as if it lay at that voxel's centre.
    n = 60
    rows, columns = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    size = (voxel_size, voxel_size, voxel_size)
    for ramp, expected in ((rows, rows), (columns, columns)):
        volume = ArrayVolume(np.stack([ramp] * 2).astype(np.float32), voxel_size=size)
        grid = working_grid(volume, 16.0)
        assert isinstance(grid.volume, Resampled)
        rule = in_plane(Placement(20, 5, 10, 1))
        dense = computed(Oracle((1, 20, 20), (1, 5, 5)), grid, lay_out(rule, grid))
        found = at_voxels(dense, volume.box, read_oracle)[..., 0]
        border = int(np.ceil(6 * 16 / voxel_size))
        inside = np.s_[:, border:-border, border:-border]
        np.testing.assert_allclose(
            found[inside], np.broadcast_to(expected, found.shape)[inside], atol=tolerance
        )


def test_each_field_of_view_is_encoded_once():
    rule, shape = in_plane(Placement(20, 5, 10, 1)), (3, 23, 31)
    encoder = Oracle((1, 20, 20), (1, 5, 5))
    dense = lay(encoder, rule, Coordinates(shape, 0))
    values = dense.values(Box.whole(dense.shape))
    assert values.shape == (*dense.shape, 2)
    assert values.dtype == torch.float16
    assert encoder.fovs_seen == 3 * (3 * 5) * (4 * 5)


@torch.no_grad()
def slow_cover_and_stride(image, encoder, kept):
    """Encode, for every pixel of (y, x), the field of view that keeps a token centred on it."""
    fov, patch = encoder.fov[1], encoder.patch[1]
    first_kept = (fov // patch - kept) // 2
    off, step = first_kept * patch + patch // 2, kept * patch
    padded = np.pad(image, ((off, fov + step), (off, fov + step)), mode="reflect")
    vectors = np.empty((*image.shape, encoder.dim), np.float32)
    for y, x in np.ndindex(image.shape):
        (top, row), (left, column) = (
            ((i - i % step) + i % patch, first_kept + i % step // patch) for i in (y, x)
        )
        crop = torch.from_numpy(padded[top : top + fov, left : left + fov].copy())
        vectors[y, x] = encoder.encode(crop[None, None, None])[0, 0, row, column].numpy()
    return vectors


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(3)
    return build_encoder(SMALL).eval().requires_grad_(False)


def grey(rng, shape):
    smooth = rng.normal(size=shape).cumsum(axis=1).cumsum(axis=2)
    smooth -= smooth.min()
    return (smooth / smooth.max() * 200 + rng.uniform(0, 55, shape)).astype(np.uint8)


def lay_model(encoder, volume, table, batch=16):
    grid = working_grid(volume, 16.0)
    layout = lay_out(encoder.placements(table), grid)
    return computed(encoder, grid, layout, Intensity(10.0, 240.0), batch)


@pytest.mark.parametrize(
    ("kept", "shape"), [(1, (1, 21, 17)), (2, (2, 23, 13)), (4, (1, 19, 24)), (2, (1, 4, 6)), (3, (1, 1, 9))]
)
def test_cover_and_stride_is_the_slow_obvious_one(vit, kept, shape):
    rng = np.random.default_rng(kept)
    volume = ArrayVolume(grey(rng, shape))
    dense = lay_model(vit, volume, EmbedTable(placement="cover-and-stride", kept=kept))
    images = dense.intensity.apply(volume.read(volume.box))
    slow = torch.from_numpy(np.stack([slow_cover_and_stride(image, vit, kept) for image in images]))
    fast = at_voxels(dense, volume.box, lambda vectors: vectors)
    np.testing.assert_allclose(fast, slow, atol=2e-3)

    weight, bias = (torch.from_numpy(rng.normal(size=s).astype(np.float32)) for s in ((16, 5), (5,)))
    scores = slow.half().float() @ weight + bias
    best, second = scores.topk(2, dim=-1).values.unbind(dim=-1)
    clear = (best - second > 0.05).numpy()
    found = labels(dense, volume.box, lambda vectors: vectors.float() @ weight + bias)
    np.testing.assert_array_equal(found[clear], (scores.argmax(dim=-1) + 1).numpy()[clear])
    assert clear.mean() > 0.9


@pytest.mark.parametrize("standardise", [False, True])
def test_interpolated_scores_label_as_interpolated_vectors_do(standardise):
    rng = np.random.default_rng(7)
    mean, scale, centres = np.zeros(192), np.ones(192), rng.normal(size=(6, 192))
    if standardise:
        mean, scale = rng.normal(size=192), rng.uniform(0.2, 5, 192)
    weight = 2 * centres.T / scale[:, None]
    bias = -mean @ weight - (centres**2).sum(axis=1)
    vectors = torch.from_numpy(rng.normal(size=(3, 8, 9, 192)) * scale + mean)
    positions = tuple(np.arange(n) * 5.0 - 0.5 for n in (3, 8, 9))
    axes = interpolations(positions, Box((0, 0, 0), (8, 33, 37)))
    found = argmax_interpolated(vectors @ torch.from_numpy(weight) + torch.from_numpy(bias), axes)
    for plane, rows, strip in interpolated(vectors, axes):
        standard = (strip.numpy() - mean) / scale
        distance = ((standard[..., None, :] - centres) ** 2).sum(axis=-1)
        np.testing.assert_array_equal(found[plane, rows], distance.argmin(axis=-1) + 1)


def test_the_lower_class_wins_a_tie_and_there_may_be_255():
    axes = interpolations((np.arange(2.0), np.arange(3.0), np.arange(4.0)), Box.whole((2, 3, 4)))
    scores = torch.zeros(2, 3, 4, 255)
    scores[1, ..., 253:] = 1.0
    scores[1, 2, ..., 254] = 2.0
    found = argmax_interpolated(scores, axes)
    assert found.dtype == np.uint8
    assert (found[0] == 1).all()
    assert (found[1, :2] == 254).all()
    assert (found[1, 2] == 255).all()


def test_interpolation_goes_by_strips_of_bounded_size(monkeypatch):
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(size=(3, 9, 7, 4)).astype(np.float32))
    axes = interpolations(tuple(np.arange(n) * 3.0 for n in (3, 9, 7)), Box.whole((7, 25, 19)))
    whole = argmax_interpolated(scores, axes)
    monkeypatch.setattr(vemseg.dense.scores, "STRIP_BYTES", 3000)
    assert max(strip.nbytes for _, _, strip in interpolated(scores, axes)) <= 3000
    np.testing.assert_array_equal(argmax_interpolated(scores, axes), whole)


TABLES = [
    EmbedTable(placement="cover-and-stride", kept=2),
    EmbedTable(placement="expand-stride", stride=10),
    EmbedTable(placement="whole-slice"),
]
BLOCKS = [(1, 13, 21), (2, 31, 17), (3, 5, 100), (1, 100, 100)]


def head_for(dense):
    return fit(KMeansTable(k=5, restarts=1), dense.sample(500, 0, Context())).scores


def in_blocks(vectors, box, block, head):
    found = np.zeros(box.shape, np.uint8)
    for part in box.split(block):
        found[part.slices] = labels(vectors, part, head)
    return found


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.placement)
def test_labels_block_by_block_are_those_in_one_go(vit, table):
    volume = ArrayVolume(grey(np.random.default_rng(1), (3, 37, 53)), voxel_size=(40.0, 13.0, 16.0))
    dense = lay_model(vit, volume, table)
    head = head_for(dense)
    whole = labels(dense, volume.box, head)
    assert np.unique(whole).tolist() == [1, 2, 3, 4, 5]
    for block in BLOCKS:
        np.testing.assert_array_equal(in_blocks(dense, volume.box, block, head), whole)


@pytest.fixture(scope="module")
def classical():
    return build_encoder(ClassicalTable(sigmas=(1.0, 2.0)))


@pytest.mark.parametrize("voxel_size", [None, (12.0, 12.0, 12.0)])
def test_classical_labels_block_by_block_are_those_in_one_go(classical, voxel_size):
    volume = ArrayVolume(grey(np.random.default_rng(2), (9, 31, 40)), voxel_size=voxel_size)
    dense = lay_model(classical, volume, EmbedTable())
    assert dense.shape == dense.covering.grid.volume.shape
    points = Box.whole(dense.shape)
    vectors = dense.values(points)
    head = head_for(dense)
    whole = labels(dense, volume.box, head)
    assert np.unique(whole).tolist() == [1, 2, 3, 4, 5]
    for block in [*BLOCKS, (4, 6, 11)]:
        np.testing.assert_array_equal(in_blocks(dense, volume.box, block, head), whole)
        for part in points.split(block):
            assert torch.equal(dense.values(part), vectors[part.slices])


def store(dense, path, box_shape):
    """Store features as ``embed`` does, in several boxes."""
    attributes = {
        "source_shape": list(dense.volume.shape),
        "voxel_size_nm": None,
        "inside": [list(dense.inside.start), list(dense.inside.stop)],
        "cell": list(dense.cell),
        "order": [0, 1, 2],
        "recipe": "",
        "model": "made up",
        "volume": {"path": None, "crop": None},
        "state": {"inputs": []},
    }
    features = Features.create(path, dense.positions, dense.dim, box_shape, attributes)
    boxes = list(Box.whole(dense.shape).split(features.box_shape))
    assert len(boxes) > 1
    for box in boxes:
        features.write(box, dense.values(box).numpy(), means_of(dense, box))
    return Features(path)


@pytest.mark.parametrize(
    "table", [*TABLES, None], ids=lambda table: table.placement if table else "classical"
)
def test_stored_and_streamed_features_agree_bit_for_bit(vit, classical, table, tmp_path):
    volume = ArrayVolume(grey(np.random.default_rng(4), (6, 33, 41)), voxel_size=(20.0, 13.0, 16.0))
    dense = lay_model(vit if table else classical, volume, table or EmbedTable())
    features = store(dense, tmp_path / "features.zarr", (1, 12, 16) if table else (3, 16, 32))
    head = head_for(dense)
    streamed = in_blocks(dense, volume.box, (2, 17, 26), head)
    kept = StoredVectors(lambda: volume, volume.shape, (0, 1, 2), features, dense.maker, MACHINE)
    stored = in_blocks(kept, volume.box, (5, 9, 41), head)
    np.testing.assert_array_equal(stored, streamed)
    assert np.unique(stored).tolist() == [1, 2, 3, 4, 5]

    for n in (7, 300, 10**6):
        drawn, read = (source.sample(n, 5, Context()) for source in (dense, kept))
        assert len(read.vectors) == min(n, dense.inside.size)
        np.testing.assert_array_equal(read.vectors, drawn.vectors)
        np.testing.assert_array_equal(read.intensities, drawn.intensities)


def test_patch_mean_is_the_mean_over_the_patch_on_its_lattice_point(vit):
    volume = ArrayVolume(grey(np.random.default_rng(6), (2, 40, 45)))
    dense = lay_model(vit, volume, EmbedTable(stride=10))
    means = means_of(dense, Box.whole(dense.shape))
    image = dense.intensity.apply(volume.read(volume.box))
    _, rows, columns = dense.positions
    for i, j in itertools.product(range(1, 7), range(1, 8)):
        y, x = int(rows[i]), int(columns[j])
        slow = image[:, y - 2 : y + 3, x - 2 : x + 3].mean(axis=(1, 2))
        np.testing.assert_allclose(means[:, i, j], slow, atol=1e-3)


class Doubling(Encoder):
    """Says how large the vectors are that a head is given."""

    fov, patch, dim, fixed_fov = (1, 1, 1), (1, 1, 1), 1, True

    def encode(self, x, kept):
        return x.movedim(1, -1) * 2


def test_heads_are_given_float16_vectors():
    volume = ArrayVolume(np.full((1, 2, 2), 0.123456789, np.float32))
    grid = working_grid(volume, 16.0)
    dense = computed(Doubling(), grid, lay_out((ONE,) * 3, grid), Intensity(0, 1), 3)
    seen = []
    dense.values(volume.box, lambda vectors: seen.append(vectors) or vectors)
    assert {vectors.dtype for vectors in seen} == {torch.float16}
    assert {float(v) for vectors in seen for v in vectors.ravel()} == {float(np.float16(2 * 0.123456789))}


INSIDE = Box((0, 1, 2), (7, 40, 53))


@pytest.mark.parametrize("n", [1, 10, 127, 1000, 9000, INSIDE.size - 1, INSIDE.size, 10**9])
@pytest.mark.parametrize("cell", [(1, 4, 4), (2, 20, 20), (16, 32, 32)], ids=str)
def test_samples_are_distinct_points_as_many_as_asked_for(cell, n):
    sample = sample_cells(INSIDE, cell, n, seed=0)
    taken = np.zeros(INSIDE.stop, int)
    for part in sample:
        assert INSIDE.contains(part.cells)
        inside_cell = np.zeros(part.cells.size, int)
        np.add.at(inside_cell, part.points, 1)
        taken[part.cells.slices] += inside_cell.reshape(part.cells.shape)
    assert taken.max() == 1
    assert taken.sum() == min(n, INSIDE.size)
    known = set(INSIDE.split(cell))
    if n < INSIDE.size:
        assert {part.cells for part in sample} <= known
    if 1000 <= n < INSIDE.size:
        assert len(sample) >= min(len(known), vemseg.dense.CELLS_AT_LEAST)


@pytest.mark.parametrize(("cell", "places"), [((16, 16, 16), 244), ((1, 16, 16), 3906)])
def test_large_samples_come_from_many_places(cell, places):
    n = 200_000
    sample = sample_cells(Box.whole((400, 400, 400)), cell, n, seed=0)
    assert abs(len(sample) - places) <= 1 and sum(len(part.points) for part in sample) == n


def test_samples_depend_on_the_seed_alone():
    def points(seed):
        return [(part.cells, part.points.tolist()) for part in sample_cells(INSIDE, (1, 4, 4), 500, seed)]

    assert points(3) == points(3)
    assert points(3) != points(4)


def test_samples_favour_no_place():
    taken = np.zeros((6, 6))
    for seed in range(3000):
        for part in sample_cells(Box.whole((1, 6, 6)), (1, 4, 4), 9, seed):
            rows, columns = np.unravel_index(part.points, part.cells.shape)[1:]
            taken[rows + part.cells.start[1], columns + part.cells.start[2]] += 1
    np.testing.assert_allclose(taken / 3000, 9 / 36, atol=0.04)


def volume_of(voxel_size, shape=(30, 40, 50)):
    return ArrayVolume(np.zeros(shape, np.uint8), voxel_size=voxel_size)


def test_a_volume_of_unknown_voxel_size_is_taken_as_it_is():
    volume = volume_of(None)
    assert working_grid(volume, 16.0) == Grid(volume, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("size", [16.0, 14.6, 17.7])
def test_a_volume_of_about_the_models_voxel_size_is_not_resampled(size):
    volume = volume_of((size, size, size))
    grid = working_grid(volume, 16.0)
    assert grid.volume is volume
    assert grid.factors == (1.0, 1.0, 1.0)
    assert grid.spacing == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("size", [4.0, 8.0, 14.4, 18.0, 32.0])
def test_an_isotropic_volume_is_resampled_along_all_axes(size):
    grid = working_grid(volume_of((size, size, size)), 16.0)
    assert grid.factors == pytest.approx((16 / size,) * 3)
    assert grid.volume.shape == tuple(max(1, round(n * size / 16)) for n in (30, 40, 50))
    assert grid.volume.voxel_size == pytest.approx((16.0, 16.0, 16.0))
    assert grid.spacing == pytest.approx((1.0, 1.0, 1.0))


def test_an_anisotropic_volume_is_resampled_in_its_sharp_plane_alone():
    grid = working_grid(volume_of((50.0, 4.0, 4.0)), 16.0)
    assert grid.factors == pytest.approx((1.0, 4.0, 4.0))
    assert grid.volume.shape == (30, 10, 12)
    assert grid.spacing == pytest.approx((50 / 16, 1.0, 1.0))


def test_axes_are_resampled_one_by_one():
    grid = working_grid(volume_of((20.0, 15.0, 16.0)), 16.0)
    assert grid.factors == pytest.approx((0.8, 1.0, 1.0))
    assert grid.spacing == pytest.approx((16 / 15, 1.0, 16 / 15))


def test_a_placement_is_laid_out_on_the_working_grid(vit):
    volume = ArrayVolume(grey(np.random.default_rng(0), (2, 64, 80)), voxel_size=(50.0, 8.0, 8.0))
    dense = lay_model(vit, volume, EmbedTable(stride=10))
    assert dense.covering.grid.volume.shape == (2, 32, 40)
    assert dense.positions[1][:3] == pytest.approx([0.5, 10.5, 20.5])
    assert dense.cell == (1, 2, 2)
    assert dense.inside == Box((0, 0, 0), (2, 7, 8))
