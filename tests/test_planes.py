"""Encoding across three axes: each axis on its own and their average, on one lattice, in the right place."""

import numpy as np
import pytest
import torch
from laying import computed
from torch.nn.functional import avg_pool3d

from vemseg.dense import Grid, interpolated, lay_out
from vemseg.errors import UsageError
from vemseg.geometry import Box
from vemseg.models import Encoder, ThreePlanes, build_encoder
from vemseg.models.planes import AXES
from vemseg.recipe import ClassicalTable, EmbedTable, MaesterTable, UNetTable
from vemseg.volume import Volume

VIT = MaesterTable(fov=20, patch=5, dim=8, depth=1, heads=1, decoder_dim=8, decoder_depth=1, decoder_heads=1)
EVEN = VIT.model_copy(update={"patch": 4})
UNET = UNetTable(fov=16, view=16, widths=(4, 6), layers=1, dim=3, slices=4)


def encoder_of(table, spacing=(1.0, 1.0, 1.0)):
    torch.manual_seed(0)
    return build_encoder(table, spacing).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vit():
    return encoder_of(VIT)


@pytest.fixture(scope="module")
def even():
    return encoder_of(EVEN)


@pytest.fixture(scope="module")
def unet():
    return encoder_of(UNET)


def noise(*shape):
    return torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0))


# Against a slow version


def slow_vit(encoder, cube):
    """Encode the middle plane of every layer of patches, along each axis, and average: (b, g, g, g, d)."""
    fov, patch = encoder.fov[1], encoder.patch[1]
    side = fov // patch
    total = torch.zeros(len(cube), side, side, side, encoder.dim)
    for layer in range(side):
        for at in (layer * patch + (patch - 1) // 2, layer * patch + patch // 2):
            total[:, layer] += encoder.encode(cube[:, :, at][:, :, None])[:, 0]
            total[:, :, layer] += encoder.encode(cube[:, :, :, at][:, :, None])[:, 0]
            total[:, :, :, layer] += encoder.encode(cube[:, :, :, :, at][:, :, None])[:, 0]
    return total / 6


def slow_unet(encoder, cube):
    along_z = encoder.encode(cube)
    along_y = encoder.encode(cube.transpose(2, 3)).transpose(1, 2)
    along_x = encoder.encode(cube.permute(0, 1, 4, 2, 3)).permute(0, 2, 3, 1, 4)
    return (along_z + along_y + along_x) / 3


@pytest.mark.parametrize(
    ("name", "shape"), [("vit", (20, 20, 20)), ("even", (20, 20, 20)), ("unet", (16, 24, 32))]
)
def test_it_is_the_mean_over_the_planes_of_each_axis(name, shape, request):
    encoder = request.getfixturevalue(name)
    slow = slow_unet if name == "unet" else slow_vit
    cube = noise(*shape)
    three = ThreePlanes(encoder)
    found = three.encode(cube)
    expected = slow(encoder, cube)
    assert found.shape == (2, *(n // p for n, p in zip(shape, three.patch, strict=True)), encoder.dim)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    kept = (slice(1, 3), slice(0, 2), slice(2, 4))
    torch.testing.assert_close(three.encode(cube, kept), expected[(slice(None), *kept)], rtol=1e-5, atol=1e-5)


def slow_every(encoder, cube, every):
    """Interpolate between one layer of every few, along each axis, and average; the last one stands alone."""
    total = 0.0
    for order in AXES:
        layers = encoder.encode(cube.permute(0, 1, *(2 + axis for axis in order))).numpy()
        known = np.arange(0, layers.shape[1], every)
        places = np.arange(layers.shape[1])
        flat = np.moveaxis(layers, 1, 0).reshape(len(places), -1)
        between = np.stack([np.interp(places, known, column) for column in flat[known].T], axis=1)
        turned = np.moveaxis(between.reshape(len(places), *layers[:, 0].shape), 0, 1)
        total = total + turned.transpose(0, *(1 + order.index(axis) for axis in range(3)), 4) / 3
    return torch.from_numpy(total).float()


@pytest.mark.parametrize("every", [2, 4])
def test_one_layer_of_every_few_is_encoded_and_the_rest_interpolated(every):
    encoder = encoder_of(UNetTable(fov=16, view=16, widths=(4, 6, 8), layers=1, dim=3, slices=4))
    cube = noise(16, 24, 32)
    three = ThreePlanes(encoder, every)
    found, expected = three.encode(cube), slow_every(encoder, cube, every)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, ThreePlanes(encoder).encode(cube), atol=1e-3)
    kept = (slice(1, 3), slice(5, 6), slice(2, 13))
    torch.testing.assert_close(three.encode(cube, kept), expected[(slice(None), *kept)], rtol=1e-5, atol=1e-5)


def test_half_of_the_layers_are_half_of_the_work(unet, monkeypatch):
    seen = []
    trunk = type(unet).trunk
    monkeypatch.setattr(
        type(unet), "trunk", lambda self, slabs, *needs: seen.append(len(slabs)) or trunk(self, slabs, *needs)
    )
    cube = noise(32, 32, 32)[:1]
    ThreePlanes(unet).encode(cube)
    all_of_them = sum(seen)
    seen.clear()
    ThreePlanes(unet, 2).encode(cube)
    assert sum(seen) == all_of_them / 2 == 24


def test_layers_that_cannot_be_left_out_are_encoded_or_refused(vit, unet):
    full = encoder_of(UNetTable(fov=16, view=16, widths=(4, 6), layers=1, dim=3, full_resolution=True))
    assert ThreePlanes(vit, 2).every == ThreePlanes(full, 2).every == 1
    for every in (3, 4):
        with pytest.raises(UsageError, match=f"embed.every={every} does not go with this model: set it to 1"):
            ThreePlanes(unet, every)


def test_what_it_says_of_itself(vit, unet):
    three = ThreePlanes(vit)
    assert (three.patch, three.fov, three.fixed_fov, three.pads, three.dim) == (
        (5,) * 3,
        (20,) * 3,
        True,
        False,
        8,
    )
    three = ThreePlanes(unet)
    reach, unit = max(unet.halo), max(unet.align)
    assert not three.fixed_fov and three.pads
    assert three.patch == (2, 2, 2) and three.halo == (reach,) * 3 and three.align == (unit,) * 3
    assert three.fov == (2 + 2 * reach,) * 3
    assert ThreePlanes(build_encoder(ClassicalTable(sigmas=(1.0,)))).patch == (1, 1, 1)


def test_patches_that_do_not_fit_together_are_refused():
    sections = build_encoder(UNET, (3.0, 1.0, 1.0))
    with pytest.raises(UsageError, match=r"\(1, 2, 2\) voxels do not fit together"):
        ThreePlanes(sections)


# Registration


class Coordinates(Volume):
    """Voxels hold their own coordinate along one axis, even outside the volume."""

    def __init__(self, shape, axis):
        super().__init__(shape, np.dtype(np.float64))
        self.axis = axis

    def read_reflected(self, box):
        centres = [np.arange(a, b, dtype=np.float64) for a, b in zip(box.start, box.stop, strict=True)]
        return np.broadcast_to(np.meshgrid(*centres, indexing="ij")[self.axis], box.shape).copy()


class Oracle(Encoder):
    """Whatever plane it looks at, a token is the mean over its patch."""

    dim = 1

    def __init__(self, fov, patch, halo, align):
        super().__init__()
        self.fov, self.patch, self.halo, self.fixed_fov = fov, patch, halo or (0, 0, 0), halo is None
        self.align, self.pads = align or (1, 1, 1), align is not None

    def encode(self, x, kept):
        if self.pads:
            assert all(n % unit == 0 for n, unit in zip(x.shape[2:], self.align, strict=True))
        return avg_pool3d(x, self.patch)[:, 0][:, kept[0], kept[1], kept[2], None]


ORACLES = [
    Oracle((1, 20, 20), (1, 5, 5), None, None),
    Oracle((1, 9, 9), (1, 3, 3), None, None),
    Oracle((6, 18, 18), (2, 2, 2), (2, 8, 8), (2, 4, 4)),
    Oracle((6, 26, 26), (2, 2, 2), (2, 12, 12), (2, 8, 8)),
    Oracle((1, 1, 1), (1, 1, 1), (0, 0, 0), None),
    Oracle((7, 9, 9), (1, 1, 1), (3, 4, 4), None),
]


@pytest.mark.parametrize("block", [None, (5, 7, 11)])
@pytest.mark.parametrize("shape", [(17, 23, 21), (1, 9, 4), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("encoder", ORACLES, ids=lambda oracle: f"{oracle.patch}in{oracle.fov}")
def test_three_planes_are_registered(encoder, shape, block):
    three = ThreePlanes(encoder)
    table = EmbedTable(stride=2 * three.patch[0])
    for axis in range(3):
        grid = Grid(Coordinates(shape, axis), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
        dense = computed(three, grid, lay_out(three.placements(table), grid), batch=7)
        for box in Box.whole(shape).split(block or shape):
            axes = dense.interpolations(box)
            values = dense.values(dense.points_of(box))
            for plane, rows, strip in interpolated(values, axes):
                places = np.indices(box.shape)[axis] + box.start[axis]
                np.testing.assert_allclose(strip[..., 0], places[plane, rows], atol=1e-2)


@pytest.mark.parametrize("axis", range(3))
def test_every_axis_puts_its_vectors_where_the_others_do(axis):
    """Each of the three axes sees the coordinate of the same place, and not just their mean does."""
    halo, align = (2, 8, 8), (2, 4, 4)
    for oracle in (Oracle((1, 20, 20), (1, 5, 5), None, None), Oracle((6, 18, 18), (2, 2, 2), halo, align)):
        three = ThreePlanes(oracle)
        edge = 20 if oracle.fixed_fov else 24
        cube = torch.from_numpy(np.indices((edge,) * 3)[axis]).float()[None, None]
        p = three.patch[0]
        wanted = torch.arange(edge // p) * p + (p - 1) / 2
        shape = [-1 if a == axis else 1 for a in range(3)]
        whole = (slice(None),) * 3
        for order in AXES:
            vectors = three._encode(cube.permute(0, 1, *(2 + a for a in order)), whole)
            back = vectors[0, ..., 0].permute([order.index(a) for a in range(3)])
            torch.testing.assert_close(back, wanted.reshape(shape).expand(back.shape))
