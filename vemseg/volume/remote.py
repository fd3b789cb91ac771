"""N5 and neuroglancer precomputed anywhere, and Zarr on the network: read by tensorstore.

Addresses are ``https://``, ``s3://`` (anonymous) and ``gs://``. Nothing else in vemseg reads volumes from the
network, and nothing here does unless such an address is named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vemseg.errors import InputError, UsageError
from vemseg.foreign import read_text, reading
from vemseg.names import volume_name
from vemseg.volume.about import Record, channels_in
from vemseg.volume.base import Volume
from vemseg.volume.conventions import Attributes, frame_in, named_axes, of_level, unknown_size_in
from vemseg.volume.foreign import needed
from vemseg.volume.frame import Frame
from vemseg.volume.ngff import images_of, legend_in, multiscale_of, what_to_name
from vemseg.volume.stored import Lazy, Told, Wish, open_stored

_DRIVERS = ("zarr3", "zarr2", "zarr", "n5", "precomputed", "neuroglancer-precomputed")
_REVERSED = ("resolution", "voxel_size", "offset", "units", "axes", "axis_names", "dimensions")
"""Attributes of N5 whose lists run from x."""

_TRIES = {"max_retries": 4, "initial_delay": "200ms", "max_delay": "3s"}
_PATIENCE = {f"{kind}_request_retries": _TRIES for kind in ("http", "s3", "gcs")}
"""How often a host that does not answer is asked again."""

_MOST_ABOVE = 6
"""How many groups above an array are asked for metadata."""

_FINEST = ("s0", "setup0/timepoint0/s0", "0")
"""Where the finest level of a group lies that describes none."""


@dataclass(frozen=True)
class Place:
    """A folder of a store, on this machine or on the network.

    Attributes
    ----------
    base : str
        The scheme and the host or bucket: ``https://host``; empty on this machine.
    path : str
        The folder, without a slash at its end.
    """

    base: str
    path: str

    @classmethod
    def of(cls, address: str) -> Place:
        """Return the place of an address; forms such as ``n5://https://host/x`` are understood too."""
        scheme, _, rest = address.partition("://")
        while scheme.lower() in _DRIVERS and "://" in rest:
            scheme, _, rest = rest.partition("://")
        parts = urlsplit(f"{scheme}://{rest.partition('|')[0]}")
        return cls(f"{parts.scheme.lower()}://{parts.netloc}", parts.path.rstrip("/"))

    @property
    def address(self) -> str:
        """The address of the folder."""
        return f"{self.base}{self.path}"

    def inside(self, inner: str) -> Place:
        """Return a folder in it."""
        return Place(self.base, f"{self.path}/{inner}" if inner else self.path)

    def above(self) -> Iterator[tuple[Place, str]]:
        """Yield the folders around it, the innermost first, each with the way from there to this one."""
        path, inner = self.path, ""
        for _ in range(_MOST_ABOVE):
            path, _, last = path.rpartition("/")
            inner = f"{last}/{inner}" if inner else last
            if not path:
                return
            yield Place(self.base, path), inner

    def kvstore(self) -> dict[str, object]:
        """Return the place as tensorstore names it."""
        scheme, _, host = self.base.partition("://")
        if not scheme:
            return {"driver": "file", "path": f"{self.path}/"}
        if scheme in ("http", "https"):
            return {"driver": "http", "base_url": self.base, "path": f"{self.path}/"}
        if scheme == "s3":
            anonymous = {"aws_credentials": {"type": "anonymous"}}
            return {"driver": "s3", "bucket": host, "path": f"{self.path}/".lstrip("/"), **anonymous}
        if scheme in ("gs", "gcs"):
            return {"driver": "gcs", "bucket": host, "path": f"{self.path}/".lstrip("/")}
        raise UsageError(
            f"{self.address}: '{scheme}' is no address that can be read: use https://, s3:// or gs://"
        )

    def document(self, name: str) -> Attributes | None:
        """Return a JSON file of the folder, None where there is none.

        Raises
        ------
        InputError
            Where the host does not answer, or the file is damaged.
        """
        tensorstore = needed("tensorstore", self.address)
        with reading(f"{self.address} cannot be reached"):
            store = tensorstore.KvStore.open(self.kvstore(), context=tensorstore.Context(_PATIENCE)).result()
            found = store.read(name).result()
        if found.state != "value":
            return None
        with reading(f"{self.address}/{name} is damaged"):
            document: object = json.loads(found.value)
        return document if isinstance(document, Mapping) else None


@dataclass(frozen=True)
class Node:
    """A group or an array.

    Attributes
    ----------
    place : Place
    driver : str or None
        tensorstore's name for the format of an array; None for a group.
    attributes : mapping
    metadata : mapping
        Of an array, as its format keeps them.
    """

    place: Place
    driver: str | None
    attributes: Attributes
    metadata: Attributes


def node_at(place: Place) -> Node | None:
    """Return what lies at a place, None where no metadata of a known format do."""
    if (document := place.document("zarr.json")) is not None:
        driver = "zarr3" if document.get("node_type") == "array" else None
        return Node(place, driver, document.get("attributes") or {}, document)
    array, found = place.document(".zarray"), place.document(".zattrs")
    if array is not None or found is not None:
        return Node(place, None if array is None else "zarr", found or {}, array or {})
    if (document := place.document("attributes.json")) is not None:
        driver = "n5" if {"dimensions", "blockSize"} <= document.keys() else None
        return Node(place, driver, document, document)
    if (document := place.document("info")) is not None and "scales" in document:
        return Node(place, "neuroglancer_precomputed", {}, document)
    return None


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
        return _precomputed(found, wish, path)
    return _array(found, wish, path)


def _level_of(group: Node, wish: Wish) -> Node:
    """Return a level of the image that a group is: the finest, unless another is named."""
    image = multiscale_of(group.attributes)
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
        raise InputError(f"{place.address} is no array")
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
    raise InputError(f"{group.place.address} is no volume of a known format: {named}")


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
    image = multiscale_of(group.attributes)
    return image is not None and inner in image.levels


def _told(node: Node, around: Sequence[tuple[Node, str]], n: int) -> Told:
    """Return what the attributes of an array, and of the groups around it, say of it."""
    turned = _from_z if node.driver == "n5" else dict
    own = turned(node.attributes)
    frames: list[Frame | None] = []
    channels: tuple[str, ...] = ()
    for group, inner in around:
        image = multiscale_of(group.attributes)
        if image is not None and inner in image.levels:
            frames += [image.levels[inner], frame_in(image.entries[inner], n)]
            channels = channels or image.channels
    outer = [of_level(turned(group.attributes), own, node.place.path) for group, _ in around]
    frames += [frame_in(each, n) for each in (own, *outer)]
    names = node.metadata.get("dimension_names")
    named = named_axes({"axis_names": names}) if isinstance(names, list) and all(names) else ()
    hints = (unknown_size_in(each) for each in (own, *outer))
    return Told(
        [frame for frame in frames if frame is not None],
        [named, named_axes(own)],
        channels,
        next((hint for hint in hints if hint), None),
    )


def _precomputed(node: Node, wish: Wish, path: Path | None) -> Volume:
    """Return the volume at a scale of a precomputed volume; its axes are x, y, z, channel, its unit nm."""
    scales, level = node.metadata["scales"], wish.choice.level
    keys = [str(scale.get("key")) for scale in scales]
    if level is not None and level not in keys and not (level.isdecimal() and int(level) < len(keys)):
        raise UsageError(
            f"--level {level}: {node.place.address} has no such scale; there are {', '.join(keys)}"
        )
    index = 0 if level is None else keys.index(level) if level in keys else int(level)
    where = ("neuroglancer_precomputed", json.dumps(node.place.kvstore()), True, index)
    store = opened(*where)
    size = [float(edge) for edge in scales[index]["resolution"]]
    corner = [float(at) for at in scales[index].get("voxel_offset", (0, 0, 0))]
    shift = [at * edge for at, edge in zip(corner, size, strict=True)]
    axes = ("c", "z", "y", "x")
    frame = Frame(axes, (None, "nm", "nm", "nm"), (1.0, *size[::-1]), (0.0, *shift[::-1]))
    record = None if path is None else precomputed_record(path)
    volume = open_stored(
        Lazy(opened, where, tuple(store.shape), store.dtype),
        Told([frame], channels=channels_in(record)),
        wish,
        path=path,
        name=volume_name(node.place.address),
        address=node.place.address if path is None else str(path),
        chunks=tuple(store.chunk_layout.read_chunk.shape),
    )
    segmented = "it is a segmentation" if node.metadata.get("type") == "segmentation" else None
    volume.labelled = segmented
    return volume.remembering(record) if index == 0 else volume


RECORD = "vemseg.json"
"""The file that holds what vemseg says of a precomputed volume, in its folder."""


def precomputed_record(path: Path) -> Record | None:
    """Return what vemseg wrote of a precomputed volume on this machine, None where it wrote nothing."""
    if not (path / RECORD).is_file():
        return None
    complaint = f"{path / RECORD} is damaged"
    text = read_text(path / RECORD, complaint)
    with reading(complaint):
        found: object = json.loads(text)
    return dict(found) if isinstance(found, dict) else None


def opened(driver: str, kvstore: str, turned: bool, scale: int | None = None) -> Any:
    """Open an array with tensorstore; ``turned`` puts its axes in the opposite order, z before x.

    Parameters
    ----------
    driver, kvstore : str
        As tensorstore names them; the second as JSON.
    turned : bool
    scale : int, optional
        The scale of a precomputed volume.

    Raises
    ------
    InputError
        Where there is no such array, or it is damaged.
    """
    place = json.loads(kvstore)
    tensorstore = needed("tensorstore", place["path"])
    spec = {"driver": driver, "kvstore": place, "context": _PATIENCE} | (
        {} if scale is None else {"scale_index": scale}
    )
    with reading(f"{place['path']} is no readable array"):
        store = tensorstore.open(spec, open=True, read=True).result()
    return Indexed(store, turned)


class Indexed:
    """An array of tensorstore, read and written as numpy indexes an array, from 0 on.

    Parameters
    ----------
    store : tensorstore.TensorStore
    turned : bool
        Puts the axes in the opposite order, z before x.
    """

    def __init__(self, store: Any, turned: bool) -> None:
        moved = store[needed("tensorstore", "the array").d[:].translate_to[0]]
        self._store = moved.T if turned else moved
        self.shape, self.dtype = self._store.shape, self._store.dtype.numpy_dtype
        self.chunk_layout = self._store.chunk_layout

    def __getitem__(self, index: Any) -> Any:
        return self._store[index].read().result()

    def __setitem__(self, index: Any, value: Any) -> None:
        self._store[index].write(value).result()


def _from_z(attributes: Attributes) -> Attributes:
    """Return attributes of N5 with lists that run from x turned round."""
    turned = {
        key: value[::-1] for key, value in attributes.items() if key in _REVERSED and isinstance(value, list)
    }
    return {**attributes, **turned}
