"""The labeller: K classes as scores of a vector; the class is the one with the largest score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.context import Context
from vemseg.errors import InputError
from vemseg.geometry import Box
from vemseg.run import save_tensors

KIND = "vemseg-clusters"
FORMAT = 2
"""Stands in every file of a saved labeller; another number means other arrays."""

SAMPLE_BYTES = 12
"""Bytes for each number of a sample while classes are fitted: float16 twice and float32 twice."""

Metadata = dict[str, Any]
"""What made a labeller, as plain JSON."""

OwnTable = Any
"""The ``[cluster]`` table of one method, a subclass of ``ClusterTable``; each labeller names its own."""


@dataclass(frozen=True)
class Sample:
    """What classes are fitted on.

    Attributes
    ----------
    vectors : float16 (n, d)
    intensities : float32 (n,)
        Mean intensity of the patch of each vector; orders the classes.
    codes : float32 (m, d), optional
        What the model learned of its vectors; None where it has no codebook.
    """

    vectors: NDArray[np.float16]
    intensities: NDArray[np.float32]
    codes: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Graph:
    """All vectors of a source, and which of them belong side by side.

    Attributes
    ----------
    vectors : float16 (n, d)
    intensities : float32 (n,)
        Mean intensity of what each vector stands for.
    edges : int64 (e, 2)
        Pairs of vectors that are neighbours, each once, the lower number first.
    """

    vectors: NDArray[np.float16]
    intensities: NDArray[np.float32]
    edges: NDArray[np.int64]


class Source(Protocol):
    """The vectors of a volume, for methods that want more of them than a sample without order."""

    dim: int
    """Length of a vector."""

    @property
    def count(self) -> int:
        """Number of vectors of the whole volume."""

    def sample(self, n: int, seed: int, context: Context) -> Sample:
        """Return ``n`` of them, or all where there are no more."""

    def graph(self) -> Graph | None:
        """Return all of them with their neighbours; None where they are too many, as on a lattice."""

    def read(self, box: Box) -> NDArray[np.generic]:
        """Return what a box of the volume is labelled from: voxels, vectors, or numbers of regions."""


class Demand(NamedTuple):
    """What a step of fitting takes of memory.

    Attributes
    ----------
    what : str
        The step, as it follows "memory is not enough to".
    bytes : int
    instead : str
        What takes less, as it follows "take".
    """

    what: str
    bytes: int
    instead: str


@dataclass(frozen=True, eq=False)
class Labeller(ABC):
    """K classes as scores of a vector, fitted by the settings of one ``[cluster]`` table.

    Subclasses are frozen dataclasses too. Their fields are the arrays that the scores follow from, and they
    are all that is saved beside the metadata; those with a default of None may be missing.

    Attributes
    ----------
    metadata : dict
        What made it: settings, sizes of the classes in the sample, the encoder's hash.
    exact_under_interpolation : bool
        Whether scores interpolated between vectors are the scores of the interpolated vectors.
    """

    exact_under_interpolation: ClassVar[bool] = False

    metadata: Metadata = field(default_factory=dict, kw_only=True)

    @property
    @abstractmethod
    def k(self) -> int:
        """Number of classes."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of the vectors it takes."""

    @abstractmethod
    def scores(self, vectors: Tensor) -> Tensor:
        """Return class scores: float32 (..., d) -> float32 (..., K), on the device of the vectors."""

    def graph_scores(self, graph: Graph) -> Tensor:
        """Return the scores of all vectors of a graph, float32 (n, K); by default, each is scored alone."""
        return self.scores(torch.from_numpy(graph.vectors).float())

    @abstractmethod
    def reordered(self, order: NDArray[np.int64]) -> Self:
        """Return the same classes under other numbers: class ``i`` of the new is ``order[i]`` of this one."""

    @classmethod
    @abstractmethod
    def fit(cls, table: OwnTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Return K classes of a sample, in any order.

        Parameters
        ----------
        table : ClusterTable
            The method's own.
        sample : Sample
            As many vectors as classes at least, all finite. Its arrays must be left as they are.
        source : Source or None
            The volume's vectors, where there is one volume and its vectors are at hand.
        context : Context
            Where to compute, whom to tell, and whom to ask whether to stop.

        Raises
        ------
        UsageError
            Where settings do not go with the sample.
        InputError
            Where the sample has fewer than K classes in it.
        """

    @classmethod  # noqa: B027 - a method may have nothing to refuse
    def check(cls, table: OwnTable, codes: NDArray[np.float32] | None) -> None:
        """Refuse what cannot be fitted, before a sample is drawn; by default nothing is refused.

        Raises
        ------
        UsageError
            Saying what is missing.
        """

    @classmethod
    def demands(cls, table: OwnTable, n: int, dim: int, codes: NDArray[np.float32] | None) -> list[Demand]:
        """Return what fitting to ``n`` vectors of length ``dim`` takes of memory, step by step."""
        smaller = f"a smaller sample (--set cluster.sample={n // 4})"
        return [Demand(f"fit classes to {n} vectors", SAMPLE_BYTES * n * dim, smaller)]

    def noting(self, facts: Mapping[str, Any]) -> Self:
        """Return the same labeller with more to say of itself."""
        return replace(self, metadata=self.metadata | dict(facts))

    def named(self, names: Mapping[int, str]) -> Self:
        """Return the same labeller with names for its classes, 1..K.

        Raises
        ------
        InputError
            Where there is no class of some number.
        """
        if extra := [number for number in names if not 1 <= number <= self.k]:
            raise InputError(f"names for classes {extra}, but there are classes 1 to {self.k}")
        return self.noting({"names": {str(number): name for number, name in names.items()}})

    @property
    def names(self) -> dict[int, str]:
        """The name of each class, 1..K: the one it was given, or its number."""
        given = self.metadata.get("names", {})
        return {number: given.get(str(number), f"class {number}") for number in range(1, self.k + 1)}

    def save(self, path: Path) -> None:
        """Write the labeller as safetensors with its metadata, whole or not at all."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "metadata"}
        given = {name: array for name, array in arrays.items() if array is not None}
        save_tensors(path, given, {"kind": KIND, "format": FORMAT} | self.metadata)

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]], metadata: Metadata) -> Self:
        """Return the labeller of saved arrays.

        Raises
        ------
        InputError
            Where they are not those of this class.
        """
        needed = {f.name: f.default is MISSING for f in fields(cls) if f.name != "metadata"}
        wrong = [f"no array '{name}'" for name, must in needed.items() if must and name not in arrays]
        wrong += [f"an unknown array '{name}'" for name in arrays if name not in needed]
        if wrong:
            raise InputError(f"damaged clusters: the file holds {' and '.join(wrong)}")
        return cls(**arrays, metadata=metadata)
