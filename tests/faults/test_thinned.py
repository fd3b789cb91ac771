"""Pictures of large volumes read every so many voxels, a few rows at a time."""

import numpy as np
import pytest

from vemseg import drawing
from vemseg.geometry import Box
from vemseg.volume import ArrayVolume, Thinned, planes, sections, thinned


class Watched(ArrayVolume):
    """A volume that remembers the largest box that was read from it."""

    largest = 0

    def _read(self, box):
        self.largest = max(self.largest, box.size)
        return super()._read(box)


@pytest.mark.parametrize("shape", [(40, 40, 40), (3, 300, 200), (1, 400, 400), (90, 20, 30)], ids=str)
@pytest.mark.parametrize("most", [7, 64, 1000])
def test_a_thinned_volume_is_the_strided_one(shape, most, monkeypatch):
    monkeypatch.setattr(thinned, "READ_VOXELS", 2000)
    array = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    volume = Watched(array, (40.0, 4.0, 5.0))
    seen = Thinned(volume, most)
    assert max(seen.shape) <= most
    z, y, x = seen.steps
    assert seen.voxel_size == (40.0 * z, 4.0 * y, 5.0 * x)
    strided = array[::z, ::y, ::x]
    assert seen.shape == strided.shape
    at = seen.at(tuple(n // 2 for n in shape))
    for found, expected in zip(
        planes(seen, at), (strided[at[0]], strided[:, at[1]], strided[:, :, at[2]]), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(sections(seen, [0, at[0]]), strided[[0, at[0]]])
    part = Box((0, 1, 2), (seen.shape[0], seen.shape[1], seen.shape[2] - 1))
    np.testing.assert_array_equal(seen.read(part), strided[part.slices])
    if seen.steps != (1, 1, 1):
        assert volume.largest <= max(2000, z * y * shape[2])


def test_a_bar_counts_the_voxels_of_the_volume():
    grey = np.zeros((1, 100, 400), np.uint8)
    texts = [
        [text.get_text() for text in axes.texts]
        for steps in ((1, 1, 1), (1, 5, 5))
        for axes in drawing.montage(grey, None, [0], manner=drawing.Manner(steps=steps)).axes
    ]
    assert texts == [["100 px"], ["500 px"]]
