"""Vectors on their lattice: on disk, a Zarr directory with what is needed to segment from it; or in memory.

FEATURES.zarr/
  zarr.json          attributes: kind, format, lattice positions, source shape and voxel size, provenance
  vectors            float16 (z, y, x, d), one shard per written box
  intensities        float16 (z, y, x), mean intensity of each vector's patch; NaN outside the specimen
  codes              float32 (n, d), the codebook of a model that learned one
  labeller/          the arrays of the labeller that was trained with a model
  regions/           where the recipe divides volumes into regions
    map              int32 (z, y, x), the row of each voxel's region in the next two arrays
    vectors          float16 (n, d)
    intensities      float32 (n,)
    edges            int64 (e, 2), pairs of rows whose regions touch
    ends             int64 (p, 2), rows and edges of the first parts of the volume together, 1 to p
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from vemseg.errors import InputError, MissingError
from vemseg.files import atomic_path
from vemseg.foreign import Form, reading
from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.run import DESCRIPTION, Json, state_in
from vemseg.tiling import Floats
from vemseg.volume import Durable

KIND = "vemseg-features"
FORMAT = 1
CHUNK_BYTES = 2**21

UNWRITTEN = -1
"""Where the array of a part's ends was made longer, and the process was killed before it wrote them."""

Values = tuple[NDArray[np.float16], NDArray[np.float16]]
"""Vectors (z, y, x, d) and the mean intensities of their patches (z, y, x)."""


_STATE = {"inputs": list[dict[str, str | int | None]]}
_ATTRIBUTES = Form(
    {
        "positions": tuple[list[float], list[float], list[float]],
        "source_shape": tuple[int, int, int],
        "voxel_size_nm": tuple[float, float, float] | None,
        "order": tuple[int, int, int],
        "inside": tuple[tuple[int, int, int], tuple[int, int, int]],
        "cell": tuple[int, int, int],
        "recipe": str,
        "model": str,
        "volume": {"path": str | None, "crop": str | None, "mask?": str},
        "state": _STATE,
        "classes?": list[str],
        "shown?": float,
    }
)
"""The attributes of stored features that are read."""


_REGIONS = Form(dict[str, str | int | float | bool])


class RegionArrays(NamedTuple):
    """What is stored of the regions of a part, as ``graphs.Graph`` has it."""

    vectors: NDArray[np.float16]
    intensities: NDArray[np.float32]
    edges: NDArray[np.int64]


def are_features(path: Path) -> bool:
    """Tell whether a path leads to features that ``embed`` stored, by its layout alone."""
    try:
        return (path / "vectors").is_dir()
    except OSError:  # no permission to look into the folder: the reader of volumes will say so
        return False


class Features:
    """Stored vectors of one volume.

    Attributes
    ----------
    shape : (int, int, int)
        Lattice points, z y x.
    dim : int
        Length of a vector.
    positions : three float64 arrays
        Where the lattice points lie, in source voxels.
    source_shape, voxel_size
        Shape, and voxel size in nm (None where unknown), of the volume the vectors were computed from.
    box_shape : (int, int, int)
        Shape of a shard, in lattice points; boxes to be written start at multiples of it.
    learned : dict of str to array
        The labeller that was trained with the model; empty where there is none.
    attributes : dict
        Everything else that was stored with the vectors.
    """

    def __init__(self, path: Path, mode: str = "r") -> None:
        with reading(f"{path}: no features written by 'vemseg embed'"):
            group = _opened(path, mode)
            self.attributes: dict[str, Any] = dict(group.attrs)
            self._vectors, self._intensities = group["vectors"], group["intensities"]
            self._codes, self._group = group.get("codes"), group
            found = dict(group["labeller"].arrays()) if "labeller" in group else {}
            self.learned: dict[str, NDArray[np.generic]] = {
                key: np.asarray(array[...]) for key, array in found.items()
            }
            self.path = path
            if self.attributes.get("kind") != KIND or self.attributes.get("format") != FORMAT:
                raise InputError(f"{path}: no features this version of vemseg can read")
            _ATTRIBUTES.check(self.attributes, f"{path}: damaged features")
            self.shape: ZYX = tuple(self._vectors.shape[:3])
            self.dim = int(self._vectors.shape[3])
            self.box_shape: ZYX = tuple(self._vectors.shards[:3])
            self._check_arrays()

    def _check_arrays(self) -> None:
        """Refuse arrays and attributes that do not fit each other."""
        lengths = tuple(len(axis) for axis in self.positions)
        grid, codes = Box.whole(self.shape), self._codes
        for fits, what in (
            (self._vectors.dtype == self._intensities.dtype == np.float16, "its numbers are not float16"),
            (self._vectors.ndim == 4 and self.dim >= 1, "its vectors have other axes"),
            (self._intensities.shape == self.shape == lengths, "its arrays have other shapes"),
            (min(self.source_shape) > 0 and min(self.cell) > 0, "its volume or its cells hold nothing"),
            (grid.contains(self.inside) and self.inside.size > 0, "its vectors lie outside"),
            (all(np.all(np.diff(axis) > 0) for axis in self.positions), "its positions do not rise"),
            (sorted(self.attributes["order"]) == [0, 1, 2], "its axes are not an order of 0, 1, 2"),
            (0.0 < self.shown <= 1.0, "its share of the specimen is not above 0 up to 1"),
            (
                codes is None or (codes.ndim == 2 and codes.shape[1] == self.dim),
                "its codebook has another length",
            ),
        ):
            if not fits:
                raise InputError(f"{self.path}: damaged features: {what}")

    @classmethod
    def create(
        cls,
        path: Path,
        positions: tuple[Floats, Floats, Floats],
        dim: int,
        box_shape: ZYX,
        attributes: Mapping[str, object],
        codes: NDArray[np.float32] | None = None,
        learned: Mapping[str, NDArray[np.generic]] = MappingProxyType({}),
    ) -> Features:
        """Make an empty store.

        Parameters
        ----------
        path : Path
            A new directory.
        positions : three float64 arrays
            Where the lattice points lie, in source voxels.
        dim : int
            Length of a vector.
        box_shape : (int, int, int)
            Lattice points to be written at a time; the attribute ``box_shape`` is this in whole chunks.
        attributes : dict
            Plain JSON types: all that ``_ATTRIBUTES`` lists but ``positions``, and anything else worth
            keeping.
        codes : float32 (n, d), optional
            The model's codebook.
        learned : mapping of str to array
            The labeller that was trained with the model; empty where there is none.
        """
        growing = path.with_name(f"{path.name}.new")
        group = zarr.create_group(Durable(growing), overwrite=True)
        shape = tuple(len(axis) for axis in positions)
        chunk = _chunk(box_shape, dim)
        shard = tuple(-(-b // c) * c for b, c in zip(box_shape, chunk, strict=True))
        group.create_array(
            "vectors", shape=(*shape, dim), dtype="float16", chunks=(*chunk, dim), shards=(*shard, dim)
        )
        group.create_array("intensities", shape=shape, dtype="float16", chunks=chunk, shards=shard)
        if codes is not None:
            group.create_array("codes", data=codes)
        for name, array in learned.items():
            group.require_group("labeller").create_array(name, data=array)
        group.attrs.update(
            {
                "kind": KIND,
                "format": FORMAT,
                "positions": [axis.tolist() for axis in positions],
                **attributes,
            }
        )
        growing.replace(path)
        return cls(path, mode="r+")

    @property
    def state(self) -> Json:
        """What the vectors were made with; the file beside the arrays also knows when inputs were written."""
        made = state_in(self.path / DESCRIPTION)
        known: Json = self.attributes["state"] if made is None else made
        Form(_STATE).check(known, f"{self.path}: damaged {DESCRIPTION}")
        return known

    @property
    def codes(self) -> NDArray[np.float32] | None:
        """The codebook (n, d) of the model that made the vectors; None where it has none."""
        with reading(f"{self.path} is damaged, its codebook does not decode"):
            return None if self._codes is None else np.asarray(self._codes[:], np.float32)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that the encoder itself tells apart; empty too for features stored before it could."""
        return tuple(self.attributes.get("classes", ()))

    @property
    def positions(self) -> tuple[Floats, Floats, Floats]:
        """Where the lattice points lie, in source voxels, z y x."""
        z, y, x = (np.asarray(axis, np.float64) for axis in self.attributes["positions"])
        return z, y, x

    @property
    def source_shape(self) -> ZYX:
        """Shape of the volume that the vectors come from."""
        z, y, x = self.attributes["source_shape"]
        return z, y, x

    @property
    def voxel_size(self) -> VoxelSize | None:
        """Voxel size, in nm, of the volume that the vectors come from."""
        size = self.attributes["voxel_size_nm"]
        return None if size is None else (size[0], size[1], size[2])

    @property
    def shown(self) -> float:
        """The part of the volume that shows the specimen: 1 where all of it does."""
        return float(self.attributes.get("shown", 1.0))

    @property
    def inside(self) -> Box:
        """The lattice points within the volume."""
        (z, y, x), (z1, y1, x1) = self.attributes["inside"]
        return Box((z, y, x), (z1, y1, x1))

    @property
    def cell(self) -> ZYX:
        """Shape of the boxes of lattice points that are cheapest to compute together."""
        z, y, x = self.attributes["cell"]
        return z, y, x

    @property
    def regions(self) -> RegionStore | None:
        """The regions that are stored beside the vectors; None where there are none."""
        return RegionStore(self._group["regions"], self.path) if self._divided else None

    @property
    def _divided(self) -> bool:
        """Whether the arrays for regions are all there: their settings are written after them."""
        return "regions" in self._group and "settings" in self._group["regions"].attrs

    def divide(self, dim: int, settings: Mapping[str, object]) -> RegionStore:
        """Return where regions of the volume are stored, with the parts that are there; begin it if need be.

        Parameters
        ----------
        dim : int
            Length of the vector of a region.
        settings : mapping
            What a region is, as plain JSON.
        """
        if not self._divided:
            RegionStore.create(self._group, self.source_shape, dim, settings)
        return RegionStore(self._group["regions"], self.path)

    def write(self, box: Box, vectors: NDArray[np.float16], intensities: NDArray[np.float16]) -> None:
        """Store a box of lattice points; boxes written at the same time must not share a shard."""
        self._vectors[box.slices] = vectors
        self._intensities[box.slices] = intensities

    def vectors(self, box: Box) -> NDArray[np.float16]:
        """Read vectors: (z, y, x, d)."""
        with reading(f"{self.path} is damaged, its vectors {box} do not decode"):
            values: NDArray[np.float16] = self._vectors[box.slices]
        return values

    def intensities(self, box: Box) -> NDArray[np.float16]:
        """Read mean intensities: (z, y, x)."""
        with reading(f"{self.path} is damaged, its intensities {box} do not decode"):
            values: NDArray[np.float16] = self._intensities[box.slices]
        return values


class RegionStore:
    """The regions of one volume, part by part: which voxels belong to each, and its vector.

    Attributes
    ----------
    settings : dict
        What a region is, as plain JSON.
    """

    def __init__(self, group: zarr.Group, path: Path) -> None:
        self.path = path
        with reading(f"{path}: damaged features: its regions"):
            self.settings: dict[str, Any] = dict(_REGIONS.check(group.attrs["settings"], f"{path}: damaged"))
            names = ("map", "vectors", "intensities", "edges", "ends")
            self._map, self._vectors, self._intensities, self._edges, self._ends = (group[n] for n in names)
            whole = self._ends[:]
            if len(whole) and (whole[-1] == UNWRITTEN).all():
                whole = whole[:-1]
            ends = np.concatenate([np.zeros((1, 2), np.int64), whole])
            held = np.array([self._vectors.shape[0], self._edges.shape[0]])
            if (np.diff(ends, axis=0) < 0).any() or (ends[-1] > held).any() or self._vectors.ndim != 2:
                raise ValueError("its parts do not fit its arrays")
        self._offsets: list[list[int]] = ends.tolist()

    @classmethod
    def create(cls, group: zarr.Group, shape: ZYX, dim: int, settings: Mapping[str, object]) -> None:
        """Make empty arrays for the regions of a volume, or make them again if a kill left some of them."""
        inner = group.create_group("regions", overwrite=True)
        chunk = tuple(min(edge, most) for edge, most in zip(shape, (16, 256, 256), strict=True))
        inner.create_array("map", shape=shape, dtype="int32", chunks=chunk, fill_value=-1)
        inner.create_array("vectors", shape=(0, dim), dtype="float16", chunks=(CHUNK_BYTES // dim // 2, dim))
        inner.create_array("intensities", shape=(0,), dtype="float32", chunks=(2**16,))
        inner.create_array("edges", shape=(0, 2), dtype="int64", chunks=(2**16, 2))
        inner.create_array("ends", shape=(0, 2), dtype="int64", chunks=(2**10, 2), fill_value=UNWRITTEN)
        inner.attrs["settings"] = dict(settings)

    def __len__(self) -> int:
        """Return the number of parts that are there."""
        return len(self._offsets) - 1

    def append(self, box: Box, numbers: NDArray[np.int64], arrays: RegionArrays) -> None:
        """Store the next part; what a killed process left of one is written over.

        Parameters
        ----------
        box : Box
            Its voxels inside the volume.
        numbers : int64 (z, y, x)
            The region of each of these voxels, counted within the part.
        arrays : RegionArrays
        """
        rows, edges = self._offsets[-1]
        self._map[box.slices] = (numbers + rows).astype(np.int32)
        end = [rows + len(arrays.vectors), edges + len(arrays.edges)]
        for array, first, values in (
            (self._vectors, rows, arrays.vectors),
            (self._intensities, rows, arrays.intensities),
            (self._edges, edges, arrays.edges + rows),
            (self._ends, len(self), np.array([end])),  # last: with it the part is there
        ):
            array.resize((first, *array.shape[1:]))
            array.append(values)
        self._offsets.append(end)

    def part(self, number: int) -> tuple[int, RegionArrays]:
        """Return the first row of a part, and its arrays, edges counted within the part."""
        (first, low), (last, high) = self._offsets[number : number + 2]
        with reading(f"{self.path} is damaged, its regions do not decode"):
            arrays = RegionArrays(
                self._vectors[first:last], self._intensities[first:last], self._edges[low:high] - first
            )
        return first, arrays

    def map(self, box: Box) -> NDArray[np.int32]:
        """Return the row of the region of each voxel of a box."""
        with reading(f"{self.path} is damaged, its map of regions does not decode"):
            rows: NDArray[np.int32] = self._map[box.slices]
        return rows


class HeldFeatures:
    """Vectors of one volume in memory, to be filled and read like :class:`Features`.

    Parameters
    ----------
    positions : three float64 arrays
        Where the lattice points lie, in source voxels.
    dim : int
        Length of a vector.
    inside : Box
        The lattice points within the volume.
    cell : (int, int, int)
        Shape of the boxes of lattice points that are cheapest to compute together.
    shown : float
        The part of the volume that shows the specimen.
    """

    def __init__(
        self,
        positions: tuple[Floats, Floats, Floats],
        dim: int,
        inside: Box,
        cell: ZYX,
        shown: float = 1.0,
    ) -> None:
        self.positions, self.dim, self.inside, self.cell = positions, dim, inside, cell
        self.shown = shown
        self.shape: ZYX = (len(positions[0]), len(positions[1]), len(positions[2]))
        self._vectors = np.empty((*self.shape, dim), np.float16)
        self._intensities = np.empty(self.shape, np.float16)
        self.regions: RegionStore | None = None

    def write(self, box: Box, vectors: NDArray[np.float16], intensities: NDArray[np.float16]) -> None:
        """Keep a box of lattice points."""
        self._vectors[box.slices] = vectors
        self._intensities[box.slices] = intensities

    def vectors(self, box: Box) -> NDArray[np.float16]:
        """Return vectors: (z, y, x, d)."""
        return self._vectors[box.slices]

    def intensities(self, box: Box) -> NDArray[np.float16]:
        """Return mean intensities: (z, y, x)."""
        return self._intensities[box.slices]

    def save(self, path: Path, block_shape: ZYX, done: int) -> None:
        """Save to a file (.npz) the vectors that are there: the first ``done`` boxes of ``block_shape``."""
        with atomic_path(path) as growing:
            np.savez(
                growing,
                vectors=self._vectors,
                intensities=self._intensities,
                block_shape=np.array(block_shape),
                done=np.array(done),
            )

    def load(self, path: Path) -> tuple[ZYX, int] | None:
        """Read what :meth:`save` wrote; return ``block_shape`` and ``done``, or None without such a file."""
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as kept:
            self._vectors[:], self._intensities[:] = kept["vectors"], kept["intensities"]
            z, y, x = (int(edge) for edge in kept["block_shape"])
            return (z, y, x), int(kept["done"])


def _opened(path: Path, mode: str) -> zarr.Group:
    """Open the group of a store; refuse what holds no vectors."""
    if not path.exists():  # Zarr would make it
        raise MissingError(f"{path} does not exist: 'vemseg embed' stores features there")
    with contextlib.suppress(FileNotFoundError):
        group = zarr.open_group(Durable(path, read_only=mode == "r"), mode=mode)
        if "vectors" in group and "intensities" in group:
            return group
    raise InputError(f"{path} holds no features: name what 'vemseg embed' wrote")


def _chunk(box: ZYX, dim: int) -> ZYX:
    """Return a chunk of whole vectors of about ``CHUNK_BYTES``, halving the longest edge of a box."""
    edges = list(box)
    while np.prod(edges) * dim * 2 > CHUNK_BYTES and max(edges) > 1:
        longest = edges.index(max(edges))
        edges[longest] = -(-edges[longest] // 2)
    return edges[0], edges[1], edges[2]
