"""Stored vectors: what is written comes back, with all that is needed to segment from it."""

import numpy as np
import pytest
import zarr

import vemseg.features
from vemseg.errors import InputError, MissingError
from vemseg.features import Features
from vemseg.geometry import Box

POSITIONS = (np.arange(3.0), np.arange(17) * 8 / 3 - 0.1, np.arange(23) * 5 - 0.5)
SHAPE = (3, 17, 23)
ATTRIBUTES = {
    "source_shape": [3, 40, 100],
    "voxel_size_nm": [40.0, 6.0, 6.0],
    "inside": [[0, 1, 1], [3, 16, 21]],
    "cell": [1, 4, 4],
    "model": "abc",
    "order": [0, 1, 2],
    "recipe": "",
    "volume": {"path": None, "crop": None},
    "state": {"inputs": []},
}


def create(path, box_shape=(2, 8, 8), **changes):
    return Features.create(path, POSITIONS, 6, box_shape, ATTRIBUTES | changes)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(*SHAPE, 6)).astype(np.float16)
    return vectors, rng.uniform(size=SHAPE).astype(np.float16)


@pytest.mark.parametrize("chunk_bytes", [2**21, 500])
@pytest.mark.parametrize("box_shape", [(1, 4, 9), (2, 8, 8), (3, 17, 23), (1, 5, 23)], ids=str)
def test_written_boxes_are_read_back(tmp_path, arrays, box_shape, chunk_bytes, monkeypatch):
    monkeypatch.setattr(vemseg.features, "CHUNK_BYTES", chunk_bytes)
    vectors, intensities = arrays
    made = create(tmp_path / "f.zarr", box_shape)
    assert all(a >= b for a, b in zip(made.box_shape, box_shape, strict=True))
    for box in reversed(list(Box.whole(SHAPE).split(made.box_shape))):
        made.write(box, vectors[box.slices], intensities[box.slices])
    found = Features(tmp_path / "f.zarr")
    assert found.box_shape == made.box_shape
    for box in [Box.whole(SHAPE), Box((1, 3, 5), (3, 12, 22)), Box((2, 16, 22), (3, 17, 23))]:
        assert found.vectors(box).dtype == found.intensities(box).dtype == np.float16
        np.testing.assert_array_equal(found.vectors(box), vectors[box.slices])
        np.testing.assert_array_equal(found.intensities(box), intensities[box.slices])


def test_a_store_says_what_it_holds(tmp_path):
    create(tmp_path / "f.zarr")
    found = Features(tmp_path / "f.zarr")
    assert (found.shape, found.dim, found.path) == (SHAPE, 6, tmp_path / "f.zarr")
    for read, written in zip(found.positions, POSITIONS, strict=True):
        np.testing.assert_array_equal(read, written)
    assert found.source_shape == (3, 40, 100)
    assert found.voxel_size == (40.0, 6.0, 6.0)
    assert found.inside == Box((0, 1, 1), (3, 16, 21))
    assert found.cell == (1, 4, 4)
    assert found.attributes["model"] == "abc"
    assert found.attributes["kind"] == "vemseg-features"


def test_an_unknown_voxel_size_stays_unknown(tmp_path):
    assert create(tmp_path / "f.zarr", voxel_size_nm=None).voxel_size is None


def test_boxes_are_single_shards(tmp_path, arrays):
    vectors, intensities = arrays
    made = create(tmp_path / "f.zarr")
    boxes = list(Box.whole(SHAPE).split(made.box_shape))
    for i, box in enumerate(boxes, start=1):
        made.write(box, vectors[box.slices], intensities[box.slices])
        shards = [p for p in (tmp_path / "f.zarr" / "vectors" / "c").rglob("*") if p.is_file()]
        assert len(shards) == i


def test_nothing_is_written_to_a_store_opened_for_reading(tmp_path, arrays):
    create(tmp_path / "f.zarr")
    with pytest.raises(ValueError, match="read-only"):
        Features(tmp_path / "f.zarr").write(Box.whole(SHAPE), *arrays)


def test_what_is_no_store_is_told_apart(tmp_path):
    def refused(path):
        with pytest.raises(InputError, match="no features") as caught:
            Features(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value) and "PosixPath" not in str(caught.value)

    with pytest.raises(
        MissingError, match=r"absent\.zarr does not exist: 'vemseg embed' stores features there"
    ):
        Features(tmp_path / "absent.zarr")
    (tmp_path / "text.zarr").write_text("no zarr")
    refused(tmp_path / "text.zarr")
    (tmp_path / "empty.zarr").mkdir()
    refused(tmp_path / "empty.zarr")
    zarr.create_group(tmp_path / "group.zarr")
    refused(tmp_path / "group.zarr")
    zarr.create_array(tmp_path / "array.zarr", shape=(3,), dtype="uint8")
    refused(tmp_path / "array.zarr")
    foreign = zarr.create_group(tmp_path / "foreign.zarr")
    for name in ("vectors", "intensities"):
        foreign.create_array(name, shape=(3, 3, 3), dtype="float16")
    refused(tmp_path / "foreign.zarr")
    create(tmp_path / "later.zarr")
    zarr.open_group(tmp_path / "later.zarr").attrs["format"] = 99
    refused(tmp_path / "later.zarr")
    broken = tmp_path / "broken.zarr"
    create(broken)
    (broken / "zarr.json").write_text("{")
    refused(broken)
