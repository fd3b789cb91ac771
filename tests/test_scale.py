"""The scale of a volume whose voxel size is not known: the one at which the encoder says most."""

import math

import numpy as np
import pytest
import torch

from vemseg.dense.scale import FACTORS, THICK, best_grid
from vemseg.models import build_encoder
from vemseg.recipe import UNetTable
from vemseg.volume import ArrayVolume, Intensity

TABLE = UNetTable(
    slices=4, widths=(4, 6), layers=1, dim=3, classes=("a", "b", "c"), fov=16, view=16, mask_block=8
)


def encoder():
    torch.manual_seed(0)
    return build_encoder(TABLE).eval()


def volume(shape=(6, 400, 400)):
    return ArrayVolume(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def test_information_is_that_of_places_and_classes():
    made = encoder()
    windows = torch.rand(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    rows = made.maps(windows[:, 0]).movedim(2, -1).reshape(-1, 3).double().tolist()
    shares = [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in rows]
    mean = [sum(column) / len(shares) for column in zip(*shares, strict=True)]
    entropy = sum(-p * math.log(p) for row in shares for p in row) / len(shares)
    expected = sum(-p * math.log(p) for p in mean) - entropy
    assert made.information(windows) == pytest.approx(expected, abs=1e-6)
    assert build_encoder(TABLE.model_copy(update={"classes": ()})).information(windows) == 0


@pytest.mark.parametrize("wanted", [(1.0, False), (2.0, True), (3.0, False)])
def test_the_grid_that_says_most_is_taken(wanted, monkeypatch):
    made, seen = encoder(), []
    order = [(factor, thick) for factor in FACTORS for thick in (False, True)]

    def information(windows):
        seen.append(bool((windows == windows[:, :, :1]).all()))
        return 1.0 if order[len(seen) - 1] == wanted else 0.5

    made.information = information
    grid = best_grid(made, volume(), Intensity(0.0, 255.0))
    assert seen == [thick for _, thick in order]
    factor, thick = wanted
    assert grid.factors == (1.0, factor, factor)
    assert grid.volume.shape == (6, round(400 / factor), round(400 / factor))
    assert grid.spacing == (THICK if thick else 1.0, 1.0, 1.0)


def test_planes_too_small_to_compare_are_taken_as_they_are():
    tiny = volume((4, 5, 6))
    assert best_grid(encoder(), tiny, Intensity(0.0, 255.0)).volume is tiny
