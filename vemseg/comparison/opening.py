"""Labels, a reference, a mask or a grey volume that are looked at together: opened, and brought together.

What a user says comes first (``--crop``), then what the files say of place and voxel size, and where they say
nothing, their shapes and the crop that labels remember.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from vemseg.comparison.placing import SAME_EDGE, together
from vemseg.errors import InputError, UsageError
from vemseg.geometry import VoxelSize, parse_box
from vemseg.volume import (
    Background,
    Choice,
    Cropped,
    Volume,
    constant_background,
    crop_of,
    marked_specimen,
    open_grey,
    open_labels,
    open_volume,
)

_log = logging.getLogger("vemseg")


def open_mask(path: str, *, offline: bool = False) -> Volume:
    """Open a mask, whose voxels count where they are above 0: of integers, bool or floating point."""
    return open_volume(path, offline=offline)


def open_on_grid_of(volume: Volume, path: str, *, offline: bool = False) -> Volume:
    """Open a mask, or another volume, and bring it to the voxels of a volume by its place and voxel size.

    Raises
    ------
    InputError
        Where it cannot be read, or does not cover the volume.
    """
    volumes = [volume, open_mask(path, offline=offline)]
    part, mask = placed(volumes, crop=None, recorded=crop_of(volume.address), finest_of=1)
    if part.shape != volume.shape:
        raise InputError(f"{path} covers only {part.shape} of the {volume.shape} voxels of {volume.address}")
    return mask


def open_subject(
    path: str | Path,
    voxel_size: str | None = None,
    crop: str | None = None,
    choice: Choice = Choice(),
    background: Background = Background(),
    *,
    offline: bool = False,
) -> Volume:
    """Open a grey volume and find out which of its voxels show the specimen.

    Parameters
    ----------
    path, voxel_size, crop, choice, offline
        As in ``open_grey``.
    background : Background
        A mask, or whether a constant background is looked for. Where one is found, this is said.

    Raises
    ------
    InputError, UsageError
        As ``open_grey``; where the mask has other voxels than the volume, or marks none.
    """
    volume = open_grey(path, voxel_size, crop, choice, offline=offline)
    if background.mask is not None:
        mask = of_same_voxels(open_mask(background.mask, offline=offline), volume, crop)
        volume.specimen = marked_specimen(mask)
    elif background.find:
        volume.specimen = constant_background(volume)
        if volume.specimen is not None:
            _log.info(
                "%s: background of the value %g is left out, label 0: about %.3g %% of the voxels "
                "(--background none counts it)",
                volume.name, volume.specimen.facts["value"], 100 * (1 - volume.specimen.share),
            )  # fmt: skip
    return volume


def of_same_voxels(labels: Volume, volume: Volume, crop: str | None) -> Volume:
    """Return labels, or a mask, that have the voxels of a volume already, but for its crop.

    Parameters
    ----------
    labels, volume : Volume
    crop : str or None
        How the volume was cropped, as a user writes it. Labels of the whole volume are cropped too.

    Raises
    ------
    InputError
        Where shape, voxel size or place differ.
    """
    if crop is not None and labels.shape != volume.shape:
        labels = Cropped(labels, parse_box(crop, labels.shape, labels.address))
    way_out = "give labels and mask of the same voxels as the volume"
    if labels.shape != volume.shape:
        raise InputError(
            f"{labels.address} has shape {labels.shape}, but {volume.address} has {volume.shape} (z, y, x): "
            f"{way_out}"
        )
    ours, theirs = volume.voxel_size, labels.voxel_size
    if ours and theirs and any(abs(a / b - 1) > SAME_EDGE for a, b in zip(ours, theirs, strict=True)):
        raise InputError(
            f"{labels.address} has voxels of {theirs} nm, but {volume.address} of {ours} nm (z, y, x): "
            f"{way_out}"
        )
    if _elsewhere(labels, volume):
        raise InputError(
            f"{labels.address} begins at {labels.origin} nm, but {volume.address} at {volume.origin} nm "
            f"(z, y, x): {way_out}"
        )
    return labels


def _elsewhere(labels: Volume, volume: Volume) -> bool:
    """Tell whether both say where they lie, and these are places more than half a voxel apart."""
    if labels.origin is None or volume.origin is None or volume.voxel_size is None:
        return False
    along = zip(labels.origin, volume.origin, volume.voxel_size, strict=True)
    return any(abs(a - b) > edge / 2 for a, b, edge in along)


def open_compared(
    prediction: str,
    reference: str,
    mask: str | None = None,
    *,
    crop: str | None = None,
    by_place: bool = True,
    offline: bool = False,
) -> list[Volume]:
    """Open labels, the reference that they are compared with, and a mask if any, on the same voxels.

    Parameters
    ----------
    prediction, reference, mask : str
        Volumes, as users name them.
    crop, by_place
        As in ``placed``.
    offline : bool
        Whether addresses on the network are refused.

    Returns
    -------
    list of Volume
        Of one shape: two, or three with a mask.

    Raises
    ------
    InputError
        Where one cannot be read, holds no labels, or they have nothing in common.
    UsageError
        Where the crop fits none of them.
    """
    volumes = [open_labels(path, offline=offline) for path in (prediction, reference)]
    volumes += [open_mask(mask, offline=offline)] if mask is not None else []
    recorded, all_of_it = crop_of(prediction), "; --ignore-place compares all"
    return placed(volumes, crop=crop, recorded=recorded, finest_of=2, by_place=by_place, way_out=all_of_it)


def placed(
    volumes: Sequence[Volume],
    *,
    crop: str | None,
    recorded: str | None,
    finest_of: int,
    by_place: bool = True,
    way_out: str = "",
) -> list[Volume]:
    """Return the part that volumes have in common, on the same voxels.

    Parameters
    ----------
    volumes : sequence of Volume
        The first is the one that the others are compared with.
    crop : str or None
        The part of the larger ones that the smaller ones show, as a user writes it; it overrules places.
    recorded : str or None
        The crop that labels among them say they were made from.
    finest_of : int
        As in ``together``.
    by_place : bool
        False compares voxel by voxel, whatever files say of places and voxel sizes.
    way_out : str
        What the message on a part of the first volume adds where shapes are equal: how to take all of it.

    Raises
    ------
    InputError
        Where they have nothing in common.
    UsageError
        Where ``crop`` cannot be parsed, or fits none of them.
    """
    volumes = list(volumes)
    if crop is not None:
        found = _cropped(volumes, crop)
        if found is None:
            raise UsageError(f"--crop {crop} leaves volumes of different shapes: {_shapes(volumes)}")
    elif by_place and (corner := _at_the_corner(volumes, recorded)):
        found = corner
    elif by_place and all(volume.voxel_size is not None for volume in volumes):
        found = together(_all_placed(volumes, recorded), finest_of)
        _say_what_is_left(volumes, found, way_out if _alike(volumes) else "")
    else:
        found = volumes if _alike(volumes) else _cropped(volumes, recorded) if recorded else None
        if found is None:
            raise InputError(f"{_shapes(volumes)}: --crop z0:z1,y0:y1,x0:x1 names the part of the larger one")
    if by_place:
        _say_sizes(volumes)
    return found


def _at_the_corner(volumes: Sequence[Volume], recorded: str | None) -> list[Volume] | None:
    """Crop as labels were, where no volume says where it lies: labels of the first corner have no origin."""
    if recorded is None or _alike(volumes) or any(volume.origin is not None for volume in volumes):
        return None
    return _cropped(volumes, recorded) if all(_same_size(volumes[0], each) for each in volumes) else None


def _alike(volumes: Sequence[Volume]) -> bool:
    return len({volume.shape for volume in volumes}) == 1


def _cropped(volumes: Sequence[Volume], crop: str) -> list[Volume] | None:
    """Crop each volume that has another shape than the crop; None where one does not hold the crop."""
    largest = max(volumes, key=lambda volume: volume.box.size)
    box = parse_box(crop, largest.shape, largest.address)
    found = []
    for volume in volumes:
        if volume.shape != box.shape and not volume.box.contains(box):
            return None
        found.append(volume if volume.shape == box.shape else Cropped(volume, box))
    return found


def _all_placed(volumes: Sequence[Volume], recorded: str | None) -> list[Volume]:
    """Give each volume of unknown place the place of a volume that shows the same part of the subject.

    Two volumes show the same part if they are equally large in space, or become so once the first is cropped
    as the labels were.

    Raises
    ------
    InputError
        Where nothing says where a volume lies.
    """
    anchor = next((volume for volume in volumes if volume.origin is not None), volumes[0])
    found = []
    for volume in volumes:
        view: Volume | None = volume
        if volume.origin is None and volume is not anchor:
            view = _as_anchor(volume, anchor, recorded)
        if view is None:
            raise InputError(
                f"{_shapes(volumes)}; nothing says where {volume.name} lies: --crop z0:z1,y0:y1,x0:x1 "
                "names the part of the larger one"
            )
        found.append(view)
    return found


def _as_anchor(volume: Volume, anchor: Volume, recorded: str | None) -> Volume | None:
    """Return a volume with its corner at that of another, None where they do not show the same."""
    view = Cropped(volume, volume.box)
    if not _same_extent(view, anchor) and recorded and _fits(recorded, volume):
        view = Cropped(volume, parse_box(recorded, volume.shape))
    if not _same_extent(view, anchor):
        return None
    edges = zip(volume.voxel_size or (), anchor.voxel_size or (), strict=True)
    at = anchor.origin or (0.0, 0.0, 0.0)
    z, y, x = (place + (own - edge) / 2 for place, (own, edge) in zip(at, edges, strict=True))
    view.origin = (z, y, x)
    return view


def _same_extent(a: Volume, b: Volume) -> bool:
    """Tell whether two volumes are as long in space along each axis, up to a part of a voxel."""
    along = zip(a.shape, b.shape, a.voxel_size or (), b.voxel_size or (), strict=True)
    same = _same_size(a, b)
    return all(n == m if same else abs(n * p - m * q) < max(p, q) for n, m, p, q in along)


def _fits(crop: str, volume: Volume) -> bool:
    try:
        parse_box(crop, volume.shape)
    except UsageError:
        return False
    return True


def _same_size(a: Volume, b: Volume) -> bool:
    one, two = a.voxel_size or (1.0, 1.0, 1.0), b.voxel_size or (1.0, 1.0, 1.0)
    return all(abs(p - q) <= SAME_EDGE * min(p, q) for p, q in zip(one, two, strict=True))


def _shapes(volumes: Sequence[Volume]) -> str:
    """Say shape and voxel size of each volume."""
    return ", but ".join(
        f"{volume.address} has shape {volume.shape} (z, y, x) of {_size(volume.voxel_size)}"
        for volume in volumes
    )


def _size(size: VoxelSize | None) -> str:
    return "unknown voxel size" if size is None else f"{' x '.join(f'{edge:.6g}' for edge in size)} nm"


def _say_sizes(volumes: Sequence[Volume]) -> None:
    """Warn where voxel sizes differ."""
    known = [volume for volume in volumes if volume.voxel_size is not None]
    if any(not _same_size(volume, known[0]) for volume in known[1:]):
        sizes = ", ".join(f"{volume.name} {_size(volume.voxel_size)}" for volume in known)
        same = " (the shapes are alike, so one of the sizes may be wrong)" if _alike(volumes) else ""
        _log.warning("voxel sizes differ: %s%s; compared where both lie, by the nearest voxel", sizes, same)


def _say_what_is_left(volumes: Sequence[Volume], found: Sequence[Volume], way_out: str) -> None:
    """Say which part of the first volume is compared, unless it is the whole."""
    whole, part = volumes[0], found[0]
    if isinstance(part, Cropped) and part.shape != whole.shape:
        others = "the other volume covers" if len(volumes) == 2 else "the other volumes cover"
        box = ", ".join(str(part.crop).split(","))
        _log.info("%s: comparing z, y, x = %s, the part that %s%s", whole.name, box, others, way_out)
