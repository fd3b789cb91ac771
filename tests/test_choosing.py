"""The number of classes, chosen without labels: what is measured and suggested, and what the verbs do."""

import csv
import itertools
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from vemseg.cli import app
from vemseg.context import Context
from vemseg.dense import ComputedVectors, Wanted
from vemseg.errors import InputError, Interrupted, OutputExistsError, UsageError
from vemseg.labelling import Choice, Sample, choosing, fit, load
from vemseg.labelling.choosing import Tried, choose, find_classes, suggested
from vemseg.labelling.criteria import agreements, explained, kept_information, smallest
from vemseg.pipeline.cluster import cluster
from vemseg.pipeline.embed import embed
from vemseg.pipeline.fetch import fetch_phantom
from vemseg.pipeline.plan import plan
from vemseg.pipeline.segment import segment
from vemseg.recipe import KMeansTable, NamedTable, load_recipe, override, parse_recipe

QUICK = ("cluster.sample=2000", "cluster.restarts=2")


def sample_of(vectors):
    return Sample(vectors.astype(np.float16), vectors[:, 0].astype(np.float32))


def blobs(n=3000, centres=5, dim=6, seed=0):
    """Return the same number of vectors around each of some centres that lie far apart, in no order."""
    rng = np.random.default_rng(seed)
    blob = rng.permutation(np.arange(n) % centres)
    return sample_of(6 * np.eye(centres, dim)[blob] + 0.3 * rng.normal(size=(n, dim))), blob


def noise(n=3000, dim=8):
    return sample_of(np.random.default_rng(1).normal(size=(n, dim)))


def table(first=3, last=8, **settings):
    return KMeansTable(**{"k_range": (first, last), "restarts": 3, "sample": 5000} | settings)


# What is measured


def slow_agreement(a, b):
    """Count pairs of vectors one by one: the adjusted Rand index of Hubert and Arabie."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    both = sum(a[i] == a[j] and b[i] == b[j] for i, j in pairs)
    in_a, in_b = (sum(x[i] == x[j] for i, j in pairs) for x in (a, b))
    chance = in_a * in_b / len(pairs)
    return (both - chance) / ((in_a + in_b) / 2 - chance)


def test_agreement_is_that_of_counted_pairs_corrected_for_chance():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 4, 60)
    fits = [first, np.where(rng.random(60) < 0.3, rng.integers(0, 4, 60), first), rng.integers(0, 5, 60)]
    expected = [slow_agreement(a, b) for a, b in itertools.combinations(fits, 2)]
    np.testing.assert_allclose(agreements(fits), expected)
    assert expected[0] > 0.2 > abs(expected[1])  # the cases differ


def test_numbers_of_classes_do_not_matter_to_agreement():
    label = np.arange(40) % 4
    assert agreements([label, (label + 1) % 4])[0] == 1


def test_explained_variance_is_one_minus_what_is_left_within():
    rng = np.random.default_rng(0)
    data, label = rng.normal(size=(50, 3)), np.arange(50) % 3
    left = sum(((v - data[label == c].mean(0)) ** 2).sum() for v, c in zip(data, label, strict=True))
    assert explained(data, label) == pytest.approx(1 - left / ((data - data.mean(0)) ** 2).sum())
    assert explained(np.ones((50, 3)), label) == 0


def test_a_class_that_holds_nothing_is_the_smallest():
    assert smallest(np.array([0, 0, 2, 2]), 3) == 0
    assert smallest(np.array([0, 1, 2, 2]), 3) == 0.25


def test_kept_information_by_hand():
    certain = np.array([[50.0, 0, 0], [0, 50.0, 0], [0, 0, 50.0], [0, 0, 50.0]])
    assert kept_information(np.array([0, 1, 2, 2]), certain) == pytest.approx(1)
    assert kept_information(np.array([0, 0, 0, 0]), certain) == pytest.approx(0, abs=1e-12)
    # shares 1/4, 1/4, 1/2: 1.5 bits, of which one tells the third class from the rest
    assert kept_information(np.array([0, 0, 1, 1]), certain) == pytest.approx(1 / 1.5)
    assert kept_information(np.array([0, 1, 0, 1]), np.zeros((4, 3))) == pytest.approx(0, abs=1e-12)
    assert kept_information(np.array([0, 1, 0, 1]), np.zeros((4, 1))) == 0


# What is suggested


def test_separate_blobs_are_counted():
    sample, _ = blobs()
    choice = choose(table(), sample, 0, Context())
    by_k = {one.k: one for one in choice.curve}
    assert list(by_k) == [3, 4, 5, 6, 7, 8]
    assert choice.k == 5 and choice.stable
    assert (
        by_k[5].stability == 1
        and by_k[5].explained > 0.95
        and by_k[5].smallest == pytest.approx(0.2, abs=0.03)
    )
    assert max(by_k[k].stability for k in (6, 7, 8)) < 0.95


def test_noise_has_no_stable_number_and_says_so():
    choice = choose(table(), noise(), 0, Context())
    assert max(one.stability for one in choice.curve) < choosing.STABLE
    assert not choice.stable and "no K gives stable classes" in choice.reason


def test_the_same_seed_gives_the_same_choice_and_the_sample_is_left_as_it_was():
    sample = noise(1000)
    before = sample.vectors.copy()
    first, second = (choose(table(last=4), sample, 0, Context()) for _ in range(2))
    other = choose(table(last=4, seed=1), sample, 0, Context())
    assert first == second != other
    np.testing.assert_array_equal(sample.vectors, before)


def tried(k, stability, spread=0.0, kept=None):
    return Tried(k, stability, spread, 0.5, 0.1, kept)


def test_the_largest_of_the_most_stable_is_taken():
    curve = [tried(2, 0.90), tried(3, 0.91), tried(4, 0.87), tried(5, 0.8)]
    assert suggested(curve).k == 4
    wide = [tried(2, 0.90), tried(3, 0.91, spread=0.3), tried(4, 0.87), tried(5, 0.8)]
    assert suggested(wide).k == 5  # 0.11 behind, with an error of 0.12


def test_numbers_that_lose_what_the_encoder_knows_are_left_out():
    curve = [
        tried(2, 1.0, kept=0.3),
        tried(3, 0.9, kept=0.69),
        tried(4, 0.8, kept=0.7),
        tried(5, 0.7, kept=0.7),
    ]
    choice = suggested(curve)
    assert choice.k == 3 and "5% of what the encoder tells apart" in choice.reason
    assert suggested([one._replace(kept=None) for one in curve]).k == 2


def test_what_the_encoder_knows_is_in_the_first_numbers_of_a_vector():
    sample, blob = blobs(centres=4)
    logits = 20 * np.eye(4)[blob]
    wide = sample_of(np.concatenate([logits, 10 * sample.vectors.astype(np.float64)], axis=1))
    kept = [one.kept for one in choose(table(2, 5), wide, 4, Context()).curve]
    assert kept == pytest.approx([kept[0], kept[1], 1, 1], abs=0.01)
    assert kept[0] < kept[1] < 0.9
    assert all(one.kept is None for one in choose(table(2, 3), wide, 0, Context()).curve)


def test_a_choice_survives_being_kept():
    choice = suggested([tried(2, 0.9, kept=0.2), tried(3, 0.4, kept=0.3)])
    assert Choice.of(json.loads(json.dumps(choice.facts))) == choice


def test_a_sample_that_is_too_small_is_a_mistake_in_use():
    with pytest.raises(UsageError, match="30 vectors are too few to choose from up to 8 classes"):
        choose(table(), blobs(30)[0], 0, Context())


def test_vectors_that_are_no_numbers_are_refused_wherever_they_are():
    sample, _ = blobs(200)
    for place in range(200):  # held back, in a half, or in no part at all
        sample.vectors[place], before = np.nan, sample.vectors[place].copy()
        with pytest.raises(InputError, match="NaN or infinity"):
            choose(table(), sample, 0, Context())
        sample.vectors[place] = before


def test_choosing_says_how_far_it_is_and_stops_when_asked():
    told = []

    def report(stage, fraction, detail=""):
        told.append((stage, fraction))

    with pytest.raises(Interrupted, match="stopped while the number of classes was chosen"):
        choose(table(), blobs(500)[0], 0, Context(report=report, stopped=lambda: len(told) > 7))
    assert [stage for stage, _ in told] == ["choosing"] * 8
    assert [fraction for _, fraction in told] == pytest.approx(np.arange(8) / 36)


def test_classes_are_those_of_the_number_that_was_chosen():
    sample, _ = blobs()
    found = find_classes(table(), sample, None, Context())
    given = fit(table().of(5), sample)
    assert found.k == 5 and found.metadata["k"] == 5 and found.metadata["k_range"] == []
    np.testing.assert_array_equal(found.weight, given.weight)
    assert Choice.of(found.metadata["choice"]).k == 5
    assert "choice" not in find_classes(table().of(5), sample, None, Context()).metadata


# An encoder that knows classes


def knowing(classes=("a", "b", "c", "d")):
    """Return vectors of two pairs of blobs: the pairs lie far apart, and the encoder knows each blob."""
    blob = np.tile(np.arange(4), 750)
    noise = 0.3 * np.random.default_rng(2).normal(size=(750, 6)).repeat(4, axis=0)  # the same in each blob
    vectors = np.concatenate([8 * np.eye(4)[blob], 40 * np.eye(2)[blob // 2]], axis=1) + noise
    return replace(sample_of(vectors), classes=classes)


def test_the_information_that_is_kept_counts_where_the_encoder_has_classes():
    facts = find_classes(table(2, 3), knowing(), None, Context()).metadata["choice"]
    assert Choice.of(facts) == choose(table(2, 3), knowing(), 4, Context())
    assert [one["kept"] for one in facts["curve"]] == pytest.approx([0.5, 0.75], abs=0.02)
    assert facts["k"] == 3 and "of what the encoder tells apart" in facts["reason"]
    plain = find_classes(table(2, 3), knowing(()), None, Context()).metadata["choice"]
    assert plain["k"] == 2 and [one["kept"] for one in plain["curve"]] == [None, None]


def test_suggestions_are_made_where_the_number_was_chosen():
    found = find_classes(table(2, 5), knowing(), None, Context())
    rows = found.metadata["suggestions"]
    assert found.k == 4 and sorted(row["name"] for row in rows) == ["a", "b", "c", "d"]
    assert rows == fit(table().of(4), knowing()).metadata["suggestions"]
    assert "suggestions" not in find_classes(table(2, 3), knowing(()), None, Context()).metadata


def test_classes_that_are_known_have_no_range():
    assert "k_range" not in NamedTable.model_fields and NamedTable().k_range == ()
    assert "k_range" not in NamedTable().model_dump()
    for start in (["cluster.k=auto"], ["cluster.k_range=[3, 5]"], ["cluster.k=5"]):
        named = override(load_recipe(overrides=start), ["cluster.method=named"])
        assert (named.cluster.k, named.cluster.k_range) == (0, ())
    again = override(named, ["cluster.method=kmeans", "cluster.k=auto"])
    assert again.cluster.k_range == (4, 12)


@pytest.mark.parametrize("setting", ["k=auto", "k_range=[3, 5]"])
def test_a_range_for_classes_that_are_known_is_refused(setting):
    key = setting.partition("=")[0]
    says = rf"unknown key 'cluster\.{key}' \(a setting of cluster\.method kmeans"
    with pytest.raises(UsageError, match=says):
        load_recipe(overrides=["cluster.method=named", f"cluster.{setting}"])
    with pytest.raises(UsageError, match=says):
        override(load_recipe(overrides=["cluster.method=named"]), [f"cluster.{setting}"])


# The settings


def test_auto_is_a_range_and_the_largest_of_it_counts_for_the_memory():
    recipe = load_recipe(overrides=["cluster.k=auto"])
    assert (recipe.cluster.k, recipe.cluster.k_range) == (12, (4, 12))
    assert parse_recipe(recipe.to_toml(), "a test") == recipe
    assert override(recipe, ["cluster.seed=3"]).cluster.k_range == (4, 12)


def test_a_number_takes_the_place_of_a_range_and_the_other_way_round():
    ranged = load_recipe(overrides=["cluster.k_range=[3, 9]"])
    assert (ranged.cluster.k, ranged.cluster.k_range) == (9, (3, 9))
    fixed = override(ranged, ["cluster.k=5"])
    assert (fixed.cluster.k, fixed.cluster.k_range) == (5, ())
    assert override(fixed, ["cluster.k_range=[2, 4]"]).cluster.k == 4
    assert override(fixed, ["cluster.k=auto"]).cluster.k_range == (4, 12)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["cluster.k_range=[9, 3]"], "cluster.k_range must be two numbers, the smaller first, not [9, 3]"),
        (["cluster.k_range=[4]"], "cluster.k_range must be two numbers"),
        (["cluster.k_range=[1, 4]"], "cluster.k_range[0] must be at least 2, not 1"),
        (["cluster.k_range=[4, 300]"], "cluster.k must be at most 255, not 300"),
        (["cluster.k=some"], "cluster.k must be a whole number or auto, not 'some'"),
        (["cluster.k=5", "cluster.k_range=[4, 12]"], "do not go together"),
        (["cluster.method=linkage", "cluster.parts=8", "cluster.k=auto"], "cluster.parts must be at least"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(UsageError) as error:
        load_recipe(overrides=settings)
    assert says in str(error.value)


# The verbs


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    return fetch_phantom(tmp_path_factory.mktemp("cell") / "cell.tif", (12, 32, 32), 3, (16.0, 16.0, 16.0))[0]


@pytest.fixture(scope="module")
def features(cell):
    return embed(Wanted(str(cell), "classical"), cell.with_name("cell.zarr"))


def test_cluster_saves_the_classes_of_the_number_it_suggests(features, tmp_path, caplog):
    out = tmp_path / "c.safetensors"
    settings = [*QUICK, "cluster.k_range=[3, 5]"]
    with caplog.at_level(logging.INFO, "vemseg"):
        cluster([features], out, settings=settings)
    choice = Choice.of(load(out).metadata["choice"])
    assert f"took K = {choice.k}: the most classes" in caplog.text and "taking" not in caplog.text
    with (tmp_path / "c_k.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["k"]), float(row["stability"])) for row in rows] == [
        (t.k, t.stability) for t in choice.curve
    ]
    assert [int(row["k"]) for row in rows if row["chosen"] == "1"] == [choice.k] == [load(out).k]
    assert {path.name for path in tmp_path.iterdir()} == {out.name, f"{out.name}.json", "c_k.png", "c_k.csv"}
    with caplog.at_level(logging.INFO, "vemseg"):
        cluster([features], out, settings=settings)
    assert "is there already, made with the same settings" in caplog.text
    with pytest.raises(
        OutputExistsError, match=r"cluster\.k 5 there, 4 now; cluster\.k_range \[3, 5\] there"
    ):
        cluster([features], out, settings=[*QUICK, "cluster.k=4"])
    cluster([features], out, settings=[*QUICK, "cluster.k=4"], overwrite=True)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [out.name, f"{out.name}.json"]  # what it was chosen from is gone


def test_segment_chooses_stops_goes_on_and_keeps_the_choice(cell, tmp_path, monkeypatch):
    wanted = Wanted(str(cell), "classical", (*QUICK, "cluster.k_range=[3, 5]"))
    whole = segment(wanted, tmp_path / "whole.tif")
    stages, drawn = [], []
    draw = ComputedVectors._drawn
    monkeypatch.setattr(ComputedVectors, "held", lambda self, *args: self)
    monkeypatch.setattr(ComputedVectors, "_drawn", lambda *args: drawn.append(1) or draw(*args))

    def report(stage, fraction, detail=""):
        stages.append(stage)

    out = tmp_path / "stopped.tif"
    with pytest.raises(Interrupted, match="the same command goes on"):
        segment(wanted, out, context=Context(report=report, stopped=lambda: stages[-1:] == ["choosing"]))
    before = len(drawn)
    segment(wanted, out)
    assert before == len(drawn) > 0  # the sample was not drawn again
    np.testing.assert_array_equal(tifffile.imread(out), tifffile.imread(whole))
    about, kept = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("stopped", "whole"))
    assert about["choice"] == kept["choice"] and len(about["classes"]) == about["choice"]["k"]
    assert about["choice"] == load(tmp_path / "stopped_clusters.safetensors").metadata["choice"]
    assert (tmp_path / "stopped_k.png").stat().st_size > 1000
    written = out.stat().st_mtime_ns
    assert segment(wanted, out).stat().st_mtime_ns == written


def test_labels_of_a_given_number_have_no_choice(cell, tmp_path):
    segment(Wanted(str(cell), "classical", (*QUICK, "cluster.k=3")), tmp_path / "s.tif")
    assert json.loads((tmp_path / "s.json").read_text())["choice"] is None
    assert not (tmp_path / "s_k.png").exists()


def test_a_plan_says_that_the_number_is_to_be_chosen(cell, tmp_path, capfd):
    wanted = Wanted(str(cell), "classical", QUICK)
    assert plan(wanted, tmp_path / "s.tif").k_range == ()
    options = ["segment", str(cell), "-m", "classical", "--plan", "-o", str(tmp_path / "s.tif")]
    app([*options, "-k", "auto"], standalone_mode=False)
    assert "to be chosen: 4 to 12 are tried" in " ".join(capfd.readouterr().out.split())
    app([*options, "-k", "6"], standalone_mode=False)
    assert "to be chosen" not in capfd.readouterr().out


def test_the_command_prints_the_table_and_the_path(features, tmp_path, capfd):
    out = tmp_path / "c.safetensors"
    options = ["cluster", str(features), "--sample", "2000", "--restarts", "1", "-o", str(out)]
    app([*options, "--k-range", "3:4"], standalone_mode=False)
    done = capfd.readouterr()
    choice = Choice.of(load(out).metadata["choice"])
    assert done.out == f"{out}\n"
    assert [one.k for one in choice.curve] == [3, 4]
    assert all(f"{one.stability:.3f}" in done.err for one in choice.curve) and "kept inf." not in done.err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--k-range", "7"], "'7' is not a range: write 4:12"),
        (["--k-range", "4:b"], "'4:b' is not a range"),
        (["--k-range", "3:4", "-k", "3"], "-k and --k-range do not go together"),
        (["-k", "some"], "cluster.k must be a whole number or auto"),
        (["-k", "auto", "--classes", "named"], "-k and --classes named do not go together"),
        (["--k-range", "3:4", "--classes", "named"], "--k-range and --classes named do not go together"),
        (["--set", "cluster.method=named", "-k", "auto"], "unknown key 'cluster.k'"),
    ],
)
def test_the_command_refuses_what_is_no_range(features, tmp_path, capfd, given, says):
    with pytest.raises(SystemExit) as end:
        app(["cluster", str(features), "-o", str(tmp_path / "c.safetensors"), *given])
    assert end.value.code == 2 and says in capfd.readouterr().err
