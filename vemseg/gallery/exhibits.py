"""Everything that a view can be shown as: which files each kind makes, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vemseg.drawing import Figure, save
from vemseg.gallery.links import link_names, write_link
from vemseg.gallery.pictures import (
    draw_comparison,
    draw_confidence,
    draw_features,
    draw_montage,
    draw_planes,
)
from vemseg.gallery.space import Space
from vemseg.gallery.view import View
from vemseg.gallery.wishes import PICTURE_FORMATS
from vemseg.surfaces import MESH_FORMATS, mesh_names
from vemseg.volume import Record

DPI = 200

PICTURES = ("planes", "montage", "comparison", "confidence", "features", "solid")
"""The kinds of pictures."""

Growing = Callable[[str], Path]
"""From the name of a file to where it grows."""


@dataclass(frozen=True)
class Exhibit:
    """One kind of thing that is shown.

    Attributes
    ----------
    files : tuple of str
        The names of the files or folders that it makes.
    make : callable
        Makes them, each where a function says, and returns what is said of them.
    """

    files: tuple[str, ...]
    make: Callable[[Growing], Record]


def exhibits(view: View) -> list[Exhibit]:
    """Return the pictures of a view, in the order in which they are made."""
    wishes, space = view.wishes, Space(view)
    both = view.painted is not None and view.truth is not None
    wanted = (True, True, both, wishes.confidence, wishes.features, wishes.solid)
    flat = (draw_planes, draw_montage, draw_comparison, draw_confidence, draw_features)
    draws: list[Callable[[], Figure]] = [*(partial(draw, view) for draw in flat), space.draw]
    found = [
        _picture(view, kind, draw) for kind, draw, wish in zip(PICTURES, draws, wanted, strict=True) if wish
    ]
    if wishes.turntable:
        found.append(_file(_turning(view.stem), space.turn))
    if wishes.meshes:
        found.append(_file(mesh_names(view.stem, wishes.meshes), space.write))
    if wishes.neuroglancer:
        names = link_names(view.stem)
        found.append(Exhibit(names if view.painted else names[:1], partial(write_link, view)))
    return found


def every_name(stem: str) -> list[str]:
    """Return the names of everything that may be made of a volume, whatever is wished."""
    pictures = [f"{stem}_{kind}.{form}" for kind in PICTURES for form in PICTURE_FORMATS]
    meshes = [mesh_names(stem, form) for form in MESH_FORMATS]
    return [*pictures, _turning(stem), *meshes, *link_names(stem)]


def _turning(stem: str) -> str:
    return f"{stem}_turntable.gif"


def _picture(view: View, kind: str, draw: Callable[[], Figure]) -> Exhibit:
    """Return a picture in all formats that are wanted."""
    names = tuple(f"{view.stem}_{kind}.{form}" for form in view.wishes.formats)

    def make(growing: Growing) -> Record:
        figure = draw()
        for name in names:
            save(figure, growing(name), dpi=DPI)
        return {}

    return Exhibit(names, make)


def _file(name: str, write: Callable[[Path], Record]) -> Exhibit:
    return Exhibit((name,), lambda growing: write(growing(name)))
