"""Where things go on a page: panels of one physical scale, scale bars, legends, and how a figure is saved.

Lengths on the page are inches; text sizes fit a figure printed at its own width (a journal's text width).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from vemseg.errors import UsageError
from vemseg.files import atomic_path

PAGE_WIDTH, PAGE_HEIGHT = 7.0, 9.0
TEXT = 8.0
"""Size of all text in figures, in points."""
LINE = 0.17
"""Height of a line of text in inches."""
GAP, WIDE_GAP = 0.06, 0.14
"""Gaps between panels, and between groups of panels, in inches."""
DPI = 300.0
"""Dots per inch of a picture where nobody says how many: what journals print."""
MOST_ENTRIES = 40
"""Most entries of a legend; one more line says how many were left out."""

_METADATA: dict[str, dict[str, str | None]] = {
    ".png": {"Software": "vemseg"},
    ".pdf": {"Creator": "vemseg", "CreationDate": None},
    ".svg": {"Creator": "vemseg", "Date": None},
}


@dataclass(frozen=True)
class Foot:
    """What stands below images.

    Attributes
    ----------
    legends : sequence of mappings of str to str
        Name -> colour.
    note : str
        A few words above them; lines that are too long are broken.
    """

    legends: Sequence[Mapping[str, str]] = ()
    note: str = ""

    def lines(self, width: float) -> list[str]:
        """Return the note as lines that fit into a width in inches."""
        return textwrap.wrap(self.note, max(30, int(width / (0.52 * TEXT / 72))))


NO_FOOT = Foot()


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """Return a white figure of that size in inches, drawn by Agg."""
    figure = Figure(figsize=(width, height), facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, dpi: float | None = None) -> None:
    """Write a figure as PNG, PDF or SVG, by its suffix; the file appears whole or not at all.

    Margins are cut to what is drawn. Fonts in a PDF are TrueType, since many journals refuse Type 3; an SVG
    has letters as shapes, so that it looks alike everywhere. The same figure gives the same bytes.

    Raises
    ------
    UsageError
        Where the suffix is another.
    ResourceError
        Where the file cannot be written.
    """
    metadata = _METADATA.get(path.suffix.lower())
    if metadata is None:
        raise UsageError(f"cannot draw '{path.name}': the name must end in {', '.join(_METADATA)}")
    with atomic_path(path) as growing, matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "vemseg"}):
        figure.savefig(
            growing,
            format=path.suffix[1:].lower(),
            dpi=dpi or DPI,
            metadata=metadata,
            bbox_inches="tight",
            pad_inches=0.05,
        )


def panel(figure: Figure, box: tuple[float, float, float, float], image: NDArray[np.uint8]) -> Axes:
    """Show an image in a box (left, top, width, height) in inches from the top left corner; no ticks.

    The box decides the aspect, so pixels need not be square. Grey (h, w) or RGB (h, w, 3).
    """
    width, height = figure.get_size_inches()
    left, top, w, h = box
    axes = figure.add_axes((left / width, 1 - (top + h) / height, w / width, h / height))
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, aspect="auto")
    axes.set_axis_off()
    return axes


def write(
    figure: Figure, left: float, top: float, text: str, *, ha: str, va: str, style: str = "normal"
) -> None:
    """Write text at a place in inches from the top left corner; alignment and style as in matplotlib."""
    width, height = figure.get_size_inches()
    place = left / width, 1 - top / height
    figure.text(*place, text, fontsize=TEXT, color="black", ha=ha, va=va, style=style)


def grid(
    images: Sequence[NDArray[np.uint8]],
    titles: Sequence[str],
    columns: int,
    pixel: tuple[float, float] | None = None,
    foot: Foot = NO_FOOT,
    group: int = 0,
    most_width: float = PAGE_WIDTH,
) -> tuple[Figure, list[Axes]]:
    """Place images of one shape in rows, each under its title, and legends and a note below.

    Parameters
    ----------
    images : sequence of uint8 arrays, (h, w) or (h, w, 3)
    titles : sequence of str
        One per image; "" for none. A row without any title takes no room for it.
    columns : int
    pixel : (float, float), optional
        Height and width of a pixel in any unit; by default it is square.
    foot : Foot
        What stands below the images.
    group : int
        Number of columns after which the gap is wider; 0 for none.
    most_width : float
        Widest panel in inches.
    """
    heads = [LINE if any(titles[i : i + columns]) else 0.0 for i in range(0, len(titles), columns)]
    shifts = [column * GAP + (column // group * WIDE_GAP if group else 0.0) for column in range(columns)]
    dy, dx = pixel or (1.0, 1.0)
    aspect = images[0].shape[0] * dy / (images[0].shape[1] * dx)
    said, legends = foot.lines(min(PAGE_WIDTH, columns * most_width)), foot.legends
    fixed = 2 * GAP + sum(heads) + (len(heads) - 1) * GAP + LINE * len(said)
    fixed += legends_height(legends, PAGE_WIDTH)
    width = min((PAGE_WIDTH - 2 * GAP - shifts[-1]) / columns, most_width)
    width = min(width, (PAGE_HEIGHT - fixed) / len(heads) / aspect)
    content = columns * width + shifts[-1]
    page, axes = content + 2 * GAP, []
    grown = legends_height(legends, page) - legends_height(legends, PAGE_WIDTH)
    figure = new_figure(page, fixed + grown + len(heads) * width * aspect)
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(i, columns)
        left = GAP + column * width + shifts[column]
        top = GAP + sum(heads[: row + 1]) + row * (width * aspect + GAP)
        write(figure, left + width / 2, top - 0.05, title, ha="center", va="baseline")
        axes.append(panel(figure, (left, top, width, width * aspect), image))
    below = figure.get_size_inches()[1] - legends_height(legends, page) - 0.05
    for i, line in enumerate(reversed(said)):
        write(figure, page / 2, below - i * LINE, line, ha="center", va="baseline")
    draw_legends(figure, legends)
    return figure, axes


def scale_bar_length(width: int, pixel: float | None) -> tuple[float, str]:
    """Choose a round length of 10 to 25 % of a width.

    Parameters
    ----------
    width : int
        Width of the image in pixels.
    pixel : float or None
        Width of a pixel in nm; None where it is unknown, then the bar counts pixels.

    Returns
    -------
    (float, str)
        Length in pixels and what to write beside it.

    Examples
    --------
    >>> scale_bar_length(341, 15.0)
    (66.66666666666667, '1 µm')
    >>> scale_bar_length(341, None)
    (50.0, '50 px')
    """
    most = width * (pixel or 1.0) / 4
    decade = 10.0 ** math.floor(math.log10(most))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= most * (1 + 1e-9))
    if pixel is None:
        return length, f"{length:g} px"
    return length / pixel, f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"


def draw_scale_bar(
    axes: Axes, shape: tuple[int, ...], pixel: float | None, step: int = 1, *, dark: bool = False
) -> None:
    """Draw a scale bar at the lower right of an image of that shape, white with a dark rim, or dark.

    Where the width of a pixel is unknown, the bar counts pixels of the volume, one at each ``step``.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)
    inches = axes.get_position().size * figure.get_size_inches()  # width, height
    down, right = shape[0] / inches[1], shape[1] / inches[0]  # pixels per inch
    scale = 1 if pixel is not None else step
    length, text = scale_bar_length(shape[1] * scale, pixel)
    length /= scale
    margin, thick = 0.07, 0.035
    end, bottom = shape[1] - 0.5 - margin * right, shape[0] - 0.5 - margin * down
    bar = Rectangle((end - length, bottom - thick * down), length, thick * down, gid="scale bar")
    bar.set(facecolor="black" if dark else "white", edgecolor="black", linewidth=0.4)
    axes.add_patch(bar)
    narrow = length / right < 0.6 * TEXT / 72 * len(text)
    axes.text(
        *(end if narrow else end - length / 2, bottom - (thick + 0.045) * down, text),
        fontsize=TEXT,
        color="black" if dark else "white",
        ha="right" if narrow else "center",
        va="baseline",
        path_effects=[] if dark else [withStroke(linewidth=1.4, foreground="black")],
    )


def legends_height(legends: Sequence[Mapping[str, str]], page: float) -> float:
    """Return the height that ``draw_legends`` needs at the foot of a page of that width, in inches."""
    lines = [math.ceil(min(len(e), MOST_ENTRIES + 1) / _legend_columns(e, page)) for e in legends if e]
    return sum(0.06 + LINE * n for n in lines)


def draw_legends(figure: Figure, legends: Sequence[Mapping[str, str]]) -> None:
    """Draw coloured boxes with names along the foot of a figure, one legend below the other."""
    page, height = figure.get_size_inches()
    for i, entries in enumerate(legends):
        if entries:
            bottom = 0.04 + legends_height(legends[i + 1 :], page)
            _draw_legend(figure, entries, bottom / height, _legend_columns(entries, page))


def _legend_columns(entries: Mapping[str, str], page: float) -> int:
    """Return how many entries stand side by side: all if they fit, else even columns of the widest entry."""
    widths = [0.4 + 0.6 * TEXT / 72 * len(name) for name in entries]
    room, n = max(page, 3.5), min(len(widths), MOST_ENTRIES + 1)
    if sum(widths) <= room and n <= MOST_ENTRIES:
        return n
    lines = math.ceil(n / max(1, int(room / max(widths))))
    return math.ceil(n / lines)


def _draw_legend(figure: Figure, entries: Mapping[str, str], bottom: float, columns: int) -> None:
    handles = [Patch(facecolor=c, edgecolor="black", linewidth=0.4, label=n) for n, c in entries.items()]
    if len(handles) > MOST_ENTRIES:
        more = Patch(facecolor="none", edgecolor="none", label=f"and {len(handles) - MOST_ENTRIES} more")
        handles = [*handles[:MOST_ENTRIES], more]
    figure.legend(
        handles=handles,
        ncols=columns,
        loc="lower center",
        bbox_to_anchor=(0.5, bottom),
        borderaxespad=0,
        borderpad=0,
        frameon=False,
        fontsize=TEXT,
        handlelength=1.2,
        handleheight=1.0,
        columnspacing=1.4,
        labelspacing=0.35,
    )
