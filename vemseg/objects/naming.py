"""Classes of finished labels named by points: each takes the class that most of its points have."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError
from vemseg.objects.blockwise import read_classes
from vemseg.objects.refinement import Refinement
from vemseg.points import PointFile, Points, values_at
from vemseg.volume import Volume

_log = logging.getLogger("vemseg")


@dataclass(frozen=True)
class Votes:
    """How many points of each class lie in each class of the labels.

    Attributes
    ----------
    counts : int64 (L, C)
        By label, 0 included, and class of the points.
    names : tuple of str
        The classes of the points.
    """

    counts: NDArray[np.int64]
    names: tuple[str, ...]

    @classmethod
    def of(cls, labels: NDArray[np.generic], points: Points) -> Votes:
        """Count the points by the label that each lies in, (n,)."""
        found = labels.astype(np.int64)
        counts = np.zeros((int(found.max()) + 1, len(points.names)), np.int64)
        np.add.at(counts, (found, points.classes), 1)
        return cls(counts, points.names)

    @property
    def winners(self) -> dict[int, int]:
        """The class that most points have, for each label but 0 that has points; in a tie the first class."""
        return {k: int(row.argmax()) for k, row in enumerate(self.counts) if k and row.any()}

    @property
    def ties(self) -> list[int]:
        """The labels in which two classes have equally many points, and no other has more."""
        return [k for k in self.winners if (self.counts[k] == self.counts[k].max()).sum() > 1]

    def facts(self) -> dict[str, dict[str, int]]:
        """Return the points of each label by class, as plain JSON types."""
        return {
            str(k): {name: int(n) for name, n in zip(self.names, row, strict=True) if n}
            for k, row in enumerate(self.counts)
            if row.any()
        }


def named_by_points(refinement: Refinement, labels: Volume, file: PointFile) -> Refinement:
    """Return a refinement that also names classes by points, and merges those of one name.

    Classes without a point stay as they are.

    Parameters
    ----------
    refinement : Refinement
        It merges, numbers and names no classes itself.
    labels : Volume
    file : PointFile

    Raises
    ------
    InputError
        As ``PointFile.read``; where all points lie in label 0.
    """
    points = file.read(labels)
    votes = Votes.of(values_at(lambda box: read_classes(labels, box), points.voxels), points)
    if not votes.winners:
        raise InputError(f"{file.path}: all points lie where the labels are 0, which is not a class")
    _say(votes)
    groups: dict[int, list[int]] = {}
    for label, winner in votes.winners.items():
        groups.setdefault(winner, []).append(label)
    merges = [(tuple(members), votes.names[c]) for c, members in groups.items() if len(members) > 1]
    names = {members[0]: votes.names[c] for c, members in groups.items() if len(members) == 1}
    told = file.state() | {"votes": votes.facts()}
    return replace(refinement, merges=merges, names=names, points=told)


def _say(votes: Votes) -> None:
    """Say what classes are called now; warn of points that do not count, of ties, and of names not taken."""
    named = (
        f"{k} {votes.names[winner]} ({votes.counts[k][winner]} of {votes.counts[k].sum()} points)"
        for k, winner in votes.winners.items()
    )
    _log.info("named by points: %s", "; ".join(named))
    if nowhere := int(votes.counts[0].sum()):
        _log.warning("%d points lie where the labels are 0: they do not count", nowhere)
    for k in votes.ties:
        _log.warning(
            "class %d has equally many points of two classes: it becomes %s; one more point decides",
            k,
            votes.names[votes.winners[k]],
        )
    won = set(votes.winners.values())
    for c, name in enumerate(votes.names):
        if c not in won:
            _log.warning("no class has most of its points in %s: it is not among the labels", name)
