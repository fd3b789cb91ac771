"""Pictures made of images: three planes, a walk through the stack, a comparison, reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vemseg.drawing.colours import RGB, css, entries
from vemseg.drawing.layout import (
    GAP,
    LINE,
    PAGE_HEIGHT,
    PAGE_WIDTH,
    Foot,
    draw_legends,
    draw_scale_bar,
    grid,
    legends_height,
    new_figure,
    panel,
    write,
)
from vemseg.drawing.pixels import ERROR_COLOURS, Style, error_map, grey, limits, overlay, same_shape
from vemseg.errors import InputError
from vemseg.geometry import ZYX, VoxelSize

Planes = tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]]
"""Slices across z, y and x of one volume: (y, x), (z, x), (z, y)."""

MASKED: RGB = (158, 188, 218)
"""Colour of masked pixels (NaN): a hue, since any grey could be an image's own."""

COLUMNS = 4
"""Panels in a row of a montage or a comparison."""

SCENERY = 5.0
"""The widest that a picture in space is drawn, in inches."""

DEPTH = 3.4
"""The widest that a slice of ``depths`` is drawn, in inches."""


@dataclass(frozen=True)
class Manner:
    """How labels are laid over grey values, and which voxels are seen.

    Attributes
    ----------
    style, alpha
        As in ``overlay``.
    steps : (int, int, int)
        Voxels of the volume from each pixel that is shown to the next, z y x. Sizes of voxels that are given
        are those of the pixels shown, so only where they are unknown this is needed.
    labelled : bool
        Whether grey values are stretched by the pixels that have a label alone.
    colours : mapping of int to (int, int, int)
        Colours of some labels that take the place of those of ``palette``.
    """

    style: Style = "fill"
    alpha: float = 0.5
    steps: ZYX = (1, 1, 1)
    labelled: bool = False
    colours: Mapping[int, RGB] = field(default_factory=dict)

    def overlay(self, shade: NDArray[np.uint8], labels: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Lay labels over a slice: (h, w, 3)."""
        return overlay(shade, labels, self.style, self.alpha, self.colours)

    def between(self, raw: NDArray[np.generic], labels: NDArray[np.generic] | None) -> tuple[float, float]:
        """Return the grey values of an image of any shape that are shown as black and white."""
        return limits(raw[labels != 0] if self.labelled and labels is not None else raw)


@dataclass(frozen=True)
class Row:
    """Pictures of some slices, side by side.

    Attributes
    ----------
    title : str
        What stands above each.
    images : uint8 (n, h, w, 3)
    note : str
        What is said of them below, in a few words.
    """

    title: str
    images: NDArray[np.uint8]
    note: str = ""


def three_planes(
    raw: Planes,
    labels: Planes,
    voxel_size: VoxelSize | None = None,
    names: Mapping[int, str] | None = None,
    *,
    position: ZYX | None = None,
    manner: Manner = Manner(),
) -> Figure:
    """Draw three orthogonal planes twice, raw and under their labels, all at one physical scale.

    Parameters
    ----------
    raw, labels : three arrays, (y, x), (z, x), (z, y)
    voxel_size : (float, float, float), optional
        Edges in nm, z y x. Without it voxels are taken for cubes and the scale bar counts pixels.
    names : mapping of int to str, optional
        Label id -> name; the legend lists the ids that are seen.
    position : (int, int, int), optional
        Where the planes cross, z y x: drawn as lines on the raw planes.
    manner : Manner

    Raises
    ------
    InputError
        Where the planes are not those of one volume.
    """
    for plane, ids in zip(raw, labels, strict=True):
        same_shape(raw=plane, labels=ids)
    (y, x), (z, _) = raw[0].shape, raw[1].shape
    if raw[1].shape != (z, x) or raw[2].shape != (z, y):
        raise InputError(f"planes {[p.shape for p in raw]} are not the (y, x), (z, x), (z, y) of one volume")
    counted = [
        plane[ids != 0] if manner.labelled else plane.ravel() for plane, ids in zip(raw, labels, strict=True)
    ]
    between = limits(np.concatenate(counted))
    shades = [grey(plane, between) for plane in raw]
    painted = [manner.overlay(g, ids) for g, ids in zip(shades, labels, strict=True)]

    dz, dy, dx = voxel_size or manner.steps
    legend = entries(_seen(*labels), names, manner.colours)
    page, extent = _fit((z * dz if z > 1 else 0.0, y * dy, x * dx), legends_height([legend], PAGE_WIDTH))
    figure = new_figure(*page)
    for i, (title, planes) in enumerate({"raw": shades, "labels": painted}.items()):
        axes = _orthogonal(figure, GAP + i * (page[0] - GAP) / 2, planes, extent, title)
        draw_scale_bar(axes[0], (y, x), dx if voxel_size else None, manner.steps[2])
        if i == 0 and position is not None:
            _crossing_lines(axes, position)
    draw_legends(figure, [legend])
    return figure


def montage(
    raw: NDArray[np.generic],
    labels: NDArray[np.generic] | None,
    positions: Sequence[int],
    pixel_size: tuple[float, float] | None = None,
    names: Mapping[int, str] | None = None,
    *,
    manner: Manner = Manner(),
) -> Figure:
    """Draw slices of a volume in a grid, each under its place in the stack.

    Parameters
    ----------
    raw : array, (n, h, w)
        The slices, shown with one stretch of grey values.
    labels : integer array, (n, h, w), or None
        Without labels the raw slices are drawn.
    positions : sequence of n int
        Number of each slice along z.
    pixel_size : (float, float), optional
        Height and width of a pixel in nm.
    names, manner
        As in ``three_planes``.
    """
    same_shape(raw=raw, **({} if labels is None else {"labels": labels}))
    shades = grey(raw)
    images: Sequence[NDArray[np.uint8]] = list(shades)
    legend: dict[str, str] = {}
    if labels is not None:
        images = [manner.overlay(g, ids) for g, ids in zip(shades, labels, strict=True)]
        legend = entries(_seen(labels), names, manner.colours)
    titles = [f"z = {p}" for p in positions]
    figure, axes = grid(
        images, titles, min(COLUMNS, len(images)), pixel_size or manner.steps[1:], Foot([legend])
    )
    draw_scale_bar(axes[-1], raw.shape[1:], pixel_size and pixel_size[1], manner.steps[2])
    return figure


def comparison(
    raw: NDArray[np.generic],
    labels: NDArray[np.generic],
    reference: NDArray[np.generic],
    names: Mapping[int, str] | None = None,
    pixel_size: tuple[float, float] | None = None,
    *,
    matching: str = "",
    manner: Manner = Manner(),
) -> Figure:
    """Draw a slice, its labels, the reference and where the two differ, side by side.

    Parameters
    ----------
    raw : array, (h, w)
    labels, reference : integer arrays, (h, w)
        Class ids, which must mean the same in both.
    names : mapping of int to str, optional
        Class id -> name.
    pixel_size : (float, float), optional
        Height and width of a pixel in nm.
    matching : str
        How the labels were matched to the classes of the reference, in a few words, written below.
    manner
        As in ``three_planes``.
    """
    shade = grey(raw)
    painted = [manner.overlay(shade, ids) for ids in (labels, reference)]
    errors = error_map(labels, reference)
    found = {tuple(c) for c in np.unique(errors.reshape(-1, 3), axis=0).tolist()}
    classes = entries(_seen(labels, reference), names)
    kinds = {name: css(colour) for name, colour in ERROR_COLOURS.items() if colour in found}
    titles = ["input", "prediction", "reference", "error"]
    foot, images = Foot([classes, kinds], matching), [shade, *painted, errors]
    figure, axes = grid(images, titles, COLUMNS, pixel_size or manner.steps[1:], foot)
    draw_scale_bar(axes[0], raw.shape, pixel_size and pixel_size[1], manner.steps[2])
    return figure


def depths(
    raw: NDArray[np.generic],
    labels: NDArray[np.generic] | None,
    positions: Sequence[int],
    pixel_size: tuple[float, float] | None = None,
    names: Mapping[int, str] | None = None,
    *,
    beside: Row | None = None,
    manner: Manner = Manner(),
) -> Figure:
    """Draw slices at some depths, one column each: raw, under their labels, and whatever else is given.

    Parameters
    ----------
    raw : array, (n, h, w)
        The slices, shown with one stretch of grey values.
    labels : integer array, (n, h, w), or None
        Without labels there is no row of them.
    positions : sequence of n int
        Number of each slice along z.
    pixel_size : (float, float), optional
        Height and width of a pixel in nm.
    names : mapping of int to str, optional
        Label id -> name; the legend lists the ids that are seen.
    beside : Row, optional
        One more row.
    manner
        As in ``three_planes``.
    """
    same_shape(raw=raw, **({} if labels is None else {"labels": labels}))
    shades = grey(raw, manner.between(raw, labels))
    rows: dict[str, Sequence[NDArray[np.uint8]]] = {"raw": list(shades)}
    legend: dict[str, str] = {}
    if labels is not None:
        rows["labels"] = [manner.overlay(g, ids) for g, ids in zip(shades, labels, strict=True)]
        legend = entries(_seen(labels), names, manner.colours)
    if beside is not None:
        rows[beside.title] = list(beside.images)
    titles = [f"{name}, z = {z}" for name in rows for z in positions]
    foot = Foot([legend], "" if beside is None else beside.note)
    images, pixel = [image for row in rows.values() for image in row], pixel_size or manner.steps[1:]
    figure, axes = grid(images, titles, len(positions), pixel, foot, most_width=DEPTH)
    draw_scale_bar(axes[0], raw.shape[1:], pixel_size and pixel_size[1], manner.steps[2])
    return figure


def scenery(picture: NDArray[np.uint8], pixel: float | None, legend: Mapping[str, RGB]) -> Figure:
    """Put a picture in space on a page, with a scale bar and a legend.

    Parameters
    ----------
    picture : uint8 array, (h, w, 3)
        On white, a parallel projection.
    pixel : float or None
        The edge of a pixel in nm; without it there is no scale bar.
    legend : mapping of str to (int, int, int)
        Names and their colours.
    """
    shown = {name: css(colour) for name, colour in legend.items()}
    figure, axes = grid([picture], [""], 1, foot=Foot([shown]), most_width=SCENERY)
    if pixel is not None:
        draw_scale_bar(axes[0], picture.shape, pixel, dark=True)
    return figure


def reconstructions(
    images: NDArray[np.generic], masked: NDArray[np.generic], predictions: NDArray[np.generic]
) -> Figure:
    """Draw fields of view as a masked autoencoder gets and returns them: input, masked, reconstruction.

    Triplets stand below each other up to 3, in two columns up to 8, and in three beyond that.

    Parameters
    ----------
    images, masked, predictions : float arrays, (n, h, w), 0..1
        Values outside are clipped. NaN marks what is masked out.
    """
    same_shape(images=images, masked=masked, predictions=predictions)
    n = len(images)
    columns = 1 if n <= 3 else 2 if n <= 8 else 3
    panels = [_with_gaps(a[i]) for i in range(n) for a in (images, masked, predictions)]
    titles = ["input", "masked", "reconstruction"] * min(n, columns) + [""] * 3 * max(0, n - columns)
    figure, _ = grid(panels, titles, 3 * min(n, columns), group=3, most_width=1.4)
    return figure


def _seen(*labels: NDArray[np.generic]) -> list[int]:
    """Return the ids of several label images, in order."""
    return sorted({int(i) for ids in labels for i in np.unique(ids)})


def _with_gaps(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return an image of 0..1 as RGB, with NaN in the colour of masked pixels."""
    rgb = np.repeat(grey(image, (0.0, 1.0))[..., None], 3, axis=-1)
    rgb[np.isnan(image)] = MASKED
    return rgb


def _fit(
    extent: tuple[float, float, float], foot: float
) -> tuple[tuple[float, float], tuple[float, float, float]]:
    """Return page and extent in inches for two groups of planes of a volume of that physical extent."""
    z, y, x = extent
    wide, high = 2 * (LINE + 2 * GAP) + GAP, 2 * LINE + 2 * GAP + foot
    scale = min((PAGE_WIDTH - wide) / 2 / (x + z), (PAGE_HEIGHT - high) / (y + z))
    return (wide + 2 * (x + z) * scale, high + (y + z) * scale), (z * scale, y * scale, x * scale)


def _orthogonal(
    figure: Figure, left: float, planes: Sequence[NDArray[np.uint8]], extent: Sequence[float], title: str
) -> list[Axes]:
    """Place the planes across z, y and x: the second below the first, the third, turned, to its right.

    A volume of one slice (z extent 0) has the first alone.
    """
    z, y, x = extent
    left, top = left + LINE, LINE + GAP
    below, right = top + y + GAP, left + x + GAP
    letter = {"ha": "center", "va": "center", "style": "italic"}
    write(figure, left + x / 2, top - 0.05, title, ha="center", va="baseline")
    write(figure, left - 0.08, top + y / 2, "y", **letter)
    write(figure, left + x / 2, below + z + (0.08 if z else 0.02), "x", **letter)
    axes = [panel(figure, (left, top, x, y), planes[0])]
    if z:
        write(figure, left - 0.08, below + z / 2, "z", **letter)
        write(figure, right + z / 2, top + y + 0.08, "z", **letter)
        axes.append(panel(figure, (left, below, x, z), planes[1]))
        axes.append(panel(figure, (right, top, z, y), planes[2].swapaxes(0, 1)))
    return axes


def _crossing_lines(axes: Sequence[Axes], position: ZYX) -> None:
    """Draw where the other two planes cut each plane."""
    z, y, x = position
    for plane, (row, column) in zip(axes, ((y, x), (z, x), (y, z)), strict=False):
        for line in (plane.axhline(row), plane.axvline(column)):
            line.set(color="white", linewidth=0.5, linestyle=(0, (4, 3)), alpha=0.8)
