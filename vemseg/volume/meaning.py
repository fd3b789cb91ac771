"""Whether the voxels of a volume are labels or grey values, as far as that can be told."""

from __future__ import annotations

import logging

import numpy as np

from vemseg.errors import InputError
from vemseg.volume.base import Volume
from vemseg.volume.intensity import sample_boxes

log = logging.getLogger("vemseg")

MOST_LABELS = 4096
"""A sample with more different values than this does not hold the labels of classes."""

GREY_VALUES = 64
"""A sample with more different values than this may hold grey values; it does if most neighbours differ."""


def check_grey(volume: Volume) -> None:
    """Refuse labels where grey values are wanted.

    Only what the file says counts: grey values may be few, as in a drawing.

    Raises
    ------
    InputError
        Where the file says that its voxels are labels.
    """
    if volume.labelled:
        where = volume.path or volume.name
        raise InputError(f"{where} holds labels ({volume.labelled}): give the grey volume they belong to")


def check_labels(volume: Volume) -> None:
    """Refuse grey values where the labels of classes are wanted; warn where voxels only look like them.

    Raises
    ------
    InputError
        Where voxels are no integers, the file is a picture in colours, or a sample has too many different
        values for classes.
    """
    where = volume.path or volume.name
    if volume.pictured:
        raise InputError(f"{where} is in colour ({volume.pictured}): give labels as one integer per voxel")
    if not np.issubdtype(volume.dtype, np.integer):
        raise InputError(f"{where}: labels must be integers, not {volume.dtype}")
    parts = list(volume.read_each(list(sample_boxes(volume))))
    found = np.unique(np.concatenate([part.ravel() for part in parts])).size
    if found > MOST_LABELS:
        raise InputError(
            f"{where} holds more than {MOST_LABELS} different values: these are grey values or instances, "
            "give a volume whose voxels are classes"
        )
    pairs = sum(part[..., 1:].size for part in parts)
    alike = sum(np.count_nonzero(part[..., 1:] == part[..., :-1]) for part in parts)
    if found > GREY_VALUES and 2 * alike < pairs:
        log.warning(
            "%s holds %d different values, like a grey volume: its voxels count as labels", where, found
        )
