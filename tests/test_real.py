"""Claims about quality, on real volumes with labels; skipped where there are none."""

import pytest

from vemseg.catalog import bundled_weights
from vemseg.dense import Wanted
from vemseg.pipeline.evaluate import Comparison, evaluate
from vemseg.pipeline.segment import segment

pytestmark = [pytest.mark.slow, pytest.mark.data]

BAND_BEST = 0.52
"""Dice of mitochondria by the best threshold band on smoothed grey values, chosen with the labels."""


def mitochondria(real_volume, out, model, k):
    raw = real_volume("epfl_train_15nm", "raw.tif")
    settings = (f"cluster.k={k}", "cluster.sample=100000", "cluster.restarts=3")
    segment(Wanted(str(raw), model, settings), out)
    found = evaluate(Comparison(str(out), str(real_volume("epfl_train_15nm", "labels.tif"))))
    return found.tables[-1].dice[1]


def test_plain_filters_find_mitochondria(real_volume, tmp_path):
    assert mitochondria(real_volume, tmp_path / "seg.tif", "classical", 8) > 0.4
    assert mitochondria(real_volume, tmp_path / "more.tif", "classical", 16) > BAND_BEST


def test_the_default_beats_any_threshold_without_seeing_a_label(real_volume, tmp_path):
    assert mitochondria(real_volume, tmp_path / "seg.tif", None, 8) > BAND_BEST + 0.05


@pytest.mark.skipif("maester" not in bundled_weights(), reason="no weights are bundled yet")
def test_bundled_weights_are_better_than_chance(real_volume, tmp_path):
    """A labelling by chance cannot exceed the Dice of calling everything a mitochondrion, 0.10."""
    assert mitochondria(real_volume, tmp_path / "seg.tif", "maester", 8) > 0.3
