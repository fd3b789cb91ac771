"""Everything that a view can be shown as: which files each kind makes, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vemseg.drawing import Figure, save
from vemseg.gallery.links import write_link
from vemseg.gallery.pictures import (
    draw_comparison,
    draw_confidence,
    draw_features,
    draw_montage,
    draw_planes,
)
from vemseg.gallery.space import Space
from vemseg.gallery.view import View
from vemseg.surfaces import mesh_names
from vemseg.volume import Record

DPI = 200

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
    """Return what is shown of a view, in the order in which it is made."""
    wishes, space = view.wishes, Space(view)
    both = view.painted is not None and view.truth is not None
    pictures: Mapping[str, tuple[object, Callable[[], Figure]]] = {
        "planes": (True, partial(draw_planes, view)),
        "montage": (True, partial(draw_montage, view)),
        "comparison": (both, partial(draw_comparison, view)),
        "confidence": (wishes.confidence, partial(draw_confidence, view)),
        "features": (wishes.features, partial(draw_features, view)),
        "solid": (wishes.solid, space.draw),
    }
    found = [_picture(view, kind, draw) for kind, (wanted, draw) in pictures.items() if wanted]
    if wishes.turntable:
        found.append(_file(f"{view.stem}_turntable.gif", space.turn))
    if wishes.meshes:
        found.append(_file(mesh_names(view.stem, wishes.meshes), space.write))
    if wishes.neuroglancer:
        link = (f"{view.stem}_neuroglancer.json", f"{view.stem}_segments")
        names = link if view.painted is not None else link[:1]
        found.append(Exhibit(names, partial(write_link, view)))
    return found


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
