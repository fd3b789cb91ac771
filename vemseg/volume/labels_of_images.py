"""Labels inside an existing OME-Zarr image: where they lie, their version of NGFF, and how they are listed.

NGFF keeps labels in the group ``labels`` of their image, whose attributes list them. New labels first appear
whole, by one rename, and are listed then; viewers look at the list, so they never see half of them.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from vemseg.errors import InputError, UsageError
from vemseg.files import write_text
from vemseg.foreign import read_text, reading
from vemseg.geometry import ZYX, Position, VoxelSize
from vemseg.names import split_name
from vemseg.volume.about import About, Record
from vemseg.volume.base import Volume
from vemseg.volume.frame import Frame
from vemseg.volume.ngff import (
    FORMATS_OF_ZARR,
    Multiscale,
    images_of,
    legend_in,
    list_of_labels,
    listed_labels,
    multiscale_of,
    what_to_name,
)
from vemseg.volume.pyramid import level_factors
from vemseg.volume.zarr_nodes import attributes, groups_around, is_zarr, open_node

GROUP = "labels"
"""The group of an image that its labels lie in."""

SOURCE: Record = {"source": {"image": "../../"}}
"""What labels in an image say of it: where it lies, seen from them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class LabelsOfImage:
    """Labels in an image, there already or not.

    Attributes
    ----------
    folder : Path
        The image.
    name : str
        Of the labels.
    ngff : str
        The version of NGFF that the labels get: that of the image, or 0.4 for images of older versions.
    steps : tuple of (float, float, float)
        How much coarser each level of the image is than its finest one, z y x. NGFF wants as many levels of
        labels.
    finest : Frame
        What the image says of the axes of its finest level.
    shape : tuple of int
        Of that level.
    """

    folder: Path
    name: str
    ngff: str
    steps: tuple[Position, ...]
    finest: Frame
    shape: tuple[int, ...]

    @classmethod
    def of(cls, image: Path, name: str) -> LabelsOfImage:
        """Return the labels of that name in an image.

        Raises
        ------
        UsageError
            Where the name cannot be one.
        InputError
            Where there is no OME-Zarr image in a folder on this machine.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"--name {name}: use letters, digits, '.', '_' and '-', such as mitochondria")
        if image.is_file() or not is_zarr(image):
            raise InputError(
                f"{image} is not a folder of an OME-Zarr: --into takes an image such as cell.ome.zarr"
            )
        image, group, described = _image_in(image.resolve())
        level = min(described.levels, key=lambda name: math.prod(_edges(described.levels[name])))
        with reading(f"{image} has no array '{level}', which its metadata name"):
            shape = tuple(group[level].shape)
        ngff = "0.5" if group.metadata.zarr_format == 3 else "0.4"
        found = cls(image, name, ngff, _steps(described), described.levels[level], shape)
        inner = image / GROUP if (image / GROUP).exists() else image
        if inner.stat().st_dev != found.beside.parent.stat().st_dev:
            raise InputError(
                f"{inner} lies on another disk than {found.beside.parent}: give an output with -o"
            )
        return found

    @property
    def path(self) -> Path:
        """Where the labels lie."""
        return self.folder / GROUP / self.name

    @property
    def title(self) -> str:
        """The image and the labels, in words that do not depend on where the image lies."""
        return f"{self.folder.name}/{GROUP}/{self.name}"

    @property
    def beside(self) -> Path:
        """The path beside the image that names the files which belong to the labels."""
        outer = self.folder
        while is_zarr(outer.parent):
            outer = outer.parent
        inner = "_".join(self.folder.relative_to(outer).parts)
        stem = "_".join(part for part in (split_name(outer)[0], inner, self.name) if part)
        return outer.with_name(f"{stem}.ome.zarr")

    def check(self, labels: Volume) -> None:
        """Refuse labels of an unknown voxel size, and labels that lie elsewhere than the image.

        Parameters
        ----------
        labels : Volume
            The labels, or what they are made from.

        Raises
        ------
        InputError
            Where the image has a voxel size, and the labels have none or do not meet it.
        """
        size = self.finest.voxel_size
        if size is None:
            return
        if labels.voxel_size is None:
            raise InputError(
                f"{self.folder} has a voxel size and {labels.name} has none: give it with --voxel-size z,y,x"
            )
        named = dict(zip(self.finest.axes, self.shape, strict=True))
        n = [named.get(axis, 1) for axis in "zyx"]
        mine = _extent(About(size, self.finest.origin).position, size, n)
        theirs = _extent(About(**labels.placed).position, labels.voxel_size, labels.shape)
        for axis, (a, b), (c, d) in zip("zyx", mine, theirs, strict=True):
            if c >= b or d <= a:
                raise InputError(
                    f"{labels.name} lies at {axis} = {c:g} to {d:g} nm, outside of {self.folder.name}, which "
                    f"reaches from {a:g} to {b:g}: is it another volume?"
                )

    def factors(self, shape: ZYX, voxel_size: VoxelSize | None) -> list[ZYX]:
        """Return the factors of the levels of labels: those of the image, where these are whole numbers.

        Parameters
        ----------
        shape : (int, int, int)
            Of the labels.
        voxel_size : (float, float, float) or None
            nm, z y x; decides on the factors where those of the image are of no use.
        """
        own = [(round(z), round(y), round(x)) for z, y, x in self.steps]
        exact = np.allclose(own, self.steps, rtol=0.02) and np.min(own) > 0
        if exact and not any(np.any(np.mod(b, a)) for a, b in itertools.pairwise(own)):
            return own
        found = list(level_factors(shape, voxel_size))
        while len(found) < len(own):
            z, y, x = (2 * f if n > 1 else f for f, n in zip(found[-1], shape, strict=True))
            found.append((z, y, x))
        return found[: len(own)]

    def enlist(self) -> None:
        """Add the labels to the list of the image's labels, and to consolidated metadata; may be repeated."""
        group = self.folder / GROUP
        old = FORMATS_OF_ZARR[self.ngff] == 2
        file = group / (".zattrs" if old else "zarr.json")
        if old and not (group / ".zgroup").is_file():
            write_text(group / ".zgroup", json.dumps({"zarr_format": 2}))
        found = _document(file)
        inner = found.get("attributes")
        known = found if old else inner if isinstance(inner, dict) else {}
        if self.name not in listed_labels(known):
            listed = list_of_labels(known, [*listed_labels(known), self.name], self.ngff)
            base = {"zarr_format": 3, "node_type": "group", **found, "attributes": listed}
            write_text(file, json.dumps(listed if old else base, indent=2))
        for outer in [self.folder, *(path for path, _ in groups_around(self.folder))]:
            _consolidate(outer)


def factors_of(image: LabelsOfImage | None, shape: ZYX, voxel_size: VoxelSize | None) -> list[ZYX]:
    """Return the factors of the levels of a volume, or of labels where they go into an image."""
    return list(level_factors(shape, voxel_size)) if image is None else image.factors(shape, voxel_size)


def _extent(
    position: Sequence[float], size: Sequence[float], shape: Sequence[int]
) -> list[tuple[float, float]]:
    """Return where voxels begin and end along each axis, by the centre of the first one."""
    corners = [at - edge / 2 for at, edge in zip(position, size, strict=True)]
    return [(a, a + edge * n) for a, edge, n in zip(corners, size, shape, strict=True)]


def _edges(frame: Frame) -> Position:
    """Return the length of a step along z, y and x; 1 where nothing is said of it."""
    named = dict(zip(frame.axes, frame.scale or (), strict=False))
    z, y, x = (abs(named.get(axis, 1.0)) or 1.0 for axis in "zyx")
    return z, y, x


def _steps(image: Multiscale) -> tuple[Position, ...]:
    """Return how much coarser each level of an image is than the finest; 1 where nothing is said."""
    edges = sorted((_edges(frame) for frame in image.levels.values()), key=math.prod)
    fine = edges[0]
    return tuple((z / fine[0], y / fine[1], x / fine[2]) for z, y, x in edges)


def _image_in(path: Path) -> tuple[Path, zarr.Group, Multiscale]:
    """Return where an image lies: the group itself, or the first image of a Bio-Formats collection.

    Raises
    ------
    InputError
        Where it is something else.
    """
    node = open_node(path)
    if not isinstance(node, zarr.Group):
        raise InputError(f"{path} is an array: --into takes the group of the image around it")
    described = multiscale_of(node.attrs, path)
    if described is not None and described.levels:
        if legend_in(node.attrs) is not None:
            raise InputError(f"{path} holds labels: --into takes the image that they belong to")
        return path, node, described
    inner = open_node(path / "OME") if is_zarr(path / "OME") else None
    images = images_of(node.attrs, {} if inner is None else attributes(inner))
    if images is not None and is_zarr(path / images[0]):
        return _image_in(path / images[0])
    raise InputError(f"{path} {what_to_name(node.attrs, path) or 'is not an OME-Zarr image'}")


def _document(file: Path) -> dict[str, object]:
    """Return a JSON file of a group; empty where there is none."""
    if not file.is_file():
        return {}
    complaint = f"{file} is damaged"
    text = read_text(file, complaint)
    with reading(complaint):
        found = json.loads(text)
    if not isinstance(found, dict):
        raise InputError(f"{complaint}: it is not a table")
    return found


def _consolidate(group: Path) -> None:
    """Bring the consolidated metadata of a group up to date, where it has any."""
    old = (group / ".zmetadata").is_file()
    if old or _document(group / "zarr.json").get("consolidated_metadata"):
        with reading(f"the consolidated metadata of {group} cannot be renewed"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the specification of format 3 does not know them yet
            zarr.consolidate_metadata(str(group), zarr_format=2 if old else 3)
