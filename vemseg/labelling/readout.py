"""Classes learned from a few points: logistic regression on the vectors there; the encoder is not trained.

Vectors are scaled first, as the ``[cluster]`` table says; the scaling comes from a sample of all vectors, not
from the few points. Each class counts alike, however many points it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vemseg.context import Context
from vemseg.errors import InputError, UsageError
from vemseg.labelling.affine import AffineScores
from vemseg.labelling.base import Sample, Source
from vemseg.labelling.columns import Columns
from vemseg.labelling.scaling import scaling
from vemseg.recipe import PointsTable

ITERATIONS = 1000
"""Most steps of the solver."""


@dataclass(frozen=True, eq=False)
class ReadoutLabeller(AffineScores):
    """A linear read-out: the scores are the logarithms of probabilities, up to a number that all share."""

    probabilistic: ClassVar[bool] = True

    @classmethod
    def fit(cls, table: PointsTable, sample: Sample, source: Source | None, context: Context) -> Self:
        """Fit the read-out to the examples of a sample.

        Raises
        ------
        UsageError
            Where there are no examples.
        InputError
            Where they have fewer than two classes, or the vectors hold NaN or infinity.
        """
        from sklearn.linear_model import LogisticRegression

        given = sample.examples
        if given is None:
            raise UsageError("cluster.method points learns from points: give them with cluster --points")
        if len(given.names) < 2:
            raise InputError(f"all points are {given.names[0]}: click at least one other class")
        if not (np.isfinite(sample.vectors).all() and np.isfinite(given.vectors).all()):
            raise InputError("the vectors hold NaN or infinity: the model's weights are damaged")
        data, scaled = given.vectors.astype(np.float32), scaling(sample.vectors.astype(np.float32), table)
        if scaled is not None:
            scaled.apply(data)
        made = LogisticRegression(C=table.strength, class_weight="balanced", max_iter=ITERATIONS)
        made.fit(data.astype(np.float64), given.classes)
        weight, bias = made.coef_.T, made.intercept_
        if len(given.names) == 2:  # scikit-learn then gives the scores of the second class alone
            weight, bias = np.hstack([np.zeros_like(weight), weight]), np.concatenate([[0.0], bias])
        names = {str(i): name for i, name in enumerate(given.names, start=1)}
        return cls(*Columns(weight, bias).after(scaled).rounded(), metadata={"names": names})
