"""The dense encoder: what a vector sees, and that no window, pass or precision changes what comes out."""

import itertools

import numpy as np
import pytest
import torch
from laying import computed, labels, means_of
from torch import nn

import vemseg.models.unet
from vemseg.dense import lay_out, working_grid
from vemseg.geometry import Box
from vemseg.models import Objective, ThreePlanes, build_encoder, load_encoder, save_encoder
from vemseg.models.unet import BatchNorm, UNetEncoder
from vemseg.recipe import EmbedTable, Recipe, UNetTable
from vemseg.run import Run
from vemseg.volume import ArrayVolume, Intensity

CPU = torch.device("cpu")
ISOTROPIC, SECTIONS = (1.0, 1.0, 1.0), (2.5, 1.0, 1.0)
TABLES = [
    UNetTable(fov=32, view=32, widths=(4,), layers=1, dim=3, slices=2),
    UNetTable(fov=32, view=32, widths=(8, 12), layers=1, dim=5, slices=4),
    UNetTable(fov=32, view=32, widths=(4, 8), layers=3, dim=3, slices=6),
    UNetTable(fov=32, view=32, widths=(4, 8, 8), layers=2, dim=4, slices=8),
    UNetTable(fov=32, view=32, widths=(4, 8), layers=2, dim=3, slices=6, full_resolution=True),
]
SMALL, FULL = TABLES[1], TABLES[4]


def table_name(table):
    full = "full" if table.full_resolution else ""
    return f"{'-'.join(map(str, table.widths))}x{table.layers}of{table.slices}{full}"


def encoder_of(table=SMALL, spacing=ISOTROPIC, seed=0):
    """Return an encoder whose normalisation has seen some data."""
    torch.manual_seed(seed)
    encoder = UNetEncoder(table, spacing)
    for module in encoder.modules():
        if isinstance(module, BatchNorm):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return encoder.eval().requires_grad_(False)


def noise(*shape, seed=0):
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


# What a vector sees


@pytest.mark.parametrize("spacing", [ISOTROPIC, SECTIONS, (10.0, 1.0, 1.0)], ids=str)
@pytest.mark.parametrize("table", TABLES, ids=table_name)
def test_a_vector_sees_its_patch_and_the_halo_and_nothing_beyond(table, spacing):
    encoder = encoder_of(table, spacing)
    patch, halo, align = encoder.patch, encoder.halo, encoder.align
    assert encoder.fov == tuple(p + 2 * h for p, h in zip(patch, halo, strict=True))
    assert all(h % p == 0 for h, p in zip(halo, patch, strict=True))
    unit = align[1]
    edge = -(-(2 * halo[1] + 2 * unit) // unit) * unit
    shape = (2 * halo[0] + 5 * patch[0], edge, edge)
    middle = shape[0] // patch[0] // 2
    layers = range(middle, middle + align[0] // patch[0])
    corners = [0, unit // patch[1] - 1]  # of the coarsest pixel
    for layer, *where in itertools.product(layers, corners, corners):
        tokens = (layer, *(halo[1] // patch[1] + w for w in where))
        low, high = seen_by(encoder, shape, tokens)
        for axis in range(3):
            first = tokens[axis] * patch[axis]
            assert low[axis] >= first - halo[axis]
            assert high[axis] < first + patch[axis] + halo[axis]
            assert low[axis] <= first and high[axis] >= first + patch[axis] - 1


def seen_by(encoder, shape, token):
    """Return the first and last voxel along each axis that a vector depends on."""
    x = noise(*shape).requires_grad_()
    with torch.enable_grad():
        encoder.encode(x)[(0, *token)].square().sum().backward()
    places = x.grad[0, 0].nonzero()
    return places.amin(0).tolist(), places.amax(0).tolist()


def test_the_halo_of_a_slab_is_not_wider_than_it_needs():
    encoder = encoder_of(TABLES[3])
    assert encoder.offsets == [-3, -2, -1, 0, 1, 2, 3, 4]
    assert encoder.halo[0] == 4 and encoder.patch == (2, 2, 2) and encoder.align == (2, 8, 8)
    low, high = seen_by(encoder, (20, 96, 96), (5, 24, 24))
    assert (low[0], high[0]) == (7, 14)


def test_thick_sections_are_looked_at_one_by_one():
    encoder = encoder_of(TABLES[3], (10.0, 1.0, 1.0))
    assert encoder.offsets == [0] * 8
    assert encoder.halo[0] == 0 and encoder.patch == (1, 2, 2)
    x = noise(3, 48, 48)
    apart = torch.cat([encoder.encode(x[:, :, z : z + 1]) for z in range(3)], dim=1)
    assert torch.equal(encoder.encode(x), apart)


@pytest.mark.parametrize("table", [TABLES[2], FULL], ids=table_name)
def test_slabs_are_the_planes_around_each_patch(table):
    for spacing, deep in ((ISOTROPIC, 2), (SECTIONS, 1)):
        encoder = encoder_of(table, spacing)
        x = noise(8, 16, 16)
        slow = []
        for first in range(0, 8, deep):
            planes = [mirrored(first + offset, 8) for offset in encoder.offsets]
            found = encoder.head(encoder.trunk(x[:, 0, planes]))
            slow.append(laid_out(found[0], table.dim, deep) if table.full_resolution else found.movedim(1, 3))
        torch.testing.assert_close(encoder.encode(x)[0], torch.cat(slow), rtol=1e-5, atol=1e-5)


def laid_out(found, dim, deep):
    """Lay out the vectors of 2 x 2 x 2 voxels, number by number; thick sections have the mean of two."""
    out = torch.zeros(2, 2 * found.shape[1], 2 * found.shape[2], dim)
    for i, (z, d, y, x) in enumerate(itertools.product(range(2), range(dim), range(2), range(2))):
        out[z, y::2, x::2, d] = found[i]
    return out if deep == 2 else out.mean(dim=0, keepdim=True)


def mirrored(index, n):
    while not 0 <= index < n:
        index = -index if index < 0 else 2 * (n - 1) - index
    return index


# What changes nothing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spacing", [ISOTROPIC, SECTIONS], ids=str)
@pytest.mark.parametrize("table", [SMALL, FULL], ids=table_name)
def test_aligned_windows_of_any_size_give_equal_vectors_inside_the_halo(table, spacing, dtype):
    encoder = encoder_of(table, spacing)
    encoder.prepare(CPU, dtype)
    patch, halo, align = encoder.patch, encoder.halo, encoder.align
    shape = (12, 72, 80)
    whole = encoder.encode(noise(*shape))
    assert whole.dtype == dtype
    rng, compared = np.random.default_rng(0), 0
    for _ in range(12):
        ranges = [window_along(rng, n, h, a) for n, h, a in zip(shape, halo, align, strict=True)]
        window = encoder.encode(noise(*shape)[(..., *(slice(a, b) for a, b in ranges))])
        inner, outer = [], []
        for (a, b), n, h, p in zip(ranges, shape, halo, patch, strict=True):
            low, high = (0 if a == 0 else h) // p, (b - a - (0 if b == n else h)) // p
            inner.append(slice(low, high))
            outer.append(slice(low + a // p, high + a // p))
        part = window[(0, *inner)]
        assert torch.equal(part, whole[(0, *outer)])
        compared += part.numel()
    assert compared > 10_000


def window_along(rng, n, halo, align):
    """Choose a window that starts at an aligned place and holds a patch inside its halo."""
    least = -(-(2 * halo + align) // align)
    size = int(rng.integers(least, n // align + 1))
    start = int(rng.integers(0, n // align - size + 1))
    return start * align, (start + size) * align


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_passes_change_nothing(monkeypatch, dtype):
    encoder = encoder_of().to(dtype)
    x = torch.cat([noise(10, 32, 40), noise(10, 32, 40, seed=1)])
    whole = encoder.encode(x)
    assert whole.shape == (2, 5, 16, 20, 5)
    assert torch.equal(encoder.encode(x[1:])[0], whole[1])
    for size in (1, 40_000):
        monkeypatch.setitem(vemseg.models.unet.PASS_BYTES, "cpu", size)
        assert torch.equal(encoder.encode(x), whole)


@pytest.mark.parametrize("spacing", [ISOTROPIC, SECTIONS], ids=str)
@pytest.mark.parametrize("table", [SMALL, FULL], ids=table_name)
def test_the_patches_kept_are_a_part_of_all(monkeypatch, table, spacing):
    monkeypatch.setitem(vemseg.models.unet.PASS_BYTES, "cpu", 40_000)
    encoder = encoder_of(table, spacing)
    x = noise(10, 32, 40)
    for kept in (
        (slice(1, 4), slice(3, 13), slice(0, 20)),
        (slice(2, 5), slice(5, 16), slice(7, 20)),
        (slice(3, 4), slice(None), slice(5, None)),
    ):
        assert torch.equal(encoder.encode(x, kept), encoder.encode(x)[(slice(None), *kept)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("table", TABLES, ids=table_name)
def test_what_is_left_out_for_the_patches_kept_changes_nothing(table, dtype):
    encoder = encoder_of(table)
    encoder.prepare(CPU, dtype)
    x, rng = noise(6, 128, 160), np.random.default_rng(1)
    whole = encoder.encode(x)
    for _ in range(10):
        firsts = [int(rng.integers(0, n - 1)) for n in whole.shape[2:4]]
        lasts = [int(rng.integers(a + 1, n + 1)) for a, n in zip(firsts, whole.shape[2:4], strict=True)]
        kept = (slice(0, 3), *map(slice, firsts, lasts))
        assert torch.equal(encoder.encode(x, kept), whole[(slice(None), *kept)])


@pytest.mark.parametrize(("y", "x"), [(128, 128), (136, 144), (128, 160), (160, 160), (224, 224)])
def test_a_slab_alone_is_encoded_as_one_of_several(y, x):
    encoder = encoder_of(UNetTable())
    encoder.prepare(CPU, torch.float32)
    window = noise(6, y, x)
    several = encoder.encode(window)
    for rows in (slice(None), slice(3, 40)):
        alone = encoder.encode(window, (slice(1, 2), rows, slice(None)))
        assert torch.equal(alone, several[:, 1:2, rows])


@pytest.mark.parametrize("table", TABLES, ids=table_name)
def test_the_later_a_layer_the_fewer_pixels_around_the_patches_kept_are_computed(table):
    encoder, entered = encoder_of(table), {}

    def noted(name):
        return lambda _, given: entered.setdefault(name, set()).add(given[0][0, 0].numel())

    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(noted(name))
    middle = slice(40, 42)
    encoder.encode(noise(6, 160, 160), (slice(0, 3), middle, middle))
    assert entered["head"] == {1 if table.full_resolution else 4}
    assert max(entered["stem.conv"]) <= (2 * encoder.halo[1] + 2 * encoder.align[1]) ** 2 < 160**2
    for level in range(len(encoder.up)):
        assert max(entered[f"up.{level}.conv"]) <= 8**2


def test_the_work_for_context_is_what_the_layers_do():
    table = UNetTable(widths=(8, 16, 32, 32), layers=1, dim=4, slices=6)
    encoder, work = encoder_of(table), []
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.register_forward_hook(lambda m, _, out: work.append(out[0, 0].numel() * m.weight.numel()))
    margin, edge = encoder.margins[1], 256
    assert encoder.margins[2] == margin and encoder.margins[0] == encoder.halo[0]

    def done(kept, window):
        work.clear()
        start = (window - kept) // 4
        part = slice(start, start + kept // 2)
        encoder.encode(noise(2, window, window), (slice(0, 1), part, part))
        return sum(work)

    for kept in (64, 128):
        rate = done(kept, kept + edge) / done(edge, edge)
        assert rate == pytest.approx(((kept + 2 * margin) / edge) ** 2, rel=0.15)


def test_slabs_are_stacked_from_views_with_any_order_of_axes():
    voxels = noise(30, 31, 32)[0, 0]
    even, uneven = (
        torch.arange(2, 18, 4)[:, None] + torch.arange(6),
        torch.tensor([[2, 1, 0, 1], [0, 1, 2, 5]]),
    )
    for order in itertools.permutations(range(3)):
        turned = voxels.permute(order)
        for planes in (even, even[:1], even.flip(0), uneven):
            found = vemseg.models.unet._stacked(turned, planes)
            assert torch.equal(found, turned[planes])
            assert found.is_contiguous(memory_format=torch.channels_last)


def test_pooling_is_that_of_torch():
    maps = torch.randn(2, 8, 6, 10).contiguous(memory_format=torch.channels_last)
    expected = nn.functional.max_pool2d(maps, 2)
    assert torch.equal(vemseg.models.unet._pooled(maps), expected)
    assert torch.equal(vemseg.models.unet._pooled(maps.requires_grad_()), expected)


@pytest.mark.parametrize("table", TABLES, ids=table_name)
def test_folding_the_normalisation_in_changes_nothing(table):
    plain, fused = encoder_of(table), encoder_of(table)
    fused.prepare(CPU, torch.float32)
    assert not any(isinstance(module, BatchNorm) for module in fused.modules())
    x = noise(8, 48, 64)
    expected = plain.encode(x)
    torch.testing.assert_close(fused.encode(x), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_normalisation_stays_in_float32():
    encoder = encoder_of().to(torch.bfloat16)
    kinds = {type(m).__name__: p.dtype for m in encoder.modules() for p in m.parameters(recurse=False)}
    assert kinds == {"Conv2d": torch.bfloat16, "BatchNorm": torch.float32}
    loose, exact = encoder.encode(noise(8, 48, 48)).float(), encoder_of().encode(noise(8, 48, 48))
    assert (loose - exact).std() < 0.03 * exact.std()


# What it is made of


def test_the_default_has_as_many_parameters_as_its_layers():
    table = UNetTable()
    encoder = build_encoder(table)
    a, b, c = table.widths
    convolution = lambda i, o: 9 * i * o + 2 * o  # noqa: E731  (without a bias, with a normalisation)
    expected = 16 * table.slices * a + 2 * a
    expected += (
        convolution(a, a) * 2 + convolution(a, b) + convolution(b, b) + convolution(b, c) + convolution(c, c)
    )
    expected += (b * a + a) + (c * b + b)
    expected += convolution(a, a) + convolution(b, b)
    expected += table.dim * (a + 1)
    found = sum(p.numel() for p in encoder.parameters())
    assert found == expected == 356_344
    assert encoder.halo == (2, 48, 48) and encoder.align == (2, 8, 8)


def test_a_saved_encoder_is_loaded_as_it_was(tmp_path):
    encoder = encoder_of()
    recipe = Recipe(model=SMALL)
    with Run.create(tmp_path / "run", recipe) as run:
        objective = Objective()
        objective.encoder = encoder
        save_encoder(run.model, objective, {})
    for spacing in (ISOTROPIC, SECTIONS):
        loaded = load_encoder(recipe.model, run.model, spacing)
        expected = encoder if spacing == ISOTROPIC else encoder_of(SMALL, SECTIONS)
        x = noise(8, 48, 48)
        with torch.inference_mode():
            assert torch.equal(loaded.eval().encode(x), expected.encode(x))


# Over a volume


def grey(shape):
    smooth = np.random.default_rng(0).normal(size=shape).cumsum(axis=1).cumsum(axis=2)
    smooth -= smooth.min()
    return (smooth / smooth.max() * 255).astype(np.uint8)


def lay(volume, encoder, smooth=0.0):
    grid = working_grid(volume, 16.0)
    layout = lay_out(encoder.placements(EmbedTable()), grid)
    return computed(encoder, grid, layout, Intensity(10.0, 240.0), 1, smooth)


BLOCKS = [(5, 9, 17), (100, 13, 30)]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("smooth", [0.0, 1.7])
@pytest.mark.parametrize(
    ("voxel_size", "shape", "three"),
    [
        ((16.0, 16.0, 16.0), (9, 41, 50), 0),
        ((40.0, 16.0, 16.0), (5, 41, 50), 0),
        ((40.0, 12.0, 12.0), (2, 41, 50), 0),
        (None, (1, 21, 18), 0),
        (None, (3, 5, 4), 0),
        ((16.0, 16.0, 16.0), (15, 19, 18), 1),
        (None, (7, 1, 9), 1),
        ((16.0, 16.0, 16.0), (15, 19, 18), 2),
    ],
    ids=str,
)
def test_blocks_change_neither_vectors_nor_labels(voxel_size, shape, three, smooth, full):
    volume = ArrayVolume(grey(shape), voxel_size=voxel_size)
    grid = working_grid(volume, 16.0)
    table = UNetTable(fov=16, view=16, widths=(4, 6), layers=1, dim=3, full_resolution=full)
    encoder = encoder_of(table, grid.spacing).prepare(CPU, torch.float32)
    dense = lay(volume, ThreePlanes(encoder, three) if three else encoder, smooth)
    points = Box.whole(dense.shape)
    vectors = dense.values(points)
    grey_values = means_of(dense, points)
    assert vectors.float().std() > 0.01
    weight = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32))
    middle = vectors.float().mean((0, 1, 2))
    head = lambda v: (v.float() - middle) @ weight  # noqa: E731
    whole = labels(dense, volume.box, head)
    assert whole.shape == shape and whole.max() > whole.min()
    for block in BLOCKS:
        for part in points.split(block):
            torch.testing.assert_close(dense.values(part), vectors[part.slices], rtol=2e-3, atol=1e-3)
            assert np.array_equal(means_of(dense, part), grey_values[part.slices])
        for part in volume.box.split(block):
            assert np.mean(labels(dense, part, head) == whole[part.slices]) > 0.99
