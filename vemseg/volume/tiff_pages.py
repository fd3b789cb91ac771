"""Which pages of a TIFF form the one stack that is read, in which order, and whether any is missing.

tifffile's ``TiffFile.series`` answers the same question, but it trusts descriptions: planes that are not
there become zeros, and numbers in a damaged file decide how long it runs and how much memory it takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import tifffile

from vemseg.errors import InputError
from vemseg.volume.tiff_forms import Form, Page
from vemseg.volume.tiff_ome import ome_stack
from vemseg.volume.tiff_stack import Stack, check_alike, planes_missing


def only_stack(path: Path, file: tifffile.TiffFile, pages: Sequence[Page]) -> Stack:
    """Return the stack of a file that is meant to hold one.

    Parameters
    ----------
    path : Path
    file : tifffile.TiffFile
        Open; its first page tells which program described the file.
    pages : sequence of Page
        All pages of the file.

    Raises
    ------
    InputError
        Where there is no image, planes are missing or left over, or pages differ in size, type or meaning.
    """
    if not pages:
        raise InputError(f"{path} holds no image")
    for is_described, described in (
        (file.is_ome, _ome),
        (file.is_imagej, _imagej),
        (file.is_shaped, _shaped),
    ):
        stack = described(path, file, pages) if is_described else None
        if stack is not None:
            return stack
    stack = _plain(path, pages)
    if file.is_ome:
        elsewhere = "its OME description is in another file, which is not read"
        stack = replace(stack, remarks=(*stack.remarks, elsewhere))
    return stack


def shaped_description(file: tifffile.TiffFile) -> Mapping[str, object]:
    """Return what tifffile wrote as JSON about the array in a file, empty where it wrote nothing."""
    text = file.pages[0].shaped_description if file.is_shaped else None
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _plain(path: Path, pages: Sequence[Page]) -> Stack:
    whole, remarks = _planes(path, pages)
    return Stack("plain", "I", (len(whole),), whole, remarks=remarks)


def _planes(path: Path, pages: Sequence[Page]) -> tuple[Sequence[Page], tuple[str, ...]]:
    """Return the pages that are planes, without smaller versions of them and without a thumbnail."""
    largest = max(page.form.area for page in pages)
    whole = [page for page in pages if not (page.form.reduced and page.form.area < largest)]
    for odd, rest in ((whole[0], whole[1:]), (whole[-1], whole[:-1])):
        if len(rest) > 1 and all(_is_thumbnail(odd.form, page.form) for page in (rest[0], rest[-1])):
            check_alike(path, rest)
            return rest, (f"its page {odd.number}, {odd.form}, is taken for a thumbnail and left out",)
    check_alike(path, whole)
    left = len(pages) - len(whole)
    return whole, (f"it has {left} smaller versions of its pages, which are left out",) if left else ()


def _is_thumbnail(form: Form, of: Form) -> bool:
    """Tell whether a page has at most half the rows and half the columns of another one."""
    return 2 * form.length <= of.length and 2 * form.width <= of.width


def _ome(path: Path, file: tifffile.TiffFile, pages: Sequence[Page]) -> Stack | None:
    return ome_stack(path, file.ome_metadata, pages)


def _imagej(path: Path, file: tifffile.TiffFile, pages: Sequence[Page]) -> Stack | None:
    """Return the stack that ImageJ's description makes of the pages."""
    described: Mapping[str, object] = file.imagej_metadata or {}
    pages, remarks = _planes(path, pages)
    sizes = {axis: _count(described.get(name)) for axis, name in _IMAGEJ_AXES.items()}
    if sizes["C"] == pages[0].form.samples:
        sizes["C"] = 1
    order = str(described.get("order", "czt")).upper()
    axes = order[::-1] if sorted(order) == ["C", "T", "Z"] else "TZC"
    if math.prod(sizes.values()) == 1:
        images = _count(described.get("images"))
        axes, sizes = "I", {"I": images if images > 1 else len(pages)}
    pages = _with_following(path, pages, math.prod(sizes.values()))
    return Stack("imagej", axes, tuple(sizes[axis] for axis in axes), pages, remarks=remarks)


_IMAGEJ_AXES = {"T": "frames", "Z": "slices", "C": "channels"}


def _shaped(path: Path, file: tifffile.TiffFile, pages: Sequence[Page]) -> Stack | None:
    """Return the stack that tifffile's own description makes of the pages, the shape of an array."""
    described = shaped_description(file)
    shape, axes = described.get("shape"), described.get("axes")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
        return None
    pages, remarks = _planes(path, pages)
    form = pages[0].form
    claimed, rest = divmod(math.prod(shape), form.area * form.samples)
    outer = next((k for k in range(len(shape) + 1) if math.prod(shape[:k]) == claimed), None)
    if rest or outer is None:
        raise InputError(f"{path} is damaged: tifffile describes the shape {shape}, its pages are {form}")
    letters = axes.upper() if isinstance(axes, str) and len(axes) == len(shape) else ""
    inner = _inner(letters, form)
    if claimed == 1:  # each plane was written as an array of its own
        return Stack("shaped", "I", (len(pages),), pages, inner, remarks)
    pages = _with_following(path, pages, claimed)
    return Stack("shaped", letters[:outer] or "Q" * outer, tuple(shape[:outer]), pages, inner, remarks)


def _inner(letters: str, form: Form) -> str:
    """Return the letters of a page's rows and columns, from those of the whole array."""
    if form.samples > 1:
        letters = letters[:-1] if form.planar == 1 else letters[:-3] + letters[-2:]
    return letters[-2:] if len(letters) > 1 else "YX"


def _with_following(path: Path, pages: Sequence[Page], claimed: int) -> Sequence[Page]:
    """Return the pages of a stack of so many planes.

    A large uncompressed stack may be one page, behind whose data those of the other planes follow.
    """
    first = pages[0]
    if len(pages) == claimed:
        return pages
    if len(pages) > 1 or claimed < 1 or not first.in_one_piece:
        raise planes_missing(path, len(pages), claimed)
    each = int(first.form.needed.sum())
    held = (path.stat().st_size - int(first.offsets[0])) // each
    if held < claimed:
        raise InputError(f"{path} is truncated: it holds {held} of {claimed} planes; copy it again")
    return [first._replace(offsets=first.offsets + i * each) for i in range(claimed)]


def _count(value: object) -> int:
    """Return a number of planes that a description states, 1 where it states none."""
    return int(value) if isinstance(value, int | float) and 1 <= value < 2**63 else 1
