"""What may not change a result: threads, memory, blocks, the format of the input; and what a crop keeps.

``docs/usage.md`` has the table of these promises and names the test of each.
"""

import numpy as np
import pytest
from commands import command

from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.features import Features
from vemseg.labelling import Sample, fit
from vemseg.labelling.columns import prepared
from vemseg.pipeline.embed import embed
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.segment import segment
from vemseg.recipe import load_recipe
from vemseg.volume import open_volume

SHAPE, SIZE = (12, 40, 56), (16.0, 16.0, 16.0)
QUICK = ("cluster.k=3", "cluster.sample=2000", "cluster.restarts=1")


def voxels(path):
    volume = open_volume(path)
    return volume.read(volume.box)


def vectors(path):
    features = Features(path)
    return np.asarray(features.vectors(features.inside))


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    return fetch_phantom(tmp_path_factory.mktemp("cell") / "cell.tif", SHAPE, 0, SIZE)[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_classes_do_not_depend_on_threads(programs, made, tmp_path, method):
    args = [*command("cluster", made), "--set", f"cluster.method={method}"]
    found = []
    for threads in "12":
        (place := tmp_path / threads).mkdir()
        ended = programs.run(place, *args, OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads)
        assert ended.code == 0, ended.err
        found.append((place / "three.safetensors").read_bytes())
    assert found[0] == found[1]


def test_fits_leave_the_threads_as_they_were(monkeypatch):
    import torch
    from threadpoolctl import threadpool_info

    seen = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(
        "vemseg.labelling.affine.prepared",
        lambda *given: (
            seen.append((torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info()}))
            or prepared(*given)
        ),
    )
    rng = np.random.default_rng(0)
    table = load_recipe("vemseg", ["cluster.k=2", "cluster.sample=100"]).cluster
    fit(table, Sample(rng.random((100, 3)).astype(np.float16), rng.random(100).astype(np.float32)))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert seen == [(1, {1})]


@pytest.mark.parametrize("model", ["vemseg", "classical"])
def test_vectors_do_not_depend_on_threads(cell, tmp_path, model):
    found = []
    for n in (1, 2):
        context = Context(device="cpu", threads=n)
        found.append(vectors(embed(Wanted(str(cell), model), tmp_path / f"{n}.zarr", context=context)))
    assert (found[0] == found[1]).all() and found[0].any()


@pytest.mark.slow
def test_labels_do_not_depend_on_memory_blocks_or_format(cell, tmp_path, monkeypatch):
    whole = segment(Wanted(str(cell), None, QUICK), tmp_path / "whole.tif", context=Context(device="cpu"))
    other = fetch_phantom(tmp_path / "cell.ome.zarr", SHAPE, 0, SIZE)[0]
    monkeypatch.setattr("vemseg.budget.MOST_VOXELS", 2**12)
    small = Context(device="cpu", memory=3 * 2**29, threads=2)
    parts = segment(Wanted(str(other), None, QUICK), tmp_path / "parts.ome.zarr", context=small)
    np.testing.assert_array_equal(voxels(parts), voxels(whole))
    assert np.unique(voxels(whole)).tolist() == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "offset"), [("classical", (1, 7, 5)), ("run", (0, 16, 16))])
def test_a_crop_has_the_labels_of_the_whole_where_its_border_is_far(made, cell, tmp_path, model, offset):
    """With the same classes and grey values; a network's crop begins at one of its coarsest pixels."""
    name = str(made / "run") if model == "run" else model
    more = ("embed.normalise=training", "embed.filters=[]") if model == "run" else ("model.sigmas=[1.0]",)
    ranged = (*QUICK, *more, "volume.intensity=range", "volume.range=[40,210]")
    context = Context(device="cpu", threads=1)
    whole = segment(Wanted(str(cell), name, ranged), tmp_path / "whole.tif", context=context)
    classes = tmp_path / "whole_clusters.safetensors"
    crop = ",".join(f"{first}:" for first in offset)
    wanted = Wanted(str(cell), name, ranged, crop=crop)
    part = segment(wanted, tmp_path / "part.tif", clusters=classes, context=context)
    reach = [max(far, 1) for far in wanted.open(context).covering.encoder.halo]
    inner = tuple(slice(None if at == 0 else far + 2, None) for far, at in zip(reach, offset, strict=True))
    expected = voxels(whole)[tuple(slice(first, None) for first in offset)]
    found = voxels(part)
    print(reach, expected[inner].shape, (expected != found).mean())
    np.testing.assert_array_equal(found[inner], expected[inner])
    assert found[inner].size > 1000
