"""The contingency table: counting, dropping classes, Dice of each pair."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vemseg.errors import InputError, UsageError

Table = NDArray[np.int64]
"""Joint voxel counts, (P clusters, G classes); row and column numbers are the ids."""

Labels = NDArray[np.integer]
"""Cluster or class ids of voxels, of any shape."""


def contingency(
    prediction: Labels, reference: Labels, mask: NDArray[np.bool_] | None = None, *, n_pred: int, n_ref: int
) -> Table:
    """Count the voxels of each pair of cluster and class.

    Parameters
    ----------
    prediction, reference : integer arrays of one shape
        Cluster ids in ``0..n_pred - 1`` and class ids in ``0..n_ref - 1``.
    mask : bool array of that shape, optional
        Only voxels that are True are counted; ids elsewhere are not looked at.
    n_pred, n_ref : int
        Rows and columns: the same for every block, so that tables can be added.

    Returns
    -------
    int64 array, (n_pred, n_ref)

    Raises
    ------
    InputError
        Where shapes differ or an id is out of range.

    Examples
    --------
    >>> contingency(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), n_pred=2, n_ref=2).tolist()
    [[1, 1], [0, 2]]
    """
    _check_shapes(prediction, reference, mask)
    if mask is not None:
        prediction, reference = prediction[mask], reference[mask]
    _check_ids(prediction, n_pred, "prediction")
    _check_ids(reference, n_ref, "reference")
    pair = prediction.ravel().astype(np.intp)
    pair *= n_ref
    pair += reference.ravel().astype(np.intp)
    return np.bincount(pair, minlength=n_pred * n_ref).reshape(n_pred, n_ref).astype(np.int64)


def to_index(labels: Labels, ids: Iterable[int]) -> NDArray[np.intp]:
    """Replace arbitrary ids by their position in ``ids``, for ids too large or negative to be row numbers.

    Raises
    ------
    InputError
        Where an id of ``labels`` is not listed.
    """
    dtype = np.uint64 if labels.dtype == np.uint64 else np.int64
    limits = np.iinfo(dtype)
    listed = list(ids)
    fitting = [i for i, known in enumerate(listed) if limits.min <= known <= limits.max]
    known = np.array([listed[i] for i in fitting], dtype)  # never floats: ids beyond 2^53 must stay apart
    place = np.array(fitting, np.intp)
    values = labels.astype(dtype, copy=False)
    order = np.argsort(known)
    found = np.searchsorted(known, values, sorter=order).clip(max=max(len(known) - 1, 0))
    index = order[found] if len(known) else np.zeros(values.shape, np.intp)
    strange = labels[known[index] != values] if len(known) else labels.ravel()
    if strange.size:
        raise InputError(
            f"id {strange.flat[0]} is not among the {len(listed)} listed ids: add it or mask it out"
        )
    return np.asarray(place[index])


def drop_classes(table: Table, ids: Iterable[int]) -> Table:
    """Return the table without the voxels whose reference class is in ``ids``; columns keep their numbers."""
    kept, columns = table.copy(), sorted(ids)
    if columns and not (columns[0] >= 0 and columns[-1] < table.shape[-1]):
        raise UsageError(f"cannot drop classes {columns}: the table has classes 0..{table.shape[-1] - 1}")
    kept[..., columns] = 0
    return kept


def dice_matrix(table: Table) -> NDArray[np.float64]:
    """Return ``2 C[p, g] / (C[p, :].sum() + C[:, g].sum())``, (P, G), 0 where cluster and class are empty."""
    return ratio(2 * table, table.sum(1)[:, None] + table.sum(0)[None, :], 0.0)


def ratio(above: NDArray[np.number], below: NDArray[np.number], empty: float) -> NDArray[np.float64]:
    """Divide two broadcastable arrays; ``empty`` where the divisor is 0."""
    result = np.full(np.broadcast_shapes(above.shape, below.shape), empty)
    np.divide(above, below, out=result, where=below > 0)
    return result


def _check_ids(labels: Labels, n: int, side: str) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"the {side} must hold integer ids, not {labels.dtype}")
    if labels.size and (labels.min() < 0 or labels.max() >= n):
        raise InputError(
            f"the {side} holds ids {labels.min()}..{labels.max()}, outside 0..{n - 1}: use to_index"
        )


def _check_shapes(prediction: Labels, reference: Labels, mask: NDArray[np.bool_] | None) -> None:
    shapes = {"prediction": prediction.shape, "reference": reference.shape}
    if mask is not None:
        shapes["mask"] = mask.shape
        if mask.dtype != np.bool_:
            raise InputError(f"the mask must be bool, not {mask.dtype}: write mask > 0")
    if len(set(shapes.values())) > 1:
        raise InputError(
            f"{', '.join(f'{k} {v}' for k, v in shapes.items())}: shapes differ, crop all to one box"
        )
