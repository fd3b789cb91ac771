"""k-means as affine scores: found clusters, their order, and how they are kept."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

import vemseg.clustering
from vemseg.clustering import Clusterer, fit
from vemseg.errors import InputError, MissingError, UsageError
from vemseg.recipe import ClusterTable
from vemseg.run import load_tensors, save_tensors


def planted(rng, sizes, dim=8, spread=0.1):
    """Return Gaussian blobs: vectors float16, and the blob of each."""
    centres = 4 * np.eye(len(sizes), dim)
    blob = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = centres[blob] + spread * rng.normal(size=(len(blob), dim))
    return vectors.astype(np.float16), blob


def argmax(clusterer, vectors):
    return clusterer.scores(torch.from_numpy(vectors).float()).argmax(dim=-1).numpy()


def table(**settings):
    return ClusterTable(**({"k": 4, "restarts": 3, "seed": 1} | settings))


SIZES = [700, 150, 400, 50]


@pytest.fixture
def blobs():
    return planted(np.random.default_rng(0), SIZES)


GREY = np.array([0.6, 0.2, 0.9, 0.4], np.float32)
DARK_TO_BRIGHT = [1, 3, 0, 2]


@pytest.mark.parametrize("standardise", [False, True])
def test_planted_clusters_are_found_and_numbered_from_dark_to_bright(blobs, standardise):
    vectors, blob = blobs
    clusterer = fit(vectors, GREY[blob], table(standardise=standardise))
    assert (clusterer.k, clusterer.dim) == (4, 8)
    np.testing.assert_array_equal(np.array(DARK_TO_BRIGHT)[argmax(clusterer, vectors)], blob)
    assert clusterer.metadata["sizes"] == [SIZES[i] for i in DARK_TO_BRIGHT]
    assert clusterer.metadata["intensities"] == pytest.approx([float(GREY[i]) for i in DARK_TO_BRIGHT])
    assert clusterer.metadata["sample"] == len(vectors)
    assert clusterer.metadata["standardise"] is standardise


def test_among_equally_bright_classes_the_larger_comes_first(blobs):
    vectors, _ = blobs
    clusterer = fit(vectors, np.full(len(vectors), 0.5, np.float32), table())
    assert clusterer.metadata["sizes"] == sorted(SIZES, reverse=True)


def test_numbers_do_not_depend_on_the_seed(blobs):
    vectors, blob = blobs
    first, *others = (argmax(fit(vectors, GREY[blob], table(seed=seed)), vectors) for seed in range(4))
    for other in others:
        np.testing.assert_array_equal(other, first)


def overlapping(rng, n=3000, dim=12):
    vectors = rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) + 3 * rng.normal(size=dim)
    return vectors.astype(np.float16)


@pytest.mark.parametrize("standardise", [False, True])
def test_the_best_score_is_the_nearest_centroid(standardise):
    rng = np.random.default_rng(5)
    vectors = overlapping(rng)
    clusterer = fit(vectors, vectors[:, 0].astype(np.float32), table(k=7, standardise=standardise))
    found = argmax(clusterer, vectors)
    single = vectors.astype(np.float64)
    if standardise:
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
    clusterer = fit(vectors, vectors[:, 0].astype(np.float32), settings)
    order = np.random.default_rng([settings.seed, 0xC1]).permutation(len(vectors))
    reference = KMeans(5, n_init=2, max_iter=300, random_state=settings.seed)
    reference.fit(vectors[order].astype(np.float32))
    found, theirs = argmax(clusterer, vectors), reference.predict(vectors.astype(np.float32))
    pairs = set(zip(found.tolist(), theirs.tolist(), strict=True))
    assert len(pairs) == 5  # the same classes under other numbers


def test_the_whole_sample_refines_what_a_part_found(monkeypatch):
    vectors, blob = planted(np.random.default_rng(2), [800, 700, 600, 500], spread=1.2)
    clusterer = fit(vectors, blob.astype(np.float32), table())
    monkeypatch.setattr(vemseg.clustering, "SEARCH", 200)
    from_part = fit(vectors, blob.astype(np.float32), table())
    assert np.mean(argmax(clusterer, vectors) == argmax(from_part, vectors)) > 0.99
    np.testing.assert_allclose(from_part.weight, clusterer.weight, atol=0.15)


def test_classes_that_only_the_whole_sample_shows_are_no_error(monkeypatch):
    monkeypatch.setattr(vemseg.clustering, "SEARCH", 50)
    vectors = np.zeros((5000, 3), np.float16)
    vectors[:4] = [[0, 0, 5], [0, 5, 0], [5, 0, 0], [5, 5, 5]]
    clusterer = fit(vectors, vectors.mean(axis=1, dtype=np.float32), table())
    assert clusterer.metadata["sizes"][0] >= 4996
    assert clusterer.k == 4


def test_the_same_seed_gives_the_same_clusterer():
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
    plain, other = (fit(v, grey, table(k=5, standardise=True)) for v in (vectors, stretched))
    np.testing.assert_array_equal(argmax(plain, vectors), argmax(other, stretched))
    unlike = fit(stretched, grey, table(k=5))
    assert not np.array_equal(argmax(unlike, stretched), argmax(other, stretched))


def test_a_constant_feature_is_harmless_when_standardised(blobs):
    vectors, blob = blobs
    vectors = np.concatenate([vectors, np.full((len(vectors), 1), 0.1, np.float16)], axis=1)
    clusterer = fit(vectors, GREY[blob], table(standardise=True))
    assert np.isfinite(clusterer.weight).all()
    np.testing.assert_array_equal(np.array(DARK_TO_BRIGHT)[argmax(clusterer, vectors)], blob)


def test_one_class_takes_all(blobs):
    vectors, blob = blobs
    assert not argmax(fit(vectors, GREY[blob], table(k=1)), vectors).any()


def test_as_many_classes_as_vectors():
    vectors = np.arange(12, dtype=np.float16).reshape(4, 3)
    clusterer = fit(vectors, np.arange(4, dtype=np.float32), table())
    assert argmax(clusterer, vectors).tolist() == [0, 1, 2, 3]


def test_more_classes_than_vectors_is_a_mistake_in_use():
    with pytest.raises(UsageError, match="k = 4 classes cannot be fitted to a sample of 3"):
        fit(np.eye(3, dtype=np.float16), np.zeros(3, np.float32), table())


@pytest.mark.parametrize("standardise", [False, True])
def test_more_classes_than_distinct_vectors_is_a_fault_of_the_input(standardise):
    vectors = np.repeat(np.eye(3, dtype=np.float16), 40, axis=0)
    with pytest.raises(InputError, match="k = 4 classes, but the sample has only 3 distinct vectors"):
        fit(vectors, np.zeros(120, np.float32), table(standardise=standardise))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(blobs, bad):
    vectors, blob = blobs
    vectors[17, 3] = bad
    with pytest.raises(InputError, match="NaN or infinity"):
        fit(vectors, GREY[blob], table())


def test_the_sample_is_left_as_it_was(blobs):
    vectors, blob = blobs
    before = vectors.copy()
    fit(vectors, GREY[blob], table(standardise=True))
    np.testing.assert_array_equal(vectors, before)


def test_scores_of_any_shape_on_affine_vectors(blobs):
    vectors, blob = blobs
    clusterer = fit(vectors, GREY[blob], table())
    a, b = torch.from_numpy(vectors[:6]).float().reshape(2, 3, 8), torch.ones(2, 3, 8)
    scores = clusterer.scores(a)
    assert scores.shape == (2, 3, 4)
    assert scores.dtype == torch.float32
    mixed = clusterer.scores(torch.lerp(a, b, 0.3))
    torch.testing.assert_close(mixed, torch.lerp(scores, clusterer.scores(b), 0.3), rtol=1e-5, atol=1e-4)


def test_a_saved_clusterer_is_the_same(tmp_path, blobs):
    vectors, blob = blobs
    made = fit(vectors, GREY[blob], table())
    made.save(tmp_path / "clusters.safetensors")
    found = Clusterer.load(tmp_path / "clusters.safetensors")
    np.testing.assert_array_equal(found.weight, made.weight)
    np.testing.assert_array_equal(found.bias, made.bias)
    assert found.metadata == made.metadata


def test_what_is_no_clusterer_is_told_apart(tmp_path, blobs):
    with pytest.raises(MissingError):
        Clusterer.load(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(InputError, match=r"text\.safetensors"):
        Clusterer.load(tmp_path / "text.safetensors")
    save_tensors(tmp_path / "weights.safetensors", {"weight": np.eye(3), "bias": np.zeros(3)}, {})
    with pytest.raises(InputError, match="no clusters saved by vemseg"):
        Clusterer.load(tmp_path / "weights.safetensors")
    vectors, blob = blobs
    later = tmp_path / "later.safetensors"
    fit(vectors, GREY[blob], table()).save(later)
    arrays, metadata = load_tensors(later)
    save_tensors(later, arrays, metadata | {"format": 99})
    with pytest.raises(InputError, match="format 99"):
        Clusterer.load(later)
