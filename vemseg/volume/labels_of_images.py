"""Labels inside an existing OME-Zarr image: where they lie, in which version of NGFF, and who lists them.

NGFF keeps labels in the group ``labels`` of their image, whose attributes list them. New labels first appear
whole, by one rename, and are listed then; viewers look at the list, so they never see half of them.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from vemseg.errors import InputError, UsageError
from vemseg.files import write_text
from vemseg.foreign import read_text, reading
from vemseg.geometry import ZYX, VoxelSize
from vemseg.names import split_name
from vemseg.volume.about import Record
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
    """

    folder: Path
    name: str
    ngff: str
    steps: tuple[tuple[float, float, float], ...] = ((1.0, 1.0, 1.0),)

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
                f"{image} is no folder of an OME-Zarr: --into takes an image such as cell.ome.zarr"
            )
        image, described = _image_in(image.resolve())
        ngff = "0.5" if (image / "zarr.json").is_file() else "0.4"
        found = cls(image, name, ngff, _steps(described))
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


def _steps(image: Multiscale) -> tuple[tuple[float, float, float], ...]:
    """Return how much coarser each level of an image is than the finest; 1 where nothing is said."""
    edges = []
    for frame in image.levels.values():
        named = dict(zip(frame.axes, frame.scale or (), strict=False))
        edges.append([abs(named.get(axis, 1.0)) or 1.0 for axis in "zyx"])
    edges.sort(key=math.prod)
    found = [[edge / finest for edge, finest in zip(each, edges[0], strict=True)] for each in edges]
    return tuple((z, y, x) for z, y, x in found)


def _image_in(path: Path) -> tuple[Path, Multiscale]:
    """Return the image that a group is, or the first one of a Bio-Formats collection.

    Raises
    ------
    InputError
        Where it is something else.
    """
    node = open_node(path)
    if not isinstance(node, zarr.Group):
        raise InputError(f"{path} is an array: --into takes the group of the image around it")
    described = multiscale_of(node.attrs)
    if described is not None and described.levels:
        if legend_in(node.attrs) is not None:
            raise InputError(f"{path} holds labels: --into takes the image that they belong to")
        return path, described
    inner = open_node(path / "OME") if is_zarr(path / "OME") else None
    images = images_of(node.attrs, {} if inner is None else attributes(inner))
    if images is not None and is_zarr(path / images[0]):
        return _image_in(path / images[0])
    raise InputError(f"{path} {what_to_name(node.attrs, path) or 'is no OME-Zarr image'}")


def _document(file: Path) -> dict[str, object]:
    """Return a JSON file of a group; empty where there is none."""
    if not file.is_file():
        return {}
    complaint = f"{file} is damaged"
    text = read_text(file, complaint)
    with reading(complaint):
        found = json.loads(text)
    if not isinstance(found, dict):
        raise InputError(f"{complaint}: it is no table")
    return found


def _consolidate(group: Path) -> None:
    """Bring the consolidated metadata of a group up to date, where it has any."""
    old = (group / ".zmetadata").is_file()
    if old or _document(group / "zarr.json").get("consolidated_metadata"):
        with reading(f"the consolidated metadata of {group} cannot be renewed"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the specification of format 3 does not know them yet
            zarr.consolidate_metadata(str(group), zarr_format=2 if old else 3)
