"""The surfaces of a view: as files, as a picture in space, and turning."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vemseg.drawing import Figure, gif, scenery
from vemseg.files import atomic_path
from vemseg.gallery.view import View
from vemseg.objects import chosen, known_classes
from vemseg.surfaces import (
    Mesh,
    Meshing,
    check_drawing,
    draw_solid,
    draw_turning,
    extent_of,
    surfaces,
    write_meshes,
)
from vemseg.volume import Record, Volume, record

_log = logging.getLogger("vemseg")

MILLISECONDS = 80
"""How long each picture of a turn is shown."""

FILLS = 0.5
"""A class that has more than this part of the volume hides all others in space."""


@dataclass(frozen=True)
class Space:
    """The surfaces of a view, made once.

    Attributes
    ----------
    view : View
        With labels.
    """

    view: View

    @property
    def labels(self) -> Volume:
        """The labels."""
        assert self.view.painted is not None
        return self.view.painted

    @cached_property
    def meshes(self) -> list[Mesh]:
        """The meshes that are wanted."""
        wishes, names = self.view.wishes, self.view.names or {}
        labels: tuple[int, ...] = ()
        if wishes.classes:
            known = known_classes(self.labels, record(self.labels.address), self.view.context)
            labels = chosen(wishes.classes, known, names)
        if self.labels.voxel_size is None:
            _log.warning("%s: voxel size unknown, so surfaces count voxels", self.labels.name)
        wish = Meshing(wishes.each, wishes.faces, names, self.view.colours, labels)
        return list(surfaces(self.labels, wish, self.view.context))

    @cached_property
    def seen(self) -> list[Mesh]:
        """The meshes that are seen in space: all, but for classes that fill most of the volume."""
        low, high = extent_of(self.labels)
        whole = float((high[0] - low[0]) * (high[1] - low[1]) * (high[2] - low[2]))
        filling = [mesh for mesh in self.meshes if mesh.volume > FILLS * whole]
        if self.view.wishes.classes or len(filling) == len(self.meshes):
            return self.meshes
        for mesh in filling:
            _log.info("%s fills the volume and is not seen in space; --class chooses", mesh.name)
        return [mesh for mesh in self.meshes if mesh not in filling]

    def write(self, target: Path) -> Record:
        """Write the meshes; return what is said of them."""
        assert self.view.wishes.meshes is not None
        write_meshes(self.meshes, self.view.wishes.meshes, target)
        known = self.labels.voxel_size is not None
        return {"meshes": [mesh.told(known) for mesh in self.meshes], "unit": "nm" if known else "voxel"}

    def draw(self) -> Figure:
        """Draw the meshes in space; a library that is missing is found out before they are made."""
        check_drawing()
        picture, pixel = draw_solid(self.seen, extent_of(self.labels))
        legend = {mesh.name: mesh.colour for mesh in self.seen}
        return scenery(picture, pixel if self.labels.voxel_size else None, legend)

    def turn(self, target: Path) -> Record:
        """Write a turning picture."""
        check_drawing()
        with atomic_path(target) as growing:
            growing.write_bytes(gif(draw_turning(self.seen, extent_of(self.labels)), MILLISECONDS))
        return {}
