"""What an output is made of, whatever its format: voxels, what is said of them, and how they become fewer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vemseg.volume.about import About, LabelInfo, Record
from vemseg.volume.base import Volume
from vemseg.volume.ngff import VERSION, label_metadata
from vemseg.volume.pyramid import Reduce, majority, mean


@dataclass(frozen=True)
class Content:
    """Grey values, or scores of classes.

    Attributes
    ----------
    volume : Volume
        With its channels (see ``Volume.channels``).
    about : About
        Names its channels, where there is an axis of them.
    """

    volume: Volume
    about: About

    @property
    def labelled(self) -> bool:
        """Whether the voxels are labels."""
        return False

    @property
    def reduce(self) -> Reduce:
        """How voxels become one in coarser levels."""
        return mean

    @property
    def names(self) -> Mapping[int, str]:
        """The names of labels; empty for other values."""
        return {}

    def image_label(self, version: str = VERSION) -> Record:
        """Return what NGFF says of labels, in a version of it; empty for other values."""
        return {}


@dataclass(frozen=True)
class LabelContent(Content):
    """Labels.

    Attributes
    ----------
    volume : Volume
    about : LabelInfo
        With names and colours.
    """

    about: LabelInfo

    @property
    def labelled(self) -> bool:
        """That the voxels are labels."""
        return True

    @property
    def reduce(self) -> Reduce:
        """How labels become one in coarser levels."""
        return majority

    @property
    def names(self) -> Mapping[int, str]:
        """The names of labels."""
        return self.about.names

    def image_label(self, version: str = VERSION) -> Record:
        """Return what NGFF says of labels, in a version of it."""
        return label_metadata(self.about.names, self.about.colours, self.about.suggestions, version)
