"""The words that options take, where there are only a few."""

from __future__ import annotations

from enum import StrEnum


class ProgressStyle(StrEnum):
    """How to say how far a command is."""

    auto = "auto"
    rich = "rich"
    plain = "plain"
    none = "none"


class PlacementName(StrEnum):
    """How a volume is covered with fields of view."""

    cover_and_stride = "cover-and-stride"
    expand_stride = "expand-stride"
    whole_slice = "whole-slice"


class ClassKind(StrEnum):
    """Where classes come from: found among the vectors, or told apart by the encoder itself."""

    clusters = "clusters"
    named = "named"


class RegionKind(StrEnum):
    """What gets a label as a whole: regions of even grey, or every voxel by itself."""

    slic = "slic"
    none = "none"


class BackgroundKind(StrEnum):
    """Whether a constant background of a volume is left out."""

    auto = "auto"
    none = "none"


class LabelStyle(StrEnum):
    """How labels are drawn on a picture."""

    fill = "fill"
    contour = "contour"


class PointUnit(StrEnum):
    """What the places of points are measured in."""

    voxel = "voxel"
    nm = "nm"


class MeshFormat(StrEnum):
    """The formats of meshes."""

    glb = "glb"
    ply = "ply"
    obj = "obj"


class EachKind(StrEnum):
    """What gets a mesh of its own."""

    class_ = "class"
    object = "object"
