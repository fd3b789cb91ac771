"""One batch of several processes that train together: each draws a part of its samples, and all get all."""

from __future__ import annotations

from torch import Tensor

from vemseg.batch import Batch, Batches
from vemseg.ranks import gathered, here


def whole_batch(source: Batches, step: int, size: int) -> Batch:
    """Return the samples of a step, of which this process draws every N-th one (see ``vemseg.ranks``).

    Parameters
    ----------
    source : Batches
        Of the same volumes in all processes; its samples are windows.
    step, size : int
        Number of the step, and of its samples, a multiple of the number of processes.
    """
    ranks = here()
    own = source.batch(step, size, ranks.index, ranks.count)
    if ranks.whole:
        return own
    labels, positions, volume, labelled = (
        None if tensor is None else gathered(tensor)
        for tensor in (own.labels, own.positions, own.volume, own.labelled)
    )

    def nearby(offsets: Tensor) -> Tensor:
        return gathered(own.around(offsets[ranks.index :: ranks.count]))

    return Batch(gathered(own.images), labels, positions, volume, nearby, labelled=labelled)
