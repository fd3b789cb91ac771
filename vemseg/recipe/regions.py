"""The table that says whether, and how, a volume is divided into regions that are labelled as a whole."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vemseg.recipe.base import Count, Positive, Table


class RegionsTable(Table):
    """Regions of even grey (superpixels), each of which becomes one vector and gets one label.

    Lengths are in working voxels (``volume.voxel_size``), whatever the voxels of the volume are.

    Attributes
    ----------
    method : {"none", "slic"}
        How the volume is divided; "none" labels every voxel by itself.
    size : float
        Voxels of a region, on average.
    compactness : float
        SLIC's weight of nearness against likeness in grey.
    tile : int
        Edge of the parts of a slice that become a graph of their own. The last ones of a slice are filled by
        mirroring it.
    depth : int
        Slices of such a part; more than one makes supervoxels of superpixels.
    parts : int
        Number of tiles that a labeller is trained on, again and again.
    whole : bool
        Whether whole slices become graphs where a volume is labelled, as large as they are. ``tile`` counts
        in training only then.
    standardise : bool
        Whether the vector of every voxel is brought to mean 0 and standard deviation 1 over its own channels
        before regions are averaged.
    """

    method: Literal["none", "slic"] = "none"
    size: Annotated[float, Field(ge=4)] = 100.0
    compactness: Positive = 0.2
    tile: Annotated[int, Field(ge=16)] = 560
    depth: Count = 1
    parts: Count = 64
    whole: bool = True
    standardise: bool = False

    @property
    def wanted(self) -> bool:
        """Whether there are to be regions at all."""
        return self.method != "none"
