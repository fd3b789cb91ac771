"""``render``: pictures of a volume, its labels and a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.drawing import comparison, montage, save, three_planes
from vemseg.drawing.pixels import Style
from vemseg.errors import InputError, OutputExistsError, UsageError
from vemseg.geometry import ZYX, Box
from vemseg.metrics import merge_greedy
from vemseg.pipeline.common import Report, open_input
from vemseg.pipeline.evaluate import blank_zero, count
from vemseg.pipeline.outputs import Planes, planes
from vemseg.run import split_name
from vemseg.run.files import writing
from vemseg.volume import Volume, open_volume

DPI = 200


def render(
    volume: str,
    out: Path,
    *,
    labels: str | None = None,
    reference: str | None = None,
    names: dict[int, str] | None = None,
    reference_names: dict[int, str] | None = None,
    voxel_size: str | None = None,
    crop: str | None = None,
    at: str | None = None,
    style: Style = "fill",
    alpha: float = 0.5,
    slices: int = 8,
    overwrite: bool = False,
    report: Report,
) -> list[Path]:
    """Draw three planes, a montage through the stack, and a comparison where there is a reference.

    For the comparison, labels are merged into the reference's classes greedily: the merge looks at the
    reference, and the picture says so.

    Parameters
    ----------
    volume : str
        The grey volume.
    out : Path
        Directory of the pictures, which are named after the volume.
    labels, reference : str, optional
        Label volumes of the same shape.
    names, reference_names : dict of int to str, optional
        Names of labels, and of the reference's classes.
    voxel_size, crop : str, optional
        As in ``segment``; the crop holds for labels and reference too where they have the whole shape.
    at : str, optional
        ``z,y,x`` where the planes cross; the middle by default.
    style : {"fill", "contour"}
        How labels are drawn.
    alpha : float
        Opacity of a fill, 0..1.
    slices : int
        Slices of the montage and the comparison.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    UsageError
        Where ``alpha``, ``slices`` or ``at`` is out of range.
    OutputExistsError
        Where ``out`` is a file, or a picture exists and ``overwrite`` is not set.
    """
    _check(out, alpha, slices)
    grey = open_input(volume, voxel_size, crop)
    painted = _like(labels, grey, crop)
    truth = _like(reference, grey, crop)
    stem, _ = split_name(Path(volume))
    expected = {f"{stem}_planes.png", f"{stem}_montage.png"}
    if truth is not None and painted is not None:
        expected.add(f"{stem}_comparison.png")
    for name in sorted(expected):
        if (out / name).exists() and not overwrite:
            raise OutputExistsError(f"{out / name} exists: choose another directory or overwrite it (-f)")
    position = _position(at, grey.shape)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    shown = painted or truth
    raw = planes(grey, position)
    seen = _blank(raw) if shown is None else planes(shown, position)
    figures = {
        f"{stem}_planes.png": three_planes(
            raw, seen, grey.voxel_size, names, position=position, style=style, alpha=alpha
        )
    }
    at_z = np.unique(np.linspace(0, grey.shape[0] - 1, slices + 2).round().astype(int)[1:-1]).tolist()
    pixel = None if grey.voxel_size is None else (grey.voxel_size[1], grey.voxel_size[2])
    report("drawing", 0.3)
    figures[f"{stem}_montage.png"] = montage(
        _slices(grey, at_z),
        None if shown is None else _slices(shown, at_z),
        at_z,
        pixel,
        names,
        style=style,
        alpha=alpha,
    )
    if painted is not None and truth is not None:
        cut, found, wished = (_slices(part, [position[0]])[0] for part in (grey, painted, truth))
        figures[f"{stem}_comparison.png"] = comparison(
            cut, _merged(painted, truth, found), wished, reference_names, pixel, style=style, alpha=alpha
        )
    saved = [_saved(figure, out / name) for name, figure in figures.items()]
    report("drawing", 1.0)
    return saved


def _saved(figure: Any, path: Path) -> Path:
    with writing(path):
        save(figure, path, dpi=DPI)
    return path


def _check(out: Path, alpha: float, slices: int) -> None:
    """Refuse what can be seen to be wrong before anything is opened."""
    if not 0 <= alpha <= 1:
        raise UsageError(f"--alpha {alpha:g} is no opacity: give a number from 0 to 1")
    if slices < 1:
        raise UsageError(f"--slices {slices}: a montage has at least 1 slice")
    if out.is_file():
        raise OutputExistsError(f"{out} is a file: give a directory for the pictures with -o")


def _merged(labels: Volume, reference: Volume, part: NDArray[np.generic]) -> NDArray[np.int64]:
    """Give the labels of a slice the class that greedy merging over the whole volume finds for them."""
    tables, clusters, classes = count(labels, reference, None, lambda stage, fraction, detail="": None)
    greedy = merge_greedy(blank_zero(tables.sum(axis=0), clusters)).mapping
    table = {label: classes[c] for i, label in enumerate(clusters) if (c := greedy[i]) is not None}
    ids, inverse = np.unique(part, return_inverse=True)
    return np.array([table.get(int(label), 0) for label in ids])[inverse].reshape(part.shape)


def _like(path: str | None, grey: Volume, crop: str | None) -> Volume | None:
    """Open labels that lie on the grid of a volume, cropped like it where they are as large as its file."""
    if path is None:
        return None
    labels = open_volume(path)
    if crop is not None and labels.shape != grey.shape:
        labels = open_volume(path, crop=crop)
    if labels.shape != grey.shape:
        raise InputError(f"{path} has shape {labels.shape}, but the volume has {grey.shape} (z, y, x)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: labels must be integers, not {labels.dtype}")
    return labels


def _position(at: str | None, shape: ZYX) -> ZYX:
    if at is None:
        return shape[0] // 2, shape[1] // 2, shape[2] // 2
    try:
        z, y, x = (int(part) for part in at.split(","))
    except ValueError:
        raise UsageError(f"--at '{at}' is no position: write z,y,x in voxels") from None
    if not all(0 <= p < n for p, n in zip((z, y, x), shape, strict=True)):
        raise UsageError(f"--at {at} lies outside the volume of shape {shape} (z, y, x)")
    return z, y, x


def _blank(like: Planes) -> Planes:
    z, y, x = (np.zeros(plane.shape, np.uint8) for plane in like)
    return z, y, x


def _slices(volume: Volume, at: list[int]) -> NDArray[np.generic]:
    _, height, width = volume.shape
    return np.concatenate([volume.read(Box((z, 0, 0), (z + 1, height, width))) for z in at])
