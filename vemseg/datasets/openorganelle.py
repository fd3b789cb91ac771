"""Crops of OpenOrganelle's volumes, read from the public bucket chunk by chunk and kept as a file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vemseg.catalog import openorganelle
from vemseg.context import Context
from vemseg.errors import Interrupted, MissingError
from vemseg.geometry import Box
from vemseg.run import Output, Place, provenance, sidecar, write_json
from vemseg.volume import Choice, LabelForm, Volume, absolute, is_there, open_volume, write_volume

_log = logging.getLogger("vemseg")


@dataclass(frozen=True)
class Part:
    """A part of a volume of OpenOrganelle.

    Attributes
    ----------
    name : str
        The data set, such as ``jrc_hela-2``.
    crop : str
        ``z0:z1,y0:y1,x0:x1`` in voxels of the level.
    array : str or None
        The volume in it, such as ``labels/mito_seg``; None for the grey values.
    level : str or None
        The level of its pyramid, 0 for the finest.
    root : str
        The bucket, or a mirror of it.
    """

    name: str
    crop: str
    array: str | None = None
    level: str | None = None
    root: str = openorganelle.ROOT

    @property
    def labelled(self) -> bool:
        """Whether the volume is one of labels, by its place."""
        return (self.array or "").startswith("labels")

    def open(self, context: Context) -> Volume:
        """Open the part; nothing but metadata is read yet.

        Raises
        ------
        MissingError
            Where there is no such data set or volume, or the context is offline.
        UsageError
            Where the crop cannot be parsed or reaches beyond the volume.
        InputError
            Where the bucket cannot be reached.
        """
        places = openorganelle.addresses(self.name, self.array, self.root)
        if context.offline:
            raise MissingError(f"{places[0]} lies on the network: leave --offline (VEMSEG_OFFLINE) out")
        found = next((place for place in places if is_there(place)), None)
        if found is None:
            where = self.array or "grey volume"
            raise MissingError(
                f"OpenOrganelle has no {where} of {self.name} (tried {', '.join(places)}): see "
                "https://openorganelle.janelia.org for the names"
            )
        return open_volume(found, crop=self.crop, choice=Choice(level=self.level))


class Watched(Volume):
    """A volume that reports how much of it was read, and stops reading where the work is to stop."""

    def __init__(self, source: Volume, context: Context) -> None:
        super().__init__(
            source.shape,
            source.dtype,
            voxel_size=source.voxel_size,
            voxel_size_from=source.voxel_size_from,
            name=source.name,
        )
        self.origin, self.start = source.origin, source.start
        self._source, self._context, self._done = source, context, 0

    def _read(self, box: Box) -> NDArray[np.generic]:
        if self._context.stopped():
            raise Interrupted(f"stopped while {self.name} was fetched: the same command starts again")
        voxels = self._source.read(box)
        self._done += box.size
        total = self.box.size
        text = f"{self._done / 1e6:.1f}/{total / 1e6:.1f} Mvoxel"
        self._context.report("fetching", min(1.0, self._done / total), text)
        return voxels


def write_part(part: Part, out: Path, *, overwrite: bool, context: Context) -> Path:
    """Write a part of a volume of OpenOrganelle, unless it is there; returns ``out``.

    Parameters
    ----------
    part : Part
    out : Path
        In a format by the suffix; ``<stem>.json`` beside it says where it comes from.
    overwrite : bool
        Replace what is there.
    context : Context

    Raises
    ------
    OutputExistsError
        Where the file exists, is not of this very part, and ``overwrite`` is not set.
    MissingError, UsageError, InputError
        As ``Part.open``.
    Interrupted
        Where it was stopped; nothing is kept.
    """
    LabelForm().check(out)
    state = {"output": out.name, "part": [part.name, part.crop, part.array, part.level, absolute(part.root)]}
    output = Output(
        Place(out, *LabelForm().place(out)),
        state=state,
        beside=[sidecar(out)],
        overwrite=overwrite,
        resumable=False,
    )
    with output:
        if output.done:
            _log.info("%s is there already, from the same place", out)
            return out
        volume = part.open(context)
        source = {"address": volume.address, "licence": openorganelle.LICENCE}
        said = {"openorganelle": source | {"crop": part.crop, "cite": openorganelle.REFERENCE}}
        write_volume(Watched(volume, context), output.growing(out), description=said, labelled=part.labelled)
        origin = provenance("openorganelle", extra={**said, "state": output.state})
        write_json(output.growing(sidecar(out)), origin)
        output.publish()
    return out
