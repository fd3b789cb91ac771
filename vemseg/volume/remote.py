"""N5 and neuroglancer precomputed anywhere, and Zarr on the network: read by tensorstore.

Addresses are ``https://``, ``s3://`` (anonymous) and ``gs://``. Nothing else in vemseg reads volumes from the
network, and nothing here does unless such an address is named.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vemseg.errors import InputError, UsageError
from vemseg.foreign import reading
from vemseg.names import volume_name
from vemseg.volume.base import Volume
from vemseg.volume.bigdataviewer import frame_beside
from vemseg.volume.conventions import (
    DIMENSION_NAMES,
    Attributes,
    frame_in,
    named_axes,
    of_level,
    unknown_size_in,
)
from vemseg.volume.frame import Frame, numbers
from vemseg.volume.ngff import images_of, legend_in, multiscale_of, what_to_name
from vemseg.volume.places import Node, Place, node_at, opened
from vemseg.volume.precomputed import open_precomputed
from vemseg.volume.stored import Lazy, Told, Wish, open_stored

_REVERSED = ("resolution", "voxel_size", "voxelsize", "offset", "units", "axes", "axis_names", "dimensions")
"""Attributes of N5 whose lists run from x."""

_FINEST = ("s0", "setup0/timepoint0/s0", "0")
"""Where the finest level of a group lies that describes none."""


def is_n5(path: Path) -> bool:
    """Tell whether a folder on this machine is an N5 array or group, or a precomputed volume."""
    if not path.is_dir():
        return False
    if (path / "attributes.json").is_file():
        return True
    if (path / "info").is_file() and not (path / "info").is_symlink():
        with (path / "info").open("rb") as file:
            return b"scales" in file.read(2**16)
    outer = next((part for part in path.parents if part.suffix == ".n5"), path)
    return outer.suffix == ".n5" and (outer / "attributes.json").is_file()


def open_n5(path: Path, wish: Wish) -> Volume:
    """Open an N5 array, the finest level of an N5 group, or a precomputed volume, on this machine.

    Raises
    ------
    InputError, UsageError
        As ``open_remote``.
    """
    return _open(Place("", str(path.absolute())), wish, path)


def is_there(address: str) -> bool:
    """Tell whether an array or group of a known format lies at an address on the network.

    Raises
    ------
    InputError
        Where the host does not answer.
    """
    return node_at(Place.of(address)) is not None


def open_remote(address: str, wish: Wish) -> Volume:
    """Open a Zarr, OME-Zarr, N5 or precomputed volume on the network.

    Raises
    ------
    InputError
        Where tensorstore is missing, the host does not answer, or no volume lies there.
    UsageError
        Where the scheme is not known, or something is chosen that is not there.
    """
    return _open(Place.of(address), wish, None)


def _open(place: Place, wish: Wish, path: Path | None) -> Volume:
    found = node_at(place)
    if found is None:
        found = _finest_below(Node(place, None, {}, {}), wish)
    if found.driver is None:
        found = _level_of(found, wish)
    if found.driver == "neuroglancer_precomputed":
        return open_precomputed(found, wish, path)
    return _array(found, wish, path)


def _level_of(group: Node, wish: Wish) -> Node:
    """Return a level of the image that a group is: the finest, unless another is named."""
    image = multiscale_of(group.attributes, group.place.address)
    if image is None or not image.levels:
        inner = group.place.inside("OME").document(".zattrs") or {}
        images = images_of(group.attributes, inner)
        if images and (first := node_at(group.place.inside(images[0]))) is not None:
            return first if first.driver else _level_of(first, wish)
        if known := what_to_name(group.attributes, group.place.address):
            raise InputError(f"{group.place.address} {known}")
        return _finest_below(group, wish)
    steps = {name: math.prod(_spatial(frame) or [0.0]) for name, frame in image.levels.items()}
    names = sorted(steps, key=lambda name: steps[name])
    level = wish.choice.level
    if level is not None and level not in names and not (level.isdecimal() and int(level) < len(names)):
        raise UsageError(
            f"--level {level}: {group.place.address} has no such level; there are {', '.join(names)}"
        )
    name = names[0] if level is None else level if level in names else names[int(level)]
    return _array_at(group.place.inside(name))


def _spatial(frame: Frame) -> list[float]:
    return [abs(step) for axis, step in zip(frame.axes, frame.scale or (), strict=False) if axis in "zyx"]


def _array_at(place: Place) -> Node:
    found = node_at(place)
    if found is None or found.driver is None:
        raise InputError(f"{place.address} is not an array")
    return found


def _finest_below(group: Node, wish: Wish) -> Node:
    """Return a level of a group that describes no image; a place on the network cannot be searched."""
    level = wish.choice.level
    tried = _FINEST if level is None else (level, f"s{level}", f"setup0/timepoint0/s{level}")
    for inner in tried:
        found = node_at(group.place.inside(inner))
        if found is not None and found.driver is not None:
            return found
    below = _arrays_below(group.place)
    if len(below) == 1 and level is None:
        return _array_at(Place("", below[0]))
    named = f"name one in it, such as {below[0]}" if below else "name an array in it"
    raise InputError(f"{group.place.address} is not a volume of a known format: {named}")


def _arrays_below(place: Place) -> list[str]:
    """Return arrays in a folder on this machine, as paths."""
    if place.base:
        return []
    found = []
    for marker in sorted(Path(place.path).rglob("attributes.json")):
        with reading(f"{marker} is damaged"):
            if "blockSize" in json.loads(marker.read_text(encoding="utf-8")):
                found.append(str(marker.parent))
    return found


def _array(node: Node, wish: Wish, path: Path | None) -> Volume:
    """Return the volume in an array of Zarr or N5."""
    where = (str(node.driver), json.dumps(node.place.kvstore()), node.driver == "n5")
    store = opened(*where)
    around = [(group, inner) for place, inner in node.place.above() if (group := node_at(place)) is not None]
    volume = open_stored(
        Lazy(opened, where, tuple(store.shape), store.dtype),
        _told(node, around, len(store.shape)),
        wish,
        path=path if path is None else Path(node.place.path),
        name=volume_name(node.place.address),
        address=node.place.address,
        chunks=tuple(store.chunk_layout.read_chunk.shape),
    )
    owner = next((group for group, inner in around if _is_level(group, inner)), None)
    if owner is not None and legend_in(owner.attributes) is not None:
        volume.labelled = "its metadata have an image-label"
    return volume


def _is_level(group: Node, inner: str) -> bool:
    image = multiscale_of(group.attributes, group.place.address)
    return image is not None and inner in image.levels


def _told(node: Node, around: Sequence[tuple[Node, str]], n: int) -> Told:
    """Return what the attributes of an array, and of the groups around it, say of it."""
    turned = _from_z if node.driver == "n5" else dict
    own = {DIMENSION_NAMES: node.metadata.get(DIMENSION_NAMES), **turned(node.attributes)}
    frames: list[Frame | None] = [_bdv_frame(node)]
    channels: tuple[str, ...] = ()
    for group, inner in around:
        image = multiscale_of(group.attributes, group.place.address)
        if image is not None and inner in image.levels:
            frames += [image.levels[inner], frame_in(image.entries[inner], n)]
            channels = channels or image.channels
    outer = [of_level(turned(group.attributes), own, node.place.path) for group, _ in around]
    frames += [frame_in(each, n) for each in (own, *outer)]
    hints = (unknown_size_in(each) for each in (own, *outer))
    return Told(
        [frame for frame in frames if frame is not None],
        [named_axes(own)],
        channels,
        next((hint for hint in hints if hint), None),
    )


def _bdv_frame(node: Node) -> Frame | None:
    """Return what the XML beside an N5 container of BigDataViewer says of an array in it."""
    found = re.search(r"(.*)/setup(\d+)/timepoint\d+/s\d+$", node.place.path)
    if node.place.base or not found:
        return None
    factors = numbers(node.attributes.get("downsamplingFactors")) or (1.0, 1.0, 1.0)
    return frame_beside(Path(found[1]), found[2], factors)


def _from_z(attributes: Attributes) -> Attributes:
    """Return attributes of N5 with lists that run from x turned round.

    A ``transform`` of COSEM runs from z as it stands; one whose axes begin with x is in the order of N5.
    """
    turned: dict[str, object] = {**attributes, **_turned(attributes, _REVERSED)}
    cosem = attributes.get("transform")
    axes = cosem.get("axes") if isinstance(cosem, Mapping) and "order" not in cosem else None
    if isinstance(cosem, Mapping) and isinstance(axes, list) and axes and str(axes[0]).lower() == "x":
        turned["transform"] = {**cosem, **_turned(cosem, cosem)}
    return turned


def _turned(attributes: Attributes, keys: Iterable[str]) -> Attributes:
    """Return the lists among some attributes in the opposite order."""
    found = {key: attributes[key] for key in keys if key in attributes}
    return {key: value[::-1] for key, value in found.items() if isinstance(value, list)}
