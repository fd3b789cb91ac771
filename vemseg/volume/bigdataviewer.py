"""The XML of BigDataViewer, which states the voxel sizes of the HDF5 file or the N5 container beside it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from vemseg.foreign import reading
from vemseg.volume.frame import Frame


def frame_beside(file: Path, setup: str, factors: Sequence[float]) -> Frame | None:
    """Return what the XML beside a file states of the voxels of one of its set-ups.

    Parameters
    ----------
    file : Path
        The HDF5 file or N5 container; the XML has its name and the suffix ``.xml``.
    setup : str
        The number of the set-up, in digits.
    factors : sequence of float
        How many voxels of the finest level one is as long as, x y z.

    Returns
    -------
    Frame or None
        None where there is no XML, or it says nothing of this set-up.

    Raises
    ------
    InputError
        Where the XML is damaged.
    """
    xml = file.with_suffix(".xml")
    if not xml.is_file() or not setup.isdecimal():
        return None
    with reading(f"{xml} is not readable XML"):
        setups = ET.parse(xml).getroot().iter("ViewSetup")
        found = {int(each.findtext("id") or 0): each.find("voxelSize") for each in setups}
        voxel = found.get(int(setup))
        text = "" if voxel is None else voxel.findtext("size") or ""
        edges = [float(edge) for edge in text.replace(",", " ").split()]
    if voxel is None or len(edges) != 3 or len(factors) != 3:
        return None
    scale = tuple(edge * factor for edge, factor in zip(edges, factors, strict=True))[::-1]
    shift = tuple(edge * (factor - 1) / 2 for edge, factor in zip(edges, factors, strict=True))[::-1]
    return Frame(("z", "y", "x"), (voxel.findtext("unit"),) * 3, scale, shift, ordered=False)
