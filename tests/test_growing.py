"""Coarser levels that grow while blocks are written: the bytes of those that are written in the end."""

import numpy as np
import pytest
from test_shards import cell, content, found_in, labelled, speckled

from vemseg.context import Share
from vemseg.volume import LabelInfo, LabelStore, Plan, finish_grey, finish_labels, grow
from vemseg.volume.about import About
from vemseg.volume.pyramid import Level, level_factors, majority, mean

__all__ = ["cell", "speckled"]

WHOLE = (20, 40, 48)
ABOUT = {"voxel_size": (8.0, 8.0, 8.0), "description": {"seed": 7}}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Let levels have small shards, and go on until they are small."""
    monkeypatch.setattr("vemseg.volume.pyramid.BLOCK_SHAPE", (4, 8, 8))
    monkeypatch.setattr("vemseg.volume.pyramid.SMALLEST_LEVEL", 12)
    monkeypatch.setattr("vemseg.volume.pyramid.LAYERS", 3)


def voxels(channels=None, empty=False):
    shape = WHOLE if channels is None else (channels, *WHOLE)
    found = (
        np.random.default_rng(3).integers(1, 5, shape).astype(np.uint8 if channels is None else np.float16)
    )
    if empty:
        found[:, :, 20:] = 0
    return found


def planned(voxel_size=ABOUT["voxel_size"], reduce=majority):
    return Plan(tuple(level_factors(WHOLE, voxel_size)), reduce)


def written(directory, array, block, plan, numbers=None, order=None):
    """Write blocks of a store in some order, with what can be made above them; return the marks too."""
    channels = None if array.ndim == 3 else len(array)
    store = LabelStore.create(directory, WHOLE, block, array.dtype, ABOUT["voxel_size"], channels, plan)
    boxes, marks = list(store.box.split(store.block_shape)), set()
    for number in np.random.default_rng(order).permutation(len(boxes)) if order else range(len(boxes)):
        if numbers is None or number in numbers:
            store.write(boxes[number], array[(..., *boxes[number].slices)])
            marks.add(number)
            grow(store, boxes[number], marks.__contains__)
    return store


def fail(*given, **named):
    raise OSError("killed")


@pytest.mark.parametrize("block", [(8, 16, 32), (8, 24, 40), (20, 40, 48), (5, 40, 14)])
def test_levels_that_grow_are_those_that_are_written_in_the_end(tmp_path, monkeypatch, block):
    plain = written(tmp_path / "plain", voxels(), block, None)
    finish_labels(plain, tmp_path / "plain.ome.zarr", LabelInfo(**ABOUT))
    grown = written(tmp_path / "grown", voxels(), block, planned(), order=1)
    monkeypatch.setattr(Level, "coarsen", fail)  # nothing is left to do
    finish_labels(grown, tmp_path / "grown.ome.zarr", LabelInfo(**ABOUT))
    expected = content(tmp_path / "plain.ome.zarr")
    assert content(tmp_path / "grown.ome.zarr") == expected
    assert {name.split("/")[0] for name in expected} == {"0", "1", "2"}
    for kept in (tmp_path / "plain.ome.zarr").rglob("zarr.json"):
        grown_too = tmp_path / "grown.ome.zarr" / kept.relative_to(tmp_path / "plain.ome.zarr")
        assert kept.read_text().replace('"plain"', '"grown"') == grown_too.read_text()


def test_channels_grow_too_and_empty_places_are_no_files(tmp_path):
    for name, array, reduce in (("scores", voxels(2), mean), ("labels", voxels(empty=True), majority)):
        outs = []
        for kind, plan in (("plain", None), ("grown", planned(reduce=reduce))):
            store = written(tmp_path / f"{kind}-{name}", array, (8, 16, 32), plan, order=2)
            outs.append(tmp_path / f"{kind}-{name}.ome.zarr")
            if reduce is majority:
                finish_labels(store, outs[-1], LabelInfo(**ABOUT))
            else:
                finish_grey(store, outs[-1], About(**ABOUT, channels=("a", "b")))
        assert content(outs[0]) == content(outs[1]) and len(content(outs[0])) > 5


def test_an_end_that_is_killed_goes_on_and_writes_only_what_is_missing(tmp_path, monkeypatch):
    plain = written(tmp_path / "plain", voxels(), (8, 16, 32), None)
    finish_labels(plain, tmp_path / "plain.ome.zarr", LabelInfo(**ABOUT))
    store = written(tmp_path / "grown", voxels(), (8, 16, 32), planned(), order=3)
    shards = sorted(path for level in "12" for path in (tmp_path / "grown" / level / "c").rglob("*[0-9]")
                    if path.is_file())  # fmt: skip
    lost = [shard for i, shard in enumerate(shards) if i % 3 == 0]
    assert len(lost) > 3
    before = {shard: shard.stat().st_mtime_ns for shard in shards if shard not in lost}
    for shard in lost:
        shard.unlink()
    made, coarsen = [], Level.coarsen

    def twice_only(level, *given):
        made.append(level)
        return fail() if len(made) == 3 else coarsen(level, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Level, "coarsen", twice_only)
        with pytest.raises(OSError, match="killed"):
            finish_labels(store, tmp_path / "grown.ome.zarr", LabelInfo(**ABOUT))
        finish_labels(LabelStore.open(tmp_path / "grown"), tmp_path / "grown.ome.zarr", LabelInfo(**ABOUT))
    assert len(made) == len(lost) + 1
    finished = tmp_path / "grown.ome.zarr"
    for shard, when in before.items():
        assert (finished / shard.relative_to(tmp_path / "grown")).stat().st_mtime_ns == when
    assert content(tmp_path / "grown.ome.zarr") == content(tmp_path / "plain.ome.zarr")


def test_tasks_share_the_levels_of_a_segmentation_and_the_last_step_makes_none(cell, tmp_path, monkeypatch):
    monkeypatch.setattr("vemseg.volume.pyramid.BLOCK_SHAPE", (8, 16, 32))
    one = labelled(cell, tmp_path / "one.ome.zarr")
    out = tmp_path / "shared.ome.zarr"
    for index in (2, 0, 1):
        labelled(cell, out, Share(index, 3))
    monkeypatch.setattr(Level, "coarsen", fail)
    labelled(cell, out, executor="gather")
    assert content(out) == content(one) and any(name.startswith("3/") for name in content(one))


def test_tasks_share_the_levels_of_objects_too(speckled, tmp_path, monkeypatch):
    one = found_in(speckled, tmp_path / "one.ome.zarr")
    out = tmp_path / "shared.ome.zarr"
    for index in (1, 0, 1, 0):
        found_in(speckled, out, Share(index, 2))
    monkeypatch.setattr(Level, "coarsen", fail)
    found_in(speckled, out, executor="gather")
    assert content(out) == content(one) and any(name.startswith("2/") for name in content(one))


def test_what_lies_above_blocks_that_are_not_written_waits(tmp_path):
    store = written(tmp_path / "part", voxels(), (8, 16, 16), planned(), numbers={0, 1, 4})
    assert len(list(store.directory.rglob("0/c/*/*/*"))) == 3 == len(list(store.directory.rglob("1/c/*/*/*")))
    assert not list(store.directory.rglob("2/c/*/*/*"))
