"""Where arrays of Zarr, N5 and neuroglancer lie, as tensorstore finds and opens them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vemseg.errors import UsageError
from vemseg.foreign import reading
from vemseg.names import without_format
from vemseg.volume.conventions import Attributes
from vemseg.volume.optional import needed

_TRIES = {"max_retries": 4, "initial_delay": "200ms", "max_delay": "3s"}
_PATIENCE = {f"{kind}_request_retries": _TRIES for kind in ("http", "s3", "gcs")}
"""How often a host that does not answer is asked again."""

_MOST_ABOVE = 6
"""How many groups above an array are asked for metadata."""


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
        parts = urlsplit(without_format(address).partition("|")[0])
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
            return {"driver": "s3", "bucket": host, "path": f"{self.path}/".lstrip("/"), **_s3()}
        if scheme in ("gs", "gcs"):
            return {"driver": "gcs", "bucket": host, "path": f"{self.path}/".lstrip("/")}
        raise UsageError(
            f"{self.address}: '{scheme}' is not an address that can be read: use https://, s3:// or gs://"
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


def _s3() -> dict[str, object]:
    """Return how S3 is asked: anonymously, and at the address that AWS's variables name, if any."""
    anonymous: dict[str, object] = {"aws_credentials": {"type": "anonymous"}}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION", "us-east-1")
    return anonymous | ({"endpoint": endpoint.rstrip("/"), "aws_region": region} if endpoint else {})


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
    with reading(f"{place['path']} is not a readable array"):
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
