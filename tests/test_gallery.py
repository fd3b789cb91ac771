"""What render shows beside planes: confidence, features, surfaces, and views in other programs."""

import json
import sys
import types
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vemseg.comparison import Scene
from vemseg.context import Context
from vemseg.drawing import Look
from vemseg.errors import InputError, MissingError, OutputExistsError, UsageError
from vemseg.gallery import View, Wishes, show
from vemseg.gallery.view import folded
from vemseg.gallery.window import Lazy
from vemseg.geometry import Box
from vemseg.pipeline.render import render
from vemseg.surfaces import Meshing, extent_of, surfaces
from vemseg.volume import (
    ArrayVolume,
    Cropped,
    LabelForm,
    LabelInfo,
    LabelStore,
    finish_labels,
    open_labels,
    shrunk,
    write_volume,
)
from vemseg.volume.pyramid import downsample, majority

SIZE = (8.0, 4.0, 4.0)
ORIGIN = (800.0, 400.0, 1200.0)
NAMES = {3: "granule", 5: "nucleus"}
SHAPE = (24, 48, 56)


def ball(shape, centre, radius, size=SIZE):
    """Return where voxels lie in a ball of a radius in nm around a voxel."""
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    along = [(i - c) * edge for i, c, edge in zip((z, y, x), centre, size, strict=True)]
    return sum(part**2 for part in along) <= radius**2


def two_balls():
    labels = np.zeros(SHAPE, np.uint8)
    labels[ball(SHAPE, (12, 24, 14), 48)] = 5
    labels[ball(SHAPE, (10, 12, 44), 32)] = 3
    labels[ball(SHAPE, (14, 36, 44), 32)] = 3
    return labels


def placed(array):
    volume = ArrayVolume(array, SIZE, "cell")
    volume.origin = ORIGIN
    return volume


def put(array, path, info=None, origin=ORIGIN):
    """Write a grey volume, or labels where their names and colours are given."""
    volume = placed(array)
    volume.origin = origin
    if info is None:
        return write_volume(volume, path)
    store = LabelStore.create(
        path.with_name(f"{path.name}.store"), volume.shape, (64, 64, 64), str(array.dtype), SIZE
    )
    for box in volume.box.split((64, 64, 64)):
        store.write(box, volume.read(box))
    finish_labels(store, path, LabelInfo(SIZE, origin, **info), LabelForm())
    return None


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    labels = two_balls()
    grey = np.where(labels > 0, 80, 180).astype(np.uint8)
    grey += np.random.default_rng(0).integers(0, 20, SHAPE, dtype=np.uint8)
    put(grey, folder / "cell.ome.zarr")
    put(labels, folder / "labels.ome.zarr", {"names": NAMES, "colours": {3: (1, 2, 250), 5: (250, 2, 1)}})
    put(np.full(SHAPE, 204, np.uint8), folder / "sure.tif")
    return folder


def drawn(scene, out, **wishes):
    what = Scene(str(scene / "cell.ome.zarr"), str(scene / "labels.ome.zarr"))
    return render(what, out, Look(slices=2), wishes=Wishes(**wishes), context=Context())


def edges_of(faces):
    """Return how often each edge is met in each direction."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return {(int(a), int(b)): 1 for a, b in ends}, len(ends)


# Surfaces


@pytest.mark.parametrize("faces", [0, 2000])
def test_the_surface_of_a_sphere_has_its_volume_its_area_and_its_place(faces):
    pytest.importorskip("trimesh")
    pytest.importorskip("fast_simplification")
    radius, centre = 80.0, (14, 30, 34)
    volume = placed(np.where(ball((28, 60, 68), centre, radius), 7, 0).astype(np.uint16))
    (mesh,) = surfaces(volume, Meshing(faces=faces), Context())
    assert (mesh.label, mesh.name) == (7, "class 7")
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02)
    assert mesh.area == pytest.approx(4 * np.pi * radius**2, rel=0.02)
    middle = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    expected = [at + c * edge for at, c, edge in zip(ORIGIN, centre, SIZE, strict=True)]
    np.testing.assert_allclose(middle, expected, atol=1.0)
    assert len(mesh.faces) <= (faces or 10**6)
    directed, n = edges_of(mesh.faces)
    assert len(directed) == n and all((b, a) in directed for a, b in directed)  # closed, and one way round


@pytest.mark.parametrize("radius", [2.0, 3.0, 5.0])
def test_smoothing_leaves_small_balls_their_volume(radius, monkeypatch):
    """Marching cubes cut off what they cut off; smoothing takes no more than a fiftieth beside that."""
    pytest.importorskip("trimesh")
    bare = ArrayVolume(ball((16, 16, 16), (7.3, 7.6, 7.4), radius, (1, 1, 1)).astype(np.uint8))
    (smooth,) = surfaces(bare, Meshing(), Context())
    monkeypatch.setattr("vemseg.surfaces.meshing.ROUNDS", 0)
    (rough,) = surfaces(bare, Meshing(), Context())
    assert smooth.volume == pytest.approx(rough.volume, rel=0.02)
    assert smooth.area < rough.area


def test_classes_and_objects_have_meshes_of_their_own():
    pytest.importorskip("trimesh")
    labels = placed(two_balls())
    wish = Meshing(names=NAMES, colours={3: (1, 2, 3)})
    classes = list(surfaces(labels, wish, Context()))
    assert [(mesh.label, mesh.name) for mesh in classes] == [(3, "granule"), (5, "nucleus")]
    assert classes[0].colour == (1, 2, 3)
    objects = list(surfaces(labels, Meshing("object", names=NAMES), Context()))
    assert [mesh.name for mesh in objects] == ["granule 1", "granule 2", "nucleus 1"]
    assert objects[0].volume + objects[1].volume == pytest.approx(classes[0].volume, rel=1e-6)
    assert objects[0].vertices[:, 1].max() < objects[1].vertices[:, 1].min()
    (only,) = surfaces(labels, Meshing(labels=(5,)), Context())
    assert only.label == 5
    with pytest.raises(InputError, match="no voxel has a label that is wanted"):
        list(surfaces(labels, Meshing(labels=(9,)), Context()))


def test_surfaces_close_where_the_volume_ends_and_fill_it_where_all_is_one_class():
    pytest.importorskip("trimesh")
    whole = placed(np.ones((6, 8, 10), np.uint8))
    (mesh,) = surfaces(whole, Meshing(), Context())
    low, high = (np.array(corner) for corner in extent_of(whole))
    np.testing.assert_allclose(low, np.array(ORIGIN) - np.array(SIZE) / 2)
    np.testing.assert_allclose(high - low, np.array(whole.shape) * SIZE)
    assert mesh.volume == pytest.approx(np.prod(high - low), rel=0.1)
    beyond = np.array(SIZE) / 4  # smoothed edges bulge by less than a quarter of a voxel
    assert (mesh.vertices > low - beyond).all() and (mesh.vertices < high + beyond).all()


def test_labels_without_a_voxel_size_have_surfaces_in_voxels():
    pytest.importorskip("trimesh")
    bare = ArrayVolume(ball((20, 20, 20), (10, 9, 8), 7, (1, 1, 1)).astype(np.uint8))
    bare.voxel_size = None
    (mesh,) = surfaces(bare, Meshing(), Context())
    middle = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    np.testing.assert_allclose(middle, (10, 9, 8), atol=0.05)
    assert "volume_um3" not in mesh.told(known_size=False)


def test_a_coarser_level_is_the_stored_one_or_is_made_by_majority(scene, tmp_path):
    rng = np.random.default_rng(1)
    array = rng.integers(0, 3, (40, 150, 130), dtype=np.uint8)
    volume = placed(array)
    put(array, tmp_path / "large.ome.zarr", {"names": NAMES})
    stored = open_labels(tmp_path / "large.ome.zarr")
    assert stored.coarser
    made, taken = (shrunk(one, 200_000) for one in (volume, stored))
    assert made.shape == taken.shape and made.shape[1] < 150
    expected = downsample(array, made.factors, majority)
    np.testing.assert_array_equal(made.read(made.box), expected)
    part = Box((3, 5, 7), (11, 40, 60))
    np.testing.assert_array_equal(made.read(part), expected[part.slices])
    np.testing.assert_array_equal(taken.read(taken.box), expected)
    np.testing.assert_allclose(taken.origin, made.origin)
    np.testing.assert_allclose(taken.voxel_size, made.voxel_size)
    assert shrunk(volume, array.size) is volume
    assert np.prod(shrunk(volume, 100).shape) <= 100


def test_a_coarser_surface_lies_at_the_same_place(monkeypatch):
    pytest.importorskip("trimesh")
    import vemseg.surfaces.meshing as meshing

    volume = placed(np.where(ball((40, 80, 80), (20, 40, 38), 130), 1, 0).astype(np.uint8))
    (fine,) = surfaces(volume, Meshing(), Context())
    monkeypatch.setattr(meshing, "MOST_VOXELS", volume.box.size // 4)
    (coarse,) = surfaces(volume, Meshing(), Context())
    assert len(coarse.faces) < len(fine.faces) / 2
    assert coarse.volume == pytest.approx(fine.volume, rel=0.03)
    for side in (np.min, np.max):
        np.testing.assert_allclose(side(coarse.vertices, axis=0), side(fine.vertices, axis=0), atol=5)


def low_and_high(mesh):
    return np.array([mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)])


@pytest.mark.parametrize("crop", [None, Box((2, 10, 11), (39, 151, 152))])
@pytest.mark.parametrize("size", [None, (9.0, 3.0, 3.0)])
def test_coarse_surfaces_lie_where_fine_ones_do_with_and_without_a_voxel_size(size, crop, monkeypatch):
    pytest.importorskip("trimesh")
    bare = ArrayVolume(ball((41, 161, 163), (20, 80, 60), 16, (1, 1, 1)).astype(np.uint8), size)
    bare.start = (0, 5, 7)
    labels = bare if crop is None else Cropped(bare, crop)
    (fine,) = surfaces(labels, Meshing(), Context())
    monkeypatch.setattr("vemseg.surfaces.meshing.MOST_VOXELS", labels.box.size // 5)
    (coarse,) = surfaces(labels, Meshing(), Context())
    assert len(coarse.faces) < len(fine.faces) / 2
    assert coarse.volume == pytest.approx(fine.volume, rel=0.05)
    edges = np.array(size or (1, 1, 1))
    np.testing.assert_allclose(low_and_high(coarse) / edges, low_and_high(fine) / edges, atol=1.5)


@pytest.mark.parametrize(("stated", "given"), [(SIZE, None), (SIZE, "16,8,8"), (None, None)])
def test_surfaces_from_a_stored_level_lie_where_fine_ones_do(stated, given, tmp_path, monkeypatch):
    """Whatever the file says of the voxel size, the one that counts is that of the labels."""
    pytest.importorskip("trimesh")
    array = ball((40, 150, 130), (20, 80, 60), 16, (1, 1, 1)).astype(np.uint8)
    store = LabelStore.create(tmp_path / "store", array.shape, (64, 64, 64), "uint8", stated)
    for box in store.box.split((64, 64, 64)):
        store.write(box, array[box.slices])
    finish_labels(store, tmp_path / "l.ome.zarr", LabelInfo(stated, stated and ORIGIN), LabelForm())
    labels = open_labels(tmp_path / "l.ome.zarr", voxel_size=given)
    assert labels.coarser and (labels.voxel_size is None) == (stated is None)
    (fine,) = surfaces(labels, Meshing(), Context())
    monkeypatch.setattr("vemseg.surfaces.meshing.MOST_VOXELS", labels.box.size // 4)
    (coarse,) = surfaces(labels, Meshing(), Context())
    assert coarse.volume == pytest.approx(fine.volume, rel=0.05)
    edges = np.array(labels.voxel_size or (1, 1, 1))
    np.testing.assert_allclose(low_and_high(coarse) / edges, low_and_high(fine) / edges, atol=1.5)


@pytest.mark.parametrize("form", ["glb", "ply", "obj"])
def test_files_of_meshes_hold_names_colours_and_places(scene, tmp_path, form):
    trimesh = pytest.importorskip("trimesh")
    made = drawn(scene, tmp_path / "out", meshes=form)[-1]
    if form == "glb":
        read = trimesh.load(made)
        found = {name: read.geometry[name] for name in sorted(read.geometry)}
        assert list(found) == ["3 granule", "5 nucleus"]
        assert found["5 nucleus"].visual.material.baseColorFactor.tolist() == [250, 2, 1, 255]
    else:
        files = sorted(made.iterdir())
        assert [file.name for file in files] == [f"0001_granule.{form}", f"0002_nucleus.{form}"]
        found = {file.stem: trimesh.load(file, process=False) for file in files}
        assert found["0002_nucleus"].visual.vertex_colors[0].tolist() == [250, 2, 1, 255]
    nucleus = list(found.values())[1]
    x, y, z = nucleus.bounds.mean(axis=0)
    np.testing.assert_allclose(
        (z, y, x), [a + c * e for a, c, e in zip(ORIGIN, (12, 24, 14), SIZE, strict=True)], atol=0.5
    )
    assert nucleus.volume == pytest.approx(4 / 3 * np.pi * 48**3, rel=0.03)
    told = json.loads((tmp_path / "out" / "cell_pictures.json").read_text())
    assert [row["name"] for row in told["meshes"]] == ["granule", "nucleus"] and told["unit"] == "nm"
    assert told["meshes"][1]["volume_um3"] == pytest.approx(nucleus.volume / 1e9, rel=0.01)


def test_meshes_say_what_is_missing(scene, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(
        InputError,
        match=r"meshes need trimesh to be written; install the extra meshes: pip install '\.\[meshes\]'",
    ):
        drawn(scene, tmp_path / "out", meshes="glb")
    assert not (tmp_path / "out").exists()


def test_pictures_in_space_say_what_is_missing(scene, tmp_path, monkeypatch):
    pytest.importorskip("trimesh")
    monkeypatch.setitem(sys.modules, "pyvista", None)
    with pytest.raises(
        InputError, match=r"pictures in space need pyvista; install the extra 3d: pip install '\.\[3d\]'"
    ):
        drawn(scene, tmp_path / "out", solid=True)


# Pictures


def test_every_picture_is_there_in_every_format(scene, tmp_path):
    files = drawn(scene, tmp_path / "out", formats=("png", "svg"), confidence=str(scene / "sure.tif"))
    kinds = ("planes", "montage", "confidence")
    assert [p.name for p in files] == [f"cell_{k}.{f}" for k in kinds for f in ("png", "svg")]
    assert b"<svg" in files[1].read_bytes()[:1000]
    with Image.open(files[0]) as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    assert (np.abs(colours - (1, 2, 250)).sum(axis=1) < 9).any()  # the legend has the file's own colours
    again = drawn(scene, tmp_path / "out", formats=("png", "svg"), confidence=str(scene / "sure.tif"))
    assert again == files
    with pytest.raises(OutputExistsError, match="was made otherwise"):
        drawn(scene, tmp_path / "out", formats=("png",), confidence=str(scene / "sure.tif"))


def test_legends_add_what_the_encoder_suggests_where_nobody_gave_a_name(scene, tmp_path, monkeypatch):
    info = {"names": {3: "class 3", 5: "fat"}, "colours": {3: (1, 2, 3), 5: (4, 5, 6)}}
    put(two_balls(), tmp_path / "told.tif", {**info, "suggestions": {3: "membrane .71", 5: "lipid .50"}})
    found = []
    monkeypatch.setattr(
        "vemseg.gallery.pictures.montage",
        lambda *args, **_: found.append(args[4]) or Figure(),
    )
    scene = Scene(str(scene / "cell.ome.zarr"), str(tmp_path / "told.tif"))
    render(scene, tmp_path / "out", Look(slices=2), context=Context())
    assert found == [{3: "class 3: membrane .71", 5: "fat"}]


def test_what_is_no_longer_wished_goes(scene, tmp_path):
    drawn(scene, tmp_path / "out", formats=("pdf",))
    assert (tmp_path / "out" / "cell_planes.pdf").read_bytes()[:5] == b"%PDF-"
    what = Scene(str(scene / "cell.ome.zarr"), str(scene / "labels.ome.zarr"))
    render(what, tmp_path / "out", Look(slices=2), overwrite=True, context=Context())
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["cell_montage.png", "cell_pictures.json", "cell_planes.png"]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_features_are_drawn_in_the_colours_of_their_components(scene, tmp_path, order):
    from vemseg.features import Features
    from vemseg.gallery.pictures import _coloured

    lattice = tuple(np.arange(0, n, 2, dtype=float) for n in SHAPE)
    lattice = tuple(lattice[axis] for axis in order)
    shape = tuple(len(axis) for axis in lattice)
    attributes = {
        "source_shape": list(SHAPE), "voxel_size_nm": list(SIZE), "order": list(order),
        "inside": [[0, 0, 0], list(shape)], "cell": [4, 4, 4], "recipe": "", "model": "",
        "volume": {"path": None, "crop": None}, "state": {"inputs": []},
    }  # fmt: skip
    stored = Features.create(tmp_path / "features.zarr", lattice, 4, shape, attributes)
    vectors = np.zeros((12, 24, 28, 4), np.float16)
    vectors[..., 2] = np.arange(24)[:, None] * 10.0  # along y, most of the variance
    vectors[..., 0] = np.arange(28) * 1.0  # along x
    stored.write(Box.whole(shape), vectors.transpose(*order, 3), np.zeros(shape, np.float16))
    wishes = Wishes(features=tmp_path / "features.zarr")
    view = View.of(Scene(str(scene / "cell.ome.zarr")), Look(), wishes, tmp_path, Context())
    colours, share = _coloured(stored, view, [5, 12])
    assert colours.shape == (2, *SHAPE[1:], 3) and share == pytest.approx(1.0)
    red, green, blue = np.moveaxis(colours[1].astype(int), -1, 0)
    assert all(a <= b for a, b in pairwise(red[:, 0])) and red[0, 0] == 0 and red[-1, 0] == 255
    assert (np.ptp(red, axis=1) == 0).all() and (np.ptp(green, axis=0) == 0).all()
    assert green[0, 0] == 0 and green[0, -1] == 255 and (blue == blue[0, 0]).all()
    files = drawn(scene, tmp_path / "out", features=tmp_path / "features.zarr")
    assert files[-1].name == "cell_features.png" and files[-1].stat().st_size > 10_000
    put(np.zeros((4, 5, 6), np.uint8), tmp_path / "other.tif")
    with pytest.raises(InputError, match=r"vectors of \(24, 48, 56\) voxels, but other has \(4, 5, 6\)"):
        render(Scene(str(tmp_path / "other.tif")), tmp_path / "o", wishes=wishes, context=Context())


def test_wishes_that_cannot_be_met(scene, tmp_path):
    with pytest.raises(UsageError, match=r"--format tiff is not known: take png, pdf, svg"):
        Wishes(formats=("tiff",))
    with pytest.raises(UsageError, match="at least 4 triangles"):
        Wishes(faces=2)
    with pytest.raises(MissingError, match="'vemseg embed' stores them"):
        Wishes(features=Path("nowhere.zarr"))
    with pytest.raises(UsageError, match="--meshes shows labels: give them with --labels"):
        render(Scene(str(scene / "cell.ome.zarr")), tmp_path / "out", wishes=Wishes(meshes="glb"))
    with pytest.raises(InputError, match="holds uint16, no confidence"):
        put(np.zeros(SHAPE, np.uint16), tmp_path / "wide.tif")
        drawn(scene, tmp_path / "out", confidence=str(tmp_path / "wide.tif"))


def test_objects_beyond_the_palette_have_its_colours_again():
    np.testing.assert_array_equal(folded(np.array([0, 1, 255, 256, 511])), [0, 1, 255, 1, 1])
    np.testing.assert_array_equal(folded(np.array([-3, 0, 7], np.int16)), [0, 0, 7])


def test_labels_of_many_objects_are_drawn_and_have_meshes(tmp_path):
    pytest.importorskip("trimesh")
    numbers = np.zeros((6, 60, 60), np.uint32)
    for i in range(300):
        y, x = divmod(i, 20)
        numbers[1:5, 4 * y : 4 * y + 3, 3 * x : 3 * x + 2] = i + 1
    put((numbers % 200).astype(np.uint8), tmp_path / "cell.tif")
    put(numbers, tmp_path / "objects.tif", {})
    scene = Scene(str(tmp_path / "cell.tif"), str(tmp_path / "objects.tif"))
    files = render(scene, tmp_path / "out", wishes=Wishes(meshes="ply"), context=Context())
    assert len(list(files[-1].iterdir())) == 300


def test_a_volume_of_one_slice_has_all_of_it(tmp_path):
    pytest.importorskip("trimesh")
    labels = ball((1, 30, 40), (0, 15, 20), 40).astype(np.uint8)
    put(labels * 90, tmp_path / "flat.tif")
    put(labels, tmp_path / "labels.tif", {})
    put(labels * 200, tmp_path / "sure.tif")
    scene = Scene(str(tmp_path / "flat.tif"), str(tmp_path / "labels.tif"))
    wishes = Wishes(meshes="ply", confidence=str(tmp_path / "sure.tif"))
    files = render(scene, tmp_path / "out", wishes=wishes, context=Context())
    assert [path.name for path in files][-2:] == ["flat_confidence.png", "flat_meshes_ply"]


@pytest.mark.slow
def test_surfaces_are_drawn_in_space_and_turn(scene, tmp_path):
    pytest.importorskip("trimesh")
    pytest.importorskip("pyvista")
    files = drawn(scene, tmp_path / "out", solid=True, turntable=True)
    with Image.open(files[-2]) as image:
        shown = np.asarray(image.convert("RGB")).astype(int)
    red = (shown[..., 0] > 100) & (shown[..., 1] < 60) & (shown[..., 2] < 60)
    blue = (shown[..., 2] > 100) & (shown[..., 0] < 60)
    assert red.sum() > 5000 and blue.sum() > 5000
    assert np.argwhere(red)[:, 1].mean() < np.argwhere(blue)[:, 1].mean()  # the nucleus lies at smaller x
    with Image.open(files[-1]) as image:
        assert image.n_frames == 48


# Views in other programs


def test_neuroglancer_gets_image_labels_names_and_colours(scene, monkeypatch):
    monkeypatch.chdir(scene)
    files = drawn(Path(), Path("served"), neuroglancer="http://localhost:9000/")
    state = json.loads(Path("served/cell_neuroglancer.json").read_text())
    image, labels = state["layers"]
    assert image == {"type": "image", "name": "cell", "source": "zarr://http://localhost:9000/cell.ome.zarr"}
    assert labels["source"] == [
        "zarr://http://localhost:9000/labels.ome.zarr",
        "precomputed://http://localhost:9000/served/cell_segments",
    ]
    assert labels["segments"] == ["3", "5"] and labels["segmentColors"] == {"3": "#0102fa", "5": "#fa0201"}
    for axis, edge in zip("zyx", SIZE, strict=True):
        assert state["dimensions"][axis] == [pytest.approx(edge * 1e-9), "m"]
    expected = [at / edge + n // 2 + 0.5 for at, edge, n in zip(ORIGIN, SIZE, SHAPE, strict=True)]
    assert state["position"] == expected[::-1]
    names = json.loads((files[-1] / "info").read_text())
    assert names["inline"] == {
        "ids": ["3", "5"],
        "properties": [{"id": "label", "type": "label", "values": ["granule", "nucleus"]}],
    }
    note = json.loads(Path("served/cell_pictures.json").read_text())
    assert note["neuroglancer"].endswith("#!http://localhost:9000/served/cell_neuroglancer.json")


def test_neuroglancer_refuses_what_it_does_not_read(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="lies outside: go to a folder above it"):
        drawn(scene, Path("out"), neuroglancer="http://localhost:9000")
    put(np.zeros(SHAPE, np.uint8), tmp_path / "a.tif")
    with pytest.raises(InputError, match="of a format that it does not read: give an OME-Zarr"):
        render(Scene("a.tif"), Path("out"), wishes=Wishes(neuroglancer="http://localhost:9000"))


def test_napari_gets_volumes_that_it_reads_piece_by_piece(scene, tmp_path, monkeypatch):
    shown, read = {}, []

    class Viewer:
        def __init__(self, title):
            shown["title"] = title

        def add_image(self, data, **options):
            shown["image"] = (data, options)

        def add_labels(self, data, **options):
            shown["labels"] = (data, options)

    napari = types.SimpleNamespace(Viewer=Viewer, run=lambda: shown.setdefault("ran", True))
    monkeypatch.setitem(sys.modules, "napari", napari)
    what = Scene(str(scene / "cell.ome.zarr"), str(scene / "labels.ome.zarr"))
    show(View.of(what, Look(), Wishes(), tmp_path, Context()))
    assert shown["title"] == "cell" and shown["ran"]
    data, options = shown["labels"]
    assert options["scale"] == SIZE and options["translate"] == ORIGIN
    np.testing.assert_array_equal(data[12], two_balls()[12])
    volume = ArrayVolume(two_balls())
    whole = volume.read
    monkeypatch.setattr(volume, "read", lambda box: read.append(box) or whole(box))
    lazy = Lazy(volume)
    for index in (3, (3,), (slice(2, 9, 3), 4), (slice(None), slice(1, 20), -1), np.s_[4, ::2, 5:9]):
        np.testing.assert_array_equal(lazy[index], two_balls()[index])
    assert read[0].shape == (1, 48, 56)
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(
        InputError,
        match=r"--view opens napari, which is missing; install the extra viewer: pip install '\.\[viewer\]'",
    ):
        show(View.of(what, Look(), Wishes(), tmp_path, Context()))
