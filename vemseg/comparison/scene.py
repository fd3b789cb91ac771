"""A grey volume with labels and a reference of it, as ``render`` and ``report`` show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vemseg.comparison.opening import placed
from vemseg.context import Context
from vemseg.volume import Choice, Volume, crop_of, open_grey, open_labels

Names = Mapping[int, str]


@dataclass(frozen=True)
class Scene:
    """What is drawn.

    Attributes
    ----------
    volume : str
        The grey volume.
    labels, reference : str, optional
        Label volumes of the same subject.
    names, reference_names : mapping of int to str, optional
        Names of labels, and of the reference's classes.
    voxel_size, crop : str, optional
        As in ``segment``; labels and reference of the whole shape are cropped likewise. Where the crop is
        left out, places and voxel sizes decide, or else the crop that the labels recorded.
    choice : Choice
        What is read where the file of the grey volume holds more than one.
    """

    volume: str
    labels: str | None = None
    reference: str | None = None
    names: Names | None = None
    reference_names: Names | None = None
    voxel_size: str | None = None
    crop: str | None = None
    choice: Choice = Choice()

    def open(self, context: Context) -> tuple[Volume, Volume | None, Volume | None]:
        """Open the grey volume, the labels and the reference: the part that all show, on the same voxels.

        Raises
        ------
        InputError
            Where they have nothing in common, or a file that should hold labels does not.
        """
        grey = open_grey(self.volume, self.voxel_size, choice=self.choice, offline=context.offline)
        painted = None if self.labels is None else open_labels(self.labels, offline=context.offline)
        truth = None if self.reference is None else open_labels(self.reference, offline=context.offline)
        volumes = [volume for volume in (grey, painted, truth) if volume is not None]
        recorded = None if self.labels is None else crop_of(self.labels)
        found = iter(placed(volumes, crop=self.crop, recorded=recorded, finest_of=1))
        return next(found), painted and next(found), truth and next(found)
