"""``fetch``: volumes to work with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vemseg import __version__
from vemseg.files import write_text, writing
from vemseg.geometry import ZYX, Box, VoxelSize
from vemseg.names import split_name
from vemseg.phantom import CLASSES, Phantom
from vemseg.pipeline.common import Report, silent
from vemseg.run import provenance, read_json, sidecar, write_json
from vemseg.volume import Volume, check_output, publish_volume


class _Painted(Volume):
    """One face of a phantom as a volume; tells how many of its voxels were asked for."""

    def __init__(self, phantom: Phantom, face: str, name: str, tell: Callable[[int], None]) -> None:
        super().__init__(
            phantom.shape,
            np.dtype(np.uint8),
            voxel_size=phantom.voxel_size,
            voxel_size_from="phantom",
            name=name,
            path=None,
        )
        self._paint, self._tell = getattr(phantom, face), tell

    def _read(self, box: Box) -> NDArray[np.generic]:
        painted: NDArray[np.generic] = self._paint(box)
        self._tell(box.size)
        return painted


def fetch_phantom(
    out: Path, shape: ZYX, seed: int, voxel_size: VoxelSize, overwrite: bool, report: Report = silent
) -> tuple[Path, Path]:
    """Write a phantom and its exact labels.

    Parameters
    ----------
    out : Path
        Of the grey volume, .tif or .ome.zarr; the labels lie beside it, ``<stem>_labels``, and the names of
        their classes, ``<stem>_classes.toml``.
    shape : (int, int, int)
        Voxels, z y x.
    seed : int
        Same seed, same phantom.
    voxel_size : (float, float, float)
        nm, z y x.
    overwrite : bool
        Replace what is there.

    Raises
    ------
    OutputExistsError
        Where one of the files exists, is not of this very phantom, and ``overwrite`` is not set.

    Returns
    -------
    Path, Path
        The grey volume and the labels.
    """
    phantom = Phantom(shape, seed, voxel_size)
    stem, suffix = split_name(out)
    labels = out.with_name(f"{stem}_labels{suffix}")
    facts = {"output": out.name, "shape": list(shape), "seed": seed, "voxel_size_nm": list(voxel_size)}
    ours = _made_before(out, facts)
    if ours and out.exists() and labels.exists() and not overwrite:
        return out, labels
    for path in (out, labels):
        check_output(path, overwrite or ours)
    about = {"phantom": facts | {"classes": {str(k): name for k, name in CLASSES.items()}}}
    write = functools.partial(publish_volume, description=about, overwrite=overwrite or ours)
    tell = _counter(2 * Box.whole(shape).size, report)
    write_json(sidecar(out), provenance("phantom", seed=seed, extra=about))
    with writing(labels):
        write(_Painted(phantom, "labels", stem, tell), labels)
    names = "".join(f'{number} = "{name}"\n' for number, name in CLASSES.items())
    write_text(out.with_name(f"{stem}_classes.toml"), names)
    with writing(out):
        write(_Painted(phantom, "read", stem, tell), out)
    return out, labels


def _counter(total: int, report: Report) -> Callable[[int], None]:
    """Return what is told of voxels as they are painted, and reports how many of all they are."""
    done = 0

    def tell(voxels: int) -> None:
        nonlocal done
        done += voxels
        report("painting", done / total, f"{done / 1e6:.1f}/{total / 1e6:.1f} Mvoxel")

    return tell


def _made_before(out: Path, facts: dict[str, Any]) -> bool:
    """Tell whether this very phantom was made, or begun, by this version of vemseg."""
    path = sidecar(out)
    made = read_json(path) if path.exists() else {}
    phantom = {k: v for k, v in made.get("phantom", {}).items() if k != "classes"}
    return phantom == facts and made.get("vemseg") == __version__
