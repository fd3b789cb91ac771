"""Crops of OpenOrganelle, from a local stand-in of the public bucket with the same layout."""

import json

import numpy as np
import pytest
import tensorstore
import zarr

from vemseg.catalog.openorganelle import ROOT, addresses
from vemseg.cli.fetch import openorganelle
from vemseg.context import Context
from vemseg.datasets.openorganelle import Part, write_part
from vemseg.errors import InputError, Interrupted, MissingError, OutputExistsError, UsageError
from vemseg.volume import open_labels, open_volume, record

SHAPE = (40, 96, 128)
ARRAY = np.random.default_rng(0).integers(0, 250, SHAPE, dtype=np.uint8)
MITO = (ARRAY > 125).astype(np.uint16)


def lay_bucket(folder):
    """Write a data set as Zarr and another as N5, laid out as in the bucket."""
    em = folder / "jrc_a" / "jrc_a.zarr" / "recon-1" / "em" / "fibsem-uint8"
    group = zarr.open_group(str(em), mode="w", zarr_format=2)
    levels = []
    for level, step in enumerate((1, 2)):
        part = ARRAY[::step, ::step, ::step]
        separator = {"name": "v2", "separator": "/"}
        array = group.create_array(
            f"s{level}", shape=part.shape, chunks=(8, 32, 32), dtype="u1", chunk_key_encoding=separator
        )
        array[...] = part
        scale = {"type": "scale", "scale": [5.24 * step, 4.0 * step, 4.0 * step]}
        shift = {
            "type": "translation",
            "translation": [2.62 * (step - 1), 2.0 * (step - 1), 2.0 * (step - 1)],
        }
        levels.append({"path": f"s{level}", "coordinateTransformations": [scale, shift]})
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels, "name": ""}]

    for place, voxels in (("em/fibsem-uint16", ARRAY.astype("u2") * 200), ("labels/mito_seg", MITO)):
        root = folder / "jrc_b" / "jrc_b.n5" / place
        metadata = {"dimensions": SHAPE[::-1], "blockSize": [32, 32, 8], "dataType": "uint16"}
        spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{root}/s0"}}
        compression = {"compression": {"type": "gzip"}}
        tensorstore.open(spec | {"metadata": metadata | compression}, create=True).result()[...] = voxels.T
        about = {"pixelResolution": {"dimensions": [4.0, 4.0, 5.24], "unit": "nm"}, "scales": [[1, 1, 1]]}
        (root / "attributes.json").write_text(json.dumps(about))


@pytest.fixture
def bucket(tmp_path, served):
    """Serve the data sets; return the address and the requests that came."""
    lay_bucket(tmp_path)
    return served


def test_a_crop_is_fetched_and_nothing_else(tmp_path, bucket):
    address, asked = bucket
    part = Part("jrc_a", "8:16,32:64,64:100", root=address)
    out = write_part(part, tmp_path / "crop.ome.zarr", overwrite=False, context=Context())
    volume = open_volume(out)
    np.testing.assert_array_equal(volume.read(volume.box), ARRAY[8:16, 32:64, 64:100])
    assert volume.voxel_size == pytest.approx((5.24, 4, 4))
    assert volume.origin == pytest.approx((8 * 5.24, 128, 256))
    chunks = {request for request in asked if "/s0/" in request and not request.endswith(".zarray")}
    assert {chunk.split("/s0/")[1] for chunk in chunks if "/" in chunk.split("/s0/")[1]} == {"1/1/2", "1/1/3"}
    said = record(out)["openorganelle"]
    assert said["address"].startswith(address) and said["crop"] == part.crop and "Heinrich" in said["cite"]
    before = len(asked)
    assert write_part(part, out, overwrite=False, context=Context(offline=True)) == out  # there already
    assert len(asked) == before
    other = Part("jrc_a", "0:8,:,:", root=address)
    with pytest.raises(OutputExistsError, match="was made otherwise"):
        write_part(other, out, overwrite=False, context=Context())


def test_levels_labels_and_n5(tmp_path, bucket):
    address, _ = bucket
    coarse = Part("jrc_a", "0:8,:,:", level="1", root=address)
    volume = open_volume(write_part(coarse, tmp_path / "c.tif", overwrite=False, context=Context()))
    np.testing.assert_array_equal(volume.read(volume.box), ARRAY[::2, ::2, ::2][:8])
    assert volume.voxel_size == pytest.approx((10.48, 8, 8))
    assert volume.origin == pytest.approx((2.62, 2, 2))
    grey = Part("jrc_b", "2:9,5:30,:", root=address)
    volume = open_volume(write_part(grey, tmp_path / "g.h5", overwrite=False, context=Context()))
    np.testing.assert_array_equal(volume.read(volume.box), ARRAY[2:9, 5:30].astype("u2") * 200)
    assert volume.voxel_size == pytest.approx((5.24, 4, 4))
    assert volume.origin == pytest.approx((10.48, 20, 0))
    mito = Part("jrc_b", "2:9,5:30,:", "labels/mito_seg", root=address)
    volume = open_labels(write_part(mito, tmp_path / "m.ome.zarr", overwrite=False, context=Context()))
    np.testing.assert_array_equal(volume.read(volume.box), MITO[2:9, 5:30])
    assert volume.labelled


def test_what_is_not_there_ends_in_one_line(tmp_path, bucket):
    address, _ = bucket
    out = tmp_path / "x.tif"
    whole = Context()
    for part, context, error, said in [
        (Part("jrc_c", "0:1,:,:", root=address), whole, MissingError, "no grey volume of jrc_c"),
        (Part("jrc_a", "0:1,:,:", "labels/er", root=address), whole, MissingError, "no labels/er of jrc_a"),
        (Part("jrc_a", "0:99,:,:", root=address), whole, UsageError, "0:99"),
        (Part("../a", "0:1,:,:", root=address), whole, UsageError, "is not a name in OpenOrganelle"),
        (Part("jrc_a", "0:1,:,:", root=address), Context(offline=True), MissingError, "--offline"),
        (Part("jrc_a", "0:1,:,:", root="http://127.0.0.1:9"), whole, InputError, "cannot be reached"),
        (Part("jrc_a", "0:9,:,:", root=address), Context(stopped=lambda: True), Interrupted, "stopped while"),
    ]:
        with pytest.raises(error, match=said) as caught:
            write_part(part, out, overwrite=False, context=context)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("x.*"))
    with pytest.raises(UsageError, match="give --crop"):
        openorganelle("jrc_a")


def test_the_public_bucket_is_asked_over_https():
    assert ROOT == "https://janelia-cosem-datasets.s3.amazonaws.com"
    found = addresses("jrc_hela-2", "labels/mito_seg")
    assert found == [
        f"{ROOT}/jrc_hela-2/jrc_hela-2.zarr/recon-1/labels/mito_seg",
        f"{ROOT}/jrc_hela-2/jrc_hela-2.n5/labels/mito_seg",
    ]
    assert addresses("jrc_hela-2")[0].endswith("jrc_hela-2.zarr/recon-1/em/fibsem-uint8")
