"""What an OME description says of the pages of a TIFF: the plane and the image that each of them holds.

The description lists images; each has planes counted along z, channels and times in an order of its own, and
elements ``TiffData`` that say which pages they are (OME Data Model, 2016-06, "OME-TIFF specification").
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

from vemseg.errors import InputError
from vemseg.volume.tiff_forms import Page
from vemseg.volume.tiff_stack import Stack, check_alike, planes_missing


def ome_root(xml: str | None) -> ET.Element | None:
    """Return the root of OME-XML, None where the text is no XML or defines entities, as no OME-XML does."""
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", xml or "")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        return ET.fromstring(text)
    except ET.ParseError:
        return None


def elements(root: ET.Element, name: str) -> Iterator[ET.Element]:
    """Yield the elements of that name, whatever namespace they are in."""
    return (element for element in root.iter() if element.tag.rpartition("}")[2] == name)


def ome_stack(path: Path, xml: str | None, pages: Sequence[Page]) -> Stack | None:
    """Return the first image of an OME-TIFF; None where another file describes it.

    Parameters
    ----------
    path : Path
    xml : str or None
        The description.
    pages : sequence of Page
        All pages of the file.

    Raises
    ------
    InputError
        Where the description is damaged, planes are missing or left over, or lie in other files.
    """
    root = ome_root(xml)
    if root is None:
        raise InputError(f"{path} is damaged: its OME description is not XML; write it anew")
    if next(elements(root, "BinaryOnly"), None) is not None:
        return None
    images = list(elements(root, "Pixels"))
    if not images:
        raise InputError(f"{path} is damaged: its OME description names no image; write it anew")
    if len({uuid.text for uuid in elements(root, "UUID")}) > 1:
        raise InputError(f"{path} is one part of an OME image in several files: join them into one file")
    known = {page.number - 1: page for page in pages}
    axes, lengths = _axes(path, images[0], pages[0].form.depth)
    numbers = _numbers(path, images[0], axes, lengths, sorted(known))
    chosen = [known[i] for i in numbers if i in known]
    if len(chosen) < math.prod(lengths):
        raise _missing(path, [i in known for i in numbers], math.prod(lengths))
    check_alike(path, chosen)
    _check_size(path, images[0], chosen[0])
    _check_rest(path, images, chosen, pages)
    several = f"it holds {len(images)} OME images; the first one is read"
    return Stack("ome", axes, lengths, chosen, remarks=(several,) if len(images) > 1 else ())


def _axes(path: Path, pixels: ET.Element, depth: int) -> tuple[str, tuple[int, ...]]:
    """Return the letters of the axes that pages are counted along, slowest first, and their lengths."""
    order = pixels.get("DimensionOrder", "XYZCT")
    sizes = {axis: _integer(path, pixels, f"Size{axis}", 1) for axis in "ZCT"}
    if sorted(order) != sorted("XYZCT") or order[:2] != "XY" or min(sizes.values()) < 1:
        raise InputError(f"{path} is damaged: its OME description has the order {order} and {sizes}")
    channel = next(elements(pixels, "Channel"), None)
    samples = 1 if channel is None else max(1, _integer(path, channel, "SamplesPerPixel", 1))
    sizes["C"] = max(1, sizes["C"] // samples)
    sizes["Z"] = max(1, sizes["Z"] // depth)
    axes = order[:1:-1]
    return axes, tuple(sizes[axis] for axis in axes)


def _numbers(
    path: Path, pixels: ET.Element, axes: str, lengths: Sequence[int], pages: Sequence[int]
) -> list[int]:
    """Return which page, counted from 0, each plane of an image is; -1 where the description names none.

    Where planes are more than pages, as many as there are pages are looked at: something is missing anyway.
    """
    wanted = math.prod(lengths)
    listed = list(elements(pixels, "TiffData"))
    if not listed:
        return list(pages[:wanted])
    numbers = [-1] * min(wanted, len(pages))
    steps = 0
    for data in listed:
        first = 0
        for axis, n in zip(axes, lengths, strict=True):
            first = first * n + _integer(path, data, f"First{axis}", 0)
        ifd = _integer(path, data, "IFD", 0)
        default = 1 if "IFD" in data.attrib else wanted
        many = _integer(path, data, "PlaneCount", _integer(path, data, "NumPlanes", default))
        for i in range(max(0, min(many, len(numbers) - first))):
            numbers[first + i] = ifd + i
            steps += 1
        if steps > 2 * len(numbers) + len(listed):
            raise InputError(f"{path} is damaged: its OME description lists planes again and again")
    return numbers


def _integer(path: Path, element: ET.Element, name: str, default: int) -> int:
    """Return a whole number that is not negative."""
    text = element.get(name, str(default))
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise InputError(f"{path} is damaged: its OME description has {name}={text[:40]!r}")
    return value


def _missing(path: Path, there: Sequence[bool], wanted: int) -> InputError:
    held = sum(there)
    if len(there) < wanted or not held:
        return planes_missing(path, held, wanted)
    return InputError(
        f"{path} has {held} of {wanted} planes: plane {there.index(False)} is missing (OME counts from 0); "
        "copy it again, or write it anew"
    )


def _check_size(path: Path, pixels: ET.Element, page: Page) -> None:
    claimed = _integer(path, pixels, "SizeY", 0), _integer(path, pixels, "SizeX", 0)
    if claimed != (page.form.length, page.form.width):
        raise InputError(
            f"{path} is damaged: its OME description speaks of planes of {claimed[0]} x {claimed[1]} pixels, "
            f"page {page.number} has {page.form}"
        )


def _check_rest(
    path: Path, images: Sequence[ET.Element], chosen: Sequence[Page], pages: Sequence[Page]
) -> None:
    """Refuse a file that holds further planes like those of the image, which no image of it names."""
    named = {page.number for page in chosen}
    everything = [page.number - 1 for page in pages]
    for pixels in images[1:]:
        axes, lengths = _axes(path, pixels, chosen[0].form.depth)
        named |= {i + 1 for i in _numbers(path, pixels, axes, lengths, everything)}
    left = [page for page in pages if page.number not in named and page.form.voxels == chosen[0].form.voxels]
    if left:
        raise planes_missing(path, len(chosen) + len(left), len(chosen))
