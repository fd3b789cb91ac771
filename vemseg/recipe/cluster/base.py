"""What the ``[cluster]`` tables of all methods share."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vemseg.recipe.base import Count, CountOrShare, Natural, Positive, Seed, Share, Table, UpToOne, require

K_RANGE = (4, 12)
"""The first and the last number of classes that are tried for ``k = "auto"``."""

Classes = Annotated[int, Field(ge=2, le=255)]


class ClusterTable(Table):
    """How classes are found among vectors.

    Attributes
    ----------
    method : str
        Name of the method in ``recipe.METHODS``.
    k : int
        Number of classes, 2 to 255. "auto" stands for the range ``K_RANGE``, 0 for a method that takes the
        classes of the model.
    k_range : (int, int) or ()
        The first and the last of the numbers of classes from which one is chosen without labels
        (``labelling.find_classes``); empty where k is given. ``k`` is then the last of them, so that memory
        and settings are checked for it.
    sample : int or float
        Number of vectors that classes are fitted on, or below 1 a share of the volume's voxels.
    seed : int
        Seed of everything random in the fit.
    scale : {"none", "standardise", "whiten"}
        How vectors are scaled first: not at all, each feature to variance 1, or all directions to variance 1.
        The default depends on the kind of model.
    balance : float
        Where the encoder knows classes of its own, how much more those vectors of the sample count that it
        takes for rare ones: 0 for all vectors alike, 1 for each class alike. Otherwise most clusters divide
        what there is most of, such as cytosol.
    floor : float
        Whitening brings a principal direction of the standardised features to variance 1 if its variance is
        at least this share of the largest; weaker directions hold noise and stay below 1.
    whitened : int
        Number of leading features that "whiten" whitens, 0 for all. Each of the others is only brought to the
        standard deviation ``others``.
    others : float
        Standard deviation of the features that are not whitened, which weighs them against the whitened ones,
        of standard deviation 1.
    regions : bool
        Whether the method works on the regions of a volume only (``[regions]``), which it sees as graphs.
    finds : bool
        Whether classes are looked for in a sample of vectors. If not, the model has them already, or somebody
        gives them, under numbers that they keep.
    by_points : bool
        Whether classes are learned from points that somebody gives.
    """

    regions: ClassVar[bool] = False
    finds: ClassVar[bool] = True
    by_points: ClassVar[bool] = False

    method: str
    k: Classes = 6
    k_range: tuple[Classes, ...] = ()
    sample: CountOrShare = 500_000
    seed: Seed = 0
    scale: Literal["none", "standardise", "whiten"] = "none"
    balance: UpToOne = 0.0
    floor: Share = 1e-3
    whitened: Natural = 0
    others: Positive = 1.0

    def sample_of(self, voxels: int) -> int:
        """Return how many vectors classes are fitted on, for volumes with a number of voxels together."""
        if not self.finds:
            return 0
        return self.sample if isinstance(self.sample, int) else max(self.k, round(self.sample * voxels))

    @property
    def most(self) -> float:
        """The largest number of vectors to fit on; infinity where it depends on the volume."""
        return self.sample if isinstance(self.sample, int) else math.inf

    def of(self, k: int) -> Self:
        """Return the same settings for a number of classes that is given."""
        return self.model_copy(update={"k": k, "k_range": ()})

    @model_validator(mode="before")
    @classmethod
    def _fill_k(cls, table: object) -> object:
        """Write out the range that "auto" stands for, and ``k`` where there is a range."""
        if not isinstance(table, dict) or "k" not in cls.model_fields:
            return table  # a method that has no number of classes refuses both as unknown keys
        word = table.get("k")
        number = not isinstance(word, str) or word == "auto"
        require(number, f"cluster.k must be a whole number or auto, not '{word}'")
        if word == "auto":
            table = {key: value for key, value in table.items() if key != "k"} | {"k_range": K_RANGE}
        wanted = table.get("k_range")
        return {"k": wanted[-1], **table} if isinstance(wanted, tuple) and wanted else table

    @model_validator(mode="after")
    def _check(self) -> Self:
        ends = self.k_range
        pair = not ends or (len(ends) == 2 and ends[0] < ends[1])
        require(pair, f"cluster.k_range must be two numbers, the smaller first, not {list(ends)}")
        both = f"cluster.k ({self.k}) and cluster.k_range {list(ends)} do not go together: give one of them"
        require(not ends or self.k == ends[1], both)
        share = isinstance(self.sample, int) or self.sample < 1
        require(share, f"cluster.sample must be a whole number, or a share below 1, not {self.sample}")
        least = f"cluster.sample must be at least cluster.k ({self.k}), not {self.sample}"
        require(self.k <= self.most, least)
        return self


class CentroidTable(ClusterTable):
    """What the methods share that begin with the centroids of k-means or take them as classes.

    Attributes
    ----------
    max_iterations : int
        Largest number of iterations from one start.
    """

    max_iterations: Count = 300
