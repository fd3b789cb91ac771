"""The labeller: K classes as scores of a vector; the class is the one with the largest score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vemseg.context import Context
from vemseg.errors import InputError
from vemseg.graphs import Graph
from vemseg.recipe import METHODS
from vemseg.run import save_tensors

Single = NDArray[np.float32]
Doubles = NDArray[np.float64]

KIND = "vemseg-clusters"
"""Stands in every file of a saved labeller, and tells it from other safetensors."""
FORMAT = 2
"""Version of the file format, which is in every saved labeller; it changes when the arrays do."""

MARGIN, OWN = "margin", "classes"
"""Keys of metadata: how far the best class of a vector is typically ahead of the second, in scores; and the
names of classes that are the encoder's own."""

SAMPLE_BYTES = 12
"""Bytes for each number of the sample while classes are fitted: two copies in float16, two in float32."""

Arrays = Mapping[str, NDArray[np.generic]]
"""Arrays of a labeller, by name."""

Metadata = dict[str, Any]
"""How a labeller was made, as plain JSON."""

OwnTable = Any
"""The ``[cluster]`` table of one method; every labeller names its own subclass of ``ClusterTable``."""


@dataclass(frozen=True)
class Examples:
    """Vectors whose class somebody has given.

    Attributes
    ----------
    vectors : float32 (n, d)
    classes : int64 (n,)
        Indices into ``names``; each of them occurs.
    names : tuple of str
    """

    vectors: Single
    classes: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """What classes are fitted on.

    Attributes
    ----------
    vectors : float16 (n, d)
    intensities : float32 (n,)
        Mean intensity of the patch of each vector; orders the classes.
    codes : float32 (m, d), optional
        The codebook that the model learned; None where it has none.
    classes : tuple of str
        The classes that the encoder itself tells apart (see ``models.Encoder``); empty where it knows none.
    graphs : tuple of Graph
        Where vectors stand for regions: the graphs that the vectors are the nodes of, in the same order.
    learned : mapping of str to array
        The labeller that was trained together with the model, as its arrays; empty where there is none.
    examples : Examples, optional
        Vectors whose class is known; None where nobody gave any.
    """

    vectors: NDArray[np.float16]
    intensities: Single
    codes: Single | None = None
    classes: tuple[str, ...] = ()
    graphs: tuple[Graph, ...] = ()
    learned: Arrays = field(default_factory=dict)
    examples: Examples | None = None

    @classmethod
    def joined(cls, samples: Sequence[Sample]) -> Self:
        """Return the samples of several volumes as one; they are by the same model."""
        first = samples[0]
        return cls(
            np.concatenate([sample.vectors for sample in samples]),
            np.concatenate([sample.intensities for sample in samples]),
            first.codes,
            first.classes,
            tuple(graph for sample in samples for graph in sample.graphs),
            first.learned,
        )


def legend(k: int, names: Mapping[int, str], own: Mapping[int, str] = MappingProxyType({})) -> dict[int, str]:
    """Return the name of each class, 1..K.

    Parameters
    ----------
    k : int
        Number of classes.
    names : mapping of int to str
        The names that a user gives.
    own : mapping of int to str
        The names of classes to which the user gives none; a class without any is called by its number.

    Raises
    ------
    InputError
        Where a number is not that of a class.
    """
    check_names(k, names)
    return {number: names.get(number) or own.get(number) or f"class {number}" for number in range(1, k + 1)}


def check_names(k: int, names: Mapping[int, str]) -> None:
    """Refuse names of other classes than 1..K.

    Raises
    ------
    InputError
        Naming their numbers.
    """
    if extra := [number for number in names if not 1 <= number <= k]:
        raise InputError(f"names for classes {extra}, but there are classes 1 to {k}")


class Source(Protocol):
    """The vectors of a volume, for methods that need more than a sample of them without their places."""

    dim: int
    """Length of a vector."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that the encoder itself tells apart; a vector begins with their logits."""

    @property
    def count(self) -> int:
        """Number of vectors of the whole volume."""

    def sample(self, n: int, seed: int, context: Context) -> Sample:
        """Return a sample of ``n`` vectors, or of all where there are fewer."""


class Demand(NamedTuple):
    """The memory that a step of fitting takes.

    Attributes
    ----------
    what : str
        The step, worded to follow "memory is not enough to".
    bytes : int
        The memory it takes.
    instead : str
        What would take less, worded to follow "take".
    """

    what: str
    bytes: int
    instead: str


@dataclass(frozen=True, eq=False)
class Labeller(ABC):
    """Gives a vector a score for each of K classes, fitted with the settings of one ``[cluster]`` table.

    Subclasses are frozen dataclasses too. Their fields are the arrays from which scores are computed. These
    arrays and the metadata are all that is saved; a field whose default is None may be missing in a file.

    Attributes
    ----------
    metadata : dict
        How the labeller was made: settings, sizes of the classes in the sample, the encoder's hash.
    exact_under_interpolation : bool
        Whether scores interpolated between vectors are the scores of the interpolated vectors.
    probabilistic : bool
        Whether scores are logarithms of the probabilities of classes, up to a number that all classes share.
    """

    exact_under_interpolation: ClassVar[bool] = False
    probabilistic: ClassVar[bool] = False

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
        return self.scores(graph.features(torch.float32))

    @property
    def rates(self) -> bool:
        """Whether :meth:`confidence` can be told: from probabilities, or beside the scores of a sample."""
        return self.probabilistic or MARGIN in self.metadata

    def confidence(self, scores: Tensor) -> Tensor:
        """Return how certain the best class is, from scores: float (..., K) -> float (...), 0 to 1.

        Where scores are logarithms of probabilities, it is the probability of the best class; that of an
        encoder's own classes takes ``cluster.caution`` into account. Otherwise it is
        m / (m + t): m says how far the best class is ahead of the second, and t is the median of m in the
        sample that the classes were fitted on. That is 0 on the border between two classes, 0.5 at the
        typical distance from it, and nearly 1 deep inside a class. It is not a probability.
        """
        if self.probabilistic:
            return scores.softmax(dim=-1).amax(dim=-1)
        best, second = scores.topk(2, dim=-1).values.unbind(dim=-1)
        ahead = best - second
        typical = float(self.metadata[MARGIN])
        return ahead / (ahead + typical).clamp_min(torch.finfo(ahead.dtype).tiny)

    @property
    def span(self) -> tuple[float, float]:
        """The range of ``--scores`` that viewers should show, which ends at 0, the score of the best class.

        It begins four typical leads of the best class below 0, or at -8 where scores are logarithms.
        """
        typical = float(self.metadata.get(MARGIN, 0.0))
        return (-4 * typical if typical > 0 else -8.0), 0.0

    @abstractmethod
    def reordered(self, order: NDArray[np.int64]) -> Self:
        """Renumber the classes: class ``i`` of the result is class ``order[i]`` of this labeller."""

    @classmethod
    @abstractmethod
    def fit(cls, table: OwnTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Find K classes in a sample; their order does not matter.

        Parameters
        ----------
        table : ClusterTable
            The settings of this method.
        sample : Sample
            It has at least as many vectors as classes, all finite. Its arrays must not be changed.
        source : Source or None
            The vectors of the volume; None where there are several volumes, or only a sample is known.
        context : Context
            Where to compute, whom to tell, and whom to ask whether to stop.

        Raises
        ------
        UsageError
            Where settings do not fit the sample.
        InputError
            Where fewer than K classes can be found in the sample.
        """

    @classmethod  # noqa: B027 - a method may have nothing to refuse
    def check(cls, table: OwnTable, codes: Single | None, classes: tuple[str, ...], learned: Arrays) -> None:
        """Refuse what cannot be fitted, before a sample is drawn; by default nothing is refused.

        Parameters
        ----------
        table : ClusterTable
        codes : float32 (m, d) or None
            The codebook of the model.
        classes : tuple of str
            The classes that the encoder itself tells apart.
        learned : mapping of str to array
            The labeller that was trained together with the model; empty where there is none.

        Raises
        ------
        UsageError
            Says what is missing.
        """

    @classmethod
    def demands(cls, table: OwnTable, n: int, dim: int, codes: Single | None) -> list[Demand]:
        """Return the memory that each step of fitting to ``n`` vectors of length ``dim`` takes."""
        smaller = f"a smaller sample (--set cluster.sample={n // 4})"
        return [Demand(f"fit classes to {n} vectors", SAMPLE_BYTES * n * dim, smaller)]

    @property
    def settings(self) -> OwnTable:
        """The ``[cluster]`` table that it was fitted with, but for the size of the sample."""
        table = METHODS[self.metadata["method"]].table
        keys = table.model_fields.keys() - {"sample"}  # metadata say how many vectors there were
        own = {key: value for key, value in self.metadata.items() if key in keys}
        frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in own.items()}
        return table.model_validate(frozen)

    def noting(self, facts: Mapping[str, object]) -> Self:
        """Return the same labeller with these facts added to its metadata."""
        return replace(self, metadata=self.metadata | dict(facts))

    def named(self, names: Mapping[int, str]) -> Self:
        """Return the same labeller with names for its classes, 1..K.

        Raises
        ------
        InputError
            Where a number is not that of a class.
        """
        check_names(self.k, names)
        return self.noting({"names": {str(number): name for number, name in names.items()}})

    @property
    def own_names(self) -> dict[int, str]:
        """The names of the encoder's own classes, 1..K; empty where the classes were found."""
        return dict(enumerate(self.metadata.get(OWN, []), start=1))

    @property
    def names(self) -> dict[int, str]:
        """The name of each class, 1..K: a given one, else its own, else its number."""
        given: dict[str, str] = self.metadata.get("names", {})
        return legend(self.k, {int(number): name for number, name in given.items()}, self.own_names)

    def save(self, path: Path) -> None:
        """Write the labeller as safetensors with its metadata, whole or not at all."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "metadata"}
        given = {name: array for name, array in arrays.items() if array is not None}
        save_tensors(path, given, {"kind": KIND, "format": FORMAT} | self.metadata)

    @classmethod
    def restored(cls, arrays: Arrays, metadata: Metadata) -> Self:
        """Make a labeller of saved arrays and metadata.

        Raises
        ------
        InputError
            Where the arrays are not those of this class.
        """
        needed = {f.name: f.default is MISSING for f in fields(cls) if f.name != "metadata"}
        wrong = [f"no array '{name}'" for name, must in needed.items() if must and name not in arrays]
        wrong += [f"an unknown array '{name}'" for name in arrays if name not in needed]
        if wrong:
            raise InputError(f"damaged clusters: the file holds {' and '.join(wrong)}")
        return cls(**arrays, metadata=metadata)
