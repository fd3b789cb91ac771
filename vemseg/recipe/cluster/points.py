"""The table of the method that learns classes from a few points."""

from __future__ import annotations

from typing import ClassVar, Literal

from vemseg.recipe.base import Positive
from vemseg.recipe.cluster.base import ClusterTable


class PointsTable(ClusterTable):
    """Logistic regression on the vectors at points that somebody clicked (``cluster --points``).

    Its classes are those of the points, so there is no ``k`` or ``k_range`` to set. The sample says only how
    vectors are scaled.

    Attributes
    ----------
    strength : float
        How closely the points are followed: the inverse of the weight of the squared coefficients.
    """

    method: Literal["points"] = "points"
    k: ClassVar[int] = 0  # type: ignore[misc]  # as in NamedTable
    k_range: ClassVar[tuple[int, ...]] = ()  # type: ignore[misc]
    finds: ClassVar[bool] = False
    by_points: ClassVar[bool] = True

    strength: Positive = 1.0

    def sample_of(self, voxels: int) -> int:
        """Return how many vectors the scaling is taken from."""
        return self.sample if isinstance(self.sample, int) else max(1, round(self.sample * voxels))
