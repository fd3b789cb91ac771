"""Volumes compared by where they lie: grids, crops, labels of every kind."""

import itertools
import json
import logging

import numpy as np
import pytest
import tifffile
import zarr

from vemseg.cli.parsing import ids, names
from vemseg.comparison import Scene, count, open_compared, placed, together
from vemseg.comparison.placing import Span
from vemseg.context import Context
from vemseg.errors import InputError, UsageError
from vemseg.geometry import Box
from vemseg.metrics import to_index
from vemseg.pipeline.evaluate import Comparison, evaluate
from vemseg.volume import ArrayVolume, open_labels

SHAPE = (16, 40, 56)
TRUTH = np.zeros(SHAPE, np.uint8)
TRUTH[4:11, 6:20, 28:50] = 7


def store(path, array, scale=(8.0, 8.0, 8.0), shift=None):
    """Write an OME-Zarr 0.4 of one level, as other programs do."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", shape=array.shape, chunks=(8, 16, 16), dtype=array.dtype)[:] = array
    steps = [{"type": "scale", "scale": list(scale)}]
    steps += [{"type": "translation", "translation": list(shift)}] if shift else []
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    image = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    group.attrs["multiscales"] = [image]
    return str(path)


@pytest.fixture
def prediction(tmp_path):
    return store(tmp_path / "pred.zarr", np.where(TRUTH == 7, 2, 1).astype(np.uint8))


def dice(prediction, reference, **more):
    return evaluate(Comparison(prediction, reference, **more)).tables[0].mean()


def at(shape, size, origin=None):
    volume = ArrayVolume(np.arange(np.prod(shape)).reshape(shape), size)
    volume.origin = origin
    return volume


# --- grids -----------------------------------------------------------------------------------------------


def slow_meets(a, b):
    """The voxels of a whose centres lie in b, one by one."""
    centres = [a.corner + (i + 0.5) * a.edge for i in range(a.n)]
    return [i for i, centre in enumerate(centres) if b.corner - 1e-9 <= centre < b.end - 1e-9]


def slow_index(a, b):
    """The voxel of a that holds each voxel of b."""
    found = []
    for j in range(b.n):
        centre = b.corner + (j + 0.5) * b.edge
        found.append(next(i for i in range(a.n) if a.corner + (i + 1) * a.edge > centre))
    return found


@pytest.mark.parametrize("edge", [2.0, 4.0, 5.24])
@pytest.mark.parametrize("corner", [-17.0, -1.0, 0.0, 12.3])
def test_spans_agree_with_a_search_voxel_by_voxel(edge, corner):
    fine, other = Span(30, 2.0, 0.0), Span(9, edge, corner)
    start, stop = fine.meets(other)
    if edge != 2.0:
        assert list(range(start, stop)) == slow_meets(fine, other)
        part = fine.part(start, stop)
        assert other.index(part).tolist() == slow_index(other, part)
    else:  # grids of the same edge are moved to each other by whole voxels
        assert abs(fine.corner + start * 2.0 - max(0.0, corner)) <= 1.0


def test_volumes_come_together_on_the_finest_grid():
    coarse, fine = at((4, 6, 6), (8.0, 8.0, 8.0)), at((8, 4, 12), (4.0, 12.0, 4.0))
    a, b = together([coarse, fine], 2)
    assert (a.shape, a.voxel_size) == (b.shape, b.voxel_size) == ((8, 6, 12), (4.0, 8.0, 4.0))
    for z, y, x in itertools.product(range(8), range(6), range(12)):
        one = Box((z, y, x), (z + 1, y + 1, x + 1))
        assert a.read(one).item() == coarse.read(coarse.box)[z // 2, y, x // 2]
        assert b.read(one).item() == fine.read(fine.box)[z, int((y + 0.5) * 8 // 12), x]
    np.testing.assert_array_equal(a.read(a.box)[1:3, 2:5, 3:9], a.read(Box((1, 2, 3), (3, 5, 9))))


def test_voxel_sizes_that_files_round_are_the_same():
    a, b = together([at((4, 4, 1000), (8.0, 8.0, 4.0)), at((4, 4, 1000), (8.0, 8.0, 4.02))], 2)
    assert a.shape == b.shape == (4, 4, 1000)


def test_volumes_that_lie_apart_are_refused():
    with pytest.raises(InputError, match="apart along y"):
        together([at((4, 4, 4), (8.0,) * 3), at((4, 4, 4), (8.0,) * 3, (0.0, 32.0, 0.0))], 2)


# --- labels and references -------------------------------------------------------------------------------


def test_another_voxel_size_is_said_and_heeded(prediction, tmp_path, caplog):
    reference = store(tmp_path / "ref.zarr", TRUTH, scale=(16, 16, 16))
    with caplog.at_level(logging.WARNING):
        volumes = open_compared(prediction, reference)
    assert "8 x 8 x 8 nm" in caplog.text and "16 x 16 x 16 nm" in caplog.text
    assert [volume.shape for volume in volumes] == [SHAPE, SHAPE]
    np.testing.assert_array_equal(
        volumes[1].read(volumes[1].box), TRUTH.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:16, :40, :56]
    )


def test_a_part_that_is_compared_is_said_and_the_whole_is_not(prediction, tmp_path, caplog):
    part = store(tmp_path / "part.zarr", TRUTH[:8], shift=(0, 0, 0))
    with caplog.at_level(logging.INFO):
        open_compared(prediction, prediction)
        assert "comparing" not in caplog.text
        open_compared(prediction, part)
        assert "comparing z, y, x = 0:8, 0:40, 0:56, the part that the other volume covers" in caplog.text
        assert "--ignore-place" not in caplog.text  # it would be refused: shapes differ
        open_compared(prediction, store(tmp_path / "moved.zarr", TRUTH, shift=(0, 80, 0)))
    assert caplog.text.count("--ignore-place compares all") == 1


def test_another_place_is_heeded(prediction, tmp_path):
    moved = store(tmp_path / "ref.zarr", TRUTH, shift=(0, 80, 0))
    assert dice(prediction, moved) < 0.8
    assert dice(prediction, moved, by_place=False) == 1
    assert dice(prediction, store(tmp_path / "far.zarr", TRUTH, shift=(0, 0, 0))) == 1


def test_an_annotated_crop_inside_a_larger_prediction(prediction, tmp_path):
    part = TRUTH[4:12, 8:32, 16:48]
    reference = store(tmp_path / "ref.zarr", part, shift=(32, 64, 128))
    found = evaluate(Comparison(prediction, reference))
    assert (found.tables[0].mean(), found.voxels) == (1, part.size)
    nowhere = tmp_path / "ref.tif"
    tifffile.imwrite(nowhere, part)
    assert dice(prediction, str(nowhere), crop="4:12,8:32,16:48") == 1
    with pytest.raises(InputError, match="--crop"):
        dice(prediction, str(nowhere))
    with pytest.raises(UsageError, match="different shapes"):
        dice(prediction, str(nowhere), crop="4:12,8:32,16:47")


def test_a_reference_of_unknown_place_but_known_voxels_is_not_guessed(tmp_path):
    for name, array in (("pred.tif", TRUTH + 1), ("ref.tif", TRUTH[2:] + 1)):
        tifffile.imwrite(
            tmp_path / name, array, imagej=True, resolution=(1 / 8, 1 / 8),
            metadata={"axes": "ZYX", "spacing": 8, "unit": "nm"},
        )  # fmt: skip
    with pytest.raises(InputError, match="nothing says where"):
        dice(str(tmp_path / "pred.tif"), str(tmp_path / "ref.tif"))
    assert dice(str(tmp_path / "pred.tif"), str(tmp_path / "pred.tif")) == 1


def test_a_finer_reference(prediction, tmp_path):
    fine = TRUTH.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    found = evaluate(Comparison(prediction, store(tmp_path / "ref.zarr", fine, scale=(4, 4, 4))))
    assert (found.tables[0].mean(), found.voxels) == (1, fine.size)


def test_a_level_of_a_pyramid_lies_where_its_metadata_say(prediction, tmp_path):
    coarse = store(tmp_path / "ref.zarr", TRUTH[::2, ::2, ::2], scale=(16,) * 3, shift=(4, 4, 4))
    predicted, wanted = open_compared(prediction, coarse)
    assert predicted.shape == SHAPE
    np.testing.assert_array_equal(
        wanted.read(wanted.box), TRUTH[::2, ::2, ::2].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    )


def test_unlabelled_voxels_of_every_sign(prediction, tmp_path, caplog):
    for value, dtype in ((255, "uint8"), (-1, "int16")):
        array = TRUTH.astype(dtype)
        array[:, :20] = value
        reference = store(tmp_path / f"ref{value}.zarr", array)
        with caplog.at_level(logging.WARNING):
            assert dice(prediction, reference) < 1
        assert f"--ignore={value} leaves it out" in caplog.text
        assert evaluate(Comparison(prediction, reference, ignore=[value])).voxels == 16 * 20 * 56
    assert ids("0,-1") == [0, -1]
    with pytest.raises(UsageError, match="not a label"):
        ids("0,a")


def test_ids_beyond_what_floats_can_tell_apart(tmp_path):
    big = np.array([2**63 + 1, 2**63 + 2, 5, 2**64 - 1], np.uint64)
    known = sorted(big.tolist())
    assert to_index(big, known).tolist() == [1, 2, 0, 3]
    assert to_index(big, [-7, *known]).tolist() == [2, 3, 1, 4]
    with pytest.raises(InputError, match="listed ids"):
        to_index(big, known[:-1])
    with pytest.raises(InputError, match="listed ids"):
        to_index(np.array([3, -3]), [2**63 + 5, 3])
    array = np.where(TRUTH == 7, np.uint64(2**63 + 12345), np.uint64(17))
    tables, _, classes = count([ArrayVolume(TRUTH), ArrayVolume(array)], Context())
    assert classes == [17, 2**63 + 12345]
    assert tables.sum(0).diagonal().sum() == TRUTH.size


def test_masks_of_every_type(prediction, tmp_path):
    mask = np.zeros(SHAPE, np.float32)
    mask[2:14] = 1
    reference = store(tmp_path / "ref.zarr", TRUTH)
    for dtype in ("float32", "bool", "uint16"):
        path = store(tmp_path / f"{dtype}.zarr", mask.astype(dtype))
        assert evaluate(Comparison(prediction, reference, path)).voxels == 12 * 40 * 56


def test_labels_that_a_program_stored_as_numbers_with_a_point(prediction, tmp_path):
    assert dice(prediction, store(tmp_path / "whole.zarr", TRUTH.astype(np.float32))) == 1
    with pytest.raises(InputError, match=r"holds 0\.5: labels must be integers"):
        open_labels(store(tmp_path / "parts.zarr", np.full(SHAPE, 0.5, np.float32)))
    with pytest.raises(InputError, match="holds nan"):
        open_labels(store(tmp_path / "nan.zarr", np.full(SHAPE, np.nan, np.float32)))


def test_instances_are_said_to_be_instances(prediction, tmp_path, caplog):
    many = (np.arange(TRUTH.size).reshape(SHAPE) * 300 // TRUTH.size).astype(np.uint32) + 1
    with caplog.at_level(logging.WARNING):
        dice(prediction, store(tmp_path / "ref.zarr", many))
    assert "holds 300 ids, like instances" in caplog.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.toml", '0 = "rest"\n7 = "mito"\n'),
        ("n.json", json.dumps({"0": "rest", "7": "mito"})),
        ("n.csv", "id,name\n0,rest\n7,mito\n"),
        ("n.tsv", "0\trest\n7\tmito\n"),
        ("n.csv", "\ufeff0;rest\n7;mito\n"),
    ],
)
def test_names_in_files_of_every_kind(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert names(str(tmp_path / name)) == {0: "rest", 7: "mito"}


@pytest.mark.parametrize(("name", "text"), [("n.json", "[1]"), ("n.csv", "0\n1\n"), ("n.toml", "0 = rest")])
def test_names_that_cannot_be_read_say_how_to_write_them(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=r"1 = .nucleus."):
        names(str(tmp_path / name))


def test_render_shows_what_labels_and_volume_share(tmp_path):
    grey = store(tmp_path / "cell.zarr", TRUTH * 20 + 40)
    labels = store(tmp_path / "seg.zarr", TRUTH[4:12, 8:32, 16:48], shift=(32, 64, 128))
    volume, painted, truth = Scene(grey, labels).open(Context())
    assert truth is None and painted is not None
    np.testing.assert_array_equal(volume.read(volume.box), painted.read(painted.box) * 20 + 40)


def test_a_crop_is_the_part_of_whatever_is_larger():
    whole, part = at((6, 6, 6), None), at((2, 3, 4), None)
    for volumes in ([whole, part], [part, whole], [whole, whole]):
        found = placed(volumes, crop="1:3,2:5,0:4", recorded=None, finest_of=2)
        assert [volume.shape for volume in found] == [(2, 3, 4)] * 2
