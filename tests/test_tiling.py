"""Placements: every lattice point is written once, by the token whose patch is centred on it."""

import numpy as np
import pytest

from vemseg.errors import UsageError
from vemseg.tiling import Placement, interpolation, reflect, rescaled, slice_offsets

TEST_CELL = (545, 1082)
"""Rows and columns of a slice of MAESTER's test cell."""

COVER = [
    Placement(8 * patch, patch, kept * patch, 1) for patch in (3, 4, 5, 7, 8) for kept in (1, 2, 3, 4, 6, 8)
]
EXPAND = [Placement(40, 5, stride, 5) for stride in (5, 7, 10, 13, 20, 23, 33, 40)]
ONE_EACH = [
    Placement(fov, fov, stride, fov)
    for fov, stride in ((9, 1), (9, 2), (9, 4), (9, 9), (8, 1), (8, 2), (8, 3))
]
OTHER = [
    Placement(32, 8, 16, 2),
    Placement(32, 8, 24, 4),
    Placement(64, 4, 37, 4),
    Placement(5, 5, 5, 1),
    Placement(1, 1, 1, 1),
    Placement(11, 1, 1, 1),
    Placement(10, 2, 2, 2),
]
PLACEMENTS = COVER + EXPAND + ONE_EACH + OTHER
SIZES = (1, 2, 5, 17, 40, 83)


def name(placement):
    return f"fov{placement.fov}-patch{placement.patch}-stride{placement.stride}-shift{placement.shift}"


all_placements = pytest.mark.parametrize("placement", PLACEMENTS, ids=name)


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ((81, 5, 20, 1), "81 is not a multiple of the patch, 5"),
        ((80, 5, 4, 5), "stride 4 must lie between"),
        ((80, 5, 85, 5), "stride 85 must lie between the patch"),
        ((9, 9, 0, 9), "stride 0 must lie between 1 and"),
        ((9, 9, 10, 9), "stride 10 must lie between 1 and"),
        ((80, 5, 20, 2), "shift 2 does not divide the patch"),
        ((80, 5, 23, 1), "stride 23 must be a multiple of the patch"),
    ],
)
def test_what_does_not_fit_together_is_said(sizes, complaint):
    with pytest.raises(UsageError, match=complaint):
        Placement(*sizes)


def test_the_paper_keeps_the_central_four_tokens():
    assert Placement(80, 5, 20, 1).kept == slice(6, 10)
    assert Placement(80, 5, 40, 5).kept == slice(4, 12)
    assert Placement(80, 5, 80, 5).kept == slice(0, 16)


@pytest.mark.parametrize("placement", COVER, ids=name)
def test_cover_and_stride_keeps_as_many_tokens_as_asked_for(placement):
    kept, tokens = placement.kept, placement.fov // placement.patch
    assert (kept.stop - kept.start) * placement.patch == placement.stride
    assert abs(kept.start - (tokens - kept.stop)) <= 1


@all_placements
def test_each_lattice_point_is_written_once_by_the_token_centred_on_it(placement):
    for n in SIZES:
        lattice = placement.lattice(n)
        assert sorted(lattice.index.ravel()) == list(range(len(lattice)))
        for fov, start in enumerate(lattice.starts):
            for i, token in enumerate(range(placement.kept.start, placement.kept.stop)):
                patch = start + token * placement.patch + np.arange(placement.patch)
                assert lattice.positions[lattice.index[fov, i]] == patch.mean()


@all_placements
def test_the_lattice_reaches_over_the_volume_and_not_far_beyond(placement):
    for n in SIZES:
        lattice = placement.lattice(n)
        positions = lattice.positions
        assert np.all(np.diff(positions) > 0)
        assert -1 < positions[0] <= 0
        assert n - 1 <= positions[-1]
        phases = placement.patch // placement.shift
        without_last = np.delete(positions, lattice.index[-phases:].ravel())
        assert without_last.size == 0 or without_last[-1] < n - 1
        assert np.all(np.diff(lattice.starts) > 0)


@pytest.mark.parametrize("placement", COVER, ids=name)
def test_cover_and_stride_has_a_vector_for_every_voxel(placement):
    for n in SIZES:
        positions = placement.lattice(n).positions
        assert np.all(np.diff(positions) == 1)
        if placement.patch % 2:
            assert set(range(n)) <= set(positions)


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 6, 8])
def test_fields_of_view_of_cover_and_stride_are_where_the_formula_puts_them(kept):
    f, p, n = 80, 5, 47
    tokens, step = f // p, kept * p
    first_kept = (tokens - kept) // 2
    off = first_kept * p + p // 2
    lattice = Placement(f, p, step, 1).lattice(n)
    tops = [origin + phase - off for origin in range(0, n, step) for phase in range(p)]
    assert lattice.starts.tolist() == tops
    for top, places in zip(tops, lattice.index, strict=True):
        assert lattice.positions[places].tolist() == [top + off + a * p for a in range(kept)]


def fovs_per_slice(placement):
    rows, columns = (len(placement.lattice(n).starts) for n in TEST_CELL)
    return rows * columns


def test_fields_of_view_of_the_test_cell():
    assert fovs_per_slice(Placement(80, 5, 20, 1)) == 38_500
    expand = {stride: fovs_per_slice(Placement(80, 5, stride, 5)) for stride in (20, 40, 60, 80)}
    assert expand == {20: 1540, 40: 392, 60: 190, 80: 98}


@all_placements
def test_reaching_names_the_fields_of_view_that_write_there(placement):
    lattice = placement.lattice(60)
    m = len(lattice)
    for start, stop in [(0, 1), (0, m), (m - 1, m), (m // 2, min(m, m // 2 + 3))]:
        slow = [f for f, places in enumerate(lattice.index) if any(start <= p < stop for p in places)]
        assert lattice.reaching(start, stop).tolist() == slow


@all_placements
def test_inside_are_the_points_between_the_outermost_voxels(placement):
    for n in SIZES:
        lattice = placement.lattice(n)
        start, stop = lattice.inside()
        within = np.flatnonzero((lattice.positions >= 0) & (lattice.positions <= n - 1))
        assert 0 <= start < stop <= len(lattice)
        if within.size:
            assert (start, stop) == (within[0], within[-1] + 1)


@all_placements
def test_a_stride_holds_the_points_of_one_fov_at_all_its_shifts(placement):
    lattice = placement.lattice(10 * placement.fov)
    first = lattice.positions < lattice.positions[0] + placement.stride
    assert lattice.per_stride == first.sum()


def irregular(rng, m):
    return np.cumsum(rng.uniform(0.3, 4.0, m)) - 2.0


@pytest.mark.parametrize("m", [1, 2, 9])
def test_interpolation_is_numpys(m):
    rng = np.random.default_rng(m)
    positions, values = irregular(rng, m), rng.normal(size=m)
    rule = interpolation(positions, -4, 30)
    found = (
        values[rule.start :][rule.left] * (1 - rule.weight) + values[rule.start :][rule.right] * rule.weight
    )
    np.testing.assert_allclose(found, np.interp(np.arange(-4, 30), positions, values), atol=1e-6)


def test_interpolation_of_a_part_is_part_of_the_interpolation():
    positions = irregular(np.random.default_rng(0), 12)
    whole = interpolation(positions, 0, 25)
    for start in range(25):
        for stop in range(start + 1, 26):
            part = interpolation(positions, start, stop)
            for side in ("left", "right"):
                expected = getattr(whole, side)[start:stop] + whole.start
                np.testing.assert_array_equal(getattr(part, side) + part.start, expected)
            np.testing.assert_array_equal(part.weight, whole.weight[start:stop])
            assert part.start == (part.left + part.start).min()
            assert part.stop == (part.right + part.start).max() + 1


def test_a_voxel_on_a_lattice_point_needs_no_other():
    rule = interpolation(np.arange(0.0, 40.0), 7, 12)
    assert (rule.start, rule.stop) == (7, 12)
    assert not rule.weight.any()
    np.testing.assert_array_equal(rule.left, np.arange(5))


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.6, 2.0, 3.0])
def test_rescaling_keeps_the_outer_edge_in_place(factor):
    edges_of_working_voxels = np.arange(5) - 0.5
    np.testing.assert_allclose(rescaled(edges_of_working_voxels, factor), np.arange(5) * factor - 0.5)


@pytest.mark.parametrize("slices", [2, 4, 6, 8])
def test_slices_of_an_isotropic_slab_lie_about_the_middle_of_two_planes(slices):
    for spacing in ((1.0, 1.0, 1.0), (1.4, 1.0, 1.1), (1.0, 3.0, 1.0)):
        offsets = slice_offsets(slices, spacing)
        assert len(offsets) == slices
        assert np.mean(offsets) == 0.5
        assert set(np.diff(offsets)) == {1}


@pytest.mark.parametrize("slices", [2, 4, 6, 8])
@pytest.mark.parametrize("thick", [1.6, 2.5, 3.1, 10.0])
def test_slices_of_an_anisotropic_slab_are_the_sections_that_hold_them(slices, thick):
    offsets = slice_offsets(slices, (thick, 1.0, 1.0))
    places = np.arange(slices) - (slices - 1) / 2  # in short edges from the middle of the section
    assert np.all(np.abs(np.array(offsets) * thick - places) <= thick / 2)
    assert offsets == [-offset for offset in reversed(offsets)]
    if slices <= thick:
        assert offsets == [0] * slices


@pytest.mark.parametrize("slices", [1, 3, 7])
def test_an_odd_number_of_slices_has_the_plane_in_its_middle(slices):
    half = slices // 2
    assert slice_offsets(slices, (1.0, 1.0, 1.0)) == list(range(-half, half + 1))
    sections = slice_offsets(slices, (3.0, 1.0, 1.0))
    assert sections == [round(k / 3) for k in range(-half, half + 1)]


# Mirroring


def mirrored(index, n):
    while not 0 <= index < n:
        index = -index if index < 0 else 2 * (n - 1) - index
    return index


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_planes_are_mirrored_without_repeating_the_last(n):
    found = reflect(np.arange(-9, 16), n).tolist()
    assert found == [0 if n == 1 else mirrored(i, n) for i in range(-9, 16)]


def test_each_row_has_its_own_length():
    lengths = np.array([[1], [2], [7]])
    found = reflect(np.arange(-9, 16)[None], lengths)
    for row, n in zip(found, lengths[:, 0], strict=True):
        assert row.tolist() == reflect(np.arange(-9, 16), int(n)).tolist()
