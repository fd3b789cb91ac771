"""Plots of numbers: confusion matrices, training curves, Dice through the stack, measures of each K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vemseg.drawing.colours import css, palette, table
from vemseg.drawing.layout import TEXT, new_figure
from vemseg.errors import InputError

CELL = 0.5
"""Edge in inches of the cells of a confusion matrix, where there is room."""
WRITTEN = 0.17
"""Height in inches below which the cells of a matrix have no number, but a colour bar beside it."""

LOG_RATIO = 8.0
"""Losses that fall by more than this factor are drawn on a logarithmic axis."""
LIGHT = 170
"""Lines whose red, green and blue are brighter than this on average get a dark rim, to be seen on white."""


def confusion(
    counts: NDArray[np.generic],
    rows: Sequence[str],
    columns: Sequence[str],
    normalise: Literal["row", "column"] | None = None,
) -> Figure:
    """Draw a matrix of voxel counts, prediction down and reference across.

    Parameters
    ----------
    counts : array, (P, G)
        A contingency table, or the confusion matrix of ``Scores``, whose last row is unassigned.
    rows, columns : sequences of P and G str
        Names of clusters or predicted classes, and of reference classes.
    normalise : {"row", "column"}, optional
        Divide by row sums (what each predicted class is made of) or by column sums (where each class went).

    Raises
    ------
    InputError
        Where names and matrix do not fit.
    """
    if counts.shape != (len(rows), len(columns)):
        raise InputError(
            f"a matrix of shape {counts.shape} with {len(rows)} row and {len(columns)} column names"
        )
    values = counts.astype(np.float64)
    norm: Normalize = PowerNorm(0.5, vmin=0, vmax=max(1.0, float(values.max())))
    if normalise:
        sums = values.sum(1 if normalise == "row" else 0, keepdims=True)
        values, norm = values / np.maximum(sums, 1), Normalize(0, 1)
    figure, axes = _matrix_axes(rows, columns)
    image = axes.imshow(values, cmap="Blues", norm=norm, aspect="auto", interpolation="nearest")
    if _cell_height(rows) < WRITTEN:
        bar = figure.colorbar(
            image, ax=axes, label="share" if normalise else "voxels", fraction=0.05, pad=0.04
        )
        bar.ax.tick_params(labelsize=TEXT)
        bar.ax.yaxis.label.set_fontsize(TEXT)
        return figure
    for (p, g), value in np.ndenumerate(values):
        colour = "white" if float(norm(value)) > 0.55 else "black"
        text = f"{value:.2f}" if normalise else _short(int(value))
        axes.text(g, p, text, ha="center", va="center_baseline", fontsize=TEXT - 1, color=colour)
    return figure


def curve(
    steps: NDArray[np.generic],
    losses: NDArray[np.generic] | Mapping[str, NDArray[np.generic]],
    smoothing: float = 0.95,
    lr: NDArray[np.generic] | None = None,
    label: str = "loss",
) -> Figure:
    """Draw losses, or other numbers, over training steps, each as it was and smoothed; the learning rate.

    Where there is more than one line, the legend names all of them.

    Parameters
    ----------
    steps : array, (n,)
    losses : array, (n,), or mapping of str to such
        NaN leaves a gap.
    smoothing : float, 0 <= smoothing < 1
        Weight of the past in an exponential moving average that starts unbiased; 0 draws the losses alone.
    lr : array, (n,), optional
        Learning rate, drawn against an axis of its own on the right.
    label : str
        What the numbers are.
    """
    figure, axes = _plot_axes("training step", label)
    _log_scale_where_it_pays(axes, losses)
    named = losses if isinstance(losses, Mapping) else {label: losses}
    handles = []
    for (name, values), colour in zip(named.items(), _line_colours(len(named)), strict=True):
        smooth = moving_average(np.asarray(values, dtype=np.float64), smoothing)
        shown = f"{name}, smoothed" if smoothing else name
        handles += axes.plot(steps, smooth, color=colour, linewidth=1.2, label=shown, zorder=3)
        if smoothing:
            thin = axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.6, zorder=2)
            thin[0].set_label(f"{name}, each step")
            handles += thin
    if lr is not None:
        right = _right_axis(axes, "learning rate")
        handles += right.plot(steps, lr, color="0.45", linewidth=0.9, linestyle="--", label="learning rate")
        right.set_ylim(bottom=0)
    _legend_above(axes, handles if len(handles) > 1 else [])
    return figure


def slice_dice(dice: NDArray[np.float64], names: Mapping[int, str] | None = None) -> Figure:
    """Draw the Dice of each class through the stack, in the colours of the labels; class 0 is grey.

    Parameters
    ----------
    dice : float array, (Z, G)
        NaN where a slice does not hold a class: a gap. Classes that are NaN throughout are left out.
    names : mapping of int to str, optional
        Class id (column) -> name.
    """
    figure, axes = _plot_axes("slice (z)", "Dice")
    lut = table()
    marker = "." if len(dice) <= 60 else ""
    for g in np.flatnonzero(np.isfinite(dice).any(0)).tolist():
        (line,) = axes.plot(dice[:, g], linewidth=1.2, marker=marker, markersize=4)
        line.set(color=css(lut[g]) if g else "#737373", label=(names or {}).get(g, f"class {g}"))
        if lut[g].mean() > LIGHT:
            line.set_path_effects([withStroke(linewidth=1.9, foreground="0.4")])
    axes.set_ylim(-0.02, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_above(axes, axes.lines)
    return figure


def number_curve(
    ks: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    spreads: Mapping[str, Sequence[float]],
    chosen: int,
) -> Figure:
    """Draw measures between 0 and 1 over the number of classes, and mark the number that was chosen.

    Parameters
    ----------
    ks : sequence of N int
        The numbers of classes.
    lines : mapping of str to sequence of N float
        The measures by name.
    spreads : mapping of str to sequence of N float
        For some of the measures a standard deviation, drawn as a band.
    chosen : int
    """
    figure, axes = _plot_axes("number of classes K", "share, or agreement")
    axes.axvline(chosen, color="0.6", linewidth=0.9, linestyle="--", zorder=1)
    for (name, values), colour in zip(lines.items(), _line_colours(len(lines)), strict=True):
        axes.plot(ks, values, color=colour, linewidth=1.2, marker=".", label=name, zorder=3)
        if name in spreads:
            middle, spread = np.asarray(values), np.asarray(spreads[name])
            axes.fill_between(ks, middle - spread, middle + spread, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(-0.02, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_above(axes, axes.lines[1:])
    return figure


def _log_scale_where_it_pays(
    axes: Axes, losses: NDArray[np.generic] | Mapping[str, NDArray[np.generic]]
) -> None:
    """Take a logarithmic axis for positive losses that fall by more than ``LOG_RATIO``."""
    parts = losses.values() if isinstance(losses, Mapping) else [losses]
    values = np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > LOG_RATIO * values.min():
        axes.set_yscale("log")


def moving_average(values: NDArray[np.float64], smoothing: float) -> NDArray[np.float64]:
    """Return the exponential moving average of (n,) values, each past one weighing ``smoothing`` less.

    Divided by the sum of the weights so far, so the first value is kept; NaN is skipped and stays NaN.
    """
    result, total, weight = np.full_like(values, np.nan), 0.0, 0.0
    for i in np.flatnonzero(np.isfinite(values)):
        total, weight = smoothing * total + values[i], smoothing * weight + 1
        result[i] = total / weight
    return result


def _plot_axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = new_figure(5.2, 2.8, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, fontsize=TEXT)
    axes.set_ylabel(y, fontsize=TEXT)
    axes.tick_params(which="both", labelsize=TEXT)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    return figure, axes


def _right_axis(axes: Axes, name: str) -> Axes:
    """Return axes over the given ones, with a scale of their own on the right."""
    right = axes.twinx()
    right.set_ylabel(name, fontsize=TEXT)
    right.tick_params(labelsize=TEXT)
    right.spines["top"].set_visible(False)
    right.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    right.yaxis.get_offset_text().set_fontsize(TEXT)
    return right


def _legend_above(axes: Axes, lines: Sequence[Line2D]) -> None:
    """Put the legend above the plot, where it hides no line."""
    if lines:
        axes.legend(
            handles=lines, fontsize=TEXT, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0)
        )


def _cell_height(rows: Sequence[str]) -> float:
    return min(CELL, 7.5 / len(rows))


def _matrix_axes(rows: Sequence[str], columns: Sequence[str]) -> tuple[Figure, Axes]:
    """Return axes for a matrix whose rows and columns have names; names of many rows are thinned out."""
    cell = _cell_height(rows)
    figure = new_figure(CELL * len(columns), cell * len(rows))
    axes = figure.add_axes((0, 0, 1, 1))
    every = max(1, round(0.14 / cell))
    axes.set_yticks(range(0, len(rows), every), rows[::every], fontsize=TEXT)
    slanted = max(len(name) for name in columns) * 0.6 * TEXT / 72 > CELL
    axes.set_xticks(range(len(columns)), columns, fontsize=TEXT)
    if slanted:
        for name in axes.get_xticklabels():
            name.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set(linewidth=0.6)
    axes.set_xlabel("reference", fontsize=TEXT)
    axes.set_ylabel("prediction", fontsize=TEXT)
    return figure, axes


def _short(n: int) -> str:
    """Write a count with three digits: 12, 1.23k, 45.6M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)


def _line_colours(n: int) -> list[str]:
    """Return colours for lines on white: the palette without yellow."""
    dark = [c for c in palette(max(n + 1, 8)) if sum(c) < 500]
    return [css(dark[i % len(dark)]) for i in range(n)]
