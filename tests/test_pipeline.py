"""The verbs, end to end, on small phantoms: stages apart or in one go, resumed or not, any orientation."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vemseg import budget
from vemseg.catalog import bundled_weights
from vemseg.comparison import Scene
from vemseg.context import Context
from vemseg.dense import Wanted
from vemseg.drawing import Look
from vemseg.errors import InputError, Interrupted, MissingError, OutputExistsError, UsageError
from vemseg.features import Features
from vemseg.geometry import Box
from vemseg.phantom import Phantom
from vemseg.pipeline import evaluate as evaluating
from vemseg.pipeline import render as rendering
from vemseg.pipeline import segment as segmenting
from vemseg.pipeline.cluster import cluster
from vemseg.pipeline.embed import embed as compute_features
from vemseg.pipeline.evaluate import Comparison
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.train import Training, train
from vemseg.recipe import load_recipe
from vemseg.run import Run
from vemseg.volume import open_volume

TINY = [
    "model.dim=16",
    "model.depth=2",
    "model.heads=1",
    "model.fov=20",
    "model.decoder_dim=8",
    "model.decoder_depth=1",
    "model.decoder_heads=1",
    "train.steps=6",
    "train.batch=4",
    "train.log_every=2",
    "embed.stride=10",
    "cluster.sample=3000",
    "cluster.k=4",
]
UNET = [
    "model.fov=32",
    "model.view=24",
    "model.slices=4",
    "model.widths=[6,8]",
    "model.layers=1",
    "model.dim=5",
    "train.steps=4",
    "train.batch=4",
    "train.log_every=2",
    "cluster.sample=3000",
    "cluster.k=4",
]
SHAPE = (6, 61, 83)


def quiet(stage, fraction, detail=""):
    assert 0 <= fraction <= 1


def never():
    return False


def save(path, array, voxel_size=(16.0, 16.0, 16.0)):
    z, y, x = voxel_size
    meta = {"axes": "ZYX", "spacing": z, "unit": "nm"}
    tifffile.imwrite(path, array, imagej=True, resolution=(1 / x, 1 / y), metadata=meta)
    return str(path)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    return fetch_phantom(folder / "cell.tif", SHAPE, 3, (16.0, 16.0, 16.0), False)


@pytest.fixture(scope="module")
def model(phantom, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = load_recipe("maester-quick", TINY)
    return str(train(Training([str(phantom[0])], out, recipe), Context()))


@pytest.fixture(scope="module")
def dense_model(phantom, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "dense"
    return str(train(Training([str(phantom[0])], out, load_recipe("invariance", UNET)), Context()))


def wanted_of(path, options):
    """Take what names the vectors out of the options of a verb."""
    names = ("model", "voxel_size", "crop")
    settings = tuple(options.pop("settings", ()))
    return Wanted(
        str(path), settings=settings, **{name: options.pop(name) for name in names if name in options}
    )


def segment(path, out, *, stopped=never, **options):
    context = Context(report=quiet, stopped=stopped)
    return segmenting.segment(wanted_of(path, options), out, context=context, **options)


def embed(path, out, *, stopped=never, **options):
    context = Context(report=quiet, stopped=stopped)
    return compute_features(wanted_of(path, options), out, context=context, **options)


def evaluate(prediction, reference, *, out=None, overwrite=False, **options):
    comparison = Comparison(str(prediction), str(reference), **options)
    return evaluating.evaluate(comparison, out=out, overwrite=overwrite, context=Context(report=quiet))


def render(volume, out, *, overwrite=False, **options):
    look = Look(**{name: options.pop(name) for name in ("at", "style", "alpha", "slices") if name in options})
    scene = Scene(str(volume), **options)
    return rendering.render(scene, out, look, overwrite=overwrite, context=Context(report=quiet))


def labels_of(path):
    volume = open_volume(path)
    return volume.read(volume.box)


def test_phantom_files_are_the_phantom(phantom):
    grey, labels = phantom
    made = Phantom(SHAPE, 3)
    np.testing.assert_array_equal(labels_of(grey), made.read(Box.whole(SHAPE)))
    np.testing.assert_array_equal(labels_of(labels), made.labels(Box.whole(SHAPE)))
    assert open_volume(grey).voxel_size == pytest.approx((16.0, 16.0, 16.0))
    assert json.loads(grey.with_suffix(".json").read_text())["phantom"]["seed"] == 3


def test_run_explains_itself(model):
    run = Run.open(Path(model))
    assert run.finished
    assert run.info["volumes"][0]["voxel_size_nm"] == pytest.approx([16.0, 16.0, 16.0])
    assert [line["step"] for line in run.read_metrics()] == [2, 4, 6]
    assert {"recipe.toml", "run.json", "metrics.jsonl", "model.safetensors", "curve.png"} <= {
        p.name for p in run.path.iterdir()
    }
    assert list(run.path.glob("reconstruction-*.png"))


def test_segment_leaves_labels_and_what_explains_them(phantom, model, tmp_path):
    out = segment(phantom[0], tmp_path / "seg.tif", model=model)
    labels = labels_of(out)
    assert labels.shape == SHAPE and set(np.unique(labels)) == {1, 2, 3, 4}
    assert open_volume(out).voxel_size == pytest.approx((16.0, 16.0, 16.0))
    about = json.loads((tmp_path / "seg.json").read_text())
    assert about["kind"] == "segmentation"
    assert about["parents"][0]["path"].endswith("model.safetensors")
    assert [c["voxels"] for c in about["classes"]] == np.bincount(labels.ravel())[1:].tolist()
    grey = [c["mean_intensity_in_sample"] for c in about["classes"]]
    assert grey == sorted(grey)
    rows = (tmp_path / "seg.csv").read_text().splitlines()
    assert rows[0].startswith("label,name,voxels") and len(rows) == 5
    assert {p.name for p in tmp_path.iterdir()} == {
        "seg.tif", "seg.json", "seg.csv", "seg_qc.png", "seg_clusters.safetensors"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["tiny", pytest.param("classical", marks=pytest.mark.slow)])
def test_stages_apart_give_the_labels_of_one_go(phantom, model, tmp_path, name):
    chosen = model if name == "tiny" else "classical"
    settings = ["cluster.sample=3000", "cluster.k=4"]
    whole = segment(phantom[0], tmp_path / "whole.tif", model=chosen, settings=settings)
    features = embed(phantom[0], tmp_path / "f.zarr", model=chosen, settings=settings)
    stored = Features(features)
    scale = "standardise" if name == "classical" else "none"
    told = []
    clusters = cluster(
        [features],
        tmp_path / "c.safetensors",
        settings=["cluster.k=4", "cluster.sample=3000", f"cluster.scale={scale}"],
        context=Context(report=lambda *say: told.append(say)),
    )
    assert [say[0] for say in told if say[1] == 1.0] == ["sampling", "clustering"]
    assert told[-1][2].endswith(" vectors into 4 classes")
    apart = segment(phantom[0], tmp_path / "apart.ome.zarr", model=chosen, clusters=clusters)
    from_features = segment(features, tmp_path / "features.tif", clusters=clusters)
    np.testing.assert_array_equal(labels_of(apart), labels_of(whole))
    np.testing.assert_array_equal(labels_of(from_features), labels_of(whole))
    assert stored.source_shape == SHAPE


def test_same_command_twice_does_nothing_and_other_settings_are_refused(phantom, model, tmp_path):
    out = segment(phantom[0], tmp_path / "seg.tif", model=model)
    before = out.stat().st_mtime_ns
    assert segment(phantom[0], out, model=model).stat().st_mtime_ns == before
    with pytest.raises(OutputExistsError, match=r"cluster\.k 4 there, 3 now"):
        segment(phantom[0], out, model=model, settings=["cluster.k=3"])
    assert (
        labels_of(segment(phantom[0], out, model=model, settings=["cluster.k=3"], overwrite=True)).max() == 3
    )


def test_a_stopped_segmentation_goes_on_and_gives_the_same(phantom, model, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "MOST_VOXELS", 61 * 83)
    whole = labels_of(segment(phantom[0], tmp_path / "whole.tif", model=model))
    monkeypatch.setattr("vemseg.dense.computed.ComputedVectors.holding_bytes", lambda *_: 0)
    out = tmp_path / "seg.tif"
    asked = []
    with pytest.raises(
        Interrupted, match=r"stopped after 2 of \d+ places of the sample: the same command goes"
    ):
        segment(phantom[0], out, model=model, stopped=lambda: bool(asked.append(1)) or len(asked) > 2)
    assert {path.name for path in tmp_path.glob("seg*")} == {"seg.tif.partial"}

    def blocks():
        return len(list((tmp_path / "seg.tif.partial" / "done").glob("*.json")))

    with pytest.raises(Interrupted, match=r"stopped after \d of 6 blocks"):
        segment(phantom[0], out, model=model, stopped=lambda: blocks() > 0)
    assert not out.exists() and 0 < blocks() < 6
    with pytest.raises(OutputExistsError, match="begun earlier"):
        segment(phantom[0], out, model=model, settings=["cluster.k=3"])
    np.testing.assert_array_equal(labels_of(segment(phantom[0], out, model=model)), whole)
    assert not (tmp_path / "seg.tif.partial").exists()


def test_clusters_keep_their_numbers_on_another_volume(phantom, model, tmp_path):
    first = segment(phantom[0], tmp_path / "a.tif", model=model)
    other = tmp_path / "other.tif"
    shutil.copy(phantom[0], other)
    second = segment(other, tmp_path / "b.tif", model=model, clusters=tmp_path / "a_clusters.safetensors")
    np.testing.assert_array_equal(labels_of(first), labels_of(second))
    with pytest.raises(InputError, match="another model"):
        segment(other, tmp_path / "c.tif", model="classical", clusters=tmp_path / "a_clusters.safetensors")


def test_the_sharp_plane_may_lie_anywhere(phantom, model, tmp_path):
    cell = labels_of(phantom[0])
    flat = save(tmp_path / "flat.tif", cell, (40.0, 16.0, 16.0))
    upright = save(
        tmp_path / "upright.tif", np.ascontiguousarray(cell.transpose(1, 0, 2)), (16.0, 40.0, 16.0)
    )
    a = labels_of(segment(flat, tmp_path / "a.tif", model=model))
    b = labels_of(segment(upright, tmp_path / "b.tif", model=model))
    np.testing.assert_array_equal(b.transpose(1, 0, 2), a)


def test_another_resolution_comes_back_on_its_own_grid(phantom, model, tmp_path):
    fine = np.kron(labels_of(phantom[0])[:2], np.ones((2, 2, 2), np.uint8))
    path = save(tmp_path / "fine.tif", fine, (8.0, 8.0, 8.0))
    out = segment(path, tmp_path / "fine_seg.ome.zarr", model=model)
    assert open_volume(out).shape == fine.shape
    assert open_volume(out).voxel_size == pytest.approx((8.0, 8.0, 8.0))


def test_crop_and_plane_images(phantom, model, tmp_path):
    cell = labels_of(phantom[0])
    out = segment(
        phantom[0], tmp_path / "crop.tif", model=model, crop="1:4,10:50,:", settings=["cluster.k=2"]
    )
    assert labels_of(out).shape == (3, 40, 83)
    tifffile.imwrite(tmp_path / "plane.tif", cell[0])
    flat = segment(tmp_path / "plane.tif", tmp_path / "plane_seg.tif", model=model)
    assert labels_of(flat).shape == (1, 61, 83)
    assert open_volume(flat).voxel_size is None


def test_volumes_smaller_than_a_field_of_view(model, tmp_path):
    cell = Phantom((3, 24, 15), 1).read(Box.whole((3, 24, 15)))
    out = segment(
        save(tmp_path / "small.tif", cell), tmp_path / "s.tif", model=model, settings=["cluster.k=2"]
    )
    assert labels_of(out).shape == (3, 24, 15)


def test_evaluate_prints_both_protocols_and_writes_them(phantom, tmp_path):
    found = evaluate(str(phantom[1]), str(phantom[1]), out=tmp_path / "m.json")
    assert [s.assignment.name for s in found.tables] == ["hungarian", "majority", "greedy"]
    present = [c for c in found.classes if c != 0]
    for scores in found.tables:
        assert all(scores.dice[found.classes.index(c)] == 1.0 for c in present)
    written = json.loads((tmp_path / "m.json").read_text())
    assert written["voxels"] == np.prod(SHAPE)
    assert written["protocols"][0]["uses_reference"]
    assert (tmp_path / "m_greedy.png").exists() and (tmp_path / "m_slices.png").exists()


def test_evaluate_by_hand(tmp_path):
    predicted = np.array([[[1, 1, 2, 2], [3, 3, 0, 0]]], np.uint8)
    wanted = np.array([[[5, 5, 5, 7], [7, 7, 7, 7]]], np.uint8)
    mask = np.array([[[1, 1, 1, 1], [1, 1, 1, 0]]], np.uint8)
    paths = [save(tmp_path / f"{n}.tif", a) for n, a in (("p", predicted), ("w", wanted), ("m", mask))]
    found = evaluate(paths[0], paths[1], mask=paths[2], mapping={1: 5, 2: 5, 3: 7})
    manual = {s.assignment.name: s for s in found.tables}["manual"]
    assert manual.dice.tolist() == pytest.approx([2 * 3 / (4 + 3), 2 * 2 / (2 + 4)])
    hungarian = found.tables[0]
    assert hungarian.dice.tolist() == pytest.approx([2 * 2 / (2 + 3), 2 * 2 / (2 + 4)])
    ignored = evaluate(paths[0], paths[1], ignore=[7])
    assert ignored.voxels == 3


def test_evaluate_refuses_what_does_not_fit(phantom, tmp_path):
    small = save(tmp_path / "small.tif", np.ones((2, 3, 4), np.uint8))
    with pytest.raises(InputError, match="shape"):
        evaluate(small, str(phantom[1]))
    with pytest.raises(InputError, match="no voxel is left"):
        evaluate(small, small, ignore=[1])
    grey = save(tmp_path / "grey.tif", np.full((2, 3, 4), 0.5, np.float32))
    with pytest.raises(InputError, match="integers"):
        evaluate(grey, small)
    with pytest.raises(InputError, match="names labels"):
        evaluate(small, small, mapping={9: 1})
    with pytest.raises(InputError, match="label 0 of a prediction stands for no class"):
        evaluate(small, small, mapping={0: 1, 1: 1})


def test_an_output_is_never_an_input_nor_somebody_elses_file(phantom, model, tmp_path):
    cell = tmp_path / "cell.tif"
    shutil.copy(phantom[0], cell)
    before = cell.read_bytes()
    with pytest.raises(UsageError, match="is an input"):
        segment(cell, cell, model=model, overwrite=True)
    assert cell.read_bytes() == before
    (tmp_path / "seg.csv").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"seg\.csv exists and does not belong"):
        segment(cell, tmp_path / "seg.tif", model=model)
    assert (tmp_path / "seg.csv").read_text() == "mine"
    for text in ("[1, 2]", "mine"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(OutputExistsError, match=r"other\.json exists and does not belong"):
            segment(cell, tmp_path / "other.tif", model=model)
    (tmp_path / "f.zarr").mkdir()
    (tmp_path / "f.zarr" / "keep").write_text("mine")
    with pytest.raises(InputError, match="no features"):
        embed(cell, tmp_path / "f.zarr", model=model, overwrite=True)
    assert (tmp_path / "f.zarr" / "keep").exists()


def test_two_outputs_of_one_stem_do_not_mix_up_their_descriptions(phantom, model, tmp_path):
    segment(phantom[0], tmp_path / "seg.tif", model=model)
    with pytest.raises(OutputExistsError, match=r"seg\.json exists and belongs to seg\.tif"):
        segment(phantom[0], tmp_path / "seg.ome.zarr", model=model, settings=["cluster.k=3"])


def test_killed_after_publishing_is_done(phantom, model, tmp_path):
    out = segment(phantom[0], tmp_path / "seg.tif", model=model)
    state = json.loads((tmp_path / "seg.json").read_text())["state"]
    partial = tmp_path / "seg.tif.partial"
    (partial / "store").mkdir(parents=True)
    (partial / "state.json").write_text(json.dumps({"state": state, "main": "seg.tif", "replaces": False}))
    assert segment(phantom[0], out, model=model) == out
    assert not partial.exists()


def test_markers_without_their_store_count_for_nothing(phantom, model, tmp_path):
    whole = labels_of(segment(phantom[0], tmp_path / "seg.tif", model=model))
    state = json.loads((tmp_path / "seg.json").read_text())["state"]
    (tmp_path / "seg.tif").unlink()
    partial = tmp_path / "seg.tif.partial"
    (partial / "done").mkdir(parents=True)
    (partial / "done" / "000000.json").write_text("[0, 1, 1, 1, 1]")
    (partial / "state.json").write_text(json.dumps({"state": state, "main": "seg.tif", "replaces": False}))
    np.testing.assert_array_equal(labels_of(segment(phantom[0], tmp_path / "seg.tif", model=model)), whole)


def test_a_stopped_embedding_goes_on_and_gives_the_same(phantom, model, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "MOST_VOXELS", 2**5)
    whole = Features(embed(phantom[0], tmp_path / "whole.zarr", model=model))
    asked = []
    out = tmp_path / "f.zarr"
    with pytest.raises(Interrupted):
        embed(phantom[0], out, model=model, stopped=lambda: bool(asked.append(1)) or len(asked) > 2)
    assert not out.exists()
    features = Features(embed(phantom[0], out, model=model))
    box = Box.whole(features.shape)
    np.testing.assert_array_equal(features.vectors(box), whole.vectors(box))
    assert embed(phantom[0], out, model=model) == out
    with pytest.raises(OutputExistsError, match=r"embed\.stride"):
        embed(phantom[0], out, model=model, settings=["embed.stride=15"])


def test_not_a_number_is_found_wherever_it_is(phantom, model, tmp_path):
    segment(phantom[0], tmp_path / "a.tif", model=model)
    cell = labels_of(phantom[0]).astype(np.float32)
    cell[4, 33, 44] = np.nan
    path = save(tmp_path / "bad.tif", cell)
    with pytest.raises(InputError, match=r"(?i)not-a-number|nan"):
        segment(path, tmp_path / "b.tif", model=model, clusters=tmp_path / "a_clusters.safetensors")
    assert not (tmp_path / "b.tif").exists()


def test_features_settle_what_they_were_made_with(phantom, model, tmp_path):
    features = embed(phantom[0], tmp_path / "f.zarr", model=model)
    for option in ({"crop": "0:2,:,:"}, {"model": "classical"}, {"voxel_size": "8"}):
        with pytest.raises(UsageError, match="they were made with"):
            segment(features, tmp_path / "x.tif", **option)


@pytest.mark.parametrize("name", ["cell.tif", "cell.ome.zarr"])
def test_a_phantom_tells_how_much_of_it_is_painted(tmp_path, name):
    told = []
    context = Context(report=lambda *words: told.append(words[1]))
    fetch_phantom(tmp_path / name, (70, 40, 300), 1, (16.0, 16.0, 16.0), False, context)
    assert len(told) >= 4 and told == sorted(set(told)) and told[-1] == 1.0


def test_the_same_phantom_twice_is_made_once(tmp_path):
    made = fetch_phantom(tmp_path / "cell.tif", (4, 30, 30), 1, (16.0, 16.0, 16.0), False)
    before = made[0].stat().st_mtime_ns
    assert fetch_phantom(tmp_path / "cell.tif", (4, 30, 30), 1, (16.0, 16.0, 16.0), False) == made
    assert made[0].stat().st_mtime_ns == before
    made[0].unlink()
    assert fetch_phantom(tmp_path / "cell.tif", (4, 30, 30), 1, (16.0, 16.0, 16.0), False)[0].exists()
    with pytest.raises(OutputExistsError):
        fetch_phantom(tmp_path / "cell.tif", (4, 30, 30), 2, (16.0, 16.0, 16.0), False)


def test_labels_of_the_first_corner_are_drawn_and_scored(phantom, tmp_path):
    grey, labels = map(str, phantom)
    few = ["cluster.k=3", "cluster.restarts=1"]
    small = segment(grey, tmp_path / "small.tif", model="classical", settings=few, crop="0:2,0:24,0:24")
    assert len(render(grey, tmp_path / "r", labels=str(small))) > 1
    assert evaluate(str(small), labels).voxels == 2 * 24 * 24


def test_render_draws_what_it_is_given(phantom, tmp_path):
    grey, labels = map(str, phantom)
    alone = render(grey, tmp_path / "a")
    assert [p.name for p in alone] == ["cell_planes.png", "cell_montage.png"]
    full = render(grey, tmp_path / "b", labels=labels, reference=labels, at="2,20,30")
    assert full[-1].name == "cell_comparison.png" and all(p.stat().st_size > 10_000 for p in full)
    assert render(grey, tmp_path / "a") == alone
    with pytest.raises(OutputExistsError, match=r"made otherwise \(slices 8 there, 3 now\)"):
        render(grey, tmp_path / "a", slices=3)
    render(grey, tmp_path / "a", slices=3, overwrite=True)
    with pytest.raises(UsageError, match="outside"):
        render(grey, tmp_path / "c", at="99,0,0")
    assert not (tmp_path / "c").exists()


def test_models_that_are_none(phantom, tmp_path):
    for name, error in (
        ("nothing", MissingError),
        ("maester-quick", InputError),
        (str(tmp_path), InputError),
        (str(tmp_path / "no.pt"), MissingError),
    ):
        with pytest.raises(error):
            segment(phantom[0], tmp_path / "x.tif", model=name)
    assert not list(tmp_path.glob("x*"))


def test_bad_volumes_leave_nothing(model, tmp_path):
    with pytest.raises(InputError, match="constant"):
        segment(save(tmp_path / "c.tif", np.full(SHAPE, 7, np.uint8)), tmp_path / "x.tif", model=model)
    bad = Phantom(SHAPE, 3).read(Box.whole(SHAPE)).astype(np.float32)
    bad[2] = np.nan
    with pytest.raises(InputError, match=r"(?i)not-a-number|nan|infinite"):
        segment(save(tmp_path / "n.tif", bad), tmp_path / "x.tif", model=model)
    with pytest.raises(UsageError, match="sample of"):
        segment(
            save(tmp_path / "t.tif", bad[:1, :20, :20]),
            tmp_path / "x.tif",
            model=model,
            settings=["cluster.k=200"],
        )
    assert not list(tmp_path.glob("x.tif"))


@pytest.mark.slow
def test_reference_checkpoint_is_a_model(phantom, tmp_path):
    import torch

    state = torch.load(Path(__file__).parent / "golden" / "maester_small_weights.pt", weights_only=True)
    torch.save(state, tmp_path / "released.pt")
    out = segment(
        phantom[0], tmp_path / "r.tif", model=str(tmp_path / "released.pt"), settings=["cluster.k=3"]
    )
    assert set(np.unique(labels_of(out))) == {1, 2, 3}


@pytest.mark.skipif("maester" not in bundled_weights(), reason="no weights are bundled yet")
def test_bundled_weights_segment_without_a_model_named(phantom, tmp_path, caplog):
    with caplog.at_level("INFO", logger="vemseg"):
        out = segment(phantom[0], tmp_path / "b.tif", settings=["cluster.k=3"])
    assert "bundled weights 'vemseg'" in caplog.text
    assert set(np.unique(labels_of(out))) == {1, 2, 3}


@pytest.mark.parametrize("planes", ["one", "three"])
@pytest.mark.parametrize("smooth", [0.0, 1.5])
def test_dense_stages_apart_give_the_labels_of_one_go(phantom, dense_model, tmp_path, planes, smooth):
    settings = [f"embed.planes={planes}", f"embed.smooth={smooth}"]
    options = {"model": dense_model, "settings": settings}
    whole = segment(phantom[0], tmp_path / "whole.tif", **options)
    features = embed(phantom[0], tmp_path / "f.zarr", **options)
    clusters = cluster([features], tmp_path / "c.safetensors")
    apart = segment(phantom[0], tmp_path / "apart.tif", clusters=clusters, **options)
    from_features = segment(features, tmp_path / "features.tif", clusters=clusters)
    assert set(np.unique(labels_of(whole))) == {1, 2, 3, 4}
    np.testing.assert_array_equal(labels_of(apart), labels_of(whole))
    np.testing.assert_array_equal(labels_of(from_features), labels_of(whole))
