"""NGFF (OME-Zarr) metadata as plain dictionaries: 0.1 to 0.5 are read, and 0.6 as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType

from vemseg.errors import InputError
from vemseg.foreign import quoted
from vemseg.geometry import ZYX
from vemseg.volume.about import RGB, About, Record, legend
from vemseg.volume.conventions import Attributes
from vemseg.volume.frame import UNNAMED, Frame, axis_name, chained, compose, numbers

VERSION = "0.5"
"""The version of NGFF that is written unless another is asked for."""

FORMATS_OF_ZARR = {"0.4": 2, "0.5": 3}
"""The versions of NGFF that are written, and the format of Zarr that each lies in."""


@dataclass(frozen=True)
class Multiscale:
    """One image of a group: the levels of its pyramid, in the order in which the metadata list them.

    Attributes
    ----------
    levels : dict of str to Frame
        What is said of each array, by its path.
    entries : dict of str to mapping
        The entry of each array as it stands, for what other conventions say in it.
    channels : tuple of str
        The names of the channels, where there are any.
    images : int
        How many images the group describes; this one is the first.
    """

    levels: dict[str, Frame]
    entries: dict[str, Attributes] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    images: int = 1


def multiscale_of(attributes: Attributes, where: object) -> Multiscale | None:
    """Return the first multiscale image that a group's attributes describe, or None.

    Parameters
    ----------
    attributes : mapping
    where : object
        The path or address of the group, for messages.

    Raises
    ------
    InputError
        Where an array is named that lies outside of the group.
    """
    described = _described(attributes, "multiscales")
    if not isinstance(described, Sequence) or not described or not isinstance(described[0], Mapping):
        return None
    image = described[0]
    axes, units = _axes(image)
    if not axes:
        axes = UNNAMED[-_longest(image) :] if _longest(image) else ()
        units = (None,) * len(axes)
    n = len(axes)
    whole = compose(image.get("coordinateTransformations"), n)
    levels, entries = {}, {}
    for dataset in image.get("datasets") or []:
        if isinstance(dataset, Mapping):
            own = compose(dataset.get("coordinateTransformations"), n)
            path = _inside(str(dataset.get("path", "")), where).strip("/")
            levels[path], entries[path] = Frame(axes, units, *chained(own, whole)), dataset
    return Multiscale(levels, entries, _channels(attributes), len(described))


def _inside(path: str, where: object) -> str:
    """Return the path of an array in its group; refuse one that leads out of it."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\0" in path:
        raise InputError(f"{where}: its metadata name the array '{quoted(path)}', which lies outside of it")
    return path


def _described(attributes: Attributes, key: str) -> object:
    """Return an entry of NGFF metadata, which 0.5 keeps under ``ome`` and earlier versions by themselves."""
    ome = attributes.get("ome")
    return (ome if isinstance(ome, Mapping) else attributes).get(key)


def _axes(image: Attributes) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Return names and units of the axes of an image; those of its first coordinate system in 0.6."""
    listed = image.get("axes")
    systems = image.get("coordinateSystems")
    if not listed and isinstance(systems, list) and systems and isinstance(systems[0], Mapping):
        listed = systems[0].get("axes")
    axes: list[str] = []
    units: list[str | None] = []
    for axis in listed if isinstance(listed, list) else []:
        named = axis if isinstance(axis, Mapping) else {"name": axis}
        axes.append(axis_name(named.get("name", ""), named.get("type")))
        units.append(None if named.get("unit") is None else str(named["unit"]))
    return tuple(axes), tuple(units)


def _longest(image: Attributes) -> int:
    """Return how many axes the scales of an image have that names none: those of versions up to 0.3."""
    datasets = [entry for entry in image.get("datasets") or [] if isinstance(entry, Mapping)]
    steps = [step for entry in [image, *datasets] for step in entry.get("coordinateTransformations") or []]
    return max((len(numbers(step.get("scale"))) for step in steps if isinstance(step, Mapping)), default=0)


def _channels(attributes: Attributes) -> tuple[str, ...]:
    """Return the names of channels, as ``omero`` lists them."""
    omero = _described(attributes, "omero")
    listed = omero.get("channels") if isinstance(omero, Mapping) else None
    found = [entry if isinstance(entry, Mapping) else {} for entry in listed or []]
    return tuple(
        str(entry.get("label") or entry.get("name") or f"channel {i}") for i, entry in enumerate(found)
    )


def what_to_name(attributes: Attributes, path: object) -> str | None:
    """Return what to name instead of a group that only holds images: a plate, a well, or a list of labels.

    Parameters
    ----------
    attributes : mapping
        Of the group.
    path : object
        Where it lies.

    Returns
    -------
    str or None
        What the group is, and an image in it; None where NGFF says nothing of the kind.
    """
    plate, well, labels = (_described(attributes, key) for key in ("plate", "well", "labels"))
    if isinstance(plate, Mapping):
        wells = [str(entry.get("path")) for entry in plate.get("wells") or [] if isinstance(entry, Mapping)]
        example = f": name an image of a well, such as {path}/{wells[0]}/0" if wells else " without wells"
        return f"is a plate of {len(wells)} wells{example}"
    if isinstance(well, Mapping):
        images = [str(entry.get("path")) for entry in well.get("images") or [] if isinstance(entry, Mapping)]
        named = ", ".join(f"{path}/{image}" for image in images[:4])
        return f"is a well: name an image of it, such as {named}" if images else "is a well without images"
    if isinstance(labels, list):
        named = ", ".join(f"{path}/{label}" for label in labels[:4])
        return f"is a group of labels: name one of them, such as {named}" if labels else "holds no labels yet"
    return None


def images_of(attributes: Attributes, inner: Attributes) -> list[str] | None:
    """Return the images of a Bio-Formats collection; None where the group is no such collection.

    Parameters
    ----------
    attributes : mapping
        Of the group.
    inner : mapping
        Of the group ``OME`` in it, which may list the images; empty where there is none.
    """
    if _described(attributes, "bioformats2raw.layout") is None and "bioformats2raw.layout" not in attributes:
        return None
    series = _described(inner, "series")
    return [str(name) for name in series] if isinstance(series, list) and series else ["0"]


def legend_in(attributes: Attributes) -> Record | None:
    """Return the names and colours of labels in a group's attributes, None where it is not a label image."""
    described = _described(attributes, "image-label")
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


def image_metadata(
    name: str, about: About, factors: Sequence[ZYX], method: str, version: str = VERSION
) -> Record:
    """Return the metadata of a multiscale image whose levels are ``0``, ``1``, ...

    Parameters
    ----------
    name : str
    about : About
        Its voxel size is that of level 0; without one the axes have no unit, and lengths count voxels of
        level 0. Its place moves all levels. Where it names channels, there is an axis of them.
    factors : sequence of (int, int, int)
        Downsampling factors of each level relative to level 0. All levels start at the same edge, so their
        first centres lie half the difference of the voxel edges further in.
    method : str
        How each level was made from the finer one before it.
    version : str
        Of NGFF; 0.5 keeps its version beside ``multiscales``, 0.4 in them.
    """
    unit = {} if about.voxel_size is None else {"unit": "nanometer"}
    edges = about.voxel_size or (1.0, 1.0, 1.0)
    channel = about.channels[:1]
    datasets = []
    for level, factor in enumerate(factors):
        scale = [edge * f for edge, f in zip(edges, factor, strict=True)]
        along = zip(edges, factor, about.position, strict=True)
        shift = [edge * (f - 1) / 2 + at for edge, f, at in along]
        transformations = [
            {"type": "scale", "scale": [*(1.0 for _ in channel), *scale]},
            {"type": "translation", "translation": [*(0.0 for _ in channel), *shift]},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    axes: list[Record] = [{"name": "c", "type": "channel"} for _ in channel]
    axes += [{"name": axis, "type": "space", **unit} for axis in "zyx"]
    image = {"name": name, "axes": axes, "datasets": datasets, "type": method}
    if version == "0.4":
        return {"multiscales": [{"version": version, **image}], **_channel_metadata(about)}
    return {"version": version, "multiscales": [image], **_channel_metadata(about)}


def _channel_metadata(about: About) -> Record:
    """Return ``omero``, in which viewers look for names and ranges of channels; empty without any."""
    least, most = about.span
    window = {"min": least, "max": most, "start": least, "end": most}
    channels = [
        {"label": name, "color": "FFFFFF", "window": window, "active": number == 0}
        for number, name in enumerate(about.channels)
    ]
    return {"omero": {"channels": channels}} if channels else {}


def label_metadata(
    names: Mapping[int, str],
    colours: Mapping[int, RGB],
    suggestions: Mapping[int, str] = MappingProxyType({}),
    version: str = VERSION,
) -> dict[str, Record]:
    """Return the ``image-label`` part of the metadata: opaque colours, 0 transparent, and names.

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
    return {"image-label": {"version": version} | {key: value for key, value in described.items() if value}}


def listed_labels(attributes: Attributes) -> list[str]:
    """Return the labels that a group lists; empty where it lists none."""
    listed = _described(attributes, "labels")
    return [str(name) for name in listed] if isinstance(listed, list) else []


def list_of_labels(attributes: Attributes, labels: Sequence[str], version: str) -> Record:
    """Return the attributes of a group of labels with another list of them."""
    kept: Record = dict(attributes)
    if version == "0.4":
        return kept | {"labels": list(labels)}
    ome = kept.get("ome")
    known = ome if isinstance(ome, Mapping) else {}
    return kept | {"ome": {"version": version, **known, "labels": list(labels)}}
