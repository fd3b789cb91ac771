import itertools
import json
import math

import numpy as np
import pytest
from sklearn import metrics as reference_metrics

from vemseg import metrics
from vemseg.errors import InputError, UsageError
from vemseg.metrics import Assignment

# Four voxels: clusters 0 0 1 2 against classes 0 1 1 1.
PREDICTION = np.array([0, 0, 1, 2], dtype=np.uint8)
REFERENCE = np.array([0, 1, 1, 1], dtype=np.uint8)


def four_voxels():
    return metrics.contingency(PREDICTION, REFERENCE, n_pred=3, n_ref=2)


def random_tables(count, clusters, classes, seed=7):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        table = rng.integers(0, 50, (clusters, classes)) * (rng.random((clusters, classes)) < 0.7)
        table[rng.integers(clusters)] = 0  # an empty cluster
        yield table.astype(np.int64)


def mean_dice(table, mapping):
    """The obvious way: mean over classes of 2 TP / (predicted + reference)."""
    dice = []
    for g in range(table.shape[1]):
        mine = [p for p, to in mapping.items() if to == g]
        total = table[mine].sum() + table[:, g].sum()
        if table[:, g].sum():
            dice.append(2 * table[mine, g].sum() / total)
    return float(np.mean(dice)) if dice else math.nan


# -- counting --


def test_four_voxels_by_hand():
    table = four_voxels()
    assert table.tolist() == [[1, 1], [0, 1], [0, 1]]
    assert table.dtype == np.int64
    # D[0, 0] = 2*1 / (2 + 1), D[0, 1] = 2*1 / (2 + 3), D[1, 1] = D[2, 1] = 2*1 / (1 + 3)
    np.testing.assert_allclose(metrics.dice_matrix(table), [[2 / 3, 2 / 5], [0, 1 / 2], [0, 1 / 2]])


def test_four_voxels_under_each_protocol():
    table = four_voxels()
    hungarian = metrics.match_hungarian(table)
    assert dict(hungarian.mapping) in ({0: 0, 1: 1, 2: None}, {0: 0, 1: None, 2: 1})
    assert metrics.score(table, hungarian).mean() == pytest.approx((2 / 3 + 1 / 2) / 2)
    # majority: cluster 0 overlaps both classes alike and takes the lower id
    majority = metrics.merge_majority(table)
    assert majority.mapping == {0: 0, 1: 1, 2: 1}
    # greedy adds the surplus cluster: class 1 has 2 of its 3 voxels, none wrong
    assert metrics.merge_greedy(table).mapping == {0: 0, 1: 1, 2: 1}
    assert metrics.score(table, majority).mean() == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_four_voxels_scores():
    scores = metrics.score(four_voxels(), metrics.merge_majority(four_voxels()), {0: "rest", 1: "granule"})
    assert scores.confusion.tolist() == [[1, 1], [0, 2], [0, 0]]
    np.testing.assert_allclose(scores.dice, [2 / 3, 4 / 5])
    np.testing.assert_allclose(scores.iou, [1 / 2, 2 / 3])
    np.testing.assert_allclose(scores.sensitivity, [1, 2 / 3])
    np.testing.assert_allclose(scores.specificity, [2 / 3, 1])
    np.testing.assert_allclose(scores.precision, [1 / 2, 1])
    np.testing.assert_allclose(scores.accuracy, [3 / 4, 3 / 4])
    assert scores.overall_accuracy == 3 / 4
    assert scores.weighted_mean("dice") == pytest.approx((1 * 2 / 3 + 3 * 4 / 5) / 4)
    assert scores.reference_voxels.tolist() == [1, 3]
    assert scores.predicted_voxels.tolist() == [2, 2]


def test_tables_of_blocks_add_up():
    rng = np.random.default_rng(0)
    prediction, reference = rng.integers(0, 6, (2, 9, 16, 16), dtype=np.uint8)
    whole = metrics.contingency(prediction, reference, n_pred=6, n_ref=6)
    parts = [
        metrics.contingency(prediction[z : z + 4], reference[z : z + 4], n_pred=6, n_ref=6)
        for z in range(0, 9, 4)
    ]
    np.testing.assert_array_equal(sum(parts), whole)
    assert whole.sum() == prediction.size


def test_mask_counts_only_what_is_true_and_hides_odd_ids():
    reference = np.array([0, 1, 255, 255], dtype=np.uint8)
    table = metrics.contingency(PREDICTION, reference, reference != 255, n_pred=3, n_ref=2)
    assert table.tolist() == [[1, 1], [0, 0], [0, 0]]


def test_dropping_a_class_equals_masking_it():
    rng = np.random.default_rng(1)
    prediction, reference = rng.integers(0, 5, (2, 400))
    table = metrics.contingency(prediction, reference, n_pred=5, n_ref=5)
    masked = metrics.contingency(prediction, reference, reference != 2, n_pred=5, n_ref=5)
    np.testing.assert_array_equal(metrics.drop_classes(table, [2]), masked)
    assert table[:, 2].any(), "the input must stay as it was"
    assert metrics.score(masked, metrics.match_hungarian(masked)).present == [0, 1, 3, 4]
    with pytest.raises(UsageError, match=r"0\.\.4"):
        metrics.drop_classes(table, [-1])


def test_arbitrary_ids_become_rows():
    labels = np.array([[-1, 70000], [12, -1]])
    assert metrics.to_index(labels, [12, -1, 70000]).tolist() == [[1, 2], [0, 1]]
    with pytest.raises(InputError, match="id 12 is not among"):
        metrics.to_index(labels, [-1, 70000])


@pytest.mark.parametrize(
    ("prediction", "reference", "mask", "message"),
    [
        (PREDICTION[:3], REFERENCE, None, "shapes differ"),
        (PREDICTION, REFERENCE, np.ones(3, dtype=bool), "shapes differ"),
        (PREDICTION, REFERENCE, np.ones(4, dtype=np.uint8), "must be bool"),
        (PREDICTION + 7, REFERENCE, None, r"prediction holds ids 7\.\.9, outside 0\.\.2"),
        (PREDICTION, REFERENCE.astype(int) - 1, None, r"reference holds ids -1\.\.0"),
        (PREDICTION.astype(float), REFERENCE, None, "integer ids"),
    ],
)
def test_wrong_input_is_named(prediction, reference, mask, message):
    with pytest.raises(InputError, match=message):
        metrics.contingency(prediction, reference, mask, n_pred=3, n_ref=2)


# -- protocols --


def test_hungarian_equals_trying_every_match():
    for table in random_tables(20, 5, 4):
        dice = metrics.dice_matrix(table)
        best = max(sum(dice[p, g] for g, p in enumerate(ps)) for ps in itertools.permutations(range(5), 4))
        mapping = metrics.match_hungarian(table).mapping
        assert sum(dice[p, g] for p, g in mapping.items() if g is not None) == pytest.approx(best)
        taken = [g for g in mapping.values() if g is not None]
        assert len(taken) == len(set(taken))


def test_hungarian_mean_is_the_mean_of_matched_dice():
    """Han et al.: the final Dice is the mean of the matched entries of D."""
    for table in random_tables(20, 7, 4, seed=3):
        assignment = metrics.match_hungarian(table)
        dice = metrics.dice_matrix(table)
        matched = sum(dice[p, g] for p, g in assignment.mapping.items() if g is not None)
        scores = metrics.score(table, assignment)
        assert scores.mean() == pytest.approx(matched / len(scores.present))


def test_voxels_without_a_label_stand_for_no_class_and_count_as_missed():
    table = np.array([[90, 10], [0, 0], [100, 90]])  # of label 0: all but half of both classes
    for nothing, mapping in ((None, {0: 0, 1: None, 2: 1}), (0, {0: None, 1: None, 2: 1})):
        assert metrics.match_hungarian(table, nothing).mapping == mapping
    assert metrics.merge_majority(table, 0).mapping == {0: None, 1: None, 2: 0}
    for table in random_tables(20, 5, 4, seed=21):
        table[2] *= 20
        dice = metrics.dice_matrix(table)
        dice[2] = 0
        best = max(sum(dice[p, g] for g, p in enumerate(ps)) for ps in itertools.permutations(range(5), 4))
        mapping = metrics.match_hungarian(table, 2).mapping
        assert mapping[2] is None
        assert sum(dice[p, g] for p, g in mapping.items() if g is not None) == pytest.approx(best)
        assert metrics.merge_greedy(table, 2).mapping == slow_greedy(table, 2)


def slow_greedy(table, nothing=None):
    mapping = dict(metrics.match_hungarian(table, nothing).mapping)
    while True:
        now, best = mean_dice(table, mapping), None
        for p, g in itertools.product(range(len(table)), range(table.shape[1])):
            if mapping[p] is None and table[p].any() and p != nothing:
                trial = mean_dice(table, {**mapping, p: g})
                if trial > now + 1e-12 and (best is None or trial > best[0] + 1e-12):
                    best = trial, p, g
        if best is None:
            return mapping
        mapping[best[1]] = best[2]


def test_greedy_equals_the_slow_version():
    for table in random_tables(25, 8, 4, seed=5):
        assert metrics.merge_greedy(table).mapping == slow_greedy(table)


def test_oracle_equals_trying_every_assignment():
    for table in random_tables(8, 5, 3, seed=11):
        choices = itertools.product([None, 0, 1, 2], repeat=5)
        best = max(mean_dice(table, dict(enumerate(c))) for c in choices)
        assert mean_dice(table, metrics.merge_oracle(table).mapping) == pytest.approx(best, abs=1e-12)


def test_merges_never_fall_below_what_they_start_from():
    for table in random_tables(30, 9, 4, seed=13):
        hungarian, greedy, oracle = (
            mean_dice(table, metrics.PROTOCOLS[name](table).mapping)
            for name in ("hungarian", "greedy", "oracle")
        )
        assert hungarian <= greedy + 1e-12 <= oracle + 2e-12
        assert mean_dice(table, metrics.merge_majority(table).mapping) <= oracle + 1e-12


def test_greedy_at_full_size():
    table = next(random_tables(1, 255, 10))
    mapping = metrics.merge_greedy(table).mapping
    assert len(mapping) == 255
    assert mean_dice(table, mapping) > mean_dice(table, metrics.match_hungarian(table).mapping)


def test_greedy_leaves_out_a_cluster_that_never_helps():
    """Adding a cluster helps a class exactly if its share of that class is above half the class's Dice."""
    pure = 100 * np.eye(3, dtype=np.int64)
    even_mixture = np.vstack([pure, [[3, 3, 3]]])
    assert metrics.merge_greedy(even_mixture).mapping == {0: 0, 1: 1, 2: 2, 3: None}
    assert metrics.merge_majority(even_mixture).mapping == {0: 0, 1: 1, 2: 2, 3: 0}
    mostly_last = np.vstack([pure, [[3, 3, 9]]])
    assert metrics.merge_greedy(mostly_last).mapping == {0: 0, 1: 1, 2: 2, 3: 2}


def test_majority_takes_the_largest_overlap():
    for table in random_tables(10, 12, 5):
        for p, g in metrics.merge_majority(table).mapping.items():
            assert g is None if not table[p].any() else table[p, g] == table[p].max()


def test_manual_merge():
    assignment = metrics.merge_manual(four_voxels(), {0: 0, 2: 1})
    assert assignment.mapping == {0: 0, 1: None, 2: 1}
    scores = metrics.score(four_voxels(), assignment)
    assert scores.unassigned_voxels == 1
    assert scores.confusion.tolist() == [[1, 1], [0, 1], [0, 1]]
    assert scores.overall_accuracy == 1 / 2
    with pytest.raises(UsageError, match=r"mapping 3 -> 0: clusters are 0\.\.2"):
        metrics.merge_manual(four_voxels(), {3: 0})


def test_oracle_refuses_what_it_cannot_do():
    with pytest.raises(UsageError, match="at most 12 clusters, not 13"):
        metrics.merge_oracle(np.ones((13, 3), dtype=np.int64))


def test_every_protocol_but_identity_says_it_used_the_reference():
    used = {name: protocol(four_voxels()).uses_reference for name, protocol in metrics.PROTOCOLS.items()}
    assert used == {
        "identity": False, "hungarian": True, "majority": True, "greedy": True, "oracle": True
    }  # fmt: skip
    assert all(protocol(four_voxels()).name == name for name, protocol in metrics.PROTOCOLS.items())


# -- scores --


@pytest.mark.parametrize("name", sorted(metrics.PROTOCOLS))
def test_identity_labels_have_dice_one(name):
    labels = np.random.default_rng(2).integers(0, 4, (6, 20, 20))
    table = metrics.contingency(labels, labels, n_pred=4, n_ref=4)
    scores = metrics.score(table, metrics.PROTOCOLS[name](table))
    for measure in metrics.MEASURES:
        np.testing.assert_array_equal(getattr(scores, measure), 1.0)
    assert scores.mean() == scores.weighted_mean() == scores.overall_accuracy == 1.0


def test_permuted_labels_have_dice_one_after_matching():
    labels = np.random.default_rng(2).integers(0, 4, 500)
    table = metrics.contingency(np.array([3, 0, 2, 1])[labels], labels, n_pred=4, n_ref=4)
    assert metrics.score(table, metrics.match_hungarian(table)).mean() == 1.0
    assert metrics.score(table, metrics.match_identity(table)).mean() < 0.5


def test_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(4)
    reference = rng.integers(0, 4, 2000)
    prediction = np.where(rng.random(2000) < 0.6, reference, rng.integers(0, 4, 2000))
    table = metrics.contingency(prediction, reference, n_pred=4, n_ref=4)
    scores = metrics.score(table, metrics.match_identity(table))
    for measure, theirs in {
        "dice": reference_metrics.f1_score,
        "iou": reference_metrics.jaccard_score,
        "precision": reference_metrics.precision_score,
        "sensitivity": reference_metrics.recall_score,
    }.items():
        np.testing.assert_allclose(getattr(scores, measure), theirs(reference, prediction, average=None))
        assert scores.mean(measure) == pytest.approx(theirs(reference, prediction, average="macro"))
        weighted = theirs(reference, prediction, average="weighted")
        assert scores.weighted_mean(measure) == pytest.approx(weighted)
    for g in range(4):
        one = reference_metrics.accuracy_score(reference == g, prediction == g)
        assert scores.accuracy[g] == pytest.approx(one)
        recall = reference_metrics.recall_score(reference != g, prediction != g)
        assert scores.specificity[g] == pytest.approx(recall)
    assert scores.overall_accuracy == pytest.approx(reference_metrics.accuracy_score(reference, prediction))
    theirs = reference_metrics.confusion_matrix(reference, prediction)
    np.testing.assert_array_equal(scores.confusion[:-1], theirs.T)


def test_absent_classes():
    # class 1: in the prediction only; class 2: on neither side; class 3: in the reference only
    table = metrics.contingency(np.array([0, 0, 1, 0]), np.array([0, 0, 0, 3]), n_pred=4, n_ref=4)
    scores = metrics.score(table, metrics.match_identity(table))
    np.testing.assert_allclose(scores.dice, [4 / 6, 0, np.nan, 0])
    assert scores.present == [0, 3]
    assert scores.mean() == pytest.approx((4 / 6 + 0) / 2)
    assert [c["id"] for c in scores.to_dict()["classes"]] == [0, 1, 3]


def test_empty_table_has_no_scores():
    scores = metrics.score(np.zeros((3, 2), dtype=np.int64), metrics.match_hungarian(np.zeros((3, 2), int)))
    assert math.isnan(scores.mean())
    assert scores.to_dict()["mean"]["dice"] is None
    assert scores.to_dict()["classes"] == []


def test_to_dict_survives_json():
    scores = metrics.score(four_voxels(), metrics.match_hungarian(four_voxels()), {1: "granule"})
    told = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert told == scores.to_dict()
    assert [c["name"] for c in told["classes"]] == ["class 0", "granule"]
    assert told["classes"][0]["dice"] == pytest.approx(2 / 3)
    assert told["protocol"] == "hungarian"
    assert told["uses_reference"] is True


def test_unknown_measure():
    with pytest.raises(UsageError, match="'f1' is not a measure"):
        metrics.score(four_voxels(), metrics.match_identity(four_voxels())).mean("f1")


def test_slice_dice_equals_slice_by_slice():
    rng = np.random.default_rng(8)
    prediction, reference = rng.integers(0, 5, (6, 12, 12)), rng.integers(0, 3, (6, 12, 12))
    reference[2], prediction[2] = 0, 0  # a slice of one class
    tables = np.stack(
        [metrics.contingency(p, r, n_pred=5, n_ref=3) for p, r in zip(prediction, reference, strict=True)]
    )
    assignment = Assignment("manual", {0: 0, 1: 1, 2: 2, 3: 1, 4: None})
    course = metrics.slice_dice(tables, assignment)
    assert course.shape == (6, 3)
    for row, table in zip(course, tables, strict=True):
        np.testing.assert_allclose(row, metrics.score(table, assignment).dice)
    np.testing.assert_allclose(course[2], [1, np.nan, np.nan])
    np.testing.assert_array_equal(
        metrics.merged(tables, assignment).sum(0), metrics.merged(tables.sum(0), assignment)
    )
