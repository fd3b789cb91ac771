"""Encoders that know classes by name: suggestions for clusters, named classes, how certain labels are."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch

from vemseg import budget
from vemseg.cli import tables, words
from vemseg.cli.segment import class_settings
from vemseg.context import Context
from vemseg.dense import RegionVectors, Wanted, interpolated, open_features
from vemseg.errors import InputError, Interrupted, OutputExistsError, UsageError
from vemseg.features import Features
from vemseg.geometry import Box
from vemseg.labelling import AffineLabeller, Sample, check, count, fit, load, suggestion_text
from vemseg.labelling.describing import SURE
from vemseg.labelling.telling import captions, suggestions
from vemseg.models import Filtered, ThreePlanes, build_encoder
from vemseg.models.building import differing_encoder
from vemseg.pipeline.cluster import cluster
from vemseg.pipeline.embed import embed
from vemseg.pipeline.extras import Extras
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.plan import plan
from vemseg.pipeline.segment import segment
from vemseg.pipeline.train import Training, train
from vemseg.recipe import KMeansTable, MixtureTable, NamedTable, RegionsTable, UNetTable, load_recipe
from vemseg.volume import open_volume, record

CLASSES = ("cytosol", "membrane", "mitochondrion")
SHAPE = (8, 36, 50)
SETTINGS = (
    "model.fov=32",
    "model.view=24",
    "model.slices=4",
    "model.widths=[6,8]",
    "model.layers=1",
    "model.dim=5",
    f"model.classes={list(CLASSES)}",
    "tissue.kinds=['neuropil']",
    "tissue.ratios=[1.0]",
    "tissue.held=2",
    "train.steps=3",
    "train.batch=4",
    "train.lr=0.01",
    "cluster.sample=2000",
    "cluster.restarts=2",
    "cluster.k=4",
)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    return fetch_phantom(tmp_path_factory.mktemp("cell") / "cell.tif", SHAPE, 3, (16.0, 16.0, 16.0), False)[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "run"
    return str(train(Training([], out, load_recipe("vemseg", SETTINGS)), Context()))


@pytest.fixture
def clusters(cell, model):
    return Wanted(str(cell), model)


@pytest.fixture
def named(cell, model):
    return Wanted(str(cell), model, ("cluster.method=named",))


def voxels(path):
    volume = open_volume(path)
    return volume.read(volume.box)


def logits(wanted):
    """Return the logits of every voxel, interpolated the slow way: (z, y, x, C)."""
    source = wanted.open(Context())
    values = source.values(Box.whole(source.shape)).float()[..., : len(CLASSES)]
    planes = [[] for _ in range(SHAPE[0])]
    for plane, _, strip in interpolated(values, source.interpolations(Box.whole(SHAPE))):
        planes[plane].append(strip)
    return torch.stack([torch.cat(strips) for strips in planes])


def cautious(wanted):
    """Return the scores of named classes of every voxel, the slow way: cytosol counts three times."""
    scores = logits(wanted)
    scores[..., 0] += math.log(3)
    return scores


# The contract


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("a", "b", "c", "d"), r"at most model\.dim \(3\) names, not 4"),
        (("a", "a"), "names that differ"),
        (("a", " "), "none of them empty"),
    ],
)
def test_names_of_classes_are_few_and_differ(names, says):
    with pytest.raises(ValueError, match=says):
        UNetTable(dim=3, classes=names)


def test_an_encoder_of_other_classes_is_another_encoder():
    one, other = (UNetTable(classes=names) for names in (CLASSES, CLASSES[:2]))
    assert differing_encoder(one, other) == ["model.classes"]
    assert differing_encoder(one, one) == []


def test_every_wrapper_passes_the_classes_on():
    encoder = build_encoder(UNetTable(fov=32, view=32, widths=(4,), layers=1, dim=4, classes=CLASSES)).eval()
    encoder.requires_grad_(False)
    assert encoder.classes == ThreePlanes(encoder).classes == CLASSES
    filtered = Filtered(ThreePlanes(encoder), (1.0,), (1.0, 1.0, 1.0))
    assert filtered.classes == CLASSES
    window = torch.rand(1, 1, 16, 40, 40)
    assert torch.equal(filtered.encode(window)[..., :3], ThreePlanes(encoder).encode(window)[..., :3].half())
    assert build_encoder(UNetTable(fov=32, view=32, widths=(4,))).classes == ()


def test_every_source_knows_the_classes_and_features_stored_before_have_none(clusters, tmp_path):
    source = clusters.open(Context())
    stored = open_features(embed(clusters, tmp_path / "f.zarr"), (), source.machine)
    table = RegionsTable(method="slic", size=9.0)
    sources = [source, source.held(Context()), stored, RegionVectors(source, table)]
    for one in sources:
        assert one.classes == CLASSES
        assert one.sample(50, 0, Context()).classes == CLASSES
        none = one.sample(0, 0, Context())
        assert none.vectors.shape == (0, one.dim) and none.classes == CLASSES
    features = Features(tmp_path / "f.zarr")
    del features.attributes["classes"]
    assert features.classes == ()


# Suggestions


def sample_of(n=900, seed=0):
    """Return vectors around three corners, with the logits of three classes in front."""
    rng = np.random.default_rng(seed)
    blob = rng.integers(0, 3, n)
    vectors = np.eye(3, 5)[blob] * [3, 4, 0.5, 0, 0] + 0.2 * rng.normal(size=(n, 5))
    return Sample(vectors.astype(np.float16), blob / 3, None, CLASSES)


def test_a_suggestion_is_the_likeliest_class_by_mean_probability():
    sample = sample_of()
    labeller = fit(KMeansTable(k=3, sample=900), sample)
    single = torch.from_numpy(sample.vectors).float()
    label = labeller.scores(single).argmax(dim=-1).numpy()
    slow = []
    for k in range(3):
        own = sample.vectors[label == k].astype(np.float64)[:, :3]
        probability = np.exp(own) / np.exp(own).sum(axis=1, keepdims=True)
        mean = probability.mean(axis=0)
        slow.append((CLASSES[mean.argmax()], mean.max()))
    assert [row["name"] for row in labeller.metadata["suggestions"]] == [name for name, _ in slow]
    found = [row["probability"] for row in labeller.metadata["suggestions"]]
    np.testing.assert_allclose(found, [p for _, p in slow], atol=1e-4)
    assert found[0] > SURE > found[2]  # a class that the encoder is sure of, and one it is not
    assert labeller.names == {1: "class 1", 2: "class 2", 3: "class 3"}


def test_without_classes_nothing_is_suggested_and_empty_classes_get_nothing():
    sample = sample_of()
    plain = fit(KMeansTable(k=3, sample=900), Sample(sample.vectors, sample.intensities))
    assert "suggestions" not in plain.metadata
    twice = np.repeat(np.eye(3, 5), 300, axis=0).astype(np.float16)
    mixture = fit(MixtureTable(k=3, sample=900), Sample(twice, np.arange(900.0), None, CLASSES))
    empty = [size == 0 for size in mixture.metadata["sizes"]]
    assert [row is None for row in mixture.metadata["suggestions"]] == empty


def test_suggestions_are_worded():
    assert suggestion_text("mitochondrion", 0.834) == "mitochondrion .83"
    assert suggestion_text("vesicle", 0.34) == "unsure (vesicle .34)"
    assert suggestion_text("membrane", 1.0) == "membrane 1.00"
    rows = [
        {"label": 1, "name": "class 1", "suggestion": "membrane", "suggestion_probability": 0.71},
        {"label": 2, "name": "granule", "suggestion": "vesicle", "suggestion_probability": 0.4},
        {"label": 3, "name": "class 3", "suggestion": None, "suggestion_probability": None},
        {"label": 4, "name": "class 4"},  # labels that were made before there were suggestions
    ]
    assert suggestions(rows) == {1: "membrane .71", 2: "unsure (vesicle .40)"}
    assert captions(rows) == {1: "class 1: membrane .71", 2: "granule", 3: "class 3", 4: "class 4"}


@pytest.mark.parametrize("name", ["seg.tif", "seg.ome.zarr"])
def test_suggestions_stand_wherever_classes_are_named(clusters, tmp_path, name):
    out = segment(clusters, tmp_path / name)
    expected = load(tmp_path / "seg_clusters.safetensors").metadata["suggestions"]
    assert len(expected) == 4 and all(row["name"] in CLASSES for row in expected)
    with (tmp_path / "seg.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["suggestion"] for row in rows] == [row["name"] for row in expected]
    probabilities = [row["probability"] for row in expected]
    assert [float(row["suggestion_probability"]) for row in rows] == probabilities
    classes = json.loads((tmp_path / "seg.json").read_text())["classes"]
    assert [row["suggestion_probability"] for row in classes] == probabilities
    words = [suggestion_text(row["name"], row["probability"]) for row in expected]
    assert record(out)["names"]["2"] == classes[1]["name"] == "class 2"
    assert record(out)["suggestions"] == {str(k): text for k, text in enumerate(words, start=1)}
    segment(clusters, out, extras=Extras({2: "membrane"}))
    assert record(out)["names"]["2"] == "membrane"
    assert record(out)["suggestions"]["2"] == words[1]  # what was suggested is still known


def test_the_table_of_classes_has_a_column_of_suggestions_where_there_are_any(capsys):
    from rich.console import Console

    row = {"label": 1, "name": "class 1", "fraction": 0.25, "volume_um3": None}
    suggested = {"suggestion": "membrane", "suggestion_probability": 0.71}
    Console(width=80).print(tables.class_table([row | suggested]))
    assert re.search(r"1 +class 1 +25\.0% +- +membrane \.71", capsys.readouterr().out)
    Console(width=80).print(tables.class_table([row]))
    assert "suggestion" not in capsys.readouterr().out


# Named classes


@pytest.mark.parametrize("caution", [1.0, 5.0])
def test_named_classes_are_the_first_numbers_of_a_vector_in_the_order_of_the_encoder(caution, tmp_path):
    table = NamedTable(caution=caution)
    sample = sample_of()
    bright_first = Sample(sample.vectors, -sample.intensities, None, CLASSES)
    for given in (sample, bright_first, Sample(sample.vectors[:0], sample.intensities[:0], None, CLASSES)):
        labeller = fit(table, given)
        single = torch.from_numpy(sample.vectors).float()
        wanted = single[:, :3] + torch.tensor([math.log(caution), 0.0, 0.0])
        assert torch.equal(labeller.scores(single), wanted)
        assert labeller.names == {1: "cytosol", 2: "membrane", 3: "mitochondrion"}
        assert labeller.exact_under_interpolation and labeller.rates
        assert "suggestions" not in labeller.metadata
    labeller.named({2: "ER"}).save(tmp_path / "named.safetensors")
    found = load(tmp_path / "named.safetensors")
    assert found.names == {1: "cytosol", 2: "ER", 3: "mitochondrion"}
    assert torch.equal(found.scores(single), labeller.scores(single))
    assert count(table, CLASSES) == 3 and count(KMeansTable(k=5), CLASSES) == 5
    with pytest.raises(InputError, match="weights are damaged"):
        found.scores(torch.full((2, 5), torch.nan))


def test_named_classes_need_an_encoder_that_knows_some(cell, tmp_path):
    with pytest.raises(UsageError, match=r"this model knows no classes by name: leave out --classes named"):
        segment(Wanted(str(cell), "classical", ("cluster.method=named",)), tmp_path / "seg.tif")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="models of 2 to 255 classes, not of 1"):
        check(NamedTable(), None, ("all",))
    with pytest.raises(UsageError, match=r"unknown key 'cluster\.k' \(a setting of cluster\.method kmeans"):
        load_recipe("vemseg", ["cluster.method=named", "cluster.k=3"])


def test_segment_gives_the_encoders_classes(named, cell, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "MOST_VOXELS", 36 * 50 * 2)
    told = []
    out = segment(named, tmp_path / "seg.tif", context=Context(report=lambda *say: told.append(say[0])))
    assert set(told) == {"segmenting"}  # no sample is drawn, and nothing is clustered
    np.testing.assert_array_equal(voxels(out), 1 + cautious(named).argmax(dim=-1).numpy())
    legend = {"1": "cytosol", "2": "membrane", "3": "mitochondrion"}
    assert record(out)["names"] == legend and "suggestions" not in record(out)
    rows = (tmp_path / "seg.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == list(CLASSES)

    assert segment(named, out, extras=Extras({2: "ER"})) == out  # renamed
    assert record(out)["names"] == legend | {"2": "ER"}
    segment(named, out, extras=Extras({}))
    assert record(out)["names"] == legend

    saved = tmp_path / "seg_clusters.safetensors"
    again = segment(Wanted(str(cell), named.model), tmp_path / "again.tif", clusters=saved)
    np.testing.assert_array_equal(voxels(again), voxels(out))
    assert record(again)["names"] == legend


def test_named_classes_come_from_stored_features_too(named, clusters, tmp_path):
    whole = voxels(segment(named, tmp_path / "whole.tif"))
    features = embed(clusters, tmp_path / "f.zarr")
    apart = segment(Wanted(str(features), None, ("cluster.method=named",)), tmp_path / "apart.tif")
    np.testing.assert_array_equal(voxels(apart), whole)
    found = cluster([features, features], tmp_path / "c.safetensors", settings=["cluster.method=named"])
    assert load(found).names[3] == "mitochondrion"
    by_file = segment(Wanted(str(features)), tmp_path / "by_file.tif", clusters=found)
    np.testing.assert_array_equal(voxels(by_file), whole)


def test_what_the_encoder_knows_counts_where_the_number_is_chosen(cell, model, tmp_path):
    settings = ("cluster.sample=2000", "cluster.restarts=1", "cluster.k_range=[2, 3]")
    wanted = Wanted(str(cell), model, settings)
    out = segment(wanted, tmp_path / "seg.tif")
    about = record(out)
    features = embed(Wanted(str(cell), model), tmp_path / "f.zarr")
    joined = load(cluster([features, features], tmp_path / "c.safetensors", settings=settings))
    for choice in (about["choice"], joined.metadata["choice"]):
        assert [one["k"] for one in choice["curve"]] == [2, 3]
        assert all(one["kept"] is not None for one in choice["curve"])
    assert len(joined.metadata["suggestions"]) == joined.k
    assert len(about["suggestions"]) == len(about["classes"]) == about["choice"]["k"]
    assert all(row["suggestion"] in CLASSES for row in about["classes"])


def test_a_plan_of_named_classes_draws_no_sample(named, clusters, tmp_path, monkeypatch):
    monkeypatch.setattr("vemseg.dense.probing.PROBE_SECONDS", 0.0)
    monkeypatch.setattr("vemseg.dense.computed.ComputedVectors.holding_bytes", lambda *_: 0)
    extras = Extras(confidence=tmp_path / "c.tif")
    found = plan(named, tmp_path / "seg.tif", extras=extras)
    assert found.sampling == 0 and plan(clusters, tmp_path / "seg.tif").sampling > 0
    assert found.disk == 2 * plan(named, tmp_path / "seg.tif").disk
    assert plan(clusters, tmp_path / "seg.tif", extras=extras).disk == found.disk


def test_options_on_classes():
    kinds = words.ClassKind
    nothing = {"cluster.k": None, "cluster.k_range": None, "cluster.method": None}
    assert class_settings(None, "5", None) == nothing | {"cluster.k": "5"}
    assert class_settings(kinds.clusters, "5", None) == nothing | {"cluster.k": "5"}
    assert class_settings(kinds.clusters, None, "3:5") == nothing | {"cluster.k_range": [3, 5]}
    assert class_settings(kinds.named, None, None) == nothing | {"cluster.method": "named"}
    for option, numbers in (("-k", ("5", None)), ("-k", ("auto", None)), ("--k-range", (None, "3:5"))):
        with pytest.raises(UsageError, match=f"^{option} and --classes named do not go together"):
            class_settings(kinds.named, *numbers)


# How certain labels are


def test_the_confidence_of_clusters_is_the_lead_of_the_best_beside_the_typical_lead():
    sample = sample_of()
    labeller = fit(KMeansTable(k=3, sample=900), sample)
    scores = labeller.scores(torch.from_numpy(sample.vectors).float())
    ordered = np.sort(scores.numpy(), axis=1)
    lead = ordered[:, -1] - ordered[:, -2]
    assert labeller.metadata["margin"] == pytest.approx(np.median(lead))
    found = labeller.confidence(scores).numpy()
    np.testing.assert_allclose(found, lead / (lead + np.median(lead)), rtol=1e-4)
    assert np.median(found) == pytest.approx(0.5, abs=1e-4)
    assert labeller.confidence(torch.tensor([[2.0, 2.0, 0.0]])).item() == 0  # on a border
    assert labeller.confidence(torch.tensor([[1e6, 2.0, 0.0]])).item() == pytest.approx(1, abs=1e-3)


def test_the_confidence_of_a_mixture_is_the_posterior():
    sample = sample_of()
    labeller = fit(MixtureTable(k=3, sample=900), sample)
    scores = labeller.scores(torch.from_numpy(sample.vectors).float())
    densities = scores.double().exp()
    slow = (densities / densities.sum(dim=1, keepdim=True)).amax(dim=1)
    torch.testing.assert_close(labeller.confidence(scores).double(), slow, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("labels", "confidence"), [("a.tif", "b.ome.zarr"), ("a.ome.zarr", "b.tif")])
def test_the_confidence_of_named_classes_is_their_probability(
    named, tmp_path, monkeypatch, labels, confidence
):
    monkeypatch.setattr(budget, "MOST_VOXELS", 36 * 50 * 2)
    out = segment(named, tmp_path / labels, extras=Extras(confidence=tmp_path / confidence))
    slow = 255 * cautious(named).softmax(dim=-1).amax(dim=-1).numpy()
    found = open_volume(tmp_path / confidence)
    certain = found.read(found.box)
    assert certain.dtype == np.uint8 and found.voxel_size == pytest.approx((16.0, 16.0, 16.0))
    assert np.abs(certain - slow).max() < 0.51
    assert not found.labelled and record(tmp_path / confidence)["labels"] == out.name
    np.testing.assert_array_equal(voxels(out), voxels(segment(named, tmp_path / "plain.tif")))
    assert not list(tmp_path.glob("*.partial"))


def test_the_confidence_of_regions_is_painted(clusters):
    source = clusters.open(Context())
    regions = RegionVectors(source, RegionsTable(method="slic", size=9.0))
    labeller = fit(KMeansTable(k=3), regions.sample(1000, 0, Context()), regions)
    whole = Box.whole(SHAPE)
    labels, certain = regions.rated(whole, regions.read(whole), labeller, ["confidence"])
    np.testing.assert_array_equal(labels, regions.labels(whole, regions.read(whole), labeller))
    for part in (regions.divided(number) for number in range(len(regions.parts))):
        confidence = labeller.confidence(labeller.graph_scores(part.graph)).numpy()
        np.testing.assert_array_equal(certain[part.box.slices], np.rint(255 * confidence)[part.numbers])


def test_labels_and_confidence_appear_together_and_go_on_after_a_stop(clusters, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "MOST_VOXELS", 36 * 50 * 2)
    whole = Extras(confidence=tmp_path / "whole_c.tif")
    segment(clusters, tmp_path / "whole.tif", extras=whole)
    out, extras = tmp_path / "seg.tif", Extras(confidence=tmp_path / "seg_c.ome.zarr")

    def written():
        return list((tmp_path / "seg.tif.partial" / "done").glob("*.json"))

    with pytest.raises(Interrupted, match=r"stopped after [123] of 4 blocks"):
        segment(clusters, out, extras=extras, context=Context(stopped=lambda: bool(written())))
    assert [path.name for path in tmp_path.glob("seg*")] == ["seg.tif.partial"]
    with pytest.raises(OutputExistsError, match=r"begun earlier .*confidence"):
        segment(clusters, out)
    segment(clusters, out, extras=extras)
    np.testing.assert_array_equal(voxels(out), voxels(tmp_path / "whole.tif"))
    np.testing.assert_array_equal(voxels(extras.confidence), voxels(whole.confidence))

    segment(clusters, out, extras=extras)  # there already
    with pytest.raises(OutputExistsError, match=r"confidence seg_c\.ome\.za"):
        segment(clusters, out)
    segment(clusters, out, overwrite=True)
    assert not extras.confidence.exists()  # it would belong to labels that are gone


def test_a_confidence_that_cannot_be_written_or_told_is_refused_at_once(clusters, cell, tmp_path):
    out = tmp_path / "seg.tif"
    for path, says in (
        (tmp_path / "c.png", "no suffix of a volume"),
        (tmp_path / "elsewhere" / "c.tif", "must lie"),
        (out, "is where the labels go"),
    ):
        with pytest.raises(UsageError, match=says):
            segment(clusters, out, extras=Extras(confidence=path))
    with pytest.raises(UsageError, match=r"cell\.tif is an input"):
        segment(clusters, cell.with_name("seg.tif"), extras=Extras(confidence=cell))
    saved = tmp_path / "c.safetensors"
    AffineLabeller.of_centres(np.eye(3, 5), {}).save(saved)
    with pytest.raises(InputError, match="do not say how far classes lie apart"):
        segment(clusters, out, clusters=saved, extras=Extras(confidence=tmp_path / "c.tif"))
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]
