"""Scale-space features against their formulas spelt out, and the same whatever the window."""

import numpy as np
import pytest
import torch

from vemseg.geometry import Box
from vemseg.models import build_encoder
from vemseg.recipe import ClassicalTable

SIGMAS = (0.7, 1.5)
TRUNCATE = 2.5


def encoder_for(sigmas=SIGMAS, spacing=(1.0, 1.0, 1.0)):
    return build_encoder(ClassicalTable(sigmas=sigmas, truncate=TRUNCATE), spacing)


def image_of(shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def encode(encoder, image, kept=None):
    return encoder.encode(torch.from_numpy(image)[None, None], kept)[0].numpy()


def kernel(sigma):
    """Return the weights of a Gaussian cut off at ``TRUNCATE`` sigmas."""
    radius = int(TRUNCATE * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def slow_gaussian(image, sigmas):
    """Smooth every voxel whose neighbourhood is inside; the others are NaN."""
    smooth = image.astype(np.float64)
    for axis, sigma in enumerate(sigmas):
        if sigma:
            weights = kernel(sigma)
            lines = np.apply_along_axis(np.convolve, axis, smooth, weights, "valid")
            margin = [(0, 0)] * 3
            margin[axis] = (len(weights) // 2, len(weights) // 2)
            smooth = np.pad(lines, margin, constant_values=np.nan)
    return smooth


def slow_features(image, sigmas):
    """Return Gaussian, gradient magnitude, Laplacian and local deviation of one scale, NaN at the border."""
    smooth = slow_gaussian(image, sigmas)
    slopes, curvatures = [], []
    for axis, sigma in enumerate(sigmas):
        if sigma:
            before, after = np.roll(smooth, 1, axis), np.roll(smooth, -1, axis)
            slopes.append(sigma * (after - before) / 2)
            curvatures.append(sigma**2 * (after - 2 * smooth + before))
    variance = slow_gaussian(image.astype(np.float64) ** 2, sigmas) - smooth**2
    gradient = np.sqrt(np.sum(np.square(slopes), axis=0))
    return np.stack([smooth, gradient, np.sum(curvatures, axis=0), np.sqrt(variance.clip(0))], axis=-1)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.4, 1.0, 1.0), (5.0, 1.0, 1.0)], ids=str)
def test_features_are_their_formulas(spacing):
    encoder, image = encoder_for(spacing=spacing), image_of((13, 17, 19))
    found = encode(encoder, image)
    assert found.shape == (13, 17, 19, encoder.dim)
    inner = tuple(slice(h, n - h) for h, n in zip(encoder.halo, image.shape, strict=True))
    for i, sigma in enumerate(SIGMAS):
        scaled = [sigma / edge for edge in spacing]
        slow = slow_features(image, [s if s >= 0.4 else 0.0 for s in scaled])[inner]
        assert np.isfinite(slow).all()
        np.testing.assert_allclose(found[inner][..., 4 * i : 4 * i + 4], slow, atol=2e-5)


def test_the_halo_is_what_a_feature_depends_on_and_no_more():
    encoder = encoder_for(spacing=(1.5, 1.0, 1.0))
    shape = tuple(2 * h + 3 for h in encoder.halo)
    centre = tuple(n // 2 for n in shape)
    image = image_of(shape)
    feature = encode(encoder, image)[centre]
    for axis, halo in enumerate(encoder.halo):
        for offset, matters in ((halo, True), (halo + 1, False)):
            changed = image.copy()
            at = list(centre)
            at[axis] += offset
            changed[tuple(at)] += 1000.0
            assert np.array_equal(encode(encoder, changed)[centre], feature) != matters
    assert encoder.fov == tuple(1 + 2 * h for h in encoder.halo)
    assert encoder.patch == (1, 1, 1)


@pytest.mark.parametrize("window", [(1, 1, 1), (2, 9, 4), (6, 13, 15)], ids=str)
def test_features_are_bit_identical_whatever_the_window(window):
    encoder = encoder_for()
    inside = (6, 13, 15)
    image = image_of(tuple(n + 2 * h for n, h in zip(inside, encoder.halo, strict=True)))
    kept = tuple(slice(h, h + n) for h, n in zip(encoder.halo, inside, strict=True))
    whole = encode(encoder, image, kept)
    for box in Box.whole(inside).split(window):
        context = Box(box.start, tuple(s + 2 * h for s, h in zip(box.stop, encoder.halo, strict=True)))
        kept = tuple(slice(h, h + n) for h, n in zip(encoder.halo, box.shape, strict=True))
        np.testing.assert_array_equal(encode(encoder, image[context.slices], kept), whole[box.slices])


def test_thick_sections_are_handled_plane_by_plane():
    encoder = encoder_for(spacing=(8.0, 1.0, 1.0))
    assert encoder.halo[0] == 0
    stack = image_of((3, 20, 20))
    planes = np.concatenate([encode(encoder, plane[None]) for plane in stack])
    np.testing.assert_array_equal(encode(encoder, stack), planes)


def test_a_scale_is_the_same_length_along_each_axis():
    encoder = encoder_for(sigmas=(2.0,), spacing=(4.0, 1.0, 1.0))
    assert encoder.sigmas == [(0.5, 2.0, 2.0)]
    assert encoder_for(sigmas=(1.0, 2.0), spacing=(4.0, 1.0, 1.0)).sigmas[0] == (0.0, 1.0, 1.0)


def test_windows_of_a_batch_do_not_meet():
    encoder, images = encoder_for(), image_of((3, 1, 9, 9, 9))
    together = encoder.encode(torch.from_numpy(images)).numpy()
    for image, features in zip(images, together, strict=True):
        np.testing.assert_array_equal(encode(encoder, image[0]), features)


def test_flat_images_have_no_structure():
    features = encode(encoder_for(), np.full((12, 12, 12), 0.75, np.float32))
    for feature, value in enumerate([0.75, 0.0, 0.0, 0.0] * len(SIGMAS)):
        np.testing.assert_allclose(features[..., feature], value, atol=5e-4)
    assert encoder_for().dim == 4 * len(SIGMAS)
    assert not list(encoder_for().parameters())
