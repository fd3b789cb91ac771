"""Reading Zarr arrays and OME-Zarr images, Zarr formats 2 and 3, in folders or zipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zarr

from vemseg.errors import InputError, UsageError
from vemseg.foreign import reading
from vemseg.names import volume_name
from vemseg.volume.about import Record, evidence_of_labels, origin_of, start_of
from vemseg.volume.base import Volume
from vemseg.volume.conventions import (
    DIMENSION_NAMES,
    Attributes,
    frame_in,
    named_axes,
    of_level,
    unknown_size_in,
)
from vemseg.volume.ngff import (
    Multiscale,
    images_of,
    legend_in,
    multiscale_of,
    record_in,
    what_to_name,
)
from vemseg.volume.stored import Told, Wish, open_stored
from vemseg.volume.zarr_nodes import attributes, groups_around, inside, is_zarr, open_node


@dataclass(frozen=True)
class Located:
    """An array, and what the groups around it say of it.

    Attributes
    ----------
    path : Path
        The path of the array, or of the image whose finest level it is.
    array : zarr.Array
    image : Multiscale or None
        The image that the array is a level of, None where it is an array alone.
    level : str
        The path of the array in the group of the image.
    attributes : mapping
        The attributes of that group; empty where there is none.
    finest : bool
        Whether the array is the finest level of its image.
    around : sequence of mapping
        The attributes of the groups around the array, the innermost first.
    coarser : tuple of str
        The coarser levels, where it is the finest.
    images : int
        How many images there are in the place that was named; this one is the first.
    """

    path: Path
    array: zarr.Array
    image: Multiscale | None = None
    level: str = ""
    attributes: Attributes = field(default_factory=dict)
    finest: bool = False
    around: Sequence[Attributes] = ()
    coarser: tuple[str, ...] = ()
    images: int = 1

    def told(self) -> Told:
        """Return what all metadata together say of the array."""
        names = getattr(self.array.metadata, DIMENSION_NAMES, None) or ()
        own, n = {DIMENSION_NAMES: list(names), **attributes(self.array)}, self.array.ndim
        image = Multiscale({}) if self.image is None else self.image
        entry = image.entries.get(self.level, {})
        above = [
            of_level(each, own, self.level or self.path.name) for each in (self.attributes, *self.around)
        ]
        found = [frame_in(each, n) for each in (own, entry, *above)]
        frames = [image.levels.get(self.level), *found]
        unknown = (unknown_size_in(each) for each in (own, *above))
        return Told(
            [frame for frame in frames if frame is not None],
            [named_axes(own)],
            image.channels,
            next((text for text in unknown if text), None),
        )


def open_zarr(path: Path, wish: Wish = Wish()) -> Volume:
    """Open a Zarr array, or a level of an OME-Zarr image (``file.zarr``, ``file.zarr/labels/mito``).

    Parameters
    ----------
    path : Path
    wish : Wish
        The finest level is opened where it names none.

    Raises
    ------
    InputError
        Where it is neither, has several channels or time points and none is chosen, or is damaged.
    UsageError
        Where something is chosen that is not there.
    """
    with reading(f"{path} is not a readable Zarr"):
        return _open(path, wish)


def _open(path: Path, wish: Wish) -> Volume:
    found = _locate(path, wish.choice.level)
    volume = open_stored(
        found.array,
        found.told(),
        wish,
        path=found.path,
        name=volume_name(found.path),
        address=str(found.path),
        chunks=found.array.chunks,
    )
    record = record_in(found.attributes)
    if found.finest:
        volume.start, volume.coarser = start_of(record), found.coarser
        volume.origin = volume.origin or origin_of(record, volume.voxel_size)
    stated_labels = "its metadata have an image-label" if legend_in(found.attributes) is not None else None
    volume.labelled = evidence_of_labels(record) or stated_labels
    if found.images > 1:
        volume.remarks = (f"it holds {found.images} images; the first one is read",)
    return volume


def zarr_record(path: Path) -> Record | None:
    """Return what vemseg wrote into an OME-Zarr, or into the one that an array lies in; else None."""
    with reading(f"{path} is not a readable Zarr"):
        return record_in(_locate(path).attributes)


def _locate(path: Path, level: str | None = None) -> Located:
    """Find the array of a path: itself, or a level of the image that a group is.

    Raises
    ------
    InputError
        Where the path leads to no array.
    UsageError
        Where there is no such level.
    """
    node, count = open_node(path), 1
    if isinstance(node, zarr.Group) and multiscale_of(node.attrs, path) is None:
        inner = open_node(path / "OME") if is_zarr(path / "OME") else None
        images = images_of(node.attrs, {} if inner is None else attributes(inner))
        if images is not None:
            path, count = path / images[0], len(images)
            node = open_node(path)
    if not isinstance(node, zarr.Group):
        if not node.ndim:
            raise InputError(f"{path} holds one number and no volume")
        if level is not None:
            raise UsageError(f"{path} is an array without levels: leave --level out")
        return _in_its_image(path, node)
    image = multiscale_of(node.attrs, path)
    if image is None or not image.levels:
        raise InputError(f"{path} {_what_else(node, path)}")
    levels = _by_fineness(image, path)
    chosen = _chosen(levels, level, path)
    finest = chosen == levels[0]
    around = [attributes(group) for _, group in groups_around(path)]
    at = path if finest else path / chosen
    coarser = tuple(levels[1:]) if finest else ()
    array, count = _array(path, chosen), max(count, image.images)
    return Located(at, array, image, chosen, attributes(node), finest, around, coarser, count)


def _what_else(group: zarr.Group, path: Path) -> str:
    """Say what kind of group this is, since it is not an image, and what to name instead."""
    if known := what_to_name(group.attrs, path):
        return known
    found = inside(group, path)
    if not found:
        return "is a Zarr group without an image; it is empty"
    more = f" (or {len(found) - 1} more)" if len(found) > 1 else ""
    return f"is a Zarr group without an image; name one inside it, such as {found[0]}{more}"


def _array(path: Path, level: str) -> zarr.Array:
    array = open_node(path / level)
    if isinstance(array, zarr.Group):
        raise InputError(f"{path} names the group '{level}' as an image level: it must be an array")
    return array


def _by_fineness(image: Multiscale, path: Path) -> list[str]:
    """Return the levels of an image, the finest first, whatever order its metadata list them in.

    Scales decide; where they are missing or alike, the size of the arrays does.
    """
    steps = {}
    for level, frame in image.levels.items():
        along = zip(frame.axes, frame.scale or (), strict=False)
        steps[level] = math.prod([abs(step) for axis, step in along if axis in "zyx"] or [0.0])
    if 0.0 not in steps.values() and len(set(steps.values())) == len(steps):
        return sorted(steps, key=lambda level: steps[level])
    if len(steps) == 1:
        return list(steps)
    return sorted(steps, key=lambda level: -math.prod(_array(path, level).shape))


def _chosen(levels: list[str], level: str | None, path: Path) -> str:
    """Return the level that a user names, by its number from the finest or by its path; the finest else."""
    if level is None or level in levels:
        return level or levels[0]
    if not level.isdecimal() or int(level) >= len(levels):
        listed = ", ".join(f"{i} ({name})" for i, name in enumerate(levels))
        raise UsageError(f"--level {level}: {path} has no such level; there are {listed}")
    return levels[int(level)]


def _in_its_image(path: Path, array: zarr.Array) -> Located:
    """Return an array with the image that it is a level of, looking for that in the groups around it."""
    inner = path.absolute()
    around = []
    for outer, group in groups_around(path):
        around.append(attributes(group))
        image = multiscale_of(group.attrs, outer)
        level = inner.relative_to(outer).as_posix()
        if image is not None and level in image.levels:
            finest = _by_fineness(image, outer)[0] == level
            return Located(path, array, image, level, attributes(group), finest, around)
    return Located(path, array, around=around)
