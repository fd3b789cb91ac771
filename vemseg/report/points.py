"""A sample of vectors in a plane, and the patches of the image that they stand for.

The plane is that of the two directions in which the vectors differ most (principal components), or one in
which neighbours stay neighbours (UMAP, McInnes, Healy and Melville 2018, as umap-learn has it).
"""

from __future__ import annotations

import warnings
from base64 import b64encode

import numpy as np
from numpy.typing import NDArray

from vemseg.context import Context
from vemseg.drawing.pixels import grey, jpeg
from vemseg.errors import InputError, Interrupted
from vemseg.foreign import library
from vemseg.geometry import ZYX, Box
from vemseg.report.counting import Counts
from vemseg.report.slices import contrast
from vemseg.volume import Volume

PATCH = 40
"""Pixels of the edge of a patch."""

COLUMNS = 50
"""Patches in a row of the picture that holds all of them."""

MOST = 3000
"""Most vectors of a page."""

NEIGHBOURS, LEAST = 15, 4
"""How many neighbours of a vector UMAP looks at, and the fewest vectors that it can place."""

UMAP_NEEDED = "--umap needs umap-learn"
"""The beginning of the message where umap-learn is not installed."""

BYTES = 1_200_000
"""Most bytes of the picture of patches."""

QUALITIES = (75, 55, 35, 20, 10, 5)
"""The qualities of JPEG that are tried in turn, until the picture is small enough."""


def scatter(
    image: Volume,
    labels: Volume,
    counts: Counts,
    vectors: NDArray[np.generic],
    places: NDArray[np.generic],
    context: Context,
    umap: bool = False,
) -> dict[str, object]:
    """Return a sample of vectors as a page shows it.

    Parameters
    ----------
    image, labels : Volume
        Of the same voxels.
    counts : Counts
        The classes of the labels.
    vectors : floating (n, d)
    places : floating (n, 3)
        Where they lie, z y x, in voxels of the image.
    context : Context
    umap : bool
        Whether the plane is that of UMAP.

    Returns
    -------
    dict
        ``x`` and ``y`` (the place of each vector in the plane, -1 to 1), ``shares`` (how much of the variance
        each direction has; None for UMAP), ``at`` (voxels, z y x), ``classes`` (the place in the list of
        classes, 0 for nothing), ``patch`` (pixels of the edge of a patch), ``columns``, and ``patches`` (all
        of them, in rows, JPEG).

    Raises
    ------
    InputError
        Where a vector lies outside the image, there is none, or umap-learn is not installed.
    Interrupted
        Where the work was stopped.
    """
    at = np.rint(places).astype(int)
    if not len(at) or (at < 0).any() or (at >= image.shape).any():
        raise InputError(f"no vectors of {image.name}, or some that lie outside it: leave --points out")
    plane, shares = (neighbourly(vectors), None) if umap else principal(vectors)
    rows = -(-len(at) // COLUMNS)
    atlas = np.zeros((rows * PATCH, COLUMNS * PATCH), np.uint8)
    classes, between = np.zeros(len(at), np.uint8), contrast(image)
    for i, (z, y, x) in enumerate(at.tolist()):
        if context.stopped():
            raise Interrupted("stopped while patches were read: the same command starts again")
        row, column = (PATCH * place for place in divmod(i, COLUMNS))
        _paste(image, (z, y, x), atlas[row : row + PATCH, column : column + PATCH], between)
        classes[i] = counts.places(labels.read(Box((z, y, x), (z + 1, y + 1, x + 1)))).item()
        context.report("patches", (i + 1) / len(at))
    x_, y_ = plane.round(4).T.tolist()
    return {
        "x": x_,
        "y": y_,
        "shares": shares,
        "at": at.tolist(),
        "classes": classes.tolist(),
        "patch": PATCH,
        "columns": COLUMNS,
        "patches": b64encode(_small(atlas)).decode(),
    }


def _paste(image: Volume, at: ZYX, tile: NDArray[np.uint8], between: tuple[float, float]) -> None:
    """Put the patch around a voxel into a tile; what lies outside the image stays black."""
    z, y, x = at[0], at[1] - PATCH // 2, at[2] - PATCH // 2
    inside = Box((z, y, x), (z + 1, y + PATCH, x + PATCH)).clip(image.box)
    _, rows, columns = inside.relative_to(Box((z, y, x), (z, y, x))).slices
    tile[rows, columns] = grey(image.read(inside)[0], between)


def principal(vectors: NDArray[np.generic]) -> tuple[NDArray[np.float64], list[float]]:
    """Return two principal components of vectors, (n, 2) from -1 to 1, and their shares of the variance.

    The plane is moved so that the dots lie in its middle. The sign of a direction is such that its largest
    entry is positive. Where vectors have fewer entries, the other directions are 0.
    """
    centred = vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    first = directions[:, ::-1][:, :2]
    first = first * np.sign(first[np.abs(first).argmax(axis=0), np.arange(first.shape[1])])
    plane = np.zeros((len(centred), 2))
    plane[:, : first.shape[1]] = centred @ first
    shares = np.zeros(2)
    shares[: first.shape[1]] = values[::-1][:2] / max(values.sum(), np.finfo(float).tiny)
    return _middled(plane), shares.clip(0, 1).round(4).tolist()


def neighbourly(vectors: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the places of vectors in the plane that UMAP finds, (n, 2) from -1 to 1; the same every time.

    Raises
    ------
    InputError
        Where umap-learn is not installed, or there are fewer than four vectors.
    """
    if len(vectors) < LEAST:
        raise InputError(f"--umap: {len(vectors)} vectors are too few: leave it out, or show more --points")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap-learn warns of things that only its authors can mend
        near = min(NEIGHBOURS, len(vectors) - 1)
        found = library("umap", UMAP_NEEDED, "umap").UMAP(n_neighbors=near, random_state=0, n_jobs=1)
        return _middled(np.asarray(found.fit_transform(vectors.astype(np.float32)), np.float64))


def _middled(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return places in a plane, moved and scaled to -1 to 1."""
    plane = plane - (plane.max(axis=0) + plane.min(axis=0)) / 2
    return np.asarray(plane / max(np.abs(plane).max(), np.finfo(float).tiny))


def _small(atlas: NDArray[np.uint8]) -> bytes:
    """Return a picture as JPEG, in the best quality in which it takes no more than ``BYTES``."""
    pictures = (jpeg(atlas, quality) for quality in QUALITIES)
    return next(
        (picture for picture in pictures if len(picture) <= BYTES), jpeg(atlas[:PATCH], QUALITIES[-1])
    )
