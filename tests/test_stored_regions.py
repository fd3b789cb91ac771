"""Regions that are stored beside vectors: the same as those made anew, whatever happened while they were."""

import numpy as np
import pytest
import zarr
from test_sccs import cell, voxels

from vemseg.context import Context
from vemseg.dense import RegionVectors, Wanted
from vemseg.errors import InputError, Interrupted
from vemseg.features import Features
from vemseg.geometry import Box
from vemseg.labelling import load
from vemseg.pipeline.cluster import cluster
from vemseg.pipeline.embed import embed
from vemseg.pipeline.segment import segment

SETTINGS = (
    "regions.method=slic",
    "regions.size=20",
    "model.sigmas=[1.0]",
    "cluster.k=3",
    "cluster.restarts=1",
)
TILES = (*SETTINGS, "regions.whole=false", "regions.tile=32")


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return str(cell(tmp_path_factory.mktemp("volume") / "cell.tif"))


def same(one, other):
    for name in ("map", "vectors", "intensities", "edges", "ends"):
        arrays = [zarr.open_group(path / "regions", mode="r")[name][:] for path in (one, other)]
        np.testing.assert_array_equal(*arrays, err_msg=name)


@pytest.mark.parametrize("settings", [SETTINGS, TILES], ids=["slices", "tiles"])
def test_stored_regions_are_those_of_the_encoder_and_give_the_same_labels(volume, tmp_path, settings):
    wanted = Wanted(volume, "classical", settings)
    features = embed(wanted, tmp_path / "features.zarr")
    store, source = Features(features).regions, wanted.open(Context())
    assert isinstance(source, RegionVectors) and len(store) == len(source.parts)
    rows = store.map(Box.whole(store.map(source.volume.box).shape))
    for number in range(len(store)):
        part, (first, arrays) = source.divided(number), store.part(number)
        inside = part.box.clip(source.volume.box)
        numbers = part.numbers[inside.relative_to(part.box).slices]
        np.testing.assert_array_equal(rows[inside.slices] - first, numbers)
        for name in ("vectors", "intensities", "edges"):
            np.testing.assert_array_equal(getattr(arrays, name), getattr(part.graph, name), err_msg=name)
    direct = segment(wanted, tmp_path / "direct.tif")
    stored = segment(Wanted(str(features)), tmp_path / "stored.tif")
    np.testing.assert_array_equal(voxels(stored), voxels(direct))


def test_labels_come_from_stored_regions_unless_others_are_asked_for(volume, tmp_path, monkeypatch):
    features = str(embed(Wanted(volume, "classical", SETTINGS), tmp_path / "features.zarr"))
    calls = []
    original = RegionVectors._divided
    monkeypatch.setattr(RegionVectors, "_divided", lambda *given: calls.append(1) or original(*given))
    segment(Wanted(features), tmp_path / "stored.tif")
    assert not calls
    segment(Wanted(features, settings=("regions.size=30",)), tmp_path / "other.tif")
    assert calls


def test_a_stop_or_a_kill_changes_no_byte(volume, tmp_path, monkeypatch):
    wanted = Wanted(volume, "classical", SETTINGS)
    whole = embed(wanted, tmp_path / "whole.zarr")
    parts = 0
    original = RegionVectors.divided

    def counted(source, number):
        nonlocal parts
        parts += 1
        return original(source, number)

    monkeypatch.setattr(RegionVectors, "divided", counted)
    with pytest.raises(Interrupted, match="stopped after 2 of 5 parts"):
        embed(wanted, tmp_path / "parts.zarr", context=Context(stopped=lambda: parts >= 2))
    growing = tmp_path / "parts.zarr.partial" / "store"
    half, ends = (zarr.open_group(growing, mode="r+")["regions"][name] for name in ("vectors", "ends"))
    half.append(np.ones((3, half.shape[1]), np.float16))  # what a killed process leaves
    ends.resize((ends.shape[0] + 1, 2))
    embed(wanted, tmp_path / "parts.zarr")
    assert parts == 5
    same(whole, tmp_path / "parts.zarr")


def test_arrays_that_were_not_all_made_are_made_again(volume, tmp_path):
    features = embed(Wanted(volume, "classical", SETTINGS), tmp_path / "features.zarr")
    expected = dict(zarr.open_group(features / "regions", mode="r").attrs)
    group = zarr.open_group(features, mode="r+")
    group.create_group("regions", overwrite=True).create_array("map", shape=(1, 1, 1), dtype="int32")
    store = Features(features, mode="r+")
    assert store.regions is None and len(store.divide(4, expected["settings"])) == 0
    assert dict(zarr.open_group(features / "regions", mode="r").attrs) == expected


@pytest.mark.parametrize("method", ["kmeans", "spectral"])
def test_cluster_looks_at_regions(volume, tmp_path, method):
    chosen = (f"cluster.method={method}", "cluster.sample=150")
    features = embed(Wanted(volume, "classical", (*SETTINGS, *chosen)), tmp_path / "features.zarr")
    found = cluster([features, features], tmp_path / "classes.safetensors")
    rows = len(zarr.open_group(features / "regions", mode="r")["vectors"][:])
    assert 150 <= load(found).metadata["sample"] <= 2 * rows and load(found).dim == 2 * Features(features).dim
    by_file = segment(Wanted(str(features)), tmp_path / "labels.tif", clusters=found)
    direct = Wanted(volume, "classical", (*SETTINGS, *chosen))
    again = segment(direct, tmp_path / "direct.tif", clusters=found)
    np.testing.assert_array_equal(voxels(by_file), voxels(again))
    assert len(np.unique(voxels(again))) > 1


def test_damaged_regions_are_named(volume, tmp_path):
    features = embed(Wanted(volume, "classical", SETTINGS), tmp_path / "features.zarr")
    ends = zarr.open_group(features, mode="r+")["regions"]["ends"]
    ends[0] = [10**6, 0]
    with pytest.raises(InputError, match="damaged features: its regions"):
        Wanted(str(features)).open(Context())
