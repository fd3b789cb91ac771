"""A graph: the vectors of the regions of one part of a volume, and which of these regions touch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Graph:
    """The regions of a part of a volume, as vectors.

    Attributes
    ----------
    vectors : float16 (n, d)
    intensities : float32 (n,)
        Mean intensity of what each vector stands for, in [0, 1].
    edges : int64 (e, 2)
        Pairs of vectors whose regions touch face to face, each once, the lower number first.
    """

    vectors: NDArray[np.float16]
    intensities: NDArray[np.float32]
    edges: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.vectors)

    def part(self, kept: NDArray[np.bool_]) -> Graph:
        """Return the graph of some of its regions, bool (n,), and of the edges between them."""
        if kept.all():
            return self
        number, both = kept.cumsum() - 1, kept[self.edges].all(axis=1)
        return Graph(self.vectors[kept], self.intensities[kept], number[self.edges[both]])

    @property
    def variety(self) -> float:
        """The variance of the vectors, summed over their channels."""
        return float(self.vectors.astype(np.float32).var(axis=0, dtype=np.float64).sum())

    def features(self, dtype: torch.dtype, *, centred: bool = False) -> Tensor:
        """Return the vectors as a tensor (n, d) of another type, less their mean if asked for, on the CPU."""
        found = torch.from_numpy(self.vectors).to(dtype)
        return found - found.mean(dim=0) if centred else found


def most_varied(graphs: Iterable[Graph]) -> Graph:
    """Return the graph whose vectors vary most: it is likeliest to show all structures.

    SCCS takes one graph as reference and does not say which.
    """
    return max(graphs, key=lambda graph: graph.variety)
