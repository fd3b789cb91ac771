"""Encoders laid over volumes by hand, for tests of dense inference."""

from types import SimpleNamespace

import torch

from vemseg.dense import ComputedVectors, Covering, Maker
from vemseg.models import Machine

CPU = torch.device("cpu")
MACHINE = Machine(CPU, torch.float32, 1, None)
AS_IT_IS = SimpleNamespace(apply=lambda array: array)


def computed(encoder, grid, layout, intensity=AS_IT_IS, batch=64, smooth=0.0):
    """Return the vectors of an encoder in the volume of a working grid, resampled or not."""
    covering = Covering(encoder, grid, layout, intensity, CPU, batch, smooth)
    volume = getattr(grid.volume, "source", grid.volume)
    return ComputedVectors(
        volume, (0, 1, 2), covering, Maker(None, "model", "by hand", None, (), ()), MACHINE
    )


def means_of(source, points):
    """Return the mean intensity of the patch of each lattice point."""
    return source.intensities(points, source.read_points(points))


def labels(source, box, head):
    """Label a box by the scores that a head gives to vectors."""
    return source.labels(box, source.read(box), SimpleNamespace(scores=head))
