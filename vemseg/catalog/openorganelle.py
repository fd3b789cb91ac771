"""OpenOrganelle: where the volumes of the COSEM project lie in their public bucket.

Each data set is a folder of the bucket with a Zarr container, an N5 container, or both, and their paths are
the same: grey values under ``em``, labels under ``labels``. The containers are terabytes, so nothing is
downloaded whole.
"""

from __future__ import annotations

import re

from vemseg.errors import UsageError

ROOT = "https://janelia-cosem-datasets.s3.amazonaws.com"
"""The public bucket, over https and without an account."""

CONTAINERS = ("{name}/{name}.zarr/recon-1", "{name}/{name}.n5")
"""Where the containers of a data set lie below the bucket, the newer one first."""

IMAGES = ("em/fibsem-uint8", "em/fibsem-uint16")
"""Where grey values lie in a container, by preference."""

ABOUT = "Crops of OpenOrganelle: cells and tissues, FIB-SEM, 3 to 8 nm, many with labels of organelles"
LICENCE = "CC BY 4.0 for most, see https://openorganelle.janelia.org"
REFERENCE = "Heinrich et al., Nature 599 (2021), https://doi.org/10.1038/s41586-021-03977-3"

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def addresses(name: str, array: str | None = None, root: str = ROOT) -> list[str]:
    """Return where a volume of a data set may lie, the likeliest place first.

    Parameters
    ----------
    name : str
        The data set, such as ``jrc_hela-2``.
    array : str, optional
        A volume in its containers, such as ``labels/mito_seg``; the grey values where it is left out.
    root : str
        The bucket, or a mirror of it.

    Raises
    ------
    UsageError
        Where one of the names cannot be one.
    """
    parts = [name, *(array or "").strip("/").split("/")] if array is not None else [name]
    if wrong := [part for part in parts if not _PART.fullmatch(part)]:
        raise UsageError(f"'{wrong[0]}' is not a name in OpenOrganelle: write jrc_hela-2, or labels/mito_seg")
    inner = IMAGES if array is None else (array.strip("/"),)
    containers = [container.format(name=name) for container in CONTAINERS]
    return [f"{root.rstrip('/')}/{container}/{path}" for container in containers for path in inner]
