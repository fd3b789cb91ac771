"""Synthetic tissue: what is painted is what its labels say, and follows from its random numbers alone."""

from dataclasses import replace

import numpy as np
import pytest

from vemseg.errors import UsageError
from vemseg.phantom.tissue import CLASSES, KINDS, Tissue, kinds, tissue
from vemseg.phantom.tissue.canvas import Canvas
from vemseg.phantom.tissue.cells import THIN, Cells, Seed, divide, seeds, wrap
from vemseg.phantom.tissue.classes import (
    CYTOSOL,
    GRANULE,
    MEMBRANE,
    MITOCHONDRION,
    MYELIN,
    NUCLEUS,
    OUTSIDE,
    SYNAPSE,
)
from vemseg.phantom.tissue.imaging import _dirt, _knife, _noise, lost, padded, sectioned
from vemseg.phantom.tissue.kinds import _empty, _with_nucleus, _with_trunk, paint
from vemseg.phantom.tissue.membranes import myelin, plasma_membranes, synapse
from vemseg.phantom.tissue.organelles import mitochondrion, spheres
from vemseg.phantom.tissue.style import Style

SHAPE, VOXEL = (8, 48, 48), (14.0, 14.0, 14.0)


def rng(seed):
    return np.random.default_rng(seed)


def canvas_of(shape=SHAPE, voxel=VOXEL, seed=0):
    return Canvas(rng(seed), shape, voxel)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_random_numbers_give_the_same_block(kind):
    first, second, other = (tissue(rng(seed), SHAPE, VOXEL, kind) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("voxel", [(4.0, 4.0, 4.0), (18.0, 18.0, 18.0), (50.0, 4.0, 4.0), (30.0, 10.0, 10.0)])
def test_blocks_of_every_voxel_size_are_images_with_classes(voxel):
    for seed in range(3):
        image, labels = tissue(rng(seed), (5, 40, 44), voxel)
        assert image.shape == labels.shape == (5, 40, 44)
        assert image.dtype == np.float32 and labels.dtype == np.uint8
        assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1.2
        assert image.std() > 0.02
        assert labels.max() < len(CLASSES)


def test_every_class_occurs():
    counts = np.zeros(len(CLASSES), np.int64)
    for seed in range(60):
        _, labels = tissue(rng(seed), (8, 80, 80), (16.0, 16.0, 16.0))
        counts += np.bincount(labels.ravel(), minlength=len(CLASSES))
    assert (counts > 0).all(), dict(zip(CLASSES, counts.tolist(), strict=True))
    assert counts.max() < 0.7 * counts.sum()


def test_classes_can_be_seen():
    """Where tissue is clean, membranes are darker than cytosol, and mitochondria differ from it."""
    differ = []
    for seed in range(12):
        image, labels = tissue(rng(seed), (8, 96, 96), (12.0, 12.0, 12.0), "neuropil")
        if (labels == CYTOSOL).any() and (labels == MEMBRANE).any():
            differ.append(image[labels == CYTOSOL].mean() - image[labels == MEMBRANE].mean())
    assert len(differ) > 8
    assert np.mean(differ) > 0.12
    assert np.mean(np.array(differ) > 0) > 0.9


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="no tissue 'liver': name some of neuropil"):
        Tissue(1.0, (8.0, 16.0), ("liver",))


# Cells


def slow_division(canvas, found, cells):
    """Give each voxel to the seed whose surface is nearest, one seed after the other, everywhere."""
    from vemseg.phantom.tissue.cells import _warped

    coordinates = np.stack(_warped(canvas, cells), axis=-1).astype(np.float64)
    best = np.full(canvas.shape, np.inf)
    owner = np.full(canvas.shape, -1)
    for seed in found:
        offset = coordinates - seed.place
        along = offset @ seed.axis
        square = (offset**2).sum(-1) - (1 - seed.stretch**-2) * along**2
        away = np.sqrt(np.maximum(square, 0)) - seed.radius
        owner[away < best] = seed.cell
        best = np.minimum(best, away)
    return owner


@pytest.mark.parametrize("sizes", [(150.0, 700.0), (3000.0, 6000.0)])
def test_voxels_belong_to_the_nearest_seed(sizes):
    cells = Cells(sizes, stretch=2.5, joined=0.3)
    for number in range(4):
        canvas = canvas_of((6, 60, 60), seed=number)
        found = seeds(canvas, cells)
        state = canvas.rng.bit_generator.state
        border = divide(canvas, found, cells)
        canvas.rng.bit_generator.state = state
        expected = slow_division(canvas, found, cells)
        assert (canvas.owner == expected).mean() > 0.999  # float32 against float64
        assert (border >= 0).all()


def test_the_border_between_two_equal_cells_is_half_way():
    canvas = canvas_of((6, 40, 40))
    ends = [
        Seed(np.array([42.0, 280.0, x]), 100.0, np.array([0, 0, 1.0]), 1.0, i) for i, x in enumerate((0, 560))
    ]
    canvas.uniform = lambda low, high: low  # no warping along the way
    straight = Cells((1e-3, 1e-3))
    border = divide(canvas, ends, straight)
    middle = border[3, 20]
    assert np.array_equal(canvas.owner[3, 20], (np.arange(40) >= 20).astype(np.int32))
    assert middle.argmin() in (19, 20)
    assert middle[12] - middle[16] == pytest.approx(4 * 14.0, rel=0.05)


@pytest.mark.parametrize("half", [4.0, 7.0])
def test_a_membrane_has_its_thickness_at_any_slant(half):
    """Two equal seeds far away on both sides leave a plane between them."""
    edge, ink, label = 12.0, [], []
    for number in range(10):
        canvas = canvas_of((7, 40, 40), (edge,) * 3, number)
        axis = canvas.direction()
        middle = canvas.extent / 2 + canvas.uniform(-6, 6) * axis
        ends = [Seed(middle + side * 1e5 * axis, 100.0, axis, 1.0, i) for i, side in enumerate((-1, 1))]
        canvas.uniform = lambda low, high: low  # no warping along the way
        border = divide(canvas, ends, Cells((1e-3, 1e-3)))
        z, y, x = canvas.grid(canvas.whole())
        truth = np.abs(z * axis[0] + y * axis[1] + x * axis[2] - middle @ axis).astype(np.float32)
        ink.append([canvas.sheet(away, half).sum() for away in (border, truth)])
        label.append([(away < max(half, 0.55 * edge)).sum() for away in (border, truth)])
    for found, wanted in (np.sum(ink, axis=0), np.sum(label, axis=0)):
        assert found == pytest.approx(wanted, rel=0.05)


def test_distances_to_borders_do_not_jump():
    cells, edge = Cells((300, 1000), stretch=3.0), 12.0
    for number in range(2):
        canvas = canvas_of((24, 72, 72), (edge,) * 3, number)
        border = divide(canvas, seeds(canvas, cells), cells)[10:14, 12:-12, 12:-12]
        same = np.diff(canvas.owner[10:14, 12:-12, 12:-12], axis=2) == 0
        near = same & (border[..., 1:] < 100)  # nearer than the way out of the block
        assert np.abs(np.diff(border, axis=2))[near].max() < 3 * edge


def test_thin_processes_run_along_borders_and_have_borders_of_their_own():
    cells, shares, nearest = Cells((600, 2000)), [], []
    for seed in range(8):
        canvas = canvas_of((6, 96, 96), (12.0, 12.0, 12.0), seed=seed)
        before = divide(canvas, seeds(canvas, cells), cells)
        owner = canvas.owner.copy()
        after = wrap(canvas, before, 999)
        glia = canvas.owner == 999
        shares.append(glia.mean())
        assert np.array_equal(canvas.owner[~glia], owner[~glia])
        assert (after >= 0).all()
        if glia.any():
            assert before[glia].max() < 0.9 * before.max()  # not in the middle of the largest cell
            assert (before + after)[glia].min() >= THIN * 0.999  # half of a process
            across = glia[..., :-1] != glia[..., 1:]
            nearest.extend(np.minimum(after[..., :-1], after[..., 1:])[across])
    assert np.median(nearest) < 9.0
    assert 0.01 < np.mean(shares) < 0.4 and np.count_nonzero(shares) > 3


@pytest.mark.parametrize("name", ["gland", "culture", "epithelium"])
def test_a_nucleus_lies_in_one_cell_which_is_not_empty(name):
    kind = replace(KINDS[name], nucleus=1.0)
    shown = 0
    for seed in range(4):
        canvas = canvas_of((5, 64, 64), (24.0, 24.0, 24.0), seed)
        paint(canvas, kind)
        nucleus = canvas.labels == NUCLEUS
        assert len(np.unique(canvas.owner[nucleus])) <= 1
        shown += int(nucleus.sum() > 500)
    assert shown >= 2


def test_a_nucleus_and_a_trunk_have_cells_of_their_own():
    kind = replace(KINDS["loose"], nucleus=1.0, trunks=1.0, cells=Cells((900, 2000), joined=0.8, empty=1.0))
    for number in range(8):
        canvas = canvas_of(seed=number)
        found = _with_trunk(canvas, kind, seeds(canvas, kind.cells))
        assert [seed.cell for seed in found].count(found[-1].cell) == 1
        found, core = _with_nucleus(canvas, kind, found)
        assert core is not None and [seed.cell for seed in found].count(core.cell) == 1
        canvas.owner[...] = core.cell
        assert not _empty(canvas, kind, max(seed.cell for seed in found) + 1, core).any()


# Painting


def test_sheets_and_fills_cover_what_finer_voxels_say():
    canvas = canvas_of()
    distance = np.linspace(-40, 40, 161).astype(np.float32)
    fine = distance[:, None] + (np.arange(200) + 0.5) / 200 * 14.0 - 7.0
    for half in (3.0, 9.0, 25.0):
        assert np.allclose(canvas.sheet(distance, half), (np.abs(fine) < half).mean(axis=1), atol=0.01)
    assert np.allclose(canvas.fill(distance), (fine < 0).mean(axis=1), atol=0.01)


@pytest.mark.parametrize("grain", [10.0, 40.0, 300.0, (100.0, 30.0, 30.0)])
def test_noise_has_no_mean_and_unit_variance(grain):
    fields = [canvas_of((8, 64, 64), seed=seed).noise(grain) for seed in range(150)]
    assert abs(np.mean(fields)) < 0.15
    assert np.mean(np.square(fields)) == pytest.approx(1, abs=0.15)


def test_a_granule_is_a_ball_of_its_class():
    canvas = canvas_of((30, 40, 40), seed=5)
    canvas.image[...] = 0.7
    style = Style.draw(rng(1))
    place = np.array([210.0, 280.0, 290.0])
    spheres(canvas, style, GRANULE, 1, (150.0, 150.0), place, spread=0.0)
    voxels = np.stack(np.meshgrid(*canvas.axes, indexing="ij"), axis=-1)
    away = np.linalg.norm(voxels - place, axis=-1)
    ball = canvas.labels == GRANULE
    assert ball[away < 0.7 * 150].all() and not ball[away > 1.45 * 150].any()
    assert np.array_equal(canvas.room < 0, ball)
    assert not np.allclose(canvas.image[ball], 0.7)
    assert np.allclose(canvas.image[away > 1.45 * 150 + 20], 0.7)


def test_no_granule_is_cut_by_a_plane():
    """The outermost voxels of a ball along an axis are a small cap."""
    style, radius, edge = Style.draw(rng(1)), 250.0, 10.0
    for seed in range(15):
        canvas = canvas_of((80, 90, 90), (edge,) * 3, seed)
        spheres(canvas, style, GRANULE, 1, (radius, radius), canvas.extent / 2, spread=0.0)
        ball = canvas.labels == GRANULE
        for axis in range(3):
            area = ball.sum(axis=tuple({0, 1, 2} - {axis}))
            shown = np.flatnonzero(area)
            for cap in area[shown[[0, -1]]]:
                assert cap < 0.2 * area.max()


def two_cells(edge=9.0, seed=0):
    """Return a block of two cells, and the distance in nm from the flat border between them."""
    canvas = canvas_of((8, 64, 64), (edge,) * 3, seed)
    canvas.image[...] = 0.7
    x = np.broadcast_to(canvas.axes[2], canvas.shape)
    canvas.owner[...] = x > canvas.extent[2] / 2
    return canvas, np.abs(x - np.float32(canvas.extent[2] / 2))


@pytest.mark.parametrize("gap", [0.0, 20.0])
def test_densities_lie_inside_the_membranes(gap):
    style, shown, dark = Style.draw(rng(1)), 0, 0
    nothing = np.zeros((8, 64, 64), np.float32)
    for seed in range(12):
        canvas, border = two_cells(seed=seed)
        canvas.room[...] = border - gap / 2
        synapse(canvas, style, border, gap)
        plasma_membranes(canvas, style, border, gap, nothing)
        density = canvas.labels == SYNAPSE
        assert (border[density] > gap / 2 + style.membrane_half).all()
        shown += int(density.sum() > 50)
        dark += int((canvas.image[density] < 0.6).sum() > 0.9 * density.sum())
    assert shown >= 9 and dark == 12


def test_what_is_empty_is_labelled_outside_beside_a_nucleus_too(monkeypatch):
    kind = replace(KINDS["culture"], nucleus=1.0, cells=Cells((1000, 2000), gap=(5, 10), empty=0.5))
    seen = []

    def noted(canvas, style, empty, found=kinds._leave_empty):
        seen.append(empty > 0.5)
        found(canvas, style, empty)

    monkeypatch.setattr(kinds, "_leave_empty", noted)
    for number in range(10):
        canvas = canvas_of((5, 48, 48), (50.0, 50.0, 50.0), number)
        paint(canvas, kind)
        assert (canvas.labels[seen[-1]] == OUTSIDE).all()
    assert sum(int(empty.sum() > 100) for empty in seen) >= 2


@pytest.mark.parametrize("painted", [True, False])
def test_a_membrane_is_labelled_thick_where_it_is_painted_so(painted):
    style, wide = Style.draw(rng(1)), 0
    nothing = np.zeros((8, 64, 64), np.float32)
    for seed in range(5):
        canvas, border = two_cells(seed=seed)
        canvas.chance = lambda probability: painted
        canvas.uniform = lambda low, high: 25.0 if high == 25 else low  # as thick as can be, and often
        plasma_membranes(canvas, style, border, 0.0, nothing)
        thick = (canvas.labels == MEMBRANE) & (border > 14)
        wide += int(thick.sum())
        assert (canvas.image[thick] < 0.65).all()
    assert (wide > 100) == painted


@pytest.mark.parametrize("pixels", [20, 40])
def test_myelin_leaves_an_axon(pixels):
    style = Style.draw(rng(1))
    for seed in range(8):
        canvas = canvas_of((6, 64, 64), (9.0,) * 3, seed)
        away = np.sqrt(np.square(canvas.axes[1][:, None] - 288) + np.square(canvas.axes[2] - 288))
        cell = np.broadcast_to(away < 9 * pixels, canvas.shape)
        border = np.broadcast_to(np.abs(9 * pixels - away), canvas.shape).astype(np.float32)
        myelin(canvas, style, border, cell)
        share = (canvas.labels == MYELIN).sum() / cell.sum()
        assert 0.1 < share < 0.8
        assert not (canvas.labels[~cell] == MYELIN).any()


def test_mitochondria_stay_in_their_cell_and_apart():
    canvas = canvas_of((16, 96, 96), seed=2)
    cells = Cells((600.0, 1200.0))
    border = divide(canvas, seeds(canvas, cells), cells)
    canvas.room[...] = border
    style = Style.draw(rng(0))
    before = 0
    for _ in range(12):
        room = canvas.room.copy()
        mitochondrion(canvas, style)
        new = (canvas.labels == MITOCHONDRION) & (room > 0)
        assert (canvas.labels == MITOCHONDRION).sum() - before == new.sum()  # none is painted over another
        assert (border[new] > 0).all()
        assert len(np.unique(canvas.owner[new])) <= 1
        before += int(new.sum())
    assert before > 500


def test_a_section_is_the_mean_of_its_planes():
    image, labels = rng(0).random((12, 5, 5), dtype=np.float32), rng(1).integers(0, 11, (12, 5, 5), np.uint8)
    thick, classes = sectioned(image, labels, 3)
    assert np.allclose(thick, [image[i : i + 3].mean(axis=0) for i in range(0, 12, 3)])
    crossed = (labels == MEMBRANE).reshape(4, 3, 5, 5).any(axis=1) & (labels[1::3] != OUTSIDE)
    assert np.array_equal(classes, np.where(crossed, MEMBRANE, labels[1::3]))


def block(seed=0):
    return rng(seed).uniform(0.3, 0.7, (5, 40, 50)).astype(np.float32), np.zeros((5, 40, 50), np.uint8)


def test_a_padded_border_has_one_grey_and_is_outside():
    for seed in range(20):
        (image, labels), (before, _) = block(), block()
        padded(rng(seed), image, labels)
        blank = labels == OUTSIDE
        assert 0 < blank.mean() < 0.5 and (blank == blank[0]).all()
        assert len(np.unique(image[blank])) == 1 and image[blank][0] in (0, 1)
        assert np.array_equal(image[~blank], before[~blank])


def test_a_lost_section_is_a_copy_or_blank():
    blanks = 0
    for seed in range(20):
        (image, labels), (before, _) = block(), block()
        labels[...] = np.arange(5)[:, None, None]
        lost(rng(seed), image, labels)
        (changed,) = np.flatnonzero((image != before).any(axis=(1, 2)))
        if (labels[changed] == OUTSIDE).all():
            blanks += 1
            assert image[changed].std() == 0
        else:
            assert (
                np.array_equal(image[changed], before[changed - 1]) and (labels[changed] == changed - 1).all()
            )
    assert 0 < blanks < 20


def test_dirt_is_ragged_and_soft():
    shares = []
    for seed in range(30):
        plane = np.ones((60, 60), np.float32)
        _dirt(rng(seed), plane)
        dark = 1 - plane
        if dark[0].max() + dark[-1].max() + dark[:, 0].max() + dark[:, -1].max() == 0 and dark.max() > 0.2:
            rows, columns = (np.flatnonzero((dark > dark.max() / 2).any(axis=axis)) for axis in (1, 0))
            shares.append((dark > dark.max() / 2).sum() / (np.ptp(rows) + 1) / (np.ptp(columns) + 1))
            assert len(np.unique(np.round(dark, 4))) > 3
        assert plane.min() > 0.05
    assert len(shares) > 8 and np.mean(shares) < 0.9  # a rectangle fills all of its box


def test_counts_of_electrons_vary_as_their_root():
    image = np.repeat(np.array([0.2, 0.8], np.float32), 20_000).reshape(2, 100, 200)
    drawn = rng(0)
    drawn_once = iter([0.0])

    class Counting:
        uniform = staticmethod(lambda low, high: np.log(0.05))
        random = staticmethod(lambda: next(drawn_once))
        poisson = staticmethod(drawn.poisson)

    noise = _noise(Counting(), image)
    assert noise.mean() == pytest.approx(0, abs=1e-3)
    assert noise[0].std() == pytest.approx(0.05 * 0.2**0.5, rel=0.03)
    assert noise[1].std() == pytest.approx(0.05 * 0.8**0.5, rel=0.03)


def test_a_knife_scratches_one_section():
    for seed in range(5):
        plane = np.full((50, 60), np.float32(0.5))
        _knife(rng(seed), plane)
        assert 0.002 < (plane != 0.5).mean() < 0.6 and np.abs(plane - 0.5).max() <= 0.25 * 5
