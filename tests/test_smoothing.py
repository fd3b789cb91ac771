"""Smoothing on the lattice: SciPy's Gaussian, whatever the box."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from vemseg.dense.smoothing import LEAST_SIGMA, TRUNCATE, gaussian, smoothed


@pytest.mark.parametrize("sigma", [0.4, 0.55, 1.0, 1.7, 6.3])
def test_the_taps_are_a_gaussian(sigma):
    impulse = np.zeros(101)
    impulse[50] = 1.0
    taps = gaussian(sigma)
    radius = len(taps) // 2
    expected = gaussian_filter1d(impulse, sigma, truncate=TRUNCATE)[50 - radius : 51 + radius]
    np.testing.assert_allclose(taps, expected, atol=1e-7)
    assert gaussian_filter1d(impulse, sigma, truncate=TRUNCATE)[50 - radius - 1] == 0
    assert taps.sum() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 0.2, LEAST_SIGMA - 1e-9])
def test_an_axis_smoothed_too_little_is_left_alone(sigma):
    assert gaussian(sigma).tolist() == [1.0]


@pytest.mark.parametrize("sigmas", [(1.3, 0.0, 2.0), (0.5, 4.0, 0.7), (0.0, 0.0, 0.0)])
@pytest.mark.parametrize("shape", [(7, 12, 9), (1, 3, 20), (1, 1, 1)])
def test_smoothing_is_that_of_scipy(sigmas, shape):
    values = np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)
    expected = values.astype(np.float64)
    for axis, sigma in enumerate(sigmas):
        if sigma:
            expected = gaussian_filter1d(expected, sigma, axis, truncate=TRUNCATE, mode="nearest")
    found = smoothed(torch.from_numpy(values), [gaussian(sigma) for sigma in sigmas])
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_box_with_its_margin_is_smoothed_as_the_whole():
    values = torch.from_numpy(np.random.default_rng(1).normal(size=(20, 22, 24, 2)).astype(np.float32))
    kernels = [gaussian(sigma) for sigma in (1.0, 1.5, 0.6)]
    z, y, x = (len(taps) // 2 for taps in kernels)
    whole = smoothed(values, kernels)
    part = smoothed(values[3 : 3 + 5 + 2 * z, 4 : 4 + 3 + 2 * y, 5 : 5 + 6 + 2 * x], kernels)
    assert torch.equal(part[z:-z, y:-y, x:-x], whole[3 + z : 8 + z, 4 + y : 7 + y, 5 + x : 11 + x])


def test_what_is_smoothed_stays_as_it_was():
    values = torch.rand(4, 5, 6, 1, generator=torch.Generator().manual_seed(0))
    before = values.clone()
    smoothed(values, [gaussian(1.0)] * 3)
    assert torch.equal(values, before)
