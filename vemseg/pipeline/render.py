"""``render``: pictures of a volume, its labels and a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg.drawing import comparison, montage, save, three_planes
from vemseg.drawing.pixels import Style
from vemseg.errors import InputError, OutputExistsError, UsageError
from vemseg.files import writing
from vemseg.geometry import ZYX, Box
from vemseg.metrics import merge_greedy
from vemseg.pipeline.common import Report, log, open_input
from vemseg.pipeline.evaluate import blank_zero, count
from vemseg.pipeline.outputs import Planes, planes
from vemseg.pipeline.resume import difference
from vemseg.run import fingerprint, provenance, read_json, split_name, write_json
from vemseg.volume import Cropped, Volume, open_volume

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
        The pictures; ``<stem>_pictures.json`` beside them says how they were made.

    Raises
    ------
    UsageError
        Where ``alpha``, ``slices`` or ``at`` is out of range.
    OutputExistsError
        Where ``out`` is a file, or a picture exists, drawn otherwise, and ``overwrite`` is not set. The
        same pictures are left as they are.
    """
    _check(out, alpha, slices)
    grey = open_input(volume, voxel_size, crop)
    painted = _like(labels, grey, crop)
    truth = _like(reference, grey, crop)
    position = _position(at, grey.shape)
    stem, _ = split_name(Path(volume))
    kinds = ["planes", "montage", *(["comparison"] if painted is not None and truth is not None else [])]
    pictures = [out / f"{stem}_{kind}.png" for kind in kinds]
    note = out / f"{stem}_pictures.json"
    look: dict[str, Any] = {"at": list(position), "style": style, "alpha": alpha, "slices": slices}
    state = _state(look, {"volume": grey, "labels": painted, "reference": truth}, names, reference_names)
    if not overwrite and _done(pictures, note, state):
        log.info("%s: the same pictures are there already", out)
        return pictures
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    style_of: dict[str, Any] = {"style": style, "alpha": alpha}
    shown = painted or truth
    raw = planes(grey, position)
    seen = _blank(raw) if shown is None else planes(shown, position)
    figures = [three_planes(raw, seen, grey.voxel_size, names, position=position, **style_of)]
    at_z = np.unique(np.linspace(0, grey.shape[0] - 1, slices + 2).round().astype(int)[1:-1]).tolist()
    pixel = None if grey.voxel_size is None else (grey.voxel_size[1], grey.voxel_size[2])
    report("drawing", 0.3)
    cuts = None if shown is None else _slices(shown, at_z)
    figures.append(montage(_slices(grey, at_z), cuts, at_z, pixel, names, **style_of))
    if painted is not None and truth is not None:
        cut, found, wished = (_slices(part, [position[0]])[0] for part in (grey, painted, truth))
        merged = _merged(painted, truth, found)
        figures.append(comparison(cut, merged, wished, reference_names, pixel, **style_of))
    note.unlink(missing_ok=True)  # until all pictures are those it tells of
    for figure, path in zip(figures, pictures, strict=True):
        save(figure, path, dpi=DPI)
    inputs = [part.path for part in (grey, painted, truth) if part is not None and part.path is not None]
    write_json(note, provenance("pictures", inputs=map(fingerprint, inputs), extra={"state": state}))
    report("drawing", 1.0)
    return pictures


def _state(
    look: dict[str, Any],
    volumes: Mapping[str, Volume | None],
    names: dict[int, str] | None,
    reference_names: dict[int, str] | None,
) -> dict[str, Any]:
    """Return what pictures depend on (see ``resume``)."""
    facts = {
        kind: None
        if volume is None
        else {
            "file": fingerprint(volume.path)["content"] if volume.path else None,
            "crop": str(volume.crop) if isinstance(volume, Cropped) else None,
            "voxel_size": None if volume.voxel_size is None else list(volume.voxel_size),
        }
        for kind, volume in volumes.items()
    }
    legends = {"names": names, "reference_names": reference_names}
    return {
        "settings": look,
        **facts,
        **{key: {str(k): v for k, v in (legend or {}).items()} for key, legend in legends.items()},
    }


def _done(pictures: Sequence[Path], note: Path, state: dict[str, Any]) -> bool:
    """Tell whether these very pictures are there; refuse to replace others."""
    there = [path for path in pictures if path.exists()]
    if not there:
        return False
    made = read_json(note).get("state") if note.exists() else None
    if made == state:
        return there == pictures
    raise OutputExistsError(
        f"{there[0]} exists and {difference(made, state)}: choose another directory or overwrite it (-f)"
    )


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
