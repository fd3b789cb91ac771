"""The scale at which an encoder tells most about a volume whose voxel size is not known.

An encoder that knows classes says little where a volume is far from the scale that it was taught: everything
looks alike to it, or like nothing. How much it says is the mutual information between places and classes: the
entropy of the mean class distribution minus the mean entropy (as in Bridle, Heading, MacKay, Unsupervised
Classifiers, Mutual Information and Phantom Targets, NIPS 1991). No label is needed for that.
"""

from __future__ import annotations

from vemseg.dense.grid import Grid
from vemseg.models import Encoder
from vemseg.sampling import plain_windows, shown_source
from vemseg.volume import Intensity, Resampled, Volume

FACTORS = (1.0, 1.5, 2.0, 3.0)
"""By how much pixels may be enlarged."""

THICK = 7.0
"""The spacing of sections, in pixels, that stands for any spacing at which neighbours are not looked at."""

EDGE, WINDOWS = 128, 16
"""Largest edge in pixels, and number, of the windows on which scales are compared."""


def best_grid(encoder: Encoder, volume: Volume, intensity: Intensity) -> Grid:
    """Return the working grid on which an encoder tells most about a volume.

    Parameters
    ----------
    encoder : Encoder
        One that knows classes and takes slabs.
    volume : Volume
        Its sharp plane is (y, x); its voxel size is not known.
    intensity : Intensity
        What maps its voxels to [0, 1].

    Returns
    -------
    Grid
        Pixels enlarged by one of ``FACTORS``, the planes neighbours in space or separate sections. The grid
        of the volume itself where its planes are too small for a comparison.
    """
    found: list[tuple[float, Grid]] = []
    for factor in FACTORS:
        scaled = volume if factor == 1 else Resampled(volume, (1.0, factor, factor))
        slab = encoder.slab(min(EDGE, *scaled.shape[1:]))
        if slab is None:
            break
        windows = plain_windows(shown_source(scaled, intensity), slab, WINDOWS, "xy")
        alone = windows[:, :, (slab[0] - 1) // 2, None].expand_as(windows)
        for seen, spacing in ((windows, 1.0), (alone, THICK)):
            told = encoder.information(seen)
            found.append((told, Grid(scaled, (1.0, factor, factor), (spacing, 1.0, 1.0))))
    if not found:
        return Grid(volume, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    return max(found, key=lambda pair: pair[0])[1]
