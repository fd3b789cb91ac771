"""Refined labels: classes merged, named and cleaned, compared with slow versions on whole volumes."""

import csv
import json

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from vemseg.cli import parsing
from vemseg.context import Context
from vemseg.errors import InputError, Interrupted, OutputExistsError, UsageError
from vemseg.objects import Least, Refinement, blockwise
from vemseg.objects.absorbing import Pairs, homes
from vemseg.objects.majority import smoothed
from vemseg.pipeline.refine import refine
from vemseg.volume import LabelInfo, LabelStore, finish_labels, open_labels, open_volume, record

NAMES = {1: "nucleus", 2: "class 2", 3: "membrane", 4: "class 4", 5: "class 5"}
COLOURS = {k: (k, 2 * k, 3 * k) for k in NAMES}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Cut volumes into blocks of 16 x 16 x 16 voxels."""
    monkeypatch.setattr(blockwise, "SHAPES", ((16, 16, 16),))


def noise(shape=(20, 36, 33), classes=5, seed=0):
    """Return smooth random classes 1..K with specks in them."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.random(shape), 2)
    array = np.digitize(field, np.quantile(field, np.arange(1, classes) / classes)) + 1
    specks = rng.random(shape) < 0.02
    array[specks] = rng.integers(0, classes + 1, specks.sum())
    return array.astype(np.uint8)


def written(array, path, names=NAMES, voxel_size=(10.0, 10.0, 10.0)):
    """Write labels as segment does."""
    store = LabelStore.create(path.with_name(f"{path.name}.store"), array.shape, (32, 32, 64))
    for box in store.box.split(store.block_shape):
        store.write(box, array[box.slices])
    colours = {k: COLOURS[k] for k in names}
    classes = [{"label": k, "name": name, "voxels": int((array == k).sum())} for k, name in names.items()]
    about = {"kind": "segmentation", "recipe": "abc", "classes": classes}
    info = LabelInfo(voxel_size=voxel_size, start=(0, 3, 4), names=names, colours=colours, description=about)
    finish_labels(store, path, info)
    return path


def voxels(path):
    volume = open_volume(path)
    return volume.read(volume.box)


def done(array, tmp_path, refinement, voxel_size=(10.0, 10.0, 10.0), **more):
    """Refine an array through files; return the labels that come out."""
    path = written(array, tmp_path / "in.ome.zarr", voxel_size=voxel_size)
    return voxels(refine(open_labels(path), tmp_path / "out.ome.zarr", refinement, **more))


@pytest.mark.parametrize("suffix", [".tif", ".ome.zarr"])
def test_names_alone_change_no_voxel(suffix, tmp_path, monkeypatch):
    array = noise()
    path = written(array, tmp_path / f"in{suffix}")
    monkeypatch.setattr("vemseg.pipeline.refine.clean", None)  # no block is looked at
    out = refine(open_labels(path), tmp_path / f"out{suffix}", Refinement(names={2: "mitochondrion"}))
    np.testing.assert_array_equal(voxels(out), array)
    told, before = record(out), record(path)
    assert told["names"] == {str(k): v for k, v in (NAMES | {2: "mitochondrion"}).items()}
    assert told["colours"] == before["colours"] and told["origin_voxels"] == [0, 3, 4]
    assert told["refined_from"]["recipe"] == "abc" and told["kind"] == "refinement"
    assert record(path) == before
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert rows[1]["name"] == "mitochondrion" and int(rows[1]["voxels"]) == (array == 2).sum()
    if suffix == ".ome.zarr":
        chunks = [p.relative_to(path) for p in path.rglob("*") if p.is_file() and p.name != "zarr.json"]
        assert chunks and all((out / p).read_bytes() == (path / p).read_bytes() for p in chunks)


def test_merged_classes_stand_in_the_first_place_and_numbers_close_up(tmp_path):
    array = noise()
    refined = done(array, tmp_path, Refinement([((5, 2), "mitochondrion")], names={4: "golgi"}))
    np.testing.assert_array_equal(refined, np.array([0, 1, 2, 3, 4, 2])[array])
    told = record(tmp_path / "out.ome.zarr")
    assert told["names"] == {"1": "nucleus", "2": "mitochondrion", "3": "membrane", "4": "golgi"}
    assert told["colours"]["2"] == list(COLOURS[2]) and told["colours"]["4"] == list(COLOURS[4])
    assert [row["made_of"] for row in told["classes"]] == ["1", "2 5", "3", "4"]
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [int(row["voxels"]) for row in rows] == np.bincount(refined.ravel())[1:].tolist()
    assert float(rows[0]["volume_um3"]) == pytest.approx((array == 1).sum() * 1e-6, abs=1e-6)


def test_merging_without_a_name_keeps_the_one_that_is_known(tmp_path):
    done(noise(), tmp_path, Refinement([((2, 3), None)]))
    assert record(tmp_path / "out.ome.zarr")["names"]["2"] == "membrane"


def test_a_map_gives_numbers_as_they_are_said(tmp_path):
    array = noise()
    refined = done(array, tmp_path, Refinement(numbers={1: 300, 2: 0, 3: 4}))
    np.testing.assert_array_equal(refined, np.array([0, 300, 0, 4, 4, 5])[array])
    assert refined.dtype == np.uint16
    assert record(tmp_path / "out.ome.zarr")["names"] == {"4": "membrane", "5": "class 5", "300": "nucleus"}


def slow_majority(array, voters=(1, 1, 1)):
    """Count the votes of every voxel, one by one."""
    best = array.copy()
    for at in np.ndindex(array.shape):
        around = array[tuple(slice(max(0, i - far), i + far + 1) for i, far in zip(at, voters, strict=True))]
        votes = np.bincount(around.ravel())
        if votes[array[at]] < votes.max():
            best[at] = votes.argmax()
    return best


def test_smoothing_is_the_majority_of_the_neighbours_across_blocks(tmp_path):
    array = noise((18, 20, 19), seed=3)
    twice = slow_majority(slow_majority(array))
    np.testing.assert_array_equal(smoothed(array, 2), twice)
    assert (twice != array).any()
    np.testing.assert_array_equal(done(array, tmp_path, Refinement(smooth=2)), twice)


@pytest.mark.parametrize(
    ("voxel_size", "voters"),
    [((50, 4.6, 4.6), (0, 1, 1)), ((8, 8, 30), (1, 1, 0)), ((15, 12, 12), (1, 1, 1)), (None, (1, 1, 1))],
)
def test_only_the_sharp_plane_of_an_anisotropic_volume_votes(voxel_size, voters, tmp_path):
    array = noise((18, 20, 19), seed=3)
    twice = slow_majority(slow_majority(array, voters), voters)
    refined = done(array, tmp_path, Refinement(smooth=2), voxel_size)
    np.testing.assert_array_equal(refined, twice)


@pytest.mark.parametrize("tilt", [0, 30, 45])
def test_smoothing_keeps_membranes_that_run_aslant_through_thick_sections(tilt, tmp_path):
    shape, size = (12, 60, 200), (50.0, 4.6, 4.6)
    z, _, x = ((np.indices(shape).T + 0.5 - np.array(shape) / 2) * size).T
    across = x * np.cos(np.deg2rad(tilt)) + z * np.sin(np.deg2rad(tilt))
    membrane = np.where(np.abs(across) < 2.5 * 4.6, 3, 1).astype(np.uint8)
    refined = done(membrane, tmp_path, Refinement(smooth=1), size)
    assert (refined == 3)[:, 2:-2].sum() >= 0.99 * (membrane == 3)[:, 2:-2].sum() > 0


def test_labels_smoothed_across_thick_sections_are_made_anew(tmp_path):
    path = written(noise(), tmp_path / "in.ome.zarr", voxel_size=(50.0, 4.6, 4.6))
    out = refine(open_labels(path), tmp_path / "out.tif", Refinement(smooth=1))
    assert record(out)["state"]["voters"] == [0, 1, 1]
    told = json.loads((tmp_path / "out.json").read_text())
    del told["state"]["voters"]
    (tmp_path / "out.json").write_text(json.dumps(told))
    with pytest.raises(OutputExistsError, match="voters"):
        refine(open_labels(path), tmp_path / "out.tif", Refinement(smooth=1))


def test_no_speck_is_left_and_what_is_large_stays(tmp_path):
    array = noise(seed=5)
    refined = done(array, tmp_path, Refinement(least=Least(30)))
    for k in range(1, 6):
        before, _ = ndimage.label(array == k, np.ones((3, 3, 3)))
        after, n = ndimage.label(refined == k, np.ones((3, 3, 3)))
        assert n == 0 or np.bincount(after.ravel())[1:].min() >= 30
        large = np.flatnonzero(np.bincount(before.ravel()) >= 30)[1:]
        assert (refined[np.isin(before, large)] == k).all()
    assert (refined != array).sum() > 100


def test_a_speck_goes_where_it_touches_most_and_by_way_of_other_specks(tmp_path):
    array = np.full((16, 20, 40), 1, np.uint8)
    array[:, :, 20:] = 3
    array[8, 8, 18:20] = 2  # two voxels: eight faces with 1 and one with 3
    array[8, 14:17, 30:33] = 4  # nine voxels in 3
    array[8, 15, 31] = 5  # one voxel in the middle of them, beside 3 above and below
    array[7, 15, 31] = array[9, 15, 31] = 4  # and now beside other specks alone
    refined = done(array, tmp_path, Refinement(least=Least(12)))
    expected = np.where(np.indices(array.shape)[2] < 20, 1, 3)
    np.testing.assert_array_equal(refined, expected)


def slow_contacts(numbers, voxel_size):
    """Return the area that objects share, {object: {other: area}}, from faces counted one by one."""
    area = {}
    for axis in range(3):
        lines = np.moveaxis(numbers, axis, 0)
        for a, b in zip(lines[:-1].ravel().tolist(), lines[1:].ravel().tolist(), strict=True):
            for one, other in ((a, b), (b, a)) if a != b else ():
                shared = area.setdefault(one, {})
                shared[other] = shared.get(other, 0) + np.prod(voxel_size) / voxel_size[axis]
    return area


def largest(shared):
    """Return the key of the largest area; of equal ones the smallest key."""
    return min(shared, key=lambda key: (-round(shared[key], 6), key))


def slow_home(around, home, classes):
    """Return the object that a speck goes to, or None where nothing beside it has a home yet."""
    objects, by_class = {}, {}
    for other in around.keys() & home.keys():
        objects[home[other]] = objects.get(home[other], 0) + around[other]
    for other, area in objects.items():
        by_class[classes[other]] = by_class.get(classes[other], 0) + area
    best = largest(by_class) if by_class else None
    return largest({k: v for k, v in objects.items() if classes[k] == best}) if by_class else None


def slow_absorption(array, least, voxel_size):
    """Give specks to their neighbours, as the documents say."""
    numbers, classes = np.zeros(array.shape, int), [0]
    for k in range(1, 6):
        parts, _ = ndimage.label(array == k, np.ones((3, 3, 3)))
        found, first = np.unique(parts, return_index=True)
        for part in found[np.argsort(first)][found[np.argsort(first)] > 0]:
            numbers[parts == part] = len(classes)
            classes.append(k)
    voxels, area = np.bincount(numbers.ravel()), slow_contacts(numbers, voxel_size)
    home = {i: i for i in range(len(classes)) if i == 0 or voxels[i] >= least}
    while True:
        found = {i: slow_home(around, home, classes) for i, around in area.items() if i not in home}
        new = {i: to for i, to in found.items() if to is not None}
        if not new:
            return np.array([classes[home.get(i, 0)] for i in range(len(classes))])[numbers]
        home |= new


@pytest.mark.parametrize("voxel_size", [(10.0, 10.0, 10.0), (50.0, 4.5, 4.5), (5.0, 40.0, 10.0)])
def test_specks_go_to_the_class_that_they_share_the_largest_area_with(voxel_size, tmp_path):
    array = noise((20, 25, 33), seed=6)
    refined = done(array, tmp_path, Refinement(least=Least(30)), voxel_size)
    np.testing.assert_array_equal(refined, slow_absorption(array, 30, voxel_size))


def test_a_flat_speck_goes_where_its_border_is_largest_in_nm(tmp_path):
    array = np.ones((9, 40, 40), np.uint8)
    array[4], array[4, 10:20, 10:20] = 2, 3  # 200 faces with 1 above and below, 40 with 2 around it
    for name, voxel_size, expected in (
        ("flat", (50.0, 4.6, 4.6), 2),
        ("bare", None, 1),
        ("tall", (5, 50, 50), 1),
    ):
        (tmp_path / name).mkdir()
        refined = done(array, tmp_path / name, Refinement(least=Least(150)), voxel_size)
        assert (refined[4, 10:20, 10:20] == expected).all()
        state = record(tmp_path / name / "out.ome.zarr")["state"]
        assert ("specks" in state) == (name != "bare")


def test_specks_without_a_neighbour_become_nothing(tmp_path):
    array = np.zeros((5, 5, 5), np.uint8)
    array[2, 2, 2], array[2, 2, 3] = 1, 2
    assert not done(array, tmp_path, Refinement(least=Least(9))).any()


def test_a_home_is_never_an_object_that_has_none():
    classes, loose = np.array([0, 1, 2, 3, 1]), np.array([False, False, True, True, False])
    faces = np.array([3, 9, 4, 9])[:, None] * [0, 1, 0]
    pairs = Pairs(np.array([2, 2, 2, 3]), np.array([1, 3, 4, 2]), faces)
    assert homes(classes, loose, pairs).tolist() == [0, 1, 4, 4, 4]


def test_holes_are_filled_where_one_class_surrounds_them(tmp_path):
    array = np.zeros((40, 40, 40), np.uint8)
    array[4:36, 4:36, 4:36] = 2
    array[8:14, 8:14, 8:14] = 0  # a hole
    array[10, 10, 10] = 4  # a speck in it
    array[20:30, 20:30, 20:30] = 0  # a hole that
    array[20:30, 20:30, 25:] = np.where(array[20:30, 20:30, 25:] == 0, 3, 2)  # meets two classes
    array[8:14, 24:28, 0:10] = 0  # a bay
    array[35, 35, 35] = 0  # a corner that is open
    expected = array.copy()
    expected[8:14, 8:14, 8:14] = 2
    refined = done(array, tmp_path, Refinement(fill=True, least=Least(5)))
    np.testing.assert_array_equal(refined, expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_holes_of_a_single_image_are_filled(axis, tmp_path):
    image = np.zeros((40, 40), np.uint8)
    image[4:36, 4:36] = 2
    image[8:14, 8:20] = 0  # a hole, across a border of blocks
    image[20:24, 30:] = 0  # a bay
    expected = image.copy()
    expected[8:14, 8:20] = 2
    refined = done(np.expand_dims(image, axis), tmp_path, Refinement(fill=True))
    np.testing.assert_array_equal(refined, np.expand_dims(expected, axis))
    assert record(tmp_path / "out.ome.zarr")["state"]["borders"] == [
        name for name in "zyx" if name != "zyx"[axis]
    ]


def test_a_mask_empties_what_lies_outside_even_after_holes_are_filled(tmp_path):
    array = np.zeros((20, 30, 30), np.uint8)
    array[2:18, 2:28, 2:28] = 1
    array[6:9, 6:9, 6:9] = 0
    mask = np.ones(array.shape, np.uint8)
    mask[12:15, 12:15, 12:15] = 0
    mask[:, :, 25:] = 0
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    refined = done(array, tmp_path, Refinement(fill=True), mask=str(tmp_path / "mask.tif"))
    expected = array * mask
    expected[6:9, 6:9, 6:9] = 1
    np.testing.assert_array_equal(refined, expected)
    tifffile.imwrite(tmp_path / "other.tif", mask[:10])
    with pytest.raises(InputError, match="shape"):
        done(array, tmp_path / "again", Refinement(fill=True), mask=str(tmp_path / "other.tif"))


def test_labels_of_others_are_refined_too(tmp_path):
    array = noise()
    tifffile.imwrite(tmp_path / "in.tif", array)
    out = refine(open_labels(tmp_path / "in.tif"), tmp_path / "out.tif", Refinement(names={3: "golgi"}))
    np.testing.assert_array_equal(tifffile.imread(out), array)
    assert record(out)["names"]["3"] == "golgi"
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert rows[2]["name"] == "golgi" and rows[2]["volume_um3"] == ""


def test_what_was_done_is_recorded_and_not_done_twice(tmp_path):
    path = written(noise(), tmp_path / "in.tif")
    wanted = Refinement([((1, 4), None)], least=Least(0.00003, cubic_um=True))
    out = refine(open_labels(path), tmp_path / "out.tif", wanted)
    about = json.loads((tmp_path / "out.json").read_text())
    assert about["state"]["refined"]["min_size"] == {"value": 0.00003, "cubic_um": True}
    assert about["inputs"][0]["path"].endswith("in.tif") and about["refined_from"]["recipe"] == "abc"
    before = out.stat().st_mtime_ns
    refine(open_labels(path), out, wanted)
    assert out.stat().st_mtime_ns == before
    again = refine(open_labels(out), tmp_path / "again.tif", Refinement(names={1: "cell"}))
    assert record(again)["refined_from"]["refined_from"]["recipe"] == "abc"
    assert (tmp_path / "again.csv").read_text().splitlines()[1].startswith("1,cell,")


def test_work_that_was_stopped_goes_on(tmp_path):
    array = noise(seed=7)
    path, wanted = written(array, tmp_path / "in.tif"), Refinement(smooth=1, fill=True, least=Least(20))
    whole = refine(open_labels(path), tmp_path / "whole.tif", wanted)
    for stop_after in (2, 25, 50):
        asked = iter(range(1000))
        stopping = Context(stopped=lambda asked=asked, n=stop_after: next(asked) >= n)
        with pytest.raises(Interrupted):
            refine(open_labels(path), tmp_path / "out.tif", wanted, context=stopping)
    refine(open_labels(path), tmp_path / "out.tif", wanted)
    np.testing.assert_array_equal(voxels(tmp_path / "out.tif"), voxels(whole))
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize(
    ("refinement", "error", "message"),
    [
        (Refinement([((2, 9), None)]), InputError, "--merge: there is no class 9; the labels have 1, 2, 3"),
        (Refinement(names={7: "x"}), InputError, "--names: there is no class 7"),
        (Refinement(numbers={8: 1}), InputError, "--map: there is no class 8"),
        (Refinement(numbers={1: 70000}), UsageError, "--map: 70000 is not the number of a class"),
        (Refinement([((1, 2), None), ((2, 3), None)]), UsageError, "class 2 is merged or renumbered twice"),
        (Refinement([((1, 2), None)], {1: 3}), UsageError, "class 1 is merged or renumbered twice"),
        (Refinement([((0, 2), None)]), UsageError, "--merge: 0 is nothing"),
        (Refinement(least=Least(0.1, cubic_um=True)), UsageError, "the labels have no voxel size"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(refinement, error, message, tmp_path):
    path = written(noise(), tmp_path / "in.ome.zarr", voxel_size=None)
    with pytest.raises(error, match=message):
        refine(open_labels(path), tmp_path / "out.ome.zarr", refinement)
    assert [p.name for p in tmp_path.iterdir()] == ["in.ome.zarr"]


def test_options_are_read_or_refused_in_words():
    assert parsing.merges(["2,5=mitochondrion", "1,3"]) == [((2, 5), "mitochondrion"), ((1, 3), None)]
    assert parsing.least("500") == (500, False) and parsing.least("20 voxels") == (20, False)
    assert parsing.least("0.01um3") == parsing.least(".01µm^3") == parsing.least("0.010 um³") == (0.01, True)
    for text in ("2=x", "2,5=", "a,b"):
        with pytest.raises(UsageError, match=r"not a merge|not a label"):
            parsing.merges([text])
    for text in ("", "0", "1.5", "3nm3", "-4"):
        with pytest.raises(UsageError, match="not a size: write 500"):
            parsing.least(text)


def test_a_volume_in_cubic_microns_is_rounded_up():
    assert Least(0.001, cubic_um=True).voxels((10.0, 10.0, 10.0)) == 1000
    assert Least(0.0010001, cubic_um=True).voxels((10.0, 10.0, 10.0)) == 1001


def test_a_label_that_the_file_does_not_list_is_not_lost(tmp_path):
    path = written(noise(), tmp_path / "in.ome.zarr", names={1: "a", 2: "b", 3: "c", 4: "d"})
    with pytest.raises(InputError, match="holds the label 5, which its own list of classes lacks"):
        refine(open_labels(path), tmp_path / "out.ome.zarr", Refinement([((1, 2), None)]))


def test_a_record_of_somebody_else_is_no_trouble(tmp_path):
    told = {"names": {"x": "a", "2": 3, "1": "soma"}, "colours": {"1": [1, 2], "2": None}, "classes": [7, {}]}
    info = {"Info": json.dumps(told), "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "in.tif", np.ones((5, 9, 9), np.uint8), imagej=True, metadata=info)
    out = refine(open_labels(tmp_path / "in.tif"), tmp_path / "out.tif", Refinement(names={1: "nucleus"}))
    assert record(out)["names"] == {"1": "nucleus"} and not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("least", [None, Least(20)])
def test_killed_after_the_store_became_the_labels_it_goes_on_to_the_same(tmp_path, monkeypatch, least):
    path = written(noise(), tmp_path / "in.ome.zarr")
    wanted = Refinement(smooth=1, least=least)
    expected = voxels(refine(open_labels(path), tmp_path / "whole.ome.zarr", wanted))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr("vemseg.pipeline.refine.write_json", killed)
        refine(open_labels(path), tmp_path / "out.ome.zarr", wanted)
    out = refine(open_labels(path), tmp_path / "out.ome.zarr", wanted)
    np.testing.assert_array_equal(voxels(out), expected)
