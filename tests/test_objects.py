"""Objects and what is measured of them: phantoms computed by hand, and slow obvious versions."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from vemseg.context import Context
from vemseg.errors import InputError, Interrupted, OutputExistsError, ResourceError, UsageError
from vemseg.geometry import Box
from vemseg.objects import (
    Asked,
    Measures,
    Wish,
    begin,
    blockwise,
    components,
    connecting,
    counting,
    crofton,
    find_objects,
    paint,
)
from vemseg.pipeline.objects import objects
from vemseg.volume import ArrayVolume, open_labels, open_volume

ISOTROPIC, FLAT = (10.0, 10.0, 10.0), (30.0, 10.0, 10.0)


ALL = Wish()


def found_in(array, folder, wish=ALL, voxel_size=ISOTROPIC):
    """Return the objects of an array and the volume of their numbers."""
    volume = ArrayVolume(array, voxel_size)
    folder.mkdir(exist_ok=True)
    found = find_objects(volume, folder, wish, Context())
    store = begin(folder / "objects", volume, "uint32", found.blocks.shape)
    paint(found, store, Context())
    return found, store.read(store.box)


def measured(array, folder, voxel_size=ISOTROPIC):
    found, _ = found_in(array, folder, voxel_size=voxel_size)
    return Measures.of(found, {}, voxel_size, None).columns


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut volumes into blocks of 16 x 16 x 16 voxels."""
    monkeypatch.setattr(blockwise, "SHAPES", ((16, 16, 16),))


def ball(shape, centre, semi_axes):
    grid = np.indices(shape).T - np.array(centre)
    return (((grid / semi_axes) ** 2).sum(-1) <= 1).T.astype(np.uint8)


@pytest.fixture(params=["installed", "scikit-image alone"])
def library(request, monkeypatch):
    """Find components by whatever is installed, and without connected-components-3d."""
    if request.param != "installed":
        monkeypatch.setitem(sys.modules, "cc3d", None)
    connecting._library.cache_clear()
    yield
    connecting._library.cache_clear()


def slow_objects(array, wanted=None):
    """Number the objects as the documents say, by flooding the whole volume at once, class by class."""
    numbers, n = np.zeros(array.shape, np.uint32), 0
    for k in np.unique(array[array > 0]):
        if wanted and k not in wanted:
            continue
        parts, count = ndimage.label(array == k, np.ones((3, 3, 3)))
        firsts = [np.flatnonzero(parts.ravel() == i)[0] for i in range(1, count + 1)]
        for i in np.argsort(firsts):
            n += 1
            numbers[parts == i + 1] = n
    return numbers


@pytest.mark.parametrize("shape", [(37, 33, 20), (1, 40, 35), (16, 16, 48)])
def test_objects_are_those_of_the_whole_volume(shape, tmp_path, small_blocks, library):
    noise = np.random.default_rng(1).random(shape)
    array = np.digitize(ndimage.gaussian_filter(noise, 0.8), [0.42, 0.5, 0.56]).astype(np.uint8)
    found, numbers = found_in(array, tmp_path)
    slow = slow_objects(array)
    assert len(found.classes) == slow.max() > 20
    np.testing.assert_array_equal(numbers, slow)
    assert found.bodies.voxels.tolist() == np.bincount(slow.ravel())[1:].tolist()


def test_moments_are_exact_in_every_block_and_slab(tmp_path, monkeypatch, small_blocks):
    """Sums over voxels one by one, and sums over runs in slabs of two planes, are the same whole numbers."""
    monkeypatch.setattr(counting, "SLAB", 512)
    array = np.random.default_rng(7).integers(0, 3, (19, 33, 40)).astype(np.uint8)
    found, numbers = found_in(array, tmp_path)
    at, owner = np.nonzero(numbers), numbers[numbers > 0] - 1
    n, flat = len(found.classes), np.flatnonzero(numbers)
    for k, axis in enumerate(at):
        sums, low, high = np.zeros(n, np.int64), np.full(n, 99), np.zeros(n, np.int64)
        np.add.at(sums, owner, axis)
        np.minimum.at(low, owner, axis)
        np.maximum.at(high, owner, axis + 1)
        for fast, slow in ((found.bodies.sums, sums), (found.bodies.low, low), (found.bodies.high, high)):
            np.testing.assert_array_equal(fast[:, k], slow)
    for k, (i, j) in enumerate(counting.PRODUCTS):
        slow = np.zeros(n, np.int64)
        np.add.at(slow, owner, at[i] * at[j])
        np.testing.assert_array_equal(found.bodies.products[:, k], slow)
    np.testing.assert_array_equal(found.bodies.first, flat[np.unique(owner, return_index=True)[1]])


def test_classes_far_apart_are_counted_without_a_table_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "SLAB", 64)
    small = np.random.default_rng(8).integers(0, 4, (6, 7, 8))
    for name, numbers in (("near", [0, 1, 2, 3]), ("far", [0, 1, 700, 65535])):
        found, _ = found_in(np.array(numbers, np.uint16)[small], tmp_path / name)
        if name == "near":
            near, known = found.contacts, {-1: -1, 0: 0, 1: 1, 2: 700, 3: 65535}
    assert [known[k] for k in near.other.tolist()] == found.contacts.other.tolist()
    np.testing.assert_array_equal(near.crossings, found.contacts.crossings)


def test_only_the_wanted_classes_become_objects(tmp_path, small_blocks):
    array = np.random.default_rng(2).integers(0, 9, (20, 20, 20)).astype(np.int16) - 1
    found, numbers = found_in(array, tmp_path, Wish((3, 7)))
    np.testing.assert_array_equal(numbers, slow_objects(array, (3, 7)))
    assert set(found.classes) == {3, 7} and set(found.contacts.other) == {*range(-1, 8)}


def test_neither_blocks_nor_memory_change_the_table(tmp_path, monkeypatch):
    noise = np.random.default_rng(3).random((40, 36, 50))
    array = np.digitize(ndimage.gaussian_filter(noise, 1.5), [0.48, 0.52]).astype(np.uint8)
    tables = []
    for shape in ((64, 64, 64), (16, 16, 16), (8, 32, 16)):
        monkeypatch.setattr(blockwise, "SHAPES", (shape,))
        tables.append(measured(array, tmp_path / str(shape[0]), FLAT))
    for other in tables[1:]:
        for name, values in tables[0].items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)


def test_a_torus_across_blocks_is_one_object(tmp_path, small_blocks):
    z, y, x = np.indices((24, 64, 64)) - np.array([12.3, 32.2, 31.7])[:, None, None, None]
    torus = ((np.hypot(y, x) - 20) ** 2 + z**2 <= 49).astype(np.uint8)
    columns = measured(torus, tmp_path)
    assert len(columns["object"]) == 1
    volume, surface = 2 * np.pi**2 * 200 * 70**2 / 1e9, 4 * np.pi**2 * 200 * 70 / 1e6
    assert columns["volume_um3"][0] == pytest.approx(volume, rel=0.02)
    assert columns["surface_um2"][0] == pytest.approx(surface, rel=0.02)
    assert [columns[f"centre_{axis}"][0] for axis in "zyx"] == pytest.approx([12.3, 32.2, 31.7], abs=0.05)


@pytest.mark.parametrize("radius", [8, 15.5, 24])
def test_a_ball_has_its_volume_and_surface(radius, tmp_path):
    edge = int(2 * radius + 8)
    columns = measured(ball((edge, edge, edge), [edge / 2 + 0.2] * 3, [radius] * 3), tmp_path)
    r = radius / 100
    assert columns["volume_um3"][0] == pytest.approx(4 / 3 * np.pi * r**3, rel=0.02)
    assert columns["surface_um2"][0] == pytest.approx(4 * np.pi * r**2, rel=0.02)
    assert columns["sphericity"][0] == pytest.approx(1, abs=0.02)
    assert columns["axis_1_um"][0] == pytest.approx(2 * r, rel=0.01)
    assert columns["contact_nothing_um2"][0] == pytest.approx(columns["surface_um2"][0])


def test_a_ball_of_flat_voxels_is_a_ball(tmp_path):
    columns = measured(ball((20, 56, 56), (10, 28, 28), (8, 24, 24)), tmp_path, FLAT)
    assert columns["volume_um3"][0] == pytest.approx(4 / 3 * np.pi * 0.24**3, rel=0.02)
    assert columns["surface_um2"][0] == pytest.approx(4 * np.pi * 0.24**2, rel=0.02)
    assert [columns[f"axis_{i}_um"][0] for i in (1, 2, 3)] == pytest.approx([0.48] * 3, rel=0.02)


def test_an_ellipsoid_has_its_axes(tmp_path):
    columns = measured(ball((72, 40, 32), (35, 20, 16), (30, 16, 10)), tmp_path)
    assert [columns[f"axis_{i}_um"][0] for i in (1, 2, 3)] == pytest.approx([0.6, 0.32, 0.2], rel=0.01)
    for i, along in enumerate("zyx", start=1):
        direction = {axis: columns[f"axis_{i}_{axis}"][0] for axis in "zyx"}
        assert direction[along] == pytest.approx(1, abs=1e-3)
    assert [columns[f"{axis}_start"][0] for axis in "zyx"] == [5, 4, 6]
    assert [columns[f"{axis}_stop"][0] for axis in "zyx"] == [66, 37, 27]
    assert columns["touches_border"][0] == 0


def test_crossings_count_every_pair_of_neighbours(tmp_path, small_blocks):
    array = np.random.default_rng(4).integers(0, 4, (19, 17, 18)).astype(np.uint8)
    found, numbers = found_in(array, tmp_path)
    padded = np.pad(array.astype(int), 1, constant_values=-1)
    slow = {}
    for at in zip(*np.nonzero(numbers), strict=True):
        for i, step in enumerate(crofton.STEPS):
            for way in (1, -1):
                other = padded[tuple(a + 1 + way * s for a, s in zip(at, step, strict=True))]
                if other != array[at]:
                    key = (int(numbers[at]), int(other), i)
                    slow[key] = slow.get(key, 0) + 1
    contacts = found.contacts
    fast = {
        (int(component), int(other), i): int(n)
        for component, other, row in zip(contacts.component, contacts.other, contacts.crossings, strict=True)
        for i, n in enumerate(row)
        if n
    }
    assert fast == slow


def test_contacts_add_up_to_the_surface_and_are_mutual(tmp_path):
    array = np.ones((30, 40, 40), np.uint8)
    array[ball(array.shape, (15, 20, 20), (10, 10, 10)) > 0] = 2
    array[:, :, :4] = 0
    columns = measured(array, tmp_path, FLAT)
    met = [name for name in columns if name.startswith("contact_")]
    assert met == ["contact_border_um2", "contact_nothing_um2", "contact_class_1_um2", "contact_class_2_um2"]
    np.testing.assert_allclose(sum(columns[name] for name in met), columns["surface_um2"])
    assert columns["contact_class_2_um2"][0] == pytest.approx(columns["contact_class_1_um2"][1])
    assert columns["touches_border"].tolist() == [1, 0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_object_of_a_single_image_touches_its_sides_alone(axis, tmp_path, small_blocks):
    image = np.zeros((30, 40), np.uint8)
    image[5:12, 5:30], image[20:25, 35:] = 1, 2
    array = np.expand_dims(image, axis)
    assert measured(array, tmp_path)["touches_border"].tolist() == [0, 1]
    whole = measured(np.ones((1, 1, 5), np.uint8), tmp_path / "line")
    assert whole["touches_border"].tolist() == [1]


def test_one_voxel_is_an_object(tmp_path):
    array = np.zeros((3, 3, 3), np.uint8)
    array[1, 1, 1] = 5
    columns = measured(array, tmp_path, FLAT)
    assert columns["class"].tolist() == [5] and columns["voxels"].tolist() == [1]
    assert columns["axis_1_um"][0] == pytest.approx(2 * np.sqrt(5 / 12) * 0.03)
    assert columns["surface_um2"][0] > 0


def test_areas_of_crossings_give_the_mean_of_all_directions():
    """Every direction has a share of the sphere, so the areas make the mean surface of a plane right."""
    rng = np.random.default_rng(0)
    normals = rng.standard_normal((20000, 3))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    for size in (ISOTROPIC, FLAT, (4.0, 9.0, 17.0)):
        along = np.array(crofton.STEPS) * size
        crossings = np.abs(normals @ along.T) / np.prod(size)  # of a plane of unit area, by each direction
        estimates = crossings @ crofton.areas_of_crossings(size)
        assert estimates.mean() == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize(
    ("size", "planes", "most", "tubes"),
    [
        ((15.0, 15.0, 15.0), (0.93, 0.93), 1.02, (0.98, 0.98)),
        ((30.0, 8.0, 8.0), (0.81, 0.87), 1.10, (0.90, 0.97)),
        ((50.0, 4.6, 4.6), (0.69, 0.85), 1.10, (0.89, 0.94)),
    ],
)
def test_planes_and_tubes_come_out_as_small_as_the_documents_say(size, planes, most, tubes):
    """docs/usage.md has these figures; the first of two is across z, or along it."""
    along, areas = np.array(crofton.STEPS) * size, crofton.areas_of_crossings(size)

    def estimated(normals):
        return np.abs(normals @ along.T) @ areas / np.prod(size)

    rng = np.random.default_rng(0)
    normals = rng.standard_normal((20000, 3))
    spread = estimated(normals / np.linalg.norm(normals, axis=1)[:, None])
    assert spread.max() == pytest.approx(most, abs=0.005) and spread.min() > planes[0] - 0.005
    assert estimated(np.eye(3)) == pytest.approx([planes[0], planes[1], planes[1]], abs=0.005)
    turn = np.linspace(0, 2 * np.pi, 3600, endpoint=False)
    for axis, expected in enumerate((tubes[0], tubes[1], tubes[1])):
        around = np.insert(np.stack([np.cos(turn), np.sin(turn)], axis=1), axis, 0, axis=1)
        assert estimated(around).mean() == pytest.approx(expected, abs=0.006)


@pytest.fixture
def labels(tmp_path):
    """Write labels of two balls that touch, and a third one of another class."""
    array = ball((24, 48, 48), (12, 14, 14), (9, 9, 9)) | ball((24, 48, 48), (12, 14, 32), (9, 9, 9))
    array[ball(array.shape, (12, 36, 24), (8, 8, 8)) > 0] = 3
    path = tmp_path / "labels.tif"
    tifffile.imwrite(
        path, array, imagej=True, resolution=(0.1, 0.1), metadata={"spacing": 10, "unit": "nm", "axes": "ZYX"}
    )
    return path


@pytest.mark.parametrize("name", ["o.tif", "o.ome.zarr"])
def test_the_command_writes_objects_a_table_and_their_origin(name, labels, tmp_path, small_blocks):
    out = objects(open_labels(labels), tmp_path / name, names={3: "lysosome"})
    volume = open_volume(out)
    assert volume.dtype == np.uint32 and volume.voxel_size == (10, 10, 10)
    truth = slow_objects(tifffile.imread(labels))
    np.testing.assert_array_equal(volume.read(volume.box), truth)
    rows = list(csv.DictReader((tmp_path / "o.csv").read_text().splitlines()))
    assert [row["name"] for row in rows][-1] == "lysosome"
    assert [int(row["voxels"]) for row in rows] == np.bincount(truth.ravel())[1:].tolist()
    about = json.loads((tmp_path / "o.json").read_text())
    assert about["kind"] == "objects" and about["objects"] == len(rows)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "labels.tif", "o.csv", "o.json"])
    before = (tmp_path / "o.csv").stat().st_mtime_ns
    objects(open_labels(labels), out, names={3: "lysosome"})
    assert (tmp_path / "o.csv").stat().st_mtime_ns == before
    with pytest.raises(OutputExistsError, match="made otherwise"):
        objects(open_labels(labels), out)


def test_the_table_is_written_as_parquet_too(labels, tmp_path, small_blocks):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = objects(open_labels(labels), tmp_path / "o.tif", names={3: "lysosome"}, asked=Asked(parquet=True))
    columns = parquet.read_table(tmp_path / "o.parquet").to_pydict()
    with (tmp_path / "o.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(columns) == list(rows[0]) and len(columns["object"]) == len(rows) == 2
    for name, values in columns.items():
        written = [row[name] for row in rows]
        assert written == (
            values if name == "name" else [f"{v:.6g}" if isinstance(v, float) else str(v) for v in values]
        )
    objects(open_labels(labels), out, names={3: "lysosome"}, asked=Asked(parquet=True))
    with pytest.raises(OutputExistsError, match="exists and was made otherwise"):
        objects(open_labels(labels), out, names={3: "lysosome"}, asked=Asked(["3"]))
    objects(open_labels(labels), out, overwrite=True)
    assert not (tmp_path / "o.parquet").exists()


def test_parquet_that_cannot_be_written_is_refused_before_work(labels, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        InputError, match=r"--parquet needs pyarrow; install the extra tables: pip install '\.\[tables\]'"
    ):
        objects(open_labels(labels), tmp_path / "o.tif", asked=Asked(parquet=True))
    assert not (tmp_path / "o.tif.partial").exists()


def test_without_a_voxel_size_only_voxels_are_counted(tmp_path, caplog):
    tifffile.imwrite(tmp_path / "l.tif", np.eye(9, dtype=np.uint8)[None])
    objects(open_labels(tmp_path / "l.tif"), tmp_path / "o.tif")
    heads = (tmp_path / "o.csv").read_text().splitlines()[0].split(",")
    assert "voxels" in heads and not [head for head in heads if "_um" in head or "nm" in head]
    said = [line for line in caplog.messages if "voxel size unknown" in line]
    assert said == ["l: voxel size unknown, so everything is counted in voxels"]
    objects(open_labels(tmp_path / "l.tif", voxel_size="8"), tmp_path / "sized.tif")
    assert "volume_um3" in (tmp_path / "sized.csv").read_text()


def test_a_name_of_a_class_without_objects_is_said(labels, tmp_path, caplog):
    objects(open_labels(labels), tmp_path / "o.tif", names={3: "lysosome", 9: "golgi"})
    said = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert said == ["labels: no object is of class 9, which --names calls 'golgi'"]


def test_a_volume_without_objects_has_an_empty_table(tmp_path):
    tifffile.imwrite(tmp_path / "l.tif", np.zeros((5, 9, 9), np.uint8))
    objects(open_labels(tmp_path / "l.tif", voxel_size="8"), tmp_path / "o.tif")
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 1
    assert not tifffile.imread(tmp_path / "o.tif").any()


def test_what_cannot_be_is_refused_in_one_line(labels, tmp_path, monkeypatch):
    volume = open_labels(labels)
    with pytest.raises(InputError, match="there is no class 'golgi': the labels have 1, 3"):
        objects(volume, tmp_path / "o.tif", asked=Asked(["golgi"]))
    with pytest.raises(UsageError, match="is an input"):
        objects(volume, labels)
    with pytest.raises(ResourceError, match="the least that works is"):
        objects(volume, tmp_path / "o.tif", context=Context(memory=1000))
    tifffile.imwrite(tmp_path / "f.tif", np.full((5, 9, 9), 0.5, np.float32))
    with pytest.raises(InputError, match="labels must be integers"):
        open_labels(tmp_path / "f.tif")
    tifffile.imwrite(tmp_path / "big.tif", np.full((5, 9, 9), 70000, np.uint32))
    with pytest.raises(InputError, match="the label 70000: the numbers of classes end at 65535"):
        objects(open_labels(tmp_path / "big.tif"), tmp_path / "o.tif")
    monkeypatch.setattr(components, "MOST_OBJECTS", 1)
    with pytest.raises(InputError, match="3 objects are more than uint32 can number") as refused:
        two = np.zeros((5, 9, 9), np.uint8)
        two[:, ::4, 0] = 1
        tifffile.imwrite(tmp_path / "two.tif", two)
        objects(open_labels(tmp_path / "two.tif"), tmp_path / "o.tif", overwrite=True)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "o.tif").exists() and not (tmp_path / "o.csv").exists()


def test_work_that_was_stopped_goes_on(labels, tmp_path, small_blocks):
    whole = objects(open_labels(labels), tmp_path / "whole" / "o.tif")
    for stop_after in (3, 20):
        asked = iter(range(100))
        with pytest.raises(Interrupted):
            objects(
                open_labels(labels),
                tmp_path / "o.tif",
                context=Context(stopped=lambda asked=asked, n=stop_after: next(asked) >= n),
            )
        assert not (tmp_path / "o.tif").exists()
    objects(open_labels(labels), tmp_path / "o.tif")
    assert (tmp_path / "o.csv").read_bytes() == (whole.parent / "o.csv").read_bytes()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "o.tif"), tifffile.imread(whole))


def test_blocks_after_a_block_are_those_that_touch_its_end():
    blocks = blockwise.Blocks(Box.whole((20, 30, 10)), (10, 10, 10))
    assert sorted(blocks.after(0)) == [(1, 1), (3, 0), (4, 0)]
    assert list(blocks.after(5)) == []


def test_killed_after_the_store_became_the_volume_it_goes_on_to_the_same(tmp_path, monkeypatch, small_blocks):
    labels = ArrayVolume(ball((20, 30, 30), (10, 15, 15), (6, 9, 9)), ISOTROPIC)
    tifffile.imwrite(tmp_path / "labels.tif", labels.read(labels.box))
    opened = open_labels(tmp_path / "labels.tif")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr("vemseg.run.output.Output.publish", killed)
        objects(opened, tmp_path / "out.ome.zarr")
    out = open_volume(objects(opened, tmp_path / "out.ome.zarr"))
    assert (out.read(out.box) == labels.read(labels.box)).all()


def test_labels_are_refined_and_measured_without_torch(labels, tmp_path):
    """What only looks at labels starts fast: it loads no library of networks or of fits."""
    code = (
        "import sys; from vemseg.cli import app\n"
        "for words in (['refine', '--names', '3=lysosome', sys.argv[1], '-o', 'r.tif'],\n"
        "              ['objects', 'r.tif', '--split', '0.7', '-o', 'o.tif']):\n"
        "    app(['-q', *words], standalone_mode=False)\n"
        "print(sorted({'torch', 'sklearn', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, labels], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "o.csv").read_text().count("lysosome") == 1
