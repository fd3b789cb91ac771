"""Classes that are joined from the codebook that a model learned (HiS4MAE).

Every code is the centre of a part, and scores are computed from parts as in ``linkage``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from vemseg.context import Context
from vemseg.errors import UsageError
from vemseg.labelling.base import Arrays, Demand, Sample, Single, Source
from vemseg.labelling.columns import prepared
from vemseg.labelling.linkage import JoinedLabeller
from vemseg.recipe import CodebookTable


@dataclass(frozen=True, eq=False)
class CodebookLabeller(JoinedLabeller):
    """A labeller whose classes are joined from the codes of a model."""

    @classmethod
    def fit(cls, table: CodebookTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Join the codes of the model into classes."""
        data, scaled = prepared(table, sample)
        codes = _required(sample.codes).copy()
        if codes.shape[1] != data.shape[1]:
            raise _no_codes()
        if scaled is not None:
            scaled.apply(codes)
        return cls.joined(data, codes, table.k, table.linkage, scaled)

    @classmethod
    def check(
        cls, table: CodebookTable, codes: Single | None, classes: tuple[str, ...], learned: Arrays
    ) -> None:
        """Refuse a model without a codebook, and more classes than there are codes."""
        n = len(_required(codes))
        if table.k > n:
            raise UsageError(f"k = {table.k} classes cannot be joined from the model's {n} codes")

    @classmethod
    def demands(cls, table: CodebookTable, n: int, dim: int, codes: Single | None) -> list[Demand]:
        """Return the memory that fitting takes: for the sample, and for joining the codes."""
        return [*super().demands(table, n, dim, codes), cls.joining(len(_required(codes)))]


def _required(codes: Single | None) -> Single:
    if codes is None:
        raise _no_codes()
    return codes


def _no_codes() -> UsageError:
    return UsageError(
        "cluster.method codebook needs the vectors of a model with a codebook (his4mae): take another method"
    )
