"""The synthetic cell as files: a grey volume, its exact labels, and the names of their classes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg import __version__
from vemseg.context import Context
from vemseg.drawing import palette
from vemseg.errors import InputError, ResourceError
from vemseg.files import write_text
from vemseg.geometry import Box
from vemseg.names import split_name
from vemseg.phantom import CLASSES, Phantom
from vemseg.resources import byte_text
from vemseg.run import Json, Output, Place, provenance, read_json, sidecar, write_json
from vemseg.volume import LabelForm, Volume, write_volume
from vemseg.volume.about import legend


class Painted(Volume):
    """The grey values or the labels of a phantom as a volume, painted as it is read.

    Parameters
    ----------
    phantom : Phantom
    paint : callable
        The method ``read`` or ``labels`` of the phantom.
    name : str
    tell : callable
        Told after each box how many voxels were painted.
    """

    def __init__(
        self,
        phantom: Phantom,
        paint: Callable[[Box], NDArray[np.uint8]],
        name: str,
        tell: Callable[[int], None],
    ) -> None:
        super().__init__(
            phantom.shape,
            np.dtype(np.uint8),
            voxel_size=phantom.voxel_size,
            voxel_size_from="phantom",
            name=name,
            path=None,
        )
        self._paint, self._tell = paint, tell

    def _read(self, box: Box) -> NDArray[np.generic]:
        painted = self._paint(box)
        self._tell(box.size)
        return painted


def write_phantom(phantom: Phantom, out: Path, *, overwrite: bool, context: Context) -> tuple[Path, Path]:
    """Write a phantom and its exact labels, unless they are there.

    Parameters
    ----------
    phantom : Phantom
    out : Path
        The grey volume, .tif or .ome.zarr. Beside it lie the labels, ``<stem>_labels``, the names of their
        classes, ``<stem>_classes.toml``, and ``<stem>.json``, which says how they were made.
    overwrite : bool
        Replace what is there.

    Raises
    ------
    OutputExistsError
        Where one of the files exists, is not of this very phantom, and ``overwrite`` is not set.
    ResourceError
        Where the files cannot be written.

    Returns
    -------
    Path, Path
        The grey volume and the labels.
    """
    stem, suffix = split_name(out)
    labels, names = out.with_name(f"{stem}_labels{suffix}"), out.with_name(f"{stem}_classes.toml")
    facts = {
        "output": out.name,
        "shape": list(phantom.shape),
        "seed": phantom.seed,
        "voxel_size_nm": list(phantom.voxel_size),
    }
    about = {"phantom": facts | {"classes": {str(k): name for k, name in CLASSES.items()}}}
    place, size = Place(out, *LabelForm().place(out)), 2 * Box.whole(phantom.shape).size
    least = size // 8 if place.folder else size  # stores are compressed
    output = Output(
        place,
        state=facts | {"vemseg": __version__},
        beside=[labels, names, sidecar(out)],
        record=lambda: _state_beside(out, facts),
        overwrite=overwrite,
        resumable=False,
    )
    with output:
        if output.done:
            return out, labels
        if (free := shutil.disk_usage(output.partial).free) < least:
            raise ResourceError(
                f"this phantom takes {byte_text(least)}, and the disk of {out} has {byte_text(free)} left: "
                "give a smaller --shape"
            )
        tell = _counter(size, context)
        marked = about | legend(CLASSES, dict(enumerate(palette(len(CLASSES)))))
        for path, paint, said in ((labels, phantom.labels, marked), (out, phantom.read, about)):
            painted = Painted(phantom, paint, stem, tell)
            write_volume(painted, output.growing(path), description=said)
        write_text(
            output.growing(names), "".join(f'{number} = "{name}"\n' for number, name in CLASSES.items())
        )
        write_json(output.growing(sidecar(out)), provenance("phantom", seed=phantom.seed, extra=about))
        output.publish()
    return out, labels


def _state_beside(out: Path, known: Iterable[str]) -> Json | None:
    """Return the state in the description beside a phantom, None where it describes something else."""
    try:
        made: Json = read_json(sidecar(out))
        return {key: made["phantom"][key] for key in known} | {"vemseg": made["vemseg"]}
    except (InputError, KeyError, TypeError):
        return None


def _counter(total: int, context: Context) -> Callable[[int], None]:
    """Return a function that takes the number of voxels just painted, and reports progress."""
    done = 0

    def tell(voxels: int) -> None:
        nonlocal done
        done += voxels
        context.report("painting", done / total, f"{done / 1e6:.1f}/{total / 1e6:.1f} Mvoxel")

    return tell
