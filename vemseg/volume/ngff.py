"""NGFF (OME-Zarr) metadata as plain dictionaries: versions 0.1 to 0.5 are read, 0.5 is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from vemseg.errors import InputError
from vemseg.foreign import quoted
from vemseg.geometry import ZYX, VoxelSize
from vemseg.volume.about import RGB, About, Record, legend
from vemseg.volume.units import nanometres, voxel_size_or_none

Attributes = Mapping[str, Any]
"""The attributes of a Zarr group."""

VERSION = "0.5"
"""The version of NGFF that is written."""


@dataclass(frozen=True)
class Multiscale:
    """One image of a group: its axes and the levels of its pyramid, the finest first.

    Attributes
    ----------
    axes : tuple of str
        Names, such as ``("t", "c", "z", "y", "x")``; empty where the metadata name none.
    units : tuple of (float or None)
        nm per unit of each axis.
    levels : dict of str to tuple of float, or None
        Path of each array and its scale per axis.
    """

    axes: tuple[str, ...]
    units: tuple[float | None, ...]
    levels: dict[str, tuple[float, ...] | None]

    def voxel_size(self, level: str) -> VoxelSize | None:
        """Return the voxel size of a level in nm, None unless z, y and x have a scale and a unit."""
        scale = self.levels.get(level)
        if scale is None or len(scale) != len(self.axes):
            return None
        edges = {
            axis: None if unit is None else unit * value
            for axis, unit, value in zip(self.axes, self.units, scale, strict=True)
        }
        single_plane = "z" not in self.axes
        return voxel_size_or_none(edges.get("y" if single_plane else "z"), edges.get("y"), edges.get("x"))


def multiscale_of(attributes: Attributes) -> Multiscale | None:
    """Return the first multiscale image that a group's attributes describe, or None."""
    ome = attributes.get("ome")
    described = (ome if isinstance(ome, Mapping) else attributes).get("multiscales")
    if not isinstance(described, Sequence) or not described or not isinstance(described[0], Mapping):
        return None
    image = described[0]
    axes: list[str] = []
    units: list[float | None] = []
    for axis in image.get("axes") or []:
        named = axis if isinstance(axis, Mapping) else {"name": axis}
        axes.append(str(named.get("name", "")))
        units.append(nanometres(named.get("unit")))
    whole = _scale(image)
    levels = {}
    for dataset in image.get("datasets") or []:
        own = _scale(dataset)
        if own is not None and whole is not None and len(own) == len(whole):
            own = tuple(a * b for a, b in zip(own, whole, strict=True))
        levels[_inside(str(dataset.get("path", "")))] = own
    return Multiscale(tuple(axes), tuple(units), levels)


def _inside(path: str) -> str:
    """Return the path of an array in its group; refuse one that leads out of it."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\0" in path:
        raise InputError(f"the metadata name the array '{quoted(path)}', which lies outside of their group")
    return path


def is_image_collection(attributes: Attributes) -> bool:
    """Tell whether a group is a Bio-Formats collection, whose first image lies in ``0``."""
    ome = attributes.get("ome")
    return "bioformats2raw.layout" in attributes or (
        isinstance(ome, Mapping) and "bioformats2raw.layout" in ome
    )


def legend_in(attributes: Attributes) -> Record | None:
    """Return the names and colours of labels in a group's attributes, None where it is no label image."""
    ome = attributes.get("ome")
    described = (ome if isinstance(ome, Mapping) else attributes).get("image-label")
    if not isinstance(described, Mapping):
        return None
    colours = _by_label(described, "colors", "rgba")
    return legend(
        {label: str(name) for label, name in _by_label(described, "properties", "name").items()},
        {label: rgba[:3] for label, rgba in colours.items() if isinstance(rgba, list)},
        {label: str(text) for label, text in _by_label(described, "properties", "suggestion").items()},
    )


def _by_label(described: Attributes, table: str, key: str) -> dict[int, object]:
    """Return what a table of ``image-label`` says of each label; entries that say nothing are left out."""
    entries = described.get(table)
    known = [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []
    return {e["label-value"]: e[key] for e in known if {"label-value", key} <= e.keys()}


def record_in(attributes: Attributes) -> Record | None:
    """Return what vemseg wrote into a group's attributes, with names and colours of labels; else None."""
    own = attributes.get("vemseg")
    return {**(legend_in(attributes) or {}), **own} if isinstance(own, Mapping) else None


def _scale(described: Attributes) -> tuple[float, ...] | None:
    for transformation in described.get("coordinateTransformations") or []:
        scale = transformation.get("scale") if transformation.get("type") == "scale" else None
        if scale and all(isinstance(s, int | float) and math.isfinite(s) for s in scale):
            return tuple(float(s) for s in scale)
    return None


def image_metadata(name: str, about: About, factors: Sequence[ZYX], method: str) -> Record:
    """Return the ``ome`` attribute (NGFF 0.5) of a multiscale image whose levels are ``0``, ``1``, ...

    Parameters
    ----------
    about : About
        Its voxel size is that of level 0; without one the axes have no unit, and lengths count voxels of
        level 0. Its origin moves all levels.
    factors : sequence of (int, int, int)
        Downsampling factors of each level relative to level 0. All levels start at the same edge, so their
        first centres lie half the difference of the voxel edges further in.
    method : str
        How each level was made from the finer one before it.
    """
    unit = {} if about.voxel_size is None else {"unit": "nanometer"}
    edges = about.voxel_size or (1.0, 1.0, 1.0)
    datasets = []
    for level, factor in enumerate(factors):
        scale = [edge * f for edge, f in zip(edges, factor, strict=True)]
        along = zip(edges, factor, about.origin, strict=True)
        shift = [edge * (f - 1) / 2 + edge * start for edge, f, start in along]
        transformations = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": shift},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    axes = [{"name": axis, "type": "space", **unit} for axis in "zyx"]
    image = {"name": name, "axes": axes, "datasets": datasets, "type": method}
    return {"version": VERSION, "multiscales": [image]}


def label_metadata(
    names: Mapping[int, str],
    colours: Mapping[int, RGB],
    suggestions: Mapping[int, str] = MappingProxyType({}),
) -> dict[str, Record]:
    """Return the ``image-label`` part of the ``ome`` attribute: opaque colours, 0 transparent, and names.

    A suggestion stands beside the name of its label, where viewers show what is known of a label.
    """
    colors = [
        {"label-value": label, "rgba": [*map(int, colours[label]), 255 if label else 0]}
        for label in sorted(colours)
    ]
    properties = [
        {"label-value": label, "name": names[label]}
        | ({"suggestion": suggestions[label]} if label in suggestions else {})
        for label in sorted(names)
    ]
    described = {"colors": colors, "properties": properties}
    return {"image-label": {"version": VERSION} | {key: value for key, value in described.items() if value}}
