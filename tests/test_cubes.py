"""Cubes: where they are cut, how they are resampled, and that their vectors lie at their own voxels."""

import numpy as np
import pytest
import torch
from laying import computed
from scipy.ndimage import map_coordinates
from scipy.stats import kstest
from torch.nn.functional import interpolate

from vemseg.batch import Batch
from vemseg.dense import Grid, interpolated, lay_out, working_grid
from vemseg.dense.sample import sample_cells
from vemseg.errors import UsageError
from vemseg.geometry import Box
from vemseg.models import build_encoder, build_objective
from vemseg.models.cubes import CubeEncoder, Cubes, in_ball, interpolating, mirrored, quarter_turns, rotations
from vemseg.models.distilled import taught_by
from vemseg.recipe import CihsTable, CubeTable, EmbedTable, Han2022Table, UNetTable, load_recipe
from vemseg.tiling import Placement
from vemseg.volume import Volume

SHAPES = [(5, 12, 23), (1, 3, 1), (9, 9, 9)]


class Hollow(Volume):
    """A volume of zeros that takes no memory."""

    def _read(self, box):
        return np.zeros(box.shape, np.uint8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Resampling


def test_isotropic_windows_are_resampled_as_torch_does():
    windows = torch.rand(3, 1, 9, 9, 9, generator=generator())
    cubes = CubeEncoder(CubeTable(kind="cube")).cubes(windows)
    torch.testing.assert_close(cubes, interpolate(windows, (16,) * 3, mode="trilinear", align_corners=True))


@pytest.mark.parametrize("edge", [2, 8, 9])
@pytest.mark.parametrize("voxel", [1.0, 1.5, 2.0, 5.0, 50.0])
def test_points_lie_where_they_should_in_windows_that_are_no_larger_than_needed(edge, voxel):
    weights = interpolating(edge, voxel, 7).double()
    n, radius = weights.shape[1], (edge - 1) / 2 / voxel
    assert n % 2 == edge % 2
    assert radius <= (n - 1) / 2 + 1e-9 and (n <= 2 or radius > (n - 3) / 2)
    places = weights @ torch.arange(n).double() - (n - 1) / 2
    np.testing.assert_allclose(places, np.linspace(-radius, radius, 7), atol=1e-6)
    np.testing.assert_allclose(weights.sum(dim=1), 1, atol=1e-6)


def test_matrices_stay_exact_and_are_no_weights():
    encoder = CubeEncoder(CubeTable(kind="cube"))
    before = encoder.along_x.clone()
    assert torch.equal(encoder.to(torch.bfloat16).along_x, before)
    assert not encoder.state_dict()


def test_cubes_are_cut_where_a_slow_restatement_cuts_them():
    b, n, g, w = 2, 3, 5, 15
    rng = generator(1)
    windows = torch.rand(b, 1, w, w, w, generator=rng)
    frames = mirrored(rotations((b, n), rng), rng)
    centres, radii = in_ball((b, n), 2.0, rng), 1 + 2 * torch.rand(b, n, generator=rng)
    moved = 0.05 * torch.randn(3, b, n, g - 2, g - 2, g - 2, generator=rng)
    found = Cubes(centres, radii, frames).cut(windows, g, moved)
    every = torch.nn.functional.pad(moved.flip(0), (1,) * 6).permute(1, 2, 3, 4, 5, 0).numpy()  # z y x
    along = np.linspace(-1, 1, g)
    for i, j in np.ndindex(b, n):
        for place in np.ndindex(g, g, g):
            inside = along[list(place)] @ frames[i, j].numpy() + every[(i, j, *place)]
            at = (w - 1) / 2 + centres[i, j].numpy() + float(radii[i, j]) * inside
            slow = map_coordinates(windows[i, 0].numpy(), at[:, None], order=1)[0]
            assert float(found[(i, j, *place)]) == pytest.approx(slow, abs=1e-5)


def test_an_upright_cube_of_all_voxels_is_the_window():
    windows = torch.rand(2, 1, 7, 7, 7, generator=generator())
    torch.testing.assert_close(Cubes.upright(torch.full((2, 1), 3.0)).cut(windows, 7), windows)


# Random choices


def test_rotations_are_uniform():
    frames = rotations((4000,), generator())
    torch.testing.assert_close(
        frames @ frames.transpose(1, 2), torch.eye(3).expand(4000, 3, 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(torch.linalg.det(frames), torch.ones(4000))
    for axis in range(3):  # by Archimedes, each coordinate of a uniform direction is uniform
        for coordinate in range(3):
            assert kstest(frames[:, axis, coordinate], "uniform", (-1, 2)).pvalue > 1e-3
    trace = torch.einsum("nii->n", frames)  # Haar: the angle has density (1 - cos) / pi
    angles = torch.arccos(((trace - 1) / 2).clamp(-1, 1))
    assert kstest(angles, lambda a: (a - np.sin(a)) / np.pi).pvalue > 1e-3


def test_quarter_turns_are_the_sixteen_symmetries_that_keep_the_first_axis():
    frames = mirrored(quarter_turns((8000,), generator()), generator(1))
    kinds, counts = torch.unique(frames.flatten(1), dim=0, return_counts=True)
    assert len(kinds) == 16
    assert (kinds.view(-1, 3, 3)[:, 0, 0].abs() == 1).all()
    assert (counts - 500).abs().max() < 110  # five standard deviations


def test_points_of_a_ball_are_uniform():
    points = in_ball((5000,), 2.0, generator())
    far = points.norm(dim=1)
    assert far.max() <= 2
    assert kstest((far / 2) ** 3, "uniform").pvalue > 1e-3
    assert kstest(points[:, 1] / far, "uniform", (-1, 2)).pvalue > 1e-3


def test_rounded_points_come_as_often_as_by_rejection():
    found = in_ball((40_000,), 2.0, generator()).round().numpy()
    rng = np.random.default_rng(0)
    slow = rng.uniform(-2, 2, (80_000, 3))
    slow = np.around(slow[np.square(slow).sum(axis=1) <= 4])
    for each in np.unique(slow, axis=0):
        ours, theirs = ((of == each).all(axis=1).mean() for of in (found, slow))
        assert ours == pytest.approx(theirs, abs=6 * np.sqrt(theirs / 40_000))
    assert not (set(map(tuple, found)) - set(map(tuple, slow)))


# Over a volume


class Coordinates(Volume):
    """A working grid whose voxels hold their own coordinate along one axis, outside too."""

    def __init__(self, shape, axis):
        super().__init__(shape, np.dtype(np.float64))
        self.axis = axis

    def read_reflected(self, box):
        along = [np.arange(a, b, dtype=np.float64) for a, b in zip(box.start, box.stop, strict=True)]
        return np.broadcast_to(np.meshgrid(*along, indexing="ij")[self.axis], box.shape).copy()


class Middle(CubeEncoder):
    """The vector of a cube is the mean of its points, which is the coordinate of its middle."""

    dim, point_bytes = 1, 8

    def vectors(self, cubes):
        return cubes.mean(dim=(2, 3, 4))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0)], ids=str)
@pytest.mark.parametrize(("edge", "stride"), [(9, 1), (9, 2), (9, 4), (8, 1), (8, 3), (8, 8)])
def test_vectors_of_cubes_are_registered(edge, stride, spacing, shape):
    encoder = Middle(CubeTable(kind="cube", edge=edge, grid=4), spacing)
    rule = encoder.placements(EmbedTable(stride=stride))
    for axis in range(3):
        grid = Grid(Coordinates(shape, axis), (1.0, 1.0, 1.0), spacing)
        dense = computed(encoder, grid, lay_out(rule, grid))
        box = Box.whole(shape)
        values = dense.values(dense.points_of(box))
        planes = [[] for _ in range(shape[0])]
        for plane, _, strip in interpolated(values, dense.interpolations(box)):
            planes[plane].append(strip)
        found = torch.stack([torch.cat(strips) for strips in planes]).numpy()[..., 0]
        np.testing.assert_allclose(found, np.indices(shape)[axis], atol=2e-2)  # vectors are float16


def test_a_placement_says_how_far_cubes_are_apart():
    isotropic = build_encoder(load_recipe("han2022").model)
    for placement, stride in (("cover-and-stride", 1), ("expand-stride", 3), ("whole-slice", 9)):
        table = EmbedTable(placement=placement, stride=3)
        assert isotropic.placements(table) == (Placement(9, 9, stride, 9),) * 3
    thick = build_encoder(load_recipe("han2022").model, (4.0, 1.0, 1.0))
    assert thick.placements(EmbedTable(stride=3)) == (Placement(3, 3, 1, 3), *[Placement(9, 9, 3, 9)] * 2)


def test_voxels_between_cubes_would_not_be_seen():
    with pytest.raises(UsageError, match=r"embed\.stride must be at most model\.edge \(9\), not 10"):
        load_recipe("han2022-quick", ["embed.stride=10"])


def test_cubes_teach_no_encoder_of_slabs():
    with pytest.raises(UsageError, match="single planes, not at cubes"):
        taught_by(UNetTable(dim=8), build_encoder(Han2022Table(widths=(2, 2, 2), hidden=2)), 2)


def test_a_sample_computes_hardly_more_cubes_than_it_takes():
    encoder = CubeEncoder(CubeTable(kind="cube"))
    volume = Hollow((2000, 2000, 2000), np.dtype(np.uint8), voxel_size=(10.0, 10.0, 10.0))
    table = EmbedTable(placement="expand-stride", stride=2)
    layout = lay_out(encoder.placements(table), working_grid(volume, 10.0))
    cells = sample_cells(layout.inside, layout.cell, 200_000, seed=0)
    assert sum(len(one.points) for one in cells) == 200_000 and len(cells) >= 4096
    assert sum(one.cells.size for one in cells) < 1.4 * 200_000


# Both objectives


@pytest.mark.parametrize("name", ["han2022", "cihs"])
def test_half_precision_changes_little(name):
    small = {
        "han2022": Han2022Table(grid=8, widths=(4, 8, 16), hidden=12, latent=8, semantic=3),
        "cihs": CihsTable(widths=(8, 8, 8, 12), hidden=6, gyroplanes=5, parents=(3, 7), children=(1, 4)),
    }[name]
    objective = build_objective(small, 0)
    images = torch.rand(3, 1, *objective.window, generator=generator())
    batch = Batch(images, nearby=lambda offsets: images[:, None])
    losses, slopes = [], []
    for dtype in (torch.float32, torch.bfloat16):
        objective.to(dtype).zero_grad()
        loss = objective(batch, generator(1))["loss"]
        loss.backward()
        losses.append(float(loss.detach()))
        slopes.append({key: p.grad.float() for key, p in objective.named_parameters()})
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    for key, whole in slopes[0].items():
        if whole.ndim > 1:
            assert float((slopes[1][key] - whole).norm() / whole.norm()) < 0.3, key


def test_no_seed_leaves_cihs_with_a_decoder_that_learns_nothing():
    for seed in range(12):
        objective = build_objective(load_recipe("cihs").model, seed)
        images = torch.rand(2, 1, *objective.window, generator=generator(seed))
        batch = Batch(images, nearby=lambda offsets, images=images: images[:, None])
        objective(batch, generator(seed))["loss"].backward()
        assert all(p.grad.any() for p in objective.decoder.parameters() if p.ndim > 1), seed
