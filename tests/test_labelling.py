"""Labellers: the classes they find, the order of these, their scores, and how they are saved."""

import itertools
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans, MiniBatchKMeans

import vemseg.labelling.centroids
import vemseg.labelling.columns
from vemseg.context import Context
from vemseg.errors import InputError, MissingError, UsageError
from vemseg.geometry import Box
from vemseg.labelling import Labeller, Sample, check, demands, load
from vemseg.labelling import fit as fit_labeller
from vemseg.labelling.joining import join_by_distance, join_by_entropy, join_by_overlap
from vemseg.labelling.mixture import LEAST_VARIANCE, MixtureLabeller
from vemseg.labelling.scaling import scaling
from vemseg.recipe import METHODS, ClusterTable, Method
from vemseg.run import load_tensors, save_tensors


def planted(rng, sizes, dim=8, spread=0.1):
    """Return Gaussian blobs: vectors float16, and the blob of each."""
    centres = 4 * np.eye(len(sizes), dim)
    blob = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = centres[blob] + spread * rng.normal(size=(len(blob), dim))
    return vectors.astype(np.float16), blob


def argmax(labeller, vectors):
    return labeller.scores(torch.from_numpy(vectors).float()).argmax(dim=-1).numpy()


def fit(vectors, intensities, table):
    return fit_labeller(table, Sample(vectors, intensities))


def table(method="kmeans", **settings):
    made = METHODS[method].table
    few = {"restarts": 3} if "restarts" in made.model_fields else {}
    return made(**({"k": 4, "seed": 1} | few | settings))


FITTED = [
    {"method": "kmeans"},
    {"method": "gmm"},
    {"method": "gmm", "components": 7},
    {"method": "linkage", "linkage": "ward", "parts": 12},
    {"method": "linkage", "linkage": "overlap", "parts": 12},
]
MINI = {"method": "minibatch", "restarts": 1}
SIZES = [700, 150, 400, 50]


@pytest.fixture
def blobs():
    return planted(np.random.default_rng(0), SIZES)


GREY = np.array([0.6, 0.2, 0.9, 0.4], np.float32)
DARK_TO_BRIGHT = [1, 3, 0, 2]


@pytest.mark.parametrize("scale", ["none", "standardise", "whiten"])
@pytest.mark.parametrize("method", FITTED)
def test_planted_clusters_are_found_and_numbered_from_dark_to_bright(blobs, method, scale):
    vectors, blob = blobs
    labeller = fit(vectors, GREY[blob], table(scale=scale, **method))
    assert (labeller.k, labeller.dim) == (4, 8)
    astray = 0 if "parts" not in method else 1  # of 1300, between parts that noise has cut
    assert (np.array(DARK_TO_BRIGHT)[argmax(labeller, vectors)] != blob).sum() <= astray
    assert labeller.metadata["sizes"] == pytest.approx([SIZES[i] for i in DARK_TO_BRIGHT], abs=astray)
    assert labeller.metadata["intensities"] == pytest.approx([GREY[i] for i in DARK_TO_BRIGHT], abs=0.01)
    assert labeller.metadata["sample"] == len(vectors)
    assert labeller.metadata["method"] == method["method"]
    assert labeller.metadata["scale"] == scale


def test_among_equally_bright_classes_the_larger_comes_first(blobs):
    vectors, _ = blobs
    labeller = fit(vectors, np.full(len(vectors), 0.5, np.float32), table())
    assert labeller.metadata["sizes"] == sorted(SIZES, reverse=True)


def test_numbers_do_not_depend_on_the_seed(blobs):
    vectors, blob = blobs
    first, *others = (argmax(fit(vectors, GREY[blob], table(seed=seed)), vectors) for seed in range(4))
    for other in others:
        np.testing.assert_array_equal(other, first)


def overlapping(rng, n=3000, dim=12):
    vectors = rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) + 3 * rng.normal(size=dim)
    return vectors.astype(np.float16)


@pytest.mark.parametrize("scale", ["none", "standardise"])
def test_the_best_score_is_the_nearest_centroid(scale):
    rng = np.random.default_rng(5)
    vectors = overlapping(rng)
    labeller = fit(vectors, vectors[:, 0].astype(np.float32), table(k=7, scale=scale))
    found = argmax(labeller, vectors)
    single = vectors.astype(np.float64)
    if scale == "standardise":
        single = (single - single.mean(axis=0)) / single.std(axis=0)
    centres = np.stack([single[found == k].mean(axis=0) for k in range(7)])
    distance = np.square(single[:, None] - centres).sum(axis=-1)
    best, second = np.sort(distance, axis=1)[:, :2].T
    clear = second - best > 0.05 * best  # centroids settle to scikit-learn's tolerance
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found[clear], distance.argmin(axis=1)[clear])


def test_scores_are_those_of_scikit_learn():
    vectors = overlapping(np.random.default_rng(6))
    settings = table(k=5, restarts=2)
    labeller = fit(vectors, vectors[:, 0].astype(np.float32), settings)
    order = np.random.default_rng([settings.seed, 0xC1]).permutation(len(vectors))
    reference = KMeans(5, n_init=2, max_iter=300, random_state=settings.seed)
    reference.fit(vectors[order].astype(np.float32))
    found, theirs = argmax(labeller, vectors), reference.predict(vectors.astype(np.float32))
    pairs = set(zip(found.tolist(), theirs.tolist(), strict=True))
    assert len(pairs) == 5  # the same classes under other numbers


@pytest.mark.parametrize("scale", ["none", "standardise"])
def test_mini_batches_are_those_of_scikit_learn(scale):
    vectors = overlapping(np.random.default_rng(2))
    settings = table("minibatch", k=5, scale=scale, batch=128, restarts=2)
    sample = Sample(vectors, vectors[:, 0].astype(np.float32))
    data, _ = vemseg.labelling.columns.prepared(settings, sample)
    theirs = MiniBatchKMeans(5, batch_size=128, n_init=2, random_state=1).fit(data)
    scaled = vectors.astype(np.float32)
    if scale == "standardise":
        scaled = (scaled - scaled.mean(axis=0)) / scaled.std(axis=0)
    pairs = np.stack([argmax(fit_labeller(settings, sample), vectors), theirs.predict(scaled)])
    kinds, counts = np.unique(pairs, axis=1, return_counts=True)
    assert counts[np.argsort(counts)[-5:]].sum() > 0.999 * len(vectors)  # the same classes, numbered anew
    assert len(np.unique(kinds[0])) == len(np.unique(kinds[1])) == 5


def test_the_whole_sample_refines_what_a_part_found(monkeypatch):
    vectors, blob = planted(np.random.default_rng(2), [800, 700, 600, 500], spread=1.2)
    labeller = fit(vectors, blob.astype(np.float32), table())
    monkeypatch.setattr(vemseg.labelling.centroids, "SEARCH", 200)
    from_part = fit(vectors, blob.astype(np.float32), table())
    assert np.mean(argmax(labeller, vectors) == argmax(from_part, vectors)) > 0.99
    np.testing.assert_allclose(from_part.weight, labeller.weight, atol=0.15)


def test_classes_that_only_the_whole_sample_shows_are_no_error(monkeypatch):
    monkeypatch.setattr(vemseg.labelling.centroids, "SEARCH", 50)
    vectors = np.zeros((5000, 3), np.float16)
    vectors[:4] = [[0, 0, 5], [0, 5, 0], [5, 0, 0], [5, 5, 5]]
    labeller = fit(vectors, vectors.mean(axis=1, dtype=np.float32), table())
    assert labeller.metadata["sizes"][0] >= 4996
    assert labeller.k == 4


def test_the_same_seed_gives_the_same_labeller():
    vectors = overlapping(np.random.default_rng(8))
    first, second = (fit(vectors, vectors[:, 0].astype(np.float32), table(k=6)) for _ in range(2))
    np.testing.assert_allclose(first.weight, second.weight, rtol=1e-5)
    np.testing.assert_allclose(first.bias, second.bias, rtol=1e-5)
    assert first.metadata == second.metadata


def test_standardised_classes_do_not_depend_on_the_features_scales():
    rng = np.random.default_rng(9)
    vectors = overlapping(rng)
    stretched = (vectors * 2.0 ** rng.integers(-4, 5, vectors.shape[1])).astype(np.float16)
    grey = vectors[:, 0].astype(np.float32)
    plain, other = (fit(v, grey, table(k=5, scale="standardise")) for v in (vectors, stretched))
    np.testing.assert_array_equal(argmax(plain, vectors), argmax(other, stretched))
    unlike = fit(stretched, grey, table(k=5))
    assert not np.array_equal(argmax(unlike, stretched), argmax(other, stretched))


def test_a_constant_feature_is_harmless_when_standardised(blobs):
    vectors, blob = blobs
    vectors = np.concatenate([vectors, np.full((len(vectors), 1), 0.1, np.float16)], axis=1)
    labeller = fit(vectors, GREY[blob], table(scale="standardise"))
    assert np.isfinite(labeller.weight).all()
    np.testing.assert_array_equal(np.array(DARK_TO_BRIGHT)[argmax(labeller, vectors)], blob)


def test_as_many_classes_as_vectors():
    vectors = np.arange(12, dtype=np.float16).reshape(4, 3)
    labeller = fit(vectors, np.arange(4, dtype=np.float32), table())
    assert argmax(labeller, vectors).tolist() == [0, 1, 2, 3]


def test_more_classes_than_vectors_is_a_mistake_in_use():
    with pytest.raises(UsageError, match="k = 4 classes cannot be fitted to a sample of 3"):
        fit(np.eye(3, dtype=np.float16), np.zeros(3, np.float32), table())


@pytest.mark.parametrize("method", ["kmeans", "minibatch", "gmm"])
@pytest.mark.parametrize("scale", ["none", "standardise", "whiten"])
def test_more_classes_than_distinct_vectors_is_a_fault_of_the_input(scale, method):
    vectors = np.repeat(np.eye(3, dtype=np.float16), 40, axis=0)
    with pytest.raises(InputError, match="k = 4 classes, but the sample has only 3 distinct vectors"):
        fit(vectors, np.zeros(120, np.float32), table(scale=scale, method=method))


@pytest.mark.parametrize("method", [{"method": "linkage", "parts": 5}, {"method": "gmm", "components": 5}])
def test_more_parts_than_distinct_vectors_is_a_fault_of_the_input(method):
    vectors = np.repeat(np.eye(4, dtype=np.float16), 30, axis=0)
    with pytest.raises(InputError, match="5 parts, but the sample has only 4 distinct vectors: lower their"):
        fit(vectors, np.zeros(120, np.float32), table(**method))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(blobs, bad):
    vectors, blob = blobs
    vectors[17, 3] = bad
    with pytest.raises(InputError, match="NaN or infinity"):
        fit(vectors, GREY[blob], table())


def test_the_sample_is_left_as_it_was(blobs):
    vectors, blob = blobs
    before = vectors.copy()
    fit(vectors, GREY[blob], table(scale="standardise"))
    np.testing.assert_array_equal(vectors, before)


# Balance between the classes of the encoder


def lopsided(n=4000):
    """Return logits of three classes and two more numbers, and the classes.

    Of the vectors, 94 % are of the first class and fall into four heaps; 3 % are of each other class.
    """
    rng = np.random.default_rng(0)
    classes = rng.choice(3, n, p=[0.94, 0.03, 0.03])
    vectors = rng.normal(0, 0.3, (n, 5))
    vectors[np.arange(n), classes] += 4
    vectors[classes == 0, 3:] += 3 * rng.choice([-1, 1], (int((classes == 0).sum()), 2))
    names = ("cytosol", "membrane", "mitochondrion")
    return Sample(vectors.astype(np.float16), np.ones(n, np.float32), classes=names), classes


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_a_vector_counts_by_the_rarity_of_what_the_encoder_takes_it_for(balance):
    columns = vemseg.labelling.columns
    logits = lopsided(300)[0].vectors[:, :3].astype(np.float32)
    chances = [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in logits.tolist()]
    shares = [sum(row[k] for row in chances) / len(chances) for k in range(3)]
    rare = [(share + columns.RARE) ** -balance for share in shares]
    weights = columns._rarity(logits, balance)
    slow = [sum(p * r for p, r in zip(row, rare, strict=True)) for row in chances]
    assert weights == pytest.approx(slow, rel=1e-4)
    drawn = np.bincount(columns._drawn(weights), minlength=300)
    assert drawn.sum() == 300 and np.abs(drawn - 300 * weights / weights.sum()).max() < 1


def test_where_classes_count_alike_rare_ones_get_clusters():
    sample, classes = lopsided()

    def purity(**settings):
        labels = argmax(fit_labeller(table(k=4, scale="whiten", **settings), sample), sample.vectors)
        return min(max(np.mean(classes[labels == k] == c) for k in range(4)) for c in (1, 2))

    assert purity(balance=0.0) < 0.7 < 0.95 < purity(balance=1.0)
    unknown = replace(sample, classes=())  # nothing is known that could count alike
    one, other = (fit_labeller(table(k=3, balance=balance), unknown) for balance in (0.0, 1.0))
    assert np.array_equal(one.weight, other.weight) and np.array_equal(one.bias, other.bias)


def test_scores_of_any_shape(blobs):
    vectors, blob = blobs
    a = torch.from_numpy(vectors[:6]).float().reshape(2, 3, 8)
    scores = fit(vectors, GREY[blob], table()).scores(a)
    assert scores.shape == (2, 3, 4)
    assert scores.dtype == torch.float32


@pytest.mark.parametrize("scale", ["none", "standardise", "whiten"])
@pytest.mark.parametrize("method", [{"method": "codebook"}, MINI, *FITTED])
def test_interpolated_scores_are_exact_where_a_labeller_says_so(blobs, method, scale):
    vectors, blob = blobs
    sample = Sample(vectors, GREY[blob], codes=vectors[:12].astype(np.float32))
    labeller = fit_labeller(table(scale=scale, **method), sample)
    a, b = torch.from_numpy(vectors[:1000]).float().view(2, 500, 8)
    mixed, scores = labeller.scores(torch.lerp(a, b, 0.3)), torch.lerp(*map(labeller.scores, (a, b)), 0.3)
    assert labeller.exact_under_interpolation == (method["method"] in ("kmeans", "minibatch"))
    assert torch.allclose(mixed, scores, rtol=1e-5, atol=1e-4) == labeller.exact_under_interpolation


@pytest.mark.parametrize("method", [MINI, *FITTED])
def test_a_saved_labeller_is_the_same(tmp_path, blobs, method):
    vectors, blob = blobs
    made = fit(vectors, GREY[blob], table(**method))
    made.save(tmp_path / "clusters.safetensors")
    found = load(tmp_path / "clusters.safetensors")
    assert type(found) is type(made)
    for name in ("weight", "bias", "parts", "offset"):
        np.testing.assert_array_equal(getattr(found, name, None), getattr(made, name, None))
    assert found.metadata == made.metadata
    single = torch.from_numpy(vectors).float()
    assert torch.equal(found.scores(single), made.scores(single))


def test_what_is_no_labeller_is_told_apart(tmp_path, blobs):
    with pytest.raises(MissingError):
        load(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(InputError, match=r"text\.safetensors"):
        load(tmp_path / "text.safetensors")
    save_tensors(tmp_path / "weights.safetensors", {"weight": np.eye(3), "bias": np.zeros(3)}, {})
    with pytest.raises(InputError, match="no clusters saved by vemseg"):
        load(tmp_path / "weights.safetensors")
    vectors, blob = blobs
    later = tmp_path / "later.safetensors"
    fit(vectors, GREY[blob], table()).save(later)
    arrays, metadata = load_tensors(later)
    save_tensors(later, arrays, metadata | {"format": 99})
    with pytest.raises(InputError, match="format 99"):
        load(later)


def test_a_damaged_labeller_says_what_is_wrong(tmp_path, blobs):
    vectors, blob = blobs
    path = tmp_path / "clusters.safetensors"
    fit(vectors, GREY[blob], table()).save(path)
    arrays, metadata = load_tensors(path)
    save_tensors(path, {"weight": arrays["weight"], "extra": arrays["bias"]}, metadata)
    with pytest.raises(InputError, match=r"clusters\.safetensors: .* no array 'bias' and an unknown"):
        load(path)
    save_tensors(path, arrays, metadata | {"method": "magic"})
    with pytest.raises(InputError, match=r"clusters of method 'magic', which this version does not have"):
        load(path)


def test_a_labeller_says_what_it_was_fitted_by(blobs):
    vectors, blob = blobs
    settings = table("linkage", parts=12, scale="whiten", floor=0.01)
    metadata = fit(vectors, GREY[blob], settings).metadata
    expected = settings.model_dump(mode="json") | {"sample": 1300}
    assert {key: metadata[key] for key in expected} == expected


def test_names_are_kept_and_belong_to_classes(tmp_path, blobs):
    vectors, blob = blobs
    labeller = fit(vectors, GREY[blob], table())
    assert labeller.names == {1: "class 1", 2: "class 2", 3: "class 3", 4: "class 4"}
    named = labeller.named({2: "membrane"}).noting({"model": "abc"})
    named.save(tmp_path / "named.safetensors")
    found = load(tmp_path / "named.safetensors")
    assert found.names == {1: "class 1", 2: "membrane", 3: "class 3", 4: "class 4"}
    assert found.metadata["model"] == "abc"
    assert "names" not in labeller.metadata
    with pytest.raises(InputError, match=r"names for classes \[0, 5\], but there are classes 1 to 4"):
        labeller.named({0: "nothing", 1: "lumen", 5: "no such"})


def test_fitting_reports_its_beginning_and_its_end(blobs):
    vectors, blob = blobs
    told = []
    context = Context(report=lambda *said: told.append(said))
    fit_labeller(table(), Sample(vectors, GREY[blob]), context=context)
    words = "1300 vectors into 4 classes"
    assert told == [("clustering", 0.0, words), ("clustering", 1.0, words)]


def test_what_fitting_takes_of_memory_is_said_step_by_step():
    codes = np.zeros((100, 8), np.float32)
    found = [method for method in METHODS if METHODS[method].table.finds]
    graphs = ("incremental", "spectral", "dsm", "deepcut")
    steps = {method: demands(table(method), 1000, 8, codes) for method in found}
    assert {method: [step.what for step in of] for method, of in steps.items()} == {
        "kmeans": ["fit classes to 1000 vectors"],
        "minibatch": ["fit classes to 1000 vectors"],
        "hyperbolic": ["fit classes to 1000 vectors"],
        "gmm": ["fit classes to 1000 vectors"],
        "linkage": ["fit classes to 1000 vectors", "join classes from 64 parts"],
        "codebook": ["fit classes to 1000 vectors", "join classes from 100 parts"],
        **{method: ["fit classes to 1000 vectors"] for method in graphs},
    }
    assert [step.bytes for step in steps["codebook"]] == [12 * 1000 * 8, 64 * 100**2]
    assert [step.instead for step in steps["linkage"]] == [
        "a smaller sample (--set cluster.sample=250)",
        "another cluster.method",
    ]


def test_codes_that_are_missing_are_refused_before_a_sample_is_drawn():
    check(table("kmeans"), None)
    check(table("codebook"), np.zeros((4, 8), np.float32))
    with pytest.raises(UsageError, match=r"cluster\.method codebook needs the vectors of a model with"):
        check(table("codebook"), None)
    with pytest.raises(UsageError, match="k = 4 classes cannot be joined from the model's 3 codes"):
        check(table("codebook"), np.zeros((3, 8), np.float32))
    other = Sample(np.eye(8, dtype=np.float16), np.zeros(8, np.float32), codes=np.zeros((4, 5), np.float32))
    with pytest.raises(UsageError, match="needs the vectors of a model with a codebook"):
        fit_labeller(table("codebook"), other)


class ToyTable(ClusterTable):
    """Classes between thresholds of one feature."""

    method: Literal["toy"] = "toy"
    feature: int = 0


@dataclass(frozen=True, eq=False)
class Toy(Labeller):
    """Classes by the nearest of some levels, which are quantiles of one feature."""

    levels: np.ndarray
    feature: np.ndarray
    length: np.ndarray

    @property
    def k(self):
        return len(self.levels)

    @property
    def dim(self):
        return int(self.length)

    def scores(self, vectors):
        return -(vectors[..., int(self.feature), None] - torch.from_numpy(self.levels)).abs()

    def reordered(self, order):
        return replace(self, levels=self.levels[order])

    @classmethod
    def fit(cls, table, sample, source, context):
        seen = sample.vectors if source is None else source.read(Box.whole(source.shape))
        column = seen[:, table.feature].astype(np.float32)
        context.report("toying", 0.5)
        levels = np.quantile(column, (np.arange(table.k) + 0.5) / table.k).astype(np.float32)
        return cls(levels, np.array(table.feature), np.array(seen.shape[1]))


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(METHODS, "toy", Method(ToyTable, f"{__name__}:Toy"))
    return ToyTable(k=3, feature=1)


def test_a_registered_labeller_is_fitted_saved_loaded_and_used(toy, tmp_path):
    vectors = np.random.default_rng(30).normal(size=(900, 4)).astype(np.float16)
    darker_upwards = -vectors[:, 1].astype(np.float32)
    told = []
    context = Context(report=lambda stage, fraction, detail="": told.append(stage))
    labeller = fit_labeller(toy, Sample(vectors, darker_upwards), context=context)
    assert told == ["clustering", "toying", "clustering"]
    labeller.save(tmp_path / "toy.safetensors")
    found = load(tmp_path / "toy.safetensors")
    assert (type(found), found.k, found.dim) == (Toy, 3, 4)
    assert not found.exact_under_interpolation
    assert found.metadata == labeller.metadata
    assert (found.metadata["method"], found.metadata["feature"], found.metadata["sample"]) == ("toy", 1, 900)
    assert found.levels.tolist() == sorted(found.levels.tolist(), reverse=True)  # dark first
    borders = (found.levels[:-1] + found.levels[1:]) / 2
    expected = (vectors[:, 1].astype(np.float32)[:, None] < borders).sum(axis=1)
    np.testing.assert_array_equal(argmax(found, vectors), expected)
    assert sum(found.metadata["sizes"]) == 900
    assert demands(toy, 900, 4, None)[0].bytes > 0
    check(toy, None)


def test_a_labeller_may_look_at_the_source(toy):
    vectors = np.arange(12, dtype=np.float16).reshape(6, 2)
    sample = Sample(vectors, np.zeros(6, np.float32))
    source = SimpleNamespace(
        shape=(1, 2, 3), read=lambda box: vectors + 100 * (box.size == 6), graph=lambda: None
    )
    alone, both = (fit_labeller(toy, sample, given) for given in (None, source))
    np.testing.assert_allclose(both.levels, alone.levels + 100)


def whitened(vectors, floor):
    """Standardise, turn to principal axes, divide by deviations: step by step."""
    single = vectors.astype(np.float64)
    single = (single - single.mean(axis=0)) / single.std(axis=0)
    axes, deviation, _ = np.linalg.svd(np.cov(single.T, bias=True))
    return single @ axes / np.sqrt(np.maximum(deviation, floor * deviation[0]))


def scaled(vectors, **settings):
    data = vectors.astype(np.float32)
    found = scaling(data, table(**settings))
    found.apply(data)
    return data


@pytest.mark.parametrize("floor", [0.0, 1e-3, 0.2])
def test_whitening_is_that_of_principal_components(floor):
    vectors = overlapping(np.random.default_rng(10))
    found, expected = scaled(vectors, scale="whiten", floor=floor), whitened(vectors, floor)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=0.02)
    if floor == 0:
        np.testing.assert_allclose(np.cov(found.T), np.eye(12), atol=2e-3)


def test_folded_whitening_is_explicit_whitening():
    vectors = overlapping(np.random.default_rng(11))
    grey = vectors[:, 0].astype(np.float32)
    folded = argmax(fit(vectors, grey, table(k=5, scale="whiten")), vectors)
    explicit = scaled(vectors, scale="whiten")
    order = np.random.default_rng([1, 0xC1]).permutation(len(vectors))
    theirs = KMeans(5, n_init=3, max_iter=300, random_state=1).fit(explicit[order]).predict(explicit)
    pairs, counts = np.unique(np.stack([folded, theirs]), axis=1, return_counts=True)
    assert np.sort(counts)[-5:].sum() > 0.999 * len(vectors)
    assert len(set(pairs[0, np.argsort(counts)[-5:]])) == 5


def test_a_floor_keeps_noise_small():
    rng = np.random.default_rng(12)
    signal = rng.normal(size=(4000, 1))
    vectors = np.concatenate([signal, signal + 0.002 * rng.normal(size=(4000, 1))], axis=1)
    half = vectors.astype(np.float16)
    blown_up, kept = (scaled(half, scale="whiten", floor=floor).std(axis=0) for floor in (0.0, 1e-2))
    np.testing.assert_allclose(blown_up, 1, rtol=1e-2)
    assert kept.min() < 0.05
    assert kept.max() == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize("scale", ["none", "standardise", "whiten"])
def test_features_that_are_constant_or_repeated_do_no_harm(blobs, scale):
    vectors, blob = blobs
    vectors = np.concatenate([vectors, vectors[:, :2], np.full((len(vectors), 1), 0.1)], axis=1)
    for method in FITTED:
        labeller = fit(vectors.astype(np.float16), GREY[blob], table(scale=scale, floor=0.0, **method))
        assert np.isfinite(labeller.weight).all()
        assert np.mean(np.array(DARK_TO_BRIGHT)[argmax(labeller, vectors)] == blob) > 0.99


@pytest.mark.parametrize("scale", ["none", "standardise", "whiten"])
def test_scores_of_a_mixture_are_log_densities(scale):
    rng = np.random.default_rng(13)
    vectors = np.concatenate([overlapping(rng, 2000, 5), overlapping(rng, 1000, 5)])
    labeller = fit(vectors, vectors[:, 0].astype(np.float32), table(k=3, method="gmm", scale=scale))
    assert labeller.parts is None
    found = labeller.scores(torch.from_numpy(vectors).float()).numpy()
    expected = np.empty_like(found)
    for i in range(3):
        factor = labeller.weight[:, 5 * i : 5 * i + 5].astype(np.float64)
        covariance = np.linalg.inv(factor @ factor.T)
        mean = -np.linalg.solve(factor.T, labeller.bias[5 * i : 5 * i + 5].astype(np.float64))
        share = labeller.offset[i] - multivariate_normal.logpdf(mean, mean, covariance)
        assert -10 < share < 0
        expected[:, i] = multivariate_normal.logpdf(vectors.astype(np.float64), mean, covariance) + share
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)
    shares = np.exp(found - np.logaddexp.reduce(found, axis=1, keepdims=True)).mean(axis=0)
    own = [
        labeller.offset[i] - 0.5 * np.linalg.slogdet(f @ f.T)[1] + 2.5 * np.log(2 * np.pi)
        for i, f in enumerate(np.split(labeller.weight, 3, axis=1))
    ]
    np.testing.assert_allclose(np.exp(own), shares, atol=5e-3)  # each class holds the share it claims


def test_a_mixture_tells_classes_apart_that_share_a_centre():
    rng = np.random.default_rng(14)
    inside = rng.permutation(np.repeat([True, False], 2000))
    vectors = (rng.normal(size=(4000, 3)) * np.where(inside, 0.05, 2.0)[:, None]).astype(np.float16)
    grey = inside.astype(np.float32)
    mixed, nearest = (fit(vectors, grey, table(k=2, method=m)) for m in ("gmm", "kmeans"))
    assert np.mean(argmax(mixed, vectors) == inside) > 0.98
    assert np.mean(argmax(nearest, vectors) == inside) < 0.8


def test_joined_components_score_by_the_sum_of_their_densities():
    rng = np.random.default_rng(22)
    vectors = overlapping(rng, 3000, 4)
    grey = vectors[:, 0].astype(np.float32)
    joined = fit(vectors, grey, table(k=3, method="gmm", components=8))
    apart = fit(vectors, grey, table(k=8, method="gmm"))
    single = torch.from_numpy(vectors).float()
    assert joined.parts.sum() == 8
    np.testing.assert_allclose(
        joined.scores(single).logsumexp(dim=-1), apart.scores(single).logsumexp(dim=-1), atol=1e-4
    )
    alone = MixtureLabeller(joined.weight, joined.bias, joined.offset)
    densities = np.split(alone.scores(single).double().exp().numpy(), np.cumsum(joined.parts)[:-1], axis=1)
    expected = np.log(np.stack([one.sum(axis=1) for one in densities], axis=1))
    np.testing.assert_allclose(joined.scores(single), expected, atol=1e-4)


def slow_join_by_entropy(posterior, k):
    """Join the pair of groups after which the entropy of all groups is least."""

    def entropy(groups):
        own = np.stack([posterior[:, group].sum(axis=1) for group in groups])
        return -np.sum(own * np.log(own))

    def after(pair):
        return [group for group in groups if group not in pair] + [pair[0] + pair[1]]

    groups = [(i,) for i in range(posterior.shape[1])]
    while len(groups) > k:
        groups = min((after(pair) for pair in itertools.combinations(groups, 2)), key=entropy)
    return {frozenset(group) for group in groups}


def test_entropy_joins_what_the_slow_obvious_one_joins():
    posterior = np.random.default_rng(23).dirichlet(np.full(9, 0.3), 200) + 1e-12
    found = join_by_entropy(posterior, 4)
    groups = {frozenset(np.flatnonzero(found == g).tolist()) for g in range(4)}
    assert groups == slow_join_by_entropy(posterior, 4)


def test_a_mixture_is_fitted_on_a_part(blobs):
    vectors, blob = blobs
    whole, part = (fit(vectors, GREY[blob], table(method="gmm", mixture_sample=n)) for n in (1300, 300))
    assert not np.array_equal(whole.weight, part.weight)
    np.testing.assert_array_equal(argmax(part, vectors), argmax(whole, vectors))


def test_the_variance_of_a_mixture_has_a_least():
    vectors = np.repeat(np.eye(4, dtype=np.float16), 50, axis=0)
    labeller = fit(vectors, np.arange(200, dtype=np.float32), table(method="gmm"))
    least = LEAST_VARIANCE * vectors.astype(np.float64).var(axis=0).mean()
    for factor in np.split(labeller.weight, 4, axis=1):
        np.testing.assert_allclose(np.linalg.inv(factor @ factor.T), least * np.eye(4), atol=0.01 * least)


def test_ward_joins_as_scipy_does_where_sizes_are_equal():
    rng = np.random.default_rng(15)
    centres = rng.normal(size=(30, 4))
    found = join_by_distance(centres, np.full(30, 7), 6)
    expected = fcluster(scipy_linkage(centres, "ward"), 6, "maxclust")
    assert len(set(zip(found.tolist(), expected.tolist(), strict=True))) == 6
    assert sorted(set(found.tolist())) == list(range(6))


def test_ward_joins_clusters_as_if_their_vectors_were_joined():
    rng = np.random.default_rng(16)
    centres, sizes = rng.normal(size=(12, 3)), rng.integers(1, 9, 12)
    found = join_by_distance(centres, sizes, 4)
    expected = fcluster(scipy_linkage(np.repeat(centres, sizes, axis=0), "ward"), 4, "maxclust")
    assert len(set(zip(np.repeat(found, sizes).tolist(), expected.tolist(), strict=True))) == 4


def test_an_empty_cluster_is_joined_first():
    found = join_by_distance(np.array([[0.0], [1.0], [9.0], [8.0]]), np.array([5, 5, 0, 5]), 3)
    assert found[2] == found[3]


def slow_join_by_overlap(overlap, sizes, k):
    """Join the pair of groups with the largest overlap for their sizes."""

    def crowd(pair):
        a, b = pair
        between = sum(overlap[i, j] for i in a for j in b)
        return between / (sum(sizes[i] for i in a) * sum(sizes[j] for j in b))

    groups = [(i,) for i in range(len(overlap))]
    while len(groups) > k:
        a, b = max(itertools.combinations(groups, 2), key=crowd)
        groups = [group for group in groups if group not in (a, b)] + [a + b]
    return {frozenset(group) for group in groups}


def test_overlap_joins_what_the_slow_obvious_one_joins():
    rng = np.random.default_rng(17)
    overlap, sizes = np.tril(rng.uniform(1, 50, (14, 14)), -1), rng.integers(40, 200, 14)
    overlap += overlap.T
    found = join_by_overlap(overlap, sizes, 4)
    groups = {frozenset(np.flatnonzero(found == g).tolist()) for g in range(4)}
    assert groups == slow_join_by_overlap(overlap, sizes, 4)


def test_linkage_follows_a_bent_cluster_and_scores_by_its_nearest_part():
    rng = np.random.default_rng(18)
    angle, ring = rng.uniform(0, 2 * np.pi, 6000), rng.permutation(np.repeat([True, False], 3000))
    radius = np.where(ring, 4.0, 0.4)
    vectors = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    vectors = (vectors + 0.15 * rng.normal(size=vectors.shape)).astype(np.float16)
    settings = table(k=2, method="linkage", linkage="overlap", parts=24)
    labeller = fit(vectors, ring.astype(np.float32), settings)
    np.testing.assert_array_equal(argmax(labeller, vectors), ring)
    assert labeller.parts.sum() == 24
    parts = vectors.astype(np.float32) @ labeller.weight + labeller.bias
    expected = np.stack([p.max(axis=1) for p in np.split(parts, labeller.parts[:1], axis=1)], axis=1)
    found = labeller.scores(torch.from_numpy(vectors).float()).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_more_parts_than_vectors_is_a_mistake_in_use():
    with pytest.raises(UsageError, match=r"cluster\.parts = 64 cannot be fitted to a sample of 30"):
        fit(np.eye(30, dtype=np.float16), np.zeros(30, np.float32), table(method="linkage"))


@pytest.mark.parametrize("method", FITTED)
def test_scores_do_not_depend_on_batches(monkeypatch, method):
    rng = np.random.default_rng(19)
    vectors = overlapping(rng, dim=24)
    labeller = fit(vectors, vectors[:, 0].astype(np.float32), table(k=6, **method))
    single = torch.from_numpy(vectors).float()
    whole = labeller.scores(single)
    assert torch.equal(torch.cat([labeller.scores(part) for part in single.split(77)]), whole)
    assert torch.equal(labeller.scores(single.view(30, 10, 10, 24)).view(-1, 6), whole)
    assert torch.equal(labeller.scores(single.T.contiguous().T), whole)
    monkeypatch.setitem(vemseg.labelling.columns.CHUNK_BYTES, "cpu", 10_000)
    assert torch.equal(labeller.scores(single), whole)
    assert labeller.scores(single[:0]).shape == (0, 6)


@pytest.mark.parametrize("method", FITTED)
def test_whitened_classes_do_not_depend_on_the_features_scales(method):
    vectors, blob = planted(np.random.default_rng(20), SIZES, spread=0.8)
    stretched = vectors * np.array([1, 64, 0.25, 8, 1, 1, 2, 0.5], np.float16)
    plain, other = (fit(v, GREY[blob], table(scale="whiten", **method)) for v in (vectors, stretched))
    assert np.mean(argmax(plain, vectors) == argmax(other, stretched)) > 0.999
