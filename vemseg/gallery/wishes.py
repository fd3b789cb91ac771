"""What is wanted beside planes and a montage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vemseg.errors import MissingError, UsageError
from vemseg.foreign import check_library
from vemseg.surfaces import MESH_FORMATS
from vemseg.surfaces.mesh import NEEDED as MESHES_NEED
from vemseg.surfaces.meshing import Each, Meshing
from vemseg.surfaces.solid import NEEDED as SOLID_NEEDS

PICTURE_FORMATS = ("png", "pdf", "svg")
"""The formats of pictures, by their endings."""


SURFACES = 2
"""Rises when the same labels get other surfaces than before."""


@dataclass(frozen=True)
class Wishes:
    """What a user wants to see of a scene.

    Attributes
    ----------
    formats : sequence of str
        Of ``PICTURE_FORMATS``: every picture is written in each.
    confidence : str, optional
        A volume of how certain each label is, 0 to 255, as ``segment --confidence`` writes it.
    features : Path, optional
        What ``embed`` stored of the volume.
    meshes : str, optional
        Of ``MESH_FORMATS``.
    each : {"class", "object"}
        What gets a mesh of its own.
    faces : int
        The most triangles of a mesh; 0 keeps all.
    classes : sequence of str
        The classes that have meshes and are seen in space, by number or name; empty for all.
    solid, turntable : bool
        Whether a picture in space is wanted, and a turning one.
    neuroglancer : str, optional
        The address at which the working folder is served.

    Raises
    ------
    UsageError
        Where a format is unknown.
    MissingError
        Where there are no features.
    InputError
        Where a library is missing.
    """

    formats: Sequence[str] = ("png",)
    confidence: str | None = None
    features: Path | None = None
    meshes: str | None = None
    each: Each = "class"
    faces: int = 200_000
    classes: Sequence[str] = ()
    solid: bool = False
    turntable: bool = False
    neuroglancer: str | None = None

    def __post_init__(self) -> None:
        for option, given, known in (
            ("--format", self.formats, PICTURE_FORMATS),
            ("--meshes", [self.meshes] if self.meshes else [], MESH_FORMATS),
        ):
            if unknown := [name for name in given if name not in known]:
                raise UsageError(f"{option} {unknown[0]} is not known: take {', '.join(known)}")
        Meshing(self.each, self.faces)
        self._check_libraries()
        if self.features is not None and not self.features.is_dir():
            raise MissingError(f"no features at {self.features}: 'vemseg embed' stores them")

    def _check_libraries(self) -> None:
        """Refuse what a missing library would refuse only after the surfaces are made."""
        if self.meshes:
            check_library("trimesh", MESHES_NEED, "meshes")
        if self.solid or self.turntable:
            check_library("pyvista", SOLID_NEEDS, "3d")

    @property
    def of_labels(self) -> list[str]:
        """The options that need labels and were given."""
        wanted = {
            "--confidence": self.confidence,
            "--meshes": self.meshes,
            "--solid": self.solid,
            "--turntable": self.turntable,
        }
        return [option for option, given in wanted.items() if given]

    def state(self) -> dict[str, object]:
        """Return what was asked for and is not the default, as plain JSON types."""
        plain: dict[str, object] = {
            name: list(value) if isinstance(value, tuple | list) else value
            for name, value in vars(self).items()
            if value != getattr(Wishes, name) and name not in ("features", "confidence")
        }
        found = {"features": self.features is not None, "confidence": self.confidence is not None}
        made = {"surfaces": SURFACES} if self.meshes or self.solid or self.turntable else {}
        return plain | {name: True for name, given in found.items() if given} | made
