"""What is measured of classes without labels: whether they come again, what they explain, what they tell."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax, xlogy

from vemseg.labelling.base import Doubles

Labels = NDArray[np.int64]
"""The class of each of n vectors, int64 (n,), counted from 0."""


def agreements(fits: Sequence[Labels]) -> Doubles:
    """Return how far each two labellings of the same vectors agree, whatever numbers the classes have.

    Parameters
    ----------
    fits : sequence of F int64 arrays (n,)

    Returns
    -------
    float64 (F (F - 1) / 2,)
        The adjusted Rand index of each pair: 1 for equal classes, 0 on average for classes that have no more
        in common than chance gives classes of these sizes (Hubert and Arabie 1985).
    """
    from sklearn.metrics import adjusted_rand_score

    return np.array([adjusted_rand_score(a, b) for a, b in itertools.combinations(fits, 2)])


def explained(data: NDArray[np.floating], label: Labels) -> float:
    """Return the share of the variance of vectors (n, d) that lies between classes, 0..1."""
    total = np.square(data - data.mean(axis=0)).sum()
    own = (data[label == number] for number in np.unique(label))
    within = sum(np.square(part - part.mean(axis=0)).sum() for part in own)
    return float(1 - within / total) if total > 0 else 0.0


def smallest(label: Labels, k: int) -> float:
    """Return the share of the vectors that the smallest of ``k`` classes holds."""
    return float(np.bincount(label, minlength=k).min() / len(label))


def kept_information(label: Labels, logits: NDArray[np.floating]) -> float:
    """Return what classes tell of the classes that the encoder itself knows.

    Parameters
    ----------
    label : int64 (n,)
    logits : float (n, C)
        The encoder's logits of its own classes, for each vector.

    Returns
    -------
    float
        The mutual information of both kinds of classes as a share of the entropy of the encoder's (of the
        mean of its probabilities): 0 if they tell nothing, 1 if nothing is lost. It stays below 1 where the
        encoder is in doubt. 0 where the encoder sees a single class.
    """
    joint = np.zeros((int(label.max()) + 1, logits.shape[1]))
    np.add.at(joint, label, softmax(logits.astype(np.float64), axis=1) / len(label))
    whole = entropy(joint.sum(axis=0))
    shared = entropy(joint.sum(axis=1)) + whole - entropy(joint)
    return shared / whole if whole > 0 else 0.0


def entropy(shares: Doubles) -> float:
    """Return the entropy in bits of shares that sum to 1, an array of any shape."""
    return float(-xlogy(shares, shares).sum() / np.log(2))
