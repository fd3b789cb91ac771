"""A view in neuroglancer: a state as JSON that names where the volumes are served.

Neuroglancer is a page in a browser that reads volumes from a server, piece by piece. It reads OME-Zarr,
precomputed volumes and N5. The names of classes go into a folder beside the state, as the properties of
segments of the precomputed format.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from vemseg.drawing.colours import css
from vemseg.errors import InputError
from vemseg.files import write_text
from vemseg.gallery.view import View
from vemseg.names import is_url
from vemseg.run import write_json
from vemseg.surfaces.meshing import Meshing
from vemseg.volume import Record, Volume
from vemseg.volume.precomputed_writing import segment_names

PAGE = "https://neuroglancer-demo.appspot.com/#!"
"""A page that shows states, and takes the address of one."""

SERVED = {".zarr": "zarr", ".precomputed": "precomputed", ".n5": "n5"}
"""The formats that neuroglancer reads, by their endings."""

PALE = 0.35
"""How opaque labels are over the image."""

METRES = 1e-9
"""A nanometre in metres, the unit of neuroglancer."""


def link_names(stem: str) -> tuple[str, str]:
    """Return the names of the state and of the folder with the names of classes."""
    return f"{stem}_neuroglancer.json", f"{stem}_segments"


def write_link(view: View, growing: Callable[[str], Path]) -> Record:
    """Write the state, and the names of classes.

    Parameters
    ----------
    view : View
        ``wishes.neuroglancer`` is the address at which the working folder is served.
    growing : callable
        From the name of a file to where it grows.

    Raises
    ------
    InputError
        Where a volume is of a format that neuroglancer does not read, or does not lie in the working folder.
    """
    layers: list[dict[str, object]] = [
        {"type": "image", "name": view.grey.name, "source": _source(view.grey, view)}
    ]
    if view.painted is not None:
        names = link_names(view.stem)[1]
        write_text(growing(names) / "info", segment_names(view.names or {}))
        layers.append(_segmentation(view, view.painted, names))
    size = view.grey.voxel_size or (1.0, 1.0, 1.0)
    unit = (METRES, "m") if view.grey.voxel_size else (1.0, "")
    place = view.grey.origin or (0.0, 0.0, 0.0)
    state = {
        "dimensions": {a: [edge * unit[0], unit[1]] for a, edge in zip("xyz", size[::-1], strict=True)},
        "position": [
            at / edge + voxel + 0.5
            for at, edge, voxel in zip(place[::-1], size[::-1], view.position[::-1], strict=True)
        ],
        "layers": layers,
        "layout": "4panel",
    }
    name = link_names(view.stem)[0]
    write_json(growing(name), state)
    return {"neuroglancer": PAGE + _address(growing(name).name, view)}


def _segmentation(view: View, labels: Volume, names: str) -> dict[str, object]:
    """Return the layer of the labels."""
    known, wish = sorted(view.names or {}), Meshing(colours=view.colours)
    return {
        "type": "segmentation",
        "name": "labels",
        "source": [_source(labels, view), f"precomputed://{_address(names, view)}"],
        "selectedAlpha": PALE,
        "segments": [str(label) for label in known],
        "segmentColors": {str(label): css(wish.colour(label)) for label in known},
    }


def _source(volume: Volume, view: View) -> str:
    """Return where neuroglancer finds a volume."""
    text = volume.address
    kind = next((kind for suffix, kind in SERVED.items() if suffix in text.lower()), None)
    if kind is None:
        raise InputError(
            f"--neuroglancer: {text} is of a format that it does not read: give an OME-Zarr or precomputed "
            "volume ('vemseg segment -o NAME.ome.zarr' writes labels so)"
        )
    return f"{kind}://{text if is_url(text) else _served(Path(text), view)}"


def _served(path: Path, view: View) -> str:
    """Return the address of a file below the working folder."""
    try:
        inside = path.absolute().relative_to(Path.cwd())
    except ValueError:
        raise InputError(
            f"--neuroglancer serves the working folder, and {path} lies outside: go to a folder above it"
        ) from None
    assert view.wishes.neuroglancer is not None
    return f"{view.wishes.neuroglancer.rstrip('/')}/{quote(inside.as_posix())}"


def _address(name: str, view: View) -> str:
    """Return the address of a file among the pictures."""
    assert view.wishes.neuroglancer is not None
    return _served(view.out / name, view)
